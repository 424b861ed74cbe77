//! Backward reading of a data block: entries can only be decoded forwards, so one stretch between
//! two restarts is decoded at a time and then given out from its end.

use super::entry::decode;
use super::{Block, Damage};
use crate::{EntryKind, EntryRef, Seq};
use std::ops::Bound;

/// Most entries without a restart that are read: the writer sets one every 16. Bounds the memory
/// that keys with much in common can take.
const STRETCH: usize = 256;

/// A decoded entry; its key ends at `key_end` in the keys of its stretch, where the next begins.
#[derive(Debug)]
struct Decoded {
    key_end: usize,
    seq: Seq,
    kind: EntryKind,
    value: (u32, u32),
}

/// A place in a block that is read backwards, with the entry there.
#[derive(Debug, Default)]
pub(crate) struct BackWalk {
    block: Option<Block>,
    /// Restarts whose stretches are still to be decoded.
    restarts: usize,
    /// What is left of the stretch; stands on its last entry.
    stretch: Vec<Decoded>,
    keys: Vec<u8>,
}

impl BackWalk {
    /// Stands on the last entry of `block` within `bound`; false if there is none.
    pub fn seek(&mut self, block: Block, bound: Bound<&[u8]>) -> Result<bool, Damage> {
        self.clear();
        self.restarts = match bound {
            Bound::Unbounded => block.restarts as usize,
            Bound::Included(key) => block.restarts_while(|entry| entry.suffix <= key)?,
            Bound::Excluded(key) => block.restarts_while(|entry| entry.suffix < key)?,
        };
        self.block = Some(block);
        if !self.decode_stretch()? {
            return Ok(false);
        }
        let beyond = |found: &[u8]| match bound {
            Bound::Unbounded => false,
            Bound::Included(key) => found > key,
            Bound::Excluded(key) => found >= key,
        };
        while self.entry().is_some_and(|entry| beyond(entry.key)) {
            self.advance()?;
        }
        Ok(self.entry().is_some())
    }

    /// Steps to the entry before; false at the beginning of the block.
    pub fn advance(&mut self) -> Result<bool, Damage> {
        if self.stretch.pop().is_none() {
            return Ok(false);
        }
        if self.stretch.is_empty() {
            return self.decode_stretch();
        }
        Ok(true)
    }

    /// Leaves the block.
    pub fn clear(&mut self) {
        self.block = None;
        self.stretch.clear();
    }

    /// The entry stood on.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        let Decoded { key_end, seq, kind, value } = *self.stretch.last()?;
        let before = self.stretch.len().checked_sub(2).map_or(0, |i| self.stretch[i].key_end);
        let value = self.block.as_ref()?.slice(value);
        Some(EntryRef { key: &self.keys[before..key_end], seq, kind, value })
    }

    /// Decodes the next stretch that has entries; false at the beginning of the block.
    fn decode_stretch(&mut self) -> Result<bool, Damage> {
        let Some(block) = &self.block else { return Ok(false) };
        while self.stretch.is_empty() {
            let Some(restart) = self.restarts.checked_sub(1) else {
                self.block = None;
                return Ok(false);
            };
            let all = block.restarts as usize;
            let end = if restart + 1 < all { block.restart(restart + 1) } else { usize::MAX };
            let end = end.min(block.entries as usize);
            self.restarts = restart;
            self.keys.clear();
            let (mut at, mut key) = (block.restart(restart), 0..0);
            while at < end {
                let entry = decode(block.entries(), at)?;
                if entry.shared > key.len() || self.stretch.len() == STRETCH {
                    return Err("block has a malformed entry");
                }
                let start = self.keys.len();
                self.keys.extend_from_within(key.start..key.start + entry.shared);
                self.keys.extend_from_slice(entry.suffix);
                key = start..self.keys.len();
                let (seq, kind, value) = (entry.seq, entry.kind, entry.value);
                self.stretch.push(Decoded { key_end: key.end, seq, kind, value });
                at = entry.next;
            }
        }
        Ok(true)
    }
}
