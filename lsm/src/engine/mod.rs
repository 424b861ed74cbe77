//! The engine's public face: a cheap handle to log-structured merge trees that share one log.
//!
//! * [`core`]: what all keyspaces share.
//! * [`shared`]: one keyspace: its tree, health and pressure.
//! * [`keyspaces`]: creating, altering and dropping them, and the handle to one.
//! * [`memory`]: active and frozen memtables.
//! * [`open`]: creation and recovery.
//! * [`checkpoint`]: a copy of one moment.
//!
//! Writing goes through `log` and `memory`, reading through `read`, the background work lives in
//! `flush` and `compaction`.

mod checkpoint;
mod core;
mod keyspaces;
mod memory;
mod open;
mod shared;

pub use checkpoint::Checkpoint;
pub(crate) use core::{Core, FloorChange};
pub use keyspaces::Keyspace;
pub(crate) use memory::{Frozen, Memory};
pub(crate) use open::{SEQ_GAP, create_folder};
pub(crate) use shared::Shared;

use crate::env::Env;
use crate::read::{Ahead, CachedRead, Scan, ScanOptions};
use crate::signal::{Commit, Completion};
use crate::stats::EngineStats;
use crate::write::Records;
use crate::{
    CompactionPolicy, Durability, Error, KeyspaceId, Options, Result, Seq, WriteBatch, key_hash,
};
use std::path::Path;
use std::rc::Rc;

/// What a [`CompactionFilter`] says about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterDecision {
    /// Keep the entry.
    Keep,
    /// Drop it: nothing older of its key exists below.
    Drop,
}

/// Decides during compaction, where nothing older of a key can exist, which entries (key, value)
/// may go. Must not call the engine.
pub type CompactionFilter = Box<dyn FnMut(&[u8], &[u8]) -> FilterDecision>;

/// One log-structured merge tree per keyspace, over one log. Methods that name no keyspace mean
/// the default one. Clones are handles to the same engine; when the last one is dropped without
/// [`Engine::close`], its tasks stop as after a crash.
pub struct Engine<E: Env> {
    core: Rc<Core<E>>,
    /// The default keyspace.
    shared: Rc<Shared<E>>,
    /// Stops the tasks when the last handle goes; the tasks themselves hold only the core.
    _guard: Rc<StopOnDrop<E>>,
}

impl<E: Env> Clone for Engine<E> {
    fn clone(&self) -> Self {
        let (core, shared) = (self.core.clone(), self.shared.clone());
        Engine { core, shared, _guard: self._guard.clone() }
    }
}

struct StopOnDrop<E: Env>(Rc<Core<E>>);

impl<E: Env> Drop for StopOnDrop<E> {
    fn drop(&mut self) {
        self.0.log.abandon();
        self.0.stop();
    }
}

impl<E: Env> Engine<E> {
    /// Opens or creates the engine in `dir`, recovering what a crash left.
    pub async fn open(env: E, dir: &Path, options: Options) -> Result<Self> {
        Self::open_with(env, dir, options, None).await
    }

    /// Like [`Engine::open`], with a filter for entries at the last level of the default keyspace.
    pub async fn open_with(
        env: E,
        dir: &Path,
        options: Options,
        filter: Option<CompactionFilter>,
    ) -> Result<Self> {
        let core = open::open(env, dir, options, filter).await?;
        let shared = core.tree(KeyspaceId::DEFAULT)?;
        Ok(Engine { _guard: Rc::new(StopOnDrop(core.clone())), core, shared })
    }

    /// Applies a batch: visible to `latest` readers at once, to everybody when committed. The
    /// future completes as `durability` asks; dropping it does not undo the write.
    pub fn write(&self, batch: &WriteBatch, durability: Durability) -> Result<Commit> {
        match batch.keyspaces() {
            [] | [KeyspaceId::DEFAULT] => {
                self.write_to(std::slice::from_ref(&self.shared), batch, durability)
            }
            ids => {
                let trees: Result<Vec<_>> = ids.iter().map(|id| self.core.tree(*id)).collect();
                self.write_to(&trees?, batch, durability)
            }
        }
    }

