//! The last page of a table file: where everything is and what the table holds.

use super::TableInfo;
use super::block::{Damage, checksum, u32_at, u64_at};
use super::index::Index;
use crate::env::PAGE;
use crate::{Seq, TableUid};

/// The newest format this release writes and reads.
pub(super) const VERSION: u32 = 4;
/// The oldest that can be read: without compression, without `raw_bytes` and prefixes.
const OLDEST: u32 = 1;
/// The first whose frames follow each other byte by byte; before, each began on a page.
const PACKED: u32 = 4;
pub(super) const MAGIC: [u8; 8] = *b"CORTABLE";
/// Bytes in use; the rest of the page is zero.
const USED: usize = 120;
/// The same in versions 1 and 2.
const USED_OLDER: [usize; 2] = [96, 104];

/// The footer's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    /// Format of the file; a new one gets [`VERSION`].
    pub version: u32,
    pub uid: TableUid,
    pub file_bytes: u64,
    pub index_offset: u64,
    pub index_len: u32,
    pub filter_offset: u64,
    pub filter_len: u32,
    pub blocks: u32,
    pub entries: u64,
    pub deletes: u64,
    pub min_seq: Seq,
    pub max_seq: Seq,
    /// Bytes of all data frames before compression, without padding.
    pub raw_bytes: u64,
    /// Length of the prefixes of keys that the filter knows, bytes; zero: none.
    pub prefix_bytes: u32,
    /// How many prefixes these are.
    pub prefixes: u64,
}

/// Why a footer cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadFooter {
    Damaged(Damage),
    Version(u32),
}

impl From<Damage> for BadFooter {
    fn from(what: Damage) -> Self {
        BadFooter::Damaged(what)
    }
}

impl Footer {
    /// File offset of the footer itself.
    pub fn offset(&self) -> u64 {
        self.file_bytes - PAGE as u64
    }

    /// What the frames' places are multiples of.
    pub fn align(&self) -> u64 {
        if self.version < PACKED { PAGE as u64 } else { 1 }
    }

    /// Where the filter's frame ends.
    pub fn filter_end(&self) -> u64 {
        self.filter_offset + u64::from(self.filter_len)
    }

    pub fn encode(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&self.version.to_le_bytes());
        let words = [
            self.uid.0,
            self.file_bytes,
            self.index_offset,
            self.filter_offset,
            u64::from(self.index_len) | u64::from(self.filter_len) << 32,
            u64::from(self.blocks),
            self.entries,
            self.deletes,
            self.min_seq.0,
            self.max_seq.0,
            self.raw_bytes,
            u64::from(self.prefix_bytes),
            self.prefixes,
        ];
        for (i, word) in words.iter().enumerate() {
            page[16 + i * 8..24 + i * 8].copy_from_slice(&word.to_le_bytes());
        }
        let crc = checksum(self.uid, self.offset(), &[&page[..12], &page[16..]]);
        page[12..16].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// What the table holds, together with its index.
    pub fn info(&self, index: &Index) -> TableInfo {
        TableInfo {
            uid: self.uid,
            file_bytes: self.file_bytes,
            smallest: index.smallest().into(),
            largest: index.largest().into(),
            entries: self.entries,
            deletes: self.deletes,
            min_seq: self.min_seq,
            max_seq: self.max_seq,
            data_bytes: self.index_offset,
            raw_bytes: self.raw_bytes,
            filter_prefix_bytes: self.prefix_bytes,
            filter_prefixes: self.prefixes,
        }
    }

    /// Reads the last page of a file of `file_bytes`.
    pub fn decode(page: &[u8], file_bytes: u64) -> Result<Footer, BadFooter> {
        if page.len() != PAGE || page[..8] != MAGIC {
            return Err("not a table file, or cut off: no footer".into());
        }
        let u32_at = |at| u32_at(page, at).ok_or("footer is cut off");
        let u64_at = |at| u64_at(page, at).ok_or("footer is cut off");
        let uid = TableUid(u64_at(16)?);
        // These lie where they do in every version: damage is not taken for a newer format.
        let end = file_bytes.saturating_sub(PAGE as u64);
        if u32_at(12)? != checksum(uid, end, &[&page[..12], &page[16..]]) {
            return Err("footer checksum mismatch".into());
        }
        let version = u32_at(8)?;
        if version > VERSION {
            return Err(BadFooter::Version(version));
        }
        let footer = Footer {
            version,
            uid,
            file_bytes: u64_at(24)?,
            index_offset: u64_at(32)?,
            filter_offset: u64_at(40)?,
            index_len: u32_at(48)?,
            filter_len: u32_at(52)?,
            blocks: u32_at(56)?,
            entries: u64_at(64)?,
            deletes: u64_at(72)?,
            min_seq: Seq(u64_at(80)?),
            max_seq: Seq(u64_at(88)?),
            raw_bytes: if version == 1 { u64_at(32)? } else { u64_at(96)? },
            // Zero in older versions, as all that was not in use.
            prefix_bytes: u32_at(104)?,
            prefixes: u64_at(112)?,
        };
        if footer.file_bytes != file_bytes {
            return Err("file length differs from the footer".into());
        }
        let used = USED_OLDER.get(version.wrapping_sub(OLDEST) as usize).unwrap_or(&USED);
        let unused = page[108..112].iter().chain(&page[*used..]);
        if version < OLDEST || unused.copied().any(|b| b != 0) {
            return Err("footer has unknown fields".into());
        }
        footer.check()?;
        Ok(footer)
    }

