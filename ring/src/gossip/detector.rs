//! One node's opinion on which others are reachable: phi-accrual, fed with the caller's time.
//!
//! Phi is the improbability, as a negative power of ten, that a node which behaves as it did is
//! silent for so long. Everything heard from a node counts, not only heartbeats. When this very
//! node stood still, the silence was its own: time between two ticks beyond [`MAX_PAUSE`] is taken
//! out of everybody's silence, and nobody is suspected for it.
//!
//! Word of a node comes through others, too. Who heard it first-hand is ahead of them, and hears
//! nothing newer until what the node says next has spread: about half the natural logarithm of the
//! number of nodes, in rounds of gossip, because every round takes news on in both directions. That
//! silence is longer the more nodes there are, and as rare, so that no window of intervals shows
//! it. It is allowed for beside them (see [`Detector::spread`]).
//!
//! Two numbers come out: suspicion, for hints and stand-ins, and slowness, for choosing whom to
//! ask. Neither leaves this node: no node's opinion evicts another.

use std::collections::BTreeMap;

use crate::ids::NodeId;

/// Suspected from this phi on: one silence in 10^8 is that long by chance.
pub const PHI_SUSPECT: f64 = 8.0;

/// From this phi on a node is worth a question of its own before it is suspected.
pub const PHI_ASK: f64 = 2.0;

/// Ticks further apart than this are a standstill of this node, microseconds.
pub const MAX_PAUSE: u64 = 1_000_000;

/// The mean and the deviation of the intervals follow the last so many.
const SAMPLES: u16 = 200;

/// Longest interval that is learned from: after an outage a node is judged as before it.
const LONGEST_SAMPLE: u32 = 5_000_000;

/// Lowest deviation assumed, microseconds: regularity must not make a short hiccup a death.
const LEAST_DEVIATION: f64 = 200_000.0;

/// Up to so many nodes are given nothing for the spreading of news: all are heard first-hand.
const FEW_NODES: f64 = 2.0;

/// What is known of one node. Small, for every node keeps it of every other.
#[derive(Debug, Clone)]
struct History {
    last: u64,
    /// Intervals learned from, up to [`SAMPLES`].
    count: u16,
    /// Of the intervals, microseconds; older ones count less and less.
    mean: f64,
    variance: f64,
    /// Smoothed time to answer, microseconds; zero before the first.
    latency: u64,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Detector {
    /// How often a node is expected to be heard, until it has shown.
    expected: u64,
    last_tick: Option<u64>,
    nodes: BTreeMap<NodeId, History>,
}

impl Detector {
    /// A detector for nodes that are heard every `expected` microseconds.
    pub fn new(expected: u64) -> Self {
        Self { expected: expected.max(1), last_tick: None, nodes: BTreeMap::new() }
    }

    /// Time passed. Call often, at least twice per [`MAX_PAUSE`], and before judging anybody.
    /// Returns how long this node stood still, if it did.
    pub fn tick(&mut self, now: u64) -> Option<u64> {
        let gap = now.saturating_sub(self.last_tick.replace(now).unwrap_or(now));
        if gap <= MAX_PAUSE {
            return None;
        }
        for history in self.nodes.values_mut() {
            history.last = history.last.saturating_add(gap).min(now);
        }
        Some(gap)
    }

    /// Something came from a node.
    pub fn heard(&mut self, node: NodeId, now: u64) {
        let expected = self.expected;
        let history = self.nodes.entry(node).or_insert_with(|| {
            let mut history = History { last: now, count: 0, mean: 0.0, variance: 0.0, latency: 0 };
            // Two guesses to begin with, so that there is a mean and some deviation.
            history.learn(expected * 3 / 4);
            history.learn(expected * 5 / 4);
            history
        });
        let interval = now.saturating_sub(history.last);
        // Answers come in bursts; only the silence between bursts says something.
        if interval * 4 >= expected {
            history.learn(interval);
            history.last = now;
        } else if history.count < 2 {
            history.last = now;
        }
    }

