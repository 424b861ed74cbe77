//! Making a table, and changing it with few moves.
//!
//! A node gives away only what it holds beyond its quota, and only to nodes below theirs, so a
//! join moves exactly the share of the newcomer. Deterministic: every node computes the same table
//! from the same nodes and the same table before.

use std::collections::VecDeque;

use super::order;
use super::quota::{Quotas, quotas};
use super::table::{EMPTY, MAX_DEPTH, MAX_NODES, MAX_RACK, PlacedNode, Table, TableError, scatter};
use crate::ids::Epoch;
use crate::placement::partition::MAX_PARTITIONS;

impl Table {
    /// The table of a new cluster: `depth` replicas of each of `partitions`.
    pub fn create(
        epoch: Epoch,
        partitions: u32,
        depth: u8,
        nodes: Vec<PlacedNode>,
    ) -> Result<Table, TableError> {
        if !partitions.is_power_of_two() || partitions > MAX_PARTITIONS {
            return Err(TableError::Partitions(partitions));
        }
        if depth == 0 || depth > MAX_DEPTH {
            return Err(TableError::Depth(depth));
        }
        let places = vec![EMPTY; partitions as usize * usize::from(depth)];
        let empty = Table { epoch, depth, nodes: Vec::new(), places };
        empty.change(epoch, nodes)
    }

    /// The next table: the same partitions on these nodes. Nodes may come, go, change their weight
    /// or rack.
    pub fn change(&self, epoch: Epoch, mut nodes: Vec<PlacedNode>) -> Result<Table, TableError> {
        nodes.sort();
        let distinct = nodes.windows(2).all(|pair| pair[0].id != pair[1].id);
        let some = nodes.iter().any(|node| node.weight > 0);
        if !distinct || !some || nodes.len() > MAX_NODES {
            return Err(TableError::Nodes(nodes.len()));
        }
        if let Some(long) = nodes.iter().map(|node| node.rack.len()).find(|len| *len > MAX_RACK) {
            return Err(TableError::Rack(long));
        }
        let mut plan = Plan::new(self, nodes);
        plan.fill();
        plan.mend_racks();
        plan.balance();
        let Plan { nodes, lists, quotas, racks, .. } = plan;
        let lists = order::order(lists, &racks, nodes.len(), quotas.replicas);
        let depth = usize::from(self.depth);
        let mut places = Vec::with_capacity(lists.len() * depth);
        for list in lists {
            places.extend(list.iter().copied().chain(std::iter::repeat(EMPTY)).take(depth));
        }
        Ok(Table { epoch, depth: self.depth, nodes, places })
    }
}

/// A table in the making.
struct Plan {
    nodes: Vec<PlacedNode>,
    /// Number of each node's rack.
    racks: Vec<u16>,
    quotas: Quotas,
    /// Per partition the nodes that hold it.
    lists: Vec<Vec<u16>>,
    /// Per node how many it holds.
    held: Vec<usize>,
    /// Per node how much it lacks, as a share of its quota in millionths; zero when it has enough.
    /// Kept, because with a thousand nodes it is looked up tens of millions of times.
    hunger: Vec<u64>,
}

