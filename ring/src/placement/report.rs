//! What an operator wants to know of a table, and of a change before making it.

use super::quota::quotas;
use super::table::Table;
use crate::ids::{NodeId, PartitionId};

/// One node's part of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeShare {
    /// Who.
    pub id: NodeId,
    /// Its rack.
    pub rack: String,
    /// Its weight.
    pub weight: u32,
    /// Partitions it holds.
    pub held: usize,
    /// Partitions it should hold by weight, racks permitting.
    pub quota: usize,
    /// Partitions whose list it heads.
    pub first: usize,
}

/// What a table is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Every node, ascending by id.
    pub nodes: Vec<NodeShare>,
    /// The largest distance of a node from its quota, in partitions.
    pub off_quota: usize,
    /// Partitions with fewer replicas than the table has places: too few nodes.
    pub short: usize,
    /// Partitions on fewer racks than they have replicas.
    pub racks_shared: usize,
    /// Those of them for which better could be had with these racks.
    pub racks_violated: usize,
}

/// What going from one table to another moves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moves {
    /// Replicas in the new table.
    pub replicas: usize,
    /// Replicas that have to be built where there was none.
    pub moved: usize,
    /// Partitions whose list begins with another node: what a keyspace with N = 1 moves.
    pub first_moved: usize,
    /// Nodes of the new table that receive, with how many partitions each.
    pub received: Vec<(NodeId, usize)>,
    /// Nodes of the old table that give away, with how many partitions each.
    pub given: Vec<(NodeId, usize)>,
}

impl Table {
    /// Balance and rack violations.
    pub fn balance(&self) -> Balance {
        let (mut held, mut first) = (vec![0; self.nodes.len()], vec![0; self.nodes.len()]);
        for list in self.places.chunks(usize::from(self.depth)) {
            for (at, place) in list.iter().enumerate() {
                let Some(held) = held.get_mut(usize::from(*place)) else { continue };
                *held += 1;
                first[usize::from(*place)] += usize::from(at == 0);
            }
        }
        let partitions = self.partitions() as usize;
        let quotas = quotas(&self.nodes, partitions, usize::from(self.depth), &held);
        let mut balance = Balance {
            nodes: Vec::with_capacity(self.nodes.len()),
            off_quota: 0,
            short: 0,
            racks_shared: 0,
            racks_violated: 0,
        };
        for (at, node) in self.nodes.iter().enumerate() {
            let (held, quota, first) = (held[at], quotas.of_node[at], first[at]);
            balance.off_quota = balance.off_quota.max(held.abs_diff(quota));
            let (id, rack, weight) = (node.id, node.rack.clone(), node.weight);
            balance.nodes.push(NodeShare { id, rack, weight, held, quota, first });
        }
        for partition in 0..partitions {
            let mut racks: Vec<_> =
                self.list(PartitionId(partition as u16)).map(|node| node.rack.as_str()).collect();
            balance.short += usize::from(racks.len() < usize::from(self.depth));
            racks.sort_unstable();
            let largest = racks.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
            balance.racks_shared += usize::from(largest > 1);
            balance.racks_violated += usize::from(largest > quotas.per_rack);
        }
        balance
    }

    /// What going from this table to `next` moves. Both must have as many partitions.
    pub fn moves_to(&self, next: &Table) -> Moves {
        let mut moves = Moves::default();
        let mut received = vec![0; next.nodes.len()];
        let mut given = vec![0; self.nodes.len()];
        for partition in 0..next.partitions() {
            let partition = PartitionId(partition as u16); // at most 2^15
            let (old, new) =
                (self.preference(partition, self.depth), next.preference(partition, next.depth));
            moves.replicas += new.len();
            moves.first_moved += usize::from(old.first() != new.first());
            for id in new.iter().filter(|id| !old.contains(id)) {
                moves.moved += 1;
                let at = next.nodes.binary_search_by_key(id, |node| node.id);
                at.into_iter().for_each(|at| received[at] += 1);
            }
            for id in old.iter().filter(|id| !new.contains(id)) {
                let at = self.nodes.binary_search_by_key(id, |node| node.id);
                at.into_iter().for_each(|at| given[at] += 1);
            }
        }
        let named = |table: &Table, counts: Vec<usize>| {
            let ids = table.nodes.iter().map(|node| node.id);
            ids.zip(counts).filter(|(_, count)| *count > 0).collect()
        };
        moves.received = named(next, received);
        moves.given = named(self, given);
        moves
    }
}
