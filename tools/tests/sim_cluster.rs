//! Whole clusters, simulated: what clients are told holds, whatever happens to nodes, wires,
//! disks and clocks. `CORONET_SIM_SEED=7` repeats one seed, `1000..2000` looks for more.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use coronet_probe::{AVAILABLE, Bug, Mark};
use coronet_sim::for_each_seed;
use coronet_tools::sim::checkers::staleness::Staleness;
use coronet_tools::sim::cluster::fault::{ALL, Fault};
use coronet_tools::sim::cluster::operations::{Chosen, Operation};
use coronet_tools::sim::cluster::{Options, Report, returning, run};

/// Branches that the seeds of this file do not come through.
const RARE: [Mark; 5] = [
    // Nobody writes a key that often without reading it.
    Mark::TooManyVersions,
    // Takes two writes of a key whose versions are on disk only.
    Mark::KeyLocked,
    // Takes a silent replica that names a write after all.
    Mark::NamedTwice,
    // Takes a node that kept its incarnation and lost data: these never end in order, so that each
    // start has a new one.
    Mark::NewName,
    // Takes a power failure in the middle of a batch.
    Mark::TornTail,
];

/// The mistake that `CORONET_SIM_BUG` names, to see that it is found and how it is told.
fn bug() -> Option<Bug> {
    let name = std::env::var("CORONET_SIM_BUG").ok()?;
    Some(Bug::by_name(&name).expect("a mistake of docs/SEEDED_BUGS.md"))
}

fn check(seed: u64) -> Report {
    let bug = bug();
    let report = run(seed, &Options { bug, ..Options::default() });
    let with = bug.map(|bug| format!(" --bug {bug}")).unwrap_or_default();
    assert!(
        report.violations.is_empty(),
        "seed {seed} ({}):\n{}\nrepeat with: coronet sim --seed {seed}{with}",
        report.setting,
        report.violations.join("\n")
    );
    report
}

#[test]
fn what_clients_are_told_holds() {
    let (acknowledged, marks) = (Cell::new(0), RefCell::new(BTreeSet::new()));
    for_each_seed(0..200, |seed| {
        let report = check(seed);
        acknowledged.set(acknowledged.get() + report.acknowledged);
        marks.borrow_mut().extend(report.marks.into_keys());
    });
    if std::env::var("CORONET_SIM_SEED").is_ok() {
        return;
    }
    assert!(acknowledged.get() > 500, "only {} writes", acknowledged.get());
    let wanted = Mark::ALL.iter().filter(|mark| AVAILABLE && !RARE.contains(mark));
    let missed: Vec<_> = wanted.filter(|mark| !marks.borrow().contains(mark)).collect();
    assert!(missed.is_empty(), "branches that no seed came through: {missed:?}");
}

/// Seeds nobody has run before; a failure names them.
#[test]
fn fresh_seeds_hold_too() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let first = now.as_nanos() as u64 >> 8;
    for_each_seed(first..first + 10, |seed| {
        check(seed);
    });
}

/// What the test above prints in a run like that of continuous integration is enough to see the
/// same failure again.
#[cfg(debug_assertions)]
#[test]
fn a_fresh_seed_that_fails_is_printed_and_fails_again() {
    let bug = Bug::AckOneShort;
    let fresh = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fresh_seeds_hold_too"])
        .env("CORONET_SIM_BUG", bug.name())
        .env_remove("CORONET_SIM_SEED")
        .output()
        .unwrap();
    assert!(!fresh.status.success(), "the mistake is not found");
    let text = String::from_utf8_lossy(&fresh.stdout) + String::from_utf8_lossy(&fresh.stderr);
    let command = text.lines().find_map(|line| line.strip_prefix("repeat with: coronet sim "));
    let seed = command.and_then(|command| command.strip_suffix(" --bug ack-one-short"));
    let seed = seed.and_then(|seed| seed.strip_prefix("--seed ")?.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| panic!("no seed is printed:\n{text}"));
    let report = run(seed, &Options { bug: Some(bug), ..Options::default() });
    assert!(!report.violations.is_empty(), "seed {seed} does not fail again");
    report.violations.iter().for_each(|line| assert!(text.contains(line), "{line}\n{text}"));
}

#[test]
fn the_same_seed_replays_the_same_cluster() {
    for seed in [3, 4] {
        let first = run(seed, &Options::default());
        assert_eq!(first, run(seed, &Options::default()), "seed={seed}");
    }
}

/// Three nodes under one kind of fault only, which must strike.
fn survive(fault: Fault, seeds: [u64; 2]) {
    let mut struck = 0;
    for seed in seeds {
        let faults = Some(vec![fault]);
        let options = Options { nodes: Some(3), faults, millis: Some(8_000), ..Options::default() };
        let report = run(seed, &options);
        struck += report.faults;
        let found = report.violations.join("\n");
        assert!(report.violations.is_empty(), "seed {seed}, {fault:?}:\n{found}");
    }
    assert!(struck > 0, "{fault:?} never struck");
}

