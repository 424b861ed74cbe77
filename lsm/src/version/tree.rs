//! An immutable version of the tree: which tables in which run of which level.
//!
//! For a key, everything in a level is newer than in deeper levels, and everything in a run is
//! newer than in the runs of its level with lower numbers.

use super::Expiry;
use super::lost::LostRanges;
use crate::env::Env;
use crate::prefix::{Learner, Prefixes};
use crate::stats::LEVELS;
use crate::table::{Bounds, Table, TableRef};
use crate::trash::Trash;
use crate::{EntryRef, TableId};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The path of table `id`.
pub fn table_path(dir: &Path, id: TableId) -> PathBuf {
    dir.join(format!("{:06}.sst", id.0))
}

/// The number in a table's name.
pub fn table_id(path: &Path) -> Option<TableId> {
    path.file_name()?.to_str()?.strip_suffix(".sst")?.parse().ok().map(TableId)
}

/// The file of a table. It goes to the trash when it is obsolete and the last version that uses
/// any part of it is dropped.
struct TableFile<E: Env> {
    table: Rc<Table<E>>,
    obsolete: Cell<bool>,
    trash: Rc<Trash>,
}

impl<E: Env> Drop for TableFile<E> {
    fn drop(&mut self) {
        if self.obsolete.get() {
            let path = self.table.path().to_owned();
            if self.table.has_lost() {
                self.trash.set_aside(path)
            } else {
                self.trash.discard(path)
            }
        }
    }
}

/// When the entries of a table or memtable were written, wall clock in microseconds since the Unix
/// epoch; merges pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// No entry was written before.
    pub oldest: u64,
    /// No entry was written after.
    pub newest: u64,
}

impl Written {
    /// The smallest span that covers both.
    pub fn cover(self, other: Written) -> Written {
        Written { oldest: self.oldest.min(other.oldest), newest: self.newest.max(other.newest) }
    }
}

/// A table of some version.
pub struct LiveTable<E: Env> {
    /// Its number.
    pub id: TableId,
    /// The table and the part of it that is ours.
    pub table: TableRef<E>,
    /// When its entries were written.
    pub written: Written,
    /// When they expire; of the whole file, so that the part that is ours never outlives it.
    pub expiry: Expiry,
    file: Rc<TableFile<E>>,
}

impl<E: Env> LiveTable<E> {
    /// A table whose file is thrown away through `trash` when it became obsolete.
    pub fn new(
        id: TableId,
        table: TableRef<E>,
        (written, expiry): (Written, Expiry),
        trash: Rc<Trash>,
    ) -> Rc<Self> {
        let obsolete = Cell::new(false);
        let file = Rc::new(TableFile { table: table.table.clone(), obsolete, trash });
        Rc::new(LiveTable { id, table, written, expiry, file })
    }

    /// The same table without the keys up to and including `key`, which lies within its bounds.
    pub fn after(&self, key: &[u8]) -> Rc<Self> {
        let mut first = key.to_vec();
        // The smallest key beyond it.
        first.push(0);
        let bounds = Bounds { first: first.into(), last: self.table.bounds.last.clone() };
        let table = TableRef { table: self.table.table.clone(), bounds };
        Rc::new(LiveTable {
            id: self.id,
            table,
            written: self.written,
            expiry: self.expiry,
            file: self.file.clone(),
        })
    }

    /// No further version will use the table.
    pub fn retire(&self) {
        self.file.obsolete.set(true);
    }

    /// Size of its file.
    pub fn bytes(&self) -> u64 {
        self.table.table.info().file_bytes
    }
}

/// A sorted run: tables by key that do not overlap.
pub struct Run<E: Env> {
    /// Higher is newer, within a level.
    pub number: u64,
    /// Its tables, by key.
    pub tables: Vec<Rc<LiveTable<E>>>,
    /// The same tables for run cursors.
    pub refs: Rc<[TableRef<E>]>,
    /// Bytes of all files.
    pub bytes: u64,
    /// First and last keys of the tables as numbers, so that finding one looks at few tables.
    order: Prefixes,
    firsts: Vec<u128>,
    lasts: Vec<u128>,
}

