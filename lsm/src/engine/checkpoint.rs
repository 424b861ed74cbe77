//! Checkpoints: the engine of one moment in a folder of its own, while it goes on working.
//!
//! Tables never change, so they are linked. Log segments are used again in place, so what they
//! hold is copied, and they are held still until it is. The manifest of the moment is written
//! last; the folder gets its name when everything in it is durable.

use super::{Core, Engine, create_folder};
use crate::env::{Env, File, OpenMode};
use crate::log::{Pinned, segment_id, segment_path};
use crate::version::edit::State;
use crate::version::manifest::{self, Manifest};
use crate::version::{Version, table_id, table_path};
use crate::{Error, Result, Seq, TableId};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Log bytes copied between two chances for other work.
const CHUNK: u64 = 1 << 20;

/// What a checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to here is in it; what was in the log behind it may be.
    pub seq: Seq,
    /// Number of tables.
    pub tables: u64,
    /// Their size, bytes; they share the disk space with the engine's as long as it has them.
    pub linked_bytes: u64,
    /// Bytes of the log, which were copied.
    pub copied_bytes: u64,
}

impl<E: Env> Engine<E> {
    /// Builds a copy of all keyspaces in the folder `dir`, to be opened by [`Engine::open`]. It
    /// holds everything that was committed when this was called, and nothing that was not written
    /// when it returned; it is a prefix of the history. `dir` must not exist and must be on the
    /// file system of the engine. It is durable when this returns. An interrupted call leaves
    /// `dir.partial`, which the next call with the same `dir` clears away.
    pub async fn checkpoint(&self, dir: &Path) -> Result<Checkpoint> {
        let core = &self.core;
        core.alive()?;
        let partial = start_folder(&core.env, dir).await?;
        let snapshot = Snapshot::take(core).await?;
        let linked_bytes = snapshot.link_tables(&partial).await?;
        let copied_bytes = snapshot.copy_log(&partial).await?;
        core.env.sync_dir(&partial).await.map_err(|e| Error::io("sync", &partial, &e))?;
        Manifest::create(core.env.clone(), &partial, 1, &snapshot.state).await?;
        core.env.rename(&partial, dir).await.map_err(|e| Error::io("rename", dir, &e))?;
        let parent = dir.parent().unwrap_or(dir);
        core.env.sync_dir(parent).await.map_err(|e| Error::io("sync", parent, &e))?;
        let (seq, tables) = (snapshot.seq, snapshot.state.tables.len() as u64);
        Ok(Checkpoint { seq, tables, linked_bytes, copied_bytes })
    }
}

impl<E: Env> Core<E> {
    fn alive(&self) -> Result<()> {
        if self.closing.get() { Err(Error::Closed) } else { Ok(()) }
    }
}

/// One moment of an engine: while this lives, its files stay and do not change.
struct Snapshot<E: Env> {
    core: Rc<Core<E>>,
    state: State,
    seq: Seq,
    segments: Vec<Pinned<E::File>>,
    /// Keep the table files.
    versions: Vec<Rc<Version<E>>>,
}

impl<E: Env> Snapshot<E> {
    /// Takes everything in one step, while the manifest cannot change: tables, what of the
    /// history they hold, and the log from there on.
    async fn take(core: &Rc<Core<E>>) -> Result<Self> {
        let take = |state: &State| Snapshot {
            core: core.clone(),
            state: state.clone(),
            seq: core.log.visible(),
            segments: core.log.pin(state.progress.log_floor),
            versions: core.trees.borrow().values().map(|tree| tree.versions.current()).collect(),
        };
        let snapshot = core.ledger.with_state(take).await;
        // An engine that stopped has let go of its tables.
        core.alive()?;
        Ok(snapshot)
    }

    /// Links every table; returns their size in bytes.
    async fn link_tables(&self, into: &Path) -> Result<u64> {
        let mut bytes = 0;
        for version in &self.versions {
            for (_, live) in version.tables().filter(|(_, live)| self.has(live.id)) {
                let (from, to) = (table_path(&self.core.dir, live.id), table_path(into, live.id));
                self.core.env.link(&from, &to).await.map_err(|e| Error::io("link", &to, &e))?;
                bytes += live.bytes();
                self.core.alive()?;
            }
        }
        Ok(bytes)
    }

    /// Whether a table belongs to the moment: those of a keyspace that is being dropped may not.
    fn has(&self, id: TableId) -> bool {
        self.state.tables.contains_key(&id)
    }

    /// Copies what the log holds, durably; returns its size in bytes.
    async fn copy_log(&self, into: &Path) -> Result<u64> {
        let mut bytes = 0;
        for (n, segment) in self.segments.iter().enumerate() {
            self.copy_segment(segment, &segment_path(into, n as u64 + 1)).await?;
            bytes += segment.bytes;
        }
        Ok(bytes)
    }

    async fn copy_segment(&self, segment: &Pinned<E::File>, to: &Path) -> Result<()> {
        let env = &self.core.env;
        let failed = |op| move |e: std::io::Error| Error::io(op, to, &e);
        let copy = env.open(to, OpenMode::CreateNew).await.map_err(failed("create"))?;
        let mut at = 0;
        while at < segment.bytes {
            let len = (segment.bytes - at).min(CHUNK) as usize;
            let chunk = segment.file.read_at(at, len).await;
            let chunk = chunk.map_err(|e| Error::io("read", &segment.path, &e))?;
            if chunk.len() != len {
                return Err(Error::corruption(&segment.path, at, "log segment ends too early"));
            }
            copy.write_at(at, chunk).await.0.map_err(failed("write"))?;
            at += len as u64;
            env.coop().await;
            self.core.alive()?;
        }
        copy.sync().await.map_err(failed("sync"))
    }
}

impl<E: Env> Drop for Snapshot<E> {
    fn drop(&mut self) {
        let unused = self.core.log.unpin();
        unused.into_iter().for_each(|path| self.core.trash.discard(path));
    }
}

/// An empty folder beside `dir`, whatever an interrupted call left in it.
async fn start_folder<E: Env>(env: &E, dir: &Path) -> Result<PathBuf> {
    match env.list(dir).await {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("list", dir, &e)),
        Ok(_) => return Err(Error::io("create", dir, &ErrorKind::AlreadyExists.into())),
    }
    let mut partial = dir.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    create_folder(env, &partial).await?;
    for path in env.list(&partial).await.map_err(|e| Error::io("list", &partial, &e))? {
        let ours = table_id(&path).is_some()
            || segment_id(&path).is_some()
            || manifest::manifest_number(&path).is_some();
        if !ours {
            return Err(Error::corruption(&path, 0, "unexpected file in a folder to be built"));
        }
        env.remove(&path).await.map_err(|e| Error::io("remove", &path, &e))?;
    }
    Ok(partial)
}
