//! What clients wrote and were told, and what may therefore be seen.
//!
//! Every write has a number that its value begins with. A write that carries a context covers the
//! writes its author had seen, and those that these cover: `seen` is closed under that. A write
//! may vanish only if a later one covers it, and must vanish if one that is visible does.

use std::collections::{BTreeMap, BTreeSet};

use coronet_lsm::env::Nanos;
use coronet_ring::{Dot, ObjectRef};
use coronet_sim::Rng;

/// A write's number.
pub type WriteId = u64;

/// How the writers of a key write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With contexts, now and then without: every version stays until it is covered.
    Versions,
    /// Every write replaces what its replica has (last write wins).
    Replace,
}

/// What became of a write as far as its author knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not known: under way, in doubt, or the answer was lost.
    Unknown,
    /// Stored by so many replicas.
    Acknowledged(Acknowledgement),
    /// Refused as "not applied".
    NotApplied,
}

/// What an acknowledgement promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// When it arrived.
    pub at: Nanos,
    /// Nodes that stored the write.
    pub acks: u8,
    /// Whether stand-ins were among them.
    pub sloppy: bool,
    /// Whether their disks had it.
    pub durable: bool,
}

/// One write.
#[derive(Debug, Clone)]
pub struct Write {
    /// The key.
    pub key: Vec<u8>,
    /// Whether it deletes.
    pub delete: bool,
    /// Whether it had a token: then it may have got two names, of which a later write may have
    /// covered one.
    pub token: bool,
    /// The writes it covers.
    pub seen: BTreeSet<WriteId>,
    /// What became of it.
    pub outcome: Outcome,
    len: usize,
}

/// What a read showed.
#[derive(Debug, Clone)]
pub struct Shown {
    /// When it was sent.
    pub since: Nanos,
    /// Replicas that answered.
    pub answers: u8,
    /// Whether stand-ins were among them.
    pub sloppy: bool,
    /// The writes.
    pub ids: BTreeSet<WriteId>,
}

/// What a dot stands for: value digest, timestamp, deletion.
type Named = (u64, u64, bool);

/// Everything clients did in a run.
#[derive(Default)]
pub struct History {
    writes: BTreeMap<WriteId, Write>,
    /// The writes of each key.
    of_key: BTreeMap<Vec<u8>, Vec<WriteId>>,
    /// The writes that cover a write.
    covers: BTreeMap<WriteId, Vec<WriteId>>,
    styles: BTreeMap<Vec<u8>, Style>,
    /// What every dot of a key named.
    dots: BTreeMap<(Vec<u8>, Dot), Named>,
    /// Replicas of a key.
    pub replicas: u8,
    /// Whether stand-ins do not count unless a request says so.
    pub strict: bool,
    /// Whether some process died: what was acknowledged as buffered may be lost.
    pub died: bool,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Reads checked.
    pub reads: u64,
}

/// A value: the write's number, then bytes that follow from it.
pub fn value_of(id: WriteId, len: usize) -> Vec<u8> {
    let mut value = format!("{id}:").into_bytes();
    let start = value.len();
    value.resize(start + len, 0);
    Rng::new(id).fill(&mut value[start..]);
    value
}

fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

impl History {
    /// Adds a key.
    pub fn add_key(&mut self, key: &[u8], style: Style) {
        self.styles.insert(key.to_vec(), style);
    }

