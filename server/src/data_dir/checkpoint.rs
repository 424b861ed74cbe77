//! Checkpoints of a node: `DIR/checkpoints/NAME` is a data folder of its own, with the same
//! layout, that a node can be started on.
//!
//! The engines come first, each by its own core, then the definitions of keyspaces. The identity
//! comes last: a folder with engines and without identity is refused, so a checkpoint that was not
//! finished is never opened.

use std::path::{Path, PathBuf};

use coronet_lsm::env::Env;
use coronet_ring::Incarnation;

use super::{DataDirError, Identity};

/// The folder of a checkpoint.
pub fn dir(data: &Path, name: &str) -> PathBuf {
    data.join("checkpoints").join(name)
}

/// Whether a checkpoint is whole: its identity, which comes last, is there.
pub async fn is_sealed<E: Env>(env: &E, checkpoint: &Path) -> Result<bool, DataDirError> {
    Ok(Identity::read(env, checkpoint).await?.is_some())
}

/// Makes the folders that `path` will be in.
pub async fn make_parents<E: Env>(env: &E, path: &Path) -> Result<(), DataDirError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let made = env.create_dir_all(parent).await;
    made.map_err(|error| DataDirError::io("create", parent, &error))
}

/// Gives the checkpoint of the node in `data` its identity, durably: the node's, under a new
/// incarnation. Writes that come after the checkpoint were named by the old one, and clients may
/// have seen them; a node that lost them must not give their names to others.
pub async fn seal<E: Env>(env: &E, data: &Path, checkpoint: &Path) -> Result<(), DataDirError> {
    let identity = Identity::read(env, data)
        .await?
        .ok_or_else(|| DataDirError::Orphaned { path: data.to_owned() })?;
    let generation = super::tree::generation_dir(checkpoint, identity.generation);
    let sync = async |path: &Path| {
        env.sync_dir(path).await.map_err(|error| DataDirError::io("sync", path, &error))
    };
    sync(&generation).await?;
    let identity = Identity { incarnation: Incarnation(env.random().max(1)), ..identity };
    identity.write(env, checkpoint).await?;
    for folder in checkpoint.ancestors().skip(1).take(2) {
        sync(folder).await?;
    }
    Ok(())
}
