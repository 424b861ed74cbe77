//! Group commit: writes gather in a batch while the one before is on its way to the device.
//!
//! One task owns the active segment; everything else talks to it through [`Log`]. A batch with a
//! durable write in it is synced before it commits, a batch of buffered writes commits when it
//! is written and is synced within the interval. Batches commit in order, so that what readers
//! see is always a prefix of the log.

use super::Throttle;
use super::format::{BATCH_HEADER, BatchHeader, SegmentHeader};
use super::replay::Replayed;
use super::segments::{Active, Full, MAX_SPARE, Segment, WANTED_SPARE, prepare};
use crate::env::{AlignedBuf, Env, File, Nanos, PAGE, TaskClass};
use crate::signal::{Commit, Completion, Signal, log_failed};
use crate::stats::Counters;
use crate::{Durability, Error, Options, Result, Seq, WriteBatch};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// A gathering batch is closed beyond this size, so that one write never gets very long.
const GROUP_BYTES: usize = 4 << 20;
/// Batch buffers kept for reuse.
const SPARE_BUFFERS: usize = 3;
/// How long the writer sleeps at most before it looks at the pressure again.
const THROTTLE_STEP: Duration = Duration::from_millis(2);

/// Writes that go to the device together.
struct Group {
    /// Room for the header, then records.
    buf: AlignedBuf,
    first: Seq,
    count: u32,
    durable: bool,
    completion: Rc<Completion>,
}

impl Group {
    fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }
}

struct State<F> {
    next_seq: u64,
    open: Option<Group>,
    sealed: VecDeque<Group>,
    pending_bytes: usize,
    buffers: Vec<AlignedBuf>,
    active_generation: Option<u64>,
    /// Bytes that still fit the active segment.
    active_room: u64,
    next_generation: u64,
    next_id: u64,
    full: Vec<Full<F>>,
    spare: Vec<Segment<F>>,
    failed: Option<Error>,
    disk_full: bool,
    closing: bool,
    abandoned: bool,
    stopped: bool,
    not_before: Nanos,
}

struct Inner<E: Env> {
    env: E,
    dir: PathBuf,
    options: Rc<Options>,
    throttle: Rc<Throttle>,
    stats: Rc<Counters>,
    state: RefCell<State<E::File>>,
    visible: Cell<Seq>,
    /// Work for the writer.
    wake: Signal,
    /// A batch committed, or the log failed or stopped.
    committed: Signal,
    /// Spare segments came or are wanted.
    segments: Signal,
}

