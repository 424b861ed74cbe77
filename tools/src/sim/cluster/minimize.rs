//! Makes a failing run smaller: less time, fewer faults, clients and keys, while it still fails
//! in the same way. What is left is easier to read, and is repeated by its options.

use std::collections::BTreeSet;

use super::{Options, Report};

/// What is left of a failing run.
#[derive(Debug, Clone)]
pub struct Smaller {
    /// Repeats it.
    pub options: Options,
    /// What came of it.
    pub report: Report,
    /// Runs it took to find.
    pub runs: u64,
}

/// The kind of a violation: its words without names and numbers.
pub fn kind(violation: &str) -> String {
    let (_, what) = violation.split_once(": ").unwrap_or(("", violation));
    what.split_whitespace()
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        .take(4)
        .fold(String::new(), |mut kind, word| {
            kind.push_str(word);
            kind.push(' ');
            kind
        })
}

/// Shrinks a failing run in at most `most` further runs. `run` runs options.
pub fn minimize(
    options: &Options,
    report: Report,
    most: u64,
    run: impl FnMut(&Options) -> Report,
) -> Smaller {
    let kinds = report.violations.iter().map(|violation| kind(violation)).collect();
    let options = Options {
        strikes: Some(report.strikes.iter().copied().collect()),
        clients: Some(report.clients),
        keys: Some(report.keys),
        seconds: Some(report.seconds),
        ..options.clone()
    };
    let best = Smaller { options, report, runs: 0 };
    let mut search = Search { best, kinds, most, run };
    let mut before = None;
    while before != Some(search.size()) {
        before = Some(search.size());
        search.shorten();
        search.drop_strikes();
        search.lower(|options| &mut options.clients);
        search.lower(|options| &mut options.keys);
    }
    search.best
}

struct Search<F> {
    best: Smaller,
    kinds: BTreeSet<String>,
    most: u64,
    run: F,
}

impl<F: FnMut(&Options) -> Report> Search<F> {
    fn size(&self) -> (Option<u64>, usize, Option<u64>, Option<u64>) {
        let Options { seconds, strikes, clients, keys, .. } = &self.best.options;
        (*seconds, strikes.as_ref().map_or(0, BTreeSet::len), *clients, *keys)
    }

    /// Keeps options that still fail in the same way.
    fn attempt(&mut self, options: Options) -> bool {
        if self.best.runs >= self.most {
            return false;
        }
        self.best.runs += 1;
        let report = (self.run)(&options);
        let fails = report.violations.iter().any(|what| self.kinds.contains(&kind(what)));
        if fails {
            self.best = Smaller { options, report, runs: self.best.runs };
        }
        fails
    }

    fn shorten(&mut self) {
        while let Some(seconds) = self.best.options.seconds.filter(|seconds| *seconds > 1) {
            let mut shorter = self.best.options.clone();
            shorter.seconds = Some(seconds / 2);
            if !self.attempt(shorter) {
                break;
            }
        }
    }

    /// Leaves out parts of the plan: all of it, halves, quarters, down to single faults.
    fn drop_strikes(&mut self) {
        let mut part = self.best.options.strikes.as_ref().map_or(0, BTreeSet::len);
        while part > 0 {
            let plan: Vec<u64> = self.best.options.strikes.iter().flatten().copied().collect();
            for drop in plan.chunks(part) {
                let mut fewer = self.best.options.clone();
                if let Some(strikes) = &mut fewer.strikes {
                    strikes.retain(|number| !drop.contains(number));
                }
                if fewer.strikes != self.best.options.strikes {
                    self.attempt(fewer);
                }
            }
            part /= 2;
        }
    }

    fn lower(&mut self, field: impl Fn(&mut Options) -> &mut Option<u64>) {
        let mut fewer = self.best.options.clone();
        let now = field(&mut fewer).unwrap_or(1);
        let smaller = |count: &u64| *count > 0 && *count < now;
        for count in [1, now / 2, now.saturating_sub(1)].into_iter().filter(smaller) {
            *field(&mut fewer) = Some(count);
            if self.attempt(fewer.clone()) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(options: &Options, fails: bool) -> Report {
        Report {
            strikes: options.strikes.clone().unwrap_or_default().into_iter().collect(),
            violations: if fails {
                vec!["sim/01: lost: write 7 is gone".to_owned()]
            } else {
                vec![]
            },
            clients: options.clients.unwrap_or(6),
            keys: options.keys.unwrap_or(9),
            seconds: options.seconds.unwrap_or(30),
            ..Report::default()
        }
    }

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let needs = |options: &Options| {
            let strikes =
                options.strikes.as_ref().is_none_or(|s| s.contains(&3) && s.contains(&17));
            strikes
                && options.clients.is_none_or(|c| c >= 2)
                && options.seconds.is_none_or(|s| s > 6)
        };
        let whole = Options { strikes: Some((0..40).collect()), ..Options::default() };
        let first = report(&whole, true);
        let found = minimize(&whole, first, 1_000, |options| report(options, needs(options)));
        assert_eq!(found.options.strikes, Some(BTreeSet::from([3, 17])));
        assert_eq!((found.options.clients, found.options.keys), (Some(2), Some(1)));
        assert_eq!(found.options.seconds, Some(7));
    }

    #[test]
    fn another_failure_does_not_count_and_runs_are_bounded() {
        let whole = Options::default();
        let first = report(&whole, true);
        let mut runs = 0;
        let other = |options: &Options| {
            runs += 1;
            let violations = vec!["sim/01: phantom: value 7 was never written".to_owned()];
            Report { violations, ..report(options, false) }
        };
        let found = minimize(&whole, first, 5, other);
        assert_eq!((found.options.seconds, found.runs), (Some(30), runs));
        assert!(runs <= 5);
    }

    #[test]
    fn kinds_have_no_numbers() {
        let one = kind("sim/01: lost: acknowledged write 12 is gone (shown: {3})");
        assert_eq!(one, kind("sim/07: lost: acknowledged write 99 is gone (shown: {})"));
        assert_ne!(one, kind("sim/07: back again: 3 was deleted by acknowledged 9"));
    }
}
