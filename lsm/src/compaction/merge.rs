//! Running one merge: read the inputs in order, keep what is still needed, write tables of the
//! level below.

use super::picker::Job;
use crate::engine::{FilterDecision, Shared};
use crate::env::Env;
use crate::read::{CursorOptions, MergeCursor, RunCursor, Source, TableCursor};
use crate::table::{Table, TableRef, TableWriter};
use crate::version::set::Change;
use crate::version::{Deeper, LiveTable, table_path};
use crate::{EntryKind, EntryRef, Error, Result, TableId, TableUid};
use std::rc::Rc;

/// Bytes merged between two chances for other work.
const SLICE_BYTES: usize = 24 << 10;

/// The outputs of a merge so far.
struct Outputs<E: Env> {
    open: Option<(TableId, TableUid, TableWriter<E>)>,
    done: Vec<(TableId, TableUid)>,
}

impl<E: Env> Outputs<E> {
    fn ids(&self) -> impl Iterator<Item = TableId> {
        self.open.iter().map(|(id, ..)| *id).chain(self.done.iter().map(|(id, _)| *id))
    }
}

/// What the inner loop stopped for.
enum Pause {
    /// The slice is used up.
    Slice,
    /// A cursor needs its next block.
    Load,
    /// The writer has enough buffered.
    Drain,
    /// The output table is full, the current entry starts the next.
    Cut,
    /// There is no output table yet.
    Open,
    /// The inputs are exhausted.
    End,
}

/// Decides entry by entry.
struct Merge<'a, E: Env> {
    shared: &'a Shared<E>,
    cursor: MergeCursor<E>,
    deeper: Deeper<E>,
    /// Key of the last entry, whose older versions go.
    last_key: Vec<u8>,
    has_last: bool,
    dropped: u64,
}

impl<E: Env> Shared<E> {
    /// Merges the job's inputs and installs the result.
    pub(super) async fn merge(&self, job: Job<E>) -> Result<()> {
        let mut outputs = Outputs { open: None, done: Vec::new() };
        let merged = match self.merge_into(&job, &mut outputs).await {
            Ok(dropped) => self.open_outputs(&outputs).await.map(|tables| (tables, dropped)),
            Err(error) => Err(error),
        };
        let (tables, dropped) = merged.inspect_err(|_| {
            outputs.ids().for_each(|id| self.trash.discard(table_path(&self.dir, id)));
        })?;
        let read: u64 = job.upper.iter().chain(&job.lower).map(|live| live.bytes()).sum();
        let written: u64 = tables.iter().map(|live| live.bytes()).sum();
        let added = tables.into_iter().map(|live| (job.level + 1, live)).collect();
        let removed = job.upper.into_iter().chain(job.lower).collect();
        self.install(Change { added, removed, flushed: None }).await?;
        self.stats.update(|stats| {
            stats.compactions += 1;
            stats.compaction_read_bytes += read;
            stats.compaction_write_bytes += written;
            stats.compaction_dropped += dropped;
        });
        Ok(())
    }

    /// Writes the merged entries; returns how many were dropped.
    async fn merge_into(&self, job: &Job<E>, outputs: &mut Outputs<E>) -> Result<u64> {
        let mut cursor = MergeCursor::new(sources(job));
        cursor.seek(&[]).await?;
        let mut merge = Merge {
            shared: self,
            cursor,
            deeper: Deeper::below(job.version.clone(), job.level + 1),
            last_key: Vec::new(),
            has_last: false,
            dropped: 0,
        };
        loop {
            let writer = outputs.open.as_mut().map(|(.., writer)| writer);
            match merge.slice(writer)? {
                Pause::Slice => {}
                Pause::Load => merge.cursor.load().await?,
                Pause::Open => outputs.open = Some(self.new_output(job.level + 1).await?),
                Pause::Drain => {
                    if let Some((.., writer)) = &mut outputs.open {
                        writer.drain().await?;
                    }
                }
                Pause::Cut => self.finish(outputs).await?,
                Pause::End => break,
            }
            self.env.coop().await;
            if self.closing.get() {
                return Err(Error::Closed);
            }
        }
        self.finish(outputs).await?;
        Ok(merge.dropped)
    }

    async fn new_output(&self, level: usize) -> Result<(TableId, TableUid, TableWriter<E>)> {
        let id = self.versions.allocate();
        let uid = TableUid(self.env.random());
        let path = table_path(&self.dir, id);
        let created = TableWriter::create(self.env.clone(), path, uid, &self.options).await;
        Ok((id, uid, created?.with_codec(self.options.compression[level])))
    }

    async fn finish(&self, outputs: &mut Outputs<E>) -> Result<()> {
        let Some((id, uid, writer)) = outputs.open.take() else { return Ok(()) };
        outputs.done.push((id, uid));
        writer.finish().await?;
        Ok(())
    }

    async fn open_outputs(&self, outputs: &Outputs<E>) -> Result<Vec<Rc<LiveTable<E>>>> {
        self.env.sync_dir(&self.dir).await.map_err(|e| Error::io("sync", &self.dir, &e))?;
        let mut tables = Vec::with_capacity(outputs.done.len());
        for (id, uid) in &outputs.done {
            let table = Table::open(&self.env, &table_path(&self.dir, *id), *uid).await?;
            let table = TableRef::whole(Rc::new(table));
            tables.push(LiveTable::new(*id, table, self.trash.clone()));
        }
        Ok(tables)
    }

    fn filter_drops(&self, entry: &EntryRef<'_>) -> bool {
        let mut filter = self.filter.borrow_mut();
        filter.as_mut().is_some_and(|decide| decide(entry.key, entry.value) == FilterDecision::Drop)
    }
}

impl<E: Env> Merge<'_, E> {
    /// Moves entries from the inputs to the writer without awaiting.
    fn slice(&mut self, mut writer: Option<&mut TableWriter<E>>) -> Result<Pause> {
        let mut bytes = 0;
        loop {
            let Some(entry) = self.cursor.entry() else {
                // Without an entry the merge is at its end, or a source waits for a block.
                return Ok(if self.cursor.try_advance()? { Pause::End } else { Pause::Load });
            };
            bytes += entry.key.len() + entry.value.len();
            let shadowed = self.has_last && self.last_key == entry.key;
            let kept = !shadowed && keeps(self.shared, &mut self.deeper, &entry);
            let mut full = false;
            if kept {
                let Some(writer) = writer.as_deref_mut() else { return Ok(Pause::Open) };
                if writer.bytes() >= self.shared.options.table_bytes && writer.entries() > 0 {
                    return Ok(Pause::Cut);
                }
                full = writer.push(entry)?;
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
fn keeps<E: Env>(shared: &Shared<E>, deeper: &mut Deeper<E>, entry: &EntryRef<'_>) -> bool {
    if deeper.may_hold(entry) {
        return true;
    }
    entry.kind == EntryKind::Put && !shared.filter_drops(entry)
}

/// The inputs as merge sources.
fn sources<E: Env>(job: &Job<E>) -> Vec<Source<E>> {
    let options = CursorOptions::compaction();
    let run = |tables: &[Rc<LiveTable<E>>]| {
        let tables = tables.iter().map(|live| live.table.clone()).collect();
        Source::Run(RunCursor::new(tables, options.clone()))
    };
    let mut sources: Vec<Source<E>> = if job.level == 0 {
        let tables = job.upper.iter();
        tables
            .map(|live| Source::Table(TableCursor::new(live.table.clone(), options.clone())))
            .collect()
    } else {
        vec![run(&job.upper)]
    };
    if !job.lower.is_empty() {
        sources.push(run(&job.lower));
    }
    sources
}