    /// The keys, in order.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.styles.keys().cloned().collect()
    }

    /// How a key is written.
    pub fn style(&self, key: &[u8]) -> Style {
        self.styles.get(key).copied().unwrap_or(Style::Versions)
    }

    /// Writes of a key so far.
    pub fn count(&self, key: &[u8]) -> usize {
        self.of_key.get(key).map_or(0, Vec::len)
    }

    /// A write is sent; returns its number and value.
    pub fn begin(
        &mut self,
        key: &[u8],
        len: Option<usize>,
        token: bool,
        seen: BTreeSet<WriteId>,
    ) -> (WriteId, Option<Vec<u8>>) {
        let id = self.writes.len() as u64 + 1;
        let outcome = Outcome::Unknown;
        seen.iter().for_each(|old| self.covers.entry(*old).or_default().push(id));
        self.of_key.entry(key.to_vec()).or_default().push(id);
        let (key, delete) = (key.to_vec(), len.is_none());
        let write = Write { key, delete, token, seen, outcome, len: len.unwrap_or(0) };
        self.writes.insert(id, write);
        (id, len.map(|len| value_of(id, len)))
    }

    /// What became of a write.
    pub fn end(&mut self, id: WriteId, outcome: Outcome) {
        if matches!(outcome, Outcome::Acknowledged(_)) {
            self.acknowledged += 1;
        }
        if let Some(write) = self.writes.get_mut(&id) {
            write.outcome = outcome;
        }
    }

    /// A write and what it covers.
    pub fn covered_by(&self, id: WriteId) -> BTreeSet<WriteId> {
        let mut all = self.writes.get(&id).map(|write| write.seen.clone()).unwrap_or_default();
        all.insert(id);
        all
    }

    /// Something that must not happen did.
    pub fn violation(&mut self, key: &[u8], what: &str) {
        self.violations.push(format!("{}: {what}", name(key)));
    }

    /// The writes that values are of. Values nobody wrote, and those of writes that were answered
    /// "not applied", are violations.
    pub fn identify(&mut self, key: &[u8], values: &[Vec<u8>]) -> BTreeSet<WriteId> {
        let mut ids = BTreeSet::new();
        for value in values {
            let digits: Vec<u8> =
                value.iter().copied().take_while(u8::is_ascii_digit).take(20).collect();
            let id = String::from_utf8_lossy(&digits).parse().unwrap_or(0);
            let problem = match self.writes.get(&id) {
                Some(write) if write.key != key => Some("belongs to another key"),
                Some(write) if write.delete || value_of(id, write.len) != *value => {
                    Some("is not what was written")
                }
                Some(write) if write.outcome == Outcome::NotApplied => {
                    Some("is visible although it was answered \"not applied\"")
                }
                Some(_) => None,
                None => Some("was never written"),
            };
            if let Some(problem) = problem {
                self.violation(key, &format!("phantom: value {id} {problem}"));
            }
            if !ids.insert(id) {
                self.violation(key, &format!("value {id} is shown twice"));
            }
        }
        ids
    }

    /// Checks what a read showed.
    pub fn check(&mut self, key: &[u8], shown: &Shown) {
        self.reads += 1;
        if self.style(key) == Style::Replace {
            return;
        }
        let mut found = self.false_siblings(key, &shown.ids);
        let replicas = self.replicas;
        found.extend(self.stale(key, &shown.ids, |ack| {
            let overlap = ack.acks.saturating_add(shown.answers) > replicas;
            overlap && ack.at < shown.since && !ack.sloppy && !shown.sloppy && ack.durable
        }));
        for what in found {
            let answers = shown.answers;
            self.violation(key, &format!("{what} (read of {answers}: {:?})", shown.ids));
        }
    }

    /// Checks what a key is in the end, on every replica.
    pub fn check_final(&mut self, key: &[u8], ids: &BTreeSet<WriteId>) {
        let died = self.died;
        let found = match self.style(key) {
            Style::Versions => {
                let mut found = self.false_siblings(key, ids);
                found.extend(self.stale(key, ids, |ack| ack.durable || !died));
                found
            }
            Style::Replace => self.all_gone(key, ids),
        };
        for what in found {
            self.violation(key, &format!("in the end: {what} (shown: {ids:?})"));
        }
    }

    /// A write.
    pub fn write(&self, id: WriteId) -> Option<&Write> {
        self.writes.get(&id)
    }

    /// The writes of a key.
    pub fn writes_of(&self, key: &[u8]) -> impl Iterator<Item = (&WriteId, &Write)> {
        let ids = self.of_key.get(key).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.writes.get_key_value(id))
    }

    /// Versions side by side of which one covers the other.
    fn false_siblings(&self, key: &[u8], ids: &BTreeSet<WriteId>) -> Vec<String> {
        let mut found = Vec::new();
        for id in ids {
            let Some(write) = self.writes.get(id).filter(|write| write.key == key) else {
                continue;
            };
            for old in ids.iter().filter(|old| write.seen.contains(old)) {
                if self.writes.get(old).is_some_and(|old| !old.token) {
                    found.push(format!("false sibling: {id} covers {old} and stands beside it"));
                }
            }
        }
        found
    }

    /// Acknowledged writes (those that `counts` picks) that are missing, and versions that such a
    /// write covers.
    fn stale(
        &self,
        key: &[u8],
        ids: &BTreeSet<WriteId>,
        counts: impl Fn(&Acknowledgement) -> bool,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let stored = |write: &Write| match write.outcome {
            Outcome::Acknowledged(ack) => counts(&ack),
            Outcome::Unknown | Outcome::NotApplied => false,
        };
        for (id, write) in self.writes_of(key) {
            let present = write.delete || ids.contains(id);
            let may_be_applied = |later: &Write| later.outcome != Outcome::NotApplied;
            if !present && stored(write) && !self.covering(*id).any(|(_, w)| may_be_applied(w)) {
                found.push(format!("lost: acknowledged write {id} is gone, nothing covers it"));
            }
        }
        let certain = |id: &&WriteId| self.writes.get(id).is_some_and(|write| !write.token);
        for old in ids.iter().filter(certain) {
            for (id, write) in self.covering(*old).filter(|(_, write)| stored(write)) {
                let verb = if write.delete { "deleted" } else { "replaced" };
                found.push(format!("back again: {old} was {verb} by acknowledged {id}"));
            }
        }
        found
    }

    /// The writes that cover a write.
    pub fn covering(&self, id: WriteId) -> impl Iterator<Item = (&WriteId, &Write)> {
        let covers = self.covers.get(&id).map(Vec::as_slice).unwrap_or_default();
        covers.iter().filter_map(|id| self.writes.get_key_value(id))
    }

    /// Where the last write wins, one must have won.
    fn all_gone(&self, key: &[u8], ids: &BTreeSet<WriteId>) -> Vec<String> {
        let of_key = || self.writes_of(key).map(|(_, write)| write);
        let deleted = of_key().any(|w| w.delete && w.outcome != Outcome::NotApplied);
        let died = self.died;
        let stored = of_key().any(|write| match write.outcome {
            Outcome::Acknowledged(ack) => ack.durable || !died,
            _ => false,
        });
        let lost = ids.is_empty() && stored && !deleted;
        lost.then(|| "lost: no value is left of an acknowledged one".to_owned())
            .into_iter()
            .collect()
    }

    /// Checks a replica's copy against every copy seen before: a dot names one write for ever.
    pub fn check_dots(&mut self, key: &[u8], copy: &[u8]) {
        let Ok(object) = ObjectRef::decode(copy) else {
            return self.violation(key, "a replica's copy is no object");
        };
        for sibling in object.siblings() {
            let named = (coronet_ring::key_hash(sibling.value), sibling.hlc.0, sibling.tombstone);
            let dot = (key.to_vec(), sibling.dot);
            let before = *self.dots.entry(dot).or_insert(named);
            if before != named {
                let what = format!("dot {:?} names two writes", sibling.dot);
                self.violation(key, &what);
            }
        }
    }

    /// A write, for messages.
    pub fn describe(&self, id: WriteId) -> String {
        format!("{id}: {:?}", self.writes.get(&id))
    }
}
