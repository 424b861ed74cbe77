//! The log as its users see it, and what they share with the writer's task: batches that gather,
//! segments in every state, room and failure.

use super::Throttle;
use super::format::BATCH_HEADER;
use super::pin::{Pins, Tail};
use super::replay::Replayed;
use super::segments::{Full, MAX_SPARE, Segment, WANTED_SPARE, prepare};
use super::syncer::{self, SyncState};
use super::writer::Writer;
use crate::compaction::Pacer;
use crate::env::{AlignedBuf, Env, Nanos, PAGE, TaskClass};
use crate::signal::{Commit, Completion, Signal, log_failed};
use crate::stats::Counters;
use crate::{Durability, Error, Options, Result, Seq, WriteBatch};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// A gathering batch is closed beyond this size, so that one write never gets very long.
const GROUP_BYTES: usize = 4 << 20;
/// Batch buffers kept for reuse.
const SPARE_BUFFERS: usize = 3;
/// How long the writer sleeps at most before it looks at the pressure again.
const THROTTLE_STEP: Duration = Duration::from_millis(2);

/// Writes that go to the device together.
pub(super) struct Group {
    /// Room for the header, then records.
    pub buf: AlignedBuf,
    pub first: Seq,
    pub count: u32,
    pub durable: bool,
    /// When its first write came.
    pub opened: Nanos,
    pub completion: Rc<Completion>,
}

impl Group {
    /// Sequence number of the last record.
    pub fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }
}

pub(super) struct State<F> {
    pub next_seq: u64,
    pub open: Option<Group>,
    pub sealed: VecDeque<Group>,
    pub pending_bytes: usize,
    pub buffers: Vec<AlignedBuf>,
    pub active: Option<Tail<F>>,
    /// Bytes that still fit the active segment.
    pub active_room: u64,
    pub next_generation: u64,
    pub next_id: u64,
    pub full: Vec<Full<F>>,
    pub spare: Vec<Segment<F>>,
    pub pins: Pins,
    pub failed: Option<Error>,
    pub disk_full: bool,
    pub closing: bool,
    pub abandoned: bool,
    pub stopped: bool,
    pub not_before: Nanos,
}

impl<F> State<F> {
    fn new(replayed: Replayed<F>, last: Seq) -> Self {
        State {
            next_seq: last.0 + 1,
            open: None,
            sealed: VecDeque::new(),
            pending_bytes: 0,
            buffers: Vec::new(),
            active: None,
            active_room: 0,
            next_generation: replayed.next_generation,
            next_id: replayed.next_id,
            full: replayed.full,
            spare: replayed.spare,
            pins: Pins::default(),
            failed: None,
            disk_full: false,
            closing: false,
            abandoned: false,
            stopped: false,
            not_before: Nanos::default(),
        }
    }
}

pub(super) struct Inner<E: Env> {
    pub env: E,
    pub dir: PathBuf,
    pub options: Rc<Options>,
    pub throttle: Throttle,
    /// Told how long commits take.
    pub pacer: Rc<Pacer>,
    pub stats: Rc<Counters>,
    pub state: RefCell<State<E::File>>,
    pub visible: Cell<Seq>,
    /// Everything up to here is on the device.
    pub synced: Cell<Seq>,
    /// Somebody waits until everything up to here is.
    pub sync_wanted: Cell<Seq>,
    /// Between writer and syncer.
    pub sync: SyncState<E::File>,
    /// Work for the writer.
    pub wake: Signal,
    /// Work for the syncer.
    pub sync_wake: Signal,
    /// A batch committed, or the log failed or stopped.
    pub committed: Signal,
    /// Spare segments came or are wanted.
    pub segments: Signal,
}

/// Handle to the log.
pub struct Log<E: Env> {
    pub(super) inner: Rc<Inner<E>>,
}

impl<E: Env> Clone for Log<E> {
    fn clone(&self) -> Self {
        Log { inner: self.inner.clone() }
    }
}

