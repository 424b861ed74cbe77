//! Table files: immutable sorted runs of entries on disk.
//!
//! Owns the file format (`docs/FORMATS.md`, "Table file"), writing a table as a stream, and
//! point reads. Ordered reading over tables is in [`crate::read`]; which tables exist, and under
//! what names, is the manifest's business.
//!
//! | module | owns |
//! |---|---|
//! | `block` | frames with checksums, data blocks |
//! | `codec` | compression of data blocks |
//! | `filter` | the bloom filter |
//! | `index` | block positions and separators |
//! | `footer` | the last page |
//! | `writer`, `reader` | the file as a whole |

mod block;
mod codec;
mod filter;
mod footer;
mod index;
pub(crate) mod raw;
mod reader;
mod writer;

pub(crate) use block::{BackWalk, Block, BlockWalk, Hints};
pub use codec::Codec;
pub(crate) use reader::Run;
pub use reader::{Hit, Lookup, Table};
pub use writer::TableWriter;

use crate::env::Env;
use crate::{BlockCache, Result, Seq, TableUid};
use std::ops::Range;
use std::rc::Rc;

/// What a table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Identity of the file's bytes.
    pub uid: TableUid,
    /// Length of the file.
    pub file_bytes: u64,
    /// The smallest key.
    pub smallest: Box<[u8]>,
    /// The largest key.
    pub largest: Box<[u8]>,
    /// Number of versions, deletes included.
    pub entries: u64,
    /// Number of delete markers.
    pub deletes: u64,
    /// The lowest sequence number.
    pub min_seq: Seq,
    /// The highest sequence number.
    pub max_seq: Seq,
    /// Bytes of all data blocks on disk.
    pub data_bytes: u64,
    /// Bytes of all data blocks before compression.
    pub raw_bytes: u64,
    /// Length of the prefixes of keys that the filter knows beside the keys, bytes; zero: none.
    pub filter_prefix_bytes: u32,
    /// How many prefixes these are.
    pub filter_prefixes: u64,
}

/// An inclusive range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The first key that belongs to it.
    pub first: Rc<[u8]>,
    /// The last key that belongs to it.
    pub last: Rc<[u8]>,
}

impl Bounds {
    /// Whether `key` is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.first <= *key && *key <= *self.last
    }
}

/// A table as one engine sees it: everything outside the bounds does not exist.
pub struct TableRef<E: Env> {
    /// The file.
    pub table: Rc<Table<E>>,
    /// The keys of it that belong to the engine.
    pub bounds: Bounds,
}

impl<E: Env> Clone for TableRef<E> {
    fn clone(&self) -> Self {
        TableRef { table: self.table.clone(), bounds: self.bounds.clone() }
    }
}

impl<E: Env> std::fmt::Debug for TableRef<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableRef")
            .field("table", &self.table)
            .field("bounds", &self.bounds)
            .finish()
    }
}

impl<E: Env> TableRef<E> {
    /// The table with all of its keys.
    pub fn whole(table: Rc<Table<E>>) -> Self {
        let info = table.info();
        let bounds = Bounds { first: (&*info.smallest).into(), last: (&*info.largest).into() };
        TableRef { table, bounds }
    }

    /// The blocks that have keys within the bounds.
    pub(crate) fn blocks(&self) -> Range<usize> {
        let index = self.table.index();
        index.find(&self.bounds.first)..index.behind(&self.bounds.last, true)
    }

    /// No visible key is smaller.
    pub fn smallest(&self) -> &[u8] {
        std::cmp::max(&*self.table.info().smallest, &*self.bounds.first)
    }

    /// No visible key is larger.
    pub fn largest(&self) -> &[u8] {
        std::cmp::min(&*self.table.info().largest, &*self.bounds.last)
    }

    /// Whether `key` lies between the smallest and the largest visible key.
    pub fn covers(&self, key: &[u8]) -> bool {
        self.bounds.contains(key) && self.table.covers(key)
    }

    /// [`Table::get_cached`] within the bounds.
    pub fn get_cached(&self, cache: &BlockCache, key: &[u8], hash: u64, at: Seq) -> Result<Lookup> {
        if !self.bounds.contains(key) {
            return Ok(Lookup::Absent);
        }
        self.table.get_cached(cache, key, hash, at)
    }

    /// [`Table::get`] within the bounds.
    pub async fn get(
        &self,
        cache: &BlockCache,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Option<Hit>> {
        if !self.bounds.contains(key) {
            return Ok(None);
        }
        self.table.get(cache, key, hash, at).await
    }
}
