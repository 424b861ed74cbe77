//! What a coordinator asks of a replica, and what a replica answers.
//!
//! Contexts and tokens pass through the coordinator unread: the replica that names a write checks
//! them, because it is the one that could destroy versions by believing them.

use thiserror::Error;

use crate::causality::hlc::Hlc;
use crate::causality::object::Token;
use crate::hash::key_hash;
use crate::ids::NodeId;

/// When a write counts as stored by a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After the disk confirmed it.
    #[default]
    Durable,
    /// Once written, synced within an interval.
    Buffered,
}

/// A client's write, to be named and applied by one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWrite {
    /// The new value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// The client's context as it came; empty for a blind write.
    pub context: Vec<u8>,
    /// Whether the write supersedes every version the replica has.
    pub replace: bool,
    /// The client's name for the write.
    pub token: Option<Token>,
}

/// A request to one replica, about one key or partition that both sides know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Name and apply a client's write; answer [`Answer::Named`], then perhaps
    /// [`Answer::Stored`].
    Name {
        /// The write.
        write: NewWrite,
        /// When it counts as stored.
        durability: Durability,
        /// The replica this node stands in for.
        hint_for: Option<NodeId>,
    },
    /// Merge an object; answer [`Answer::Stored`].
    Merge {
        /// Encoded.
        object: Vec<u8>,
        /// When it counts as stored.
        durability: Durability,
        /// The replica this node stands in for.
        hint_for: Option<NodeId>,
    },
    /// Read a key; answer [`Answer::Copy`] or, if the object is longer than `inline`,
    /// [`Answer::Digest`].
    Read {
        /// Longest object to be sent whole, bytes.
        inline: u32,
    },
    /// List keys of a partition; answer [`Answer::Keys`].
    List {
        /// What the keys begin with.
        prefix: Vec<u8>,
        /// The last key already listed; `None` at the start.
        after: Option<Vec<u8>>,
        /// Most entries.
        limit: u32,
    },
}

/// A key with its object, lengths instead of values: enough to tell what lives and how large it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// The key.
    pub key: Vec<u8>,
    /// Its encoded object with lengths for values, see
    /// [`outline`](crate::causality::resolve::outline).
    pub outline: Vec<u8>,
}

/// What a replica answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The write has a name and is applied; others may merge the object.
    Named {
        /// The object to spread, encoded.
        object: Vec<u8>,
        /// What the writer has seen now, encoded for the client.
        context: Vec<u8>,
        /// The version's timestamp.
        hlc: Hlc,
        /// Versions the key has now.
        versions: u16,
        /// Whether it is already stored as durably as asked. If not, [`Answer::Stored`] follows.
        stored: bool,
    },
    /// Stored as durably as asked.
    Stored,
    /// The replica's copy of the key; `None`: it has none.
    Copy(Option<Vec<u8>>),
    /// The replica's copy is longer than asked for; its [`digest`].
    Digest(u64),
    /// Keys in order.
    Keys {
        /// The entries.
        entries: Vec<ListedKey>,
        /// Whether these are all to the end of the partition.
        complete: bool,
    },
    /// Not done.
    Refused(Refusal),
}

/// Why a replica did not do what it was asked. Nothing was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Overload.
    #[error("replica is busy")]
    Busy,
    /// It does not hold the partition, or not yet: it cannot say that something is absent.
    #[error("node is no replica of the partition")]
    NotReplica,
    /// No room for writes.
    #[error("replica's disk is full")]
    DiskFull,
    /// The node is stopping.
    #[error("replica is shutting down")]
    ShuttingDown,
    /// Stored data failed its checksum.
    #[error("replica's copy is corrupt")]
    Corrupt,
    /// The replica lost data and waits for a new incarnation.
    #[error("replica is fenced until it has a new incarnation")]
    Fenced,
    /// The context is damaged, forged, or belongs to another key or cluster.
    #[error("bad context")]
    BadContext,
    /// The key has too many unresolved versions.
    #[error("too many unresolved versions")]
    TooManyVersions,
    /// A field makes no sense or exceeds a limit.
    #[error("invalid request")]
    Invalid,
    /// It does not know the keyspace, or not yet: it cannot say that something is absent.
    #[error("replica does not know the keyspace yet")]
    UnknownKeyspace,
}

impl Refusal {
    /// Whether every replica would answer so: asking another is useless.
    pub fn is_final(self) -> bool {
        matches!(self, Refusal::BadContext | Refusal::TooManyVersions | Refusal::Invalid)
    }
}

/// The digest of an encoded object. Copies that have seen the same have the same bytes.
pub fn digest(object: &[u8]) -> u64 {
    key_hash(object)
}