impl<E: Env> Log<E> {
    /// Takes over what the replay found and starts the log's tasks. `last` is the newest
    /// sequence number anything may carry; new writes follow it.
    pub async fn start(
        env: &E,
        dir: &Path,
        options: &Rc<Options>,
        stats: &Rc<Counters>,
        replayed: Replayed<E::File>,
        last: Seq,
    ) -> Result<Self> {
        let before = replayed.last;
        let inner = Rc::new(Inner {
            env: env.clone(),
            dir: dir.to_owned(),
            options: options.clone(),
            throttle: Throttle::default(),
            pacer: Rc::default(),
            stats: stats.clone(),
            state: RefCell::new(State::new(replayed, last)),
            visible: Cell::new(last),
            synced: Cell::new(last),
            sync_wanted: Cell::new(last),
            sync: SyncState::default(),
            wake: Signal::default(),
            sync_wake: Signal::default(),
            committed: Signal::default(),
            segments: Signal::default(),
        });
        if inner.state.borrow().spare.is_empty() {
            inner.add_spare(inner.options.log_segment_bytes).await.or_else(ignore_full_disk)?;
        }
        env.spawn(TaskClass::Foreground, Writer::new(inner.clone(), before).run());
        env.spawn(TaskClass::Foreground, syncer::run(inner.clone()));
        env.spawn(TaskClass::Background, inner.clone().keep_spare());
        Ok(Log { inner })
    }

    /// The brake that the engine sets.
    pub fn throttle(&self) -> &Throttle {
        &self.inner.throttle
    }

    /// Whom the log tells how long commits take.
    pub fn pacer(&self) -> Rc<Pacer> {
        self.inner.pacer.clone()
    }

    /// Whether a batch of `bytes` would be taken now.
    pub fn check(&self, bytes: usize) -> Result<()> {
        let state = self.inner.state.borrow();
        match &state.failed {
            Some(error) => Err(error.clone()),
            None if state.closing || state.abandoned => Err(Error::Closed),
            None if state.disk_full => Err(Error::DiskFull),
            None if !self.inner.has_room(&state, bytes) => Err(Error::Busy { retry_after_ms: 5 }),
            None => Ok(()),
        }
    }

    /// Appends a batch; returns its commit and the sequence number of its first entry.
    pub fn append(&self, batch: &WriteBatch, durability: Durability) -> (Seq, Commit) {
        let inner = &*self.inner;
        let mut state = inner.state.borrow_mut();
        let bytes = batch.bytes();
        if state.open.as_ref().is_some_and(|open| open.buf.len() + bytes > inner.group_bytes()) {
            let group = state.open.take();
            state.sealed.extend(group);
        }
        let first = Seq(state.next_seq);
        state.next_seq += batch.len() as u64;
        state.pending_bytes += bytes;
        let last = Seq(state.next_seq - 1);
        let mut group = state
            .open
            .take()
            .unwrap_or_else(|| new_group(state.buffers.pop(), first, inner.env.now()));
        group.buf.extend_from_slice(batch.encoded());
        group.count += batch.len() as u32;
        group.durable |= durability == Durability::Durable;
        let commit = Commit::new(last, group.completion.clone());
        state.open = Some(group);
        drop(state);
        inner.wake.notify();
        (first, commit)
    }

    /// The newest committed sequence number.
    pub fn visible(&self) -> Seq {
        self.inner.visible.get()
    }

    /// The newest sequence number given out.
    pub fn last(&self) -> Seq {
        Seq(self.inner.state.borrow().next_seq - 1)
    }

    /// Waits until everything up to `seq` is committed; fails when that can no longer happen.
    pub async fn committed(&self, seq: Seq) -> Result<()> {
        loop {
            let epoch = self.inner.committed.epoch();
            if self.visible() >= seq {
                return Ok(());
            }
            self.alive()?;
            self.inner.committed.changed(epoch).await;
        }
    }

    /// Asks for an early sync of everything up to `seq`, which is committed.
    pub fn want_sync(&self, seq: Seq) {
        let inner = &*self.inner;
        inner.sync_wanted.set(inner.sync_wanted.get().max(seq));
        inner.sync_wake.notify();
    }

    /// Waits until everything up to `seq` is on the device; fails when that can no longer happen.
    pub async fn synced(&self, seq: Seq) -> Result<()> {
        self.want_sync(seq);
        loop {
            let epoch = self.inner.committed.epoch();
            if self.inner.synced.get() >= seq {
                return Ok(());
            }
            self.alive()?;
            self.inner.committed.changed(epoch).await;
        }
    }

    /// The lowest generation that a restart needs once everything up to `flushed` is in tables.
    pub fn floor_after(&self, flushed: Seq) -> u64 {
        let state = self.inner.state.borrow();
        let needed =
            state.full.iter().filter(|full| full.last > flushed).map(|full| full.generation);
        let active = state.active.as_ref().map(|active| active.generation);
        needed.chain(active).min().unwrap_or(state.next_generation)
    }

