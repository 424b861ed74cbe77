//! The numbers that name things. Newtypes, so that one cannot be taken for another.

use std::fmt;

/// A fixed part of the hash space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// Stands for "no partition" where a format has a fixed field. Never a real partition:
    /// there are at most [`MAX_PARTITIONS`](crate::placement::partition::MAX_PARTITIONS).
    pub const NONE: PartitionId = PartitionId(u16::MAX);

    /// The partition's place in a list of partitions.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.0)
    }
}

/// One core of a node. Data cores are numbered from zero; the control core's address is the
/// number of data cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CoreId(pub u16);

impl CoreId {
    /// Stands for "any core" or "unknown" where a format has a fixed field.
    pub const ANY: CoreId = CoreId(u16::MAX);

    /// The core's place in a list of cores.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}", self.0)
    }
}

/// A node's identity, drawn at random when its data folder is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u128);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One life of a replica's data: issued once, persisted before its first dot, replaced after any
/// loss of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The version of a partition's placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}", self.0)
    }
}

/// Who writes versions of a key: a replica of its partition in one incarnation. The partition
/// follows from the key, so the incarnation alone names the actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Actor(pub u64);

impl From<Incarnation> for Actor {
    fn from(incarnation: Incarnation) -> Self {
        Actor(incarnation.0)
    }
}
