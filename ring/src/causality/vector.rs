//! Version vectors: how many writes of each actor were seen.

use std::cmp::Ordering;

use super::dot::Dot;
use crate::ids::Actor;

/// For each actor the highest counter seen, all below included. Sorted by actor; small.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct VersionVector {
    entries: Vec<Dot>,
}

impl VersionVector {
    /// A vector that has seen nothing.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Takes entries that are strictly ascending by actor with counters from one up.
    pub(crate) fn from_sorted(entries: Vec<Dot>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.actor < b.actor));
        Self { entries }
    }

    /// The highest counter seen of an actor; zero when none.
    pub fn get(&self, actor: Actor) -> u64 {
        match self.find(actor) {
            Ok(at) => self.entries[at].counter,
            Err(_) => 0,
        }
    }

    /// Whether the write was seen.
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor)
    }

    /// Records a write and all earlier ones of its actor.
    pub fn observe(&mut self, dot: Dot) {
        if dot.counter == 0 {
            return;
        }
        match self.find(dot.actor) {
            Ok(at) => {
                let entry = &mut self.entries[at];
                entry.counter = entry.counter.max(dot.counter);
            }
            Err(at) => self.entries.insert(at, dot),
        }
    }

    /// Records the actor's next write and returns its dot.
    pub fn increment(&mut self, actor: Actor) -> Dot {
        let dot = Dot { actor, counter: self.get(actor).saturating_add(1) };
        self.observe(dot);
        dot
    }

    /// Records everything the other has seen.
    pub fn merge(&mut self, other: &VersionVector) {
        for entry in &other.entries {
            self.observe(*entry);
        }
    }

    /// Whether everything the other has seen was seen here.
    pub fn covers(&self, other: &VersionVector) -> bool {
        other.entries.iter().all(|entry| self.contains(*entry))
    }

    /// The causal order; `None` when each has seen something the other has not.
    pub fn compare(&self, other: &VersionVector) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }

    /// Highest dot of each actor, ascending by actor.
    pub fn entries(&self) -> &[Dot] {
        &self.entries
    }

    /// Number of actors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, actor: Actor) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&actor, |entry| entry.actor)
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = VersionVector::new();
        dots.into_iter().for_each(|dot| vector.observe(dot));
        vector
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn dots(most: usize) -> impl Strategy<Value = Vec<Dot>> {
        let dot = (0_u64..8, 1_u64..9).prop_map(|(actor, n)| Dot::new(Actor(actor), n));
        prop::collection::vec(dot, 0..=most)
    }

    pub(crate) fn vector() -> impl Strategy<Value = VersionVector> {
        dots(8).prop_map(VersionVector::from_iter)
    }

    proptest! {
        #[test]
        fn merge_is_the_least_upper_bound(a in vector(), b in vector(), c in vector()) {
            let join = |x: &VersionVector, y: &VersionVector| {
                let mut joined = x.clone();
                joined.merge(y);
                joined
            };
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&a, &a), a.clone());
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
            prop_assert!(join(&a, &b).covers(&a) && join(&a, &b).covers(&b));
            if c.covers(&a) && c.covers(&b) {
                prop_assert!(c.covers(&join(&a, &b)));
            }
        }

        #[test]
        fn increment_is_new_and_then_seen(mut a in vector(), actor in 0_u64..8) {
            let before = a.clone();
            let dot = a.increment(Actor(actor));
            prop_assert!(!before.contains(dot));
            prop_assert!(a.contains(dot));
            prop_assert_eq!(a.compare(&before), Some(Ordering::Greater));
            prop_assert_eq!(before.compare(&a), Some(Ordering::Less));
        }

        #[test]
        fn entries_stay_sorted_and_positive(a in vector(), b in vector()) {
            let mut merged = a;
            merged.merge(&b);
            prop_assert!(merged.entries().is_sorted_by(|x, y| x.actor < y.actor));
            prop_assert!(merged.entries().iter().all(|entry| entry.counter > 0));
        }
    }

    #[test]
    fn concurrent_vectors_have_no_order() {
        let a = VersionVector::from_iter([Dot::new(Actor(1), 1)]);
        let b = VersionVector::from_iter([Dot::new(Actor(2), 1)]);
        assert_eq!(a.compare(&b), None);
        assert_eq!(a.compare(&a), Some(Ordering::Equal));
    }
}
