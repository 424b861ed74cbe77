//! Small files a node keeps beside its engines and replaces as a whole.

use std::io;
use std::path::Path;

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode, PAGE};

/// Magic, length u32 and checksum u32 of what follows, which has a format and version of its own.
const HEAD: usize = 16;
/// Longest content that is read.
const MAX_BYTES: usize = 16 << 20;

/// One such file.
pub(super) struct Kept {
    /// Its name in the data folder.
    pub name: &'static str,
    /// What it begins with.
    pub magic: &'static [u8; 8],
}

impl Kept {
    /// Replaces the content: a crash leaves the old or the new one, whole.
    pub(super) async fn write<E: Env>(
        &self,
        env: &E,
        dir: &Path,
        content: &[u8],
    ) -> io::Result<()> {
        let mut bytes = AlignedBuf::with_capacity(HEAD + content.len() + PAGE);
        bytes.extend_from_slice(self.magic);
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes()); // below MAX_BYTES
        bytes.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
        bytes.extend_from_slice(content);
        bytes.pad_to_page();
        let fresh = dir.join(format!("{}.new", self.name));
        match env.remove(&fresh).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = env.open(&fresh, OpenMode::CreateNew).await?;
        file.write_at(0, bytes).await.0?;
        file.sync().await?;
        drop(file);
        env.rename(&fresh, &dir.join(self.name)).await?;
        env.sync_dir(dir).await
    }

    /// The content; `None` when there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged: the node must not guess.
    pub(super) async fn read<E: Env>(&self, env: &E, dir: &Path) -> io::Result<Option<Vec<u8>>> {
        let path = dir.join(self.name);
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
        if head[..8] != *self.magic {
            return Err(damaged("is another file"));
        }
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (len, sum) = (word(8) as usize, word(12));
        if len > MAX_BYTES {
            return Err(damaged("says it is too long"));
        }
        let whole = file.read_at(0, (HEAD + len).next_multiple_of(PAGE)).await?;
        let Some(content) = whole.get(HEAD..HEAD + len) else { return Err(damaged("is cut off")) };
        if crc32c::crc32c(content) != sum {
            return Err(damaged("does not match its checksum"));
        }
        Ok(Some(content.to_vec()))
    }
}
