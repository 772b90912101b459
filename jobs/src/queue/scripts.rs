//! The Lua scripts that go around the parts of apalis-redis that do not hold.
//!
//! Each is one round trip, touches a bounded number of messages, and knows apalis-redis' keys:
//! `active` (list of ids that wait), `data` (hash id → payload), `meta:<id>` (hash per message),
//! `inflight:<worker>` (set of ids that a worker holds), `done` and `dead` (sets of ids), `scheduled`
//! (sorted set by time), `workers` (sorted set by last heartbeat).

use std::sync::LazyLock;

use ::redis::Script;

/// How many messages one call of a script touches. At 500 a call keeps Redis busy for less than
/// 10 ms; from 8,000 on Lua itself gives up ("too many results to unpack").
pub(super) const CHUNK: usize = 500;

/// Puts messages straight on the `active` list. apalis-redis' own push sends every message through
/// `scheduled`, whose promotion fails for ever from 8,000 due messages on.
///
/// Keys: data, meta, active. Arguments: id, payload, id, payload, ….
pub(super) static PUSH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for i = 1, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('HSET', KEYS[2] .. ':' .. ARGV[i], 'attempts', '0', 'max_attempts', '1', 'status', 'Pending')
  redis.call('RPUSH', KEYS[3], ARGV[i])
end
return #ARGV / 2",
    )
});

/// Removes up to n finished messages and all that belongs to them; apalis-redis keeps them for
/// ever, and its own vacuum reads every message in one call.
///
/// Keys: done or dead, data, meta. Argument: n. Answers how many.
pub(super) static SWEEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local ids = redis.call('SPOP', KEYS[1], ARGV[1])
for _, id in ipairs(ids) do
  redis.call('HDEL', KEYS[2], id)
  redis.call('UNLINK', KEYS[3] .. ':' .. id)
end
return #ids",
    )
});

/// Moves up to n due messages from `scheduled` to `active`. Nothing of ours goes to `scheduled`;
/// should anything ever pile up there, this keeps apalis-redis' own promotion from failing on it.
///
/// Keys: scheduled, active. Argument: n. Answers how many.
pub(super) static PROMOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local now = redis.call('TIME')[1]
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('RPUSH', KEYS[2], id)
end
return #ids",
    )
});

/// Gives up to n messages that an ended worker held back to the others, and forgets the worker when
/// it holds none. A message without payload is dropped and the others are made whole again: one that
/// apalis-redis cannot read would end every worker that fetches it.
///
/// Keys: `inflight:<worker>`, active, data, meta, workers, metadata of the worker. Arguments: worker,
/// n. Answers how many it took out of `inflight`.
pub(super) static RETIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local ids = redis.call('SPOP', KEYS[1], ARGV[2])
for _, id in ipairs(ids) do
  local meta = KEYS[4] .. ':' .. id
  if redis.call('HEXISTS', KEYS[3], id) == 1 then
    redis.call('HSET', meta, 'attempts', '0', 'max_attempts', '1', 'status', 'Pending')
    redis.call('HDEL', meta, 'locked_at', 'locked_by')
    redis.call('RPUSH', KEYS[2], id)
  else
    redis.call('UNLINK', meta)
  end
end
if #ids < tonumber(ARGV[2]) then
  redis.call('ZREM', KEYS[5], ARGV[1])
  redis.call('DEL', KEYS[6])
end
return #ids",
    )
});
