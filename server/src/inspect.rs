//! The small files of a data folder read offline, by the very parsers a node reads them with.
//!
//! Pure functions over the bytes of one file, for tools and fuzzing. The files of an engine are
//! `coronet_lsm::inspect`'s.

use std::path::Path;

use coronet_ring::Table;
use coronet_ring::gossip::codec::{Unreadable, decode_keyspaces};
use coronet_ring::gossip::keyspace::Keyspace;
use coronet_ring::gossip::snapshot::{self, Stored};

use crate::data_dir::{CleanEnd, Flaw, Identity, Wrong, clean, identity};
use crate::node::kept::{HEAD, KEYSPACES, VIEW};

/// The newest version of a view's and a list of keyspaces' content that is read.
const KEPT_VERSION: u32 = 1;

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `node`: the identity of a data folder.
    Identity,
    /// `clean`: the mark of a clean end.
    CleanEnd,
    /// `cluster`: what the node knew of its cluster.
    View,
    /// `keyspaces`: the keyspaces of a node in no cluster.
    Keyspaces,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Of `node`.
    Identity(Identity),
    /// Of `clean`.
    CleanEnd(CleanEnd),
    /// Of `cluster`, with the placement decoded when there is one.
    View(Box<Stored>, Option<Table>),
    /// Of `keyspaces`.
    Keyspaces(Vec<Keyspace>),
}

impl FileKind {
    /// Every kind.
    pub const ALL: [FileKind; 4] =
        [FileKind::Identity, FileKind::CleanEnd, FileKind::View, FileKind::Keyspaces];

    /// The file's name in a data folder.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::Identity => "node",
            FileKind::CleanEnd => "clean",
            FileKind::View => VIEW.name,
            FileKind::Keyspaces => KEYSPACES.name,
        }
    }

    /// What it is, in words, without an article.
    pub fn what(self) -> &'static str {
        match self {
            FileKind::Identity => "identity of a data folder",
            FileKind::CleanEnd => "mark of a clean end",
            FileKind::View => "view of the cluster",
            FileKind::Keyspaces => "keyspaces of a node alone",
        }
    }

    /// The format version that this release writes, and the newest it reads.
    pub fn version(self) -> u32 {
        match self {
            FileKind::Identity => identity::VERSION,
            FileKind::CleanEnd => clean::VERSION,
            FileKind::View | FileKind::Keyspaces => KEPT_VERSION,
        }
    }

    /// The kind by what the file begins with.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| bytes.starts_with(kind.magic()))
    }

    /// The kind by the file's name. `NAME.new` is a file that was about to replace another one.
    pub fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let name = name.strip_suffix(".new").unwrap_or(name);
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn magic(self) -> &'static [u8; 8] {
        match self {
            FileKind::Identity => identity::MAGIC,
            FileKind::CleanEnd => clean::MAGIC,
            FileKind::View => VIEW.magic,
            FileKind::Keyspaces => KEYSPACES.magic,
        }
    }

    /// Reads a file of this kind.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(self, bytes: &[u8]) -> Result<Content, Flaw> {
        match self {
            FileKind::Identity => Identity::parse(bytes).map(Content::Identity),
            FileKind::CleanEnd => CleanEnd::parse(bytes).map(Content::CleanEnd),
            FileKind::View => view(VIEW.content(bytes)?),
            FileKind::Keyspaces => {
                let keyspaces = decode_keyspaces(KEYSPACES.content(bytes)?);
                keyspaces.map(Content::Keyspaces).map_err(kept_flaw)
            }
        }
    }
}

fn view(content: &[u8]) -> Result<Content, Flaw> {
    let stored = snapshot::decode(content).map_err(kept_flaw)?;
    let table = match &stored.delta.table {
        Some(bytes) => Some(Table::decode(bytes).map_err(|_| {
            Flaw::new(HEAD, Wrong::Nonsense("a placement table that cannot be decoded"))
        })?),
        None => None,
    };
    Ok(Content::View(Box::new(stored), table))
}

/// What is wrong with the content of a file whose checksum is right.
fn kept_flaw(why: Unreadable) -> Flaw {
    let what = match why {
        Unreadable::Version(found) => {
            Wrong::Version { found: found.into(), supported: KEPT_VERSION }
        }
        Unreadable::Damaged => Wrong::Nonsense("content that cannot be decoded"),
    };
    Flaw::new(HEAD, what)
}

#[cfg(test)]
mod tests {
    use coronet_lsm::env::PAGE;
    use coronet_ring::gossip::codec::encode_keyspaces;
    use coronet_ring::gossip::keyspace::DEFAULT_NAME;
    use coronet_ring::gossip::member::{Member, Newness, Standing};
    use coronet_ring::gossip::state::{Founding, Gossip};
    use coronet_ring::{Conflicts, Incarnation, NodeId};

