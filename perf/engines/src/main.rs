//! `engines`: the same workloads on Coronet's engine, RocksDB and fjall; see `perf/engines/run.sh`.

mod aims;
mod child;
mod coronet;
mod driver;
mod fio;
mod fjalls;
mod keys;
mod ops;
mod peer;
mod plot;
mod record;
mod report;
#[cfg(feature = "rocksdb")]
mod rocks;
mod spec;
mod usage;
mod window;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::driver::{Plan, Results};
use crate::record::Outcome;
use crate::spec::{Job, Subject, Workload};

/// One allocator for all engines, RocksDB's C++ included.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever went wrong; only its text is of use here.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The engine beside its peers.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run everything, or a part, and write the results.
    Run(RunArgs),
    /// Write table and plots of kept rows anew.
    Report {
        /// The JSON file of a run; table and plots go beside it.
        file: PathBuf,
    },
    /// One engine and workload; what `run` starts.
    #[command(hide = true)]
    Child {
        /// The job, as JSON.
        job: String,
    },
}

#[derive(clap::Args)]
struct RunArgs {
    /// Small data and short runs: ends within ten minutes.
    #[arg(long)]
    quick: bool,
    /// Engines to run.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<Subject>,
    /// Workloads to run; those that write the data come first.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// Value sizes, bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 100])]
    values: Vec<usize>,
    /// Memtables of this size, KiB, at least 64: smaller ones make deeper trees, those of much more
    /// data. The first level follows them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(64..))]
    memtable_kib: Option<u32>,
    /// Folder on the disk to measure; what is made in it is removed.
    #[arg(long)]
    scratch: PathBuf,
    /// Results go to this path, with .json, .md and -*.svg behind it.
    #[arg(long)]
    out: PathBuf,
    /// The processor for everything.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// No child starts after so many seconds (quick: 560).
    #[arg(long)]
    limit: Option<u64>,
    /// A line about the machine or the build for the head of the table; may be repeated.
    #[arg(long)]
    fact: Vec<String>,
}

fn main() -> Result<(), Failure> {
    match Cli::parse().verb {
        Verb::Run(args) => run(args),
        Verb::Report { file } => {
            let kept: report::Kept = serde_json::from_str(&fs::read_to_string(&file)?)?;
            report::write(&kept, &file.with_extension(""))
        }
        Verb::Child { job } => {
            let job: Job = serde_json::from_str(&job)?;
            let outcome: Outcome = child::run(&job)?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
    }
}

fn run(args: RunArgs) -> Result<(), Failure> {
    let default_limit = if args.quick { 560 } else { 24 * 3600 };
    let plan = Plan {
        quick: args.quick,
        subjects: if args.engines.is_empty() { spec::subjects() } else { args.engines },
        workloads: if args.workloads.is_empty() { driver::all_workloads() } else { args.workloads },
        values: args.values,
        memtable_kib: args.memtable_kib.map(|kib| kib as usize),
        scratch: args.scratch,
        cpu: args.cpu,
        limit: Duration::from_secs(args.limit.unwrap_or(default_limit)),
    };
    fs::create_dir_all(&plan.scratch)?;
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder)?;
    }
    let keep = |results: &Results| report::write(&kept(&plan, &args.fact, results), &args.out);
    let results = driver::run(&plan, keep)?;
    println!("{}", report::markdown(&kept(&plan, &args.fact, &results)));
    println!("written to {}.md, .json and -*.svg", args.out.display());
    Ok(())
}

fn kept(plan: &Plan, facts: &[String], results: &Results) -> report::Kept {
    report::Kept {
        quick: plan.quick,
        cpu: plan.cpu,
        facts: facts.to_vec(),
        sizes: plan.values.iter().map(|bytes| plan.sizes(*bytes)).collect(),
        outcomes: results.outcomes.clone(),
        unmeasured: results.unmeasured.clone(),
        remarks: results.remarks.clone(),
    }
}
