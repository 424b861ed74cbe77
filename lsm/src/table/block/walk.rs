//! Forward reading of a data block: puts keys together in a buffer that is kept.

use super::entry::decode;
use super::{Block, Damage};
use crate::{EntryKind, EntryRef, Seq};

/// A place in a block, with the entry there.
#[derive(Debug, Default)]
pub(crate) struct BlockWalk {
    block: Option<Block>,
    key: Vec<u8>,
    current: Option<(Seq, EntryKind, (u32, u32))>,
    next: usize,
}

impl BlockWalk {
    /// Stands on the first entry of `block`.
    pub fn first(&mut self, block: Block) -> Result<bool, Damage> {
        self.block = Some(block);
        self.next = 0;
        self.key.clear();
        self.advance()
    }

    /// Stands on the first entry of `block` with a key not before `key`; false if there is none.
    pub fn seek(&mut self, block: Block, key: &[u8]) -> Result<bool, Damage> {
        self.next = block.restart_before(key, Seq(u64::MAX))?;
        self.block = Some(block);
        self.key.clear();
        while self.advance()? {
            if self.key.as_slice() >= key {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Steps to the next entry; false at the end of the block.
    pub fn advance(&mut self) -> Result<bool, Damage> {
        self.current = None;
        let Some(block) = &self.block else { return Ok(false) };
        if self.next >= block.entries as usize {
            self.block = None;
            return Ok(false);
        }
        let entry = decode(block.entries(), self.next)?;
        if entry.shared > self.key.len() {
            return Err("block has a malformed entry");
        }
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        self.next = entry.next;
        self.current = Some((entry.seq, entry.kind, entry.value));
        Ok(true)
    }

    /// Leaves the block.
    pub fn clear(&mut self) {
        (self.block, self.current) = (None, None);
    }

    /// The entry stood on.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        let (seq, kind, value) = self.current?;
        let value = self.block.as_ref()?.slice(value);
        Some(EntryRef { key: &self.key, seq, kind, value })
    }
}