    /// A node answered within this time.
    pub fn answered_in(&mut self, node: NodeId, micros: u64) {
        if let Some(history) = self.nodes.get_mut(&node) {
            history.latency = match history.latency {
                0 => micros.max(1),
                smoothed => (smoothed - smoothed / 8 + micros / 8).max(1),
            };
        }
    }

    /// How improbable a node's silence is; `None` for one that was never heard.
    pub fn phi(&self, node: NodeId, now: u64) -> Option<f64> {
        let spread = self.spread();
        self.nodes.get(&node).map(|history| history.phi(now, spread))
    }

    /// Silence that says nothing, microseconds: while news spread from one node to the others.
    fn spread(&self) -> f64 {
        let nodes = (self.nodes.len() + 1) as f64;
        self.expected as f64 * (nodes / FEW_NODES).max(1.0).ln() / 2.0
    }

    /// Whether a node should be taken for unreachable. One that was never heard is.
    pub fn is_suspect(&self, node: NodeId, now: u64) -> bool {
        self.phi(node, now).is_none_or(|phi| phi >= PHI_SUSPECT)
    }

    /// A node's smoothed time to answer in microseconds; zero when unknown.
    pub fn slowness(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).map_or(0, |history| history.latency)
    }

    /// Forgets a node.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }
}

impl History {
    fn learn(&mut self, interval: u64) {
        let interval = u32::try_from(interval).unwrap_or(LONGEST_SAMPLE).min(LONGEST_SAMPLE);
        self.count = (self.count + 1).min(SAMPLES);
        let weight = 1.0 / f64::from(self.count);
        let off = f64::from(interval) - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
    }

