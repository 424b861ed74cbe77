//! Point reads: memtables, then tables from the newest to the oldest.
//!
//! The memtables and the version are looked at in one step, without awaiting in between: a read
//! that needs the disk only needs the version of that step.

use crate::engine::Shared;
use crate::env::{Env, Nanos};
use crate::histogram::Histogram;
use crate::stats::EngineStats;
use crate::table::{Hit, Lookup, Table};
use crate::version::{LiveTable, Version};
use crate::{Millis, Result, Seq, key_hash};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::rc::Rc;

/// Reads of one [`Shared::multi_get`] that wait for the disk at the same time: enough to keep a
/// device busy, and a bound on the memory that one call can take for blocks.
const READS_AT_ONCE: usize = 64;

/// Sees everything.
const LATEST: Seq = Seq(u64::MAX);

/// Result of a read that never waits.
#[derive(Debug)]
pub enum CachedRead<R, F> {
    /// The answer of the closure.
    Done(R),
    /// The answer needs the disk; the closure comes back unused.
    NeedsIo(F),
}

/// What the tables know without I/O.
enum Tables<E: Env> {
    Found(Hit),
    Absent,
    NeedsIo(Waiting<E>),
}

/// Where a read goes on that needs the disk, in the version that was current.
struct Waiting<E: Env> {
    /// The table whose range and filter let the key through, and which of the candidates it is.
    table: Rc<Table<E>>,
    candidate: usize,
    /// The block to read.
    block: usize,
}

/// [`CachedRead`] with the place to go on at.
enum Looked<R, F, E: Env> {
    Done(R),
    NeedsIo(F, Waiting<E>),
}

