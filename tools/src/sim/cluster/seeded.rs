//! The proof that the checkers work: every mistake made on purpose is found within a bounded
//! number of seeds. `coronet sim --all-bugs` prints the table that `docs/SEEDED_BUGS.md` keeps.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;

use coronet_probe::Bug;

use super::{Options, Report, run};

/// A checker, and a piece of the lines it writes.
const CHECKERS: [(&str, &str); 15] = [
    ("promise of the answer", "quorum: "),
    ("context of another key", "a context was taken"),
    ("phantom", "phantom: "),
    ("value shown twice", "is shown twice"),
    ("lost write", "lost: "),
    ("replaced or deleted value back", "back again: "),
    ("false sibling", "false sibling: "),
    ("one dot, one write", "names two writes"),
    ("copy is no object", "copy is no object"),
    ("holders before repair", "holders: "),
    ("replicas equal in the end", "replicas differ"),
    ("listing", " lists "),
    ("listing", "listing"),
    ("panic", "panic: "),
    ("liveness", ""),
];

/// The checker that wrote a line.
pub fn checker_of(violation: &str) -> &'static str {
    let known = CHECKERS.iter().find(|(_, piece)| violation.contains(piece));
    known.map_or("", |(name, _)| name)
}

/// The first of these seeds in which a mistake is found, and what was found.
pub fn hunt(bug: Bug, mut seeds: Range<u64>) -> Option<Report> {
    let options = Options { bug: Some(bug), ..Options::default() };
    seeds.find_map(|seed| {
        let report = run(seed, &options);
        (!report.violations.is_empty()).then_some(report)
    })
}

/// A row of the table: the mistake, its first seed from 0 on, which checkers see it there.
pub fn row(bug: Bug, most: u64) -> String {
    let mut row = format!("| `{bug}` | {} ", bug.text());
    let _ = match hunt(bug, 0..most) {
        Some(report) => {
            let lines = report.violations.iter();
            let checkers: BTreeSet<_> = lines.map(|line| checker_of(line)).collect();
            let checkers: Vec<_> = checkers.into_iter().collect();
            write!(row, "| {} | {} |", report.seed, checkers.join(", "))
        }
        None => write!(row, "| none below {most} | |"),
    };
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ascribed_to_their_checker() {
        assert_eq!(checker_of("sim/01: in the end: lost: acknowledged write 3"), "lost write");
        assert_eq!(checker_of("liveness: 2 nodes serve"), "liveness");
    }
}
