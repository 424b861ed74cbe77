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
    let per_value: usize =
        plan.workloads.iter().map(|workload| takers(plan, *workload).count()).sum();
    let total = per_value * plan.values.len();
    let mut at = 0;
    for value_bytes in &plan.values {
        let sizes = plan.sizes(*value_bytes);
        for workload in &plan.workloads {
            for subject in takers(plan, *workload) {
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
        }
        for subject in &plan.subjects {
            remove(&folder(plan, *subject))?;
        }
    }
    keep(&results)?;
    Ok(results)
}

/// The engines that take part in a workload.
fn takers(plan: &Plan, workload: Workload) -> impl Iterator<Item = Subject> {
    plan.subjects.iter().copied().filter(move |subject| workload.suits(*subject))
}

fn folder(plan: &Plan, subject: Subject) -> PathBuf {
    plan.scratch.join(subject.name())
}

fn job(plan: &Plan, sizes: &Sizes, workload: Workload, subject: Subject) -> Job {
    let dir = folder(plan, subject);
    Job { subject, workload, sizes: sizes.clone(), dir, cpu: plan.cpu }
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
