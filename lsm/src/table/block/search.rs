//! Point search in a data block, without putting keys together and without allocation.

use super::entry::{RawEntry, decode};
use super::{Block, Damage};
use crate::prefix::common_prefix;
use crate::{EntryKind, Seq};
use std::cmp::Ordering;

/// What a block knows about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// The newest version that may be seen.
    Found { seq: Seq, kind: EntryKind, value: (u32, u32) },
    /// No version that may be seen, here or in a later block.
    Absent,
    /// Everything here is before the key or too new; a later block may know more.
    Beyond,
}

impl Block {
    /// Looks for the newest version of `key` with a sequence number of at most `at`.
    pub fn search(&self, key: &[u8], at: Seq) -> Result<Search, Damage> {
        self.search_from(self.restart_before(key, at)?, key, at)
    }

    /// [`Block::search`] from a restart that is not behind the first version of `key`.
    pub(super) fn search_from(
        &self,
        restart: usize,
        key: &[u8],
        at: Seq,
    ) -> Result<Search, Damage> {
        let entries = self.entries();
        let mut next = restart;
        // How much of `key` the entry before has; that entry sorts before (key, at).
        let mut matched = 0;
        while next < entries.len() {
            let entry = decode(entries, next)?;
            next = entry.next;
            match compare(&entry, key, &mut matched)? {
                Ordering::Less => {}
                Ordering::Equal if entry.seq > at => {}
                Ordering::Equal => {
                    let RawEntry { seq, kind, value, .. } = entry;
                    return Ok(Search::Found { seq, kind, value });
                }
                Ordering::Greater => return Ok(Search::Absent),
            }
        }
        Ok(Search::Beyond)
    }

    /// Offset of the last restart whose entry sorts before (key, at), or of the first restart.
    pub(super) fn restart_before(&self, key: &[u8], at: Seq) -> Result<usize, Damage> {
        let before = self.restarts_while(|entry| match entry.suffix.cmp(key) {
            Ordering::Less => true,
            Ordering::Equal => entry.seq > at,
            Ordering::Greater => false,
        })?;
        Ok(self.restart(before.saturating_sub(1)))
    }

    /// Number of restarts before the first whose entry, with its whole key, is not `before`.
    #[inline]
    pub(super) fn restarts_while(
        &self,
        before: impl Fn(&RawEntry<'_>) -> bool,
    ) -> Result<usize, Damage> {
        let entries = self.entries();
        let (mut low, mut high) = (0, self.restarts as usize);
        while low < high {
            let middle = (low + high) / 2;
            let entry = decode(entries, self.restart(middle))?;
            if entry.shared != 0 {
                return Err("block has a restart without its whole key");
            }
            if before(&entry) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// Compares an entry's key with `key`, given that the key before has `matched` bytes of `key` in
/// common and is not greater.
fn compare(entry: &RawEntry<'_>, key: &[u8], matched: &mut usize) -> Result<Ordering, Damage> {
    if entry.shared == 0 {
        // A restart carries its whole key, whatever it shares with the key before.
        *matched = 0;
    }
    match entry.shared.cmp(matched) {
        // Differs from `key` where the key before did, and so in the same direction.
        Ordering::Greater => return Ok(Ordering::Less),
        // Grew beyond the key before within the matched part: beyond `key`.
        Ordering::Less => return Ok(Ordering::Greater),
        Ordering::Equal => {}
    }
    let rest = key.get(*matched..).ok_or("block has a malformed entry")?;
    let common = common_prefix(entry.suffix, rest);
    *matched += common;
    Ok(entry.suffix[common..].cmp(&rest[common..]))
}
