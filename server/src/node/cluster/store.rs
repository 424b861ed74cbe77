//! The placement on disk: a node that starts while others are away serves with the last one it
//! knew.

use std::io;
use std::path::{Path, PathBuf};

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use coronet_ring::Table;

const MAGIC: &[u8; 8] = b"CORONETP";
/// Magic, length u32 and checksum u32 of the table, which has a format and version of its own.
const HEAD: usize = 16;
/// Longest table that is read.
const MAX_BYTES: usize = 4 << 20;

fn path(dir: &Path) -> PathBuf {
    dir.join("placement")
}

/// Replaces the stored placement: a crash leaves the old or the new one, whole.
pub(super) async fn write<E: Env>(env: &E, dir: &Path, table: &Table) -> io::Result<()> {
    let mut encoded = Vec::new();
    table.encode(&mut encoded);
    let mut bytes = AlignedBuf::with_capacity(HEAD + encoded.len() + PAGE);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes()); // at most MAX_TABLE
    bytes.extend_from_slice(&crc32c::crc32c(&encoded).to_le_bytes());
    bytes.extend_from_slice(&encoded);
    bytes.pad_to_page();
    let fresh = dir.join("placement.new");
    match env.remove(&fresh).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = env.open(&fresh, OpenMode::CreateNew).await?;
    file.write_at(0, bytes).await.0?;
    file.sync().await?;
    drop(file);
    env.rename(&fresh, &path(dir)).await?;
    env.sync_dir(dir).await
}

/// The stored placement; `None` when there is none.
///
/// # Errors
/// When the file cannot be read, or is damaged: the node must not guess where its data belongs.
pub async fn read_placement<E: Env>(env: &E, dir: &Path) -> io::Result<Option<Table>> {
    let path = path(dir);
    let damaged = |what: &str| io::Error::other(format!("{}: {what}", path.display()));
    let file = match env.open(&path, OpenMode::Read).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let first = file.read_at(0, PAGE).await?;
    let Some((head, _)) = first.split_first_chunk::<HEAD>() else {
        return Err(damaged("is cut off"));
    };
    if head[..8] != *MAGIC {
        return Err(damaged("is no placement of Coronet"));
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (len, sum) = (word(8) as usize, word(12));
    if len > MAX_BYTES {
        return Err(damaged("says it is too long"));
    }
    let whole = file.read_at(0, (HEAD + len).next_multiple_of(PAGE)).await?;
    let Some(encoded) = whole.get(HEAD..HEAD + len) else { return Err(damaged("is cut off")) };
    if crc32c::crc32c(encoded) != sum {
        return Err(damaged("does not match its checksum"));
    }
    let table = Table::decode(encoded).map_err(|error| damaged(&error.to_string()))?;
    Ok(Some(table))
}
