#!/usr/bin/env bash
# The engine beside RocksDB and fjall: same keys, values, memory, durability and processor, one
# process per engine and workload. Prints the table and writes it, with JSON and plots, to
# perf/results. See README.md.
#
#   perf/engines/run.sh --quick        ten minutes, small data
#   perf/engines/run.sh                hours, some GiB of data per engine
#
# Everything behind the options below goes to the program: --engines coronet,fjall,
# --workloads fillrandom,overwrite, --values 1024 and so on (`--help` after a build).
#   --no-rocksdb   build without RocksDB, which needs C++, libclang and up to an hour on two cores
# CPU (0), SCRATCH (/var/tmp: a folder on the disk to measure) and OUT can be set.
set -euo pipefail
cd "$(dirname "$0")"

CPU=${CPU:-0}
SCRATCH=${SCRATCH:-/var/tmp}
quick=full
build=()
args=()
for argument in "$@"; do
  case $argument in
    --quick) quick=quick; args+=("$argument") ;;
    --no-rocksdb) build=(--no-default-features --target-dir target/plain) ;;
    *) args+=("$argument") ;;
  esac
done
OUT=${OUT:-../results/$(date +%F)-engines-$quick}

# need COMMAND PACKAGE...: installs the packages where the command or file is missing.
need() {
  local what=$1; shift
  [ -e "$what" ] || command -v "$what" >/dev/null || missing+=("$@")
}
missing=()
need fio fio
need taskset util-linux
need c++ g++
if [ ${#build[@]} = 0 ]; then
  need clang clang libclang-dev
  need pkg-config pkg-config
  need /usr/include/liburing.h liburing-dev
fi
if [ ${#missing[@]} != 0 ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

cargo build --release "${build[@]}"
engines=target/release/engines
[ ${#build[@]} = 0 ] || engines=target/plain/release/engines

scratch=$(mktemp -d -p "$SCRATCH" coronet-engines.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

version() { sed -n "/^name = \"$1\"/{n;s/.*\"\(.*\)\"/\1/p}" Cargo.lock; }
model=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)
memory=$(awk '/MemTotal/ {printf "%.0f", $2 / 1048576}' /proc/meminfo)
device=$(df --output=source,fstype "$SCRATCH" | tail -1 | tr -s ' ')
facts=(
  --fact "$(nproc) x $model, $memory GiB memory, Linux $(uname -r), data on $device"
  --fact "Coronet commit $(git rev-parse --short HEAD), $(rustc --version), target-cpu=native, mimalloc for all"
  --fact "peers: rocksdb crate $(version rocksdb) ($(version librocksdb-sys)), fjall $(version fjall), $(fio --version)"
  --fact "repeat with \`perf/engines/run.sh $*\`"
)
"$engines" run --scratch "$scratch" --out "$OUT" --cpu "$CPU" "${facts[@]}" "${args[@]}"
