//! Group commit: writes gather in a batch while the one before is on its way to the device.
//!
//! One task owns the active segment; everything else talks to it through [`super::Log`]. A batch with a
//! durable write in it is synced before it commits, a batch of buffered writes commits when it
//! is written and is synced within the interval. Batches commit in order, so that what readers
//! see is always a prefix of the log.

use super::format::{BATCH_HEADER, BatchHeader, SegmentHeader};
use super::handle::{Group, Inner};
use super::pin::Tail;
use super::segments::{Active, Segment};
use crate::env::{Env, File, Nanos, PAGE};
use crate::signal::log_failed;
use crate::{Error, Result, Seq};
use std::rc::Rc;
use std::time::Duration;

/// What the writer does next.
enum Step {
    Write(Group),
    Sync,
    Wait(Option<Duration>),
    Pause(Duration),
    Stop,
}

/// The task that owns the active segment.
pub(super) struct Writer<E: Env> {
    inner: Rc<Inner<E>>,
    active: Option<Active<E::File>>,
    /// Newest entry of the log before the active segment.
    before: Seq,
    unsynced_since: Option<Nanos>,
}

impl<E: Env> Writer<E> {
    /// A writer whose first segment follows entry `before`.
    pub fn new(inner: Rc<Inner<E>>, before: Seq) -> Self {
        Writer { inner, active: None, before, unsynced_since: None }
    }

    /// Writes until the log is closed or fails.
    pub async fn run(mut self) {
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
        let wanted = inner.sync_wanted.get() > inner.synced.get();
        if sync_in == Some(Duration::ZERO) || (wanted && sync_in.is_some()) {
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
        let (last, opened) = (group.last(), group.opened);
        let bytes = group.buf.len() - BATCH_HEADER;
        let outcome = self.write_group(group).await;
        self.inner.written(bytes);
        if let Err(error) = &outcome {
            completion.complete(Err(log_failed(error)));
            return outcome;
        }
        self.inner.took(opened);
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
        inner.after_write(len, buf, active.offset, active.segment.len - active.offset);
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
            state.active = Some(Tail::of(&spare, generation));
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
        self.inner.synced.set(active.last);
        self.inner.committed.notify();
        self.inner.stats.update(|stats| stats.log_syncs += 1);
        Ok(())
    }
}
