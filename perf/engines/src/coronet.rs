//! Coronet's engine in the node's own runtime: one executor, one ring, tasks instead of threads.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coronet_lsm::env::{Env, TaskClass};
use coronet_lsm::{CompactionPolicy, Durability, Engine, Error, Options, ScanRange, WriteBatch};
use coronet_server::rt::{CoreContext, CoresConfig, RtEnv, executor};
use futures_util::future::{FutureExt, join_all};

use crate::Failure;
use crate::keys::{Random, Values, key};
use crate::ops::{Op, Shared, Stream};
use crate::peer::{SYNC_INTERVAL, WRITER_BEAT};
use crate::record::{Kind, Recorder};
use crate::spec::{Job, Subject};
use crate::usage::{Moment, Usage};
use crate::window::Window;

/// Operations of a client between two cooperative yields: 10 us where all are answered at once.
const OPS_BETWEEN_PAUSES: u64 = 16;

/// Levels grow as fast as those of the leveled trees it is compared with; the preset's fan-out is 4.
const TIERED: &str = "tiered(fanout=10)";

/// What a job came to: counted operations, the run, the settling, the engine's notes.
pub type Measured = (Recorder, Usage, Usage, Vec<String>);

/// Runs the job on an executor of its own.
///
/// # Errors
/// The engine's, or the runtime's.
pub fn run(job: &Job) -> Result<Measured, Failure> {
    let cores = CoresConfig { cpus: vec![job.cpu] };
    let owned = job.clone();
    let cores = executor::start(&cores, move |context: CoreContext| async move {
        on_core(context.env, &owned).await.map_err(|error| error.to_string())
    })?;
    let mut results = cores.join();
    Ok(results.pop().ok_or("no core ran")???)
}

fn options(job: &Job) -> Result<Options, Failure> {
    let policy = match job.subject {
        Subject::CoronetTiered => TIERED.parse()?,
        _ => CompactionPolicy::leveled(),
    };
    let memtable = job.sizes.memtable_bytes;
    Ok(Options {
        memtable_bytes: memtable,
        log_segment_bytes: (memtable as u64 / 2).next_multiple_of(4096),
        sync_interval: SYNC_INTERVAL,
        cache_bytes: job.cache_bytes(),
        compaction: policy.sized(job.sizes.level1_bytes(), memtable as u64),
        scrub_bytes_per_second: 0,
        ..Options::default()
    })
}

async fn on_core(env: RtEnv, job: &Job) -> Result<Measured, Failure> {
    let engine = Engine::open(env.clone(), &job.dir, options(job)?).await?;
    let (recorder, run) = measure(&env, &engine, job).await?;
    let from = Moment::now(&job.dir)?;
    if job.workload.writes() {
        engine.flush().await?;
        engine.compact().await?;
    }
    let settle = from.since(&job.dir)?;
    let notes = notes(&engine);
    engine.close().await?;
    Ok((recorder, run, settle, notes))
}

async fn measure(
    env: &RtEnv,
    engine: &Engine<RtEnv>,
    job: &Job,
) -> Result<(Recorder, Usage), Failure> {
    let clients = job.clients();
    let shared = Shared::new(job);
    let window = Window::start(job);
    let from = RefCell::new(None);
    let observer = async {
        let warm_up = window.until_counted();
        if !warm_up.is_zero() {
            env.sleep(warm_up).await;
        }
        *from.borrow_mut() = Some(Moment::now(&job.dir)?);
        Ok::<_, Failure>(())
    };
    // One for all clients: they share a thread, and each one's own would not fit the processor's
    // caches together.
    let recorder = Rc::new(RefCell::new(Recorder::default()));
    let values = Rc::new(RefCell::new(Values::new(job.sizes.value_bytes, 7)));
    let workers = join_all((0..clients).map(|client| {
        let stream = Stream::new(job, &shared, client, clients);
        let (of_task, engine, values) = (env.clone(), engine.clone(), values.clone());
        let recorder = recorder.clone();
        // A task each, as a node's requests are.
        let work = async move { work(&of_task, &engine, stream, window, &values, &recorder).await };
        let (task, done) = work.remote_handle();
        env.spawn(TaskClass::Foreground, task);
        done
    }));
    let beside = async {
        match job.workload {
            workload if workload.has_writer() => write_steadily(env, engine, job, window).await,
            _ => Ok(Recorder::default()),
        }
    };
    let (observed, workers, beside) = futures_util::join!(observer, workers, beside);
    workers.into_iter().chain([observed]).collect::<Result<(), _>>()?;
    let mut all = recorder.take();
    all.merge(&beside?);
    let from = from.into_inner().ok_or("the run ended before its warm-up")?;
    Ok((all, from.since(&job.dir)?))
}

