//! How many replicas hold what was acknowledged, before any read repairs them: so many nodes as
//! were counted when the client was answered, once stand-ins have handed over what they keep.

use std::collections::BTreeSet;

use super::history::{History, Outcome, Style, WriteId};

/// The acknowledged writes that too few of a key's replicas hold; `copies`: the values of each.
pub(super) fn lacking(history: &mut History, key: &[u8], copies: &[Vec<Vec<u8>>]) -> Vec<String> {
    if history.style(key) != Style::Versions {
        return Vec::new();
    }
    let copies: Vec<_> = copies.iter().map(|values| history.identify(key, values)).collect();
    let mut found = Vec::new();
    for (id, write) in history.writes_of(key) {
        let Outcome::Acknowledged(ack) = write.outcome else { continue };
        let holders = copies.iter().filter(|copy| holds(history, *id, copy)).count();
        // A disk that was emptied since takes one copy along.
        let gone = history.emptied.iter().filter(|at| **at >= write.begun).count();
        if ack.durable && holders + gone < usize::from(ack.acks) {
            found.push(format!(
                "holders: write {id} was acknowledged by {} nodes, {holders} replicas hold it",
                ack.acks
            ));
        }
    }
    found
}

/// Whether a copy shows a write, or may be without it because a later one covers it; one that
/// still shows what the write has covered has not got it.
fn holds(history: &History, id: WriteId, copy: &BTreeSet<WriteId>) -> bool {
    let Some(write) = history.write(id) else { return true };
    let may_be_applied =
        |id: WriteId| history.covering(id).any(|(_, w)| w.outcome != Outcome::NotApplied);
    let present = write.delete || copy.contains(&id) || may_be_applied(id);
    let certain = |old: &WriteId| history.write(*old).is_some_and(|old| !old.token);
    let outdated = write.seen.iter().any(|old| copy.contains(old) && certain(old));
    present && !outdated
}
