//! How many replicas each node should hold.
//!
//! By weight, but no node can hold a partition twice and no rack more of a partition than its
//! share: what a large node or rack cannot take is spread over the others.

use std::collections::BTreeMap;

use super::table::PlacedNode;

/// The bounds a plan keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quotas {
    /// Replicas of a partition that exist: the depth, or the number of nodes with a weight.
    pub replicas: usize,
    /// Most replicas of one partition on one rack.
    pub per_rack: usize,
    /// Replicas each node should hold.
    pub of_node: Vec<usize>,
}

/// Computes the quotas; `held` decides who gets the odd replica, so that nothing moves for it.
pub(super) fn quotas(
    nodes: &[PlacedNode],
    partitions: usize,
    depth: usize,
    held: &[usize],
) -> Quotas {
    let mut racks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.weight > 0) {
        racks.entry(node.rack.as_str()).or_default().push(index);
    }
    let replicas = racks.values().map(Vec::len).sum::<usize>().min(depth);
    let fits = |limit: usize| racks.values().map(|rack| rack.len().min(limit)).sum::<usize>();
    let per_rack = (1..=replicas.max(1)).find(|limit| fits(*limit) >= replicas).unwrap_or(1);
    let mut of_node = vec![0; nodes.len()];
    let mut left = partitions * replicas;
    let mut free: Vec<Vec<usize>> = racks.into_values().collect();
    let weight = |members: &[usize]| {
        members.iter().map(|node| u128::from(nodes[*node].weight)).sum::<u128>()
    };
    loop {
        let all: u128 = free.iter().map(|rack| weight(rack)).sum();
        let too_much =
            |members: &[usize], most: usize| weight(members) * left as u128 > most as u128 * all;
        // The whole rack first: capping one of its nodes gives the others more, not less.
        if let Some(at) = free.iter().position(|rack| {
            let most = rack.len().min(per_rack) * partitions;
            too_much(rack, most)
        }) {
            let rack = free.swap_remove(at);
            let share = rack.len().min(per_rack) * partitions;
            divide(nodes, rack, share, partitions, held, &mut of_node);
            left -= share.min(left);
            continue;
        }
        let members: Vec<usize> = free.into_iter().flatten().collect();
        divide(nodes, members, left, partitions, held, &mut of_node);
        return Quotas { replicas, per_rack, of_node };
    }
}

/// Divides `share` by weight, none more than `most`; what is odd goes to those who hold most.
fn divide(
    nodes: &[PlacedNode],
    mut members: Vec<usize>,
    mut share: usize,
    most: usize,
    held: &[usize],
    of_node: &mut [usize],
) {
    loop {
        let all: u128 = members.iter().map(|node| u128::from(nodes[*node].weight)).sum();
        let product = |node: usize| u128::from(nodes[node].weight) * share as u128;
        let full = members.iter().position(|node| product(*node) > most as u128 * all);
        if let Some(at) = full {
            of_node[members.swap_remove(at)] = most;
            share -= most.min(share);
            continue;
        }
        if all == 0 {
            return;
        }
        let mut odd: Vec<_> = members
            .iter()
            .map(|&node| {
                of_node[node] = (product(node) / all) as usize; // at most `share`
                (product(node) % all, held[node], std::cmp::Reverse(nodes[node].id), node)
            })
            .collect();
        let given: usize = members.iter().map(|node| of_node[*node]).sum();
        odd.sort_unstable_by(|a, b| b.cmp(a));
        for (.., node) in odd.into_iter().take(share - given) {
            of_node[node] += 1;
        }
        return;
    }
}