    /// Data, index, filter, footer must follow each other without gap or overlap; the footer
    /// begins on the next page.
    fn check(&self) -> Result<(), Damage> {
        let after = |offset: u64, len: u32, align: u64| {
            offset.checked_add(u64::from(len))?.checked_next_multiple_of(align)
        };
        let in_order = self.index_offset.is_multiple_of(self.align())
            && after(self.index_offset, self.index_len, self.align()) == Some(self.filter_offset)
            && after(self.filter_offset, self.filter_len, PAGE as u64) == Some(self.offset());
        let filled = self.blocks > 0 && self.entries >= u64::from(self.blocks);
        let prefixed =
            self.prefixes <= self.entries && (self.prefix_bytes > 0 || self.prefixes == 0);
        if in_order
            && filled
            && prefixed
            && self.deletes <= self.entries
            && self.min_seq <= self.max_seq
        {
            Ok(())
        } else {
            Err("footer contradicts itself")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        Footer {
            version: VERSION,
            uid: TableUid(77),
            file_bytes: 5 * 4096,
            index_offset: 2 * 4096 - 7,
            index_len: 100,
            filter_offset: 2 * 4096 + 93,
            filter_len: 4096,
            blocks: 2,
            entries: 10,
            deletes: 3,
            min_seq: Seq(5),
            max_seq: Seq(14),
            raw_bytes: 9000,
            prefix_bytes: 7,
            prefixes: 10,
        }
    }

    #[test]
    fn survives_its_encoding_and_notices_every_flip() {
        let page = footer().encode();
        assert_eq!(Footer::decode(&page, 5 * 4096), Ok(footer()));
        for at in 0..PAGE {
            let mut flipped = page;
            flipped[at] ^= 1;
            assert!(Footer::decode(&flipped, 5 * 4096).is_err(), "flip at {at} unnoticed");
        }
        assert!(Footer::decode(&page, 6 * 4096).is_err());
        assert!(Footer::decode(&page[1..], 5 * 4096).is_err());
    }

    #[test]
    fn names_a_newer_version_when_it_is_one_and_no_damage() {
        let mut page = footer().encode();
        page[8] = VERSION as u8 + 1;
        let damaged = Err("footer checksum mismatch".into());
        assert_eq!(Footer::decode(&page, 5 * 4096), damaged);
        let crc = checksum(footer().uid, footer().offset(), &[&page[..12], &page[16..]]);
        page[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Footer::decode(&page, 5 * 4096), Err(BadFooter::Version(VERSION + 1)));
    }

    #[test]
    fn refuses_gaps_and_overlaps() {
        for wrong in [
            Footer { index_offset: 4096, ..footer() },
            Footer { filter_offset: 2 * 4096 + 92, ..footer() },
            Footer { filter_len: 8100, ..footer() },
            Footer { filter_len: 4003, ..footer() },
            Footer { index_offset: u64::MAX - 50, ..footer() },
            Footer { filter_offset: u64::MAX - 5, index_offset: u64::MAX - 105, ..footer() },
            Footer { version: 3, ..footer() },
            Footer { blocks: 0, ..footer() },
            Footer { deletes: 11, ..footer() },
            Footer { min_seq: Seq(15), ..footer() },
            Footer { prefixes: 11, ..footer() },
            Footer { prefix_bytes: 0, ..footer() },
        ] {
            assert!(Footer::decode(&wrong.encode(), 5 * 4096).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn frames_of_earlier_versions_begin_on_pages() {
        let padded = Footer { index_offset: 2 * 4096, filter_offset: 3 * 4096, ..footer() };
        for version in [3, VERSION] {
            let read = Footer::decode(&Footer { version, ..padded }.encode(), 5 * 4096);
            assert_eq!(read.is_ok(), version == 3, "version {version}");
        }
    }
}
