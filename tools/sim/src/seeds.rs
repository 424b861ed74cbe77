//! Running a check over many seeds, with the failing one named.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs `check` for every seed of `seeds`. With the environment variable `CORONET_SIM_SEED` set,
/// only for that seed. The first failure ends the run and prints `seed=N` with the way to repeat
/// it.
///
/// # Panics
/// When `check` does, or when the variable is not a number.
pub fn for_each_seed(seeds: Range<u64>, check: impl Fn(u64)) {
    let seeds = match std::env::var("CORONET_SIM_SEED") {
        Ok(text) => match text.trim().parse::<u64>() {
            Ok(seed) => seed..seed + 1,
            Err(_) => panic!("CORONET_SIM_SEED is {text:?}, use a number"),
        },
        Err(_) => seeds,
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(seed))) {
            eprintln!("failed with seed={seed}; repeat with CORONET_SIM_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
