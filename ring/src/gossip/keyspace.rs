//! Definitions of keyspaces, spread by gossip.
//!
//! A keyspace's id follows from its name, so that two nodes which create it at the same time mean
//! the same data. Of two definitions the one with the higher [`Rank`] wins, then the larger bytes:
//! every node chooses the same.
//!
//! A drop is a definition, too, and kept for ever: no definition made without knowing it brings the
//! keyspace back, however late. A keyspace that is created again after a drop is another one of the
//! same name: its data is kept under another id ([`Keyspace::store`]), which all nodes derive from the
//! drop it came after. Whoever was away meanwhile refuses it until it knows the new definition.

use thiserror::Error;

use crate::causality::resolve::Conflicts;
use crate::hash::key_hash;
use crate::ids::NodeId;
use crate::placement::table::MAX_DEPTH;

/// Longest name, bytes.
pub const MAX_NAME: usize = 128;

/// Most engine options, and the longest name or value of one.
pub const MAX_OPTIONS: usize = 64;

/// Longest name or value of an engine option, bytes.
pub const MAX_OPTION: usize = 256;

/// Earlier keyspaces of a name that a definition remembers.
pub const MAX_BURIED: usize = 32;

/// Name of the keyspace that always exists.
pub const DEFAULT_NAME: &str = "default";

/// Names a keyspace in messages and on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// The keyspace that always exists, named [`DEFAULT_NAME`].
    pub const DEFAULT: KeyspaceId = KeyspaceId(0);
    /// The first id a name may have; those below are for the default keyspace and for what nodes
    /// keep for themselves.
    pub const FIRST: KeyspaceId = KeyspaceId(16);

    /// The id of a name.
    pub fn of(name: &str) -> Self {
        if name == DEFAULT_NAME {
            return KeyspaceId::DEFAULT;
        }
        KeyspaceId(key_hash(name.as_bytes()) as u32) // the low half
    }

    /// What contexts and cursors are bound to in place of a key's or prefix's hash: other
    /// keyspaces' do not fit.
    #[inline]
    pub fn bind(self, hash: u64) -> u64 {
        if self == KeyspaceId::DEFAULT { hash } else { hash ^ key_hash(&self.0.to_le_bytes()) }
    }
}

impl std::fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A keyspace that cannot exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyspaceError {
    /// Empty, too long, or with other characters.
    #[error("a keyspace's name has 1 to {MAX_NAME} letters (a to z), digits, '_', '-' or '.'")]
    Name,
    /// The name's id is kept for other things.
    #[error("the name's id is reserved; choose another name")]
    Reserved,
    /// Out of bounds.
    #[error("N must be from 1 to {MAX_DEPTH}, default R and W from 1 to N")]
    Quorum,
    /// Too many or too long.
    #[error("at most {MAX_OPTIONS} options, each of at most {MAX_OPTION} bytes")]
    Options,
    /// What came before is not older, or the default keyspace is dropped.
    #[error("the definition contradicts itself")]
    Lineage,
    /// Another name has the same id.
    #[error("the name's id is taken by keyspace {0:?}; choose another name")]
    Taken(String),
}

/// What decides between two definitions of a name: the later creation, then a drop, then the later
/// version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rank {
    /// See [`Keyspace::born`].
    pub born: u64,
    /// See [`Keyspace::dropped`].
    pub dropped: bool,
    /// See [`Keyspace::version`].
    pub version: u64,
    /// See [`Keyspace::author`].
    pub author: NodeId,
}

/// A definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyspace {
    /// The name, unique in the cluster.
    pub name: String,
    /// The version of the drop after which it was created again; zero for the first of its name.
    pub born: u64,
    /// `born` of those of its name that were dropped before it, ascending; the latest
    /// [`MAX_BURIED`].
    pub buried: Vec<u64>,
    /// Rises with every change.
    pub version: u64,
    /// The node that made this version.
    pub author: NodeId,
    /// Dropped: kept as a definition so that no older one brings it back.
    pub dropped: bool,
    /// Replicas.
    pub n: u8,
    /// R of requests that do not say.
    pub r: u8,
    /// W of requests that do not say.
    pub w: u8,
    /// What readers see of concurrent versions.
    pub conflicts: Conflicts,
    /// Options of the storage engine by name, ascending.
    pub options: Vec<(String, String)>,
}

impl Keyspace {
    /// The id.
    pub fn id(&self) -> KeyspaceId {
        KeyspaceId::of(&self.name)
    }

    /// The id its data is kept under, and that nodes use among each other.
    pub fn store(&self) -> KeyspaceId {
        self.store_of(self.born)
    }

    /// The ids of data that must go.
    pub fn gone(&self) -> impl Iterator<Item = KeyspaceId> {
        let dropped = self.dropped.then_some(self.born);
        self.buried.iter().copied().chain(dropped).map(|born| self.store_of(born))
    }

