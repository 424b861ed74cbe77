//! How many replicas each node should hold.
//!
//! By weight, but no node can hold a partition twice and no rack more of a partition than its
//! share: what a large node or rack cannot take is spread over the others.

use std::cmp::Reverse;
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

/// The nodes of a rack whose quota is open, and how many replicas the rack can still take.
struct Rack {
    open: Vec<usize>,
    room: usize,
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
    let mut racks: Vec<Rack> = racks
        .into_values()
        .map(|open| Rack { room: open.len().min(per_rack) * partitions, open })
        .collect();
    let mut of_node = vec![0; nodes.len()];
    let mut left = partitions * replicas;
    // Water-filling: all shares grow together by weight, and what reaches its bound stops there.
    while let Some((rack, full)) = first_full(nodes, &racks, partitions, left) {
        let (open, room) = match full {
            Some(at) => (vec![racks[rack].open.swap_remove(at)], partitions),
            None => (std::mem::take(&mut racks[rack].open), racks[rack].room),
        };
        racks[rack].room -= room;
        left -= room;
        divide(nodes, vec![Rack { open, room }], room, held, &mut of_node);
    }
    divide(nodes, racks, left, held, &mut of_node);
    Quotas { replicas, per_rack, of_node }
}

fn weight(nodes: &[PlacedNode], members: &[usize]) -> u128 {
    members.iter().map(|node| u128::from(nodes[*node].weight)).sum()
}

/// The rack, or the node of it at this place, that is full before the others have shared out
/// `left`; the one that is full at the lowest share per weight.
fn first_full(
    nodes: &[PlacedNode],
    racks: &[Rack],
    partitions: usize,
    left: usize,
) -> Option<(usize, Option<usize>)> {
    let all = racks.iter().map(|rack| weight(nodes, &rack.open)).sum::<u128>();
    let mut lowest = (left as u128, all);
    let mut found = None;
    for (index, rack) in racks.iter().enumerate().filter(|(_, rack)| !rack.open.is_empty()) {
        let heaviest = (0..rack.open.len()).max_by_key(|at| nodes[rack.open[*at]].weight);
        let of_node = heaviest.map(|at| (partitions, weight(nodes, &rack.open[at..=at]), Some(at)));
        let of_rack = (rack.room, weight(nodes, &rack.open), None);
        for (room, weight, full) in std::iter::once(of_rack).chain(of_node) {
            if (room as u128) * lowest.1 < lowest.0 * weight {
                lowest = (room as u128, weight);
                found = Some((index, full));
            }
        }
    }
    found
}

/// Divides `share` over the open nodes by weight, no rack beyond its room; what is odd goes to
/// those who are owed most of it, then to those who hold most.
fn divide(
    nodes: &[PlacedNode],
    mut racks: Vec<Rack>,
    share: usize,
    held: &[usize],
    of_node: &mut [usize],
) {
    let all: u128 = racks.iter().map(|rack| weight(nodes, &rack.open)).sum();
    if all == 0 {
        return;
    }
    let mut odd = Vec::new();
    let mut left = share;
    for (index, rack) in racks.iter_mut().enumerate() {
        for &node in &rack.open {
            let product = u128::from(nodes[node].weight) * share as u128;
            let whole = (product / all) as usize; // at most `share`
            of_node[node] = whole;
            rack.room -= whole;
            left -= whole;
            odd.push((product % all, held[node], Reverse(nodes[node].id), node, index));
        }
    }
    odd.sort_unstable_by(|a, b| b.cmp(a));
    for (.., node, rack) in odd {
        if left > 0 && racks[rack].room > 0 {
            of_node[node] += 1;
            racks[rack].room -= 1;
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::NodeId;

    fn cluster(nodes: &[(u8, u32)]) -> Vec<PlacedNode> {
        let node = |(id, (rack, weight)): (usize, &(u8, u32))| PlacedNode {
            id: NodeId(id as u128),
            rack: rack.to_string(),
            weight: *weight,
        };
        nodes.iter().enumerate().map(node).collect()
    }

    /// Node 4 is full, and what it cannot take must not all go to the other rack, which is full
    /// then, too.
    #[test]
    fn a_full_node_does_not_overfill_the_other_racks() {
        let nodes = cluster(&[(2, 2), (3, 3), (1, 2), (1, 1), (2, 3), (1, 2)]);
        let quotas = quotas(&nodes, 64, 5, &[0; 6]);
        assert_eq!(quotas.of_node, [64, 64, 51, 26, 64, 51]);
    }

    proptest! {
        /// Quotas sum up, keep to the bounds, and are by weight wherever no bound is reached.
        #[test]
        fn quotas_can_be_met_and_are_fair(
            nodes in prop::collection::vec((0_u8..5, 0_u32..6), 1..20),
            depth in 1_usize..7,
            odd in 0_usize..50,
        ) {
            let nodes = cluster(&nodes);
            let held: Vec<usize> = (0..nodes.len()).map(|node| node * odd % 17).collect();
            let Quotas { replicas, per_rack, of_node } = quotas(&nodes, 64, depth, &held);
            prop_assert_eq!(of_node.iter().sum::<usize>(), 64 * replicas);
            prop_assert!(of_node.iter().all(|quota| *quota <= 64));
            let on_rack = |rack: &str| {
                let members = nodes.iter().zip(&of_node).filter(|(node, _)| node.rack == rack);
                members.map(|(_, quota)| quota).sum::<usize>()
            };
            for node in &nodes {
                prop_assert!(on_rack(&node.rack) <= per_rack * 64);
            }
            let bounded = |at: usize| of_node[at] == 64 || on_rack(&nodes[at].rack) == per_rack * 64;
            for (a, b) in (0..nodes.len()).flat_map(|a| (0..nodes.len()).map(move |b| (a, b))) {
                let (heavy, light) = (nodes[a].weight as usize, nodes[b].weight as usize);
                if heavy > 0 && !bounded(a) {
                    // Odd replicas are worth up to one on either side.
                    let fair = (of_node[a] + 1) * light + heavy >= of_node[b] * heavy;
                    prop_assert!(fair, "{a} {b} {of_node:?} {nodes:?}");
                }
            }
        }
    }
}
