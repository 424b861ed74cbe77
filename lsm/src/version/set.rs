//! The current version and the one way to change it: through the manifest.

use super::edit::{Edit, Progress, State, TableMeta};
use super::lost::{Lost, LostRanges};
use super::manifest::{Loaded, Manifest};
use super::{LiveTable, Place, Version, table_path};
use crate::env::Env;
use crate::stats::Counters;
use crate::table::{Bounds, Table, TableRef};
use crate::trash::Trash;
use crate::{CompactionPolicy, Error, Result, Seq, TableId};
use futures_util::future::join_all;
use futures_util::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Tables opened at the same time.
const OPEN_AT_ONCE: usize = 32;

/// A change of the version.
pub struct Change<E: Env> {
    /// Tables that come, with their place. A table that is removed and added only changes its
    /// place or its bounds.
    pub added: Vec<(Place, Rc<LiveTable<E>>)>,
    /// Tables that go.
    pub removed: Vec<Rc<LiveTable<E>>>,
    /// Log position after a flush: newest flushed entry, first generation still needed.
    pub flushed: Option<(Seq, u64)>,
    /// The compaction policy from now on.
    pub policy: Option<CompactionPolicy>,
}

impl<E: Env> Default for Change<E> {
    fn default() -> Self {
        Change { added: Vec::new(), removed: Vec::new(), flushed: None, policy: None }
    }
}

/// Manifest and state, changed together under a lock.
struct Durable<E: Env> {
    manifest: Manifest<E>,
    state: State,
}

/// The versions of one engine.
pub struct VersionSet<E: Env> {
    current: RefCell<Rc<Version<E>>>,
    durable: Mutex<Durable<E>>,
    next_table: Cell<u64>,
    stats: Rc<Counters>,
}

impl<E: Env> VersionSet<E> {
    /// Opens the tables a manifest names and continues in a new manifest. `last_seq` is where
    /// new sequence numbers begin, `next_table` beyond every table file of the folder.
    pub async fn open(
        env: &E,
        dir: &Path,
        loaded: Loaded,
        progress: Progress,
        tables: Vec<(Place, Rc<LiveTable<E>>)>,
        stats: Rc<Counters>,
    ) -> Result<Self> {
        let state = State { progress, ..loaded.state };
        let lost = LostRanges::new(&state.lost);
        let manifest = Manifest::create(env.clone(), dir, loaded.highest + 1, &state).await?;
        Ok(VersionSet {
            current: RefCell::new(Rc::new(Version::new(tables).with_lost(lost))),
            durable: Mutex::new(Durable { manifest, state }),
            next_table: Cell::new(progress.next_table),
            stats,
        })
    }

    /// The current version.
    pub fn current(&self) -> Rc<Version<E>> {
        self.current.borrow().clone()
    }

    /// Runs `f` on the current version without keeping it.
    pub fn with<R>(&self, f: impl FnOnce(&Version<E>) -> R) -> R {
        f(&self.current.borrow())
    }

    /// A table number nobody had.
    pub fn allocate(&self) -> TableId {
        let id = self.next_table.get();
        self.next_table.set(id + 1);
        TableId(id)
    }

    /// Makes a change durable and then current. An error means: not applied, and certain not to
    /// be after a restart. While that is uncertain, the call goes on trying and does not return.
    pub async fn apply(
        &self,
        change: Change<E>,
        last_seq: Seq,
        mut retry: impl AsyncFnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let mut durable = self.durable.lock().await;
        let edit = self.edit(&change, &durable.state, last_seq);
        self.commit(&mut durable, &edit, &mut retry).await?;
        self.install(change);
        Ok(())
    }

    /// Makes marks of damage durable, or, with none, takes back all there are; then shows them
    /// to readers.
    pub async fn mark(
        &self,
        lost: Vec<Lost>,
        last_seq: Seq,
        mut retry: impl AsyncFnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let mut durable = self.durable.lock().await;
        let nothing = Change::default();
        let accepted = lost.is_empty();
        let edit = Edit { lost, accepted, ..self.edit(&nothing, &durable.state, last_seq) };
        self.commit(&mut durable, &edit, &mut retry).await?;
        let lost = LostRanges::new(&durable.state.lost);
        let tables = self.current().tables().map(|(n, t)| (n, t.clone())).collect();
        *self.current.borrow_mut() = Rc::new(Version::new(tables).with_lost(lost));
        Ok(())
    }