    /// Applies a batch whose entries belong to `trees`.
    fn write_to(
        &self,
        trees: &[Rc<Shared<E>>],
        batch: &WriteBatch,
        durability: Durability,
    ) -> Result<Commit> {
        let core = &*self.core;
        let expiring = core.with_default_expiry(batch, trees);
        let batch = expiring.as_ref().unwrap_or(batch);
        batch.check(&core.options)?;
        self.admit(trees, batch)?;
        if batch.is_empty() {
            let done = Rc::new(Completion::default());
            done.complete(Ok(()));
            return Ok(Commit::new(self.visible_seq(), done));
        }
        let (first, commit) = core.log.append(batch, durability);
        insert(trees, first, batch);
        core.stats.update(|stats| stats.writes += 1);
        count_written(trees, batch);
        trees.iter().for_each(|tree| tree.after_insert());
        Ok(commit)
    }

    /// Whether all the keyspaces take a batch now.
    fn admit(&self, trees: &[Rc<Shared<E>>], batch: &WriteBatch) -> Result<()> {
        let log = self.core.log.check(batch.bytes());
        let admitted = log.and_then(|()| trees.iter().try_for_each(|tree| tree.admit()));
        match &admitted {
            Err(Error::Busy { .. }) => self.core.stats.update(|stats| stats.writes_busy += 1),
            Err(Error::DiskFull) => self.core.stats.update(|stats| stats.writes_disk_full += 1),
            _ => {}
        }
        admitted
    }

    /// Point read of the newest committed value that never waits: memtables and cached blocks
    /// only.
    pub fn get_cached<R, F>(&self, key: &[u8], f: F) -> Result<CachedRead<R, F>>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        self.shared.get_cached(key, self.visible_seq(), f)
    }

    /// Like [`Engine::get_cached`], but also sees writes that are not committed yet: the base of
    /// a read-modify-write.
    pub fn get_latest_cached<R, F>(&self, key: &[u8], f: F) -> Result<CachedRead<R, F>>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        self.shared.get_cached(key, Seq(u64::MAX), f)
    }

    /// Brings what point reads of these keys need closer to the processor, for a group of reads
    /// or writes that follow at once: their waits for memory then overlap. Empty keys stand for
    /// reads of something else; keys beyond the sixteenth are left out. What is to come while the
    /// group is executed is returned. Changes nothing but time.
    pub fn prefetch(&self, keys: &[&[u8]]) -> Ahead {
        self.shared.prefetch(keys)
    }

    /// To be called before the `n`th key of a group that [`Engine::prefetch`] was called for is
    /// read or written: brings closer what a later one needs.
    pub fn prefetch_next(&self, ahead: &Ahead, n: usize) {
        self.shared.prefetch_next(ahead, n);
    }

    /// The newest committed value.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_with(key, |value| value.map(<[u8]>::to_vec)).await
    }

    /// The newest committed value as `f` makes it of the bytes where they lie, without a copy of
    /// all of them; waits for the disk where it has to.
    pub async fn get_with<R, F>(&self, key: &[u8], f: F) -> Result<R>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        self.shared.get_with(key, self.visible_seq(), f).await
    }

    /// The newest value as of this call, committed or not.
    pub async fn get_latest(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.shared.get_with(key, Seq(u64::MAX), |value| value.map(<[u8]>::to_vec)).await
    }

    /// Several point reads of one moment, with overlapping I/O; results in the order of `keys`.
    pub async fn multi_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        self.shared.multi_get(keys, self.visible_seq()).await
    }

    /// An ordered scan over what is committed now, forwards or backwards. It keeps memtables and
    /// table files of this moment alive until dropped.
    pub async fn scan(&self, options: impl Into<ScanOptions>) -> Result<Scan<E>> {
        self.shared.scan(options.into(), self.visible_seq()).await
    }

    /// Waits until everything in memory, of all keyspaces, is in tables.
    pub async fn flush(&self) -> Result<()> {
        self.shared.readable()?;
        // All of them stop growing at one moment, then their flushes run side by side.
        let flushes = self.core.all_trees().into_iter().map(|tree| async move {
            let flushed = tree.flush().await;
            unless_dropped(&tree, flushed)
        });
        futures_util::future::try_join_all(flushes).await.map(drop)
    }

    /// Compacts until no level of any keyspace owes anything.
    pub async fn compact(&self) -> Result<()> {
        for tree in self.core.all_trees() {
            let compacted = tree.compact().await;
            unless_dropped(&tree, compacted)?;
        }
        self.shared.readable()
    }

    /// The compaction policy that holds now.
    pub fn policy(&self) -> CompactionPolicy {
        (*self.shared.policy()).clone()
    }

    /// Changes the compaction policy, durably: it outlives restarts, whatever the options say.
    /// Nothing is rewritten at once; from now on the tree is judged by the new policy.
    pub async fn set_policy(&self, policy: CompactionPolicy) -> Result<()> {
        self.shared.set_policy(policy).await
    }

    /// Refuses further work, commits and syncs pending writes, stops every task. Memtables stay
    /// in the log and are replayed by the next opening.
    pub async fn close(&self) -> Result<()> {
        if self.core.closing.get() {
            return Err(Error::Closed);
        }
        let closed = self.core.log.close().await;
        for tree in self.core.stop() {
            tree.stopped().await;
        }
        closed
    }

    /// What an operator should know since the last call, one line each: damage that was found
    /// and put into quarantine. The caller logs the lines.
    pub fn take_incidents(&self) -> Vec<String> {
        self.core.all_trees().iter().flat_map(|tree| tree.suspects.take_incidents()).collect()
    }

    /// Takes every key range out of quarantine: what was lost stays lost, and reads answer from
    /// what is left. For when the keys were written anew, or when their loss is accepted. A table
    /// that no merge has rewritten is found damaged again after the next opening.
    pub async fn accept_loss(&self) -> Result<()> {
        self.shared.readable()?;
        for tree in self.core.all_trees() {
            let accepted = tree.accept_loss().await;
            unless_dropped(&tree, accepted)?;
        }
        Ok(())
    }

    /// Lets the scrub read so many bytes per second from now on, until the engine closes; zero
    /// stops it. See [`Options::scrub_bytes_per_second`].
    pub fn set_scrub_rate(&self, bytes_per_second: u64) {
        self.core.set_scrub_rate(bytes_per_second);
    }

    /// Has the scrub begin a new pass over all tables at once. Returns how many passes that are,
    /// one per keyspace: so much [`EngineStats::scrub_passes`] grows when all are over; zero when
    /// the scrub is off.
    pub fn scrub_now(&self) -> u64 {
        self.core.scrub_now()
    }

    /// The engine's numbers, all keyspaces together; see [`Keyspace::stats`].
    pub fn stats(&self) -> EngineStats {
        self.core.stats()
    }

    /// The numbers of each keyspace; see [`Keyspace::stats`].
    pub fn keyspace_stats(&self) -> Vec<(KeyspaceId, EngineStats)> {
        self.core.all_trees().iter().map(|tree| (tree.keyspace, tree.stats())).collect()
    }

    /// The newest sequence number given out.
    pub fn last_seq(&self) -> Seq {
        self.core.log.last()
    }

    /// The newest committed sequence number.
    pub fn visible_seq(&self) -> Seq {
        self.core.log.visible()
    }
}

