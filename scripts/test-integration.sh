#!/usr/bin/env bash
# A client of 智链OS from beginning to end: the twelve scenarios that it has always had, and what stands
# beside them (roles, repeats, batches, deletion), against a running server. Each step checks the status
# and the values of the answer; the first that is wrong ends it, with the answer shown.
#
#   scripts/test-integration.sh                            starts the built program itself: SQLite, a free port
#   ZHILIAN_URL=http://127.0.0.1:8000 ZHILIAN_ADMIN_PASSWORD=… scripts/test-integration.sh
#
# Needs bash, curl, and one of jq, python3 or node to read answers. A server that it does not start itself
# keeps the records and the two users that it makes; the systems are deleted and the users closed at the end.
#
#   ZHILIAN_PROGRAM                    the program to start; by default the newest below target/
#   ZHILIAN_INTEGRATION_DATABASE_URL   a PostgreSQL database for it, empty and thrown away afterwards
#   ZHILIAN_INTEGRATION_REDIS_URL      a Redis for it
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/servers.sh
. scripts/servers.sh

readonly PATIENCE_SECS=30

command -v curl >/dev/null || fail "no \`curl\`; expected it installed"
reader=''
for candidate in jq python3 node; do
    # A name may stand for a program that is not installed, so it counts when it runs.
    if "$candidate" --version >/dev/null 2>&1; then reader=$candidate && break; fi
done
[ -n "$reader" ] || fail "nothing here reads JSON; expected one of \`jq\`, \`python3\` or \`node\` installed"

# --- reading answers -----------------------------------------------------------------------------

# look KIND|VALUE|LENGTH PATH: the type, the value or the length of what stands at a path (`0.total`) of
# $answer. What is not there is `absent`. Numbers are only whole ones here: amounts are compared as text.
look() {
    case $reader in
        jq) printf %s "$answer" | jq -r --arg what "$1" --arg path "$2" "$JQ" ;;
        python3) printf %s "$answer" | python3 -c "$PYTHON" "$1" "$2" ;;
        node) printf %s "$answer" | node -e "$NODE" "$1" "$2" ;;
    esac 2>/dev/null || echo unreadable
}

# shellcheck disable=SC2016 # these are not the shell's
readonly JQ='
    ($path | split(".") | map(select(. != ""))) as $keys
    | reduce $keys[] as $key ({there: true, it: .};
        if .there and (.it | type) == "object" and (.it | has($key)) then .it = .it[$key]
        elif .there and (.it | type) == "array" and ($key | test("^[0-9]+$")) and (.it | length) > ($key | tonumber)
        then .it = .it[$key | tonumber]
        else .there = false end)
    | if .there | not then "absent"
      elif $what == "KIND" then (.it | type)
      elif $what == "LENGTH" then (.it | length)
      elif (.it | type) == "string" then .it
      else (.it | tojson) end'

readonly PYTHON='
import json, sys
what, path = sys.argv[1:]
it, there = json.load(sys.stdin), True
for key in filter(None, path.split(".")):
    if isinstance(it, dict) and key in it:
        it = it[key]
    elif isinstance(it, list) and key.isdigit() and int(key) < len(it):
        it = it[int(key)]
    else:
        there = False
        break
kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
if not there:
    print("absent")
elif what == "KIND":
    print(kinds.get(type(it), "null"))
elif what == "LENGTH":
    print(len(it))
else:
    print(it if isinstance(it, str) else json.dumps(it, ensure_ascii=False, separators=(",", ":")))'

# shellcheck disable=SC2016 # these are not the shell's
readonly NODE='
const [what, path] = process.argv.slice(1);
let it = JSON.parse(require("fs").readFileSync(0, "utf8")), there = true;
for (const key of path.split(".").filter(Boolean)) {
  const known = it !== null && typeof it === "object" && Object.prototype.hasOwnProperty.call(it, key);
  if (known) it = it[key]; else { there = false; break; }
}
const kind = it === null ? "null" : Array.isArray(it) ? "array" : typeof it;
if (!there) console.log("absent");
else if (what === "KIND") console.log(kind);
else if (what === "LENGTH") console.log(Object.keys(it).length);
else console.log(kind === "string" ? it : JSON.stringify(it));'

# --- asking and expecting ------------------------------------------------------------------------

step='' steps=0 checks=0 status='' answer='' asked='' token=''
begin
headers=$scratch/headers

