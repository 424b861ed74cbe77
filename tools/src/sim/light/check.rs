//! What all nodes of a light world must agree on once nothing goes wrong any more.

use std::collections::BTreeMap;
use std::rc::Rc;

use coronet_ring::{NodeId, Table};

use super::life::Life;

/// Replicas that may be missing or too many on one node: what whole partitions make inevitable.
const MOST_OFF_QUOTA: usize = 1;

/// The first thing two nodes do not agree on; `None` when there is none. `gone` are the nodes that
/// never come back, `latest` is the placement decided last.
pub fn disagreement(lives: &[Rc<Life>], gone: &[NodeId], latest: Option<&Table>) -> Option<String> {
    let first = lives.first()?;
    let known = first.gossip.borrow();
    let Some(table) = known.table() else {
        return Some(format!("{} has no placement", first.id()));
    };
    if latest.is_some_and(|latest| latest != table) {
        return Some(format!("{} has not the latest placement", first.id()));
    }
    let described: BTreeMap<_, _> =
        known.members().map(|m| (m.id, (m.newness.generation, m.newness.version))).collect();
    for life in lives {
        let (id, gossip) = (life.id(), life.gossip.borrow());
        let members = gossip.members().map(|m| (m.id, (m.newness.generation, m.newness.version)));
        if !members.eq(described.iter().map(|(id, newness)| (*id, *newness))) {
            return Some(format!("{id} knows other members than {}", first.id()));
        }
        if !gossip.keyspaces().eq(known.keyspaces()) {
            return Some(format!("{id} knows other keyspaces than {}", first.id()));
        }
        if gossip.table() != Some(table) {
            return Some(format!("{id} has another placement than {}", first.id()));
        }
        for other in described.keys().filter(|other| **other != id) {
            let (suspected, is_gone) = (life.suspects(*other), gone.contains(other));
            if suspected != is_gone {
                return Some(format!("{id} suspects {other}: {suspected}, gone: {is_gone}"));
            }
        }
    }
    None
}

/// What is wrong with a placement by itself.
pub fn faults_of(table: &Table) -> Vec<String> {
    let balance = table.balance();
    let mut found = Vec::new();
    if balance.off_quota > MOST_OFF_QUOTA {
        found.push(format!("placement: a node is {} partitions off its quota", balance.off_quota));
    }
    if balance.racks_violated > 0 {
        found.push(format!("placement: {} partitions crowd a rack", balance.racks_violated));
    }
    if balance.short > 0 && table.nodes().len() >= usize::from(table.depth()) {
        found.push(format!("placement: {} partitions lack replicas", balance.short));
    }
    found
}

/// What is wrong with going from one placement to the next, which differ by one node.
pub fn faults_of_change(old: &Table, new: &Table) -> Vec<String> {
    let moves = old.moves_to(new);
    // One node comes or goes: no more moves than it has places, and some to keep racks apart.
    let share = moves.replicas / old.nodes().len().min(new.nodes().len()).max(1) + 1;
    let most = 2 * share + old.nodes().len();
    let too_many = moves.moved > most;
    let text = || format!("placement: {} replicas move where {share} need to", moves.moved);
    too_many.then(text).into_iter().collect()
}
