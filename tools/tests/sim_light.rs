//! A hundred nodes without data: gossip, failure detectors and placement agree again after lost,
//! doubled and late messages, partitions, restarts, lost disks, pauses and wrong clocks.
//! `coronet sim --light 1000` does the same with more nodes.

use std::cell::Cell;

use coronet_sim::for_each_seed;
use coronet_tools::sim::light::{Options, run};

#[test]
fn a_hundred_nodes_agree_again() {
    let strikes = Cell::new(0);
    for_each_seed(0..3, |seed| {
        let report = run(seed, &Options { nodes: 100, seconds: 20 });
        assert!(report.violations.is_empty(), "seed {seed}:\n{}", report.violations.join("\n"));
        strikes.set(strikes.get() + report.strikes);
    });
    assert!(strikes.get() > 3, "nothing went wrong");
}

/// Of more than a hundred nodes only a few found the cluster. In the end nobody suspects anybody
/// but the node that died, which all do.
#[test]
fn many_nodes_join_their_founders() {
    let report = run(1, &Options { nodes: 200, seconds: 5 });
    assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
    assert!(report.calm.node_hours > 1.0 && !report.detection.is_zero(), "{report:?}");
}

#[test]
fn few_nodes_agree_again() {
    for_each_seed(0..20, |seed| {
        let nodes = 1 + usize::try_from(seed % 10).unwrap_or(0);
        let report = run(seed, &Options { nodes, seconds: 20 });
        assert!(report.violations.is_empty(), "seed {seed}:\n{}", report.violations.join("\n"));
    });
}

#[test]
fn the_same_seed_replays_the_same_world() {
    let options = Options { nodes: 20, seconds: 5 };
    assert_eq!(run(7, &options), run(7, &options));
    assert_ne!(run(7, &options).hash, run(8, &options).hash);
}