# A line for the step before is printed when all of it was right.
begin_step() { end_step; step=$1; checks=0; }
end_step() {
    [ -n "$step" ] || return 0
    steps=$((steps + 1))
    printf 'ok %2d  %-56s %2d checks\n' "$steps" "$step" "$checks"
    step=''
}

wrong() {
    printf 'WRONG   %s\n  %s\n  asked:  %s\n  status: %s\n  answer: %s\n' "$step" "$1" "$asked" "$status" \
        "$(printf %s "$answer" | hide | head -c 4000)" >&2
    exit 1
}
# Tokens and passwords are nobody's to read, also where something is wrong.
hide() { sed -E 's/("(access_token|token|secret|password)": ?")[^"]*/\1***/g'; }

# ask METHOD PATH [BODY [HEADER …]]: fills $status, $answer and the file $headers.
ask() {
    local method=$1 path=$2 body=${3-} output header arguments
    arguments=(-sS -X "$method" -D "$headers" -w '\n%{http_code}' --max-time 60)
    [ -z "$token" ] || arguments+=(-H "Authorization: Bearer $token")
    [ -z "$body" ] || arguments+=(-H 'Content-Type: application/json' --data-binary "$body")
    [ $# -lt 4 ] || for header in "${@:4}"; do arguments+=(-H "$header"); done
    asked="$method $path $(printf %s "$body" | hide | head -c 600)"
    status='none' answer=''
    output=$(curl "${arguments[@]}" "$url/api/v1$path") || wrong 'expected an answer'
    status=${output##*$'\n'} answer=${output%$'\n'*}
}

expect_status() { [ "$status" = "$1" ] || wrong "expected status $1"; checks=$((checks + 1)); }
# expect PATH VALUE
expect() {
    local found
    found=$(look VALUE "$1")
    [ "$found" = "$2" ] || wrong "expected \`$1\` to be \`$2\`, found \`$found\`"
    checks=$((checks + 1))
}
# expect_kinds KIND PATH …
expect_kinds() {
    local kind=$1 path found
    for path in "${@:2}"; do
        found=$(look KIND "$path")
        [[ "|$kind|" == *"|$found|"* ]] || wrong "expected \`$path\` to be of type $kind, found $found"
        checks=$((checks + 1))
    done
}
expect_length() {
    local found
    found=$(look LENGTH "$1")
    [ "$found" = "$2" ] || wrong "expected $2 at \`$1\`, found $found"
    checks=$((checks + 1))
}
# expect_amounts FIELD AMOUNT …: they are text-exact numbers, 296.80 is neither 296.8 nor "296.80".
expect_amounts() {
    while [ $# -gt 0 ]; do
        case $answer in *"\"$1\":$2"[,\}]*) ;; *) wrong "expected the number $2 as \`$1\`" ;; esac
        checks=$((checks + 1))
        shift 2
    done
}
expect_no_text() { case $answer in *"$1"*) wrong "expected no \`$1\` in the answer" ;; esac; checks=$((checks + 1)); }
expect_header() { grep -qi "^$1: *$2" "$headers" || wrong "expected a header \`$1: $2\`"; checks=$((checks + 1)); }
# expect_problem STATUS CODE: an error as every client of 智链OS knows it (`detail`), and as RFC 9457 has it.
expect_problem() {
    expect_status "$1"
    expect code "$2"
    expect_kinds string detail request_id
    expect_header content-type application/problem+json
}

# --- the server ----------------------------------------------------------------------------------

newest_program() {
    local folder=${CARGO_TARGET_DIR:-target} candidate newest=''
    for candidate in "$folder/release/zhilian-sync" "$folder/debug/zhilian-sync"; do
        [ -x "$candidate" ] || continue
        if [ -z "$newest" ] || [ "$candidate" -nt "$newest" ]; then newest=$candidate; fi
    done
    echo "$newest"
}

