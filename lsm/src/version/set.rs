//! The current version of one keyspace and the one way to change it: through the manifest.

use super::edit::{Edit, State, TableMeta};
use super::lost::{Lost, LostRanges};
use super::{Ledger, LiveTable, Place, Version, table_path};
use crate::cache::Depth;
use crate::env::Env;
use crate::table::{Bounds, Table, TableRef};
use crate::trash::Trash;
use crate::{BlockCache, CompactionPolicy, Error, KeyspaceId, Result, Seq, TableId};
use futures_util::future::join_all;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

/// Tables opened at the same time.
const OPEN_AT_ONCE: usize = 32;

/// A change of the version.
pub struct Change<E: Env> {
    /// Tables that come, with their place.
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

/// Open tables with their places.
pub type Tables<E> = Vec<(Place, Rc<LiveTable<E>>)>;

/// The versions of one keyspace.
pub struct VersionSet<E: Env> {
    keyspace: KeyspaceId,
    current: RefCell<Rc<Version<E>>>,
    ledger: Rc<Ledger<E>>,
}

impl<E: Env> VersionSet<E> {
    /// The versions of a keyspace that begins with these tables.
    pub fn new(
        keyspace: KeyspaceId,
        ledger: Rc<Ledger<E>>,
        tables: Tables<E>,
        lost: LostRanges,
    ) -> Self {
        let current = RefCell::new(Rc::new(Version::new(tables).with_lost(lost)));
        VersionSet { keyspace, current, ledger }
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
        self.ledger.allocate()
    }

    /// Makes a change durable and then current; see [`Ledger::commit`] about errors.
    pub async fn apply(
        &self,
        change: Change<E>,
        last_seq: Seq,
        retry: impl AsyncFnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let edit = Edit {
            added: change.added.iter().map(|(place, live)| self.meta(*place, live)).collect(),
            removed: change.removed.iter().map(|live| live.id).collect(),
            policies: change.policy.iter().map(|new| (self.keyspace, new.to_string())).collect(),
            flushed: change.flushed.iter().map(|(seq, _)| (self.keyspace, *seq)).collect(),
            ..Edit::default()
        };
        let floor = change.flushed.map(|(_, floor)| floor);
        let install = |_: &State| self.install(change);
        self.ledger.commit(edit, last_seq, floor, retry, install).await
    }

    /// Makes marks of damage durable, or, with none, takes back all there are; then shows them
    /// to readers.
    pub async fn mark(
        &self,
        lost: Vec<Lost>,
        last_seq: Seq,
        retry: impl AsyncFnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let accepted = if lost.is_empty() { vec![self.keyspace] } else { Vec::new() };
        let edit = Edit { lost, accepted, ..Edit::default() };
        let show = |state: &State| {
            let lost = LostRanges::new(&state.lost, self.keyspace);
            let tables = self.current().tables().map(|(n, t)| (n, t.clone())).collect();
            *self.current.borrow_mut() = Rc::new(Version::new(tables).with_lost(lost));
        };
        self.ledger.commit(edit, last_seq, None, retry, show).await
    }

    /// The keyspace is gone: so are its tables, once nobody reads them any more.
    pub fn retire_all(&self) {
        let last =
            std::mem::replace(&mut *self.current.borrow_mut(), Rc::new(Version::new(Vec::new())));
        last.tables().for_each(|(_, live)| live.retire());
    }

    fn meta(&self, place: Place, live: &LiveTable<E>) -> TableMeta {
        TableMeta {
            keyspace: self.keyspace,
            level: place.level as u8,
            run: place.run,
            id: live.id,
            uid: live.table.table.info().uid,
            first: live.table.bounds.first.clone(),
            last: live.table.bounds.last.clone(),
            written: live.written,
            expiry: live.expiry,
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

/// What an opening found: tables by keyspace, and damaged ones.
pub struct Opened<E: Env> {
    /// The tables that can be read.
    pub tables: BTreeMap<KeyspaceId, Tables<E>>,
    /// The others: whose they are and what is wrong.
    pub damaged: Vec<(KeyspaceId, Error)>,
}

/// Opens every table of a manifest state, several at a time. A table that is damaged where its
/// keys cannot be told is taken out of `state`, its keys are marked as lost.
pub async fn open_tables<E: Env>(
    env: &E,
    dir: &Path,
    state: &mut State,
    trash: &Rc<Trash>,
    cache: &Rc<BlockCache>,
) -> Result<Opened<E>> {
    let mut metas: Vec<TableMeta> = state.tables.values().cloned().collect();
    // The upper levels come first when there is not enough memory for all filters.
    metas.sort_by_key(|meta| meta.level);
    let deepest: BTreeMap<KeyspaceId, u8> =
        metas.iter().map(|meta| (meta.keyspace, meta.level)).collect();
    let marks: BTreeMap<KeyspaceId, LostRanges> =
        state.keyspaces.keys().map(|id| (*id, LostRanges::new(&state.lost, *id))).collect();
    let mut opened = Opened { tables: BTreeMap::new(), damaged: Vec::new() };
    for chunk in metas.chunks(OPEN_AT_ONCE) {
        let tables = chunk.iter().map(async |meta| {
            let path = table_path(dir, meta.id);
            let table = Table::open(env, &path, meta.uid).await?;
            let depth = Depth::of(meta.level.into(), deepest[&meta.keyspace].into());
            let bounds = Bounds { first: meta.first.clone(), last: meta.last.clone() };
            Ok(TableRef { table: Rc::new(table.within(cache, depth)), bounds })
        });
        for (meta, table) in chunk.iter().zip(join_all(tables).await) {
            let table = match table {
                Err(error @ Error::Corruption { .. }) => {
                    let path = table_path(dir, meta.id);
                    let flushed = state.keyspaces[&meta.keyspace].flushed;
                    state.tables.remove(&meta.id);
                    state.lost.push(Lost::table(meta, &path, flushed));
                    opened.damaged.push((meta.keyspace, error));
                    continue;
                }
                table => table?,
            };
            let given_up = state.given_up.iter().filter(|block| block.uid == meta.uid);
            table.table.set_lost(given_up.map(|block| block.offset));
            table.table.give_up();
            table.table.set_lost(marks[&meta.keyspace].offsets(meta.uid));
            let live = LiveTable::new(meta.id, table, (meta.written, meta.expiry), trash.clone());
            let tables = opened.tables.entry(meta.keyspace).or_default();
            tables.push((Place { level: usize::from(meta.level), run: meta.run }, live));
        }
    }
    Ok(opened)
}
