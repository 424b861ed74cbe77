//! Building an engine folder out of others by hard links, when the number of cores changes.
//!
//! No bytes are copied: a table file whose keys belong to several new engines is linked into
//! each, and every engine sees its own part of it (virtual bounds). The sources stay as they are.

use crate::engine::{SEQ_GAP, create_folder};
use crate::env::Env;
use crate::log::replay;
use crate::read::{CursorOptions, TableCursor};
use crate::stats::Counters;
use crate::table::{Bounds, Table, TableRef};
use crate::version::edit::{Edit, Progress, State, TableMeta};
use crate::version::lost::{self, Lost, LostRanges};
use crate::version::manifest::{self, Manifest};
use crate::version::{table_id, table_path};
use crate::{Error, Options, Result, ScanRange, Seq, TableId};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Builds the engine folder `dest` with the keys of `range` out of the engines in `sources`.
///
/// The sources must be closed, have nothing in their logs that is not in tables (flush before
/// closing), and own disjoint key ranges. New writes in `dest` follow all sequence numbers of the
/// sources. `dest` is durable when this returns; a half-built `dest` of an interrupted call has
/// no manifest and is started over.
pub async fn link_into<E: Env>(
    env: &E,
    sources: &[PathBuf],
    dest: &Path,
    range: &ScanRange,
    options: &Options,
) -> Result<()> {
    start_folder(env, dest).await?;
    let mut edit = Edit::default();
    let mut last = Seq(0);
    let mut next_table = 1;
    let mut keyspaces = BTreeMap::new();
    for source in sources {
        let loaded = manifest::load(env, source).await?;
        let log_last = check_flushed(env, source, options, &loaded.state).await?;
        for (id, keyspace) in &loaded.state.keyspaces {
            if let Entry::Vacant(first) = keyspaces.entry(*id) {
                first.insert(keyspace.options.clone());
                edit.policies.extend(keyspace.policy.clone().map(|text| (*id, text)));
            }
        }
        last = last.max(log_last).max(loaded.state.progress.last_seq);
        let inside = |lost: &&Lost| {
            *lost.last >= *range.start && range.end.as_ref().is_none_or(|end| *lost.first < **end)
        };
        edit.lost.extend(loaded.state.lost.iter().filter(inside).cloned());
        edit.given_up.extend_from_slice(&loaded.state.given_up);
        let ranks = ranks(&loaded.state);
        for meta in loaded.state.tables.values() {
            let path = table_path(source, meta.id);
            let marks = LostRanges::new(&loaded.state.lost, meta.keyspace);
            let given_up = loaded.state.given_up.iter().filter(|block| block.uid == meta.uid);
            let damaged = marks.offsets(meta.uid).chain(given_up.map(|block| block.offset));
            let damaged: Vec<u64> = damaged.collect();
            let Some(bounds) = clip(env, &path, meta, range, &damaged).await? else { continue };
            let id = TableId(next_table);
            next_table += 1;
            let target = table_path(dest, id);
            env.link(&path, &target).await.map_err(|e| Error::io("link", &target, &e))?;
            let ours = edit.lost.iter_mut().filter(|lost| lost.uid == meta.uid);
            ours.for_each(|lost| lost.file = lost::name(&target));
            edit.added.push(TableMeta {
                id,
                run: ranks.get(&(meta.level, meta.run)).copied().unwrap_or(0),
                first: bounds.first,
                last: bounds.last,
                ..meta.clone()
            });
        }
    }
    check_disjoint(&edit.added, dest)?;
    // A new run is numbered by its table and has to be newer than every run taken over, of which
    // there can be more than tables: those without keys in the range stay behind.
    next_table = edit.added.iter().map(|meta| meta.run + 1).fold(next_table, u64::max);
    let last_seq = Seq(last.0 + SEQ_GAP);
    edit.flushed = keyspaces.keys().map(|id| (*id, last_seq)).collect();
    edit.defined = keyspaces.into_iter().collect();
    edit.progress = Progress { next_table, last_seq, log_floor: 0 };
    let mut state = State::default();
    state.apply(&edit).map_err(|what| Error::corruption(dest, 0, what))?;
    Manifest::create(env.clone(), dest, 1, &state).await.map(drop)
}

