//! Flushing: a frozen memtable becomes one table of level 0.
//!
//! Owns the flush task. A flush waits until the memtable's last entry is committed, so that
//! tables never hold what readers may not see, and its table counts only once the log is on the
//! device up to that entry: otherwise a power failure could leave one keyspace's part of the
//! history and take another's from before. It writes only the newest version of a key:
//! readers that need an older one hold the memtable itself.

use crate::cache::Depth;
use crate::engine::{FloorChange, Frozen, Shared};
use crate::env::Env;
use crate::table::{Table, TableRef, TableWriter};
use crate::version::set::Change;
use crate::version::{Expiries, Expiry, LiveTable, Place, table_path};
use crate::{Error, Memtable, Millis, Pos, Result, Seq, TableId, TableUid};
use coronet_probe::{Bug, Mark, mark, seeded};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Bytes written between two chances for other work.
const SLICE_BYTES: usize = 32 << 10;

/// How often the age of a memtable is looked at, at least: the wall clock may be set.
const AGE_CHECKS: Duration = Duration::from_secs(60);

/// Flushes frozen memtables until the engine closes.
pub(crate) async fn flush_task<E: Env>(shared: Rc<Shared<E>>) {
    while !shared.closing.get() {
        let epoch = shared.flush_wanted.epoch();
        let Some(frozen) = shared.oldest_frozen() else {
            shared.wait_for_frozen(epoch).await;
            continue;
        };
        match shared.flush_one(&frozen).await {
            Ok(()) => shared.flush_health.recovered(),
            Err(error) => {
                shared.note_failure(&shared.flush_health, error);
                let pause = shared.options().full_probe_interval;
                shared.flush_wanted.changed_within(&shared.env, epoch, pause).await;
            }
        }
        shared.progress.notify();
    }
    shared.task_ended();
}

impl<E: Env> Shared<E> {
    /// Waits until a memtable may have been frozen; freezes the active one when its oldest entry is
    /// as old as the policy lets it get in memory.
    async fn wait_for_frozen(&self, epoch: u64) {
        let Some(most) = self.policy().most_age_in_memory() else {
            return self.flush_wanted.changed(epoch).await;
        };
        // An empty memtable is looked at before what may come to it now is that old.
        let age = self.memory.borrow().active_age(self.env.wall_micros()).unwrap_or_default();
        match most.saturating_sub(age) {
            Duration::ZERO => self.freeze_if_room(),
            wait => self.flush_wanted.changed_within(&self.env, epoch, wait.min(AGE_CHECKS)).await,
        }
    }

    fn oldest_frozen(&self) -> Option<Frozen> {
        self.memory.borrow().oldest_frozen()
    }

    /// Freezes the active memtable and waits until all memtables of this moment are in tables.
    pub async fn flush(&self) -> Result<()> {
        self.readable()?;
        self.memory.borrow_mut().freeze(self.env.wall_micros());
        self.count_active();
        let Some(target) = self.memory.borrow().frozen_through() else { return Ok(()) };
        self.update_pressure();
        self.flush_wanted.notify();
        let failures = self.flush_health.failures();
        loop {
            let epoch = self.progress.epoch();
            if self.oldest_frozen().is_none_or(|oldest| oldest.last > target) {
                return Ok(());
            }
            if let Some(error) = self.flush_health.error_since(failures) {
                return Err(error);
            }
            self.readable()?;
            self.progress.changed(epoch).await;
        }
    }

    async fn flush_one(&self, frozen: &Frozen) -> Result<()> {
        self.log.committed(frozen.last).await?;
        if seeded(Bug::LogCutEarly) {
            self.core.release_log(self.core.log_floor(FloorChange::Flushed(self.keyspace))?);
            // A table that is not there for a while, so that few seeds show it.
            self.env.sleep(Duration::from_millis(250)).await;
        }
        self.log.want_sync(frozen.last);
        let id = self.versions.allocate();
        let written = match self.write_table(id, &frozen.table).await {
            Ok(table) => self.log.synced(frozen.last).await.map(|()| table),
            failed => failed,
        };
        let (table, expiry) = match written {
            Ok(table) => table,
            Err(error) => {
                self.trash.discard(table_path(&self.dir, id));
                return Err(error);
            }
        };
        let bytes = table.table.info().file_bytes;
        let dates = (frozen.written, expiry);
        let live = LiveTable::new(id, table, dates, self.trash.clone());
        self.install_flushed(frozen.last, live).await?;
        self.stats.update(|stats| {
            stats.flushes += 1;
            stats.flush_bytes += bytes;
            stats.level_written_bytes[0] += bytes;
        });
        Ok(())
    }

