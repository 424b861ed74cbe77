//! What a node knows of its cluster, on disk: one that starts while others are away serves with
//! the members, keyspaces and placement it knew last.

use std::io;
use std::path::{Path, PathBuf};

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode, PAGE};

const MAGIC: &[u8; 8] = b"CORONETC";
/// Magic, length u32 and checksum u32 of what follows, which has a format and version of its own.
const HEAD: usize = 16;
/// Longest view that is read.
const MAX_BYTES: usize = 16 << 20;

fn path(dir: &Path) -> PathBuf {
    dir.join("cluster")
}

/// Replaces the stored view: a crash leaves the old or the new one, whole.
pub(super) async fn write<E: Env>(env: &E, dir: &Path, view: &[u8]) -> io::Result<()> {
    let mut bytes = AlignedBuf::with_capacity(HEAD + view.len() + PAGE);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(view.len() as u32).to_le_bytes()); // below MAX_BYTES
    bytes.extend_from_slice(&crc32c::crc32c(view).to_le_bytes());
    bytes.extend_from_slice(view);
    bytes.pad_to_page();
    let fresh = dir.join("cluster.new");
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

/// The stored view of the cluster; `None` when there is none.
///
/// # Errors
/// When the file cannot be read, or is damaged: the node must not guess where its data belongs.
pub async fn read_cluster_view<E: Env>(env: &E, dir: &Path) -> io::Result<Option<Vec<u8>>> {
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
        return Err(damaged("is no view of a cluster"));
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (len, sum) = (word(8) as usize, word(12));
    if len > MAX_BYTES {
        return Err(damaged("says it is too long"));
    }
    let whole = file.read_at(0, (HEAD + len).next_multiple_of(PAGE)).await?;
    let Some(view) = whole.get(HEAD..HEAD + len) else { return Err(damaged("is cut off")) };
    if crc32c::crc32c(view) != sum {
        return Err(damaged("does not match its checksum"));
    }
    Ok(Some(view.to_vec()))
}
