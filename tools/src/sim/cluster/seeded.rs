//! The proof that the checkers work: every mistake made on purpose is found within a bounded
//! number of seeds. `coronet sim --all-bugs` prints the table that `docs/SEEDED_BUGS.md` keeps.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;

use clap::ValueEnum;
use coronet_probe::Bug;

use super::fault::Fault;
use super::{Options, Report, run};

/// A checker, and a piece of the lines it writes.
const CHECKERS: [(&str, &str); 21] = [
    ("promise of the answer", "quorum: "),
    ("context of another key", "a context was taken"),
    ("phantom", "phantom: "),
    ("regular register", "irregular: "),
    ("linearizable register", "not linearizable"),
    ("session", "session: "),
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
    ("cart", "missing from the cart"),
    ("sibling bound", "sibling explosion"),
    ("start", "does not start"),
    ("liveness", "liveness"),
];

/// The checker that wrote a line.
pub fn checker_of(violation: &str) -> &'static str {
    let known = CHECKERS.iter().find(|(_, piece)| violation.contains(piece));
    known.map_or("", |(name, _)| name)
}

/// The runs in which a mistake is looked for: with those faults that can show it, where few can.
fn options(bug: Bug) -> Options {
    let all = Options { bug: Some(bug), ..Options::default() };
    let among = |faults: &[Fault]| Options { faults: Some(faults.to_vec()), ..all.clone() };
    match bug {
        Bug::NamerCountsEarly | Bug::AckBeforeSync => among(&[Fault::Power, Fault::SlowDisk]),
        Bug::WriteBackForgotten => Options { nodes: Some(3), ..among(&[Fault::Partition]) },
        Bug::OldIncarnation | Bug::LogUnchecked => among(&[Fault::Power]),
        Bug::LogCutEarly | Bug::ManifestInParts => Options {
            nodes: Some(1),
            clients: Some(40),
            millis: Some(40_000),
            ..among(&[Fault::Power, Fault::SlowDisk])
        },
        Bug::HintForgottenWhenSent => {
            Options { nodes: Some(4), ..among(&[Fault::Kill, Fault::Pause]) }
        }
        _ => all,
    }
}

/// The first of these seeds in which a mistake is found, and the right program is not blamed;
/// and what was found.
pub fn hunt(bug: Bug, mut seeds: Range<u64>) -> Option<Report> {
    let broken = options(bug);
    let right = Options { bug: None, ..broken.clone() };
    seeds.find_map(|seed| {
        let report = run(seed, &broken);
        let found = !report.violations.is_empty() && run(seed, &right).violations.is_empty();
        found.then_some(report)
    })
}

/// A row of the table: the mistake, its first seed from 0 on, which checkers see it there.
pub fn row(bug: Bug, most: u64) -> String {
    let text = bug.text();
    let Some(report) = hunt(bug, 0..most) else {
        return format!("| `{bug}` | {text} | none below {most} | |");
    };
    let checkers: BTreeSet<_> = report.violations.iter().map(|line| checker_of(line)).collect();
    let checkers: Vec<_> = checkers.into_iter().collect();
    let seed = format!("`--seed {}{}`", report.seed, arguments(&options(bug)));
    format!("| `{bug}` | {text} | {seed} | {} |", checkers.join(", "))
}

/// What repeats a run beside its seed, as arguments of `coronet sim`.
fn arguments(options: &Options) -> String {
    let faults = options.faults.iter().flatten().filter_map(ValueEnum::to_possible_value);
    let faults: Vec<_> = faults.map(|name| name.get_name().to_owned()).collect();
    let numbers = [
        ("nodes", options.nodes.map(|nodes| nodes as u64)),
        ("clients", options.clients),
        ("seconds", options.millis.map(|millis| millis / 1_000)),
    ];
    let mut text = String::new();
    if !faults.is_empty() {
        let _ = write!(text, " --faults {}", faults.join(","));
    }
    for (name, number) in numbers {
        let _ = number.map(|number| write!(text, " --{name} {number}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ascribed_to_their_checker() {
        assert_eq!(checker_of("sim/01: in the end: lost: acknowledged write 3"), "lost write");
        assert_eq!(checker_of("liveness: 2 nodes serve"), "liveness");
        assert_eq!(checker_of("sim/02: items are missing from the cart: [3]"), "cart");
    }
}
