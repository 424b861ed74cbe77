//! One engine, one workload, one process.

use std::fs;

use crate::Failure;
use crate::coronet::{self, Measured};
use crate::fjalls::Fjall;
use crate::peer::{self, Peer};
use crate::record::{Kind, Outcome};
use crate::spec::{Job, Subject};
use crate::usage::{Moment, Usage, drop_page_cache, load, peak_memory, space};

/// Runs the job and returns its row.
///
/// # Errors
/// The engine's first, or when folder and counters cannot be read.
pub fn run(job: &Job) -> Result<Outcome, Failure> {
    if job.workload.is_fresh() && job.dir.exists() {
        fs::remove_dir_all(&job.dir)?;
    }
    fs::create_dir_all(&job.dir)?;
    drop_page_cache(&job.dir)?;
    let load_before = load();
    let (recorder, run, settle, notes) = match job.subject {
        Subject::Coronet | Subject::CoronetTiered => coronet::run(job)?,
        #[cfg(feature = "rocksdb")]
        Subject::Rocksdb => measure(&crate::rocks::Rocks::open(job)?, job)?,
        #[cfg(not(feature = "rocksdb"))]
        Subject::Rocksdb => return Err("built without RocksDB".into()),
        Subject::Fjall => measure(&Fjall::open(job)?, job)?,
    };
    Ok(Outcome {
        subject: job.subject.name().to_owned(),
        workload: job.workload.name().to_owned(),
        value_bytes: job.sizes.value_bytes,
        operations: recorder.operations,
        planned: job.planned(),
        logical_written: recorder.entries_written * job.sizes.entry_bytes(),
        logical_read: recorder.entries_read * job.sizes.entry_bytes(),
        run,
        settle,
        reads: recorder.latency(Kind::Read),
        writes: recorder.latency(Kind::Write),
        scans: recorder.latency(Kind::Scan),
        missing: recorder.missing,
        space_bytes: space(&job.dir)?,
        live_bytes: job.sizes.live_bytes(),
        peak_memory: peak_memory(),
        load: [load_before, load()],
        notes,
    })
}

fn measure(peer: &impl Peer, job: &Job) -> Result<Measured, Failure> {
    let (recorder, run) = peer::run(peer, job)?;
    let mut settle = Usage::default();
    if job.workload.writes() {
        let from = Moment::now(&job.dir)?;
        peer.settle()?;
        settle = from.since(&job.dir)?;
    }
    Ok((recorder, run, settle, peer.notes()))
}
