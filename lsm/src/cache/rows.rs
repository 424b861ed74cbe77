//! The newest values of hot keys, ready to be copied out: a read that finds its key here looks
//! into neither memtables nor tables.
//!
//! Owns which rows stay. A row is always the newest version of its key, committed or not: whoever
//! writes a key takes its row out ([`Rows::forget`]), and a row is only put in by a reader that
//! saw no newer version anywhere. Nothing here is asked for twice before it is admitted, so that
//! reads that come once push nothing out.
//!
//! Rows lie one behind the other in chunks that are filled and emptied in order. A chunk's rows
//! that were used move on when it is emptied. The index is set-associative: one cache line per
//! look, and a row that finds no place in its line is not kept.

use super::chunks::{Chunks, Oldest, Place, Row};
use crate::prefetch::prefetch;
use crate::{EntryKind, EntryRef};
use std::cell::Cell;

/// Places in one line of the index.
const WAYS: usize = 8;
/// One line of the index for so many bytes of budget.
const BYTES_PER_LINE: usize = 4 << 10;
/// A row may take this part of a chunk.
const CHUNK_SHARE: usize = 4;
/// While rows have to leave for others, one of so many candidates is taken: when more is hot than
/// fits, copying must not cost more than it saves.
const PATIENCE: u32 = 4;
/// Rows that move on fill a new chunk up to this fraction, so that there is place for new ones.
const MOVING: (usize, usize) = (3, 4);

/// Bit of an index entry: found since it was put in or moved.
const USED: u64 = 1 << 63;
/// Bits of an index entry that name the place.
const PLACE: u64 = (1 << 40) - 1;
/// Where the tag begins in an index entry; it has the bits between there and [`USED`].
const TAG_AT: u32 = 40;

/// Which rows belong together: a keyspace, until its rows have to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space(pub u32);

/// One line of the index: `used | tag | place + 1`, zero is empty.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([Cell<u64>; WAYS]);

/// Hot rows. See the module.
#[derive(Debug)]
pub(crate) struct Rows {
    lines: Vec<Line>,
    /// Low 16 bits of the hash of who asked last, by hash.
    seen: Vec<u16>,
    chunks: Chunks,
    /// Candidates turned away since the last one was taken.
    waited: u32,
    /// Lines of the index once there is one; zero when the budget is too small for rows.
    lines_wanted: usize,
}

