//! The explicit table: for each partition the nodes that hold it, in order of preference.

use std::collections::BTreeSet;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::partition::MAX_PARTITIONS;
use crate::hash::key_hash;
use crate::ids::{Epoch, NodeId, PartitionId};

/// Most nodes of a cluster. Bounds what is decoded.
pub const MAX_NODES: usize = 4096;

/// Most replicas a table can hold of a partition: the largest N of any keyspace.
pub const MAX_DEPTH: u8 = 16;

/// Longest name of a rack, bytes.
pub const MAX_RACK: usize = 64;

/// A place of a table that no node fills: there are fewer nodes than replicas wanted.
pub(super) const EMPTY: u16 = u16::MAX;

/// A node as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlacedNode {
    /// Who.
    pub id: NodeId,
    /// What it shares its fate with: replicas of a partition go to distinct racks.
    pub rack: String,
    /// Its share of the data relative to the others; zero: it holds nothing.
    pub weight: u32,
}

/// A table that cannot exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TableError {
    /// The number of partitions is no power of two, or out of bounds.
    #[error("{0} partitions: must be a power of two from 1 to {MAX_PARTITIONS}")]
    Partitions(u32),
    /// Out of bounds.
    #[error("{0} replicas: must be from 1 to {MAX_DEPTH}")]
    Depth(u8),
    /// Too many nodes, one of them twice, or none that may hold data.
    #[error("{0} nodes: must be distinct, at most {MAX_NODES}, and one must have a weight")]
    Nodes(usize),
    /// The name of a rack is too long.
    #[error("rack name of {0} bytes: at most {MAX_RACK}")]
    Rack(usize),
    /// Bytes that are no table: cut off, changed, or of a later version.
    #[error("placement table is damaged or of an unknown version")]
    Damaged,
}

/// Which nodes hold which partition. A list for fewer replicas is the beginning of the list for
/// more, so keyspaces with different N share one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub(super) epoch: Epoch,
    pub(super) depth: u8,
    /// Ascending by id.
    pub(super) nodes: Vec<PlacedNode>,
    /// `depth` places per partition, indexes of `nodes` or `EMPTY` at the end.
    pub(super) places: Vec<u16>,
}

impl Table {
    /// The version of the table; every change makes a higher one.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u32 {
        (self.places.len() / usize::from(self.depth)) as u32 // at most 2^15
    }

    /// Places per partition: the largest N a keyspace can have.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The nodes, ascending by id.
    pub fn nodes(&self) -> &[PlacedNode] {
        &self.nodes
    }

    /// The node of an id.
    pub fn node(&self, id: NodeId) -> Option<&PlacedNode> {
        let at = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        self.nodes.get(at)
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &[u8]) -> PartitionId {
        let bits = self.partitions().trailing_zeros();
        PartitionId(((key_hash(key) >> 1) >> (63 - bits)) as u16) // at most 15 bits
    }

    /// The first `n` nodes of a partition's list; fewer when the table holds fewer.
    pub fn preference(&self, partition: PartitionId, n: u8) -> Vec<NodeId> {
        let list = self.list(partition).take(usize::from(n));
        list.map(|node| node.id).collect()
    }

    /// Who stands in for the first `n` nodes of a partition, best first: the rest of the list,
    /// then every other node with a weight, those on racks without a replica before the others.
    pub fn fallbacks(&self, partition: PartitionId, n: u8) -> Vec<NodeId> {
        let listed: Vec<_> = self.list(partition).collect();
        let homes = &listed[..usize::from(n).min(listed.len())];
        let racks: BTreeSet<&str> = homes.iter().map(|node| node.rack.as_str()).collect();
        let mut others: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.weight > 0 && !homes.iter().any(|home| home.id == node.id))
            .map(|node| {
                let listed_at = listed.iter().position(|other| other.id == node.id);
                let rest = listed_at.unwrap_or(usize::MAX);
                (rest, racks.contains(node.rack.as_str()), scatter(partition.0, node.id), node.id)
            })
            .collect();
        others.sort_unstable();
        others.into_iter().map(|(.., id)| id).collect()
    }

    pub(super) fn list(&self, partition: PartitionId) -> impl Iterator<Item = &PlacedNode> {
        let depth = usize::from(self.depth);
        let start = partition.index() * depth;
        let places = self.places.get(start..start + depth).unwrap_or_default();
        places.iter().filter_map(|place| self.nodes.get(usize::from(*place)))
    }
}

/// A fixed shuffle of nodes per partition: breaks ties without making neighbours of the same.
pub(super) fn scatter(partition: u16, id: NodeId) -> u64 {
    let mut bytes = [0; 18];
    bytes[..2].copy_from_slice(&partition.to_le_bytes());
    bytes[2..].copy_from_slice(&id.0.to_le_bytes());
    xxh3_64(&bytes)
}
