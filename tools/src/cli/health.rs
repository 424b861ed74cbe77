//! What the dead nodes of a cluster mean for its keys.

use std::fmt::Write as _;

use coronet_net::client::Topology;
use coronet_ring::{NodeId, PartitionId};
use serde::Serialize;

/// How many partitions have how many of their replicas, in the default keyspace.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    /// Every replica is alive.
    whole: usize,
    /// Not all, and more than half of those there should be.
    degraded: usize,
    /// Half or less: strict requests for a majority are refused.
    without_majority: usize,
    /// None: only stand-ins take writes.
    without_replica: usize,
}

impl Health {
    /// Of the cluster as it was described.
    pub(super) fn of(topology: &Topology) -> Health {
        let mut health = Health::default();
        let Some(table) = &topology.table else { return health };
        let alive = |id: &NodeId| topology.node(*id).is_some_and(|node| node.alive);
        for partition in 0..table.partitions() {
            let partition = PartitionId(partition as u16); // at most 2^15
            let replicas = table.preference(partition, topology.replicas);
            let living = replicas.iter().filter(|id| alive(id)).count();
            match living {
                0 => health.without_replica += 1,
                _ if living == replicas.len() => health.whole += 1,
                _ if living > replicas.len() / 2 => health.degraded += 1,
                _ => health.without_majority += 1,
            }
        }
        health
    }

    /// A line for people.
    pub(super) fn text(&self) -> String {
        let Health { whole, degraded, without_majority, without_replica } = self;
        let mut text = format!("partitions: {whole} with all replicas");
        for (count, what) in [
            (degraded, "with a majority of them"),
            (without_majority, "WITHOUT a majority: strict requests for one are refused"),
            (without_replica, "WITHOUT any: only stand-ins take writes"),
        ] {
            if *count > 0 {
                // Writing to a String cannot fail.
                let _ = write!(text, ", {count} {what}");
            }
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use coronet_ring::{Epoch, PlacedNode, Table};

    use super::*;
    use crate::cli::cluster::tests::topology;

    #[test]
    fn health_tells_what_still_works() {
        let mut topology = topology();
        let alive = |topology: &mut Topology, alive: [bool; 3]| {
            topology.nodes.iter_mut().zip(alive).for_each(|(node, alive)| node.alive = alive);
            Health::of(topology)
        };
        let all = alive(&mut topology, [true; 3]);
        assert_eq!(all, Health { whole: 64, ..Health::default() });
        assert_eq!(all.text(), "partitions: 64 with all replicas\n");
        // Two of three nodes hold each partition: about a third does without the dead one.
        let one = alive(&mut topology, [true, false, true]);
        assert!((20..=23).contains(&one.whole) && one.degraded == 0, "{one:?}");
        assert_eq!(one.whole + one.without_majority, 64);
        assert!(one.text().contains("WITHOUT a majority"), "{}", one.text());
        let two = alive(&mut topology, [false, false, true]);
        assert!((20..=23).contains(&two.without_replica) && two.whole == 0, "{two:?}");
        topology.replicas = 3;
        topology.table = {
            let placed = topology.nodes.iter().map(|node| PlacedNode {
                id: node.id,
                rack: node.rack.clone(),
                weight: 1,
            });
            Some(Table::create(Epoch(8), 64, 3, placed.collect()).unwrap())
        };
        let degraded = alive(&mut topology, [true, true, false]);
        assert_eq!(degraded, Health { degraded: 64, ..Health::default() });
        assert_eq!(
            degraded.text(),
            "partitions: 0 with all replicas, 64 with a majority of them\n"
        );
    }
}
