//! How stale reads are where R + W <= N promises nothing, beside what was to be expected.
//!
//! The expectation is that of "Probabilistically bounded staleness for practical partial quorums"
//! (Bailis et al., VLDB 2012): a write is sent to all N replicas and is over when W answered; a
//! read begins some time later, is sent to all N and is over when R answered; it is stale when none
//! of those R had got the write by the time it was asked. The four one-way delays are drawn.

use std::collections::BTreeMap;

use coronet_sim::Rng;

/// Upper ends of the classes of time between write and read, microseconds.
pub const CLASSES: [u64; 6] = [100, 300, 1_000, 3_000, 10_000, 100_000];
/// How many times longer a late message takes.
pub const LATE_FACTOR: u64 = 20;
/// Draws per expectation.
const TRIALS: u32 = 4_000;

/// Which quorums met, how fast the wires were, and how long after the write the read began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// Replicas.
    pub n: u8,
    /// Replicas that answered the read.
    pub r: u8,
    /// Replicas that had stored the write.
    pub w: u8,
    /// Typical one-way delay, microseconds.
    pub delay: u64,
    /// Of a million messages so many are late.
    pub late: u32,
    /// The class of time, an index into [`CLASSES`].
    pub class: usize,
}

/// Reads of one setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub reads: u64,
    /// Those that missed the write.
    pub stale: u64,
}

/// Reads by setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staleness(pub BTreeMap<Setting, Count>);

impl Staleness {
    /// The class of a time; `None` when it is too long to say anything.
    pub fn class(micros: u64) -> Option<usize> {
        CLASSES.iter().position(|most| micros <= *most)
    }

    /// A read.
    pub fn add(&mut self, setting: Setting, is_stale: bool) {
        let count = self.0.entry(setting).or_default();
        count.reads += 1;
        count.stale += u64::from(is_stale);
    }

    /// Adds the reads of another run.
    pub fn merge(&mut self, other: &Staleness) {
        for (setting, count) in &other.0 {
            let sum = self.0.entry(*setting).or_default();
            sum.reads += count.reads;
            sum.stale += count.stale;
        }
    }

    /// Lines of a table: measured beside expected, settings with few reads left out.
    pub fn table(&self, fewest: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for (setting, count) in self.0.iter().filter(|(_, count)| count.reads >= fewest) {
            let measured = count.stale as f64 * 100.0 / count.reads as f64;
            let expected = expected(setting, &mut Rng::new(1)) * 100.0;
            let Setting { n, r, w, delay, late, class } = *setting;
            let (late, after, reads) = (f64::from(late) / 1e4, CLASSES[class], count.reads);
            lines.push(format!(
                "{n:>2} {r:>2} {w:>2} {delay:>9} {late:>6.1}% {after:>9} {reads:>8} \
                 {measured:>8.2}% {expected:>8.2}%"
            ));
        }
        if !lines.is_empty() {
            let head =
                " N  R  W  delay/us    late  after/us    reads     stale  expected".to_owned();
            lines.insert(0, head);
        }
        lines
    }
}

/// The chance that a read in the middle of its class is stale. Delays spread as those of the
/// simulated wires do: half to one and a half times the typical one.
pub fn expected(setting: &Setting, rng: &mut Rng) -> f64 {
    let below = setting.class.checked_sub(1).map_or(0, |class| CLASSES[class]);
    let later = (below + CLASSES[setting.class]) / 2;
    let (r, w) = (usize::from(setting.r), usize::from(setting.w));
    let mut stale = 0;
    for _ in 0..TRIALS {
        let mut delay = || {
            let factor = if rng.chance(setting.late) { LATE_FACTOR } else { 1 };
            (setting.delay / 2 + rng.below(setting.delay + 1)) * factor
        };
        let arrives: Vec<u64> = (0..setting.n).map(|_| delay()).collect();
        let mut answered: Vec<u64> = arrives.iter().map(|at| at + delay()).collect();
        answered.sort_unstable();
        let over = answered.get(w.saturating_sub(1)).copied().unwrap_or(0);
        let mut asked: Vec<(u64, bool)> = Vec::new();
        for write in &arrives {
            let (there, back) = (delay(), delay());
            asked.push((there + back, over + later + there >= *write));
        }
        asked.sort_unstable();
        stale += u32::from(!asked.iter().take(r).any(|(_, has_it)| *has_it));
    }
    f64::from(stale) / f64::from(TRIALS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance(n: u8, r: u8, w: u8, class: usize) -> f64 {
        expected(&Setting { n, r, w, delay: 2_000, late: 150_000, class }, &mut Rng::new(3))
    }

    #[test]
    fn overlapping_quorums_are_never_stale_and_time_heals() {
        assert_eq!(chance(3, 2, 2, 0), 0.0);
        assert_eq!(chance(3, 1, 3, 0), 0.0);
        assert!(chance(3, 1, 1, 0) > 0.01, "{}", chance(3, 1, 1, 0));
        assert!(chance(3, 1, 1, 0) > chance(3, 2, 1, 0), "more replicas know more");
        assert!(chance(3, 1, 1, 5) < chance(3, 1, 1, 0) / 10.0);
    }

    #[test]
    fn the_table_names_what_was_seen_often_enough() {
        let mut seen = Staleness::default();
        let setting = Setting { n: 3, r: 1, w: 1, delay: 300, late: 0, class: 1 };
        (0..10).for_each(|read| seen.add(setting, read < 4));
        let mut twice = seen.clone();
        twice.merge(&seen);
        assert_eq!(twice.0[&setting], Count { reads: 20, stale: 8 });
        assert!(twice.table(20)[1].contains("40.00%"), "{:?}", twice.table(20));
        assert!(twice.table(21).is_empty());
    }

    #[test]
    fn classes_are_bounded() {
        assert_eq!(Staleness::class(0), Some(0));
        assert_eq!(Staleness::class(101), Some(1));
        assert_eq!(Staleness::class(100_001), None);
    }
}
