//! Creation and recovery: manifest, tables, log, then the tasks.

use super::shared::Parts;
use super::{Memory, Shared};
use crate::compaction::compaction_task;
use crate::engine::CompactionFilter;
use crate::env::{Env, TaskClass};
use crate::flush::flush_task;
use crate::log::{Log, replay};
use crate::scrub::{Suspects, scrub_task};
use crate::stats::Counters;
use crate::trash::Trash;
use crate::version::edit::Progress;
use crate::version::lost;
use crate::version::manifest::{self, Loaded};
use crate::version::set::open_tables;
use crate::version::{LiveTable, Place, VersionSet, table_id};
use crate::{CompactionPolicy, Error, Options, Result, Seq, TableId};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Sequence numbers skipped at every opening: more than a node can lose in un-synced buffered
/// writes, so that no number is ever used twice.
pub(crate) const SEQ_GAP: u64 = 1 << 24;

/// Opens or creates an engine and starts its tasks.
pub(crate) async fn open<E: Env>(
    env: E,
    dir: &Path,
    options: Options,
    filter: Option<CompactionFilter>,
) -> Result<Rc<Shared<E>>> {
    options.validate().map_err(|what| Error::Io {
        op: "options of",
        path: dir.to_owned(),
        kind: ErrorKind::InvalidInput,
        message: what,
    })?;
    create_folder(&env, dir).await?;
    let trash = Trash::start(env.clone());
    let parts = recover(&env, dir, Rc::new(options), &trash).await;
    let parts = parts.inspect_err(|_| trash.close())?;
    let shared = Rc::new(Shared::new(env, dir, parts, trash, filter));
    shared.tree_changed();
    shared.env.spawn(TaskClass::Flush, flush_task(shared.clone()));
    shared.env.spawn(TaskClass::Background, scrub_task(shared.clone()));
    shared.env.spawn(TaskClass::Compaction, compaction_task(shared.clone()));
    Ok(shared)
}

/// Brings back what manifest, tables and log hold.
async fn recover<E: Env>(
    env: &E,
    dir: &Path,
    options: Rc<Options>,
    trash: &Rc<Trash>,
) -> Result<Parts<E>> {
    let stats = Rc::new(Counters::default());
    let mut loaded = manifest::load(env, dir).await?;
    let (tables, damaged) = open_tables(env, dir, &mut loaded.state, trash).await?;
    let policy = stored_policy(dir, &loaded)?.unwrap_or_else(|| options.compaction.clone());
    let mut memory = Memory::new(&options);
    let Progress { log_floor, flushed, .. } = loaded.state.progress;
    let replayed = replay(env, dir, &options, log_floor, flushed, &stats, |seq, record| {
        memory.replay(seq, record, &options);
    })
    .await?;
    let last = first_free(&loaded, &tables, replayed.last);
    let orphans = find_orphans(env, dir, &loaded).await?;
    let next_table = next_table(&loaded, &orphans);
    let progress = Progress { next_table, last_seq: last, flushed, log_floor };
    let versions = VersionSet::open(env, dir, loaded, progress, tables, stats.clone()).await?;
    let suspects = Rc::new(Suspects::default());
    for error in &damaged {
        if let Error::Corruption { path, .. } = error {
            trash.set_aside(path.clone());
        }
        stats.update(|stats| stats.damaged_tables += 1);
        suspects.tell(format!("{error}; the table is quarantined, the rest is served"));
    }
    // Only now does a durable manifest say that nobody needs these.
    let unused = orphans.into_iter().map(|(_, path)| path).chain(replayed.removable.clone());
    unused.for_each(|path| trash.discard(path));
    let log = Log::start(env, dir, &options, &stats, replayed, last).await?;
    Ok(Parts { options, stats, log, memory, versions, policy, suspects })
}

/// The compaction policy that the engine was told to keep.
fn stored_policy(dir: &Path, loaded: &Loaded) -> Result<Option<CompactionPolicy>> {
    let policy = loaded.state.policy.as_ref().map(|text| text.parse()).transpose();
    policy.map_err(|what: String| {
        let path = manifest::manifest_path(dir, loaded.number);
        Error::corruption(&path, 0, format!("compaction policy: {what}"))
    })
}

/// Creates the folder and makes it durable, together with those above it that are new.
pub(crate) async fn create_folder<E: Env>(env: &E, dir: &Path) -> Result<()> {
    env.create_dir_all(dir).await.map_err(|e| Error::io("create", dir, &e))?;
    for parent in dir.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        match env.sync_dir(parent).await {
            // A folder that is not ours was there before, so its names are durable.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(()),
            synced => synced.map_err(|e| Error::io("sync", parent, &e))?,
        }
    }
    Ok(())
}

/// The sequence number that new writes follow.
fn first_free<E: Env>(loaded: &Loaded, tables: &[(Place, Rc<LiveTable<E>>)], log_last: Seq) -> Seq {
    let in_tables = tables.iter().map(|(_, live)| live.table.table.info().max_seq);
    let progress = &loaded.state.progress;
    let found = in_tables.chain([progress.last_seq, progress.flushed, log_last]).max();
    match found {
        Some(Seq(found)) if loaded.number > 0 || found > 0 => Seq(found + SEQ_GAP),
        _ => Seq(0),
    }
}

/// Table files that no manifest names: left by a crash in a flush, a compaction or a removal.
async fn find_orphans<E: Env>(
    env: &E,
    dir: &Path,
    loaded: &Loaded,
) -> Result<Vec<(TableId, PathBuf)>> {
    let names = env.list(dir).await.map_err(|e| Error::io("list", dir, &e))?;
    let tables = names.into_iter().filter_map(|path| table_id(&path).map(|id| (id, path)));
    let unknown = tables.filter(|(id, _)| !loaded.state.tables.contains_key(id));
    // A table that turned out to be damaged is set aside, not removed.
    let lost = |path: &Path| loaded.state.lost.iter().any(|lost| *lost.file == *lost::name(path));
    Ok(unknown.filter(|(_, path)| !lost(path)).collect())
}

fn next_table(loaded: &Loaded, orphans: &[(TableId, PathBuf)]) -> u64 {
    let live = loaded.state.tables.keys().map(|id| id.0 + 1);
    let orphans = orphans.iter().map(|(id, _)| id.0 + 1);
    live.chain(orphans).chain([loaded.state.progress.next_table, 1]).max().unwrap_or(1)
}
