//! Creation and recovery: manifest, tables, log, then the tasks.

use super::{Health, Memory, Shared};
use crate::cache::BlockCache;
use crate::compaction::compaction_task;
use crate::engine::CompactionFilter;
use crate::env::{Env, TaskClass};
use crate::flush::flush_task;
use crate::log::{Log, Throttle, replay};
use crate::signal::Signal;
use crate::stats::{Counters, LEVELS};
use crate::trash::Trash;
use crate::version::edit::Progress;
use crate::version::manifest::{self, Loaded};
use crate::version::set::open_tables;
use crate::version::{LiveTable, VersionSet, table_id};
use crate::{Error, Options, Result, Seq, TableId};
use std::cell::{Cell, RefCell};
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
    let options = Rc::new(options);
    let stats = Rc::new(Counters::default());
    create_folder(&env, dir).await?;
    let loaded = manifest::load(&env, dir).await?;
    let trash = Trash::start(env.clone());
    let tables = open_tables(&env, dir, &loaded.state, &trash).await?;
    let mut memory = Memory::new();
    let Progress { log_floor, flushed, .. } = loaded.state.progress;
    let replayed = replay(&env, dir, &options, log_floor, flushed, &stats, |seq, record| {
        memory.replay(seq, record, &options);
    })
    .await?;
    let last = first_free(&loaded, &tables, replayed.last);
    let orphans = find_orphans(&env, dir, &loaded).await?;
    let progress =
        Progress { next_table: next_table(&loaded, &orphans), last_seq: last, flushed, log_floor };
    let versions = VersionSet::open(&env, dir, loaded, progress, tables, stats.clone()).await?;
    let unused = orphans.into_iter().map(|(_, path)| path).chain(replayed.removable.clone());
    unused.for_each(|path| trash.discard(path));
    let throttle = Rc::new(Throttle::default());
    let log = Log::start(
        env.clone(),
        dir.to_owned(),
        options.clone(),
        throttle.clone(),
        stats.clone(),
        replayed,
        last,
    )
    .await?;
    let shared = Rc::new(Shared {
        dir: dir.to_owned(),
        cache: Rc::new(BlockCache::new(options.cache_bytes)),
        options,
        stats,
        throttle,
        log,
        memory: RefCell::new(memory),
        versions,
        trash,
        filter: RefCell::new(filter),
        flush_wanted: Signal::default(),
        compaction_wanted: Signal::default(),
        progress: Signal::default(),
        flush_health: Health::default(),
        compaction_health: Health::default(),
        compacting: Cell::new(false),
        compaction_positions: RefCell::new([const { Vec::new() }; LEVELS]),
        closing: Cell::new(false),
        tasks: Cell::new(2),
        env,
    });
    shared.update_pressure();
    shared.env.spawn(TaskClass::Flush, flush_task(shared.clone()));
    shared.env.spawn(TaskClass::Compaction, compaction_task(shared.clone()));
    Ok(shared)
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
fn first_free<E: Env>(loaded: &Loaded, tables: &[(usize, Rc<LiveTable<E>>)], log_last: Seq) -> Seq {
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
    Ok(tables.filter(|(id, _)| !loaded.state.tables.contains_key(id)).collect())
}

fn next_table(loaded: &Loaded, orphans: &[(TableId, PathBuf)]) -> u64 {
    let live = loaded.state.tables.keys().map(|id| id.0 + 1);
    let orphans = orphans.iter().map(|(id, _)| id.0 + 1);
    live.chain(orphans).chain([loaded.state.progress.next_table, 1]).max().unwrap_or(1)
}