/// Handle to the log.
pub struct Log<E: Env> {
    inner: Rc<Inner<E>>,
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
        env: E,
        dir: PathBuf,
        options: Rc<Options>,
        throttle: Rc<Throttle>,
        stats: Rc<Counters>,
        replayed: Replayed<E::File>,
        last: Seq,
    ) -> Result<Self> {
        let state = State {
            next_seq: last.0 + 1,
            open: None,
            sealed: VecDeque::new(),
            pending_bytes: 0,
            buffers: Vec::new(),
            active_generation: None,
            active_room: 0,
            next_generation: replayed.next_generation,
            next_id: replayed.next_id,
            full: replayed.full,
            spare: replayed.spare,
            failed: None,
            disk_full: false,
            closing: false,
            abandoned: false,
            stopped: false,
            not_before: Nanos::default(),
        };
        let inner = Rc::new(Inner {
            env: env.clone(),
            dir,
            options,
            throttle,
            stats,
            state: RefCell::new(state),
            visible: Cell::new(last),
            wake: Signal::default(),
            committed: Signal::default(),
            segments: Signal::default(),
        });
        if inner.state.borrow().spare.is_empty() {
            inner.add_spare(inner.options.log_segment_bytes).await.or_else(ignore_full_disk)?;
        }
        let writer = Writer {
            inner: inner.clone(),
            active: None,
            before: replayed.last,
            unsynced_since: None,
        };
        env.spawn(TaskClass::Foreground, writer.run());
        env.spawn(TaskClass::Background, inner.clone().keep_spare());
        Ok(Log { inner })
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
        let mut group = state.open.take().unwrap_or_else(|| new_group(state.buffers.pop(), first));
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

    /// The lowest generation that a restart needs once everything up to `flushed` is in tables.
    pub fn floor_after(&self, flushed: Seq) -> u64 {
        let state = self.inner.state.borrow();
        let needed =
            state.full.iter().filter(|full| full.last > flushed).map(|full| full.generation);
        needed.chain(state.active_generation).min().unwrap_or(state.next_generation)
    }

    /// Gives segments below generation `floor`, which the manifest no longer needs, back: some
    /// as spares, the paths of the others for removal.
    pub fn release(&self, floor: u64) -> Vec<PathBuf> {
        let mut state = self.inner.state.borrow_mut();
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

    /// Number of segments that hold data.
    pub fn segments_in_use(&self) -> usize {
        let state = self.inner.state.borrow();
        state.full.len() + usize::from(state.active_generation.is_some())
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

fn new_group(buffer: Option<AlignedBuf>, first: Seq) -> Group {
    let mut buf = buffer.unwrap_or_default();
    buf.clear();
    buf.extend_from_slice(&[0; BATCH_HEADER]);
    Group { buf, first, count: 0, durable: false, completion: Rc::default() }
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
    fn fail(&self, cause: &Error) {
        let error = log_failed(cause);
        let mut state = self.state.borrow_mut();
        let error = state.failed.get_or_insert(error).clone();
        let groups: Vec<Group> = std::mem::take(&mut state.sealed).into_iter().collect();
        let open = state.open.take();
        state.pending_bytes = 0;
        drop(state);
        for group in groups.into_iter().chain(open) {
            group.completion.complete(Err(error.clone()));
        }
        self.wake.notify();
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
    async fn add_spare(&self, len: u64) -> Result<()> {
        let id = {
            let mut state = self.state.borrow_mut();
            state.next_id += 1;
            state.next_id - 1
        };
        let prepared = prepare(&self.env, &self.dir, id, len).await;
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

    fn take_spare(&self, len: u64) -> Option<Segment<E::File>> {
        let mut state = self.state.borrow_mut();
        let at = state.spare.iter().position(|segment| segment.len >= len)?;
        Some(state.spare.swap_remove(at))
    }
}

/// What the writer does next.
enum Step {
    Write(Group),
    Sync,
    Wait(Option<Duration>),
    Pause(Duration),
    Stop,
}

/// The task that owns the active segment.
struct Writer<E: Env> {
    inner: Rc<Inner<E>>,
    active: Option<Active<E::File>>,
    /// Newest entry of the log before the active segment.
    before: Seq,
    unsynced_since: Option<Nanos>,
}

impl<E: Env> Writer<E> {
    async fn run(mut self) {
        if let Err(error) = self.serve().await {
            self.inner.fail(&error);
        }
        self.inner.state.borrow_mut().stopped = true;
        self.inner.committed.notify();
    }

    async fn serve(&mut self) -> Result<()> {
        let inner = self.inner.clone();
        loop {
            let epoch = inner.wake.epoch();
            match self.next_step() {
                Step::Write(group) => self.commit(group).await?,
                Step::Sync => self.sync().await?,
                Step::Pause(pause) => inner.env.sleep(pause).await,
                Step::Wait(None) => inner.wake.changed(epoch).await,
                Step::Wait(Some(limit)) => {
                    inner.wake.changed_within(&inner.env, epoch, limit).await;
                }
                Step::Stop => return self.sync().await,
            }
        }
    }

    fn next_step(&self) -> Step {
        let inner = &*self.inner;
        let now = inner.env.now();
        let mut state = inner.state.borrow_mut();
        if state.failed.is_some() {
            return Step::Stop;
        }
        let sync_in = self
            .unsynced_since
            .map(|since| inner.options.sync_interval.saturating_sub(now.since(since)));
        if sync_in == Some(Duration::ZERO) {
            return Step::Sync;
        }
        let Some(first) = state.sealed.front().or(state.open.as_ref()).map(|group| group.first)
        else {
            return if state.closing { Step::Stop } else { Step::Wait(sync_in) };
        };
        if let Some(pause) = inner.throttled(&state, first, now) {
            return Step::Pause(pause);
        }
        match state.sealed.pop_front().or_else(|| state.open.take()) {
            Some(group) => Step::Write(group),
            None => Step::Wait(sync_in),
        }
    }

    /// Writes one batch, syncs it when somebody asked for that, and completes its writers.
    async fn commit(&mut self, group: Group) -> Result<()> {
        let completion = group.completion.clone();
        let last = group.last();
        let bytes = group.buf.len() - BATCH_HEADER;
        let outcome = self.write_group(group).await;
        self.inner.written(bytes);
        if let Err(error) = &outcome {
            completion.complete(Err(log_failed(error)));
            return outcome;
        }
        self.inner.visible.set(last);
        completion.complete(Ok(()));
        self.inner.committed.notify();
        Ok(())
    }

    async fn write_group(&mut self, group: Group) -> Result<()> {
        let inner = self.inner.clone();
        let durable = group.durable;
        let last = group.last();
        let len = group.buf.padded_len() as u64;
        let active = self.with_room(len).await?;
        let header = BatchHeader {
            len: (group.buf.len() - BATCH_HEADER) as u32,
            count: group.count,
            first: group.first,
            generation: active.header.generation,
            uid: active.header.uid,
            chain: active.chain,
            synced_to: active.synced_to,
            crc: 0,
        };
        let mut buf = group.buf;
        active.chain = header.seal(&mut buf);
        let (written, buf) = active.segment.file.write_at(active.offset, buf).await;
        written.map_err(|e| Error::io("write", &active.segment.path, &e))?;
        active.offset += len;
        active.last = last;
        inner.after_write(len, buf, active.segment.len - active.offset);
        self.unsynced_since.get_or_insert_with(|| inner.env.now());
        if durable { self.sync().await } else { Ok(()) }
    }

    /// The active segment with room for `len` bytes, after a change of segment where needed.
    async fn with_room(&mut self, len: u64) -> Result<&mut Active<E::File>> {
        if self.active.as_ref().is_some_and(|active| !active.fits(len)) {
            // Only a segment that is wholly on the device may have a successor: the replay
            // relies on it to tell a torn tail from damage.
            self.sync().await?;
        }
        let active = match self.active.take() {
            Some(active) if active.fits(len) => active,
            used => {
                let spare = self.acquire(len + PAGE as u64).await?;
                self.activate(used, spare).await?
            }
        };
        Ok(self.active.insert(active))
    }

    /// Retires the used segment and starts the next one in `spare`.
    async fn activate(
        &mut self,
        used: Option<Active<E::File>>,
        spare: Segment<E::File>,
    ) -> Result<Active<E::File>> {
        let inner = self.inner.clone();
        self.before = used.as_ref().map_or(self.before, |used| used.last);
        let header = {
            let mut state = inner.state.borrow_mut();
            state.full.extend(used.map(Active::into_full));
            let generation = state.next_generation;
            state.next_generation += 1;
            state.active_generation = Some(generation);
            SegmentHeader { uid: inner.env.random(), generation, before: self.before }
        };
        inner.segments.notify();
        Active::start(spare, header).await
    }

    /// A prepared segment of at least `len` bytes. Waits while the disk is full.
    async fn acquire(&self, len: u64) -> Result<Segment<E::File>> {
        let inner = &*self.inner;
        loop {
            let epoch = inner.segments.epoch();
            if let Some(spare) = inner.take_spare(len) {
                return Ok(spare);
            }
            if let Some(error) = inner.state.borrow().failed.clone() {
                return Err(error);
            }
            let probe = inner.options.full_probe_interval;
            if len <= inner.options.log_segment_bytes && !inner.state.borrow().closing {
                inner.segments.changed_within(&inner.env, epoch, probe).await;
                continue;
            }
            let oversized = len.max(inner.options.log_segment_bytes);
            match inner.add_spare(oversized).await {
                Err(error) if error.is_disk_full() && !inner.state.borrow().closing => {
                    inner.segments.changed_within(&inner.env, epoch, probe).await;
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
    }

    async fn sync(&mut self) -> Result<()> {
        self.unsynced_since = None;
        let Some(active) = self.active.as_mut().filter(|active| active.is_dirty()) else {
            return Ok(());
        };
        active
            .segment
            .file
            .sync()
            .await
            .map_err(|e| Error::io("sync", &active.segment.path, &e))?;
        active.synced_to = active.offset;
        self.inner.stats.update(|stats| stats.log_syncs += 1);
        Ok(())
    }
}

impl<E: Env> Inner<E> {
    /// How long the batch that starts at `first` has to wait, if at all.
    fn throttled(&self, state: &State<E::File>, first: Seq, now: Nanos) -> Option<Duration> {
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
    fn written(&self, bytes: usize) {
        let mut state = self.state.borrow_mut();
        state.pending_bytes = state.pending_bytes.saturating_sub(bytes);
    }

    /// Counts a written batch, sets its price in time, keeps its buffer.
    fn after_write(&self, len: u64, buf: AlignedBuf, room: u64) {
        self.stats.update(|stats| {
            stats.log_batches += 1;
            stats.log_bytes += len;
        });
        let mut state = self.state.borrow_mut();
        state.active_room = room;
        state.not_before = self.env.now().after(self.throttle.pause_after(buf.len()));
        if state.buffers.len() < SPARE_BUFFERS && buf.capacity() <= 2 * GROUP_BYTES {
            state.buffers.push(buf);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
