//! The data folder of a node: its identity, its generations of engine folders, and the change to
//! another number of cores.
//!
//! ```text
//! DIR/LOCK                    flock, held while the node runs
//! DIR/node                    identity; names the valid generation
//! DIR/clean                   while the node is down: it ended in order
//! DIR/gen-000001/core-000/    one engine per core
//! DIR/checkpoints/NAME/       a copy, itself a data folder
//! ```
//!
//! Generic over the engine's environment, so that the simulator can crash it at every step. The
//! lock is the operating system's (`rt::check`). See `docs/decisions/0002-change-of-cores.md`.

pub mod checkpoint;
pub(crate) mod clean;
mod error;
mod flaw;
pub(crate) mod identity;
mod reshard;
mod tree;

pub use clean::CleanEnd;
pub use error::DataDirError;
pub use flaw::{Flaw, Wrong};
pub use identity::Identity;
pub use tree::{core_dir, generation_dir};

use std::path::{Path, PathBuf};

use coronet_lsm::Options;
use coronet_lsm::env::Env;
use coronet_probe::{Bug, Mark, mark, seeded};
use coronet_ring::{Incarnation, NodeId, PartitionMap};

/// What a node wants its data folder to be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Data cores from now on.
    pub cores: u16,
    /// Partitions of the hash space; used only when the folder is created.
    pub partitions: u32,
    /// Whether other nodes hear of writes before this one's disk has them: after an end that was
    /// not clean the node then goes on under a new incarnation.
    pub clustered: bool,
    /// How the engines are set up.
    pub engine: Options,
}

/// An opened data folder: ready for one engine per core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    dir: PathBuf,
    identity: Identity,
    clustered: bool,
    /// The number of cores before, when it was another one.
    pub changed_from: Option<u16>,
}

impl DataDir {
    /// Creates the folder or opens it, changes the number of cores when asked for another one
    /// and removes what a crash left behind. Safe to run again after a crash at any point.
    ///
    /// Nobody else may use the folder meanwhile: whoever calls this holds `LOCK`.
    pub async fn open<E: Env>(env: &E, dir: &Path, wanted: &Wanted) -> Result<Self, DataDirError> {
        let (mut identity, fresh) = match Identity::read(env, dir).await? {
            Some(identity) => (identity, false),
            None => (create(env, dir, wanted).await?, true),
        };
        PartitionMap::new(identity.partitions, wanted.cores)?;
        // Alone it leaves the mark as it is: what the cluster has seen of this folder is the same
        // when it comes back to it.
        let ended_cleanly = wanted.clustered && clean::take(env, dir, &identity).await?;
        let goes_on = !wanted.clustered || fresh || ended_cleanly;
        if !goes_on && !seeded(Bug::OldIncarnation) {
            mark(Mark::NewIncarnation);
            identity.incarnation = Incarnation(env.random().max(1));
            identity.write(env, dir).await?;
        }
        tree::remove_other_generations(env, dir, identity.generation).await?;
        let mut changed_from = None;
        if identity.cores != wanted.cores {
            changed_from = Some(identity.cores);
            identity = reshard::change_cores(env, dir, &identity, wanted).await?;
        }
        let (dir, clustered) = (dir.to_owned(), wanted.clustered);
        let opened = DataDir { dir, identity, clustered, changed_from };
        opened.create_core_dirs(env).await?;
        Ok(opened)
    }

    /// Records that a node of a cluster ended in order: all engines are closed, nothing is written
    /// any more, and all was written under the incarnation of the folder.
    pub async fn mark_clean<E: Env>(&self, env: &E) -> Result<(), DataDirError> {
        if !self.clustered {
            return Ok(());
        }
        clean::mark(env, &self.dir, self.identity.incarnation).await
    }

    /// Who the folder belongs to.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The engine folder of a data core.
    pub fn core_dir(&self, core: u16) -> PathBuf {
        tree::core_dir(&self.dir, self.identity.generation, core)
    }

    /// Makes the engine folders' names durable before an engine acknowledges anything in them.
    async fn create_core_dirs<E: Env>(&self, env: &E) -> Result<(), DataDirError> {
        let generation = tree::generation_dir(&self.dir, self.identity.generation);
        for core in 0..self.identity.cores {
            let path = self.core_dir(core);
            env.create_dir_all(&path)
                .await
                .map_err(|error| DataDirError::io("create", &path, &error))?;
        }
        for folder in [&generation, &self.dir] {
            env.sync_dir(folder).await.map_err(|error| DataDirError::io("sync", folder, &error))?;
        }
        Ok(())
    }
}

/// Gives a fresh folder its identity. A folder with engine folders but without identity is not
/// fresh: something was lost, and a new incarnation must not silently hide it.
async fn create<E: Env>(env: &E, dir: &Path, wanted: &Wanted) -> Result<Identity, DataDirError> {
    PartitionMap::new(wanted.partitions, wanted.cores)?;
    env.create_dir_all(dir).await.map_err(|error| DataDirError::io("create", dir, &error))?;
    if let Some(path) = tree::generations(env, dir).await?.pop() {
        return Err(DataDirError::Orphaned { path: path.1 });
    }
    let identity = Identity {
        node_id: NodeId(u128::from(env.random()) << 64 | u128::from(env.random())),
        incarnation: Incarnation(env.random().max(1)),
        secret: env.random(),
        partitions: wanted.partitions,
        cores: wanted.cores,
        generation: 1,
    };
    identity.write(env, dir).await?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        env.sync_dir(parent).await.map_err(|error| DataDirError::io("sync", parent, &error))?;
    }
    Ok(identity)
}