    fn phi(&self, now: u64, spread: f64) -> f64 {
        let mean = self.mean + spread;
        let deviation = self.variance.sqrt().max(LEAST_DEVIATION).max(self.mean / 4.0);
        let silence = now.saturating_sub(self.last) as f64;
        let y = (silence - mean) / deviation;
        // The tail of the normal distribution by a logistic curve, in logarithms so that a long
        // silence does not underflow: -log10(e^-x / (1 + e^-x)).
        let x = y * (1.5976 + 0.070_566 * y * y);
        let tail = if x > 30.0 { x } else { x + (-x).exp().ln_1p() };
        tail / std::f64::consts::LN_10
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;
    const OTHER: NodeId = NodeId(2);

    /// Heard every second for a minute, ticked twice a second.
    fn steady() -> (Detector, u64) {
        let mut detector = Detector::new(SECOND);
        for half in 0..120 {
            detector.tick(half * SECOND / 2);
            if half % 2 == 0 {
                detector.heard(OTHER, half * SECOND / 2);
            }
        }
        (detector, 118 * SECOND / 2)
    }

    fn wait(detector: &mut Detector, from: u64, micros: u64) -> u64 {
        let end = from + micros;
        let mut now = from;
        while now < end {
            now = (now + SECOND / 2).min(end);
            assert_eq!(detector.tick(now), None);
        }
        end
    }

    #[test]
    fn silence_becomes_suspicion_within_three_seconds_and_a_word_ends_it() {
        let (mut detector, last) = steady();
        let now = wait(&mut detector, last, SECOND * 3 / 2);
        assert!(!detector.is_suspect(OTHER, now), "{:?}", detector.phi(OTHER, now));
        let now = wait(&mut detector, now, SECOND * 2);
        assert!(detector.is_suspect(OTHER, now), "{:?}", detector.phi(OTHER, now));
        detector.heard(OTHER, now);
        assert!(!detector.is_suspect(OTHER, now));
    }

    #[test]
    fn phi_only_rises_with_silence() {
        let (detector, last) = steady();
        let mut before = f64::MIN;
        for step in 0..400 {
            let phi = detector.phi(OTHER, last + step * SECOND / 4).unwrap();
            assert!(phi >= before && phi.is_finite());
            before = phi;
        }
    }

    #[test]
    fn a_node_that_stood_still_suspects_nobody_for_it() {
        let (mut detector, last) = steady();
        let woke = last + 60 * SECOND;
        assert_eq!(detector.tick(woke), Some(woke - 119 * SECOND / 2));
        assert!(!detector.is_suspect(OTHER, woke));
        let now = wait(&mut detector, woke, 4 * SECOND);
        assert!(detector.is_suspect(OTHER, now), "but it goes on counting");
    }

    #[test]
    fn strangers_are_suspect_and_bursts_teach_nothing() {
        let mut detector = Detector::new(SECOND);
        assert!(detector.is_suspect(OTHER, 0));
        for n in 0..10_000 {
            detector.heard(OTHER, n * 100);
        }
        let now = wait(&mut detector, SECOND, SECOND);
        assert!(!detector.is_suspect(OTHER, now));
        detector.forget(OTHER);
        assert!(detector.is_suspect(OTHER, now));
    }

    #[test]
    fn slowness_follows_answers() {
        let (mut detector, _) = steady();
        (0..50).for_each(|_| detector.answered_in(OTHER, 800));
        assert_eq!(detector.slowness(OTHER), 800);
        (0..50).for_each(|_| detector.answered_in(OTHER, 80_000));
        assert!(detector.slowness(OTHER) > 70_000);
    }

    /// Of many nodes word comes through others mostly, and a node that was heard first-hand is not
    /// heard again until its next word has spread.
    #[test]
    fn silence_while_news_spread_is_no_suspicion() {
        for (others, suspects) in [(4, true), (1_000, false)] {
            let mut detector = Detector::new(600_000);
            let mut now = 0;
            for _ in 0..300 {
                now += 400_000;
                detector.tick(now);
                (0..others).for_each(|n| detector.heard(NodeId(n), now));
            }
            let now = wait(&mut detector, now, 2_500_000);
            assert_eq!(detector.is_suspect(OTHER, now), suspects, "{others} others");
            let now = wait(&mut detector, now, 2_000_000);
            assert!(detector.is_suspect(OTHER, now), "{others} others");
        }
    }

    proptest! {
        /// Up to the number of intervals that are followed, mean and deviation are those of all.
        #[test]
        fn moments_are_those_of_all_intervals(
            intervals in prop::collection::vec(1_u32..LONGEST_SAMPLE, 1..=usize::from(SAMPLES)),
        ) {
            let mut history =
                History { last: 0, count: 0, mean: 0.0, variance: 0.0, latency: 0 };
            intervals.iter().for_each(|interval| history.learn(u64::from(*interval)));
            let count = intervals.len() as f64;
            let mean = intervals.iter().map(|i| f64::from(*i)).sum::<f64>() / count;
            let off = |i: &u32| (f64::from(*i) - mean).powi(2);
            let variance = intervals.iter().map(off).sum::<f64>() / count;
            prop_assert!((history.mean - mean).abs() <= 1e-6 * mean);
            prop_assert!((history.variance - variance).abs() <= 1e-6 * mean * mean);
        }

        /// Whatever was heard when: phi rises with silence, is finite, and more nodes never make
        /// it higher.
        #[test]
        fn phi_rises_with_silence_and_falls_with_nodes(
            intervals in prop::collection::vec(1_u64..20_000_000, 0..50),
            silences in prop::collection::vec(0_u64..100_000_000, 2..20),
            more in 1_u128..500,
        ) {
            let mut detector = Detector::new(600_000);
            let mut now = 0;
            for interval in intervals {
                now += interval;
                detector.heard(OTHER, now);
            }
            detector.heard(OTHER, now);
            let mut silences = silences;
            silences.sort_unstable();
            let phi = |detector: &Detector| -> Vec<f64> {
                let phi = |silence| detector.phi(OTHER, now + silence).unwrap();
                silences.iter().map(phi).collect()
            };
            let few = phi(&detector);
            prop_assert!(few.is_sorted() && few.iter().all(|phi| phi.is_finite()));
            (0..more).for_each(|n| detector.heard(NodeId(100 + n), now));
            let many = phi(&detector);
            prop_assert!(many.iter().zip(&few).all(|(many, few)| many <= few));
        }
    }
}