start_server() {
    local program port log=$scratch/server.log server
    program=${ZHILIAN_PROGRAM:-$(newest_program)}
    [ -x "$program" ] || fail "no program at \`${program:-target/}\`; expected one there, run: cargo build"
    port=$(free_port)
    url=http://127.0.0.1:$port
    export DATABASE_URL=${ZHILIAN_INTEGRATION_DATABASE_URL:-sqlite:$scratch/zhilian.db} PORT=$port
    unset REDIS_URL ZHILIAN_MASTER_KEY ZHILIAN_MASTER_KEY_FILE
    if [ -n "${ZHILIAN_INTEGRATION_REDIS_URL-}" ]; then export REDIS_URL=$ZHILIAN_INTEGRATION_REDIS_URL; fi
    if [ -n "${ZHILIAN_INTEGRATION_DATABASE_URL-}" ]; then
        ZHILIAN_MASTER_KEY=$(head -c 32 /dev/urandom | base64)
        export ZHILIAN_MASTER_KEY
    fi
    export ZHILIAN_ADMIN_PASSWORD=$password
    # The connection that is tested is one to the server itself.
    export ZHILIAN__VENDORS__ALLOW_NETWORKS=127.0.0.1:$port ZHILIAN__LOG__FILTER=warn
    "$program" serve >"$log" 2>&1 &
    server=$!
    servers+=("TERM:$server")
    for _ in $(seq $((PATIENCE_SECS * 10))); do
        if curl -sf "$url/api/v1/health/ready" >/dev/null 2>&1; then return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$log" >&2
    fail "the server did not start, see above"
}

url=${ZHILIAN_URL-} password=${ZHILIAN_ADMIN_PASSWORD:-admin123}
url=${url%/}
if [ -z "$url" ]; then
    start_server
    endpoint=$url
else
    endpoint=https://pos.invalid # answers nobody
fi
say "$url, answers read with $reader"

# Whatever was made before, this time's ids are new.
unique=$(date +%s)-$$
store=STORE-$unique

sign_in() {
    token=''
    ask POST /auth/login "{\"username\": \"$1\", \"password\": \"$2\"}"
}

# --- the twelve scenarios ------------------------------------------------------------------------

begin_step 'the administrator signs in'
sign_in admin "not-$password"
expect_problem 401 wrong_credentials
sign_in admin "$password"
expect_status 200
expect token_type bearer
expect user.role admin
expect_kinds string access_token
admin=$(look VALUE access_token)
ask GET /integrations/systems
expect_status 401
token=$admin

# What every system shows, and that none shows its secrets.
readonly SECRET_KEY=key-that-nobody-sees SECRET=secret-that-nobody-sees
expect_system() {
    expect_status 200
    expect name "$1"
    expect type "$2"
    expect status inactive
    expect store_id "$store"
    expect sync_enabled true
    expect sync_interval 300
    expect api_endpoint "$endpoint"
    expect last_sync_at null
    expect last_sync_status null
    expect_kinds string id provider created_at updated_at
    expect_kinds number version
    expect_kinds 'string|null' webhook_url
    expect_no_text nobody-sees
}

begin_step 'creates a POS system'
ask POST /integrations/systems "{\"name\": \"收银系统 $unique\", \"type\": \"pos\", \"provider\": \"house-pos\", \"store_id\": \"$store\",
    \"config\": {\"api_endpoint\": \"$endpoint\", \"api_key\": \"$SECRET_KEY\", \"api_secret\": \"$SECRET\",
        \"webhook_url\": \"https://sync.example.com/pos\", \"probe_path\": \"/api/v1/health/live\"},
    \"sync_enabled\": true, \"sync_interval\": 300}"
expect_system "收银系统 $unique" pos
expect webhook_url https://sync.example.com/pos
pos=$(look VALUE id)

begin_step 'creates a supplier system'
ask POST /integrations/systems "{\"name\": \"供应商系统 $unique\", \"type\": \"supplier\", \"provider\": \"house-supplier\", \"store_id\": \"$store\",
    \"api_endpoint\": \"$endpoint\", \"api_key\": \"$SECRET_KEY\", \"api_secret\": \"$SECRET\", \"sync_interval\": 300}"
expect_system "供应商系统 $unique" supplier
supplier=$(look VALUE id)

begin_step 'creates a member system'
ask POST /integrations/systems "{\"name\": \"会员系统 $unique\", \"type\": \"member\", \"provider\": \"house-crm\", \"store_id\": \"$store\",
    \"config\": {\"api_endpoint\": \"$endpoint\", \"api_key\": \"$SECRET_KEY\"}}"
expect_system "会员系统 $unique" member
member=$(look VALUE id)

