# shellcheck shell=bash
# Sourced by bench/webhooks/run and bench/api/run, after scripts/servers.sh: a PostgreSQL and a Redis that
# are as durable as they come, unlike those of the tests, and programs that are installed where missing.

# Programs that are not there are installed, without starting services.
need() {
    local program=$1 package=$2
    command -v "$program" >/dev/null && return
    say "installing $package"
    local admin=''
    [ "$(id -u)" = 0 ] || admin='sudo -n'
    $admin env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >&2 ||
        fail "no \`$program\`; expected it installed, as by: apt-get install $package"
}

postgres_folder=''
find_postgres() {
    local folder
    for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin "$(dirname "$(command -v postgres || echo /nowhere/none)")"; do
        [ -x "$folder/initdb" ] && [ -x "$folder/pgbench" ] && postgres_folder=$folder
    done
    [ -n "$postgres_folder" ] || fail "no PostgreSQL with \`pgbench\`; expected one, as by: apt-get install postgresql"
}

# PostgreSQL refuses to run as root.
as_postgres() {
    if [ "$(id -u)" != 0 ]; then exec "$@"; fi
    exec setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups "$@"
}

# As it comes: fsync and synchronous_commit are on. Only the checkpoints are moved to where no receiver
# pays for another's writes, the log's files are kept and used again, and there are enough connections.
start_postgres() {
    local data=$scratch/postgres log=$scratch/postgres.log
    mkdir "$data"
    chmod 711 "$scratch"
    [ "$(id -u)" != 0 ] || chown postgres "$data"
    (cd / && as_postgres "$postgres_folder/initdb" -D "$data" -U postgres --auth=trust --encoding=UTF8 --locale=C) \
        >"$log" 2>&1 || { cat "$log" >&2; fail "initdb failed, see above"; }
    BENCH_POSTGRES_PORT=$(free_port)
    (cd / && as_postgres "$postgres_folder/postgres" -D "$data" -p "$BENCH_POSTGRES_PORT" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300 \
        -c shared_buffers=1GB -c min_wal_size=2GB -c max_wal_size=8GB -c checkpoint_timeout=1h) >>"$log" 2>&1 &
    BENCH_POSTGRES_PROCESS=$!
    servers+=("INT:$BENCH_POSTGRES_PROCESS")
    for _ in {1..300}; do
        "$postgres_folder/pg_isready" -q -h 127.0.0.1 -p "$BENCH_POSTGRES_PORT" && return
        kill -0 "$BENCH_POSTGRES_PROCESS" 2>/dev/null || break
        sleep 0.1
    done
    cat "$log" >&2
    fail "PostgreSQL did not start, see above"
}

# Nothing of it is written to the disk, which spares the receivers that keep their queue in it.
start_redis() {
    mkdir "$scratch/redis"
    BENCH_REDIS_PORT=$(free_port)
    redis-server --bind 127.0.0.1 --port "$BENCH_REDIS_PORT" --dir "$scratch/redis" --save '' --appendonly no \
        --daemonize no >"$scratch/redis.log" 2>&1 &
    BENCH_REDIS_PROCESS=$!
    servers+=("TERM:$BENCH_REDIS_PROCESS")
    for _ in {1..100}; do
        answers "$BENCH_REDIS_PORT" && return
        kill -0 "$BENCH_REDIS_PROCESS" 2>/dev/null || break
        sleep 0.1
    done
    cat "$scratch/redis.log" >&2
    fail "Redis did not start, see above"
}
