//! Creation and recovery: manifest, tables, log, then the tasks.

use super::core::Clock;
use super::{Core, Memory, Shared};
use crate::cache::BlockCache;
use crate::compaction::compaction_task;
use crate::engine::CompactionFilter;
use crate::env::{Env, TaskClass};
use crate::flush::flush_task;
use crate::log::{Log, replay};
use crate::memtable::ChunkPool;
use crate::scrub::{Pace, scrub_task};
use crate::stats::Counters;
use crate::trash::Trash;
use crate::version::edit::Progress;
use crate::version::lost::{self, LostRanges};
use crate::version::manifest::{self, Loaded};
use crate::version::set::{Tables, open_tables};
use crate::version::{Ledger, VersionSet, table_id};
use crate::write::Record;
use crate::{CompactionPolicy, Error, KeyspaceId, Options, Result, Seq, TableId};
use coronet_probe::{Mark, mark};
use futures_util::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
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
) -> Result<Rc<Core<E>>> {
    options.validate().map_err(Error::BadOptions)?;
    create_folder(&env, dir).await?;
    let trash = Trash::start(env.clone());
    let recovered = recover(&env, dir, Rc::new(options), &trash).await;
    let core = recovered.inspect_err(|_| trash.close())?;
    *core.tree(KeyspaceId::DEFAULT)?.filter.borrow_mut() = filter;
    core.env.spawn(TaskClass::Background, core.clone().keep_log_short());
    Ok(core)
}

/// Takes a keyspace into the engine and starts its tasks.
pub(super) fn start<E: Env>(core: &Rc<Core<E>>, tree: Rc<Shared<E>>) {
    core.trees.borrow_mut().insert(tree.keyspace, tree.clone());
    tree.policy_changed();
    core.env.spawn(TaskClass::Flush, flush_task(tree.clone()));
    let passes = core.scrub.passes_wanted();
    core.env.spawn(TaskClass::Background, scrub_task(tree.clone(), passes));
    core.env.spawn(TaskClass::Compaction, compaction_task(tree));
}

/// Brings back what manifest, tables and log hold.
async fn recover<E: Env>(
    env: &E,
    dir: &Path,
    options: Rc<Options>,
    trash: &Rc<Trash>,
) -> Result<Rc<Core<E>>> {
    let stats = Rc::new(Counters::default());
    let mut loaded = manifest::load(env, dir).await?;
    let cache = Rc::new(BlockCache::new(options.cache_bytes));
    let pool = ChunkPool::new(options.memtable_bytes);
    let mut opened = open_tables(env, dir, &mut loaded.state, trash, &cache).await?;
    let state = &loaded.state;
    let resolved: BTreeMap<KeyspaceId, Options> =
        state.keyspaces.iter().map(|(id, own)| (*id, own.options.resolve(&options))).collect();
    let mut policies = stored_policies(dir, &loaded)?;
    for (id, options) in &resolved {
        policies.entry(*id).or_insert_with(|| options.compaction.clone());
    }
    let now = env.wall_micros();
    let mut memories: BTreeMap<KeyspaceId, Memory> = BTreeMap::new();
    let apply = |seq, record: Record<'_>, written| {
        if state.needs(record.keyspace, seq) {
            let options = &resolved[&record.keyspace];
            let memory = memories.entry(record.keyspace);
            let memory = memory.or_insert_with(|| Memory::new(pool.clone()));
            let most_age = policies[&record.keyspace].most_age_in_memory();
            memory.replay(seq, &record, (written, now), most_age, options);
        }
    };
    let (floor, flushed) = (state.progress.log_floor, state.flushed_by_all());
    let replayed = replay(env, dir, &options, floor, flushed, &stats, apply).await?;
    let last = first_free(&loaded, &opened.tables, replayed.last);
    let orphans = find_orphans(env, dir, &loaded).await?;
    orphans.iter().for_each(|_| mark(Mark::OrphanTable));
    let next_table = next_table(&loaded, &orphans);
    let mut state = loaded.state.clone();
    state.progress = Progress { next_table, last_seq: last, log_floor: floor };
    let ledger = Ledger::open(env, dir, loaded.highest, state, stats.clone()).await?;
    // Only now does a durable manifest say that nobody needs these.
    let unused = orphans.into_iter().map(|(_, path)| path).chain(replayed.removable.clone());
    unused.for_each(|path| trash.discard(path));
    let log = Log::start(env, dir, &options, &stats, replayed, last).await?;
    let core = Rc::new(Core {
        env: env.clone(),
        dir: dir.to_owned(),
        cache,
        pool,
        scrub: Pace::new(options.scrub_bytes_per_second),
        options,
        stats,
        log,
        ledger,
        trash: trash.clone(),
        clock: Clock::default(),
        trees: RefCell::default(),
        changing: Mutex::default(),
        active_bytes: Cell::new(0),
        closing: Cell::new(false),
    });
    for (id, options) in resolved {
        let policy = policies.remove(&id).unwrap_or_else(|| options.compaction.clone());
        let memory = memories.remove(&id);
        let mut memory = memory.unwrap_or_else(|| Memory::new(core.pool.clone()));
        // What is too old for memory gets no company that it would live as long as.
        memory.freeze_aged(policy.most_age_in_memory(), core.env.wall_micros());
        let tables = opened.tables.remove(&id).unwrap_or_default();
        let lost = LostRanges::new(&loaded.state.lost, id);
        let versions = VersionSet::new(id, core.ledger.clone(), tables, lost);
        start(&core, Shared::new(id, &core, options, policy, memory, versions));
    }
    for (keyspace, error) in &opened.damaged {
        let tree = core.tree(*keyspace)?;
        tell_damaged(&tree, error);
    }
    Ok(core)
}

/// The compaction policies that keyspaces were told to keep.
fn stored_policies(dir: &Path, loaded: &Loaded) -> Result<BTreeMap<KeyspaceId, CompactionPolicy>> {
    let stored = loaded.state.keyspaces.iter();
    let stored = stored.filter_map(|(id, state)| Some((*id, state.policy.as_ref()?)));
    let parsed = stored.map(|(id, text)| {
        let policy = text.parse().map_err(|what: String| {
            let path = manifest::manifest_path(dir, loaded.number);
            Error::corruption(&path, 0, format!("compaction policy: {what}"))
        });
        Ok((id, policy?))
    });
    parsed.collect()
}

/// Reports a table that is damaged as a whole, and has its file set aside.
fn tell_damaged<E: Env>(tree: &Shared<E>, error: &Error) {
    if let Error::Corruption { path, .. } = error {
        tree.trash.set_aside(path.clone());
    }
    tree.stats.update(|stats| stats.damaged_tables += 1);
    tree.suspects.tell(format!("{error}; the table is quarantined, the rest is served"));
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
fn first_free<E: Env>(
    loaded: &Loaded,
    tables: &BTreeMap<KeyspaceId, Tables<E>>,
    log_last: Seq,
) -> Seq {
    let in_tables = tables.values().flatten().map(|(_, live)| live.table.table.info().max_seq);
    let state = &loaded.state;
    let found = in_tables.chain([state.progress.last_seq, state.flushed_by_any(), log_last]).max();
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
