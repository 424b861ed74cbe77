//! Names of generation and engine folders, and the removal of old ones.

use std::io;
use std::path::{Path, PathBuf};

use coronet_lsm::env::Env;

use super::DataDirError;

/// The folder of a generation in the data folder `dir`.
pub fn generation_dir(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("gen-{generation:06}"))
}

/// The engine folder of a data core.
pub fn core_dir(dir: &Path, generation: u64, core: u16) -> PathBuf {
    generation_dir(dir, generation).join(format!("core-{core:03}"))
}

/// The generation folders that exist, with their numbers.
pub(super) async fn generations<E: Env>(
    env: &E,
    dir: &Path,
) -> Result<Vec<(u64, PathBuf)>, DataDirError> {
    let names = list(env, dir).await?;
    let number =
        |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("gen-")?.parse::<u64>().ok();
    Ok(names.into_iter().filter_map(|path| number(&path).map(|n| (n, path))).collect())
}

/// Removes every generation but the valid one: the remains of a change of cores that crashed
/// before its switch (a newer one) or after it (an older one).
pub(super) async fn remove_other_generations<E: Env>(
    env: &E,
    dir: &Path,
    valid: u64,
) -> Result<(), DataDirError> {
    for (number, path) in generations(env, dir).await? {
        if number != valid {
            remove_generation(env, dir, &path).await?;
        }
    }
    Ok(())
}

/// Removes a generation folder: two levels, `core-NNN` and the engine's files.
async fn remove_generation<E: Env>(
    env: &E,
    dir: &Path,
    generation: &Path,
) -> Result<(), DataDirError> {
    for core in list(env, generation).await? {
        for file in list(env, &core).await? {
            ignore_absent(env.remove(&file).await, "remove", &file)?;
        }
        ignore_absent(env.remove_dir(&core).await, "remove", &core)?;
    }
    ignore_absent(env.remove_dir(generation).await, "remove", generation)?;
    env.sync_dir(dir).await.map_err(|error| DataDirError::io("sync", dir, &error))
}

async fn list<E: Env>(env: &E, dir: &Path) -> Result<Vec<PathBuf>, DataDirError> {
    match env.list(dir).await {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(DataDirError::io("list", dir, &error)),
    }
}

fn ignore_absent(
    result: io::Result<()>,
    op: &'static str,
    path: &Path,
) -> Result<(), DataDirError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DataDirError::io(op, path, &error))
        }
        _ => Ok(()),
    }
}
