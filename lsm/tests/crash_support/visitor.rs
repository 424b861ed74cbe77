//! A keyspace that is created and dropped again and again: what must, and what may be left of it.

use super::model::Contents;
use coronet_lsm::KeyspaceId;
use std::collections::BTreeSet;

/// The keyspace.
pub const VISITOR: KeyspaceId = KeyspaceId(77);

/// What is known of it.
#[derive(Debug, Default)]
pub struct Visitor {
    /// Number of its current or next life.
    number: u64,
    may_be_there: bool,
    must_be_there: bool,
    /// Keys whose durable write was acknowledged in this life.
    acked: BTreeSet<Vec<u8>>,
}

impl Visitor {
    /// What the entries of this life hold.
    pub fn life(&self) -> String {
        format!("life {}", self.number)
    }

    /// Its creation begins.
    pub fn comes(&mut self) {
        if !self.may_be_there {
            self.number += 1;
        }
        self.may_be_there = true;
    }

    /// Its creation is durable.
    pub fn came(&mut self) {
        self.must_be_there = true;
    }

    /// A write was acknowledged.
    pub fn wrote(&mut self, key: Vec<u8>) {
        self.acked.insert(key);
    }

    /// Its end begins.
    pub fn leaves(&mut self) {
        self.must_be_there = false;
        self.acked.clear();
    }

    /// Its end is durable.
    pub fn left(&mut self) {
        self.may_be_there = false;
    }

    /// Checks what is found of it; `None`: it is not there.
    pub fn check(&self, found: Option<&Contents>) {
        let Some(found) = found else {
            assert!(!self.must_be_there, "a keyspace is lost: {self:?}");
            return;
        };
        assert!(self.may_be_there, "a dropped keyspace is back: {self:?}");
        let life = self.life();
        for (key, value) in found {
            let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
            assert!(value == life, "{key} is of {value}, not of {life}");
        }
        let lost = self.acked.iter().find(|key| !found.contains_key(*key));
        assert!(lost.is_none(), "an acknowledged write is lost: {lost:?} of {self:?}");
    }

    /// A new life of the node showed whether it is there, and what is in it.
    pub fn recovered(&mut self, found: Option<&Contents>) {
        self.check(found);
        (self.may_be_there, self.must_be_there) = (found.is_some(), found.is_some());
        self.acked = found.into_iter().flat_map(|found| found.keys().cloned()).collect();
    }
}
