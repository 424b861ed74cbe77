//! The index of a table: for every data block its length and a key that separates it from the
//! next. Held in memory in a few flat arrays; blocks lie back to back, so lengths give offsets.

use super::block::{Damage, HEADER, u32_at};
use crate::prefetch::prefetch_bytes;
use crate::prefix::{Learner, Prefixes, common_prefix};
use std::cell::Cell;
use zerocopy::IntoBytes;

/// Where a data block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    /// File offset.
    pub offset: u64,
    /// Bytes of the frame.
    pub len: usize,
}

impl Handle {
    /// File offset behind the frame.
    pub fn end(self) -> u64 {
        self.offset + self.len as u64
    }
}

/// Collects the index while a table is written.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    /// Frame length and end of the separator in `keys`, both as they are stored.
    blocks: Vec<u8>,
    keys: Vec<u8>,
}

impl IndexBuilder {
    /// Adds a block: `separator` is not before its last key and before the next block's first
    /// (or equal to both).
    pub fn add(&mut self, separator: &[u8], frame_len: usize) {
        self.keys.extend_from_slice(separator);
        self.blocks.extend_from_slice(&(frame_len as u32).to_le_bytes());
        self.blocks.extend_from_slice(&(self.keys.len() as u32).to_le_bytes());
    }

    pub fn blocks(&self) -> u32 {
        (self.blocks.len() / 8) as u32
    }

    /// Bytes of the encoded index without the smallest key.
    pub fn bytes(&self) -> usize {
        4 + self.blocks.len() + self.keys.len()
    }

    /// Appends the encoded index: length of the smallest key, blocks, smallest key, separators.
    pub fn encode(&self, smallest: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&(smallest.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.blocks);
        out.extend_from_slice(smallest);
        out.extend_from_slice(&self.keys);
    }
}

/// One of this many prefixes is in the short list that a search looks through first.
const STRIDE: usize = 16;

/// Bits of a [`Place`]'s `at` that hold padding: less than a page of 4096 bytes.
const PADDING_BITS: u32 = 12;
/// Files end before this offset.
const MOST_BYTES: u64 = 1 << (u64::BITS - PADDING_BITS);

/// A block as the index knows it: everything that finding it needs, side by side. Its frame and
/// padding reach to where the next begins.
#[derive(Debug)]
struct Place {
    /// File offset, and in the lowest bits the bytes of padding behind the frame.
    at: u64,
    /// Where its separator ends in `keys`.
    key_end: u32,
    /// Where the cache had the block last.
    slot: Cell<u32>,
}

impl Place {
    fn offset(&self) -> u64 {
        self.at >> PADDING_BITS
    }

    fn padding(&self) -> u64 {
        self.at & ((1 << PADDING_BITS) - 1)
    }
}

/// The index of an open table.
#[derive(Debug)]
pub(crate) struct Index {
    smallest: Box<[u8]>,
    order: Prefixes,
    /// Every `STRIDE`th of `prefixes`, from the first on.
    tops: Vec<u128>,
    /// The separators as numbers: most of a search needs only these.
    prefixes: Vec<u128>,
    keys: Box<[u8]>,
    /// One per block, and one more for where the blocks end.
    places: Vec<Place>,
}

impl Index {
    /// Reads the index of `count` blocks that fill the file up to `end`; each begins on a multiple
    /// of `align`, which divides a page.
    pub fn decode(payload: &[u8], count: u32, end: u64, align: u64) -> Result<Index, Damage> {
        let cut = "index is cut off";
        let smallest_len = u32_at(payload, 0).ok_or(cut)? as usize;
        let count = count as usize;
        let smallest_at = count.checked_mul(8).and_then(|n| n.checked_add(4)).ok_or(cut)?;
        let keys_at = smallest_at.checked_add(smallest_len).ok_or(cut)?;
        let smallest: Box<[u8]> = payload.get(smallest_at..keys_at).ok_or(cut)?.into();
        let keys: Box<[u8]> = payload.get(keys_at..).ok_or(cut)?.into();

        let mut places: Vec<Place> = Vec::with_capacity(count + 1);
        let place = |offset: u64, padding: u64, key_end| {
            let at = offset << PADDING_BITS | padding;
            Place { at, key_end, slot: Cell::new(u32::MAX) }
        };
        let mut offset = 0;
        for block in payload[4..smallest_at].as_chunks::<8>().0 {
            let (len, key_end) = (u32_at(block, 0).ok_or(cut)?, u32_at(block, 4).ok_or(cut)?);
            if (len as usize) < HEADER || key_end < places.last().map_or(0, |last| last.key_end) {
                return Err("index has an impossible block");
            }
            let padded = u64::from(len).next_multiple_of(align);
            places.push(place(offset, padded - u64::from(len), key_end));
            offset += padded;
            if offset >= MOST_BYTES {
                return Err("index is too long");
            }
        }
        let keys_end = keys.len() as u32;
        if places.last().map(|last| last.key_end) != Some(keys_end) {
            return Err("index keys do not add up");
        }
        if offset != end {
            return Err("index does not cover the data blocks");
        }
        places.push(place(offset, 0, keys_end));
        let (order, tops, prefixes) = (Prefixes::default(), Vec::new(), Vec::new());
        let mut index = Index { smallest, order, tops, prefixes, keys, places };
        index.number();
        if index.smallest() > index.largest() || !index.prefixes.is_sorted() {
            return Err("index keys are out of order");
        }
        Ok(index)
    }

