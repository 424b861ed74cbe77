//! A small hash index of one block, for blocks that are looked into again and again.
//!
//! A point search compares keys in every second restart on its way; with large values each is on
//! another cache line. The hints lead straight to the entry. They are made from the block in
//! memory and exist nowhere else.

use super::search::Search;
use super::{Block, Damage, entry::decode};
use crate::prefetch::prefetch_bytes;
use crate::{Seq, key_hash};
use zerocopy::IntoBytes;

/// Blocks with more entries have none: there a search is short beside what the hints would hold.
const MOST_ENTRIES: usize = 64;
/// Restarts beyond this offset cannot be named.
const MOST_BYTES: usize = 1 << 16;

/// Bytes of an entry that are asked for in advance: head, key and a common size of value.
const ENTRY_BYTES: usize = 1152;

/// Where the newest version of each key is: 16 bits of its hash, then the offset of the restart
/// to begin at. Empty for a block without hints.
#[derive(Debug, Default)]
pub(crate) struct Hints(Box<[[u16; 2]]>);

fn tag(hash: u64) -> u16 {
    // Other bits of the hash choose filter lines and memtable slots.
    (hash >> 16) as u16
}

impl Hints {
    /// Most bytes that the hints of a block hold.
    pub fn most_bytes(block: &Block) -> usize {
        if Self::suits(block) { block.count as usize * size_of::<[u16; 2]>() } else { 0 }
    }

    fn suits(block: &Block) -> bool {
        block.count as usize <= MOST_ENTRIES && block.entries as usize <= MOST_BYTES
    }

    /// The hints of a block; none if it does not suit or is malformed, which the search will say.
    pub fn of(block: &Block) -> Hints {
        if !Self::suits(block) {
            return Hints::default();
        }
        Hints(Self::collect(block).unwrap_or_default())
    }

    fn collect(block: &Block) -> Result<Box<[[u16; 2]]>, Damage> {
        let (entries, mut hints) = (block.entries(), Vec::with_capacity(block.count as usize));
        let (mut key, mut before): (Vec<u8>, Vec<u8>) = Default::default();
        let (mut at, mut restart) = (0, 0);
        while at < entries.len() {
            let entry = decode(entries, at)?;
            if entry.shared == 0 {
                restart = at;
            }
            std::mem::swap(&mut key, &mut before);
            key.clear();
            key.extend(before.get(..entry.shared).ok_or("block has a malformed entry")?);
            key.extend(entry.suffix);
            if at == 0 || key != before {
                hints.push([tag(key_hash(&key)), restart as u16]);
            }
            at = entry.next;
        }
        Ok(hints.into())
    }

    fn find(&self, hash: u64) -> Option<&[u16; 2]> {
        self.0.iter().find(|hint| hint[0] == tag(hash))
    }

    /// Asks for the memory that [`Hints::search`] looks at first.
    pub fn prefetch(&self) {
        prefetch_bytes(self.0.as_bytes());
    }

    /// Asks for the entry that a search for a key of this hash finds, and for the first part of
    /// its value.
    pub fn prefetch_entry(&self, block: &Block, hash: u64) {
        if let Some([_, restart]) = self.find(hash) {
            let entries = block.entries();
            let from = usize::from(*restart);
            prefetch_bytes(&entries[from..entries.len().min(from + ENTRY_BYTES)]);
        }
    }

    /// [`Block::search`] that begins at the right place. `hash` is that of the key.
    pub fn search(&self, block: &Block, key: &[u8], hash: u64, at: Seq) -> Result<Search, Damage> {
        if self.0.is_empty() {
            return block.search(key, at);
        }
        match self.find(hash) {
            // A later block does not have it either: if a key ends here and goes on there, it is
            // among the hints.
            None => Ok(Search::Absent),
            Some([_, restart]) => match block.search_from(usize::from(*restart), key, at)? {
                found @ Search::Found { .. } => Ok(found),
                // Another key with the same tag, or versions that are all too new.
                Search::Absent | Search::Beyond => block.search(key, at),
            },
        }
    }
}
