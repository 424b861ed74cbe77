#!/bin/sh
# Compares servers over the runtime seam with bare io_uring ones, interleaved, on this machine.
#
#   perf/seam/run.sh [ROUNDS] [SECONDS]
#
# The server runs on CPU 0, the client on CPU 1. The client's core saturates first in some cases,
# so the fair figure is the server's CPU time per request: user and system time of all threads of
# the process, from /proc/PID/stat. Needs two CPUs. Prints a table and seam/bare ratios.
set -eu
cd "$(dirname "$0")/../.."
rounds=${1:-3}
seconds=${2:-4}
# On a busy machine: PRIORITY="chrt -f 10" keeps other processes off the two CPUs (needs root).
PRIORITY=${PRIORITY:-}
cargo build --release -q -p coronet-server --example bare_echo --example bare_responder \
    --example rt_echo --example echo_load
bin=${CARGO_TARGET_DIR:-target}/release/examples
hertz=$(getconf CLK_TCK)
results=$(mktemp)
server=
port=${PORT:-21000}
trap 'rm -f "$results"; [ -z "$server" ] || kill "$server" 2>/dev/null || :' EXIT

cpu_ticks() { # user + system time of all threads; the name in parentheses may hold spaces
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

# measure CASE NAME CONNECTIONS DEPTH REQUEST REPLY COMMAND [SIZES...]
measure() {
    case=$1 name=$2 connections=$3 depth=$4 request=$5 reply=$6 command=$7
    shift 7
    # The kernel frees the port of a killed ring a little after its process: never reuse one.
    port=$((port + 1))
    taskset -c 0 $PRIORITY "$bin/$command" "$port" "$@" &
    server=$!
    sleep 0.5
    kill -0 "$server"
    taskset -c 1 $PRIORITY "$bin/echo_load" "$port" "$connections" "$depth" "$request" "$reply" 1 >/dev/null
    before=$(cpu_ticks "$server")
    line=$(taskset -c 1 $PRIORITY "$bin/echo_load" "$port" "$connections" "$depth" "$request" "$reply" \
        "$seconds")
    after=$(cpu_ticks "$server")
    kill "$server"
    wait "$server" 2>/dev/null || :
    server=
    echo "$line" | awk -v case="$case" -v name="$name" -v ticks=$((after - before)) \
        -v hertz="$hertz" '{
            printf "%s %s %d %.4f\n", case, name, $1, ticks / hertz / $3 * 1e6 }' | tee -a "$results"
}

echo "case server requests/s server-CPU-us/request"
for round in $(seq "$rounds"); do
    for shape in "50 16" "32 1"; do
        set -- $shape
        measure "echo-64B-${1}x$2" bare "$1" "$2" 64 64 bare_echo
        measure "echo-64B-${1}x$2" seam "$1" "$2" 64 64 rt_echo
        measure "get-1KiB-${1}x$2" bare "$1" "$2" 80 1126 bare_responder 80 1126
        measure "get-1KiB-${1}x$2" seam "$1" "$2" 80 1126 rt_echo 80 1126
    done
done
echo
# Medians: on a shared machine single rounds are disturbed.
sort -k1,1 -k2,2 -k4,4n "$results" | awk '
    { n = ++count[$1, $2]; rate[$1, $2, n] = $3; cpu[$1, $2, n] = $4; cases[$1] = 1 }
    END {
        printf "%-18s %12s %12s %10s %10s %7s\n", "median of case",
            "bare req/s", "seam req/s", "bare us", "seam us", "ratio"
        for (c in cases) {
            m = int((count[c, "bare"] + 1) / 2); b = cpu[c, "bare", m]
            k = int((count[c, "seam"] + 1) / 2); s = cpu[c, "seam", k]
            printf "%-18s %12d %12d %10.3f %10.3f %7.3f\n", c, rate[c, "bare", m],
                rate[c, "seam", k], b, s, s / b
        }
    }'