    /// Turns the separators into numbers.
    fn number(&mut self) {
        let mut learner = Learner::default();
        learner.see(&self.smallest);
        (0..self.len()).for_each(|i| learner.see(self.separator(i)));
        self.order = learner.prefixes();
        self.prefixes = (0..self.len()).map(|i| self.order.of(self.separator(i))).collect();
        self.tops = self.prefixes.iter().copied().step_by(STRIDE).collect();
    }

    pub fn smallest(&self) -> &[u8] {
        &self.smallest
    }

    /// The largest key: the last separator is exact.
    pub fn largest(&self) -> &[u8] {
        self.len().checked_sub(1).map_or(&[], |last| self.separator(last))
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.places.len() - 1
    }

    /// The separator after block `i`.
    pub fn separator(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).map_or(0, |before| self.places[before].key_end);
        &self.keys[start as usize..self.places[i].key_end as usize]
    }

    pub fn handle(&self, i: usize) -> Handle {
        let place = &self.places[i];
        let (offset, end) = (place.offset(), self.places[i + 1].offset() - place.padding());
        Handle { offset, len: (end - offset) as usize }
    }

    /// File offset of block `i`.
    pub fn offset(&self, i: usize) -> u64 {
        self.places[i].offset()
    }

    /// The cache's note on where it has block `i`.
    pub fn slot(&self, i: usize) -> &Cell<u32> {
        &self.places[i].slot
    }

    /// The part of the prefixes in which a search for the number ends.
    fn group(&self, prefix: u128) -> std::ops::Range<usize> {
        let end = self.tops.partition_point(|top| *top < prefix);
        let start = end.saturating_sub(1) * STRIDE;
        start..(end * STRIDE).min(self.len())
    }

    /// The first block that has only keys after `key`, or from `key` on if that is not included.
    pub fn behind(&self, key: &[u8], inclusive: bool) -> usize {
        let mut block = self.find(key);
        // Versions of the key may fill further blocks.
        while inclusive && block < self.len() && self.separator(block) == key {
            block += 1;
        }
        (block + 1).min(self.len())
    }

    /// The first block that may hold `key` or a later key; the number of blocks if none does.
    pub fn find(&self, key: &[u8]) -> usize {
        let prefix = self.order.of(key);
        let group = self.group(prefix);
        let mut low = group.start + self.prefixes[group].partition_point(|p| *p < prefix);
        if self.prefixes.get(low) != Some(&prefix) {
            return low;
        }
        let mut high = low + self.prefixes[low..].partition_point(|p| *p == prefix);
        while low < high {
            let middle = (low + high) / 2;
            if self.separator(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Asks for the memory that [`Index::find`] ends in.
    pub fn prefetch(&self, key: &[u8]) {
        let group = self.group(self.order.of(key));
        prefetch_bytes(self.prefixes[group.clone()].as_bytes());
        if let Some(place) = self.places.get(group.start) {
            crate::prefetch::prefetch(place);
        }
    }

    /// Memory held, bytes.
    pub fn held(&self) -> usize {
        self.keys.len()
            + self.smallest.len()
            + self.order.held()
            + (self.prefixes.capacity() + self.tops.capacity()) * size_of::<u128>()
            + self.places.capacity() * size_of::<Place>()
    }
}

/// A short key that is not before `last` and, where possible, before `next` (`last <= next`).
pub(super) fn separator<'a>(last: &'a [u8], next: &'a [u8]) -> &'a [u8] {
    // `next` cut one byte behind what both share is beyond `last`, and before `next` if that
    // goes on.
    let len = common_prefix(last, next) + 1;
    if len < next.len() && len < last.len() { &next[..len] } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::PAGE;
    use proptest::prelude::*;

    fn build(keys: &[Vec<u8>], lens: &[usize], align: usize) -> (Vec<u8>, u64) {
        let mut builder = IndexBuilder::default();
        for (key, len) in keys.iter().zip(lens) {
            builder.add(key, *len);
        }
        let (mut out, smallest) = (Vec::new(), keys[0].clone());
        builder.encode(&smallest, &mut out);
        assert_eq!(out.len(), builder.bytes() + smallest.len());
        (out, lens.iter().map(|len| len.next_multiple_of(align) as u64).sum())
    }

    proptest! {
        #[test]
        fn finds_the_first_block_that_may_hold_a_key(
            mut keys in prop::collection::vec(prop::collection::vec(0u8..3, 0..14), 1..50),
            common in prop::collection::vec(0u8..3, 0..4),
            probes in prop::collection::vec(prop::collection::vec(0u8..3, 0..14), 50),
            len in HEADER..20_000usize, padded in any::<bool>(),
        ) {
            keys.iter_mut().for_each(|key| { key.splice(0..0, common.iter().copied()); });
            keys.sort();
            let lens: Vec<usize> = (0..keys.len()).map(|i| len + i * 1000).collect();
            let align = if padded { PAGE } else { 1 };
            let (bytes, end) = build(&keys, &lens, align);
            let index = Index::decode(&bytes, keys.len() as u32, end, align as u64).unwrap();
            prop_assert_eq!(index.largest(), keys.last().unwrap().as_slice());
            let mut offset = 0;
            for (i, len) in lens.iter().enumerate() {
                prop_assert_eq!(index.handle(i), Handle { offset, len: *len });
                prop_assert_eq!(index.offset(i), offset);
                offset = index.handle(i).end().next_multiple_of(align as u64);
            }
            let longer = probes.iter().map(|p| [common.as_slice(), p.as_slice()].concat());
            for probe in probes.iter().cloned().chain(longer.collect::<Vec<_>>()) {
                prop_assert_eq!(index.find(&probe), keys.partition_point(|k| *k < probe));
            }
        }

        #[test]
        fn separators_separate(a in prop::collection::vec(0u8..3, 0..8),
                               b in prop::collection::vec(0u8..3, 0..8)) {
            let (last, next) = if a <= b { (&a, &b) } else { (&b, &a) };
            let s = separator(last, next);
            prop_assert!(last.as_slice() <= s && s.len() <= last.len());
            prop_assert!(s < next.as_slice() || last == next);
        }

        #[test]
        fn damaged_indexes_are_refused_or_read_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100), count in 0u32..5, pages in 0u64..9)
        {
            if let Ok(index) = Index::decode(&bytes, count, pages * PAGE as u64, PAGE as u64) {
                index.find(b"abc");
            }
        }

        #[test]
        fn damaged_lengths_are_noticed(lens in prop::collection::vec(HEADER..9000, 1..20),
                                       at in any::<prop::sample::Index>(), flip in 1u32..) {
            let keys: Vec<Vec<u8>> = (0..lens.len() as u8).map(|n| vec![n]).collect();
            let (mut bytes, end) = build(&keys, &lens, 1);
            let at = 4 + at.index(lens.len()) * 8;
            let wrong = u32_at(&bytes, at).unwrap() ^ flip;
            bytes[at..at + 4].copy_from_slice(&wrong.to_le_bytes());
            prop_assert!(Index::decode(&bytes, lens.len() as u32, end, 1).is_err());
        }
    }

    #[test]
    fn a_wrong_count_or_end_is_refused() {
        let (bytes, end) = build(&[b"a".to_vec(), b"b".to_vec()], &[100, 100], 1);
        assert!(Index::decode(&bytes, 2, end, 1).is_ok());
        assert!(Index::decode(&bytes, 2, end + 1, 1).is_err());
        assert!(Index::decode(&bytes, 2, end, PAGE as u64).is_err());
        assert!(Index::decode(&bytes, 1, end, 1).is_err());
        assert!(Index::decode(&bytes, 0, 0, 1).is_err());
        assert!(Index::decode(&bytes, u32::MAX, end, 1).is_err());
        assert!(Index::decode(&bytes[..bytes.len() - 1], 2, end, 1).is_err());
    }
}