begin_step 'lists the systems, and tests a connection'
ask GET "/integrations/systems?store_id=$store"
expect_status 200
expect_length '' 3
expect 0.id "$member"
expect 2.id "$pos"
expect_no_text nobody-sees
ask GET "/integrations/systems?store_id=$store&type=supplier&status=inactive"
expect_length '' 1
expect 0.id "$supplier"
ask PUT "/integrations/systems/$supplier" '{"name": "供应商", "sync_interval": 600}'
expect_status 200
expect name 供应商
expect sync_interval 600
expect api_endpoint "$endpoint"
ask POST "/integrations/systems/$pos/test"
if [ "$endpoint" = "$url" ]; then
    expect_status 200
    expect success true
    expect_kinds string message
    ask GET "/integrations/systems/$pos"
    expect status active
elif [ "$status" = 200 ]; then
    expect success false
    expect_kinds string error
else
    expect_status 202 # it takes longer than anybody waits
fi

# A transaction as clients shape it; $1 is its id, $2 its total.
transaction() {
    printf '{"transaction_id": "%s", "order_number": "%s-N", "type": "sale", "subtotal": 280.00, "tax": 16.80, "discount": 0.00,
        "total": %s, "payment_method": "wechat", "items": [{"name": "宫保鸡丁", "quantity": 2, "price": 58.00}],
        "customer": {"name": "张三", "phone": "13800138000"}, "transaction_time": "2024-02-15T10:00:00"}' "$1" "$1" "$2"
}
expect_transaction() { # $1 is where it stands in the answer
    expect "$1system_id" "$pos"
    expect "$1store_id" "$store"
    expect "$1pos_order_number" "TXN-$unique-N"
    expect "$1transaction_type" sale
    expect "$1payment_method" wechat
    expect "$1sync_status" success
    expect "$1transaction_time" 2024-02-15T02:00:00.000Z # no zone is that of the system, Asia/Shanghai
    expect "$1items.0.quantity" 2
    expect "$1customer_info.phone" 13800138000
    expect_kinds string "${1}id" "${1}created_at"
    expect_amounts subtotal 280.00 tax 16.80 discount 0.00 total 296.80
}

begin_step 'creates a POS transaction'
ask POST "/integrations/pos/$pos/transactions" "$(transaction "TXN-$unique" 296.80)"
expect_status 200
expect pos_transaction_id "TXN-$unique"
expect_transaction ''
transaction=$(look VALUE id)
ask POST "/integrations/pos/$pos/transactions" "$(transaction "BAD-$unique" 296.805)"
expect_problem 422 invalid_values
expect errors.0.field total
ask POST "/integrations/pos/$supplier/transactions" "$(transaction "BAD-$unique" 1)"
expect_problem 400 wrong_system_type
ask POST "/integrations/pos/00000000-0000-7000-8000-000000000000/transactions" "$(transaction "BAD-$unique" 1)"
expect_problem 404 not_found

begin_step 'reads the POS transactions'
ask GET "/integrations/pos/transactions?store_id=$store&sync_status=success&limit=10"
expect_status 200
expect_length '' 1
expect 0.id "$transaction"
expect_transaction 0.
ask GET "/integrations/pos/transactions/$transaction"
expect_status 200
expect id "$transaction"
expect_transaction ''
ask GET "/integrations/pos/transactions?store_id=$store&order_number=TXN-$unique-N&phone=13800138000&type=sale&from=2024-02-15T00:00:00Z&to=2024-02-16T00:00:00Z"
expect_length '' 1
ask GET "/integrations/pos/transactions?store_id=$store&type=refund"
expect_length '' 0

order() { # $1 is its number, $2 its total
    printf '{"order_number": "%s", "supplier_id": "SUP-7", "supplier_name": "新鲜蔬菜供应商", "type": "purchase", "status": "pending",
        "subtotal": 1000.00, "tax": 60.00, "shipping": 50.00, "total": %s, "items": [{"name": "土豆", "quantity": 100, "price": 5.00}],
        "delivery": {"address": "北京市朝阳区"}, "order_date": "2024-02-15T10:00:00", "expected_delivery": "2024-02-17T08:00:00"}' "$1" "$2"
}
expect_order() {
    expect "$1system_id" "$supplier"
    expect "$1store_id" "$store"
    expect "$1order_number" "PO-$unique"
    expect "$1supplier_id" SUP-7
    expect "$1supplier_name" 新鲜蔬菜供应商
    expect "$1order_type" purchase
    expect "$1status" pending
    expect "$1order_date" 2024-02-15T02:00:00.000Z
    expect "$1expected_delivery" 2024-02-17T00:00:00.000Z
    expect "$1actual_delivery" null
    expect "$1sync_status" success
    expect_kinds string "${1}id" "${1}created_at"
    expect_amounts subtotal 1000.00 tax 60.00 shipping 50.00 total 1110.00
}

