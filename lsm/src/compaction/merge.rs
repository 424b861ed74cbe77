//! One step of a merge: read the inputs in order, keep what is still needed, write one table,
//! and cut what was read off the inputs.
//!
//! The step is durable as one edit of the manifest. Inputs that were read to their end are gone
//! with it, so a merge needs space for one table and not for its whole result.

use super::work::Work;
use crate::cache::{BlockCache, Depth};
use crate::engine::{FilterDecision, Shared};
use crate::env::Env;
use crate::read::{CursorOptions, MergeCursor, RunCursor, Source, TableCursor};
use crate::stats::LEVELS;
use crate::table::{Table, TableRef, TableWriter};
use crate::version::set::Change;
use crate::version::{Expiries, LiveTable, Older, Place, Written, table_path};
use crate::{EntryKind, EntryRef, Error, Millis, Result, TableId, TableUid};
use coronet_probe::{Mark, mark};
use std::rc::Rc;

/// Bytes merged between two chances for other work.
const SLICE_BYTES: usize = 24 << 10;
/// Target size of an output when the policy names none, bytes.
const TABLE_BYTES: u64 = 64 << 20;

/// The output of a step.
struct Output<E: Env> {
    uid: TableUid,
    writer: TableWriter<E>,
    expiries: Expiries,
}

/// What the inner loop stopped for.
enum Pause {
    /// The slice is used up.
    Slice,
    /// A cursor needs its next block.
    Load,
    /// The writer has enough buffered.
    Drain,
    /// The output is full; the current entry belongs to the next.
    Cut,
    /// There is no output yet.
    Open,
    /// The inputs are exhausted.
    End,
}

/// Decides entry by entry.
struct Merge<'a, E: Env> {
    shared: &'a Shared<E>,
    now: Millis,
    cursor: MergeCursor<E>,
    older: Older<E>,
    table_bytes: u64,
    /// Key of the last entry, whose older versions go.
    last_key: Vec<u8>,
    has_last: bool,
    dropped: u64,
    /// Bytes read since the pacer was asked.
    moved: usize,
}

/// How far a step came.
struct Reached {
    /// Last key that was read; `None`: everything was.
    upto: Option<Vec<u8>>,
    /// Entries that were dropped.
    dropped: u64,
}

impl<E: Env> Shared<E> {
    /// Writes at most one table; true: the inputs are exhausted.
    pub(super) async fn merge_step(&self, work: &mut Work<E>) -> Result<bool> {
        let target = work.target(|| self.versions.allocate().0);
        let id = self.versions.allocate();
        let stepped = self.write_output(work, target, id).await;
        let (output, reached) = stepped.inspect_err(|_| {
            self.trash.discard(table_path(&self.dir, id));
        })?;
        let written = output.as_ref().map_or(0, |live| live.bytes());
        let mut change = Change::default();
        change.added.extend(output.map(|live| (target, live)));
        let rest = cut_inputs(work, reached.upto.as_deref(), &mut change);
        let gone = change
            .removed
            .iter()
            .filter(|live| change.added.iter().all(|(_, other)| other.id != live.id));
        let gone: Vec<_> = gone.cloned().collect();
        let read = read_per_level(work, &change);
        self.install(change).await?;
        gone.iter().for_each(|live| live.table.table.leave(&self.cache));
        work.parts = rest;
        self.stats.update(|stats| {
            stats.compaction_steps += 1;
            for (level, bytes) in read.into_iter().enumerate() {
                stats.compaction_read_bytes += bytes;
                stats.level_read_bytes[level] += bytes;
            }
            stats.compaction_write_bytes += written;
            stats.level_written_bytes[target.level] += written;
            stats.compaction_dropped += reached.dropped;
        });
        mark(if reached.upto.is_none() { Mark::Merged } else { Mark::MergeStep });
        Ok(reached.upto.is_none())
    }

