//! Small files a node keeps beside its engines and replaces as a whole.

use std::io;
use std::path::Path;

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use coronet_ring::bytes::Reader;

use crate::data_dir::{Flaw, Wrong};

/// Magic, length u32 and checksum u32 of what follows, which has a format and version of its own.
pub(crate) const HEAD: usize = 16;
/// Longest content that is read.
const MAX_BYTES: usize = 16 << 20;

/// One such file.
pub(crate) struct Kept {
    /// Its name in the data folder.
    pub name: &'static str,
    /// What it begins with.
    pub magic: &'static [u8; 8],
    /// What it is, with an article.
    pub what: &'static str,
}

/// What a node knows of its cluster: one that starts while others are away serves with the
/// members, keyspaces and placement it knew last.
pub(crate) const VIEW: Kept =
    Kept { name: "cluster", magic: b"CORONETC", what: "a view of the cluster" };

/// The keyspaces of a node in no cluster.
pub(crate) const KEYSPACES: Kept =
    Kept { name: "keyspaces", magic: b"CORONETK", what: "a list of keyspaces" };

impl Kept {
    /// A whole file with this content.
    pub fn encode(&self, content: &[u8]) -> AlignedBuf {
        let mut bytes = AlignedBuf::with_capacity(HEAD + content.len() + PAGE);
        bytes.extend_from_slice(self.magic);
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes()); // below MAX_BYTES
        bytes.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
        bytes.extend_from_slice(content);
        bytes.pad_to_page();
        bytes
    }

    /// Replaces the content: a crash leaves the old or the new one, whole.
    pub(super) async fn write<E: Env>(
        &self,
        env: &E,
        dir: &Path,
        content: &[u8],
    ) -> io::Result<()> {
        let fresh = dir.join(format!("{}.new", self.name));
        match env.remove(&fresh).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = env.open(&fresh, OpenMode::CreateNew).await?;
        file.write_at(0, self.encode(content)).await.0?;
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
        let damaged = |flaw: Flaw| io::Error::other(format!("{}: {flaw}", path.display()));
        let file = match env.open(&path, OpenMode::Read).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let first = file.read_at(0, PAGE).await?;
        let (len, _) = self.head(&first).map_err(damaged)?;
        let whole = file.read_at(0, (HEAD + len).next_multiple_of(PAGE)).await?;
        self.content(&whole).map(|content| Some(content.to_vec())).map_err(damaged)
    }

    /// The content of a whole file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn content<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
        let (len, sum) = self.head(bytes)?;
        let short = || Flaw::new(bytes.len(), Wrong::CutOff);
        let page = bytes.get(..(HEAD + len).next_multiple_of(PAGE)).ok_or_else(short)?;
        let content = &page[HEAD..HEAD + len];
        match crc32c::crc32c(content) == sum {
            true => Ok(content),
            false => Err(Flaw::new(HEAD, Wrong::Checksum)),
        }
    }

    /// Length and checksum of the content, from the beginning of a file.
    fn head(&self, bytes: &[u8]) -> Result<(usize, u32), Flaw> {
        Flaw::unless_begins(bytes, self.magic, self.what)?;
        let mut reader = Reader::new(bytes.get(self.magic.len()..).unwrap_or_default());
        let (Some(len), Some(sum)) = (reader.u32(), reader.u32()) else {
            return Err(Flaw::new(bytes.len(), Wrong::CutOff));
        };
        match usize::try_from(len).ok().filter(|len| *len <= MAX_BYTES) {
            Some(len) => Ok((len, sum)),
            None => Err(Flaw::new(8, Wrong::Nonsense("a length that is too large"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let file = KEYSPACES.encode(&[7; 5000]);
        assert_eq!(KEYSPACES.content(&file), Ok(&[7; 5000][..]));
        let told = |bytes: &[u8]| KEYSPACES.content(bytes).unwrap_err();
        assert_eq!(told(&file[..12]), Flaw::new(12, Wrong::CutOff));
        assert_eq!(told(&file[..PAGE]), Flaw::new(PAGE, Wrong::CutOff));
        let mut changed = file.to_vec();
        changed[HEAD + 100] ^= 1;
        assert_eq!(told(&changed), Flaw::new(HEAD, Wrong::Checksum));
        changed[11] = 0xff;
        assert_eq!(told(&changed).offset, 8);
        assert_eq!(VIEW.content(&file), Err(Flaw::new(0, Wrong::Foreign(VIEW.what))));
    }
}
