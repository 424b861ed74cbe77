//! What a history says about an answer, and about what is left in the end.

use std::collections::{BTreeMap, BTreeSet};

use coronet_ring::causality::update::MAX_VERSIONS;
use coronet_ring::{NodeId, ObjectRef};
use coronet_sim::Rng;

use super::super::cart;
use super::{Acknowledgement, History, Met, Outcome, Shown, Style, Write, WriteId};
use crate::sim::checkers::pbs::{self, Meeting};
use crate::sim::checkers::session::{Known, Session};
use crate::sim::checkers::staleness::{Setting, Staleness};
use crate::sim::checkers::{Kind, Op, linear, regular};

/// States the search for an order may look at.
const MOST_STATES: usize = 200_000;

impl History {
    /// Checks what a read showed.
    pub fn check(&mut self, key: &[u8], shown: &Shown) {
        self.reads += 1;
        match self.style(key) {
            Style::Replace => return,
            Style::Register => self.read_register(key, shown),
            Style::Versions | Style::Cart => {}
        }
        if self.is_last_write_wins(key) {
            return;
        }
        self.measure(key, shown);
        let mut found = self.false_siblings(key, &shown.ids);
        let replicas = self.replicas;
        found.extend(self.stale(key, &shown.ids, |ack, left| {
            let overlap = left.saturating_add(shown.answers) > replicas;
            overlap && ack.at < shown.since && !ack.sloppy && !shown.sloppy && ack.durable
        }));
        for what in found {
            let answers = shown.answers;
            self.violation(key, &format!("{what} (read of {answers}: {:?})", shown.ids));
        }
    }

    fn read_register(&mut self, key: &[u8], shown: &Shown) {
        let reads = self.register_reads.entry(key.to_vec()).or_default();
        let read =
            |value| Op { call: shown.since.0, ret: Some(shown.until.0), kind: Kind::Read(value) };
        if shown.ids.is_empty() {
            reads.push(read(0));
        }
        reads.extend(shown.ids.iter().map(|id| read(*id)));
    }

    /// Checks a register over its whole history.
    pub fn check_register(&mut self, key: &[u8]) {
        if !self.emptied.is_empty() {
            return; // fewer copies than W: nothing is promised
        }
        let mut ops = self.register_reads.get(key).cloned().unwrap_or_default();
        for (id, write) in self.writes_of(key) {
            let ret = match write.outcome {
                Outcome::Acknowledged(ack) => Some(ack.at.0),
                Outcome::Unknown => None,
                Outcome::NotApplied => continue,
            };
            ops.push(Op { call: write.begun.0, ret, kind: Kind::Write(*id) });
        }
        for (at, value) in regular::check(&ops) {
            let what = format!("irregular: the read {:?} finds {value}", ops[at]);
            self.violation(key, &what);
        }
        let ops = self.atomic(ops);
        if let linear::Verdict::Violation(stuck) = linear::check(&ops, MOST_STATES) {
            let stuck: Vec<_> = stuck.iter().take(4).map(|at| ops[*at]).collect();
            self.violation(key, &format!("not linearizable: no place for {stuck:?}"));
        }
    }

    /// The part of a register's history that must be linearizable.
    fn atomic(&self, ops: Vec<Op>) -> Vec<Op> {
        match self.replicas {
            1 if !self.died() => ops,
            0 | 1 => Vec::new(),
            _ if self.monotonic => self.without_lost(newest(ops)),
            _ => Vec::new(),
        }
    }

    /// Leaves out reads that may have found what a death took along: a write is safe when it is
    /// acknowledged; until then a process may show it, die, and know nothing of it afterwards.
    fn without_lost(&self, mut ops: Vec<Op>) -> Vec<Op> {
        let is_shaken = |op: &Op| {
            let (call, ret) = (op.call, op.ret.unwrap_or(u64::MAX));
            self.deaths.iter().any(|death| call <= death.0 && death.0 <= ret)
        };
        let shaken: BTreeMap<u64, u64> = ops
            .iter()
            .filter(|op| is_shaken(op))
            .filter_map(|op| match op.kind {
                Kind::Write(value) => Some((value, op.ret.unwrap_or(u64::MAX))),
                Kind::Read(_) => None,
            })
            .collect();
        ops.retain(|op| match op.kind {
            Kind::Read(value) => shaken.get(&value).is_none_or(|safe| op.call > *safe),
            Kind::Write(_) => true,
        });
        ops
    }

    /// Checks a read against what its client knows, and lets it learn from the read.
    pub fn check_session(&mut self, session: &mut Session, key: &[u8], shown: &Shown) {
        if self.died() || !self.emptied.is_empty() || self.is_last_write_wins(key) {
            return session.forget();
        }
        if shown.sloppy {
            return;
        }
        let is_covered =
            |id| self.covering(id).any(|(_, later)| later.outcome != Outcome::NotApplied);
        let read = (shown.answers, self.replicas);
        let missed = session.missed(key, read, is_covered, |id| shown.ids.contains(&id));
        for id in missed {
            self.violation(key, &format!("session: its client knew {id} (read: {shown:?})"));
        }
        shown.ids.iter().for_each(|id| session.learn(key, Known { id: *id, copies: shown.copies }));
    }

