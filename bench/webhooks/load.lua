-- Posts signed events from the file that events.py makes; every record of it is one whole request.
-- The threads take turns with blocks of records, so no event is sent twice, neither within a run nor,
-- with FIRST_BLOCK moved on by what the run before took, within all runs.

local BLOCK = 64

local path = os.getenv("EVENTS_FILE")
local size = tonumber(os.getenv("EVENT_BYTES"))
local first_block = tonumber(os.getenv("FIRST_BLOCK"))
local blocks = tonumber(os.getenv("BLOCKS"))
local threads = tonumber(os.getenv("THREADS"))
local members = {}

-- In wrk's own state, once for each thread.
function setup(thread)
  thread:set("number", #members)
  members[#members + 1] = thread
end

-- From here on in the thread's own state.
function init()
  file = assert(io.open(path, "rb"))
  next_block = first_block + number
  taken, at, buffer, exhausted = 0, BLOCK, nil, false
  next_one()
end

local function read_block()
  if next_block >= blocks then return nil end
  file:seek("set", next_block * BLOCK * size)
  next_block = next_block + threads
  taken = taken + 1
  return file:read(BLOCK * size)
end

function next_one()
  if at == BLOCK then
    local block = read_block()
    -- Nothing is repeated: the run is void, and says so.
    if block == nil then exhausted = true else buffer = block end
    at = 0
  end
  at = at + 1
  return buffer:sub((at - 1) * size + 1, at * size)
end

function request()
  return next_one()
end

function done(summary, latency)
  local taken_most, out = 0, false
  for _, member in ipairs(members) do
    taken_most = math.max(taken_most, member:get("taken"))
    out = out or member:get("exhausted")
  end
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answers": %d, "seconds": %.6f, "not_2xx": %d, "broken": %d, "p50_us": %d, "p99_us": %d, '
      .. '"p999_us": %d, "max_us": %d, "blocks_taken": %d, "exhausted": %s}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max,
    taken_most * threads, tostring(out)))
end