impl Plan {
    /// What the old table leaves of itself on the new nodes.
    fn new(old: &Table, nodes: Vec<PlacedNode>) -> Plan {
        let mut names: Vec<&str> = nodes.iter().map(|node| node.rack.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let rack = |node: &PlacedNode| names.binary_search(&node.rack.as_str()).unwrap_or(0) as u16;
        let racks: Vec<u16> = nodes.iter().map(rack).collect(); // at most MAX_NODES
        let new_index: Vec<Option<u16>> = old
            .nodes
            .iter()
            .map(|node| nodes.binary_search_by_key(&node.id, |new| new.id).ok())
            .map(|at| at.filter(|at| nodes[*at].weight > 0).map(|at| at as u16))
            .collect();
        let keep = |place: &u16| new_index.get(usize::from(*place)).copied().flatten();
        let depth = usize::from(old.depth);
        let mut lists: Vec<Vec<u16>> =
            old.places.chunks(depth).map(|list| list.iter().filter_map(keep).collect()).collect();
        let mut held = vec![0; nodes.len()];
        lists.iter().flatten().for_each(|node| held[usize::from(*node)] += 1);
        let quotas = quotas(&nodes, lists.len(), depth, &held);
        for list in &mut lists {
            for extra in list.drain(quotas.replicas.min(list.len())..) {
                held[usize::from(extra)] -= 1;
            }
        }
        let hunger = vec![0; nodes.len()];
        let mut plan = Plan { nodes, racks, quotas, lists, held, hunger };
        (0..plan.nodes.len()).for_each(|node| plan.feel(node));
        plan
    }

    /// Whether `node` may hold the partition once `leaving` no longer does.
    fn fits(&self, list: &[u16], leaving: Option<u16>, node: u16) -> bool {
        let rack = self.racks[usize::from(node)];
        let mut same_rack = 0;
        for other in list {
            if *other == node {
                return false;
            }
            let counts = Some(*other) != leaving && self.racks[usize::from(*other)] == rack;
            same_rack += usize::from(counts);
        }
        same_rack < self.quotas.per_rack
    }

    /// Notes how hungry a node is after its number of replicas changed. Quotas are far below a
    /// million: whoever lacks one is hungry.
    fn feel(&mut self, node: usize) {
        let (quota, held) = (self.quotas.of_node[node], self.held[node]);
        let lacks = quota.saturating_sub(held) as u64;
        self.hunger[node] = lacks * 1_000_000 / quota.max(1) as u64;
    }

    /// The hungriest of the nodes that may take the partition in place of `leaving`.
    fn taker(&self, partition: usize, leaving: Option<u16>) -> Option<u16> {
        let list = &self.lists[partition];
        let mut best = (1, 0);
        let mut found = None;
        for (node, hunger) in self.hunger.iter().enumerate() {
            // By far the most nodes end here.
            if *hunger < best.0 || !self.fits(list, leaving, node as u16) {
                continue;
            }
            let wish = (*hunger, scatter(partition as u16, self.nodes[node].id)); // at most 2^15
            if wish >= best {
                (best, found) = (wish, Some(node as u16));
            }
        }
        found
    }

    /// Gives every partition as many replicas as there can be.
    fn fill(&mut self) {
        for replica in 0..self.quotas.replicas {
            for partition in 0..self.lists.len() {
                if self.lists[partition].len() > replica {
                    continue;
                }
                let chosen = self.taker(partition, None).or_else(|| self.anybody(partition));
                if let Some(node) = chosen {
                    self.lists[partition].push(node);
                    self.held[usize::from(node)] += 1;
                    self.feel(usize::from(node));
                }
            }
        }
    }

    /// The node that holds least, on a fitting rack if there is one; balancing follows.
    fn anybody(&self, partition: usize) -> Option<u16> {
        let list = &self.lists[partition];
        (0..self.nodes.len() as u16)
            .filter(|node| self.nodes[usize::from(*node)].weight > 0 && !list.contains(node))
            .min_by_key(|node| (!self.fits(list, None, *node), self.held[usize::from(*node)]))
    }

    fn replace(&mut self, partition: usize, leaving: u16, coming: u16) {
        if let Some(place) = self.lists[partition].iter_mut().find(|node| **node == leaving) {
            *place = coming;
            self.held[usize::from(leaving)] -= 1;
            self.held[usize::from(coming)] += 1;
            self.feel(usize::from(leaving));
            self.feel(usize::from(coming));
        }
    }

    /// Moves replicas away from racks that hold too many of a partition, where that is possible.
    fn mend_racks(&mut self) {
        for partition in 0..self.lists.len() {
            for leaving in self.lists[partition].clone() {
                let rack = self.racks[usize::from(leaving)];
                let on_rack = |node: &&u16| self.racks[usize::from(**node)] == rack;
                if self.lists[partition].iter().filter(on_rack).count() <= self.quotas.per_rack {
                    continue;
                }
                let list = &self.lists[partition];
                let other = (0..self.nodes.len() as u16)
                    .filter(|node| self.nodes[usize::from(*node)].weight > 0)
                    .filter(|node| self.fits(list, Some(leaving), *node))
                    .max_by_key(|node| {
                        let at = usize::from(*node);
                        let (quota, held) = (self.quotas.of_node[at], self.held[at]);
                        (quota as i64 - held as i64, scatter(partition as u16, self.nodes[at].id))
                    });
                if let Some(coming) = other {
                    self.replace(partition, leaving, coming);
                }
            }
        }
    }

    /// Moves replicas from nodes beyond their quota to nodes below it.
    fn balance(&mut self) {
        let over = |plan: &Plan, node: &usize| plan.held[*node] > plan.quotas.of_node[*node];
        let mut stuck = vec![false; self.nodes.len()];
        loop {
            let fullest = (0..self.nodes.len())
                .filter(|node| over(self, node) && !stuck[*node])
                .max_by_key(|node| self.held[*node] - self.quotas.of_node[*node]);
            let Some(giver) = fullest else { return };
            if !self.give(giver as u16) && !self.give_through_others(giver as u16) {
                stuck[giver] = true;
            }
        }
    }

    /// Gives one replica straight to a node below its quota.
    fn give(&mut self, giver: u16) -> bool {
        let id = self.nodes[usize::from(giver)].id;
        let mut holds: Vec<usize> =
            (0..self.lists.len()).filter(|p| self.lists[*p].contains(&giver)).collect();
        holds.sort_unstable_by_key(|partition| scatter(*partition as u16, id));
        for partition in holds {
            if let Some(taker) = self.taker(partition, Some(giver)) {
                self.replace(partition, giver, taker);
                return true;
            }
        }
        false
    }

    /// Gives one replica to a node that gives another on, and so forth: racks may leave no
    /// straight way. The shortest chain is taken.
    fn give_through_others(&mut self, giver: u16) -> bool {
        let mut came_by: Vec<Option<(u16, usize)>> = vec![None; self.nodes.len()];
        let mut queue = VecDeque::from([giver]);
        while let Some(from) = queue.pop_front() {
            for partition in 0..self.lists.len() {
                if !self.lists[partition].contains(&from) {
                    continue;
                }
                for to in 0..self.nodes.len() as u16 {
                    let at = usize::from(to);
                    let known = to == giver || came_by[at].is_some() || self.nodes[at].weight == 0;
                    if known || !self.fits(&self.lists[partition], Some(from), to) {
                        continue;
                    }
                    came_by[at] = Some((from, partition));
                    if self.hunger[at] > 0 {
                        let before = self.held[usize::from(giver)];
                        self.follow(giver, to, &came_by);
                        return self.held[usize::from(giver)] < before;
                    }
                    queue.push_back(to);
                }
            }
        }
        false
    }

    /// Makes the moves of a chain, last first. Each was allowed for its partition as it stood; a
    /// partition that occurs twice is checked again and left where it no longer fits.
    fn follow(&mut self, giver: u16, last: u16, came_by: &[Option<(u16, usize)>]) {
        let mut to = last;
        while to != giver {
            let Some((from, partition)) = came_by[usize::from(to)] else { return };
            if self.fits(&self.lists[partition], Some(from), to) {
                self.replace(partition, from, to);
            }
            to = from;
        }
    }
}
