//! The mark of a clean end.
//!
//! A node of a cluster tells other replicas of a write before its own disk has it. If it dies in
//! between, others know a version of its own that it has forgotten, and going on as the same actor
//! would make its next write of that key claim to have seen it. So an end without this mark costs
//! the node its incarnation: it goes on as another actor.

use std::io;
use std::path::{Path, PathBuf};

use coronet_lsm::env::{Env, OpenMode};

use super::DataDirError;

fn path(dir: &Path) -> PathBuf {
    dir.join("clean")
}

/// Makes the mark durable.
pub(super) async fn mark<E: Env>(env: &E, dir: &Path) -> Result<(), DataDirError> {
    let path = path(dir);
    match env.open(&path, OpenMode::CreateNew).await {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(DataDirError::io("create", &path, &error));
        }
        _ => {}
    }
    env.sync_dir(dir).await.map_err(|error| DataDirError::io("sync", dir, &error))
}

/// Takes the mark away; whether there was one. It is gone for good before anything is written.
pub(super) async fn take<E: Env>(env: &E, dir: &Path) -> Result<bool, DataDirError> {
    let path = path(dir);
    match env.remove(&path).await {
        Ok(()) => {
            env.sync_dir(dir).await.map_err(|error| DataDirError::io("sync", dir, &error))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DataDirError::io("remove", &path, &error)),
    }
}
