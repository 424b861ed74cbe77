//! The cluster as its nodes describe it.

use coronet_ring::{Epoch, NodeId, PartitionId, Table};

use super::ClientError;
use crate::codec::{TopologyNode, TopologyReply};

/// Nodes of a cluster and where partitions are, as one of the nodes sees it.
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// if let Some(topology) = client.topology().await?
///     && let Some(partition) = topology.partition_of(b"key")
/// {
///     for id in topology.replicas_of(partition) {
///         println!("{id} at {:?}", topology.node(id).map(|node| &node.address));
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Replicas of a key.
    pub replicas: u8,
    /// The nodes, ascending by id.
    pub nodes: Vec<TopologyNode>,
    /// Which nodes hold which partition; `None` while the nodes have not all met.
    pub table: Option<Table>,
}

impl Topology {
    pub(super) fn new(reply: TopologyReply) -> Result<Self, ClientError> {
        let TopologyReply { replicas, nodes, table } = reply;
        let table = match table.as_slice() {
            [] => None,
            bytes => Some(
                Table::decode(bytes).map_err(|error| ClientError::Protocol(error.to_string()))?,
            ),
        };
        Ok(Self { replicas, nodes, table })
    }

    /// The version of the placement; zero before there is one.
    pub fn epoch(&self) -> Epoch {
        self.table.as_ref().map_or(Epoch(0), Table::epoch)
    }

    /// The node of an id.
    pub fn node(&self, id: NodeId) -> Option<&TopologyNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The replicas of a partition in order of preference; empty for a partition that does not
    /// exist.
    pub fn replicas_of(&self, partition: PartitionId) -> Vec<NodeId> {
        self.table.as_ref().map_or_else(Vec::new, |t| t.preference(partition, self.replicas))
    }

    /// The partition of a key, once there is a placement.
    pub fn partition_of(&self, key: &[u8]) -> Option<PartitionId> {
        self.table.as_ref().map(|table| table.partition_of(key))
    }
}
