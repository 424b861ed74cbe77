#!/bin/sh
# Fuzzes with coverage guidance on the stable toolchain.
#   fuzz/run.sh TARGET [SECONDS]    one target
#   fuzz/run.sh all [SECONDS]       every target, SECONDS each (default 60)
# New inputs that reach new code stay in fuzz/corpus/TARGET; a crash is left in fuzz/artifacts.
# Keep the corpus small before a commit: fuzz/run.sh TARGET minimize
set -eu
cd "$(dirname "$0")"
target=${1:?target, or all}
seconds=${2:-60}

export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"
triple=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags stay away from build scripts.
cargo build --release --target "$triple"
fuzzer=${CARGO_TARGET_DIR:-target}/$triple/release/coronet-fuzz

one() {
    mkdir -p "corpus/$1" artifacts
    if [ "$seconds" = minimize ]; then
        mkdir -p "target/min/$1"
        CORONET_FUZZ_TARGET=$1 "$fuzzer" -merge=1 "target/min/$1" "corpus/$1"
        rm -r "corpus/$1" && mv "target/min/$1" "corpus/$1"
    else
        CORONET_FUZZ_TARGET=$1 "$fuzzer" -max_total_time="$seconds" -max_len=32768 \
            -rss_limit_mb=1024 -artifact_prefix="artifacts/$1-" -print_final_stats=1 "corpus/$1"
    fi
}

if [ "$target" = all ]; then
    for dir in corpus/*/; do one "$(basename "$dir")"; done
else
    one "$target"
fi
