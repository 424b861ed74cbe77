//! One write event.

use crate::bytes::Reader;
use crate::ids::Actor;

/// The name of one write of `actor` on this key. Counters start at one and rise, not always by
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who wrote.
    pub actor: Actor,
    /// Higher than those of the actor's earlier writes on this key.
    pub counter: u64,
}

/// Encoded size of a dot and of a version vector's entry.
pub(crate) const DOT_BYTES: usize = 16;

impl Dot {
    /// A dot of an actor.
    pub fn new(actor: impl Into<Actor>, counter: u64) -> Self {
        Self { actor: actor.into(), counter }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { actor: Actor(reader.u64()?), counter: reader.u64()? })
    }

    pub(crate) fn write(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.actor.0.to_le_bytes());
        into.extend_from_slice(&self.counter.to_le_bytes());
    }
}

/// Reads `count` dots that must be strictly ascending by `order` and have counters from one up.
/// The caller bounds `count`; the capacity is bounded by the bytes there are.
pub(crate) fn read_sorted<K: Ord>(
    reader: &mut Reader<'_>,
    count: usize,
    order: impl Fn(&Dot) -> K,
) -> Option<Vec<Dot>> {
    let mut dots: Vec<Dot> = Vec::with_capacity(count.min(reader.len() / DOT_BYTES));
    for _ in 0..count {
        let dot = Dot::read(reader)?;
        if dot.counter == 0 || dots.last().is_some_and(|last| order(last) >= order(&dot)) {
            return None;
        }
        dots.push(dot);
    }
    Some(dots)
}