    /// Gives segments below generation `floor`, which the manifest no longer needs, back: some
    /// as spares, the paths of the others for removal. While the log is pinned nothing is.
    pub fn release(&self, floor: u64) -> Vec<PathBuf> {
        let mut state = self.inner.state.borrow_mut();
        let Some(floor) = state.pins.release(floor) else { return Vec::new() };
        let mut removable = Vec::new();
        let full = std::mem::take(&mut state.full);
        for full in full {
            if full.generation >= floor {
                state.full.push(full);
            } else if full.segment.len == self.inner.options.log_segment_bytes
                && state.spare.len() < MAX_SPARE
            {
                state.spare.push(full.segment);
                state.disk_full &= state.spare.len() < WANTED_SPARE;
            } else {
                removable.push(full.segment.path);
            }
        }
        drop(state);
        self.inner.segments.notify();
        removable
    }

    /// For [`Log::segments_changed`].
    pub fn segments_epoch(&self) -> u64 {
        self.inner.segments.epoch()
    }

    /// Completes when segments were taken into use or given back since `epoch`, or the log ended.
    pub async fn segments_changed(&self, epoch: u64) {
        self.inner.segments.changed(epoch).await;
    }

    /// Wakes whoever waits for [`Log::segments_changed`].
    pub fn wake_segments(&self) {
        self.inner.segments.notify();
    }

    /// Number of segments that hold data.
    pub fn segments_in_use(&self) -> usize {
        let state = self.inner.state.borrow();
        state.full.len() + usize::from(state.active.is_some())
    }

    /// Refuses further writes, commits and syncs what is pending, stops the tasks.
    pub async fn close(&self) -> Result<()> {
        self.inner.state.borrow_mut().closing = true;
        self.inner.wake.notify();
        self.inner.segments.notify();
        loop {
            let epoch = self.inner.committed.epoch();
            let (stopped, failed) = {
                let state = self.inner.state.borrow();
                (state.stopped, state.failed.clone())
            };
            match failed {
                Some(error) => return Err(error),
                None if stopped => return Ok(()),
                None => self.inner.committed.changed(epoch).await,
            }
        }
    }

    /// Stops the tasks without waiting; what is pending fails with [`Error::Closed`].
    pub fn abandon(&self) {
        self.inner.state.borrow_mut().abandoned = true;
        self.inner.fail(&Error::Closed);
    }

    fn alive(&self) -> Result<()> {
        let state = self.inner.state.borrow();
        match &state.failed {
            Some(error) => Err(error.clone()),
            None if state.stopped => Err(Error::Closed),
            None => Ok(()),
        }
    }
}

/// An engine on a full disk opens for reading; its log goes on probing.
fn ignore_full_disk(error: Error) -> Result<()> {
    if error.is_disk_full() { Ok(()) } else { Err(error) }
}

fn new_group(buffer: Option<AlignedBuf>, first: Seq, opened: Nanos) -> Group {
    let mut buf = buffer.unwrap_or_default();
    buf.clear();
    buf.extend_from_slice(&[0; BATCH_HEADER]);
    Group { buf, first, count: 0, durable: false, opened, completion: Rc::default() }
}

impl<E: Env> Inner<E> {
    fn group_bytes(&self) -> usize {
        let half = usize::try_from(self.options.log_segment_bytes / 2).unwrap_or(GROUP_BYTES);
        half.min(GROUP_BYTES)
    }

    /// Bytes that may wait for the writer before further writes are refused.
    fn pending_limit(&self) -> usize {
        (self.options.max_batch_bytes() * 2).max(32 << 20)
    }

    /// Whether `bytes` more may wait for the writer. While fewer segments are ready than wanted,
    /// the disk may prove full any moment: then only what surely fits is taken, because a write
    /// that was taken cannot be refused any more.
    fn has_room(&self, state: &State<E::File>, bytes: usize) -> bool {
        let padding = 2 * PAGE * (state.sealed.len() + 2);
        let need = (state.pending_bytes + bytes + padding) as u64;
        let spare = state.spare.iter().map(|spare| spare.len).max().unwrap_or(0);
        let ready = spare.max(state.active_room);
        // A batch beyond the size of segments gets one of its own, on trust.
        let oversized = state.pending_bytes == 0 && need > self.options.log_segment_bytes;
        state.pending_bytes <= self.pending_limit()
            && (state.spare.len() >= WANTED_SPARE || need <= ready || oversized)
    }

