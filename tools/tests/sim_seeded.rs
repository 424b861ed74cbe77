//! The checkers can fail: every mistake that the nodes can be told to make (`coronet_probe::Bug`)
//! is found within a bounded number of seeds, in which the right program is not blamed
//! (`sim_cluster.rs`).
#![cfg(debug_assertions)]
#![allow(clippy::expect_used)]

use coronet_probe::Bug;
use coronet_tools::sim::cluster::seeded::{checker_of, hunt};

/// Seeds in which every mistake must be found.
const SEEDS: u64 = 100;

#[test]
fn every_seeded_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let began = std::time::Instant::now();
        match hunt(*bug, 0..SEEDS) {
            Some(report) => {
                let line = &report.violations[0];
                println!(
                    "{bug}: seed {} ({:?}), {}: {line}",
                    report.seed,
                    began.elapsed(),
                    checker_of(line)
                );
            }
            None => {
                println!("{bug}: MISSED {:?}", began.elapsed());
                missed.push(bug.name())
            }
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