    async fn install_flushed(&self, last: Seq, live: Rc<LiveTable<E>>) -> Result<()> {
        let floor = self.core.log_floor(FloorChange::Flushed(self.keyspace))?;
        // Every flush is a run of its own; table numbers rise with time.
        let reversed = seeded(Bug::OldestTableFirst);
        let run = if reversed { u64::MAX - live.id.0 } else { live.id.0 };
        let place = Place { level: 0, run };
        let change = Change {
            added: vec![(place, live)],
            flushed: Some((last, floor)),
            ..Change::default()
        };
        let retry = async |error| self.retry_manifest(&self.flush_health, error).await;
        self.versions.apply(change, self.log.last(), retry).await?;
        self.memory.borrow_mut().drop_flushed();
        self.core.release_log(floor);
        mark(Mark::Flush);
        self.note_flush();
        self.after_insert();
        self.tree_changed();
        self.compaction_wanted.notify();
        Ok(())
    }

    async fn write_table(
        &self,
        id: TableId,
        source: &RefCell<Memtable>,
    ) -> Result<(TableRef<E>, Expiry)> {
        let path = table_path(&self.dir, id);
        let uid = TableUid(self.env.random());
        let writer =
            TableWriter::create(self.env.clone(), path.clone(), uid, &self.options()).await?;
        let piece = self.pacer.piece_bytes(self.env.now());
        let writer = writer.warming(self.cache.clone()).in_pieces(piece);
        let mut output = (writer, Expiries::default());
        let now = self.core.now();
        let mut at = source.borrow().first();
        let mut before = None;
        while at.is_some() {
            let full;
            (at, before, full) = push_slice(&source.borrow(), at, before, now, &mut output)?;
            if full {
                output.0.drain().await?;
            }
            self.env.coop().await;
            if self.closing.get() {
                return Err(Error::Closed);
            }
        }
        let (writer, expiries) = output;
        writer.finish().await?;
        self.env.sync_dir(&self.dir).await.map_err(|e| Error::io("sync", &self.dir, &e))?;
        let table = Table::open(&self.env, &path, uid).await?.within(&self.cache, Depth::Above);
        Ok((TableRef::whole(Rc::new(table)), expiries.expiry()))
    }
}

/// Gives the newest version of each key to the writer, until enough was done or the writer wants
/// to be drained. Returns where to go on, the entry before that, and whether to drain.
fn push_slice<E: Env>(
    source: &Memtable,
    mut at: Option<Pos>,
    mut before: Option<Pos>,
    now: Millis,
    (writer, expiries): &mut (TableWriter<E>, Expiries),
) -> Result<(Option<Pos>, Option<Pos>, bool)> {
    let mut bytes = 0;
    while let Some(pos) = at {
        source.prefetch_after(pos);
        let entry = source.entry(pos);
        // The versions of a key come newest first.
        let beside = if seeded(Bug::FlushKeepsOldest) { source.next(pos) } else { before };
        let shadowed = beside.is_some_and(|beside| source.same_key(beside, pos));
        let kept = entry.expired_as_delete(now);
        let full = !shadowed && writer.push(kept)?;
        if !shadowed {
            expiries.see(&kept);
            writer.came_from_memory(entry.key.len() + entry.value.len());
        }
        bytes += entry.key.len() + entry.value.len();
        before = Some(pos);
        at = source.next(pos);
        if full || bytes >= SLICE_BYTES {
            return Ok((at, before, full));
        }
    }
    Ok((None, before, false))
}