impl<E: Env> Run<E> {
    fn new(number: u64, mut tables: Vec<Rc<LiveTable<E>>>) -> Self {
        tables.sort_by(|a, b| a.table.smallest().cmp(b.table.smallest()));
        let disjoint =
            tables.windows(2).all(|pair| pair[0].table.largest() < pair[1].table.smallest());
        assert!(disjoint, "tables of run {number} overlap");
        let refs = tables.iter().map(|live| live.table.clone()).collect();
        let bytes = tables.iter().map(|live| live.bytes()).sum();
        let mut learner = Learner::default();
        for live in &tables {
            learner.see(live.table.smallest());
            learner.see(live.table.largest());
        }
        let order = learner.prefixes();
        let firsts = tables.iter().map(|live| order.of(live.table.smallest())).collect();
        let lasts = tables.iter().map(|live| order.of(live.table.largest())).collect();
        Run { number, tables, refs, bytes, order, firsts, lasts }
    }

    /// The only table that can hold `key`.
    pub fn find(&self, key: &[u8]) -> Option<&LiveTable<E>> {
        let number = self.order.of(key);
        let mut at = self.lasts.partition_point(|last| *last < number);
        while self.lasts.get(at) == Some(&number) && self.tables[at].table.largest() < key {
            at += 1;
        }
        // The key is not behind this table; equal numbers decide nothing.
        let first = *self.firsts.get(at)?;
        let live = &*self.tables[at];
        (first < number || first == number && live.table.smallest() <= key).then_some(live)
    }
}

/// Where a table is in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The level; deeper is older.
    pub level: usize,
    /// The run's number; lower is older, within a level.
    pub run: u64,
}

/// An immutable set of tables; readers hold it while they read.
pub struct Version<E: Env> {
    /// All levels, level 0 first; each with its runs, newest first.
    pub levels: Vec<Vec<Run<E>>>,
    /// Keys whose values in tables cannot be relied on.
    pub lost: LostRanges,
}

impl<E: Env> Version<E> {
    /// A version of the given tables.
    pub fn new(tables: Vec<(Place, Rc<LiveTable<E>>)>) -> Self {
        let mut runs: BTreeMap<Place, Vec<_>> = BTreeMap::new();
        for (place, table) in tables {
            runs.entry(place).or_default().push(table);
        }
        let mut levels: Vec<Vec<_>> = (0..LEVELS).map(|_| Vec::new()).collect();
        for (place, tables) in runs.into_iter().rev() {
            levels[place.level].push(Run::new(place.run, tables));
        }
        Version { levels, lost: LostRanges::default() }
    }

    /// The same version with marks of damage.
    pub fn with_lost(mut self, lost: LostRanges) -> Self {
        self.lost = lost;
        self
    }

    /// The deepest level that has tables; 0 when none has.
    pub fn deepest(&self) -> usize {
        self.levels.iter().rposition(|runs| !runs.is_empty()).unwrap_or(0)
    }

    /// Every run, newest data first.
    pub fn runs(&self) -> impl Iterator<Item = &Run<E>> {
        self.levels.iter().flatten()
    }

    /// Every table with its place.
    pub fn tables(&self) -> impl Iterator<Item = (Place, &Rc<LiveTable<E>>)> {
        self.levels.iter().enumerate().flat_map(|(level, runs)| {
            runs.iter().flat_map(move |run| {
                let place = Place { level, run: run.number };
                run.tables.iter().map(move |table| (place, table))
            })
        })
    }
}

/// Tells whether any older run may hold a key; asked for rising keys.
pub struct Older<E: Env> {
    version: Rc<Version<E>>,
    /// Level and index of a run, and the first of its tables that does not end before the last
    /// key asked for.
    positions: Vec<(usize, usize, usize)>,
}

impl<E: Env> Older<E> {
    /// Looks at everything that is older than the run at `place`, apart from the runs of its
    /// level that `merged` names.
    pub fn than(version: Rc<Version<E>>, place: Place, merged: &[u64]) -> Self {
        let mut positions = Vec::new();
        for (level, runs) in version.levels.iter().enumerate().skip(place.level) {
            for (at, run) in runs.iter().enumerate() {
                let older = run.number < place.run && !merged.contains(&run.number);
                if level > place.level || older {
                    positions.push((level, at, 0));
                }
            }
        }
        Older { version, positions }
    }

    /// Whether the entry's key may exist there.
    pub fn may_hold(&mut self, entry: &EntryRef<'_>) -> bool {
        let levels = &self.version.levels;
        self.positions.iter_mut().any(|(level, run, at)| {
            let tables = &levels[*level][*run].tables;
            while tables.get(*at).is_some_and(|live| live.table.largest() < entry.key) {
                *at += 1;
            }
            tables.get(*at).is_some_and(|live| live.table.covers(entry.key))
        })
    }
}
