//! The checkers can fail: every mistake that the nodes can be told to make (`coronet_probe::Bug`)
//! is found within a bounded number of seeds. On the same seeds the right program is not blamed
//! (`sim_cluster.rs`).
#![cfg(debug_assertions)]
#![allow(clippy::expect_used)]

use coronet_probe::Bug;
use coronet_tools::sim::cluster::seeded::{checker_of, hunt};
use coronet_tools::sim::cluster::{Options, run};

/// Seeds within which every mistake must be found: several times as many as any of them needs.
const SEEDS: u64 = 300;

#[test]
fn every_seeded_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match hunt(*bug, 0..SEEDS) {
            Some(report) => {
                let line = &report.violations[0];
                println!("{bug}: seed {}, {}: {line}", report.seed, checker_of(line));
            }
            None => missed.push(bug.name()),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

#[test]
fn a_run_with_a_bug_replays_and_leaves_nothing_behind() {
    let broken = Options { bug: Some(Bug::AckOneShort), ..Options::default() };
    let (first, right) = (run(0, &broken), run(0, &Options::default()));
    assert_eq!(first, run(0, &broken));
    assert_ne!(first.hash, right.hash);
    assert!(right.violations.is_empty(), "{:?}", right.violations);
}
