//! The view of one point in time over many versions.

use super::{Direction, MergeCursor, Seek};
use crate::env::Env;
use crate::{EntryKind, EntryRef, Millis, Result, Seq};

/// Steps without a yield.
const STEPS: usize = 256;

/// What a key's newest version with a sequence number of at most `at` says, for every key that
/// has a value then and at the moment `now`.
pub struct Visible<E: Env> {
    env: E,
    merge: MergeCursor<E>,
    direction: Direction,
    at: Seq,
    now: Millis,
    /// Forwards the key that is dealt with, whose further versions are passed over; backwards the
    /// newest version so far of the key that the merge has come to.
    held: Held,
    has_held: bool,
    /// Whether there is an entry to show, or none any more.
    settled: bool,
}

/// A version that the merge has left behind. Forwards only its key counts.
#[derive(Debug)]
struct Held {
    key: Vec<u8>,
    seq: Seq,
    kind: EntryKind,
    value: Vec<u8>,
}

impl Held {
    fn set_key(&mut self, key: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(key);
    }

    fn entry(&self) -> EntryRef<'_> {
        EntryRef { key: &self.key, seq: self.seq, kind: self.kind, value: &self.value }
    }
}

/// How far a bounded number of steps came.
enum Progress {
    Settled,
    NeedsLoad,
    Unfinished,
}

impl<E: Env> Visible<E> {
    /// A cursor at the end; seek first.
    pub fn new(env: E, merge: MergeCursor<E>, at: Seq, now: Millis) -> Self {
        let (key, value) = (Vec::new(), Vec::new());
        let held = Held { key, seq: Seq(0), kind: EntryKind::Delete, value };
        let direction = Direction::Forward;
        Visible { env, merge, direction, at, now, held, has_held: false, settled: true }
    }

    /// Goes to a place, or on from there to the first key that has a value.
    pub async fn seek<'a>(&mut self, seek: impl Into<Seek<'a>>) -> Result<()> {
        let seek = seek.into();
        self.has_held = false;
        self.settled = false;
        self.direction = seek.direction();
        self.merge.seek(seek).await?;
        self.load().await
    }

    /// The entry stood on: always one with a value.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        match self.direction {
            _ if !self.settled => None,
            Direction::Forward => self.merge.entry(),
            Direction::Backward => self.has_held.then(|| self.held.entry()),
        }
    }

    /// Steps to the next key, unless that needs I/O or a long passage over what is not shown.
    pub fn try_advance(&mut self) -> Result<bool> {
        if self.settled {
            match self.direction {
                Direction::Forward => {
                    let Some(entry) = self.merge.entry() else { return Ok(true) };
                    self.held.set_key(entry.key);
                    self.has_held = true;
                }
                Direction::Backward => self.has_held = false,
            }
            self.settled = false;
        }
        Ok(matches!(self.settle()?, Progress::Settled))
    }

    /// Completes a step.
    pub async fn load(&mut self) -> Result<()> {
        loop {
            match self.settle()? {
                Progress::Settled => return Ok(()),
                Progress::NeedsLoad => self.merge.load().await?,
                Progress::Unfinished => self.env.coop().await,
            }
        }
    }

    /// Steps to the next key.
    pub async fn advance(&mut self) -> Result<()> {
        if !self.try_advance()? {
            self.load().await?;
        }
        Ok(())
    }

    /// Passes over what is not to be shown.
    fn settle(&mut self) -> Result<Progress> {
        if self.settled {
            return Ok(Progress::Settled);
        }
        if self.merge.needs_load() {
            return Ok(Progress::NeedsLoad);
        }
        for _ in 0..STEPS {
            self.settled = match self.direction {
                Direction::Forward => self.shows_entry(),
                Direction::Backward => self.shows_held(),
            };
            if self.settled {
                return Ok(Progress::Settled);
            }
            if !self.merge.try_advance()? {
                return Ok(Progress::NeedsLoad);
            }
        }
        Ok(Progress::Unfinished)
    }

    /// Forwards: whether the merge stands on what is to be shown next, or at its end.
    fn shows_entry(&mut self) -> bool {
        let Some(entry) = self.merge.entry() else { return true };
        let hidden = entry.seq > self.at || (self.has_held && *self.held.key == *entry.key);
        if !hidden && entry.visible(self.now).is_some() {
            return true;
        }
        if !hidden {
            self.held.set_key(entry.key);
            self.has_held = true;
        }
        false
    }

    /// Backwards: whether what is held is to be shown next, as the merge has come to another key,
    /// or nothing is any more.
    fn shows_held(&mut self) -> bool {
        let entry = self.merge.entry();
        if self.has_held && entry.as_ref().is_none_or(|entry| *entry.key != *self.held.key) {
            if self.held.entry().visible(self.now).is_some() {
                return true;
            }
            self.has_held = false;
        }
        let Some(entry) = entry else { return true };
        if entry.seq <= self.at {
            if !self.has_held {
                self.held.set_key(entry.key);
                self.has_held = true;
            }
            (self.held.seq, self.held.kind) = (entry.seq, entry.kind);
            self.held.value.clear();
            self.held.value.extend_from_slice(entry.value);
        }
        false
    }
}
