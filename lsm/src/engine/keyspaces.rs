//! Creating, altering and dropping keyspaces, and the handle to one.

use super::{Core, Engine, FloorChange, Memory, Shared, open};
use crate::env::Env;
use crate::read::{CachedRead, Scan, ScanOptions};
use crate::signal::Commit;
use crate::stats::EngineStats;
use crate::version::VersionSet;
use crate::version::edit::Edit;
use crate::version::lost::LostRanges;
use crate::{
    CompactionPolicy, Durability, Error, KeyspaceId, KeyspaceOptions, Millis, Options, Result, Seq,
    WriteBatch,
};
use std::rc::Rc;

impl<E: Env> Engine<E> {
    /// A handle to a keyspace.
    pub fn keyspace(&self, id: KeyspaceId) -> Result<Keyspace<E>> {
        Ok(Keyspace { tree: self.core.tree(id)?, engine: self.clone() })
    }

    /// Every keyspace, the default one included, with what it sets for itself.
    pub async fn keyspaces(&self) -> Vec<(KeyspaceId, KeyspaceOptions)> {
        let list = |state: &crate::version::edit::State| {
            state.keyspaces.iter().map(|(id, state)| (*id, state.options.clone())).collect()
        };
        self.core.ledger.with_state(list).await
    }

    /// Creates an empty keyspace; durable when this returns. A number that was dropped may be
    /// used again. An interrupted call leaves open whether the keyspace exists.
    pub async fn create_keyspace(
        &self,
        id: KeyspaceId,
        options: KeyspaceOptions,
    ) -> Result<Keyspace<E>> {
        let core = &self.core;
        let _changing = core.changing.lock().await;
        if core.trees.borrow().contains_key(&id) {
            // Or is half dropped, after a call that was interrupted.
            return Err(Error::Keyspace { id, what: "exists already" });
        }
        let resolved = resolve(&options, &core.options)?;
        // What the log holds for a keyspace that had the number before is not for this one.
        let flushed = core.log.last();
        let edit =
            Edit { defined: vec![(id, options)], flushed: vec![(id, flushed)], ..Edit::default() };
        core.commit(edit, FloorChange::None).await?;
        let versions = VersionSet::new(id, core.ledger.clone(), Vec::new(), LostRanges::default());
        let policy = resolved.compaction.clone();
        let memory = Memory::new(core.pool.clone());
        let tree = Shared::new(id, core, resolved, policy, memory, versions);
        open::start(core, tree);
        self.keyspace(id)
    }

    /// Gives a keyspace other options, from now on; durable when this returns.
    pub async fn alter_keyspace(&self, id: KeyspaceId, options: KeyspaceOptions) -> Result<()> {
        let core = &self.core;
        let _changing = core.changing.lock().await;
        let tree = core.tree(id)?;
        let resolved = resolve(&options, &core.options)?;
        let edit = Edit { defined: vec![(id, options)], ..Edit::default() };
        core.commit(edit, FloorChange::None).await?;
        tree.set_options(resolved);
        Ok(())
    }

    /// Removes a keyspace with everything in it; durable when this returns. The default keyspace
    /// cannot be dropped. Scans that are open stay readable. After an error, or an interrupted
    /// call, the keyspace takes no more writes; the next opening shows whether it is gone.
    pub async fn drop_keyspace(&self, id: KeyspaceId) -> Result<()> {
        let core = &self.core;
        let _changing = core.changing.lock().await;
        if id == KeyspaceId::DEFAULT {
            return Err(Error::Keyspace { id, what: "is the default one and stays" });
        }
        let tree = core.tree(id)?;
        tree.stop();
        tree.stopped().await;
        core.log.throttle().forget(id);
        core.log.pacer().forget(id);
        let edit = Edit { dropped: vec![id], ..Edit::default() };
        core.commit(edit, FloorChange::Dropped(id)).await?;
        core.trees.borrow_mut().remove(&id);
        // The engine's sums do not go back.
        let counted = EngineStats { scrub_left_bytes: 0, ..tree.counted() };
        core.stats.update(|stats| stats.add(&counted));
        tree.versions.retire_all();
        *tree.memory.borrow_mut() = Memory::new(core.pool.clone());
        tree.count_active();
        Ok(())
    }
}

fn resolve(options: &KeyspaceOptions, engine: &Options) -> Result<Options> {
    options.validate(engine).map_err(Error::BadOptions)?;
    Ok(options.resolve(engine))
}

