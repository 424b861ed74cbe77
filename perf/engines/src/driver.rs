//! Runs the children one after the other, engines in turn, and keeps what they say.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::Failure;
use crate::fio;
use crate::record::{Outcome, Unmeasured};
use crate::spec::{Job, Sizes, Subject, Workload};

/// What to run.
pub struct Plan {
    /// Small sizes, short runs.
    pub quick: bool,
    /// The engines.
    pub subjects: Vec<Subject>,
    /// The workloads; the fills that others need are up to the caller.
    pub workloads: Vec<Workload>,
    /// Value sizes, bytes.
    pub values: Vec<usize>,
    /// Memtables of this size instead of the usual part of the data, KiB.
    pub memtable_kib: Option<usize>,
    /// Folder for the data; everything the run makes in it is removed.
    pub scratch: PathBuf,
    /// The processor for everything.
    pub cpu: usize,
    /// No child is started after this time.
    pub limit: Duration,
}

impl Plan {
    /// The sizes for values of `value_bytes`.
    pub fn sizes(&self, value_bytes: usize) -> Sizes {
        let mut sizes = Sizes::new(value_bytes, self.quick);
        if let Some(kib) = self.memtable_kib {
            sizes.memtable_bytes = kib << 10;
        }
        sizes
    }
}

/// What came of it.
#[derive(Default)]
pub struct Results {
    /// Rows, in the order of the runs.
    pub outcomes: Vec<Outcome>,
    /// Rows that could not be had.
    pub unmeasured: Vec<Unmeasured>,
    /// What else is to be said, one line each.
    pub remarks: Vec<String>,
}

/// Runs the plan; `keep` sees the results after every row.
///
/// # Errors
/// When the results cannot be kept. What a child fails with is in the results.
pub fn run(
    plan: &Plan,
    mut keep: impl FnMut(&Results) -> Result<(), Failure>,
) -> Result<Results, Failure> {
    let begin = Instant::now();
    let mut results = Results::default();
    if !plan.subjects.contains(&Subject::Rocksdb) {
        let why = "RocksDB was left out of this run, and with it every ratio to it";
        results.remarks.push(why.to_owned());
    }
    let runs = |workload: &Workload| {
        (0..workload.rounds()).map(|round| takers(plan, *workload, round).count()).sum::<usize>()
    };
    let total = plan.workloads.iter().map(runs).sum::<usize>() * plan.values.len();
    let mut at = 0;
    for value_bytes in &plan.values {
        let sizes = plan.sizes(*value_bytes);
        for workload in &plan.workloads {
            let first = results.outcomes.len();
            let turns = (0..workload.rounds()).flat_map(|round| takers(plan, *workload, round));
            for subject in turns {
                at += 1;
                let job = job(plan, &sizes, *workload, subject);
                let what = format!("{}, {}, {value_bytes} B", subject.name(), workload.name());
                let left = plan.limit.saturating_sub(begin.elapsed());
                if left.is_zero() {
                    results.unmeasured.push(unmeasured(&job, "not run, the time was up"));
                    continue;
                }
                eprint!("[{at}/{total}, {:>4.0} s] {what}: ", begin.elapsed().as_secs_f64());
                step(&job, left, &mut results);
                keep(&results)?;
            }
            let rounds = results.outcomes.split_off(first);
            results.outcomes.extend(medians(*workload, rounds));
        }
        for subject in &plan.subjects {
            remove(&folder(plan, *subject, false))?;
            remove(&folder(plan, *subject, true))?;
        }
    }
    keep(&results)?;
    Ok(results)
}

/// The engines that take part in a round of a workload: in the further ones those that an aim
/// names.
fn takers(plan: &Plan, workload: Workload, round: usize) -> impl Iterator<Item = Subject> {
    let takes = move |subject: &Subject| {
        workload.suits(*subject) && (round == 0 || *subject != Subject::Fjall)
    };
    plan.subjects.iter().copied().filter(takes)
}

/// Of the rounds of a workload the row of each engine that is the median of its rows: by latency
/// where that is the aim, by throughput otherwise. The rows say what the others were.
fn medians(workload: Workload, rounds: Vec<Outcome>) -> Vec<Outcome> {
    let value = |outcome: &Outcome| match workload.has_writer() {
        true => outcome.reads.p999,
        false => outcome.throughput(),
    };
    let unit = if workload.has_writer() { "p99.9 of reads, us" } else { "operations/s" };
    let mut of_engines: Vec<Vec<Outcome>> = Vec::new();
    for outcome in rounds {
        match of_engines.iter_mut().find(|rows| rows[0].subject == outcome.subject) {
            Some(rows) => rows.push(outcome),
            None => of_engines.push(vec![outcome]),
        }
    }
    let median = |mut rows: Vec<Outcome>| {
        let all: Vec<String> = rows.iter().map(|row| format!("{:.0}", value(row))).collect();
        rows.sort_by(|one, other| value(one).total_cmp(&value(other)));
        let mut row = rows.swap_remove((rows.len() - 1) / 2);
        if all.len() > 1 {
            row.notes.push(format!("rounds in turn, {unit}: {}", all.join(", ")));
        }
        row
    };
    of_engines.into_iter().map(median).collect()
}

