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

/// Names a keyspace in messages and on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// The id of a name.
    pub fn of(name: &str) -> Self {
        KeyspaceId(key_hash(name.as_bytes()) as u32) // the low half
    }
}

/// A keyspace that cannot exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyspaceError {
    /// Empty or too long.
    #[error("keyspace name must have 1 to {MAX_NAME} bytes")]
    Name,
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
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return Err(KeyspaceError::Name);
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