    /// Writes an edit until it is certain to be durable.
    async fn commit(
        &self,
        durable: &mut Durable<E>,
        edit: &Edit,
        retry: &mut impl AsyncFnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let mut next = durable.state.clone();
        if let Err(what) = next.apply(edit) {
            return Err(Error::corruption(Path::new("MANIFEST"), 0, what));
        }
        let before = durable.manifest.written();
        let mut outcome = if durable.manifest.wants_rewrite() {
            self.rewrite(&mut durable.manifest, &next).await
        } else {
            durable.manifest.append(edit).await
        };
        while let Err(error) = outcome {
            retry(error).await?;
            outcome = self.rewrite(&mut durable.manifest, &next).await;
        }
        let written = durable.manifest.written() - before;
        self.stats.update(|stats| {
            stats.manifest_edits += 1;
            stats.manifest_bytes += written;
        });
        durable.state = next;
        Ok(())
    }

    async fn rewrite(&self, manifest: &mut Manifest<E>, state: &State) -> Result<()> {
        self.stats.update(|stats| stats.manifest_rewrites += 1);
        manifest.rewrite(state).await
    }

    fn edit(&self, change: &Change<E>, state: &State, last_seq: Seq) -> Edit {
        let (flushed, log_floor) =
            change.flushed.unwrap_or((state.progress.flushed, state.progress.log_floor));
        let progress = Progress { next_table: self.next_table.get(), last_seq, flushed, log_floor };
        Edit {
            added: change.added.iter().map(|(place, live)| meta(*place, live)).collect(),
            removed: change.removed.iter().map(|live| live.id).collect(),
            lost: Vec::new(),
            accepted: false,
            policy: change.policy.as_ref().map(ToString::to_string),
            progress,
        }
    }

    fn install(&self, change: Change<E>) {
        let current = self.current();
        let stays = |live: &LiveTable<E>| change.removed.iter().all(|gone| gone.id != live.id);
        let mut tables: Vec<_> =
            current.tables().filter(|(_, t)| stays(t)).map(|(n, t)| (n, t.clone())).collect();
        for gone in &change.removed {
            if change.added.iter().all(|(_, came)| came.id != gone.id) {
                gone.retire();
            }
        }
        tables.extend(change.added);
        *self.current.borrow_mut() = Rc::new(Version::new(tables).with_lost(current.lost.clone()));
    }
}

fn meta<E: Env>(place: Place, live: &LiveTable<E>) -> TableMeta {
    TableMeta {
        level: place.level as u8,
        run: place.run,
        id: live.id,
        uid: live.table.table.info().uid,
        first: live.table.bounds.first.clone(),
        last: live.table.bounds.last.clone(),
        flushed: live.flushed,
    }
}

/// Opens every table of a manifest state, several at a time. A table that is damaged where its
/// keys cannot be told is taken out of `state`, its keys are marked as lost, and its file is
/// returned.
pub async fn open_tables<E: Env>(
    env: &E,
    dir: &Path,
    state: &mut State,
    trash: &Rc<Trash>,
) -> Result<(Vec<(Place, Rc<LiveTable<E>>)>, Vec<Error>)> {
    let metas: Vec<TableMeta> = state.tables.values().cloned().collect();
    let lost = LostRanges::new(&state.lost);
    let mut damaged = Vec::new();
    let mut opened = Vec::with_capacity(metas.len());
    for chunk in metas.chunks(OPEN_AT_ONCE) {
        let tables = chunk.iter().map(|meta| open_table(env, table_path(dir, meta.id), meta));
        for (meta, table) in chunk.iter().zip(join_all(tables).await) {
            let table = match table {
                Err(error @ Error::Corruption { .. }) => {
                    let path = table_path(dir, meta.id);
                    state.tables.remove(&meta.id);
                    state.lost.push(Lost::table(meta, &path, state.progress.flushed));
                    damaged.push(error);
                    continue;
                }
                opened => opened?,
            };
            table.table.set_lost(lost.offsets(meta.uid));
            let live = LiveTable::new(meta.id, table, meta.flushed, trash.clone());
            opened.push((Place { level: usize::from(meta.level), run: meta.run }, live));
        }
    }
    Ok((opened, damaged))
}

async fn open_table<E: Env>(env: &E, path: PathBuf, meta: &TableMeta) -> Result<TableRef<E>> {
    let table = Table::open(env, &path, meta.uid).await?;
    if table.info().uid != meta.uid {
        return Err(Error::corruption(&path, 0, "table is not the one the manifest names"));
    }
    let bounds = Bounds { first: meta.first.clone(), last: meta.last.clone() };
    Ok(TableRef { table: Rc::new(table), bounds })
}