/// What a keyspace's outcome means for the engine as a whole: one that was dropped meanwhile had
/// nothing left to do.
fn unless_dropped<E: Env>(tree: &Shared<E>, outcome: Result<()>) -> Result<()> {
    let dropped = tree.closing.get() && !tree.core.closing.get();
    if dropped { Ok(()) } else { outcome }
}

/// Counts the entries of a batch, each for its keyspace.
fn count_written<E: Env>(trees: &[Rc<Shared<E>>], batch: &WriteBatch) {
    let count = |tree: &Shared<E>, entries: usize, bytes: usize| {
        tree.stats.update(|stats| {
            stats.entries_written += entries as u64;
            stats.logical_bytes += bytes as u64;
        });
    };
    if let [tree] = trees {
        return count(tree, batch.len(), batch.logical_bytes());
    }
    for record in Records::new(batch.encoded()).flatten() {
        if let Some(tree) = trees.iter().find(|tree| tree.keyspace == record.keyspace) {
            count(tree, 1, record.key.len() + record.value.len());
        }
    }
}

/// Puts the records of a checked batch, the first of which has `first`, into their memtables, and
/// takes what the cache has of their keys out of it.
fn insert<E: Env>(trees: &[Rc<Shared<E>>], first: Seq, batch: &WriteBatch) {
    let mut at = 0;
    let mut memory = trees[0].memory.borrow_mut();
    // The batch encoded these records itself; there is nothing to be wrong in them.
    for (n, record) in Records::new(batch.encoded()).flatten().enumerate() {
        if trees[at].keyspace != record.keyspace {
            at = trees.iter().position(|tree| tree.keyspace == record.keyspace).unwrap_or(at);
            drop(memory);
            memory = trees[at].memory.borrow_mut();
        }
        let (tree, hash) = (&trees[at], key_hash(record.key));
        memory.insert(Seq(first.0 + n as u64), &record, hash, || tree.env.wall_micros());
        tree.cache.forget_row(tree.space.get(), record.key, hash);
    }
}
