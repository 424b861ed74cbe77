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

use super::{DataDirError, Identity, tree};

const MAGIC: &[u8; 8] = b"CORONETE";
const VERSION: u32 = 1;
/// Bytes before the checksum.
const BODY: usize = 32;
/// For how long a mark counts, in microseconds: a restart takes less, a backup is older.
const VALID_MICROS: u64 = 60 * 60 * 1_000_000;

fn path(dir: &Path) -> PathBuf {
    dir.join("clean")
}

/// Layout, little endian: magic 8, version u32, zero u32, incarnation u64, wall clock in
/// microseconds u64, crc32c u32 of the 32 bytes, zero to the page's end.
fn encode(incarnation: Incarnation, at: u64) -> AlignedBuf {
    let mut page = AlignedBuf::with_capacity(PAGE);
    page.extend_from_slice(MAGIC);
    page.extend_from_slice(&VERSION.to_le_bytes());
    page.extend_from_slice(&[0; 4]);
    page.extend_from_slice(&incarnation.0.to_le_bytes());
    page.extend_from_slice(&at.to_le_bytes());
    let sum = crc32c::crc32c(&page);
    page.extend_from_slice(&sum.to_le_bytes());
    page.pad_to_page();
    page
}

/// Who ended, and when; `None` for anything that is not a whole mark of this format.
fn decode(page: &[u8]) -> Option<(Incarnation, u64)> {
    let mut reader = Reader::new(page);
    let known = reader.array::<8>()? == *MAGIC && reader.u32()? == VERSION;
    let whole = page.get(BODY..BODY + 4)? == crc32c::crc32c(&page[..BODY]).to_le_bytes();
    let _zero = reader.u32()?;
    let mark = (Incarnation(reader.u64()?), reader.u64()?);
    (known && whole).then_some(mark)
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
    let (written, _) = file.write_at(0, encode(incarnation, env.wall_micros())).await;
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
    let Some((incarnation, at)) = page.and_then(|page| decode(&page)) else { return Ok(false) };
    let recent = env.wall_micros().checked_sub(at).is_some_and(|age| age <= VALID_MICROS);
    Ok(recent && incarnation == identity.incarnation && has_engines(env, dir, identity).await?)
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
        let page = encode(Incarnation(7), 1_234);
        assert_eq!(decode(&page), Some((Incarnation(7), 1_234)));
        assert_eq!(decode(b""), None, "as earlier releases made it");
        for at in 0..BODY + 4 {
            let mut changed = page.to_vec();
            changed[at] ^= 1;
            assert_eq!(decode(&changed), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_mark_are_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
