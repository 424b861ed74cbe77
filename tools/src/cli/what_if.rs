//! `coronet ring --join RACK --leave ADDRESS`: what a change of nodes would move. Nothing is done.

use std::fmt::Write as _;

use coronet_net::client::Topology;
use coronet_ring::placement::report::{Balance, Moves};
use coronet_ring::{Epoch, NodeId, PlacedNode, Table, key_hash};
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::options::RingArgs;

/// A planned change and what it comes to.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    /// Replicas of partitions in the new table.
    replicas: usize,
    /// Those that have to be built where there was none.
    moved: usize,
    /// Partitions whose list begins with another node.
    first_moved: usize,
    receive: Vec<Part>,
    give: Vec<Part>,
    off_quota: usize,
    short: usize,
    racks_shared: usize,
    racks_violated: usize,
}

/// One node's part of a change.
#[derive(Debug, Serialize)]
struct Part {
    node: String,
    partitions: usize,
}

impl Change {
    /// The change that the arguments ask about, if they do.
    pub(super) fn asked(
        topology: &Topology,
        table: &Table,
        args: &RingArgs,
    ) -> Result<Option<Change>, CliError> {
        if args.join.is_empty() && args.leave.is_empty() {
            return Ok(None);
        }
        let wrong = |text: String| CliError::new(Exit::Usage, text);
        let mut nodes: Vec<PlacedNode> = table.nodes().to_vec();
        for address in &args.leave {
            let leaving = topology.nodes.iter().find(|node| node.address == *address);
            let at = leaving.and_then(|node| nodes.iter().position(|placed| placed.id == node.id));
            let at =
                at.ok_or_else(|| wrong(format!("no node of the placement is at {address}")))?;
            nodes.remove(at);
        }
        // Which id a newcomer draws changes which partitions it gets, not how many.
        let ids = (1_u64..).map(|n| NodeId(u128::from(key_hash(&n.to_le_bytes()))));
        let newcomers: Vec<(NodeId, &String)> = ids.zip(&args.join).collect();
        nodes.extend(newcomers.iter().map(|(id, rack)| PlacedNode {
            id: *id,
            rack: (*rack).clone(),
            weight: 1,
        }));
        let next = table.change(Epoch(table.epoch().0 + 1), nodes);
        let next = next.map_err(|error| wrong(error.to_string()))?;
        let name = |id: NodeId| match newcomers.iter().position(|(newcomer, _)| *newcomer == id) {
            Some(at) => format!("new node {} on {}", at + 1, newcomers[at].1),
            None => topology.node(id).map_or_else(|| id.to_string(), |node| node.address.clone()),
        };
        Ok(Some(Change::new(table.moves_to(&next), &next.balance(), name)))
    }

    fn new(moves: Moves, after: &Balance, name: impl Fn(NodeId) -> String) -> Change {
        let parts = |counts: Vec<(NodeId, usize)>| {
            let part = |(id, partitions)| Part { node: name(id), partitions };
            let mut parts: Vec<Part> = counts.into_iter().map(part).collect();
            parts.sort_by(|a, b| a.node.cmp(&b.node));
            parts
        };
        Change {
            replicas: moves.replicas,
            moved: moves.moved,
            first_moved: moves.first_moved,
            receive: parts(moves.received),
            give: parts(moves.given),
            off_quota: after.off_quota,
            short: after.short,
            racks_shared: after.racks_shared,
            racks_violated: after.racks_violated,
        }
    }

    /// Lines for people.
    pub(super) fn text(&self) -> String {
        let Change { replicas, moved, first_moved, .. } = self;
        let share = *moved as f64 * 100.0 / (*replicas).max(1) as f64;
        let mut text = format!(
            "the change would move {moved} of {replicas} replicas ({share:.1} %); {first_moved} \
             partitions get another first node; nothing is done\n"
        );
        let all = [("receives", &self.receive), ("gives", &self.give)];
        for (what, part) in all.into_iter().flat_map(|(what, of)| of.iter().map(move |p| (what, p)))
        {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {:<24} {what} {}", part.node, part.partitions);
        }
        let _ = writeln!(
            text,
            "after it: at most {} partition(s) from the fair share, {} on shared racks, {} of them \
             without need, {} with too few replicas",
            self.off_quota, self.racks_shared, self.racks_violated, self.short
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cluster::tests::topology;

    fn asked(join: &[&str], leave: &[&str]) -> Result<Option<Change>, CliError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (join, leave) = (owned(join), owned(leave));
        let topology = topology();
        let table = topology.table.clone().unwrap();
        Change::asked(&topology, &table, &RingArgs { key: None, json: false, join, leave })
    }

    #[test]
    fn a_join_moves_the_newcomer_s_share_to_it() {
        assert!(asked(&[], &[]).unwrap().is_none());
        let change = asked(&["rack-4"], &[]).unwrap().unwrap();
        // 64 partitions, two replicas each, a quarter of them for the fourth node.
        assert_eq!((change.replicas, change.moved), (128, 32));
        assert_eq!(change.receive.len(), 1);
        assert_eq!(change.receive[0].node, "new node 1 on rack-4");
        assert_eq!(change.give.iter().map(|part| part.partitions).sum::<usize>(), 32);
        assert_eq!((change.racks_violated, change.short), (0, 0));
        let text = change.text();
        assert!(text.starts_with("the change would move 32 of 128 replicas (25.0 %)"), "{text}");
        assert!(text.contains("receives 32"), "{text}");
    }

    #[test]
    fn a_leave_moves_what_the_node_held() {
        let change = asked(&[], &["10.0.0.2:4720"]).unwrap().unwrap();
        let given: Vec<_> = change.give.iter().map(|p| (&p.node[..], p.partitions)).collect();
        assert!(matches!(given[..], [("10.0.0.2:4720", 42 | 43)]), "{given:?}");
        assert_eq!(change.moved, given[0].1);
        let replaced = asked(&["rack-2"], &["10.0.0.2:4720"]).unwrap().unwrap();
        let newcomer = replaced.receive.iter().find(|part| part.node == "new node 1 on rack-2");
        assert!(newcomer.is_some_and(|part| matches!(part.partitions, 42 | 43)), "{replaced:?}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(asked(&[], &["10.9.9.9:1"]).unwrap_err().exit, Exit::Usage);
        let all = ["10.0.0.1:4720", "10.0.0.2:4720", "10.0.0.3:4720"];
        assert_eq!(asked(&[], &all).unwrap_err().exit, Exit::Usage);
        assert!(asked(&[&"r".repeat(2000)], &[]).is_err());
    }
}
