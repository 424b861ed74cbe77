//! The change to another number of cores: flush, link, switch, remove.

use std::path::{Path, PathBuf};

use coronet_lsm::env::Env;
use coronet_lsm::reshard::link_into;
use coronet_lsm::{Engine, ScanRange};
use coronet_ring::{CoreId, PartitionMap};

use super::{DataDirError, Identity, Wanted, tree};

/// Builds the next generation by hard links and switches to it. Before the switch the old
/// generation is valid, after it the new one; what is left over goes at the next start.
pub(super) async fn change_cores<E: Env>(
    env: &E,
    dir: &Path,
    old: &Identity,
    wanted: &Wanted,
) -> Result<Identity, DataDirError> {
    let before = PartitionMap::new(old.partitions, old.cores)?;
    let after = PartitionMap::new(old.partitions, wanted.cores)?;
    let identity = Identity { cores: wanted.cores, generation: old.generation + 1, ..old.clone() };
    for core in 0..old.cores {
        flush(env, &tree::core_dir(dir, old.generation, core), wanted).await?;
    }
    for core in 0..wanted.cores {
        let range = after.range_of(CoreId(core));
        let first = before.core_of(coronet_ring::PartitionId(range.start)).0;
        let last = before.core_of(coronet_ring::PartitionId(range.end - 1)).0;
        let sources: Vec<PathBuf> =
            (first..=last).map(|core| tree::core_dir(dir, old.generation, core)).collect();
        let keys = ScanRange {
            start: range.start.to_be_bytes().to_vec(),
            end: Some(range.end.to_be_bytes().to_vec()),
        };
        let into = tree::core_dir(dir, identity.generation, core);
        link_into(env, &sources, &into, &keys, &wanted.engine).await?;
    }
    for folder in [&tree::generation_dir(dir, identity.generation), dir] {
        env.sync_dir(folder).await.map_err(|error| DataDirError::io("sync", folder, &error))?;
    }
    identity.write(env, dir).await?;
    tree::remove_other_generations(env, dir, identity.generation).await?;
    Ok(identity)
}

/// Puts everything an engine holds into tables: its log, replayed at opening, is empty then.
async fn flush<E: Env>(env: &E, path: &Path, wanted: &Wanted) -> Result<(), DataDirError> {
    let engine = Engine::open(env.clone(), path, wanted.engine.clone()).await?;
    let flushed = engine.flush().await;
    let closed = engine.close().await;
    flushed.and(closed).map_err(DataDirError::from)
}
