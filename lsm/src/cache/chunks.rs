//! Memory for rows: chunks that are filled one after the other and emptied as a whole.
//!
//! Owns how a row lies in memory; what is worth keeping is for [`super::rows`].

use super::rows::Space;
use crate::prefetch::{prefetch, prefetch_bytes};
use crate::{EntryKind, Seq};
use std::collections::VecDeque;

/// Bytes of a chunk at most: emptying one must not be felt.
const CHUNK_BYTES: usize = 128 << 10;
/// A budget has at least so many chunks, or none.
const CHUNKS: usize = 16;
/// A smaller chunk is not worth having.
const SMALLEST_CHUNK: usize = 4 << 10;
/// Rows begin at multiples of this.
const ALIGN: usize = 8;
/// Hash, sequence number, space, two lengths, kind.
const HEADER: usize = 32;

/// Where a row begins: chunk and offset, in units of [`ALIGN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub u64);

/// The newest version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// What it goes by in the index.
    pub hash: u64,
    pub space: Space,
    pub seq: Seq,
    pub kind: EntryKind,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl Row<'_> {
    /// Bytes that a row takes.
    pub fn bytes_of(key: usize, value: usize) -> usize {
        (HEADER + key + value).next_multiple_of(ALIGN)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        Self::bytes_of(self.key.len(), self.value.len())
    }

    /// Whether it is the row of this key.
    pub fn is(&self, space: Space, key: &[u8]) -> bool {
        self.space == space && self.key == key
    }
}

/// A chunk that was taken out to be emptied.
pub(super) struct Oldest {
    slot: usize,
    first: u64,
    bytes: Vec<u8>,
}

impl Oldest {
    /// Its rows with their places, in order.
    pub fn rows(&self) -> impl Iterator<Item = (Place, Row<'_>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == self.bytes.len() {
                return None;
            }
            let (place, row) = (Place(self.first + (at / ALIGN) as u64), decode(&self.bytes, at));
            at += row.bytes();
            Some((place, row))
        })
    }
}

/// All chunks. See the module.
#[derive(Debug)]
pub(super) struct Chunks {
    /// By the number in a place; an empty vector where there is none.
    slots: Vec<Vec<u8>>,
    free: Vec<usize>,
    /// Chunks with rows, the one that is being filled last.
    order: VecDeque<usize>,
    chunk_bytes: usize,
    /// Size of the last row: what the next one probably has, too.
    typical: usize,
}

impl Chunks {
    /// No chunks yet, of a size that suits a cache of `budget` bytes.
    pub fn new(budget: usize) -> Self {
        let fitting = (budget / CHUNKS).min(CHUNK_BYTES) & !(ALIGN - 1);
        let chunk_bytes = if fitting < SMALLEST_CHUNK { 0 } else { fitting };
        let (slots, free, order) = (Vec::new(), Vec::new(), VecDeque::new());
        Chunks { slots, free, order, chunk_bytes, typical: 0 }
    }

    /// Size of one chunk; zero where the budget is too small for any.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Size of the row that was put in last.
    pub fn typical(&self) -> usize {
        self.typical
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.order.len() * self.chunk_bytes
    }

    /// Whether a row of so many bytes fits the chunk that is being filled.
    pub fn has_place(&self, bytes: usize) -> bool {
        self.order.back().is_some_and(|slot| self.slots[*slot].len() + bytes <= self.chunk_bytes)
    }

    /// Bytes in the chunk that is being filled.
    pub fn filled(&self) -> usize {
        self.order.back().map_or(0, |slot| self.slots[*slot].len())
    }

    /// Begins a chunk.
    pub fn open(&mut self) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Vec::new());
            self.slots.len() - 1
        });
        self.slots[slot].reserve_exact(self.chunk_bytes);
        self.order.push_back(slot);
    }

    /// Adds a row for which [`Chunks::has_place`] holds.
    pub fn push(&mut self, row: &Row<'_>) -> Place {
        let bytes = row.bytes();
        assert!(self.has_place(bytes), "a chunk must be opened first");
        let slot = self.order[self.order.len() - 1];
        let chunk = &mut self.slots[slot];
        let at = chunk.len();
        chunk.extend_from_slice(&row.hash.to_le_bytes());
        chunk.extend_from_slice(&row.seq.0.to_le_bytes());
        chunk.extend_from_slice(&row.space.0.to_le_bytes());
        chunk.extend_from_slice(&(row.key.len() as u32).to_le_bytes());
        chunk.extend_from_slice(&(row.value.len() as u32).to_le_bytes());
        chunk.extend_from_slice(&u32::from(row.kind as u8).to_le_bytes());
        chunk.extend_from_slice(row.key);
        chunk.extend_from_slice(row.value);
        chunk.resize(at + bytes, 0);
        self.typical = bytes;
        Place(self.first_of(slot) + (at / ALIGN) as u64)
    }

    /// The row at a place that [`Chunks::push`] gave.
    pub fn row(&self, place: Place) -> Row<'_> {
        let (slot, at) = self.split(place);
        decode(&self.slots[slot], at)
    }

    /// Asks for the beginning of the row at a place.
    pub fn prefetch_head(&self, place: Place) {
        let (slot, at) = self.split(place);
        prefetch(&self.slots[slot][at]);
    }

    /// Asks for the memory of the row at a place.
    pub fn prefetch(&self, place: Place) {
        let (slot, at) = self.split(place);
        let chunk = &self.slots[slot];
        prefetch_bytes(&chunk[at..chunk.len().min(at + self.typical)]);
    }

    /// Takes the oldest chunk out. Its places are free again after [`Chunks::release`].
    pub fn take_oldest(&mut self) -> Option<Oldest> {
        let slot = self.order.pop_front()?;
        let bytes = std::mem::take(&mut self.slots[slot]);
        Some(Oldest { slot, first: self.first_of(slot), bytes })
    }

    /// Gives the places of an emptied chunk back.
    pub fn release(&mut self, oldest: Oldest) {
        self.free.push(oldest.slot);
    }

    fn first_of(&self, slot: usize) -> u64 {
        (slot * (self.chunk_bytes / ALIGN)) as u64
    }

    fn split(&self, place: Place) -> (usize, usize) {
        let units = (self.chunk_bytes / ALIGN) as u64;
        ((place.0 / units) as usize, (place.0 % units) as usize * ALIGN)
    }
}

/// The row that [`Chunks::push`] wrote at `at`.
fn decode(chunk: &[u8], at: usize) -> Row<'_> {
    let long = |from: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&chunk[at + from..at + from + 8]);
        u64::from_le_bytes(bytes)
    };
    let (lengths, kind) = (long(20), chunk[at + 28]);
    let key_end = at + HEADER + lengths as u32 as usize;
    let value_end = key_end + (lengths >> 32) as usize;
    Row {
        hash: long(0),
        seq: Seq(long(8)),
        space: Space(long(16) as u32),
        // A row is put in by this program alone and only from an entry.
        kind: EntryKind::from_byte(kind).unwrap_or(EntryKind::Delete),
        key: &chunk[at + HEADER..key_end],
        value: &chunk[key_end..value_end],
    }
}