/// The hash that rows go by.
fn row_hash(space: Space, hash: u64) -> u64 {
    hash ^ u64::from(space.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn tag_of(hash: u64) -> u64 {
    (hash >> TAG_AT) & ((1 << (63 - TAG_AT)) - 1)
}

impl Rows {
    /// No rows, and an index for a cache of `budget` bytes.
    pub fn new(budget: usize) -> Self {
        let chunks = Chunks::new(budget);
        let lines_wanted = match chunks.chunk_bytes() {
            0 => 0,
            _ => (budget / BYTES_PER_LINE).next_power_of_two(),
        };
        Rows { lines: Vec::new(), seen: Vec::new(), chunks, waited: 0, lines_wanted }
    }

    /// Bytes held, index included.
    pub fn bytes(&self) -> usize {
        self.chunks.bytes() + self.lines.len() * size_of::<Line>() + self.seen.len() * 2
    }

    /// The row of a key; `hash` is [`crate::key_hash`] of it.
    pub fn get(&self, space: Space, key: &[u8], hash: u64) -> Option<EntryRef<'_>> {
        let hash = row_hash(space, hash);
        let entry = self.find(hash, |row| row.is(space, key))?;
        if entry.get() & USED == 0 {
            entry.set(entry.get() | USED);
        }
        let row = self.chunks.row(place_of(entry.get()));
        Some(EntryRef { key: row.key, seq: row.seq, kind: row.kind, value: row.value })
    }

    /// The index entry of a row with that hash for which `same` holds.
    fn find(&self, hash: u64, same: impl Fn(&Row<'_>) -> bool) -> Option<&Cell<u64>> {
        let line = &self.lines[self.line_of(hash)?];
        let tag = tag_of(hash);
        line.0.iter().find(|entry| {
            let entry = entry.get();
            entry & PLACE != 0
                && (entry & !USED) >> TAG_AT == tag
                && same(&self.chunks.row(place_of(entry)))
        })
    }

    fn line_of(&self, hash: u64) -> Option<usize> {
        Some(hash as usize & self.lines.len().checked_sub(1)?)
    }

    /// First step of looking ahead to [`Rows::get`]: asks for the index.
    pub fn prefetch_line(&self, space: Space, hash: u64) {
        if let Some(line) = self.line_of(row_hash(space, hash)) {
            prefetch(&self.lines[line]);
        }
    }

    /// Second step: asks for the beginning of a row that may be the one, and with it for where its
    /// page is. Returns whether there is one.
    pub fn prefetch_head(&self, space: Space, hash: u64) -> bool {
        let found = self.candidate(space, hash);
        found.into_iter().for_each(|entry| self.chunks.prefetch_head(place_of(entry)));
        found.is_some()
    }

    /// Third step: asks for the whole row that may be the one.
    pub fn prefetch_row(&self, space: Space, hash: u64) {
        if let Some(entry) = self.candidate(space, hash) {
            self.chunks.prefetch(place_of(entry));
        }
    }

    /// The first index entry with the hash's tag.
    fn candidate(&self, space: Space, hash: u64) -> Option<u64> {
        let hash = row_hash(space, hash);
        let tag = tag_of(hash);
        let mut entries = self.lines[self.line_of(hash)?].0.iter().map(Cell::get);
        entries.find(|entry| entry & PLACE != 0 && (entry & !USED) >> TAG_AT == tag)
    }

    /// Takes the row of a key out: a newer version exists from now on.
    pub fn forget(&mut self, space: Space, key: &[u8], hash: u64) {
        if let Some(entry) = self.find(row_hash(space, hash), |row| row.is(space, key)) {
            entry.set(0);
        }
    }

    /// A reader found the newest version of a key, and no row. Returns whether it was asked for
    /// before, so that [`Rows::put`] would be right.
    pub fn wants(&mut self, space: Space, hash: u64, entry: &EntryRef<'_>) -> bool {
        let bytes = Row::bytes_of(entry.key.len(), entry.value.len());
        if entry.kind == EntryKind::Delete
            || self.lines_wanted == 0
            || bytes > self.chunks.chunk_bytes() / CHUNK_SHARE
        {
            return false;
        }
        if self.lines.is_empty() {
            self.lines.resize_with(self.lines_wanted, Line::default);
            self.seen.resize(self.lines_wanted * WAYS, 0);
        }
        let hash = row_hash(space, hash);
        // Neither the bits of the line nor those of the tag alone: both tell keys apart.
        let mark = (hash >> 24) as u16 | 1;
        let last = self.seen.len() - 1;
        std::mem::replace(&mut self.seen[hash as usize & last], mark) == mark
    }

    /// Puts the newest version of a key in. `room` is how many bytes the rows may hold; the
    /// oldest leave when that is not enough.
    pub fn put(&mut self, space: Space, hash: u64, entry: &EntryRef<'_>, room: usize) {
        let (hash, seq, kind) = (row_hash(space, hash), entry.seq, entry.kind);
        let row = Row { hash, space, seq, kind, key: entry.key, value: entry.value };
        if !self.chunks.has_place(row.bytes()) && !self.make_place(room) {
            return;
        }
        let place = self.chunks.push(&row);
        self.index(hash, place);
    }

    /// Begins a chunk, if necessary in the stead of the oldest ones. Returns whether it did.
    fn make_place(&mut self, room: usize) -> bool {
        let more = self.chunks.chunk_bytes();
        if self.bytes() + more > room {
            self.waited += 1;
            if self.waited < PATIENCE * (more / self.chunks.typical().max(1)) as u32 {
                return false;
            }
        }
        self.waited = 0;
        while self.bytes() > room && self.shrink() {}
        let oldest = if self.bytes() + more > room { self.chunks.take_oldest() } else { None };
        if self.bytes() + more > room {
            oldest.into_iter().for_each(|oldest| self.empty(oldest));
            return false;
        }
        self.chunks.open();
        oldest.into_iter().for_each(|oldest| self.empty(oldest));
        true
    }

    /// Names a place in the index, in the stead of another if the line is full.
    fn index(&mut self, hash: u64, place: Place) {
        let Some(line) = self.line_of(hash) else { return };
        let line = &self.lines[line].0;
        let free = line.iter().position(|entry| entry.get() == 0);
        let unused = || line.iter().position(|entry| entry.get() & USED == 0);
        let at = free.or_else(unused).unwrap_or((hash >> 32) as usize % WAYS);
        line[at].set(tag_of(hash) << TAG_AT | (place.0 + 1));
    }

    /// Empties the oldest chunk and gives its memory back. Returns whether there was one.
    pub fn shrink(&mut self) -> bool {
        let oldest = self.chunks.take_oldest();
        oldest.map(|oldest| self.empty(oldest)).is_some()
    }

    /// Rows of a chunk that were used move on while there is place for them, the others leave.
    fn empty(&mut self, oldest: Oldest) {
        let most = self.chunks.chunk_bytes() / MOVING.1 * MOVING.0;
        for (place, row) in oldest.rows() {
            let Some(line) = self.line_of(row.hash) else { continue };
            let named = |entry: &&Cell<u64>| entry.get() & PLACE == place.0 + 1;
            let Some(entry) = self.lines[line].0.iter().find(named) else { continue };
            let used = entry.get() & USED != 0;
            if used && self.chunks.filled() < most && self.chunks.has_place(row.bytes()) {
                let place = self.chunks.push(&row);
                entry.set(tag_of(row.hash) << TAG_AT | (place.0 + 1));
            } else {
                entry.set(0);
            }
        }
        self.chunks.release(oldest);
    }
}

fn place_of(entry: u64) -> Place {
    Place((entry & PLACE) - 1)
}

#[cfg(test)]
mod tests;