    /// Checks that a cart has every item in the end.
    pub fn check_cart(&mut self, key: &[u8], versions: &[Vec<u8>]) {
        let died = self.died();
        let stored = |write: &Write| match write.outcome {
            Outcome::Acknowledged(ack) => {
                self.copies_left(write, &ack) > 0 && (ack.durable || !died)
            }
            _ => false,
        };
        let sure: Vec<WriteId> =
            self.writes_of(key).filter(|(_, write)| stored(write)).map(|(id, _)| *id).collect();
        let missing = cart::missing(&sure, versions);
        if !missing.is_empty() {
            self.violation(key, &format!("items are missing from the cart: {missing:?}"));
        }
    }

    /// Counts whether a read found the last write before it, where it need not.
    fn measure(&mut self, key: &[u8], shown: &Shown) {
        let judged = !shown.sloppy && !shown.hedged;
        let Some((delay, late)) = self.calm.filter(|_| judged) else { return };
        let acknowledged = |(id, write): (&WriteId, &Write)| match write.outcome {
            Outcome::Acknowledged(ack) if ack.at < shown.since => Some((ack.at, ack, *id)),
            _ => None,
        };
        let last = self.writes_of(key).filter_map(acknowledged).max_by_key(|(at, ..)| *at);
        let Some((at, ack, id)) = last.filter(|(_, ack, id)| !ack.sloppy && !self.deletes(*id))
        else {
            return;
        };
        let later = shown.since.0.saturating_sub(at.0) / 1_000;
        let (n, r, w) = (self.replicas, shown.answers, ack.acks);
        if let Some(class) = Staleness::class(later).filter(|_| r + w <= n) {
            let is_covered = self.covering(id).any(|(_, w)| w.outcome != Outcome::NotApplied);
            let is_stale = !shown.ids.contains(&id) && !is_covered;
            let (written_by, read_by, durable) = (ack.by, shown.by, ack.durable);
            let meeting = Meeting { written_by, read_by, w, r, durable, later };
            let setting = Setting { n, r, w, delay, late, class };
            self.meetings.push(Met { key: key.to_vec(), setting, meeting, is_stale });
        }
    }

    /// Holds the reads that may have missed a write against what was to be expected of them:
    /// `homes` says the replicas of a key, `delays` are what messages between nodes took.
    pub fn judge_staleness(&mut self, homes: impl Fn(&[u8]) -> Vec<NodeId>, delays: &[u64]) {
        let mut rng = Rng::new(1);
        for met in std::mem::take(&mut self.meetings) {
            let expected = pbs::chance(&met.meeting, &homes(&met.key), delays, &mut rng);
            self.staleness.add(met.setting, met.is_stale, expected);
        }
    }

    /// Checks what a key is in the end, on every replica.
    pub fn check_final(&mut self, key: &[u8], ids: &BTreeSet<WriteId>) {
        let died = self.died();
        let found = match self.is_last_write_wins(key) {
            false => {
                let mut found = self.false_siblings(key, ids);
                found.extend(self.stale(key, ids, |ack, left| left > 0 && (ack.durable || !died)));
                found
            }
            true => self.all_gone(key, ids),
        };
        for what in found {
            self.violation(key, &format!("in the end: {what} (shown: {ids:?})"));
        }
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
    /// write covers. `counts` gets the copies that lost disks left of a write, too.
    fn stale(
        &self,
        key: &[u8],
        ids: &BTreeSet<WriteId>,
        counts: impl Fn(&Acknowledgement, u8) -> bool,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let stored = |write: &Write| match write.outcome {
            Outcome::Acknowledged(ack) => counts(&ack, self.copies_left(write, &ack)),
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

    /// Where the last write wins, one must have won.
    fn all_gone(&self, key: &[u8], ids: &BTreeSet<WriteId>) -> Vec<String> {
        let of_key = || self.writes_of(key).map(|(_, write)| write);
        let deleted = of_key().any(|w| w.delete && w.outcome != Outcome::NotApplied);
        let died = self.died();
        let stored = of_key().any(|write| match write.outcome {
            Outcome::Acknowledged(ack) => {
                self.copies_left(write, &ack) > 0 && (ack.durable || !died)
            }
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
        // Every replica stops taking more on its own; merged they may be as many times more.
        let most = MAX_VERSIONS * usize::from(self.replicas.max(1));
        let count = object.siblings().count();
        if count > most {
            self.violation(key, &format!("sibling explosion: {count} versions"));
        }
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
}

/// Of the values that one read found only the newest: the writer of a register writes one after the
/// other, and one whose outcome it never learned may stand beside its successor for ever.
fn newest(ops: Vec<Op>) -> Vec<Op> {
    let mut newest: BTreeMap<(u64, Option<u64>), u64> = BTreeMap::new();
    let mut kept = Vec::new();
    for op in ops {
        match op.kind {
            Kind::Read(value) => {
                let found = newest.entry((op.call, op.ret)).or_default();
                *found = value.max(*found);
            }
            Kind::Write(_) => kept.push(op),
        }
    }
    let reads = newest.into_iter();
    kept.extend(reads.map(|((call, ret), value)| Op { call, ret, kind: Kind::Read(value) }));
    kept
}