    use super::*;

    fn keyspace(name: &str) -> Keyspace {
        Keyspace {
            name: name.to_owned(),
            version: 3,
            author: NodeId(5),
            dropped: false,
            n: 3,
            r: 2,
            w: 2,
            conflicts: Conflicts::Siblings,
            options: vec![("ttl".to_owned(), "90".to_owned())],
        }
    }

    /// A whole file of every kind.
    fn files() -> [(FileKind, Vec<u8>); 4] {
        let identity = Identity {
            node_id: NodeId(7),
            incarnation: Incarnation(9),
            secret: 11,
            partitions: 64,
            cores: 2,
            generation: 1,
        };
        let mark = CleanEnd { incarnation: Incarnation(9), at_micros: 1_000 };
        let mut keyspaces = Vec::new();
        encode_keyspaces([&keyspace(DEFAULT_NAME), &keyspace("docs")], &mut keyspaces);
        [
            (FileKind::Identity, identity.encode().to_vec()),
            (FileKind::CleanEnd, mark.encode().to_vec()),
            (FileKind::View, VIEW.encode(&stored_view()).to_vec()),
            (FileKind::Keyspaces, KEYSPACES.encode(&keyspaces).to_vec()),
        ]
    }

    fn stored_view() -> Vec<u8> {
        let me = Member {
            id: NodeId(7),
            newness: Newness { generation: 100, version: 1, beat: 0 },
            incarnation: Incarnation(9),
            standing: Standing::Up,
            client_address: "127.0.0.1:4720".to_owned(),
            peer_address: "127.0.0.1:4721".to_owned(),
            rack: "a".to_owned(),
            weight: 1,
            cores: 2,
        };
        let addresses = [me.peer_address.clone()].into();
        let founding = Founding { cluster: 3, partitions: 64, depth: 3, addresses };
        let mut gossip = Gossip::new(me, founding);
        gossip.define(keyspace("docs")).unwrap();
        let mut view = Vec::new();
        gossip.snapshot(&mut view);
        view
    }

    #[test]
    fn every_kind_is_known_by_its_beginning_and_its_name() {
        for (kind, bytes) in files() {
            assert_eq!(FileKind::of_bytes(&bytes), Some(kind));
            assert_eq!(FileKind::of_name(Path::new("/d").join(kind.name()).as_path()), Some(kind));
            kind.read(&bytes).unwrap();
        }
        assert_eq!(FileKind::of_name(Path::new("/d/cluster.new")), Some(FileKind::View));
        assert_eq!(FileKind::of_name(Path::new("/d/LOCK")), None);
        assert_eq!(FileKind::of_bytes(b"CORTABLE"), None);
    }

    #[test]
    fn a_flipped_byte_of_what_is_read_is_found_in_every_kind() {
        for (kind, bytes) in files() {
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            for at in 0..used {
                let mut changed = bytes.clone();
                changed[at] ^= 0x10;
                assert!(kind.read(&changed).is_err(), "{kind:?}, byte {at}");
            }
            for len in 0..PAGE {
                assert!(kind.read(&bytes[..len]).is_err(), "{kind:?}, {len} bytes");
            }
            let zeros = kind.read(&[0; PAGE]).unwrap_err();
            assert_eq!(zeros, Flaw::new(0, Wrong::Zeros));
        }
    }

    #[test]
    fn a_newer_version_is_named_in_every_kind() {
        let mut view = stored_view();
        view[0] = 2;
        let end = view.len() - 8;
        let check = xxhash_rust::xxh3::xxh3_64(&view[..end]);
        view[end..].copy_from_slice(&check.to_le_bytes());
        let [(_, mut identity), (_, mut mark), ..] = files();
        (identity[8], mark[8]) = (2, 2);
        for (kind, bytes, offset) in [
            (FileKind::Identity, identity, 8),
            (FileKind::CleanEnd, mark, 8),
            (FileKind::View, VIEW.encode(&view).to_vec(), 16),
            (FileKind::Keyspaces, KEYSPACES.encode(&[2, 0, 0]).to_vec(), 16),
        ] {
            let what = Wrong::Version { found: 2, supported: kind.version() };
            assert_eq!(kind.read(&bytes), Err(Flaw::new(offset, what)), "{kind:?}");
        }
    }

    #[test]
    fn content_without_sense_behind_a_right_checksum_is_told() {
        let nonsense = KEYSPACES.encode(&[1, 9, 0]);
        let flaw = FileKind::Keyspaces.read(&nonsense).unwrap_err();
        assert!(matches!(flaw, Flaw { offset: 16, what: Wrong::Nonsense(_) }), "{flaw:?}");
    }
}
