//! Hundreds of nodes in one deterministic world, without data: the real gossip, failure detector
//! and placement of `coronet-ring` over a simulated network that loses, doubles, delays and
//! reorders messages, with partitions, restarts, lost disks, pauses and wrong clocks.
//!
//! All a node stores is what it would write down of its view of the cluster. What must hold once
//! everything works again is in [`check`]: all know the same members, keyspaces and placement, the
//! placement is balanced, and who is suspected is gone.
//!
//! * [`wires`]: messages and what happens to them.
//! * [`life`]: one process of one node.
//! * [`world`]: the phases of a run, and what goes wrong.

pub mod check;
pub mod life;
pub mod wires;
pub mod world;

use std::time::Duration;

/// What a run is asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Nodes, 1 to [`MOST_NODES`].
    pub nodes: usize,
    /// Seconds of faults.
    pub seconds: u64,
}

/// Nodes of a light world at most.
pub const MOST_NODES: usize = 2_000;

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash over every event: the same seed gives the same.
    pub hash: u64,
    /// Virtual time simulated.
    pub simulated: Duration,
    /// Until all nodes had the first placement.
    pub founding: Duration,
    /// From the end of the last fault until all nodes agreed.
    pub settling: Duration,
    /// What was seen while nothing went wrong.
    pub calm: Calm,
    /// From the death of a node in that time until all others suspected it; zero for one node.
    pub detection: Duration,
    /// Messages sent.
    pub messages: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Faults, definitions of keyspaces and changes of the placement.
    pub strikes: u64,
    /// What must not have happened, one line each.
    pub violations: Vec<String>,
}

/// Some time without faults, after all nodes agreed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Calm {
    /// Nodes times hours that they were watched.
    pub node_hours: f64,
    /// How often a node suspected another that lived.
    pub false_suspicions: u64,
    /// Bytes of gossip each node sent per second.
    pub bytes_per_second: f64,
}

/// Runs a seed from its first event to its verdict.
pub fn run(seed: u64, options: &Options) -> Report {
    world::World::new(seed, options).run()
}
