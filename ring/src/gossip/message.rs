//! What gossiping nodes send.

use super::keyspace::{Keyspace, KeyspaceId};
use super::member::{Member, Newness};
use crate::ids::{Epoch, NodeId};

/// Most members a digest names; with more members a digest is a window of them.
pub const MAX_DIGEST: usize = 1024;

/// Most keyspaces of a cluster.
pub const MAX_KEYSPACES: usize = 1024;

/// Which cluster a message is about. Two clusters never mix, whatever their seeds say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterName {
    /// Drawn at random when the cluster is created.
    pub id: u128,
    /// Hash of what the first placement was computed from.
    pub founding: u64,
}

/// What a node knows, in short.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest {
    /// Members and how new their descriptions are, ascending by id.
    pub members: Vec<(NodeId, Newness)>,
    /// Whether these are all.
    pub complete: bool,
    /// Keyspaces with version and author, ascending by id.
    pub keyspaces: Vec<(KeyspaceId, u64, NodeId)>,
    /// The placement table's epoch; zero for none.
    pub table: Epoch,
    /// Hash of the encoded table: tells two tables of one epoch apart.
    pub table_check: u64,
}

/// What a node knows better, and what it wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// Descriptions.
    pub members: Vec<Member>,
    /// Heartbeats of members whose description the other has.
    pub beats: Vec<(NodeId, Newness)>,
    /// Definitions.
    pub keyspaces: Vec<Keyspace>,
    /// The encoded placement table.
    pub table: Option<Vec<u8>>,
    /// What the sender knows, so that the other can send what it knows better; empty in the last
    /// message of an exchange.
    pub want: Option<Digest>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Opens an exchange.
    Digest(Digest),
    /// Answers a digest, or ends an exchange.
    Delta(Delta),
}

/// A message with its sender's cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The sender's cluster.
    pub cluster: ClusterName,
    /// The sender.
    pub from: NodeId,
    /// The content.
    pub body: Body,
}
