//! Group commit: writes gather in a batch while the one before is on its way to the device.
//!
//! One task owns the active segment; everything else talks to it through [`super::Log`]. A batch
//! with a durable write in it commits once it is synced ([`super::syncer`]), a batch of buffered
//! writes when it is written; it is synced within the interval. Batches commit in order, so that
//! what readers see is always a prefix of the log.
//!
//! While one batch is being synced the next one is written, but not each write by itself: one
//! batch waits for the sync to come at most, and it is at least half of the one before.

use super::format::{BATCH_HEADER, BatchHeader, SegmentHeader};
use super::handle::{Group, Inner};
use super::pin::Tail;
use super::segments::{Active, Segment};
use super::syncer::{Target, Written};
use crate::env::{AlignedBuf, Env, File, PAGE};
use crate::signal::log_failed;
use crate::{Error, Result, Seq};
use coronet_probe::{Bug, Mark, mark, seeded};
use std::rc::Rc;
use std::time::Duration;

/// What the writer does next.
enum Step {
    Write(Group),
    Wait,
    Pause(Duration),
    Stop,
}

/// The task that owns the active segment.
pub(super) struct Writer<E: Env> {
    inner: Rc<Inner<E>>,
    active: Option<Active<E::File>>,
    /// Newest entry of the log before the active segment.
    before: Seq,
    /// Bytes of the last batch that had to be synced.
    last_bytes: usize,
}

impl<E: Env> Writer<E> {
    /// A writer whose first segment follows entry `before`.
    pub fn new(inner: Rc<Inner<E>>, before: Seq) -> Self {
        Writer { inner, active: None, before, last_bytes: 0 }
    }

    /// Writes until the log is closed or fails.
    pub async fn run(mut self) {
        if let Err(error) = self.serve().await {
            self.inner.fail(&error);
        }
        self.inner.state.borrow_mut().stopped = true;
        self.inner.committed.notify();
        self.inner.sync_wake.notify();
    }

    async fn serve(&mut self) -> Result<()> {
        let inner = self.inner.clone();
        loop {
            let epoch = inner.wake.epoch();
            match self.next_step() {
                Step::Write(group) => self.commit(group).await?,
                Step::Pause(pause) => inner.env.sleep(pause).await,
                Step::Wait => inner.wake.changed(epoch).await,
                Step::Stop => return self.drain().await,
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
        let Some(first) = state.sealed.front().or(state.open.as_ref()).map(|group| group.first)
        else {
            return if state.closing { Step::Stop } else { Step::Wait };
        };
        if let Some(pause) = inner.throttled(&state, first, now) {
            return Step::Pause(pause);
        }
        let (next, closing) = (state.sealed.pop_front(), state.closing);
        match next.or_else(|| state.open.take_if(|open| closing || self.is_due(open))) {
            Some(group) => Step::Write(group),
            None => Step::Wait,
        }
    }

    /// Whether the batch that gathers is written now, or goes on gathering while another is on
    /// its way to the device.
    fn is_due(&self, open: &Group) -> bool {
        let sync = &self.inner.sync;
        let large = open.buf.len() * 2 >= self.last_bytes;
        !open.durable || (!sync.has_backlog() && (large || !sync.is_running()))
    }

    /// Writes one batch. Its writers are completed with it, or with the sync that follows.
    async fn commit(&mut self, mut group: Group) -> Result<()> {
        let bytes = group.buf.len() - BATCH_HEADER;
        let buf = std::mem::take(&mut group.buf);
        let outcome = self.write_group(&group, buf).await;
        self.inner.written(bytes);
        if group.durable {
            self.last_bytes = bytes;
        }
        match outcome {
            Ok(target) => {
                let Group { durable, opened, completion, .. } = group;
                let last = target.last;
                let durable = durable && !seeded(Bug::AckBeforeSync);
                self.inner.wrote(Written { last, durable, opened, completion }, target);
                Ok(())
            }
            Err(error) => {
                group.completion.complete(Err(log_failed(&error)));
                Err(error)
            }
        }
    }

    /// Writes the bytes of a batch; returns how far the active segment reaches then.
    async fn write_group(&mut self, group: &Group, mut buf: AlignedBuf) -> Result<Target<E::File>> {
        let inner = self.inner.clone();
        let len = buf.padded_len() as u64;
        let active = self.with_room(len).await?;
        let header = BatchHeader {
            len: (buf.len() - BATCH_HEADER) as u32,
            count: group.count,
            first: group.first,
            generation: active.header.generation,
            uid: active.header.uid,
            chain: active.chain,
            synced_to: inner.sync.on_device(active.header.generation),
            written: inner.env.wall_micros(),
            crc: 0,
        };
        active.chain = header.seal(&mut buf);
        let (written, buf) = active.segment.file.write_at(active.offset, buf).await;
        written.map_err(|e| Error::io("write", &active.segment.path, &e))?;
        active.offset += len;
        active.last = group.last();
        inner.after_write(len, buf, active.offset, active.segment.len - active.offset);
        Ok(Target {
            file: active.segment.file.clone(),
            path: active.segment.path.clone(),
            generation: active.header.generation,
            end: active.offset,
            last: active.last,
        })
    }

    /// The active segment with room for `len` bytes, after a change of segment where needed.
    async fn with_room(&mut self, len: u64) -> Result<&mut Active<E::File>> {
        if self.active.as_ref().is_some_and(|active| !active.fits(len)) {
            // Only a segment that is wholly on the device may have a successor: the replay
            // relies on it to tell a torn tail from damage.
            self.drain().await?;
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
        mark(Mark::LogSegment);
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

    /// Waits until everything written is on the device.
    async fn drain(&self) -> Result<()> {
        match &self.active {
            Some(active) => self.inner.drain(active.last).await,
            None => Ok(()),
        }
    }
}