#[test]
fn each_fault_alone_is_survived() {
    for (number, fault) in (0..).zip(ALL) {
        survive(fault, [100 + number, 200 + number]);
    }
}

/// Seed 106: a frame between nodes whose length was changed used to stall its link for minutes.
#[test]
fn a_changed_length_does_not_stall_a_link() {
    survive(Fault::Corrupt, [106, 206]);
}

/// A stand-in with a slow disk looked for hints between a hint's writing and its commit, did not
/// find it, and never looked again: what it alone held was not handed over.
#[test]
fn a_hint_that_is_committed_late_is_handed_over() {
    let report = run(7_600_000_786, &Options { nodes: Some(5), ..Options::default() });
    assert_eq!(report.violations, Vec::<String>::new());
}

/// Seven nodes hear of each other through others, too. One that heard nothing for a second and a
/// quarter that way took the other for dead while the replicas' keys were listed.
#[test]
fn a_node_that_is_heard_through_others_is_not_taken_for_dead() {
    assert_eq!(run(8_112_000_061, &Options::default()).violations, Vec::<String>::new());
}

/// A node that is back dials the others at once; they used to dial it only when their pause was
/// over, and until then its requests waited for answers that nobody could send.
#[test]
fn a_node_that_is_back_serves_at_once_and_so_do_the_others() {
    for_each_seed(0..40, |seed| {
        let away = Duration::from_millis(500 + seed % 8 * 1_500);
        let found = returning::after(seed, away);
        let slowest = found.itself.max(found.other);
        assert!(slowest < Duration::from_secs(1), "seed {seed}, away {away:?}: {found:?}");
    });
}

#[test]
fn a_plan_without_some_faults_keeps_the_others_and_recording_changes_nothing() {
    let faults = Some(vec![Fault::Kill, Fault::Partition]);
    let options = Options { nodes: Some(3), faults, millis: Some(8_000), ..Options::default() };
    let seed = (0..).find(|seed| run(*seed, &options).strikes.len() > 2).unwrap();
    let whole = run(seed, &options);
    assert_eq!(run(seed, &Options { record: true, ..options.clone() }).hash, whole.hash);
    let kept = whole.strikes[1];
    let strikes = Some([kept].into());
    let smaller = run(seed, &Options { strikes, record: true, ..options });
    assert_eq!((smaller.strikes, smaller.faults), (vec![kept], 1));
    assert!(smaller.events.iter().any(|event| event.text.ends_with(&format!("#{kept}"))));
}

/// What is left of a run that is made smaller is what it was, when it was.
#[test]
fn operations_left_out_leave_the_others_when_they_were() {
    let options = Options { nodes: Some(3), millis: Some(3_000), ..Options::default() };
    let (mut all, mut all_in_time) = (0, 0);
    for seed in 0..6 {
        let whole = run(seed, &options);
        let chosen = |of: &[Operation]| Options {
            operations: Some(Chosen::as_they_were(of)),
            ..options.clone()
        };
        let again = run(seed, &chosen(&whole.operations));
        assert_eq!(again.operations, whole.operations, "seed {seed}");
        assert_eq!(again.hash, whole.hash, "seed {seed}: all, when they were, is the same run");
        let mut kept = whole.operations.clone();
        let mut number = 0;
        kept.retain(|_| {
            number += 1;
            number % 3 != 0
        });
        assert!(kept.len() > 10 && kept.len() < whole.operations.len());
        let left = run(seed, &chosen(&kept)).operations;
        // One that is late may come too late for the end.
        let planned = kept.len();
        kept.retain(|then| left.iter().any(|now| now.step == then.step));
        assert_eq!(left.len(), kept.len(), "seed {seed}");
        assert!(kept.len() + 3 >= planned, "seed {seed}: {} of {planned}", kept.len());
        // A client that waits longer for an answer than before, by milliseconds, is late for what
        // follows.
        let pairs = || left.iter().zip(&kept);
        assert!(pairs().all(|(now, then)| now.step == then.step && now.at >= then.at));
        let in_time = pairs().filter(|(now, then)| now.at == then.at).count();
        assert!(in_time * 4 >= kept.len() * 3, "seed {seed}: {in_time} of {}", kept.len());
        (all, all_in_time) = (all + kept.len(), all_in_time + in_time);
    }
    assert!(all_in_time * 10 >= all * 9, "{all_in_time} of {all}");
}

/// Reads where R + W <= N are as often stale as the delays of the wires and the quorums let expect,
/// and often enough that "never" would be noticed to be wrong.
#[test]
fn reads_are_as_stale_as_predicted() {
    let mut seen = Staleness::default();
    for seed in 0..60 {
        let strikes = Some(BTreeSet::new());
        let options =
            Options { nodes: Some(3), strikes, millis: Some(6_000), ..Options::default() };
        seen.merge(&run(seed, &options).staleness);
    }
    println!("{:?}\n{}", seen.sum(), seen.table(1).join("\n"));
    assert_eq!(seen.divergence(), None);
    seen.0.values_mut().for_each(|count| count.expected = 0);
    assert!(seen.divergence().is_some(), "{:?}", seen.sum());
}
