//! What one client may no longer miss: its own acknowledged writes, and what it was shown, once a
//! strict read asks so many replicas that one of them must have it.

use std::collections::BTreeMap;

/// A write that a client knows, and how many replicas have it at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The write.
    pub id: u64,
    /// Replicas that certainly have it.
    pub copies: u8,
}

/// What a client knows of every key.
#[derive(Debug, Clone, Default)]
pub struct Session {
    known: BTreeMap<Vec<u8>, BTreeMap<u64, u8>>,
}

impl Session {
    /// The client wrote a version, or was shown it, and so many replicas have it.
    pub fn learn(&mut self, key: &[u8], known: Known) {
        let copies = self.known.entry(key.to_vec()).or_default().entry(known.id).or_default();
        *copies = known.copies.max(*copies);
    }

    /// Some replicas may have forgotten something: nothing is certain any more.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// What a strict read of so many of all replicas misses: versions it must have met, that it
    /// neither shows nor, as `is_covered` says, has a reason not to show.
    pub fn missed(
        &self,
        key: &[u8],
        (answers, replicas): (u8, u8),
        is_covered: impl Fn(u64) -> bool,
        shown: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let known = self.known.get(key).into_iter().flatten();
        let must = known.filter(|(_, copies)| copies.saturating_add(answers) > replicas);
        must.map(|(id, _)| *id).filter(|id| !shown(*id) && !is_covered(*id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(session: &Session, answers: u8, shown: &[u64], covered: &[u64]) -> Vec<u64> {
        let read = (answers, 3);
        session.missed(b"k", read, |id| covered.contains(&id), |id| shown.contains(&id))
    }

    #[test]
    fn own_writes_are_read() {
        let mut session = Session::default();
        session.learn(b"k", Known { id: 1, copies: 2 });
        assert!(missed(&session, 2, &[1], &[]).is_empty());
        assert!(missed(&session, 2, &[9], &[1]).is_empty(), "somebody replaced it");
        assert!(
            missed(&session, 1, &[], &[]).is_empty(),
            "the read may have asked the third replica"
        );
        assert_eq!(missed(&session, 2, &[9], &[]), [1]);
    }

    #[test]
    fn what_was_shown_stays_visible_to_a_read_of_all() {
        let mut session = Session::default();
        session.learn(b"k", Known { id: 5, copies: 1 });
        assert!(missed(&session, 2, &[], &[]).is_empty());
        assert_eq!(missed(&session, 3, &[], &[]), [5]);
        session.forget();
        assert!(missed(&session, 3, &[], &[]).is_empty());
    }

    #[test]
    fn the_larger_number_of_copies_counts() {
        let mut session = Session::default();
        session.learn(b"k", Known { id: 5, copies: 3 });
        session.learn(b"k", Known { id: 5, copies: 1 });
        assert_eq!(missed(&session, 1, &[], &[]), [5]);
    }
}