impl<E: Env> Core<E> {
    /// Makes a change of the keyspaces durable; tries again until it is certain.
    async fn commit(&self, edit: Edit, change: FloorChange) -> Result<()> {
        let retry = async |_| {
            if self.closing.get() {
                return Err(Error::Closed);
            }
            self.stats.update(|stats| stats.background_errors += 1);
            self.env.sleep(self.options.full_probe_interval).await;
            Ok(())
        };
        let floor = self.log_floor(change)?;
        self.ledger.commit(edit, self.log.last(), Some(floor), retry, |_| ()).await?;
        self.release_log(floor);
        Ok(())
    }
}

/// A handle to one keyspace of an engine, which it keeps open. After the keyspace was dropped
/// every call fails.
pub struct Keyspace<E: Env> {
    engine: Engine<E>,
    tree: Rc<Shared<E>>,
}

impl<E: Env> Clone for Keyspace<E> {
    fn clone(&self) -> Self {
        Keyspace { engine: self.engine.clone(), tree: self.tree.clone() }
    }
}

impl<E: Env> Keyspace<E> {
    /// Its number.
    pub fn id(&self) -> KeyspaceId {
        self.tree.keyspace
    }

    /// Writes a batch, which may also have entries for other keyspaces; see [`Engine::write`].
    pub fn write(&self, batch: &WriteBatch, durability: Durability) -> Result<Commit> {
        self.tree.readable()?;
        self.engine.write(batch, durability)
    }

    /// Sets `key` to `value`, as durable as the keyspace prescribes.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Commit> {
        self.write_one(|batch| batch.put(key, value))
    }

    /// Sets `key` to `value` until `expires_at`, as durable as the keyspace prescribes.
    pub fn put_until(&self, key: &[u8], value: &[u8], expires_at: Millis) -> Result<Commit> {
        self.write_one(|batch| batch.put_until(key, value, expires_at))
    }

    /// Removes `key`, as durable as the keyspace prescribes.
    pub fn delete(&self, key: &[u8]) -> Result<Commit> {
        self.write_one(|batch| batch.delete(key))
    }

    fn write_one(&self, add: impl FnOnce(&mut WriteBatch)) -> Result<Commit> {
        let mut batch = WriteBatch::new();
        add(batch.in_keyspace(self.tree.keyspace));
        self.write(&batch, self.tree.options().durability)
    }

    /// See [`Engine::get_cached`].
    pub fn get_cached<R, F>(&self, key: &[u8], f: F) -> Result<CachedRead<R, F>>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        self.tree.get_cached(key, self.engine.visible_seq(), f)
    }

    /// See [`Engine::get_latest_cached`].
    pub fn get_latest_cached<R, F>(&self, key: &[u8], f: F) -> Result<CachedRead<R, F>>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        self.tree.get_cached(key, Seq(u64::MAX), f)
    }

    /// See [`Engine::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_with(key, |value| value.map(<[u8]>::to_vec)).await
    }

    /// See [`Engine::get_with`].
    pub async fn get_with<R, F>(&self, key: &[u8], f: F) -> Result<R>
    where
        F: FnOnce(Option<&[u8]>) -> R,
    {
        self.tree.get_with(key, self.engine.visible_seq(), f).await
    }

    /// See [`Engine::get_latest`].
    pub async fn get_latest(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.tree.get_with(key, Seq(u64::MAX), |value| value.map(<[u8]>::to_vec)).await
    }

    /// See [`Engine::multi_get`].
    pub async fn multi_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        self.tree.multi_get(keys, self.engine.visible_seq()).await
    }

    /// See [`Engine::scan`].
    pub async fn scan(&self, options: impl Into<ScanOptions>) -> Result<Scan<E>> {
        self.tree.scan(options.into(), self.engine.visible_seq()).await
    }

    /// See [`Engine::policy`].
    pub fn policy(&self) -> CompactionPolicy {
        (*self.tree.policy()).clone()
    }

    /// See [`Engine::set_policy`].
    pub async fn set_policy(&self, policy: CompactionPolicy) -> Result<()> {
        self.tree.set_policy(policy).await
    }

    /// Waits until everything of this keyspace that is in memory is in tables.
    pub async fn flush(&self) -> Result<()> {
        self.tree.flush().await
    }

    /// Compacts until no level of this keyspace owes anything.
    pub async fn compact(&self) -> Result<()> {
        self.tree.compact().await
    }

    /// The keyspace's numbers. What belongs to the engine as a whole is zero: log, cache, number
    /// of write batches.
    pub fn stats(&self) -> EngineStats {
        self.tree.stats()
    }
}
