//! How fast merges may go: slower while foreground operations wait longer than they should,
//! faster the more is owed.
//!
//! Latencies are the engine's own: commits, and point reads that went to the disk. Without
//! foreground work there is nothing to protect, and merges go as fast as they can. Flushes are
//! never paced: what they free is what writers wait for.

use crate::KeyspaceId;
use crate::env::Nanos;
use crate::log::throttle::TreeDebt;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rate from which pacing slows down, bytes merged per second.
const FULL_RATE: f64 = 256.0 * 1024.0 * 1024.0;
/// Slowest rate, bytes merged per second.
const LEAST_RATE: f64 = 4.0 * 1024.0 * 1024.0;
/// Weight of a new latency in the moving average.
const WEIGHT: f64 = 1.0 / 16.0;
/// A latency says nothing about later than this.
const MEMORY: Duration = Duration::from_millis(500);
/// Pauses shorter than this are added up.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause; then things are looked at anew.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Ratio of a level to what it may hold at which merges are no longer slowed.
const URGENT_RATIO: f64 = 3.0;

/// Most that a flush or merge reads or writes at once while somebody waits for reads from the
/// disk, bytes: a point read that comes behind it waits for all of it.
const SMALL_PIECE: usize = 128 << 10;
/// The same while nobody does: fewer operations per byte.
const LARGE_PIECE: usize = 512 << 10;

/// Ties the rate of merges to debt and foreground latency.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    /// Moving average, microseconds.
    latency: Cell<f64>,
    measured: Cell<Nanos>,
    /// When a point read last went to the disk.
    read: Cell<Option<Nanos>>,
    /// Per keyspace, 0: nothing is owed; 1: merges must not be slowed. The largest holds for all,
    /// since a merge of any of them stands in the way of the others.
    urgencies: RefCell<BTreeMap<KeyspaceId, f64>>,
    owed: Cell<Duration>,
}

impl Pacer {
    /// A foreground operation took `micros`.
    pub fn observe(&self, micros: u64, now: Nanos) {
        let recent = now.since(self.measured.get()) < MEMORY;
        let before = if recent { self.latency.get() } else { 0.0 };
        self.latency.set(before + (micros as f64 - before) * WEIGHT);
        self.measured.set(now);
    }

    /// A point read went to the disk and took `micros`.
    pub fn observe_read(&self, micros: u64, now: Nanos) {
        self.read.set(Some(now));
        self.observe(micros, now);
    }

    /// Most that a flush or merge may read or write at once now, bytes.
    pub fn piece_bytes(&self, now: Nanos) -> usize {
        let reads = self.read.get().is_some_and(|last| now.since(last) < MEMORY);
        if reads { SMALL_PIECE } else { LARGE_PIECE }
    }

    /// A keyspace owes `debt`; writers are slowed from `slowdown` runs in its level 0 on.
    pub fn owes(&self, keyspace: KeyspaceId, debt: &TreeDebt, slowdown: usize) {
        let trigger = debt.level0_trigger.min(slowdown);
        let span = slowdown.saturating_sub(trigger).max(1) as f64;
        let level0 = debt.level0_runs.saturating_sub(trigger) as f64 / span;
        let deep = (debt.level_ratio - 1.0) / (URGENT_RATIO - 1.0);
        let urgency = level0.max(deep).clamp(0.0, 1.0);
        self.urgencies.borrow_mut().insert(keyspace, urgency);
    }

    /// Forgets a keyspace that is gone.
    pub fn forget(&self, keyspace: KeyspaceId) {
        self.urgencies.borrow_mut().remove(&keyspace);
    }

    /// Bytes per second that merges may do now; `None`: as many as they can.
    pub fn rate(&self, target: Duration, now: Nanos) -> Option<f64> {
        let strain = self.latency.get() / (target.as_micros() as f64).max(1.0);
        if strain <= 1.0 || now.since(self.measured.get()) >= MEMORY {
            return None;
        }
        // Both meet at full speed without a step: no strain, or no time to lose.
        let urgency = self.urgencies.borrow().values().copied().fold(0.0, f64::max);
        let share = (1.0 / (strain * strain)).max(urgency * urgency);
        (share < 1.0).then(|| (FULL_RATE * share).max(LEAST_RATE))
    }

    /// The pause that merging `bytes` costs now.
    pub fn pause_after(&self, bytes: usize, target: Duration, now: Nanos) -> Option<Duration> {
        let Some(rate) = self.rate(target, now) else {
            self.owed.set(Duration::ZERO);
            return None;
        };
        let owed = self.owed.get() + Duration::from_secs_f64(bytes as f64 / rate);
        let due = owed >= SHORTEST_PAUSE;
        self.owed.set(if due { Duration::ZERO } else { owed });
        due.then(|| owed.min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(2);
    const NOW: Nanos = Nanos(10_000_000_000);

    fn pacer(micros: u64, level0_runs: usize) -> Pacer {
        let pacer = Pacer::default();
        (0..200).for_each(|_| pacer.observe(micros, NOW));
        let debt = TreeDebt { level0_runs, level0_trigger: 4, ..TreeDebt::default() };
        pacer.owes(KeyspaceId::DEFAULT, &debt, 8);
        pacer.owes(KeyspaceId(1), &TreeDebt::default(), 8);
        pacer
    }

    #[test]
    fn merges_slow_down_smoothly_with_latency() {
        let mut last = FULL_RATE;
        for micros in (2_100..40_000).step_by(100) {
            let rate = pacer(micros, 0).rate(TARGET, NOW).unwrap();
            assert!(rate <= last && rate >= LEAST_RATE && rate > last * 0.8, "{micros}: {rate}");
            last = rate;
        }
        assert_eq!(last, LEAST_RATE);
        assert_eq!(pacer(1_900, 0).rate(TARGET, NOW), None);
    }

    #[test]
    fn pieces_are_small_while_somebody_reads_from_the_disk() {
        let pacer = pacer(50_000, 0);
        assert_eq!(pacer.piece_bytes(NOW), LARGE_PIECE, "commits wait in the log, not in a queue");
        pacer.observe_read(100, NOW);
        assert_eq!(pacer.piece_bytes(NOW), SMALL_PIECE);
        assert_eq!(pacer.piece_bytes(NOW.after(MEMORY)), LARGE_PIECE);
    }

    #[test]
    fn debt_goes_before_latency() {
        let rates = (4..8).map(|runs| pacer(50_000, runs).rate(TARGET, NOW).unwrap());
        assert!(rates.collect::<Vec<_>>().is_sorted());
        assert_eq!(pacer(50_000, 8).rate(TARGET, NOW), None);
    }

    #[test]
    fn nobody_waits_for_nobody() {
        let slow = pacer(50_000, 0);
        assert!(slow.rate(TARGET, NOW).is_some());
        assert_eq!(slow.rate(TARGET, NOW.after(MEMORY)), None);
    }

    #[test]
    fn short_pauses_add_up_and_none_is_long() {
        let pacer = pacer(50_000, 0);
        let mut total = Duration::ZERO;
        for _ in 0..1_000 {
            let pause = pacer.pause_after(1 << 10, TARGET, NOW).unwrap_or_default();
            assert!(pause.is_zero() || (SHORTEST_PAUSE..=LONGEST_PAUSE).contains(&pause));
            total += pause;
        }
        let expected = Duration::from_secs_f64(f64::from(1_000 << 10) / LEAST_RATE);
        assert!(expected.abs_diff(total) < SHORTEST_PAUSE * 2, "{total:?}");
        assert_eq!(pacer.pause_after(1 << 30, TARGET, NOW), Some(LONGEST_PAUSE));
    }
}