    /// Writes one table and opens it; `None` when nothing was kept.
    async fn write_output(
        &self,
        work: &Work<E>,
        target: Place,
        id: TableId,
    ) -> Result<(Option<Rc<LiveTable<E>>>, Reached)> {
        let mut output = None;
        let reached = self.merge_into(work, target, id, &mut output).await?;
        let Some(Output { uid, writer, expiries }) = output else { return Ok((None, reached)) };
        writer.finish().await?;
        self.env.sync_dir(&self.dir).await.map_err(|e| Error::io("sync", &self.dir, &e))?;
        let table = Table::open(&self.env, &table_path(&self.dir, id), uid).await?;
        let deepest = self.versions.with(|version| version.deepest());
        let table = table.within(&self.cache, Depth::of(target.level, deepest));
        let table = TableRef::whole(Rc::new(table));
        let read = work.inputs().map(|(_, live)| live).filter(|live| {
            reached.upto.as_deref().is_none_or(|upto| live.table.smallest() <= upto)
        });
        let written = read.map(|live| live.written).reduce(Written::cover).unwrap_or_default();
        let dates = (written, expiries.expiry());
        Ok((Some(LiveTable::new(id, table, dates, self.trash.clone())), reached))
    }

    async fn merge_into(
        &self,
        work: &Work<E>,
        target: Place,
        id: TableId,
        output: &mut Option<Output<E>>,
    ) -> Result<Reached> {
        let table_bytes = work.policy.tree().map_or(TABLE_BYTES, |tree| tree.table_bytes);
        // Half of it, as what is read comes from several inputs at about the same time.
        let ahead = self.pacer.piece_bytes(self.env.now()) / 2;
        let mut cursor = MergeCursor::new(sources(work, &self.cache, table_bytes, ahead));
        cursor.seek(&[]).await?;
        let merged: Vec<u64> = work
            .parts
            .iter()
            .map(|(place, _)| place)
            .filter(|place| place.level == target.level)
            .map(|place| place.run)
            .collect();
        let mut merge = Merge {
            shared: self,
            now: self.core.now(),
            cursor,
            older: Older::than(self.versions.current(), target, &merged),
            table_bytes,
            last_key: Vec::new(),
            has_last: false,
            dropped: 0,
            moved: 0,
        };
        loop {
            match merge.slice(output.as_mut())? {
                Pause::Slice => {}
                Pause::Load => merge.cursor.load().await?,
                Pause::Open => *output = Some(self.new_output(target.level, id).await?),
                Pause::Drain => {
                    if let Some(output) = output {
                        output.writer.drain().await?;
                    }
                }
                Pause::Cut => {
                    return Ok(Reached { upto: Some(merge.last_key), dropped: merge.dropped });
                }
                Pause::End => return Ok(Reached { upto: None, dropped: merge.dropped }),
            }
            self.pace(std::mem::take(&mut merge.moved)).await;
            if self.closing.get() {
                return Err(Error::Closed);
            }
        }
    }

    /// Lets others run, for longer when foreground work suffers and the debt allows it.
    async fn pace(&self, bytes: usize) {
        let now = self.env.now();
        match self.pacer.pause_after(bytes, self.options().latency_target, now) {
            Some(pause) => {
                let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
                self.stats.update(|stats| stats.paced_micros += micros);
                self.env.sleep(pause).await;
            }
            None => self.env.coop().await,
        }
    }

    async fn new_output(&self, level: usize, id: TableId) -> Result<Output<E>> {
        let uid = TableUid(self.env.random());
        let path = table_path(&self.dir, id);
        let options = self.options();
        let writer = TableWriter::create(self.env.clone(), path, uid, &options).await?;
        let writer = writer.with_codec(options.compression[level]);
        let piece = self.pacer.piece_bytes(self.env.now());
        let writer = writer.warming(self.cache.clone()).in_pieces(piece);
        Ok(Output { uid, writer, expiries: Expiries::default() })
    }

    fn filter_drops(&self, entry: &EntryRef<'_>) -> bool {
        let mut filter = self.filter.borrow_mut();
        // Entries that have expired are deletes by now; any moment shows the value of the others.
        let value = entry.visible(Millis(0)).unwrap_or_default();
        filter.as_mut().is_some_and(|decide| decide(entry.key, value) == FilterDecision::Drop)
    }
}

