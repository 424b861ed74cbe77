//! The file `node`: who this data folder belongs to and which generation of engine folders is
//! the valid one. One page, versioned, checksummed, replaced atomically.

use std::io;
use std::path::{Path, PathBuf};

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use coronet_ring::bytes::Reader;
use coronet_ring::{Incarnation, NodeId, PartitionMap};

use super::DataDirError;
use super::flaw::{Flaw, Wrong};

/// What an identity file begins with.
pub(crate) const MAGIC: &[u8; 8] = b"CORONETN";
pub(crate) const VERSION: u32 = 1;
/// Bytes before the checksum.
const BODY: usize = 64;

/// What the file `node` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node, drawn once at random when the folder was created.
    pub node_id: NodeId,
    /// The incarnation: actor of the versions this folder's data was written under. Drawn when
    /// the folder is created and never changed while its data is whole.
    pub incarnation: Incarnation,
    /// The secret that contexts are checked with: those of another cluster are refused.
    pub secret: u64,
    /// Partitions of the hash space.
    pub partitions: u32,
    /// Data cores, hence engine folders of the valid generation.
    pub cores: u16,
    /// The valid generation of engine folders.
    pub generation: u64,
}

impl Identity {
    /// Layout, little endian: magic 8, version u32, partitions u32, node id u128, incarnation
    /// u64, secret u64, generation u64, cores u16, zero to 64, crc32c u32 of the 64 bytes, zero
    /// to the page's end.
    pub(crate) fn encode(&self) -> AlignedBuf {
        let mut page = AlignedBuf::with_capacity(PAGE);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.partitions.to_le_bytes());
        page.extend_from_slice(&self.node_id.0.to_le_bytes());
        page.extend_from_slice(&self.incarnation.0.to_le_bytes());
        page.extend_from_slice(&self.secret.to_le_bytes());
        page.extend_from_slice(&self.generation.to_le_bytes());
        page.extend_from_slice(&self.cores.to_le_bytes());
        page.extend_from_slice(&[0; BODY - 58]);
        let sum = crc32c::crc32c(&page);
        page.extend_from_slice(&sum.to_le_bytes());
        page.pad_to_page();
        page
    }

    /// Reads the first page of an identity file; `path` names it in errors.
    pub fn decode(path: &Path, page: &[u8]) -> Result<Self, DataDirError> {
        Self::parse(page).map_err(|flaw| DataDirError::identity(path, flaw))
    }

    /// Reads the bytes of an identity file.
    ///
    /// # Errors
    /// What is wrong with them, and where.
    pub fn parse(page: &[u8]) -> Result<Self, Flaw> {
        Flaw::unless_begins(page, MAGIC, "an identity file")?;
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
        let identity = Identity {
            partitions: reader.u32().ok_or_else(short)?,
            node_id: NodeId(reader.u128().ok_or_else(short)?),
            incarnation: Incarnation(reader.u64().ok_or_else(short)?),
            secret: reader.u64().ok_or_else(short)?,
            generation: reader.u64().ok_or_else(short)?,
            cores: reader.u16().ok_or_else(short)?,
        };
        if PartitionMap::new(identity.partitions, identity.cores).is_err() {
            return Err(Flaw::new(
                12,
                Wrong::Nonsense("impossible numbers of partitions and cores"),
            ));
        }
        if identity.generation == 0 {
            return Err(Flaw::new(48, Wrong::Nonsense("generation 0, they begin with 1")));
        }
        Ok(identity)
    }

    /// Reads the identity; `None` when the folder has none yet.
    pub(super) async fn read<E: Env>(env: &E, dir: &Path) -> Result<Option<Self>, DataDirError> {
        let path = path(dir);
        let file = match env.open(&path, OpenMode::Read).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataDirError::io("open", &path, &error)),
        };
        let page =
            file.read_at(0, PAGE).await.map_err(|error| DataDirError::io("read", &path, &error))?;
        Self::decode(&path, &page).map(Some)
    }

    /// Replaces the identity: a new file, synced, renamed over the old one, folder synced. A
    /// crash at any point leaves the old or the new identity, whole.
    pub(super) async fn write<E: Env>(&self, env: &E, dir: &Path) -> Result<(), DataDirError> {
        let (path, fresh) = (path(dir), fresh_path(dir));
        match env.remove(&fresh).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DataDirError::io("remove", &fresh, &error));
            }
            _ => {}
        }
        let at_fresh = |op| move |error: io::Error| DataDirError::io(op, &fresh_path(dir), &error);
        let file = env.open(&fresh, OpenMode::CreateNew).await.map_err(at_fresh("create"))?;
        let (written, _) = file.write_at(0, self.encode()).await;
        written.map_err(at_fresh("write"))?;
        file.sync().await.map_err(at_fresh("sync"))?;
        drop(file);
        env.rename(&fresh, &path).await.map_err(at_fresh("rename"))?;
        env.sync_dir(dir).await.map_err(|error| DataDirError::io("sync", dir, &error))
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("node")
}

fn fresh_path(dir: &Path) -> PathBuf {
    dir.join("node.new")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            node_id: NodeId(7 << 100),
            incarnation: Incarnation(9),
            secret: 11,
            partitions: 1024,
            cores: 3,
            generation: 2,
        }
    }

    #[test]
    fn identity_survives_a_round_trip() {
        let page = identity().encode();
        assert_eq!(page.len(), PAGE);
        assert_eq!(Identity::decode(Path::new("node"), &page).unwrap(), identity());
    }

    #[test]
    fn every_flipped_bit_of_the_body_is_found() {
        let page = identity().encode();
        for bit in 0..(BODY + 4) * 8 {
            let mut bad = page.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(Path::new("node"), &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let page = identity().encode();
        let told = |bytes: &[u8]| Identity::parse(bytes).unwrap_err();
        assert_eq!(told(&page[..20]), Flaw::new(20, Wrong::CutOff));
        assert_eq!(told(&page[..PAGE - 1]), Flaw::new(PAGE - 1, Wrong::CutOff));
        assert_eq!(told(b""), Flaw::new(0, Wrong::Empty));
        assert_eq!(told(&[0; PAGE]), Flaw::new(0, Wrong::Zeros));
        let never = Identity { generation: 0, ..identity() };
        assert_eq!(told(&never.encode()).offset, 48);
        let none = Identity { cores: 0, ..identity() };
        assert_eq!(told(&none.encode()).offset, 12);
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut page = identity().encode();
        page[8] = 2;
        let error = Identity::decode(Path::new("node"), &page).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
    }
}