fn folder(plan: &Plan, subject: Subject, deep: bool) -> PathBuf {
    plan.scratch.join(format!("{}{}", subject.name(), if deep { "-deep" } else { "" }))
}

fn job(plan: &Plan, sizes: &Sizes, workload: Workload, subject: Subject) -> Job {
    let deep = workload.is_deep();
    let sizes = if deep { sizes.clone().deep() } else { sizes.clone() };
    Job { subject, workload, sizes, dir: folder(plan, subject, deep), cpu: plan.cpu }
}

fn remove(dir: &Path) -> Result<(), Failure> {
    if dir.exists() { Ok(fs::remove_dir_all(dir)?) } else { Ok(()) }
}

fn unmeasured(job: &Job, why: &str) -> Unmeasured {
    Unmeasured {
        subject: job.subject.name().to_owned(),
        workload: job.workload.name().to_owned(),
        value_bytes: job.sizes.value_bytes,
        why: why.to_owned(),
    }
}

/// One child, and fio behind it where the two are compared.
fn step(job: &Job, left: Duration, results: &mut Results) {
    let took = Instant::now();
    let mut outcomes = vec![("", child(job, left.min(job.limit())))];
    if job.subject == Subject::Coronet && job.workload.is_cold() {
        if fio::is_installed() {
            outcomes.push(("fio: ", fio::run(job)));
        } else {
            let why = unmeasured(job, "fio is not installed");
            results.unmeasured.push(Unmeasured { subject: "fio".to_owned(), ..why });
        }
    }
    for (who, outcome) in outcomes {
        match outcome {
            Ok(outcome) => {
                eprintln!(
                    "{} {:.0}/s, {:.2} CPU s per million, took {:.1} s",
                    outcome.subject,
                    outcome.throughput(),
                    outcome.cpu_per_million(),
                    took.elapsed().as_secs_f64()
                );
                results.outcomes.push(outcome);
            }
            Err(error) => {
                eprintln!("{who}failed: {error}");
                results.unmeasured.push(unmeasured(job, &format!("{who}{error}")));
            }
        }
    }
}

/// Runs one child on the plan's processor, and ends it when it takes too long.
fn child(job: &Job, limit: Duration) -> Result<Outcome, Failure> {
    let mut child = Command::new("taskset")
        .args(["-c", &job.cpu.to_string()])
        .arg(std::env::current_exe()?)
        .args(["child", &serde_json::to_string(job)?])
        // As `coronetd` has it: memory that is given back comes again page by page, cleared, which
        // in runs this short costs every engine a tenth of its processor time.
        .env("MIMALLOC_PURGE_DELAY", "-1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    // A row fits into the pipe, so the child never waits for its reader.
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Err(format!("ended after {:.0} s without a result", limit.as_secs_f64()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut row = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut row)?;
    }
    if !status.success() {
        return Err(format!("the process ended with {status}").into());
    }
    Ok(serde_json::from_str(&row)?)
}

/// All workloads in their order.
pub fn all_workloads() -> Vec<Workload> {
    Workload::value_variants().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Latency;
    use crate::usage::Usage;

    fn row(subject: &str, operations: u64, p999: f64) -> Outcome {
        let reads = Latency { p999, ..Latency::default() };
        let run = Usage { seconds: 1.0, ..Usage::default() };
        let subject = subject.to_owned();
        Outcome { subject, operations, reads, run, ..Outcome::default() }
    }

    #[test]
    fn of_rounds_the_median_is_kept_and_the_others_are_named() {
        let rounds = || {
            let coronet = [(30, 7.0), (10, 9.0), (20, 8.0)].map(|(n, us)| row("coronet", n, us));
            let fio = [(5, 1.0), (6, 2.0)].map(|(n, us)| row("fio", n, us));
            coronet.into_iter().chain(fio).collect::<Vec<_>>()
        };
        let kept = medians(Workload::ColdRead32, rounds());
        assert_eq!(kept.iter().map(|row| row.operations).collect::<Vec<_>>(), [20, 5]);
        assert_eq!(kept[0].notes, ["rounds in turn, operations/s: 30, 10, 20"]);
        let kept = medians(Workload::ReadWhileWriting, rounds());
        assert_eq!(kept.iter().map(|row| row.reads.p999).collect::<Vec<_>>(), [8.0, 1.0]);
        assert_eq!(kept[1].notes, ["rounds in turn, p99.9 of reads, us: 1, 2"]);
        let once = medians(Workload::MultiGet32, vec![row("coronet", 3, 1.0)]);
        assert!(once[0].notes.is_empty());
    }
}
