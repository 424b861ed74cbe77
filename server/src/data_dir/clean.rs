//! The mark of a clean end.
//!
//! A node of a cluster tells other replicas of a write before its own disk has it. If it dies in
//! between, others know a version of its own that it has forgotten, and going on as the same actor
//! would make its next write of that key claim to have seen it, or give its name to another value.
//! So an end without this mark costs the node its incarnation: it goes on as another actor.
//!
//! A folder that is brought back from a copy brings the copy's mark along, and one whose engines
//! were lost keeps it. So the mark names the incarnation that ended, counts for a restart but not
//! for longer, and counts only beside engines. What slips through is noticed when another replica
//! or a client tells of a write that is not here (`node/shard/own.rs`).

use std::io;
use std::path::{Path, PathBuf};

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use coronet_ring::Incarnation;
use coronet_ring::bytes::Reader;

use super::flaw::{Flaw, Wrong};
use super::{DataDirError, Identity, tree};

/// What a mark begins with.
pub(crate) const MAGIC: &[u8; 8] = b"CORONETE";
pub(crate) const VERSION: u32 = 1;
/// Bytes before the checksum.
const BODY: usize = 32;
/// For how long a mark counts, in microseconds: a restart takes less, a backup is older.
const VALID_MICROS: u64 = 60 * 60 * 1_000_000;

fn path(dir: &Path) -> PathBuf {
    dir.join("clean")
}

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanEnd {
    /// The life of the folder's data that ended.
    pub incarnation: Incarnation,
    /// When it ended: wall clock, microseconds since the Unix epoch.
    pub at_micros: u64,
}

impl CleanEnd {
    /// Layout, little endian: magic 8, version u32, zero u32, incarnation u64, wall clock in
    /// microseconds u64, crc32c u32 of the 32 bytes, zero to the page's end.
    pub(crate) fn encode(&self) -> AlignedBuf {
        let mut page = AlignedBuf::with_capacity(PAGE);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&self.incarnation.0.to_le_bytes());
        page.extend_from_slice(&self.at_micros.to_le_bytes());
        let sum = crc32c::crc32c(&page);
        page.extend_from_slice(&sum.to_le_bytes());
        page.pad_to_page();
        page
    }

    /// Reads the bytes of a mark.
    ///
    /// # Errors
    /// What is wrong with them, and where. Such a mark does not count.
    pub fn parse(page: &[u8]) -> Result<Self, Flaw> {
        Flaw::unless_begins(page, MAGIC, "a mark of a clean end")?;
        let short = || Flaw::new(page.len(), Wrong::CutOff);
        let page = page.get(..PAGE).ok_or_else(short)?;
        let mut reader = Reader::new(&page[MAGIC.len()..]);
        let found = reader.u32().ok_or_else(short)?;
        if found != VERSION {
            return Err(Flaw::new(8, Wrong::Version { found, supported: VERSION }));
        }
        if page[BODY..BODY + 4] != crc32c::crc32c(&page[..BODY]).to_le_bytes() {
            return Err(Flaw::new(0, Wrong::Checksum));
        }
        let _zero = reader.u32().ok_or_else(short)?;
        Ok(CleanEnd {
            incarnation: Incarnation(reader.u64().ok_or_else(short)?),
            at_micros: reader.u64().ok_or_else(short)?,
        })
    }
}

/// Makes the mark durable: `incarnation` ended in order.
pub(super) async fn mark<E: Env>(
    env: &E,
    dir: &Path,
    incarnation: Incarnation,
) -> Result<(), DataDirError> {
    let path = path(dir);
    let failed = |op| move |error: io::Error| DataDirError::io(op, &self::path(dir), &error);
    // Written in place: a mark that a crash cut does not count.
    let file = env.open(&path, OpenMode::CreateNew).await.map_err(failed("create"))?;
    let mark = CleanEnd { incarnation, at_micros: env.wall_micros() };
    let (written, _) = file.write_at(0, mark.encode()).await;
    written.map_err(failed("write"))?;
    file.sync().await.map_err(failed("sync"))?;
    env.sync_dir(dir).await.map_err(|error| DataDirError::io("sync", dir, &error))
}

/// Takes the mark away; whether it says that this identity ended here, just now. It is gone for
/// good before anything is written.
pub(super) async fn take<E: Env>(
    env: &E,
    dir: &Path,
    identity: &Identity,
) -> Result<bool, DataDirError> {
    let path = path(dir);
    let page = match env.open(&path, OpenMode::Read).await {
        // Too short to be one: marks of earlier releases are empty.
        Ok(file) => file.read_at(0, PAGE).await.ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DataDirError::io("open", &path, &error)),
    };
    env.remove(&path).await.map_err(|error| DataDirError::io("remove", &path, &error))?;
    env.sync_dir(dir).await.map_err(|error| DataDirError::io("sync", dir, &error))?;
    let Some(mark) = page.and_then(|page| CleanEnd::parse(&page).ok()) else { return Ok(false) };
    let age = env.wall_micros().checked_sub(mark.at_micros);
    let recent = age.is_some_and(|age| age <= VALID_MICROS);
    let ours = mark.incarnation == identity.incarnation;
    Ok(recent && ours && has_engines(env, dir, identity).await?)
}

/// Whether every core's engine is still there: the first thing an engine has is a manifest.
async fn has_engines<E: Env>(
    env: &E,
    dir: &Path,
    identity: &Identity,
) -> Result<bool, DataDirError> {
    for core in 0..identity.cores {
        let folder = tree::core_dir(dir, identity.generation, core);
        let names = match env.list(&folder).await {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(DataDirError::io("list", &folder, &error)),
        };
        let manifest = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("MANIFEST-"))
        };
        if !names.iter().any(manifest) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_says_who_ended_and_when() {
        let mark = CleanEnd { incarnation: Incarnation(7), at_micros: 1_234 };
        let page = mark.encode();
        assert_eq!(CleanEnd::parse(&page), Ok(mark));
        let empty = Flaw::new(0, Wrong::Empty);
        assert_eq!(CleanEnd::parse(b""), Err(empty), "as earlier releases made it");
        assert_eq!(CleanEnd::parse(&page[..40]), Err(Flaw::new(40, Wrong::CutOff)));
        for at in 0..BODY + 4 {
            let mut changed = page.to_vec();
            changed[at] ^= 1;
            assert!(CleanEnd::parse(&changed).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_mark_do_not_count(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(CleanEnd::parse(&bytes).is_err());
        }
    }
}
