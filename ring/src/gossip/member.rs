//! A node as it describes itself.

use crate::ids::{Incarnation, NodeId};

/// Longest address, bytes.
pub const MAX_ADDRESS: usize = 255;

/// How far a generation may be ahead of the known one: a year, in seconds. More is corruption.
pub const MAX_GENERATION_AHEAD: u64 = 366 * 24 * 3600;

/// What a node says of its own part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Standing {
    /// Holds no data yet.
    Joining = 1,
    /// Serves.
    Up = 2,
    /// Is giving its data away.
    Leaving = 3,
    /// Gone for good. Never forgotten, so that nothing old brings it back.
    Left = 4,
}

impl Standing {
    /// The standing of a number.
    pub fn from_u8(number: u8) -> Option<Self> {
        [Self::Joining, Self::Up, Self::Leaving, Self::Left]
            .into_iter()
            .find(|standing| *standing as u8 == number)
    }
}

/// How new a node's description of itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Newness {
    /// When the node started, in seconds since the Unix epoch; always higher than before.
    pub generation: u64,
    /// Rises with every change of the description.
    pub version: u64,
    /// Rises while the node's data cores make progress: its heartbeat.
    pub beat: u64,
}

impl Newness {
    /// Whether the description differs, not only the heartbeat.
    pub fn same_description(&self, other: &Newness) -> bool {
        (self.generation, self.version) == (other.generation, other.version)
    }
}

/// A node's description of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// How new this is.
    pub newness: Newness,
    /// The life of its data.
    pub incarnation: Incarnation,
    /// Its part in the cluster.
    pub standing: Standing,
    /// Where clients connect, `host:port`.
    pub client_address: String,
    /// Where other nodes connect, `host:port`.
    pub peer_address: String,
    /// What it shares its fate with.
    pub rack: String,
    /// Its share of the data relative to the others.
    pub weight: u32,
    /// Data cores.
    pub cores: u16,
}
