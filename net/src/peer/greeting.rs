//! The first frame of each side of a link: who it is and what it speaks.

use coronet_ring::bytes::Reader;
use coronet_ring::{Epoch, Incarnation, NodeId};
use thiserror::Error;

use super::{MIN_PEER_VERSION, PEER_VERSION};

/// Who is at this end of a link. Body: oldest and newest protocol version u8 each, cluster u64,
/// node u128, incarnation u64, epoch u64. Later versions append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Oldest protocol version spoken.
    pub min_version: u8,
    /// Newest protocol version spoken.
    pub max_version: u8,
    /// The cluster, by the hash of its name.
    pub cluster: u64,
    /// The node.
    pub node: NodeId,
    /// The life of its data.
    pub incarnation: Incarnation,
    /// The placement it knows.
    pub epoch: Epoch,
}

/// Why a link is not accepted. Body: code u8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[repr(u8)]
pub enum Refused {
    /// No protocol version in common.
    #[error("the nodes have no peer protocol version in common")]
    Version = 1,
    /// The other end belongs to another cluster.
    #[error(
        "the other node belongs to another cluster, or was founded otherwise: cluster.name, \
         cluster.nodes and the number of partitions must be the same on both"
    )]
    Cluster = 2,
    /// The other end is this very node.
    #[error(
        "the node there has this node's id: it is this one, or was started on a copy of its data \
         folder; each node needs a folder of its own"
    )]
    Myself = 3,
    /// The greeting cannot be read.
    #[error("the greeting cannot be read")]
    Unreadable = 4,
}

impl Refused {
    /// The reason of a code.
    pub fn from_u8(code: u8) -> Option<Self> {
        let all = [Self::Version, Self::Cluster, Self::Myself, Self::Unreadable];
        all.into_iter().find(|refused| *refused as u8 == code)
    }
}

impl Greeting {
    /// A greeting in this release's words.
    pub fn new(cluster: u64, node: NodeId, incarnation: Incarnation, epoch: Epoch) -> Self {
        let (min_version, max_version) = (MIN_PEER_VERSION, PEER_VERSION);
        Greeting { min_version, max_version, cluster, node, incarnation, epoch }
    }

    /// Appends the body.
    pub fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&[self.min_version, self.max_version]);
        into.extend_from_slice(&self.cluster.to_le_bytes());
        into.extend_from_slice(&self.node.0.to_le_bytes());
        into.extend_from_slice(&self.incarnation.0.to_le_bytes());
        into.extend_from_slice(&self.epoch.0.to_le_bytes());
    }

    /// Reads a body; `None` when it is too short.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        Some(Greeting {
            min_version: reader.u8()?,
            max_version: reader.u8()?,
            cluster: reader.u64()?,
            node: NodeId(reader.u128()?),
            incarnation: Incarnation(reader.u64()?),
            epoch: Epoch(reader.u64()?),
        })
    }

    /// Whether this end talks to `other`.
    pub fn accepts(&self, other: &Greeting) -> Result<(), Refused> {
        if other.min_version > self.max_version || other.max_version < self.min_version {
            Err(Refused::Version)
        } else if other.cluster != self.cluster {
            Err(Refused::Cluster)
        } else if other.node == self.node {
            Err(Refused::Myself)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(node: u128) -> Greeting {
        Greeting::new(7, NodeId(node), Incarnation(3), Epoch(2))
    }

    #[test]
    fn comes_back_and_tolerates_more() {
        let mut body = Vec::new();
        greeting(1).write(&mut body);
        for len in 0..body.len() {
            assert_eq!(Greeting::decode(&body[..len]), None);
        }
        body.push(99);
        assert_eq!(Greeting::decode(&body), Some(greeting(1)));
    }

    #[test]
    fn strangers_are_refused() {
        let me = greeting(1);
        assert_eq!(me.accepts(&greeting(2)), Ok(()));
        assert_eq!(me.accepts(&me), Err(Refused::Myself));
        let other = Greeting { cluster: 8, ..greeting(2) };
        assert_eq!(me.accepts(&other), Err(Refused::Cluster));
        let newer = Greeting { min_version: 9, max_version: 9, ..greeting(2) };
        assert_eq!(me.accepts(&newer), Err(Refused::Version));
        for refused in [Refused::Version, Refused::Cluster, Refused::Myself, Refused::Unreadable] {
            assert_eq!(Refused::from_u8(refused as u8), Some(refused));
        }
        assert_eq!(Refused::from_u8(0), None);
    }
}
