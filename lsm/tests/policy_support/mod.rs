//! Compaction policies drawn for tests.
#![allow(clippy::unwrap_used, dead_code)] // Not every test file draws one.

use coronet_lsm::CompactionPolicy;
use coronet_sim::Rng;

/// Any policy that keeps everything, with small sizes.
pub fn policy(rng: &mut Rng) -> CompactionPolicy {
    let names = [
        "leveled(fanout=4)",
        "leveled(fanout=10)",
        "tiered(fanout=3)",
        "tiered",
        "lazy_leveled",
        "tree(fanout=3/5,runs=2/1,last=2)",
    ];
    let policy = names[rng.index(names.len())].parse::<CompactionPolicy>().unwrap();
    policy
        .sized(32 << (10 + rng.below(2)), 8 << (10 + rng.below(3)))
        .level0(2 + rng.below(3) as u32)
}
