//! Builds one data block after another.

use super::entry::{MAX_OVERHEAD, encode};
use super::{FrameKind, HEADER, seal};
use crate::prefix::common_prefix;
use crate::table::codec::{Codec, Packer};
use crate::{EntryRef, TableUid};

/// A restart point (an entry with its whole key) is set after this many entries ...
const RESTART_ENTRIES: u32 = 16;
/// ... or after this many bytes, so that point reads jump over large values.
const RESTART_BYTES: usize = 1024;

/// Collects entries into the frame of a data block.
#[derive(Debug)]
pub(in crate::table) struct BlockBuilder {
    frame: Vec<u8>,
    restarts: Vec<u32>,
    last_key: Vec<u8>,
    count: u32,
    /// Entries since the last restart.
    since: u32,
}

impl BlockBuilder {
    pub fn new() -> Self {
        let (restarts, last_key) = (Vec::new(), Vec::new());
        BlockBuilder { frame: vec![0; HEADER], restarts, last_key, count: 0, since: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes collected so far.
    pub fn bytes(&self) -> usize {
        self.frame.len() + self.restarts.len() * 4
    }

    /// Upper bound of the frame's size were this entry added.
    pub fn size_with(&self, entry: EntryRef<'_>) -> usize {
        self.bytes() + 4 + MAX_OVERHEAD + entry.key.len() + entry.value.len()
    }

    /// Adds an entry. The caller keeps the order.
    pub fn add(&mut self, entry: EntryRef<'_>) {
        let at = self.frame.len() - HEADER;
        let far = |last: &u32| at - *last as usize >= RESTART_BYTES;
        let restart = self.since == RESTART_ENTRIES || self.restarts.last().is_none_or(far);
        let shared = if restart {
            self.restarts.push(at as u32);
            self.since = 0;
            0
        } else {
            common_prefix(&self.last_key, entry.key)
        };
        encode(&mut self.frame, shared, entry);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&entry.key[shared..]);
        self.count += 1;
        self.since += 1;
    }

    /// The finished frame for this place, packed where that pays. Call
    /// [`BlockBuilder::clear`] afterwards.
    pub fn finish<'a>(
        &'a mut self,
        packer: &'a mut Packer,
        uid: TableUid,
        offset: u64,
    ) -> &'a [u8] {
        for restart in &self.restarts {
            self.frame.extend_from_slice(&restart.to_le_bytes());
        }
        let counts = (self.count, self.restarts.len() as u32);
        let codec = packer.codec();
        if let Some(frame) = packer.pack(HEADER, &self.frame[HEADER..]) {
            seal(frame, FrameKind::Data, codec, counts, uid, offset);
            return frame;
        }
        seal(&mut self.frame, FrameKind::Data, Codec::None, counts, uid, offset);
        &self.frame
    }

    /// Starts the next block; keeps the memory.
    pub fn clear(&mut self) {
        self.frame.truncate(HEADER);
        self.restarts.clear();
        self.last_key.clear();
        (self.count, self.since) = (0, 0);
    }
}