begin_step 'creates a supplier order'
ask POST "/integrations/supplier/$supplier/orders" "$(order "PO-$unique" 1110.00)"
expect_status 200
expect_order ''
order=$(look VALUE id)
ask POST "/integrations/supplier/$pos/orders" "$(order "BAD-$unique" 1)"
expect_problem 400 wrong_system_type

begin_step 'reads the supplier orders'
ask GET "/integrations/supplier/orders?store_id=$store&status=pending&limit=10"
expect_status 200
expect_length '' 1
expect 0.id "$order"
expect_order 0.
ask GET "/integrations/supplier/orders/$order"
expect_status 200
expect_order ''
ask GET "/integrations/supplier/orders?store_id=$store&status=delivered"
expect_length '' 0

begin_step 'synchronises a member'
ask POST "/integrations/member/$member/sync" "{\"member_id\": \"M-$unique\", \"external_id\": \"EXT-$unique\", \"phone\": \"13900139000\",
    \"name\": \"李四\", \"email\": \"li@example.com\", \"level\": \"gold\", \"points\": 1000, \"balance\": 500.00}"
expect_status 200
expect system_id "$member"
expect member_id "M-$unique"
expect external_member_id "EXT-$unique"
expect phone 13900139000
expect name 李四
expect email li@example.com
expect level gold
expect points 1000
expect_amounts balance 500.00
expect_kinds string id sync_status created_at
expect_kinds 'string|null' last_activity
record=$(look VALUE id)
ask POST "/integrations/member/$member/sync" "{\"member_id\": \"M-$unique\", \"phone\": \"13900139000\", \"name\": \"李四\", \"level\": \"platinum\", \"points\": 1200, \"balance\": 480.50}"
expect_status 200
expect id "$record" # the same member, changed
expect level platinum
expect points 1200
expect_amounts balance 480.50
ask GET "/integrations/member/members?store_id=$store&phone=13900139000"
expect_status 200
expect_length '' 1
expect 0.id "$record"
expect 0.level platinum
ask POST "/integrations/member/$member/sync" "{\"member_id\": \"M-$unique\", \"points\": \"1200\"}"
expect_problem 422 invalid_values # a text is no number

begin_step 'receives webhooks'
token=''
ask POST "/integrations/webhooks/pos/$pos" "{\"event\": \"order.created\", \"data\": {\"transaction_id\": \"HOOK-$unique\", \"total\": 88.00}}"
expect_status 200
expect success true
expect event_type order.created
expect_kinds string message
ask POST "/integrations/webhooks/supplier/$supplier" "{\"event\": \"order.status_changed\", \"data\": {\"order_number\": \"PO-$unique\", \"status\": \"delivered\"}}"
expect_status 200
expect event_type order.status_changed
token=$admin
ask GET "/integrations/webhook-events?system_id=$pos"
expect_status 200
expect_length '' 1
expect 0.state quarantined # nobody signed it, so nothing is changed by it
ask GET "/integrations/supplier/orders/$order"
expect status pending
ask GET "/integrations/pos/transactions?store_id=$store&order_number=HOOK-$unique"
expect_length '' 0

begin_step 'reads the sync logs'
ask GET "/integrations/sync-logs?system_id=$pos&sync_type=connection_test&limit=10"
expect_status 200
expect_length '' 1
expect 0.system_id "$pos"
expect 0.sync_type connection_test
expect_kinds string 0.id 0.status 0.created_at
expect_kinds number 0.records_total 0.records_success 0.records_failed
expect_kinds 'string|null' 0.started_at 0.completed_at 0.error_message
expect_kinds 'number|null' 0.duration_seconds
[ "$endpoint" != "$url" ] || expect 0.status success
ask GET "/integrations/sync-logs?limit=5000"
expect_problem 422 invalid_values

# --- beside them ---------------------------------------------------------------------------------

new_password=long-enough-$unique
create_user() { # $1 is the role
    ask POST /users "{\"username\": \"$1-$unique\", \"password\": \"$new_password\", \"role\": \"$1\", \"store_id\": \"$2\"}"
    expect_status 200
    expect role "$1"
    expect_no_text "$new_password"
}

