//! Running a check over many seeds, with the failing one named.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs `check` for every seed of `seeds`. The environment variable `CORONET_SIM_SEED` chooses
/// others: one seed (`7`) or a range (`1000..5000`). The first failure ends the run and prints
/// `seed=N` with the way to repeat it.
///
/// # Panics
/// When `check` does, or when the variable is neither a number nor a range.
pub fn for_each_seed(seeds: Range<u64>, check: impl Fn(u64)) {
    let seeds = match std::env::var("CORONET_SIM_SEED") {
        Ok(text) => match parse(&text) {
            Some(seeds) => seeds,
            None => panic!("CORONET_SIM_SEED is {text:?}, use a number or a range like 10..20"),
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

fn parse(text: &str) -> Option<Range<u64>> {
    match text.trim().split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => {
            let seed = text.trim().parse::<u64>().ok()?;
            Some(seed..seed.checked_add(1)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_or_a_range_is_understood() {
        assert_eq!(parse("7"), Some(7..8));
        assert_eq!(parse(" 10..20\n"), Some(10..20));
        assert_eq!(parse("x"), None);
        assert_eq!(parse("1..y"), None);
    }
}
