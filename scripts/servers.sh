# shellcheck shell=bash
# Sourced by scripts/with-backends and scripts/with-prism: free ports, a temporary folder, and an
# end that leaves neither servers nor data behind.

# The script that sources this, for its messages.
script="scripts/$(basename "$0")"

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
skipped() { printf '\033[1;33m==> SKIPPED: %s\033[0m\n' "$*" >&2; }
fail() { printf '\033[1;31m%s: %s\033[0m\n' "$script" "$*" >&2; exit 1; }

# Whether something listens on a port of this machine.
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port below the range from which the system hands out ports of its own accord.
free_port() {
    local port
    for _ in {1..200}; do
        port=$((20000 + RANDOM % 12000))
        answers "$port" || { echo "$port"; return; }
    done
    fail "no free port between 20000 and 32000"
}

scratch='' servers=() command_pid=''

# What a script undoes itself before its servers end and its folder goes; overridden where needed.
before_end() { :; }

# Ends the servers, each noted as `signal:process`. Their data is thrown away, so the signal is the
# quickest that they heed.
clean_up() {
    local status=$? server
    trap - EXIT
    before_end
    [ -z "$command_pid" ] || kill -TERM -- "-$command_pid" 2>/dev/null || true
    for server in "${servers[@]}"; do kill "-${server%%:*}" "${server##*:}" 2>/dev/null || true; done
    for server in "${servers[@]}"; do
        for _ in {1..50}; do kill -0 "${server##*:}" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "${server##*:}" 2>/dev/null || true
    done
    [ -z "$scratch" ] || rm -rf "$scratch"
    exit "$status"
}

begin() {
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/zhilian-sync.XXXXXX")
}

# Runs the command and hands on its status. In the background, so that a signal to this script is
# heard meanwhile; as a process group (`set -m`), so that the signal can be passed on to all of it.
run() {
    local status=0
    set -m
    "$@" <&0 &
    command_pid=$!
    set +m
    wait "$command_pid" || status=$?
    command_pid=''
    exit "$status"
}
