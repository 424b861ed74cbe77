#!/usr/bin/env bash
# One node on one core beside a bare io_uring responder and Redis: cached GET, durable PUT, GET
# latency at half load with compactions running, idle cost. Loopback only, bounded load, every
# process ended by its id. Takes about five minutes on an otherwise idle machine.
#
#   perf/single_node/run.sh            writes perf/results/<date>-single_node.md
#
# ROUNDS (3), SECONDS_EACH (6), SCRATCH (a folder on the disk to measure), SERVER_CPU (0),
# LOAD_CPU (1) can be set.
set -euo pipefail
cd "$(dirname "$0")/../.."

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-6}
SERVER_CPU=${SERVER_CPU:-0}
LOAD_CPU=${LOAD_CPU:-1}
PORT=${PORT:-14720}
CONNECTIONS=50
DEPTH=16
KEYS=100000
SIZE=1024

command -v redis-server >/dev/null || { apt-get update -qq; apt-get install -y -qq redis-server; }
command -v python3 >/dev/null || { apt-get update -qq; apt-get install -y -qq python3; }
[ "$(nproc)" -ge 2 ] || { echo "two processors are needed: one for the server, one for the load"; exit 1; }

# One command, so that both packages are built with one set of features.
cargo build --release -p coronet-server -p coronet-tools --bin coronetd --bin coronet --example bare_responder
target=${CARGO_TARGET_DIR:-target}
coronet=$target/release/coronet
scratch=$(mktemp -d -p "${SCRATCH:-/var/tmp}" coronet-perf.XXXXXX)
out=$scratch/results
mkdir "$out"
server=
# coronetd: one data core is the default, the control core shares it.
export CORONET_LISTEN_PEERS=127.0.0.1:$((PORT + 1)) CORONET_LISTEN_HTTP=127.0.0.1:$((PORT + 2))

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

# Ends the running server, by its id, and waits for the end. The kernel closes what an io_uring
# holds a moment after the process is gone: the next server needs the port.
stop() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
    for _ in $(seq 200); do
      answers || break
      sleep 0.05
    done
  fi
}
trap 'stop; rm -rf "$scratch"' EXIT

# start NAME COMMAND...: starts a server pinned to its processor and waits for its port.
start() {
  local name=$1; shift
  taskset -c "$SERVER_CPU" "$@" >"$scratch/$name.log" 2>&1 &
  server=$!
  for _ in $(seq 200); do
    if answers; then return; fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
  done
  echo "$name did not start:"; cat "$scratch/$name.log"; exit 1
}

start_coronet() { rm -rf "$scratch/data"; start coronetd "$target/release/coronetd" dev --dir "$scratch/data" --port "$PORT"; }
# The bare responder answers frames of the very sizes that coronetd was just measured with.
start_bare() {
  read -r request reply < <(python3 perf/single_node/table.py sizes "$out/get-coronet-1.json")
  raw=(--raw "127.0.0.1:$PORT" --raw-request "$request" --raw-reply "$reply")
  start bare "$target/release/examples/bare_responder" "$PORT" "$request" "$reply"
}
# start_redis FSYNC: "none" without persistence, else the appendfsync policy.
start_redis() {
  rm -rf "$scratch/redis"; mkdir "$scratch/redis"
  local persist=(--appendonly no)
  [ "$1" = none ] || persist=(--appendonly yes --appendfsync "$1")
  start redis redis-server --port "$PORT" --bind 127.0.0.1 --dir "$scratch/redis" --save '' "${persist[@]}"
}

# bench FILE ARGS...: the generator, its result to FILE.
bench() {
  local file=$1; shift
  "$coronet" --addr "127.0.0.1:$PORT" bench --json --quiet --pin "$LOAD_CPU" --server-pid "$server" \
    --connections "$CONNECTIONS" --depth "$DEPTH" --keys "$KEYS" --value-size "$SIZE" "$@" >"$out/$file.json"
  python3 perf/single_node/table.py line "$out/$file.json"
}
resp=(--resp "127.0.0.1:$PORT")
only_get=(--read-percent 100 --warmup 1 --seconds "$SECONDS_EACH")
get=(--load "${only_get[@]}")
# Long enough for the memory to be there and for merges to owe nothing that the first seconds lent.
put=(--read-percent 0 --warmup 8 --seconds $((SECONDS_EACH * 2)))

for round in $(seq "$ROUNDS"); do
  echo "== GET, round $round of $ROUNDS"
  start_coronet;    bench "get-coronet-$round" "${get[@]}"; stop
  start_bare;       bench "get-bare-$round" "${raw[@]}" "${only_get[@]}"; stop
  start_redis none; bench "get-redis-$round" "${resp[@]}" "${get[@]}"; stop
done
for round in $(seq "$ROUNDS"); do
  echo "== PUT, round $round of $ROUNDS"
  start_coronet;        bench "put-coronet-$round" --durability durable "${put[@]}"; stop
  start_redis everysec; bench "put-redis_everysec-$round" "${resp[@]}" "${put[@]}"; stop
  start_redis always;   bench "put-redis_always-$round" "${resp[@]}" "${put[@]}"; stop
done

# An open loop sends every request by itself, so its peak is that of connections that do not
# pipeline; and it pays for each message, where a closed loop at its peak has many messages at hand
# whenever it looks. A quarter of the closed loop's peak with reads and writes keeps the server's
# core about half busy: the table shows how busy.
echo "== 90 % reads and 10 % durable writes without pipelining, then at half load with compactions"
start_coronet
DEPTH=1 bench "single-coronet-1" --load --read-percent 90 --warmup 4 --seconds "$SECONDS_EACH"
rate=$(python3 perf/single_node/table.py half "$out")
for round in $(seq "$ROUNDS"); do
  # Writes at full speed first: what they leave to merge is merged under the load that is measured.
  bench "churn-coronet-$round" --durability durable --read-percent 0 --warmup 1 --seconds 5
  bench "half-compaction-$round" --read-percent 90 --warmup 0 --seconds 10 --rate "$rate"
  bench "churn-again-$round" --durability durable --read-percent 0 --warmup 0 --seconds 4
  # The same question without the generator's clock: few connections in a closed loop.
  CONNECTIONS=8 DEPTH=1 bench "half-closed-$round" --read-percent 90 --warmup 0 --seconds 4
  bench "half-quiet-$round" --read-percent 100 --warmup 2 --seconds "$SECONDS_EACH" --rate "$rate"
done

echo "== idle for 10 s"
sleep 2
ticks() { sed 's/.*) //' "/proc/$server/stat" | awk '{print $12 + $13}'; }
before=$(ticks); sleep 10; after=$(ticks)
echo $(( (after - before) * 1000 / $(getconf CLK_TCK) )) >"$out/idle_ms"
stop
# What this machine's scheduler, network and generator cost at that rate whoever answers.
start_bare
for round in $(seq "$ROUNDS"); do
  bench "half-bare-$round" "${raw[@]}" --read-percent 100 --warmup 2 --seconds "$SECONDS_EACH" --rate "$rate"
done
stop

mkdir -p perf/results
python3 perf/single_node/table.py write "$out" "perf/results/$(date +%F)-single_node.md"
