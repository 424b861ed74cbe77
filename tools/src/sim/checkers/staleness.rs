//! How stale reads are where R + W <= N promises nothing, beside what was to be expected of each of
//! them ([`super::pbs`]).

use std::collections::BTreeMap;

/// Upper ends of the classes of time between write and read, microseconds.
pub const CLASSES: [u64; 6] = [100, 300, 1_000, 3_000, 10_000, 100_000];
/// How many times longer a late message takes.
pub const LATE_FACTOR: u64 = 20;
/// Standard errors that measured and expected may be apart.
const ERRORS: f64 = 5.0;
/// Parts of the expected number that the model may be off: it knows neither that messages on one
/// wire keep their order nor that reads repair.
const MODEL: f64 = 0.25;

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
    /// The chances of all of them to, added up, in millionths.
    pub expected: u64,
}

impl Count {
    fn add(&mut self, other: &Count) {
        self.reads += other.reads;
        self.stale += other.stale;
        self.expected += other.expected;
    }

    /// The share of reads that was expected to be stale.
    pub fn expected_share(&self) -> f64 {
        self.expected as f64 / 1e6 / self.reads.max(1) as f64
    }
}

/// Reads by setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staleness(pub BTreeMap<Setting, Count>);

impl Staleness {
    /// The class of a time; `None` when it is too long to say anything.
    pub fn class(micros: u64) -> Option<usize> {
        CLASSES.iter().position(|most| micros <= *most)
    }

    /// A read, and its chance to be stale in millionths.
    pub fn add(&mut self, setting: Setting, is_stale: bool, expected: u64) {
        let stale = u64::from(is_stale);
        self.0.entry(setting).or_default().add(&Count { reads: 1, stale, expected });
    }

    /// All settings together.
    pub fn sum(&self) -> Count {
        let mut sum = Count::default();
        self.0.values().for_each(|count| sum.add(count));
        sum
    }

    /// How far the number of stale reads is from the expected one, if that is more than chance and
    /// the model's simplicity explain.
    pub fn divergence(&self) -> Option<String> {
        let Count { reads, stale, expected } = self.sum();
        let expected = expected as f64 / 1e6;
        let room = ERRORS * (expected + 1.0).sqrt() + MODEL * expected;
        let apart = (stale as f64 - expected).abs() > room;
        apart.then(|| {
            format!("{stale} of {reads} reads were stale, {expected:.1} (+-{room:.1}) expected")
        })
    }

    /// Adds the reads of another run.
    pub fn merge(&mut self, other: &Staleness) {
        for (setting, count) in &other.0 {
            self.0.entry(*setting).or_default().add(count);
        }
    }

    /// Lines of a table: measured beside expected, settings with few reads left out.
    pub fn table(&self, fewest: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for (setting, count) in self.0.iter().filter(|(_, count)| count.reads >= fewest) {
            let measured = count.stale as f64 * 100.0 / count.reads as f64;
            let expected = count.expected_share() * 100.0;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_what_was_seen_often_enough() {
        let mut seen = Staleness::default();
        let setting = Setting { n: 3, r: 1, w: 1, delay: 300, late: 0, class: 1 };
        (0..10).for_each(|read| seen.add(setting, read < 4, 250_000));
        let mut twice = seen.clone();
        twice.merge(&seen);
        assert_eq!(twice.0[&setting], Count { reads: 20, stale: 8, expected: 5_000_000 });
        assert!(twice.table(20)[1].contains("40.00%    25.00%"), "{:?}", twice.table(20));
        assert!(twice.table(21).is_empty());
    }

    #[test]
    fn more_stale_reads_than_chance_explains_are_told_and_fewer_are() {
        let setting = Setting { n: 3, r: 1, w: 2, delay: 2_000, late: 150_000, class: 4 };
        let seen = |stale: u64, expected: u64| {
            let mut seen = Staleness::default();
            (0..1_000).for_each(|read| seen.add(setting, read < stale, expected));
            seen.divergence()
        };
        assert_eq!(seen(0, 0), None);
        assert_eq!(seen(5, 0), None);
        assert!(seen(15, 0).is_some(), "1.5 % stale where none was expected");
        assert_eq!(seen(110, 100_000), None);
        assert!(seen(200, 100_000).is_some() && seen(10, 100_000).is_some());
    }

    #[test]
    fn classes_are_bounded() {
        assert_eq!(Staleness::class(0), Some(0));
        assert_eq!(Staleness::class(101), Some(1));
        assert_eq!(Staleness::class(100_001), None);
    }
}
