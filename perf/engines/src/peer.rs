//! Engines with blocking calls: one thread per operation in flight.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::keys::{KEY_BYTES, Random, Values, key};
use crate::ops::{Op, Shared, Stream};
use crate::record::{Kind, Recorder};
use crate::spec::Job;
use crate::usage::{Moment, Usage};
use crate::window::Window;

/// How long a write may stay un-synced, in all engines.
pub const SYNC_INTERVAL: Duration = Duration::from_millis(50);
/// How often the writer of a workload that has one wakes up.
pub const WRITER_BEAT: Duration = Duration::from_millis(2);

/// An engine with blocking calls.
pub trait Peer: Sync {
    /// Reads one key; whether it was there.
    ///
    /// # Errors
    /// As the engine says; the same for all calls.
    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<bool, Failure>;
    /// Writes one key, without a sync.
    fn put(&self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<(), Failure>;
    /// Seeks and steps; how many entries were there.
    fn scan(&self, from: &[u8; KEY_BYTES], steps: usize) -> Result<usize, Failure>;
    /// Makes earlier writes durable.
    fn sync(&self) -> Result<(), Failure>;
    /// Flushes, and waits until nothing is left to compact.
    fn settle(&self) -> Result<(), Failure>;
    /// What the engine says about the run.
    fn notes(&self) -> Vec<String>;
}

/// Runs the workload. Returns what was counted, and what it took.
///
/// # Errors
/// The first that any call had.
pub fn run(peer: &impl Peer, job: &Job) -> Result<(Recorder, Usage), Failure> {
    let clients = job.clients();
    let shared = Shared::new(job);
    let window = Window::start(job);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|client| {
                let stream = Stream::new(job, &shared, client, clients);
                scope.spawn(move || work(peer, job, stream, window))
            })
            .collect();
        let beside =
            job.workload.has_writer().then(|| scope.spawn(|| write_steadily(peer, job, window)));
        let syncer = job.workload.writes().then(|| scope.spawn(|| keep_synced(peer, &done)));
        std::thread::sleep(window.until_counted());
        let from = Moment::now(&job.dir);
        let mut all = Recorder::default();
        let mut failed = None;
        for worker in workers.into_iter().chain(beside) {
            match worker.join().unwrap_or_else(|_| Err("a client panicked".into())) {
                Ok(recorder) => all.merge(&recorder),
                Err(error) => failed = Some(error),
            }
        }
        let usage = from.and_then(|from| from.since(&job.dir));
        done.store(true, Ordering::Relaxed);
        if let Some(syncer) = syncer {
            syncer.join().unwrap_or_else(|_| Err("the syncing thread panicked".into()))?;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok((all, usage?)),
        }
    })
}

/// One client from its first operation to its last.
fn work(
    peer: &impl Peer,
    job: &Job,
    mut stream: Stream,
    window: Window,
) -> Result<Recorder, Failure> {
    let mut recorder = Recorder::default();
    let mut values = Values::new(job.sizes.value_bytes, 7);
    while let Some(op) = stream.next() {
        let start = Instant::now();
        if window.is_over(start) {
            break;
        }
        let done = execute(peer, &op, &mut values)?;
        if window.counts(start) {
            recorder.count(&op, done, start.elapsed());
        }
    }
    Ok(recorder)
}

/// How many entries an operation found.
fn execute(peer: &impl Peer, op: &Op, values: &mut Values) -> Result<usize, Failure> {
    match op {
        Op::Put(index) => peer.put(&key(*index), values.next()).map(|()| 0),
        Op::Get(index) => peer.get(&key(*index)).map(usize::from),
        Op::GetMany(_) => Err("no peer takes part in calls of several keys".into()),
        Op::Modify(index) => {
            let found = peer.get(&key(*index))?;
            peer.put(&key(*index), values.next())?;
            Ok(usize::from(found))
        }
        Op::Scan(index, steps) => peer.scan(&key(*index), *steps),
    }
}

/// The writer beside the reader: a fixed number of writes per beat, late ones made up for.
fn write_steadily(peer: &impl Peer, job: &Job, window: Window) -> Result<Recorder, Failure> {
    let mut recorder = Recorder::default();
    let (mut random, mut values) = (Random::new(11), Values::new(job.sizes.value_bytes, 11));
    let begin = Instant::now();
    let mut written = 0;
    while !window.is_over(Instant::now()) {
        let due = (begin.elapsed().as_secs_f64() * job.write_rate() as f64) as u64;
        while written < due && !window.is_over(Instant::now()) {
            let start = Instant::now();
            peer.put(&key(random.below(job.sizes.keys)), values.next())?;
            written += 1;
            if window.counts(start) {
                recorder.add_beside(Kind::Write, start.elapsed());
                recorder.entries_written += 1;
            }
        }
        std::thread::sleep(WRITER_BEAT);
    }
    Ok(recorder)
}

/// Gives the engine the durability that Coronet's buffered writes have.
fn keep_synced(peer: &impl Peer, done: &AtomicBool) -> Result<(), Failure> {
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(SYNC_INTERVAL);
        peer.sync()?;
    }
    Ok(())
}
