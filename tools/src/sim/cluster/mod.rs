//! A whole cluster in one deterministic world: nodes with disks, wires between them, faults,
//! clients, and checkers of what the clients saw.
//!
//! One seed draws everything: how many nodes, what goes wrong and when, what the clients do. A
//! run has four phases: chaos (faults and clients), heal (all faults end, all nodes run), quiesce
//! (gossip, hints), check (see [`check`]). A failure is a line in [`Report::violations`].
//!
//! * [`world`]: hosts, their lives, what they are configured as.
//! * [`fault`], [`nemesis`]: what goes wrong, when and where.
//! * [`clients`], [`operations`]: operations over real frames; [`cart`]: those that must keep every item.
//! * [`history`]: what clients were told, and what an answer may therefore show.
//! * [`check`]: what must hold in the end.
//! * [`returning`]: how soon a node that was away serves again.
//! * [`seeded`]: mistakes made on purpose, which the checkers must find.
//! * [`mod@minimize`]: a failing run made smaller.

pub mod cart;
pub mod check;
pub mod clients;
pub mod fault;
pub mod history;
mod holders;
pub mod minimize;
mod mix;
pub mod nemesis;
pub mod operations;
mod promise;
pub mod reading;
pub mod returning;
pub mod seeded;
mod wires;
mod words;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use coronet_probe::{Bug, Mark};
use fault::Fault;
use operations::{Chosen, Operation};
use world::World;

use super::checkers::staleness::Staleness;
use super::record::Event;

/// What a run is asked to be; everything else is drawn from the seed.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Nodes, 1 to 9; drawn when absent.
    pub nodes: Option<usize>,
    /// Kinds of faults; drawn when absent.
    pub faults: Option<Vec<Fault>>,
    /// Of the faults planned only those with these numbers; all when absent.
    pub strikes: Option<BTreeSet<u64>>,
    /// Clients; drawn when absent.
    pub clients: Option<u64>,
    /// Keys at most.
    pub keys: Option<u64>,
    /// Length of the chaos in milliseconds; drawn when absent.
    pub millis: Option<u64>,
    /// Of what clients plan to do only this; all when absent.
    pub operations: Option<Chosen>,
    /// Whether to keep what happens, for people.
    pub record: bool,
    /// A mistake that the nodes shall make; none in builds without debug assertions.
    pub bug: Option<Bug>,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What it drew: nodes, N, faults.
    pub setting: String,
    /// Hash over every event: the same seed gives the same.
    pub hash: u64,
    /// Virtual time simulated.
    pub simulated: Duration,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Reads checked.
    pub reads: u64,
    /// Faults injected.
    pub faults: u64,
    /// How often the marked branches were taken.
    pub marks: BTreeMap<Mark, u64>,
    /// The numbers of those planned.
    pub strikes: Vec<u64>,
    /// What clients did until the chaos ended, by key.
    pub operations: Vec<Operation>,
    /// Milliseconds of chaos.
    pub millis: u64,
    /// How stale reads were where nothing is promised; measured when nothing went wrong.
    pub staleness: Staleness,
    /// What happened, when it was to be kept.
    pub events: Vec<Event>,
    /// What must not have happened, one line each.
    pub violations: Vec<String>,
}

/// Runs a seed from its first event to its verdict.
pub fn run(seed: u64, options: &Options) -> Report {
    let mut world = World::new(seed, options);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut report = world.report();
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        report.violations.push(format!("panic: {}", text.unwrap_or_default()));
    }
    report
}
