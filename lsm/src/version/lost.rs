//! Key ranges whose newest values may be gone, because a block that held them is damaged or the disk
//! does not give it.
//!
//! Owns the rule that keeps damage from becoming a wrong answer: an entry found for such a key
//! counts only if it is newer than everything the damaged block can have held. Marks are in the
//! manifest and outlive the table: compaction carries over what is readable and drops the rest.

use super::edit::TableMeta;
use crate::{Error, KeyspaceId, Result, Seq, TableUid};
use std::ops::Bound;
use std::path::Path;
use std::rc::Rc;

/// Offset in a [`Lost`] that stands for a whole table.
pub const WHOLE_TABLE: u64 = u64::MAX;

/// A piece of a table that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Whose it is.
    pub keyspace: KeyspaceId,
    /// The table.
    pub uid: TableUid,
    /// File offset of the damaged block, or [`WHOLE_TABLE`].
    pub offset: u64,
    /// Nothing in it was newer.
    pub through: Seq,
    /// Name of the file when the damage was found.
    pub file: Rc<str>,
    /// No lost key is smaller.
    pub first: Rc<[u8]>,
    /// No lost key is larger.
    pub last: Rc<[u8]>,
}

/// A damaged block whose loss was accepted: readers pass over it as long as its table lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    /// Whose it is.
    pub keyspace: KeyspaceId,
    /// The table.
    pub uid: TableUid,
    /// File offset of the block.
    pub offset: u64,
}

impl GivenUp {
    /// What an accepted mark leaves; `None` for a whole table, of which nothing is left to read.
    pub fn of(lost: &Lost) -> Option<Self> {
        let Lost { keyspace, uid, .. } = *lost;
        lost.block().map(|offset| GivenUp { keyspace, uid, offset })
    }
}

impl Lost {
    /// A table that cannot be opened; nothing in tables is newer than `flushed`.
    pub fn table(meta: &TableMeta, file: &Path, flushed: Seq) -> Self {
        Lost {
            keyspace: meta.keyspace,
            uid: meta.uid,
            offset: WHOLE_TABLE,
            through: flushed,
            file: name(file),
            first: meta.first.clone(),
            last: meta.last.clone(),
        }
    }

    /// Offset of the block, unless the whole table is lost.
    pub fn block(&self) -> Option<u64> {
        (self.offset != WHOLE_TABLE).then_some(self.offset)
    }

    /// What a reader of a lost key is told.
    pub fn error(&self, dir: &Path) -> Error {
        let (offset, what) = match self.offset {
            WHOLE_TABLE => (0, "the table is damaged and its keys are quarantined"),
            offset => (offset, "the block is lost and its keys are quarantined"),
        };
        Error::corruption(&dir.join(&*self.file), offset, what)
    }
}

/// A file's name without its folder.
pub fn name(path: &Path) -> Rc<str> {
    path.file_name().unwrap_or_default().to_string_lossy().into()
}

/// All marks of one keyspace and one moment.
#[derive(Debug, Clone, Default)]
pub struct LostRanges(Rc<[Lost]>);

impl LostRanges {
    /// The marks of `keyspace` among all of them.
    pub fn new(marks: &[Lost], keyspace: KeyspaceId) -> Self {
        LostRanges(marks.iter().filter(|lost| lost.keyspace == keyspace).cloned().collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Offsets of the damaged blocks of a table.
    pub fn offsets(&self, uid: TableUid) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |lost| lost.uid == uid).map(|lost| lost.offset)
    }

    /// Whether what tables say of `key`, its newest entry being `found`, can be relied on.
    pub fn check(&self, dir: &Path, key: &[u8], found: Option<Seq>) -> Result<()> {
        let doubts = |lost: &&Lost| {
            *lost.first <= *key && *key <= *lost.last && found.is_none_or(|seq| seq <= lost.through)
        };
        self.0.iter().find(doubts).map_or(Ok(()), |lost| Err(lost.error(dir)))
    }

    /// Whether nothing is lost from `from` (inclusive) to `to`.
    pub fn check_span(&self, dir: &Path, from: &[u8], to: Bound<&[u8]>) -> Result<()> {
        let begins = |lost: &Lost| match to {
            Bound::Included(to) => *lost.first <= *to,
            Bound::Excluded(to) => *lost.first < *to,
            Bound::Unbounded => true,
        };
        let meets = |lost: &&Lost| from <= &*lost.last && begins(lost);
        self.0.iter().find(meets).map_or(Ok(()), |lost| Err(lost.error(dir)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> LostRanges {
        let mark = Lost {
            keyspace: KeyspaceId(3),
            uid: TableUid(1),
            offset: 4096,
            through: Seq(50),
            file: "000007.sst".into(),
            first: (*b"d").into(),
            last: (*b"g").into(),
        };
        assert_eq!(LostRanges::new(std::slice::from_ref(&mark), KeyspaceId::DEFAULT).len(), 0);
        LostRanges::new(&[mark], KeyspaceId(3))
    }

    #[test]
    fn only_what_is_newer_than_the_damage_counts() {
        let (ranges, dir) = (ranges(), Path::new("/d"));
        assert!(ranges.check(dir, b"c", None).is_ok());
        assert!(ranges.check(dir, b"h", Some(Seq(3))).is_ok());
        assert!(ranges.check(dir, b"e", Some(Seq(51))).is_ok());
        for found in [None, Some(Seq(50)), Some(Seq(2))] {
            let Err(Error::Corruption { path, offset, .. }) = ranges.check(dir, b"e", found) else {
                panic!("{found:?} was taken")
            };
            assert_eq!((path.as_path(), offset), (Path::new("/d/000007.sst"), 4096));
        }
    }

    #[test]
    fn a_span_is_whole_unless_it_meets_a_lost_range() {
        let (ranges, dir) = (ranges(), Path::new("/d"));
        let key = |key: &'static [u8]| Bound::Included(key);
        assert!(ranges.check_span(dir, b"a", key(b"c")).is_ok());
        assert!(ranges.check_span(dir, b"a", Bound::Excluded(b"d")).is_ok());
        assert!(ranges.check_span(dir, b"gg", Bound::Unbounded).is_ok());
        for (from, to) in [(b"a", key(b"d")), (b"g", key(b"z")), (b"a", Bound::Unbounded)] {
            assert!(ranges.check_span(dir, from, to).is_err());
        }
    }
}