    /// Ends the log: everything pending and everything later fails.
    pub fn fail(&self, cause: &Error) {
        let error = log_failed(cause);
        let mut state = self.state.borrow_mut();
        let error = state.failed.get_or_insert(error).clone();
        let groups: Vec<Group> = std::mem::take(&mut state.sealed).into_iter().collect();
        let open = state.open.take();
        state.pending_bytes = 0;
        drop(state);
        let unwritten = groups.into_iter().chain(open).map(|group| group.completion);
        let written = self.sync.take_waiting().into_iter().map(|batch| batch.completion);
        for completion in written.chain(unwritten) {
            completion.complete(Err(error.clone()));
        }
        self.wake.notify();
        self.sync_wake.notify();
        self.segments.notify();
        self.committed.notify();
    }

    /// Keeps one prepared segment ready; runs as a task of its own.
    async fn keep_spare(self: Rc<Self>) {
        loop {
            let epoch = self.segments.epoch();
            let wanted = {
                let state = self.state.borrow();
                if state.failed.is_some() || state.closing || state.stopped {
                    return;
                }
                state.spare.len() < WANTED_SPARE
            };
            if !wanted {
                self.segments.changed(epoch).await;
            } else if let Err(error) = self.add_spare(self.options.log_segment_bytes).await {
                if !error.is_disk_full() {
                    return self.fail(&error);
                }
                self.segments
                    .changed_within(&self.env, epoch, self.options.full_probe_interval)
                    .await;
            }
        }
    }

    /// Prepares one segment; remembers whether the disk had room.
    pub async fn add_spare(&self, len: u64) -> Result<()> {
        let id = {
            let mut state = self.state.borrow_mut();
            state.next_id += 1;
            state.next_id - 1
        };
        let prepared = prepare(&self.env, &self.dir, id, len).await;
        if prepared.is_ok() {
            self.stats.update(|stats| stats.log_fill_bytes += len);
        }
        let mut state = self.state.borrow_mut();
        match prepared {
            Ok(segment) => {
                state.spare.push(segment);
                state.disk_full &= state.spare.len() < WANTED_SPARE;
                drop(state);
                self.segments.notify();
                Ok(())
            }
            Err(error) => {
                // A segment may have come back meanwhile; then there is room after all.
                state.disk_full = error.is_disk_full() && state.spare.len() < WANTED_SPARE;
                Err(error)
            }
        }
    }

    pub fn take_spare(&self, len: u64) -> Option<Segment<E::File>> {
        let mut state = self.state.borrow_mut();
        let at = state.spare.iter().position(|segment| segment.len >= len)?;
        Some(state.spare.swap_remove(at))
    }
}

impl<E: Env> Inner<E> {
    /// How long the batch that starts at `first` has to wait, if at all.
    pub fn throttled(&self, state: &State<E::File>, first: Seq, now: Nanos) -> Option<Duration> {
        if state.closing || self.throttle.is_exempt(first) {
            return None;
        }
        let pause = state.not_before.since(now).min(THROTTLE_STEP);
        if pause.is_zero() {
            return None;
        }
        let full = self.throttle.is_full();
        self.stats.update(|stats| {
            let counter = if full { &mut stats.stalled_micros } else { &mut stats.delayed_micros };
            *counter += micros(pause);
        });
        Some(pause)
    }

    /// These bytes do not wait any more, whatever became of them.
    pub fn written(&self, bytes: usize) {
        let mut state = self.state.borrow_mut();
        state.pending_bytes = state.pending_bytes.saturating_sub(bytes);
    }

    /// A batch committed whose first write came at `opened`: one measurement for all in it.
    pub fn took(&self, opened: Nanos) {
        let now = self.env.now();
        let micros = u64::try_from(now.since(opened).as_micros()).unwrap_or(u64::MAX);
        self.stats.update(|stats| stats.commit_latency.record(micros));
        self.pacer.observe(micros, now);
    }

    /// Counts a written batch, after which the active segment has so many bytes and so much
    /// room; sets its price in time, keeps its buffer.
    pub fn after_write(&self, len: u64, buf: AlignedBuf, written: u64, room: u64) {
        self.stats.update(|stats| {
            stats.log_batches += 1;
            stats.log_bytes += len;
        });
        let mut state = self.state.borrow_mut();
        state.active_room = room;
        state.active.iter_mut().for_each(|active| active.written = written);
        state.not_before = self.env.now().after(self.throttle.pause_after(buf.len()));
        if state.buffers.len() < SPARE_BUFFERS && buf.capacity() <= 2 * GROUP_BYTES {
            state.buffers.push(buf);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