impl<E: Env> Shared<E> {
    /// Newest value at `at`, when memory knows it.
    pub fn get_cached<R, F>(&self, key: &[u8], at: Seq, f: F) -> Result<CachedRead<R, F>>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        Ok(match self.get_cached_at(key, at, || self.core.now(), f)? {
            Looked::Done(answer) => CachedRead::Done(answer),
            Looked::NeedsIo(f, _) => CachedRead::NeedsIo(f),
        })
    }

    fn get_cached_at<R, F>(
        &self,
        key: &[u8],
        at: Seq,
        now: impl FnOnce() -> Millis,
        f: F,
    ) -> Result<Looked<R, F, E>>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        self.readable()?;
        let (hash, space) = (key_hash(key), self.space.get());
        if let Some(row) = self.cache.rows().get(space, key, hash).filter(|row| row.seq <= at) {
            self.count_row();
            return Ok(Looked::Done(f(row.visible_at(now))));
        }
        // A row is the newest version of all. Who reads what is not committed writes next, and
        // what a filter takes out it takes out unseen.
        let mut newest = at != LATEST && self.filter.borrow().is_none();
        for memtable in self.memory.borrow().newest_first() {
            let memtable = memtable.borrow();
            let Some(mut entry) = memtable.get(key, hash, LATEST) else { continue };
            if entry.seq > at {
                newest = false;
                match memtable.get(key, hash, at) {
                    Some(older) => entry = older,
                    None => continue,
                }
            }
            if newest {
                self.cache.offer_row(space, hash, &entry);
            }
            self.count_get(true);
            return Ok(Looked::Done(f(entry.visible_at(now))));
        }
        let found = self.versions.with(|version| self.tables_cached(version, key, hash, at))?;
        self.count_get(!matches!(found, Tables::NeedsIo(_)));
        Ok(match found {
            Tables::Found(hit) => {
                if newest {
                    self.cache.offer_row(space, hash, &hit.entry(key));
                }
                Looked::Done(f(hit.visible_at(now)))
            }
            Tables::Absent => Looked::Done(f(None)),
            Tables::NeedsIo(waiting) => Looked::NeedsIo(f, waiting),
        })
    }

    /// Newest value at `at`, given to `f` where it lies. A read that has to wait goes on with the
    /// table that it waits for.
    pub async fn get_with<R, F>(&self, key: &[u8], at: Seq, f: F) -> Result<R>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        let now = self.core.now();
        match self.get_cached_at(key, at, || now, f)? {
            Looked::Done(answer) => Ok(answer),
            Looked::NeedsIo(f, waiting) => {
                let version = self.versions.current();
                let started = self.env.now();
                let hit = self.get_from_tables(&version, key, at, waiting).await;
                self.waited(started, |stats| &mut stats.read_latency);
                Ok(f(hit?.as_ref().and_then(|hit| hit.visible(now))))
            }
        }
    }

    /// Newest values at `at`, of one moment. Keys in the same block wait for one read of it.
    pub async fn multi_get(&self, keys: &[Vec<u8>], at: Seq) -> Result<Vec<Option<Vec<u8>>>> {
        let now = self.core.now();
        let mut values = vec![None; keys.len()];
        let mut missing = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            match self.get_cached_at(key, at, || now, |value| value.map(<[u8]>::to_vec))? {
                Looked::Done(value) => values[n] = value,
                Looked::NeedsIo(_, waiting) => missing.push((n, waiting)),
            }
        }
        if missing.is_empty() {
            return Ok(values);
        }
        let (version, started) = (self.versions.current(), self.env.now());
        let reads = missing.into_iter().map(|(n, waiting)| {
            let read = self.get_from_tables(&version, &keys[n], at, waiting);
            async move { read.await.map(|hit| (n, hit)) }
        });
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some((n, hit)) = reads.try_next().await? {
            values[n] = hit.and_then(|hit| hit.visible(now).map(<[u8]>::to_vec));
        }
        self.waited(started, |stats| &mut stats.multi_get_latency);
        Ok(values)
    }

    /// A read that began at `started` went to the disk. Reads from memory are not timed: the
    /// clock would cost more than it tells.
    fn waited(&self, started: Nanos, latency: impl FnOnce(&mut EngineStats) -> &mut Histogram) {
        let now = self.env.now();
        let micros = u64::try_from(now.since(started).as_micros()).unwrap_or(u64::MAX);
        self.stats.update(|stats| latency(stats).record(micros));
        self.pacer.observe_read(micros, now);
    }

    async fn get_from_tables(
        &self,
        version: &Rc<Version<E>>,
        key: &[u8],
        at: Seq,
        waiting: Waiting<E>,
    ) -> Result<Option<Hit>> {
        let Waiting { table, candidate, block } = waiting;
        let mut found = table.search_from(&self.cache, block, key, at).await;
        if let Ok(None) = found {
            let hash = key_hash(key);
            for (level, live) in candidates(version, key).skip(candidate + 1) {
                if !live.table.table.may_contain(hash) {
                    self.looks.skip(level);
                    continue;
                }
                self.looks.probe(level);
                found = live.table.table.search(&self.cache, key, hash, at).await;
                if !matches!(found, Ok(None)) {
                    break;
                }
            }
        }
        let hit = found.inspect_err(|error| self.suspects.report(error))?;
        version.lost.check(&self.dir, key, hit.as_ref().map(Hit::seq))?;
        Ok(hit)
    }

    fn tables_cached(
        &self,
        version: &Version<E>,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Tables<E>> {
        let mut found = Tables::Absent;
        for (n, (level, live)) in candidates(version, key).enumerate() {
            if !live.table.table.may_contain(hash) {
                self.looks.skip(level);
                continue;
            }
            self.looks.probe(level);
            found = match live.table.table.search_cached(&self.cache, key, hash, at)? {
                Lookup::Absent => continue,
                Lookup::Found(hit) => Tables::Found(hit),
                Lookup::NeedsBlock(block) => {
                    let table = live.table.table.clone();
                    Tables::NeedsIo(Waiting { table, candidate: n, block })
                }
            };
            break;
        }
        match &found {
            Tables::Found(hit) => version.lost.check(&self.dir, key, Some(hit.seq()))?,
            Tables::Absent => version.lost.check(&self.dir, key, None)?,
            Tables::NeedsIo(_) => {}
        }
        Ok(found)
    }

    fn count_row(&self) {
        self.stats.update(|stats| {
            stats.gets += 1;
            stats.gets_cached += 1;
            stats.gets_from_rows += 1;
        });
    }

    fn count_get(&self, cached: bool) {
        self.stats.update(|stats| {
            stats.gets += 1;
            stats.gets_cached += u64::from(cached);
        });
    }
}

/// The tables whose range holds `key`, newest data first, each with its level.
pub(super) fn candidates<'a, E: Env>(
    version: &'a Version<E>,
    key: &'a [u8],
) -> impl Iterator<Item = (usize, &'a LiveTable<E>)> {
    version.levels.iter().enumerate().flat_map(move |(level, runs)| {
        runs.iter().filter_map(move |run| run.find(key).map(|live| (level, live)))
    })
}
