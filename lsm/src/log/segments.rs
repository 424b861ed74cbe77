//! Segment files: preparing, activating, recycling.
//!
//! A segment is filled with zeros once, so that every later `fdatasync` into it changes no file
//! metadata, and is used again when the memtables it covered became tables.

use super::format::SegmentHeader;
use crate::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use crate::{Error, Result, Seq};
use std::path::{Path, PathBuf};

/// Spare segments kept ready. Two: when the disk turns out to be full while the second is made,
/// the first still takes what was accepted until then.
pub const WANTED_SPARE: usize = 2;
/// Spare segments kept for reuse; more than that goes back to the disk.
pub const MAX_SPARE: usize = 4;
/// Bytes zeroed per write while a segment is prepared.
const PREPARE_CHUNK: usize = 1 << 20;

/// The name of a segment file.
pub fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:06}.log"))
}

/// The number in a segment file's name.
pub fn segment_id(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

/// One segment file.
pub struct Segment<F> {
    /// Number in its name.
    pub id: u64,
    /// Its path.
    pub path: PathBuf,
    /// The open file.
    pub file: F,
    /// Its length in bytes.
    pub len: u64,
}

/// A segment that holds data which is not in tables yet.
pub struct Full<F> {
    /// The file.
    pub segment: Segment<F>,
    /// Its place in the log.
    pub generation: u64,
    /// Its newest entry.
    pub last: Seq,
    /// Where its batches end.
    pub end: u64,
}

/// The segment that is written.
pub struct Active<F> {
    /// The file.
    pub segment: Segment<F>,
    /// Its header.
    pub header: SegmentHeader,
    /// Where the next batch goes.
    pub offset: u64,
    /// Checksum of the last batch.
    pub chain: u32,
    /// Newest entry written.
    pub last: Seq,
}

impl<F: File> Active<F> {
    /// Takes a spare segment into use: writes its header.
    pub async fn start(segment: Segment<F>, header: SegmentHeader) -> Result<Self> {
        let (written, _) = segment.file.write_at(0, header.encode()).await;
        written.map_err(|e| Error::io("write", &segment.path, &e))?;
        let (chain, last) = (header.chain_seed(), header.before);
        Ok(Active { segment, header, offset: PAGE as u64, chain, last })
    }

    /// Whether `len` more bytes fit.
    pub fn fits(&self, len: u64) -> bool {
        self.offset + len <= self.segment.len
    }

    /// The segment as one that waits for its memtables to be flushed.
    pub fn into_full(self) -> Full<F> {
        let Active { segment, header, offset, last, .. } = self;
        Full { segment, generation: header.generation, last, end: offset }
    }
}

/// Creates a segment of `len` zero bytes, synced together with its name.
pub async fn prepare<E: Env>(env: &E, dir: &Path, id: u64, len: u64) -> Result<Segment<E::File>> {
    let path = segment_path(dir, id);
    let file =
        env.open(&path, OpenMode::CreateNew).await.map_err(|e| Error::io("create", &path, &e))?;
    match fill(env, &file, len).await {
        Ok(()) => {
            env.sync_dir(dir).await.map_err(|e| Error::io("sync", dir, &e))?;
            Ok(Segment { id, path, file, len })
        }
        Err(error) => {
            // A half-made segment is of no use and takes space that is missing; if even the
            // removal fails, the next opening finds and removes it.
            drop(file);
            let _ = env.remove(&path).await;
            Err(Error::io("prepare", &path, &error))
        }
    }
}

async fn fill<E: Env>(env: &E, file: &E::File, len: u64) -> std::io::Result<()> {
    let mut buf =
        AlignedBuf::zeroed(PREPARE_CHUNK.min(usize::try_from(len).unwrap_or(PREPARE_CHUNK)));
    let mut at = 0;
    while at < len {
        buf.truncate(usize::try_from(len - at).unwrap_or(PREPARE_CHUNK));
        let chunk = buf.len() as u64;
        let (written, back) = file.write_at(at, buf).await;
        written?;
        buf = back;
        at += chunk;
        env.coop().await;
    }
    file.sync().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_number() {
        let path = segment_path(Path::new("/d"), 42);
        assert_eq!(path, Path::new("/d/000042.log"));
        assert_eq!(segment_id(&path), Some(42));
        assert_eq!(segment_id(Path::new("/d/000042.sst")), None);
        assert_eq!(segment_id(Path::new("/d/x.log")), None);
    }
}