    fn store_of(&self, born: u64) -> KeyspaceId {
        let id = self.id();
        if born == 0 {
            return id;
        }
        let bytes = [&born.to_le_bytes()[..], self.name.as_bytes()].concat();
        let hash = key_hash(&bytes) as u32; // the low half
        KeyspaceId(hash.max(KeyspaceId::FIRST.0))
    }

    /// The same as `author` makes it after `known`, with a version beyond the known one and its own.
    #[must_use]
    pub fn following(mut self, known: Option<&Keyspace>, author: NodeId) -> Self {
        self.author = author;
        (self.born, self.buried) = match known {
            None => (0, Vec::new()),
            Some(known) if known.dropped && !self.dropped => {
                let mut buried = known.buried.clone();
                buried.push(known.born);
                let excess = buried.len().saturating_sub(MAX_BURIED);
                buried.drain(..excess);
                (known.version, buried)
            }
            Some(known) => (known.born, known.buried.clone()),
        };
        self.version = self.version.max(known.map_or(0, |known| known.version)) + 1;
        self
    }

    /// Whether the definition makes sense.
    pub fn check(&self) -> Result<(), KeyspaceError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.bytes().all(plain) {
            return Err(KeyspaceError::Name);
        }
        if self.name != DEFAULT_NAME && self.id() < KeyspaceId::FIRST {
            return Err(KeyspaceError::Reserved);
        }
        let fits = |quorum: u8| (1..=self.n).contains(&quorum);
        if self.n > MAX_DEPTH || !fits(self.r) || !fits(self.w) {
            return Err(KeyspaceError::Quorum);
        }
        let older = self.buried.is_sorted_by(|a, b| a < b)
            && self.buried.last().is_none_or(|last| *last < self.born);
        let lives_on = self.name != DEFAULT_NAME || (self.born == 0 && !self.dropped);
        if !older || !lives_on || self.buried.len() > MAX_BURIED || self.born > self.version {
            return Err(KeyspaceError::Lineage);
        }
        let long = |text: &String| text.len() > MAX_OPTION;
        let sorted = self.options.is_sorted_by(|a, b| a.0 < b.0);
        let too_long = self.options.iter().any(|(name, value)| long(name) || long(value));
        match self.options.len() > MAX_OPTIONS || too_long || !sorted {
            true => Err(KeyspaceError::Options),
            false => Ok(()),
        }
    }

    /// Whether this definition replaces `other` of the same id everywhere.
    pub fn wins_over(&self, other: &Keyspace) -> bool {
        self.order() > other.order()
    }

    /// What decides between two definitions.
    pub fn rank(&self) -> Rank {
        let Keyspace { born, dropped, version, author, .. } = *self;
        Rank { born, dropped, version, author }
    }

    /// The order of definitions; the parts behind the rank only tell a bug or a forgery apart.
    fn order(&self) -> impl Ord + '_ {
        let lww = self.conflicts == Conflicts::LastWriteWins;
        let rest = (self.n, self.r, self.w, lww, &self.options, &self.name, &self.buried);
        (self.rank(), rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyspace(name: &str) -> Keyspace {
        Keyspace {
            name: name.to_owned(),
            born: 0,
            buried: Vec::new(),
            version: 0,
            author: NodeId(0),
            dropped: false,
            n: 3,
            r: 2,
            w: 2,
            conflicts: Conflicts::Siblings,
            options: Vec::new(),
        }
    }

    #[test]
    fn each_life_of_a_name_has_data_of_its_own_and_buries_the_earlier_ones() {
        let me = NodeId(1);
        let mut present = keyspace("carts").following(None, me);
        let mut stores = vec![present.store()];
        assert_eq!(present.store(), KeyspaceId::of("carts"), "as before there were drops");
        for life in 1..40 {
            let dropped = Keyspace { dropped: true, ..present.clone() };
            let dropped = dropped.following(Some(&present), me);
            assert!(dropped.wins_over(&present) && dropped.check().is_ok());
            assert!(dropped.gone().any(|id| id == *stores.last().unwrap()));
            // Whoever does not know of the drop changes what there no longer is.
            let late = Keyspace { version: u64::MAX / 2, r: 1, ..present.clone() };
            let late = late.following(Some(&present), NodeId(9));
            assert!(late.version > dropped.version && dropped.wins_over(&late));
            present = keyspace("carts").following(Some(&dropped), me);
            assert!(present.wins_over(&dropped) && present.wins_over(&late));
            assert_eq!(present.check(), Ok(()), "life {life}");
            let gone: Vec<_> = present.gone().collect();
            let kept = stores.len().saturating_sub(MAX_BURIED);
            assert_eq!(gone, stores[kept..], "life {life}");
            assert!(!stores.contains(&present.store()));
            stores.push(present.store());
        }
        // Two nodes that create it after the same drop mean the same data.
        let dropped = Keyspace { dropped: true, ..present.clone() };
        let dropped = dropped.following(Some(&present), me);
        let created = |author| keyspace("carts").following(Some(&dropped), NodeId(author));
        assert_eq!(created(3).store(), created(4).store());
    }
}
