#!/usr/bin/env bash
# What a quorum costs: three local nodes, reads and writes with (R, W) = (1, 1), (2, 2), (3, 1),
# (1, 3), strict. Throughput, p99, processor seconds of all nodes per million requests. Loopback
# only, bounded load, every process ended by its id. Takes about four minutes on an otherwise idle
# machine.
#
#   perf/cluster/run.sh            writes perf/results/<date>-cluster.md
#
# ROUNDS (3), SECONDS_EACH (5), CONNECTIONS (24), DEPTH (8), KEYS (50000), SIZE (1024), DURABILITY
# (durable), SCRATCH (a folder on the disk to measure), PORT (15720; node 2 and 3 are 10 and 20
# above), PROFILE (release; debug to try the script), OUT (the file to write), CARGO_TARGET_DIR can
# be set. What is not built yet in the target folder is built.
set -euo pipefail
cd "$(dirname "$0")/../.."

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-5}
CONNECTIONS=${CONNECTIONS:-24}
DEPTH=${DEPTH:-8}
KEYS=${KEYS:-50000}
SIZE=${SIZE:-1024}
DURABILITY=${DURABILITY:-durable}
PORT=${PORT:-15720}
PROFILE=${PROFILE:-release}
OUT=${OUT:-perf/results/$(date +%F)-cluster.md}
SETTINGS="1,1 2,2 3,1 1,3"

command -v python3 >/dev/null || { echo "python3 is needed for the table"; exit 1; }
target=${CARGO_TARGET_DIR:-target}/$PROFILE
if [ ! -x "$target/coronetd" ] || [ ! -x "$target/coronet" ]; then
  [ "$PROFILE" = debug ] && flags=() || flags=(--profile "$PROFILE")
  # One command, so that both packages are built with one set of features.
  cargo build "${flags[@]}" -p coronet-server -p coronet-tools --bin coronetd --bin coronet
fi
scratch=$(mktemp -d -p "${SCRATCH:-/var/tmp}" coronet-cluster.XXXXXX)
results=$scratch/results
mkdir "$results"
cluster=

# Ends the cluster's first process, which ends the nodes, and waits for the end.
stop() {
  if [ -n "$cluster" ]; then
    kill "$cluster" 2>/dev/null || true
    wait "$cluster" 2>/dev/null || true
    cluster=
  fi
}
trap 'stop; rm -rf "$scratch"' EXIT

# Starts three nodes on a fresh folder; `nodes` gets their process ids, with commas.
start() {
  rm -rf "$scratch/data"
  "$target/coronetd" dev --nodes 3 --dir "$scratch/data" --port "$PORT" >"$scratch/log" 2>&1 &
  cluster=$!
  for _ in $(seq 300); do
    if grep -q "nodes serve" "$scratch/log"; then
      nodes=$(tr -s ' ' '\n' <"/proc/$cluster/task/$cluster/children" | grep . | paste -sd,)
      return
    fi
    kill -0 "$cluster" 2>/dev/null || break
    sleep 0.1
  done
  echo "the cluster did not start:"; cat "$scratch/log"; exit 1
}

# bench FILE ARGS...: the generator, its result to FILE.
bench() {
  local file=$1; shift
  "$target/coronet" --addr "127.0.0.1:$PORT" bench --json --quiet --strict --server-pid "$nodes" \
    --connections "$CONNECTIONS" --depth "$DEPTH" --keys "$KEYS" --value-size "$SIZE" "$@" \
    >"$results/$file.json"
  python3 perf/single_node/table.py line "$results/$file.json"
}

# Stores every key on all replicas; waits until the nodes have met.
load() {
  for _ in $(seq 100); do
    if "$target/coronet" --addr "127.0.0.1:$PORT" put probe x --w all --strict >/dev/null 2>&1; then
      bench fill --load-only --w all --durability "$DURABILITY" >/dev/null
      rm "$results/fill.json"
      return
    fi
    sleep 0.2
  done
  echo "the nodes did not meet:"; cat "$scratch/log"; exit 1
}

for round in $(seq "$ROUNDS"); do
  echo "== round $round of $ROUNDS"
  start
  load
  for setting in $SETTINGS; do
    quorum=(--r "${setting%,*}" --w "${setting#*,}" --durability "$DURABILITY")
    bench "get-$setting-$round" --read-percent 100 --warmup 1 --seconds "$SECONDS_EACH" "${quorum[@]}"
    bench "put-$setting-$round" --read-percent 0 --warmup 1 --seconds "$SECONDS_EACH" "${quorum[@]}"
    bench "mix-$setting-$round" --read-percent 90 --warmup 1 --seconds "$SECONDS_EACH" "${quorum[@]}"
  done
  stop
done

facts="$CONNECTIONS connections x $DEPTH deep, $KEYS keys, $SIZE byte values, $DURABILITY writes"
python3 perf/cluster/table.py "$results" "$OUT" "$facts, $ROUNDS rounds of $SECONDS_EACH s, $PROFILE build"