impl<E: Env> Merge<'_, E> {
    /// Moves entries from the inputs to the writer without awaiting.
    fn slice(&mut self, mut output: Option<&mut Output<E>>) -> Result<Pause> {
        let mut bytes = 0;
        loop {
            let Some(entry) = self.cursor.entry() else {
                // Without an entry the merge is at its end, or a source waits for a block.
                return Ok(if self.cursor.try_advance()? { Pause::End } else { Pause::Load });
            };
            bytes += entry.key.len() + entry.value.len();
            self.moved += entry.key.len() + entry.value.len();
            let entry = entry.expired_as_delete(self.now);
            let shadowed = self.has_last && self.last_key == entry.key;
            let kept = !shadowed && keeps(self.shared, &mut self.older, &entry);
            let mut full = false;
            if kept {
                let Some(output) = output.as_deref_mut() else { return Ok(Pause::Open) };
                let writer = &mut output.writer;
                if writer.bytes() >= self.table_bytes && writer.entries() > 0 {
                    return Ok(Pause::Cut);
                }
                full = writer.push(entry)?;
                output.expiries.see(&entry);
                if self.cursor.is_warm() {
                    writer.came_from_memory(entry.key.len() + entry.value.len());
                }
            } else {
                self.dropped += 1;
            }
            if !shadowed {
                self.last_key.clear();
                self.last_key.extend_from_slice(entry.key);
                self.has_last = true;
            }
            if !self.cursor.try_advance()? {
                if full {
                    return Ok(Pause::Drain);
                }
                return Ok(Pause::Load);
            }
            if full {
                return Ok(Pause::Drain);
            }
            if bytes >= SLICE_BYTES {
                return Ok(Pause::Slice);
            }
        }
    }
}

/// Whether the newest version of a key stays in the tree.
fn keeps<E: Env>(shared: &Shared<E>, older: &mut Older<E>, entry: &EntryRef<'_>) -> bool {
    if older.may_hold(entry) {
        return true;
    }
    if entry.kind == EntryKind::Delete {
        mark(Mark::DeletionDropped);
        return false;
    }
    !shared.filter_drops(entry)
}

/// The inputs as merge sources: one per run. Each gives its share of an output of `table_bytes`
/// and reads at most `ahead` bytes at once.
fn sources<E: Env>(
    work: &Work<E>,
    cache: &Rc<BlockCache>,
    table_bytes: u64,
    ahead: usize,
) -> Vec<Source<E>> {
    let options = CursorOptions::compaction().asking(cache.clone());
    let bytes = |tables: &[Rc<LiveTable<E>>]| tables.iter().map(|live| live.bytes()).sum::<u64>();
    let all: u64 = work.parts.iter().map(|(_, tables)| bytes(tables)).sum();
    let sources = work.parts.iter().map(|(_, tables)| {
        let share = bytes(tables) as f64 / all.max(1) as f64;
        let options = options.clone().using((table_bytes as f64 * share) as u64).at_most(ahead);
        match &tables[..] {
            [live] => Source::Table(TableCursor::new(live.table.clone(), options)),
            _ => {
                let tables = tables.iter().map(|live| live.table.clone()).collect();
                Source::Run(RunCursor::new(tables, options))
            }
        }
    });
    sources.collect()
}

/// Bytes of the inputs that a step is done with, per level.
fn read_per_level<E: Env>(work: &Work<E>, change: &Change<E>) -> [u64; LEVELS] {
    let mut read = [0; LEVELS];
    let stays = |live: &LiveTable<E>| change.added.iter().any(|(_, other)| other.id == live.id);
    for (place, live) in work.inputs() {
        if change.removed.iter().any(|gone| gone.id == live.id) && !stays(live) {
            read[place.level] += live.bytes();
        }
    }
    read
}

/// Takes everything up to `upto` (`None`: everything) off the inputs: what is left of them, and
/// the change that says so.
fn cut_inputs<E: Env>(
    work: &Work<E>,
    upto: Option<&[u8]>,
    change: &mut Change<E>,
) -> Vec<(Place, Vec<Rc<LiveTable<E>>>)> {
    let mut rest: Vec<(Place, Vec<_>)> = Vec::new();
    for (place, tables) in &work.parts {
        let mut left = Vec::new();
        for live in tables {
            match upto {
                Some(upto) if live.table.smallest() > upto => left.push(live.clone()),
                Some(upto) if live.table.largest() > upto => {
                    let cut = live.after(upto);
                    change.removed.push(live.clone());
                    change.added.push((*place, cut.clone()));
                    left.push(cut);
                }
                _ => change.removed.push(live.clone()),
            }
        }
        if !left.is_empty() {
            rest.push((*place, left));
        }
    }
    rest
}
