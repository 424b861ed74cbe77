//! Definitions of keyspaces, spread by gossip.
//!
//! A keyspace's id follows from its name, so that two nodes which create it at the same time mean
//! the same data. Of two definitions the one with the higher version wins, then the author with
//! the higher id, then the larger bytes: every node chooses the same.

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
    /// Another name has the same id.
    #[error("the name's id is taken by keyspace {0:?}; choose another name")]
    Taken(String),
}

/// A definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyspace {
    /// The name, unique in the cluster.
    pub name: String,
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

    /// The order of definitions; the parts behind the author only tell a bug or a forgery apart.
    fn order(&self) -> impl Ord + '_ {
        let lww = self.conflicts == Conflicts::LastWriteWins;
        let rest = (self.dropped, self.n, self.r, self.w, lww, &self.options, &self.name);
        (self.version, self.author, rest)
    }
}
