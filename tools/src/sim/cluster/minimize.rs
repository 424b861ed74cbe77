//! Makes a failing run smaller: less time, fewer faults, fewer operations, while it still fails in
//! the same way. What is left is easier to read, and is repeated by its options.

use std::collections::BTreeSet;

use super::operations::{Chosen, Operation};
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
        millis: Some(report.millis),
        ..options.clone()
    };
    let best = Smaller { options, report, runs: 0 };
    let mut search = Search { best, kinds, most, run };
    let mut before = None;
    while before != Some(search.size()) {
        before = Some(search.size());
        search.shorten();
        search.drop_strikes();
        search.drop_operations();
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
    fn size(&self) -> (Option<u64>, usize, usize) {
        let Options { millis, strikes, .. } = &self.best.options;
        (*millis, strikes.as_ref().map_or(0, BTreeSet::len), self.best.report.operations.len())
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

    /// Ends the chaos earlier. What came before is as it was, so the end of the shortest run that
    /// fails is found by halving.
    fn shorten(&mut self) {
        let (mut passes, mut fails) = (0, self.best.options.millis.unwrap_or(0));
        while fails > passes + 1 + fails / 64 {
            let middle = passes + (fails - passes) / 2;
            let shorter = Options { millis: Some(middle), ..self.best.options.clone() };
            match self.attempt(shorter) {
                true => fails = middle,
                false => passes = middle,
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

    /// Leaves out what clients do, likewise. By key: what concerns other keys goes first. What is
    /// left begins when it did.
    fn drop_operations(&mut self) {
        let mut part = self.best.report.operations.len();
        while part > 0 {
            let plan: Vec<Operation> = self.best.report.operations.clone();
            for drop in plan.chunks(part) {
                let left = |operation: &&Operation| !drop.iter().any(|d| d.step == operation.step);
                let before = &self.best.report.operations;
                let kept: Vec<Operation> = before.iter().filter(left).copied().collect();
                if kept.len() < before.len() {
                    let operations = Some(Chosen::as_they_were(&kept));
                    self.attempt(Options { operations, ..self.best.options.clone() });
                }
            }
            part /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::operations::Step;
    use super::*;
    use coronet_lsm::env::Nanos;

    /// Ten steps of each of three clients, as far as chosen; a key for every step.
    fn operations(options: &Options) -> Vec<Operation> {
        let all = (1..=10).flat_map(|step| (1..=3).map(move |client| (client, step)));
        let chosen =
            |step: &Step| options.operations.as_ref().is_none_or(|c| c.0.contains_key(step));
        let begins = |step: Step| Nanos(step.0 + step.1 * 1_000);
        let operation = |step: Step| Operation { key: step.1 as usize, step, at: begins(step) };
        all.filter(chosen).map(operation).collect()
    }

    fn report(options: &Options, fails: bool) -> Report {
        Report {
            strikes: options.strikes.clone().unwrap_or_default().into_iter().collect(),
            violations: if fails {
                vec!["sim/01: lost: write 7 is gone".to_owned()]
            } else {
                vec![]
            },
            operations: operations(options),
            millis: options.millis.unwrap_or(30_000),
            ..Report::default()
        }
    }

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let needs = |options: &Options| {
            let strikes =
                options.strikes.as_ref().is_none_or(|s| s.contains(&3) && s.contains(&17));
            strikes
                && operations(options).iter().any(|o| o.step == (2, 7))
                && operations(options).iter().any(|o| o.step == (3, 1))
                && options.millis.is_none_or(|millis| millis > 6_000)
        };
        let whole = Options { strikes: Some((0..40).collect()), ..Options::default() };
        let first = report(&whole, true);
        let found = minimize(&whole, first, 1_000, |options| report(options, needs(options)));
        assert_eq!(found.options.strikes, Some(BTreeSet::from([3, 17])));
        let left = [((2, 7), Some(Nanos(7_002))), ((3, 1), Some(Nanos(1_003)))];
        assert_eq!(found.options.operations, Some(Chosen(left.into())));
        let millis = found.options.millis.unwrap_or(0);
        assert!((6_001..6_200).contains(&millis), "{millis}");
        assert!(found.runs < 150, "{} runs", found.runs);
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
        assert_eq!((found.options.millis, found.runs), (Some(30_000), runs));
        assert!(runs <= 5);
    }

    #[test]
    fn kinds_have_no_numbers() {
        let one = kind("sim/01: lost: acknowledged write 12 is gone (shown: {3})");
        assert_eq!(one, kind("sim/07: lost: acknowledged write 99 is gone (shown: {})"));
        assert_ne!(one, kind("sim/07: back again: 3 was deleted by acknowledged 9"));
    }
}