begin_step 'roles: each may do what it may, in its own store'
create_user staff "$store"
staff_id=$(look VALUE id)
create_user warehouse_manager "OTHER-$unique"
other_id=$(look VALUE id)
sign_in "staff-$unique" "$new_password"
expect_status 200
expect user.store_id "$store"
token=$(look VALUE access_token)
ask POST "/integrations/pos/$pos/transactions" "$(transaction "TXN-$unique" 296.80)"
expect_status 200
ask POST "/integrations/supplier/$supplier/orders" "$(order "STAFF-$unique" 1)"
expect_problem 403 forbidden
ask POST "/integrations/member/$member/sync" "{\"member_id\": \"STAFF-$unique\"}"
expect_problem 403 forbidden
ask POST /integrations/systems '{"name": "x", "type": "pos", "provider": "house-pos"}'
expect_problem 403 forbidden
ask DELETE "/integrations/systems/$pos"
expect_problem 403 forbidden
ask GET /users
expect_problem 403 forbidden
sign_in "warehouse_manager-$unique" "$new_password"
expect_status 200
token=$(look VALUE access_token)
ask GET "/integrations/systems/$supplier"
expect_problem 404 not_found # it belongs to another store
ask POST "/integrations/supplier/$supplier/orders" "$(order "OTHER-$unique" 1)"
expect_problem 404 not_found
ask GET /integrations/supplier/orders
expect_status 200
expect_length '' 0
token=$admin

begin_step 'repeats: the same once more is the same, and one effect'
ask POST "/integrations/pos/$pos/transactions" "$(transaction "TXN-$unique" 296.80)"
expect_status 200
expect id "$transaction"
ask POST "/integrations/pos/$pos/transactions" "$(transaction "KEY-$unique" 10.00)" "Idempotency-Key: $unique"
expect_status 200
first=$answer
ask POST "/integrations/pos/$pos/transactions" "$(transaction "KEY-$unique" 10.00)" "Idempotency-Key: $unique"
expect_status 200
expect_header Idempotency-Replayed true
[ "$answer" = "$first" ] || wrong "expected the first answer, which was $first"
ask POST "/integrations/pos/$pos/transactions" "$(transaction "KEY-$unique" 20.00)" "Idempotency-Key: $unique"
expect_problem 422 idempotency_key_reused
ask GET "/integrations/pos/transactions?store_id=$store"
expect_length '' 2

begin_step 'batches: the good are stored, the bad explained'
ask POST "/integrations/pos/$pos/transactions/batch" "{\"records\": [$(transaction "B1-$unique" 1.00), $(transaction "TXN-$unique" 296.80),
    $(transaction "B3-$unique" 1.005), $(transaction "KEY-$unique" 11.00)]}"
expect_status 200
expect total 4
expect created 1
expect unchanged 1
expect failed 1
expect updated 1
expect_length results 4
expect results.0.status created
expect results.0.id "B1-$unique"
expect results.1.status unchanged
expect results.1.record_id "$transaction"
expect results.2.status failed
expect results.2.index 2
expect results.2.error.errors.0.field total
expect results.3.status updated
ask POST "/integrations/supplier/$supplier/orders/batch" "{\"records\": [$(order "PO-$unique" 1110.00), $(order "PO2-$unique" 5.00)]}"
expect_status 200
expect created 1
expect unchanged 1
ask POST "/integrations/member/$member/members/batch" "{\"records\": [{\"member_id\": \"M1-$unique\", \"points\": 1}, {\"member_id\": \"M2-$unique\", \"points\": -1.5}]}"
expect_status 200
expect created 1
expect failed 1
ask GET "/integrations/member/members?store_id=$store"
expect_length '' 2

begin_step 'deletion: the systems go, their records stay'
for system in "$pos" "$supplier" "$member"; do
    ask DELETE "/integrations/systems/$system"
    expect_status 200
    expect success true
    expect_kinds string message
    ask GET "/integrations/systems/$system"
    expect_problem 404 not_found
done
ask GET "/integrations/pos/transactions?store_id=$store"
expect_status 200
expect_length '' 3
for user in "$staff_id" "$other_id"; do
    ask DELETE "/users/$user"
    expect_status 200
done
sign_in "staff-$unique" "$new_password"
expect_problem 401 wrong_credentials
token=$admin
ask POST /auth/logout
expect_status 200
ask GET /auth/me
expect_status 401
end_step
say "all $steps steps are right"