/// One client from its first operation to its last.
async fn work(
    env: &RtEnv,
    engine: &Engine<RtEnv>,
    mut stream: Stream,
    window: Window,
    values: &RefCell<Values>,
    recorder: &RefCell<Recorder>,
) -> Result<(), Failure> {
    let mut batch = WriteBatch::new();
    for n in 1_u64.. {
        let Some(op) = stream.next() else { break };
        let start = Instant::now();
        if window.is_over(start) {
            break;
        }
        let found = execute(env, engine, &op, values, &mut batch).await?;
        if window.counts(start) {
            recorder.borrow_mut().count(&op, found, start.elapsed());
        }
        // What is in memory never waits: a pause now and then, as long work must make.
        if n.is_multiple_of(OPS_BETWEEN_PAUSES) {
            env.coop().await;
        }
    }
    Ok(())
}

/// How many entries an operation found.
async fn execute(
    env: &RtEnv,
    engine: &Engine<RtEnv>,
    op: &Op,
    values: &RefCell<Values>,
    batch: &mut WriteBatch,
) -> Result<usize, Failure> {
    match op {
        Op::Put(index) => {
            batch.clear();
            batch.put(&key(*index), values.borrow_mut().next());
            put(env, engine, batch).await.map(|()| 0)
        }
        Op::Get(index) => get(engine, *index).await,
        Op::GetMany(indexes) => {
            let keys: Vec<_> = indexes.iter().map(|index| key(*index).to_vec()).collect();
            Ok(engine.multi_get(&keys).await?.iter().flatten().count())
        }
        Op::Modify(index) => {
            let found = get(engine, *index).await?;
            batch.clear();
            batch.put(&key(*index), values.borrow_mut().next());
            put(env, engine, batch).await?;
            Ok(found)
        }
        Op::Scan(index, steps) => {
            let range = ScanRange { start: key(*index).to_vec(), end: None };
            let mut scan = engine.scan(range).await?;
            let mut found = 0;
            while found < *steps && scan.entry().is_some() {
                found += 1;
                scan.advance().await?;
            }
            Ok(found)
        }
    }
}

/// How often the key is there; its value stays where it is, as in RocksDB's.
async fn get(engine: &Engine<RtEnv>, index: u64) -> Result<usize, Failure> {
    Ok(engine.get_with(&key(index), |value| usize::from(value.is_some())).await?)
}

async fn put(env: &RtEnv, engine: &Engine<RtEnv>, batch: &WriteBatch) -> Result<(), Failure> {
    loop {
        match engine.write(batch, Durability::Buffered) {
            Ok(commit) => return Ok(commit.await.map(drop)?),
            Err(Error::Busy { retry_after_ms }) => {
                env.sleep(Duration::from_millis(retry_after_ms.into())).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The writer beside the reader: a fixed number of writes per beat, late ones made up for. The
/// writes of one beat are in flight together.
async fn write_steadily(
    env: &RtEnv,
    engine: &Engine<RtEnv>,
    job: &Job,
    window: Window,
) -> Result<Recorder, Failure> {
    let mut recorder = Recorder::default();
    let (mut random, mut values) = (Random::new(11), Values::new(job.sizes.value_bytes, 11));
    let begin = Instant::now();
    let mut written = 0;
    while !window.is_over(Instant::now()) {
        let due = (begin.elapsed().as_secs_f64() * job.write_rate() as f64) as u64;
        let mut writes = Vec::new();
        // A beat that came very late is made up for in parts.
        let due = due.min(written + 64);
        while written < due {
            let mut batch = WriteBatch::new();
            batch.put(&key(random.below(job.sizes.keys)), values.next());
            writes.push(async move {
                let start = Instant::now();
                put(env, engine, &batch).await?;
                Ok::<_, Failure>((start, start.elapsed()))
            });
            written += 1;
        }
        for write in join_all(writes).await {
            let (start, took) = write?;
            if window.counts(start) {
                recorder.add_beside(Kind::Write, took);
                recorder.entries_written += 1;
            }
        }
        env.sleep(WRITER_BEAT).await;
    }
    Ok(recorder)
}

fn notes(engine: &Engine<RtEnv>) -> Vec<String> {
    let stats = engine.stats();
    let levels: Vec<String> = (stats.level_bytes.iter().zip(&stats.level_runs))
        .map(|(bytes, runs)| format!("{} MiB/{runs}", bytes >> 20))
        .collect();
    vec![
        format!("levels (size/runs) {}", levels.join(" ")),
        format!(
            "cache hits {:.1} %, tables per read {:.2}, delayed {} ms, stalled {} ms, paced {} ms",
            stats.cache_hit_rate() * 100.0,
            stats.read_amplification(),
            stats.delayed_micros / 1000,
            stats.stalled_micros / 1000,
            stats.paced_micros / 1000
        ),
        format!(
            "written: log {} MiB in {} batches, flush {} MiB, compaction {} MiB",
            stats.log_bytes >> 20,
            stats.log_batches,
            stats.flush_bytes >> 20,
            stats.compaction_write_bytes >> 20
        ),
    ]
}
