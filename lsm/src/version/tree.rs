//! An immutable version of the tree: which tables on which level.

use super::lost::LostRanges;
use crate::env::Env;
use crate::stats::LEVELS;
use crate::table::TableRef;
use crate::trash::Trash;
use crate::{EntryRef, Options, TableId};
use std::cell::Cell;
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

/// A table of some version. Its file goes to the trash when it is obsolete and the last version
/// that uses it is dropped.
pub struct LiveTable<E: Env> {
    /// Its number.
    pub id: TableId,
    /// The table and the part of it that is ours.
    pub table: TableRef<E>,
    obsolete: Cell<bool>,
    trash: Rc<Trash>,
}

impl<E: Env> LiveTable<E> {
    /// A table whose file is thrown away through `trash` when it became obsolete.
    pub fn new(id: TableId, table: TableRef<E>, trash: Rc<Trash>) -> Rc<Self> {
        Rc::new(LiveTable { id, table, obsolete: Cell::new(false), trash })
    }

    /// No further version will use the table.
    pub fn retire(&self) {
        self.obsolete.set(true);
    }

    /// Size of its file.
    pub fn bytes(&self) -> u64 {
        self.table.table.info().file_bytes
    }

    /// Whether its keys and the closed range `first..=last` may meet.
    pub fn overlaps(&self, first: &[u8], last: &[u8]) -> bool {
        self.table.smallest() <= last && self.table.largest() >= first
    }
}

impl<E: Env> Drop for LiveTable<E> {
    fn drop(&mut self) {
        if self.obsolete.get() {
            let path = self.table.table.path().to_owned();
            if self.table.table.has_lost() {
                self.trash.set_aside(path)
            } else {
                self.trash.discard(path)
            }
        }
    }
}

/// One level.
pub struct Level<E: Env> {
    /// Level 0: newest first, ranges may overlap. Deeper: by key, ranges do not overlap.
    pub tables: Vec<Rc<LiveTable<E>>>,
    /// The same tables for run cursors.
    pub run: Rc<[TableRef<E>]>,
    /// Bytes of all files.
    pub bytes: u64,
}

impl<E: Env> Level<E> {
    fn new(level: usize, mut tables: Vec<Rc<LiveTable<E>>>) -> Self {
        if level == 0 {
            tables.sort_by_key(|t| std::cmp::Reverse((t.table.table.info().max_seq, t.id)));
        } else {
            tables.sort_by(|a, b| a.table.smallest().cmp(b.table.smallest()));
            let disjoint =
                tables.windows(2).all(|pair| pair[0].table.largest() < pair[1].table.smallest());
            assert!(disjoint, "tables of level {level} overlap");
        }
        let run = tables.iter().map(|live| live.table.clone()).collect();
        let bytes = tables.iter().map(|live| live.bytes()).sum();
        Level { tables, run, bytes }
    }

    /// The only table of a deeper level that can hold `key`.
    pub fn find(&self, key: &[u8]) -> Option<&LiveTable<E>> {
        let at = self.tables.partition_point(|live| live.table.largest() < key);
        self.tables.get(at).map(|live| &**live).filter(|live| live.table.covers(key))
    }

    /// The tables that meet the closed range.
    pub fn overlapping(&self, first: &[u8], last: &[u8]) -> Vec<Rc<LiveTable<E>>> {
        self.tables.iter().filter(|live| live.overlaps(first, last)).cloned().collect()
    }
}

/// An immutable set of tables; readers hold it while they read.
pub struct Version<E: Env> {
    /// All levels, level 0 first.
    pub levels: Vec<Level<E>>,
    /// Keys whose values in tables cannot be relied on.
    pub lost: LostRanges,
}

impl<E: Env> Version<E> {
    /// A version of the given tables.
    pub fn new(tables: Vec<(usize, Rc<LiveTable<E>>)>) -> Self {
        let mut levels: Vec<Vec<_>> = (0..LEVELS).map(|_| Vec::new()).collect();
        for (level, table) in tables {
            levels[level].push(table);
        }
        let levels = levels.into_iter().enumerate().map(|(n, tables)| Level::new(n, tables));
        Version { levels: levels.collect(), lost: LostRanges::default() }
    }

    /// The same version with marks of damage.
    pub fn with_lost(mut self, lost: LostRanges) -> Self {
        self.lost = lost;
        self
    }

    /// Every table with its level.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Rc<LiveTable<E>>)> {
        let levels = self.levels.iter().enumerate();
        levels.flat_map(|(n, level)| level.tables.iter().map(move |table| (n, table)))
    }

    /// The deepest level that has tables.
    pub fn bottom(&self) -> usize {
        self.levels.iter().rposition(|level| !level.tables.is_empty()).unwrap_or(0)
    }

    /// Size of a level relative to what it may have.
    pub fn score(&self, level: usize, options: &Options) -> f64 {
        if level == 0 {
            return self.levels[0].tables.len() as f64 / options.l0_trigger as f64;
        }
        let fanout = f64::from(options.fanout).powi(level as i32 - 1);
        self.levels[level].bytes as f64 / (options.level_base_bytes as f64 * fanout)
    }
}

/// Tells whether any deeper level may hold a key; asked for rising keys.
pub struct Deeper<E: Env> {
    version: Rc<Version<E>>,
    /// Level and the first of its tables that does not end before the last key asked for.
    positions: Vec<(usize, usize)>,
}

impl<E: Env> Deeper<E> {
    /// Looks below `level`.
    pub fn below(version: Rc<Version<E>>, level: usize) -> Self {
        let positions = (level + 1..LEVELS)
            .filter(|n| !version.levels[*n].tables.is_empty())
            .map(|n| (n, 0))
            .collect();
        Deeper { version, positions }
    }

    /// Whether the entry's key may exist below.
    pub fn may_hold(&mut self, entry: &EntryRef<'_>) -> bool {
        let levels = &self.version.levels;
        self.positions.iter_mut().any(|(level, at)| {
            let tables = &levels[*level].tables;
            while tables.get(*at).is_some_and(|live| live.table.largest() < entry.key) {
                *at += 1;
            }
            tables.get(*at).is_some_and(|live| live.table.covers(entry.key))
        })
    }
}
