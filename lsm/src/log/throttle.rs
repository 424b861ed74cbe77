//! Smooth back-pressure: how fast commits may go, given what flush and compaction owe.
//!
//! The engine reports levels and memory, the log writer asks how long to wait. Pressure rises
//! gently from zero to one, so that a closed loop of writers slows to the pace of compaction
//! and is not refused.

use crate::compaction::Shape;
use crate::{KeyspaceId, Options, Seq, TreePolicy};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// Commit rate when pressure begins, bytes per second.
const FULL_RATE: f64 = 256.0 * 1024.0 * 1024.0;
/// Slowest commit rate, bytes per second. Commits never stand still: writers that wait would
/// run into their deadlines together, and a log that cannot be synced would not be noticed.
/// Memory is bounded by refusing writes, not here.
const LEAST_RATE: f64 = 256.0 * 1024.0;
/// Longest pause after one batch.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Level sizes over their target at which debt begins to count, and at which it slows most.
pub(super) const DEBT_START: f64 = 3.0;
const DEBT_FULL: f64 = 12.0;

/// What compaction owes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TreeDebt {
    /// Runs in level 0.
    pub level0_runs: usize,
    /// Runs in level 0 that start a merge.
    pub level0_trigger: usize,
    /// Largest ratio of a deeper level to what it may hold.
    pub level_ratio: f64,
    /// Bytes to be written until nothing is owed, estimated.
    pub bytes: u64,
}

impl TreeDebt {
    /// What a tree owes by a policy.
    pub fn of(shape: &Shape, policy: &TreePolicy) -> Self {
        let scores = (1..shape.levels.len()).map(|level| shape.score(level, policy));
        TreeDebt {
            level0_runs: shape.levels[0].len(),
            level0_trigger: policy.level0_runs as usize,
            level_ratio: scores.fold(0.0, f64::max),
            bytes: shape.debt(policy),
        }
    }
}

/// Runs in level 0 from which writers are slowed: a policy may want more of them than the options
/// allow for.
pub(super) fn level0_slowdown(debt: &TreeDebt, l0_slowdown: usize) -> usize {
    l0_slowdown.max(debt.level0_trigger * 2)
}

/// What flush and compaction owe.
#[derive(Debug, Clone, Copy, Default)]
pub struct Debt {
    /// What the tree owes, without what is inherited.
    pub tree: TreeDebt,
    /// Frozen memtables.
    pub frozen: usize,
    /// Fill of the active memtable, 1.0 is full.
    pub active_fill: f64,
    /// Newest entry of the frozen memtables: commits up to it must never wait, because the
    /// flush that ends the pressure waits for them.
    pub frozen_through: Seq,
}

/// Shared between the engine, which sets it, and the log writer, which obeys.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Pressure and newest entry that must not wait, per keyspace.
    keyspaces: RefCell<BTreeMap<KeyspaceId, (f64, Seq)>>,
    /// The largest of them.
    pressure: Cell<f64>,
    free_through: Cell<Seq>,
}

impl Throttle {
    /// Recomputes the pressure after news of one keyspace. The keyspace that owes most decides:
    /// all of them share the log.
    pub fn set(&self, keyspace: KeyspaceId, debt: &Debt, options: &Options) {
        let slowdown = level0_slowdown(&debt.tree, options.l0_slowdown);
        let over = debt.tree.level0_runs.saturating_sub(slowdown) as f64;
        let level0 = over / (options.l0_stop - options.l0_slowdown) as f64;
        let memory = if debt.frozen >= options.max_frozen { debt.active_fill } else { 0.0 };
        let deep = ((debt.tree.level_ratio - DEBT_START) / (DEBT_FULL - DEBT_START)).min(0.9);
        let pressure = level0.max(memory).max(deep).clamp(0.0, 1.0);
        self.keyspaces.borrow_mut().insert(keyspace, (pressure, debt.frozen_through));
        self.sum_up();
    }

    /// Forgets a keyspace that is gone.
    pub fn forget(&self, keyspace: KeyspaceId) {
        self.keyspaces.borrow_mut().remove(&keyspace);
        self.sum_up();
    }

    fn sum_up(&self) {
        let keyspaces = self.keyspaces.borrow();
        let pressure = keyspaces.values().map(|(pressure, _)| *pressure).fold(0.0, f64::max);
        self.pressure.set(pressure);
        self.free_through.set(keyspaces.values().map(|(_, seq)| *seq).max().unwrap_or_default());
    }

    /// Whether a batch that starts at `first` must not wait, because a flush waits for it.
    pub fn is_exempt(&self, first: Seq) -> bool {
        first <= self.free_through.get()
    }

    /// Whether commits go at the slowest rate.
    pub fn is_full(&self) -> bool {
        self.pressure.get() >= 1.0
    }

    /// The pause that `bytes` committed now should cost.
    pub fn pause_after(&self, bytes: usize) -> Duration {
        let pressure = self.pressure.get();
        if pressure <= 0.0 {
            return Duration::ZERO;
        }
        let room = 1.0 - pressure;
        let pause = bytes as f64 / (FULL_RATE * room * room).max(LEAST_RATE);
        Duration::from_secs_f64(pause).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(debt: Debt) -> Throttle {
        let throttle = Throttle::default();
        throttle.set(KeyspaceId::DEFAULT, &debt, &Options::default());
        throttle
    }

    fn level0(runs: usize) -> Debt {
        let tree = TreeDebt { level0_runs: runs, level0_trigger: 4, ..TreeDebt::default() };
        Debt { tree, ..Debt::default() }
    }

    #[test]
    fn pressure_rises_without_steps() {
        let options = Options::default();
        let mut last = Duration::ZERO;
        for l0_tables in 0..options.l0_stop {
            let throttle = throttle(level0(l0_tables));
            let pause = throttle.pause_after(1 << 20);
            assert!(pause >= last && !throttle.is_full(), "{l0_tables} tables: {pause:?}");
            assert_eq!(pause.is_zero(), l0_tables <= options.l0_slowdown);
            last = pause;
        }
        let full = throttle(level0(options.l0_stop));
        assert!(full.is_full() && full.pause_after(1 << 20) >= last);
    }

    #[test]
    fn what_the_flush_waits_for_never_waits() {
        let throttle = throttle(Debt {
            frozen: 2,
            active_fill: 1.5,
            frozen_through: Seq(10),
            ..Debt::default()
        });
        assert!(throttle.is_full());
        assert!(throttle.is_exempt(Seq(10)) && !throttle.is_exempt(Seq(11)));
        throttle.set(KeyspaceId(1), &Debt::default(), &Options::default());
        assert!(throttle.is_full(), "the keyspace that owes most decides");
        throttle.forget(KeyspaceId::DEFAULT);
        assert!(!throttle.is_full() && !throttle.is_exempt(Seq(10)));
    }
}
