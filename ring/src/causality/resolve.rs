//! What a reader is shown of a key's siblings.
//!
//! Replicas keep every concurrent version; choosing among them happens here, at the read, and for
//! good only when the next write supersedes them. So copies converge whatever the keyspace's mode,
//! and a keyspace may change its mode.

use std::cmp::Reverse;

use coronet_probe::{Bug, seeded};

use super::object::{self, ObjectError, ObjectRef, SiblingRef};

/// How a keyspace treats concurrent versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conflicts {
    /// Readers see them all and merge them.
    #[default]
    Siblings,
    /// Readers see the latest by hybrid clock, its dot deciding ties; the others are lost to them.
    LastWriteWins,
}

/// The live versions a reader is shown, ascending by dot. None: the key has no value.
///
/// Two versions with one idempotency token are one write that was retried through another
/// coordinator: only the one with the smallest dot is shown. Deletions are never shown; beside
/// a concurrent value they give way, except that the latest of all decides when the last write
/// wins.
pub fn visible<'a>(object: &ObjectRef<'a>, conflicts: Conflicts) -> Vec<SiblingRef<'a>> {
    match conflicts {
        Conflicts::LastWriteWins => {
            let latest = object.siblings().max_by_key(|sibling| (sibling.hlc, sibling.dot));
            latest.filter(|sibling| !sibling.tombstone).into_iter().collect()
        }
        Conflicts::Siblings => {
            let mut values: Vec<_> = object.values().collect();
            values.sort_by_key(|sibling| (sibling.token, Reverse(sibling.dot)));
            // Of equal tokens the last, which has the smallest dot, stays.
            values.reverse();
            values.dedup_by(|later, kept| {
                let retried = later.token.is_some() && later.token == kept.token;
                retried && !seeded(Bug::RetryShownTwice)
            });
            values.sort_by_key(|sibling| sibling.dot);
            values
        }
    }
}

/// The object with the length of each value, four bytes little endian, in the value's place: merges
/// and resolves like the object itself, as far as telling what lives, how large and how new it is.
pub fn outline(object: &ObjectRef<'_>) -> Result<Vec<u8>, ObjectError> {
    let length = |value: &[u8]| u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes();
    let lengths: Vec<[u8; 4]> = object.siblings().map(|sibling| length(sibling.value)).collect();
    let siblings: Vec<_> = object
        .siblings()
        .zip(&lengths)
        .map(|(sibling, length)| match sibling.tombstone {
            true => sibling,
            false => SiblingRef { value: length, ..sibling },
        })
        .collect();
    let mut bytes = Vec::new();
    object::encode(&object.seen(), &siblings, &mut bytes)?;
    Ok(bytes)
}

/// The length of a version's value as its [`outline`] has it; zero for a deletion.
pub fn outlined_length(sibling: &SiblingRef<'_>) -> u64 {
    sibling.value.first_chunk::<4>().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::context::Context;
    use crate::causality::dot::Dot;
    use crate::causality::hlc::Hlc;
    use crate::causality::object::{Object, Sibling};
    use crate::ids::Actor;

    /// Actor, timestamp, token, value.
    type Version<'a> = (u64, u64, Option<u8>, Option<&'a [u8]>);

    fn shown(siblings: &[Version<'_>], mode: Conflicts) -> Vec<u64> {
        let siblings: Vec<_> = siblings
            .iter()
            .map(|(actor, hlc, token, value)| Sibling {
                dot: Dot::new(Actor(*actor), 1),
                hlc: Hlc(*hlc),
                tombstone: value.is_none(),
                token: token.map(|byte| [byte; 16]),
                value: value.unwrap_or_default().to_vec(),
            })
            .collect();
        let seen = Context::new(siblings.iter().map(|sibling| sibling.dot).collect());
        let mut bytes = Vec::new();
        Object { seen, siblings }.encode(&mut bytes).unwrap();
        let object = ObjectRef::decode(&bytes).unwrap();
        visible(&object, mode).iter().map(|sibling| sibling.dot.actor.0).collect()
    }

    #[test]
    fn a_retried_write_is_shown_once() {
        let token = Some(7);
        let siblings: [Version<'_>; 4] = [
            (1, 5, None, Some(b"x")),
            (2, 5, token, Some(b"y")),
            (3, 5, token, Some(b"y")),
            (4, 5, None, Some(b"z")),
        ];
        assert_eq!(shown(&siblings, Conflicts::Siblings), [1, 2, 4]);
    }

    #[test]
    fn the_latest_write_wins_even_when_it_deletes() {
        let siblings: [Version<'_>; 3] =
            [(1, 9, None, Some(b"x")), (2, 9, None, Some(b"y")), (3, 4, None, None)];
        assert_eq!(shown(&siblings, Conflicts::LastWriteWins), [2]);
        assert_eq!(shown(&siblings, Conflicts::Siblings), [1, 2]);
        let deleted: [Version<'_>; 2] = [(1, 9, None, Some(b"x")), (2, 10, None, None)];
        assert!(shown(&deleted, Conflicts::LastWriteWins).is_empty());
        assert_eq!(shown(&deleted, Conflicts::Siblings), [1]);
    }
}