/// An empty folder, whatever an interrupted call left in it.
async fn start_folder<E: Env>(env: &E, dest: &Path) -> Result<()> {
    create_folder(env, dest).await?;
    for path in env.list(dest).await.map_err(|e| Error::io("list", dest, &e))? {
        let ours = table_id(&path).is_some() || manifest::manifest_number(&path).is_some();
        if !ours {
            return Err(Error::corruption(&path, 0, "unexpected file in a folder to be built"));
        }
        env.remove(&path).await.map_err(|e| Error::io("remove", &path, &e))?;
    }
    Ok(())
}

/// Refuses a source whose log holds entries that are in no table; returns its newest entry.
async fn check_flushed<E: Env>(
    env: &E,
    source: &Path,
    options: &Options,
    state: &State,
) -> Result<Seq> {
    let (log_floor, flushed) = (state.progress.log_floor, state.flushed_by_all());
    let mut pending = 0u64;
    let stats = Counters::default();
    let replayed = replay(env, source, options, log_floor, flushed, &stats, |seq, record, _| {
        pending += u64::from(state.needs(record.keyspace, seq));
    })
    .await?;
    if pending > 0 {
        let what = format!("{pending} entries of the log are in no table: flush before linking");
        return Err(Error::corruption(source, 0, what));
    }
    Ok(replayed.last)
}

/// The part of a table inside `range`, with exact keys; `None` when it has none.
async fn clip<E: Env>(
    env: &E,
    path: &Path,
    meta: &TableMeta,
    range: &ScanRange,
    damaged: &[u64],
) -> Result<Option<Bounds>> {
    let inside = |key: &[u8]| range.end.as_ref().is_none_or(|end| key < &end[..]);
    if *meta.last < *range.start || !inside(&meta.first) {
        return Ok(None);
    }
    if *meta.first >= *range.start && inside(&meta.last) {
        return Ok(Some(Bounds { first: meta.first.clone(), last: meta.last.clone() }));
    }
    // The range ends inside the table: the last key before its end is found by reading, so
    // that the bounds are keys and two engines never claim the same one.
    let table = Rc::new(Table::open(env, path, meta.uid).await?);
    table.set_lost(damaged.iter().copied());
    let bounds = Bounds { first: meta.first.clone(), last: meta.last.clone() };
    let mut cursor = TableCursor::new(TableRef { table, bounds }, CursorOptions::compaction());
    cursor.seek(&range.start).await?;
    let Some(first) = cursor.entry().filter(|e| inside(e.key)).map(|e| Rc::<[u8]>::from(e.key))
    else {
        return Ok(None);
    };
    let mut last = first.to_vec();
    if inside(&meta.last) {
        last = meta.last.to_vec();
    } else {
        while let Some(entry) = cursor.entry().filter(|entry| inside(entry.key)) {
            last.clear();
            last.extend_from_slice(entry.key);
            cursor.advance().await?;
            env.coop().await;
        }
    }
    Ok(Some(Bounds { first, last: last.into() }))
}

/// A new number for every run: its age among the runs of its level. Keys of two sources never
/// meet, so runs of the same age become one.
fn ranks(state: &State) -> BTreeMap<(u8, u64), u64> {
    let runs: BTreeSet<_> = state.tables.values().map(|meta| (meta.level, meta.run)).collect();
    let mut ranks = BTreeMap::new();
    let mut next = (0, 0);
    for (level, run) in runs {
        next = if next.0 == level { (level, next.1 + 1) } else { (level, 1) };
        ranks.insert((level, run), next.1);
    }
    ranks
}

/// Tables of one run must not overlap; they would if sources shared keys.
fn check_disjoint(tables: &[TableMeta], dest: &Path) -> Result<()> {
    let run = |meta: &TableMeta| (meta.keyspace, meta.level, meta.run);
    let mut tables: Vec<&TableMeta> = tables.iter().collect();
    tables.sort_by(|a, b| (run(a), &a.first).cmp(&(run(b), &b.first)));
    let clash =
        tables.windows(2).any(|pair| run(pair[0]) == run(pair[1]) && pair[0].last >= pair[1].first);
    if clash {
        return Err(Error::corruption(dest, 0, "the sources share keys"));
    }
    Ok(())
}
