//! What clients wrote and were told, and what may therefore be seen.
//!
//! Every write has a number that its value begins with. A write that carries a context covers the
//! writes its author had seen, and those that these cover: `seen` is closed under that. A write
//! may vanish only if a later one covers it, and must vanish if one that is visible does.

mod judge;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use coronet_lsm::env::Nanos;
use coronet_ring::{Dot, NodeId};
use coronet_sim::Rng;

use crate::sim::checkers::Op;
use crate::sim::checkers::pbs::Meeting;
use crate::sim::checkers::session::{Known, Session};
use crate::sim::checkers::staleness::{Setting, Staleness};
use crate::sim::record::{EventKind, Lane, Recorder};

/// A write's number.
pub type WriteId = u64;

/// How the writers of a key write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With contexts, now and then without: every version stays until it is covered.
    Versions,
    /// Every write replaces what its replica has (last write wins).
    Replace,
    /// Every write reads, merges what it finds and adds one item: no item may get lost.
    Cart,
    /// Strict majorities and durable writes, which replace what they find. One client writes,
    /// unless there is one replica only.
    Register,
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
    /// Who coordinated it.
    pub by: NodeId,
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
    /// When it was sent first.
    pub begun: Nanos,
    value: Vec<u8>,
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
    /// Replicas that hold at least what is shown: one, if the read was not monotonic.
    pub copies: u8,
    /// Who coordinated it.
    pub by: NodeId,
    /// Whether more replicas were asked than needed, because one was slow.
    pub hedged: bool,
    /// When the answer came.
    pub until: Nanos,
    /// The writes.
    pub ids: BTreeSet<WriteId>,
}

/// A read of a key after a write of it, where R + W <= N: in what setting, and whether it missed
/// the write.
#[derive(Debug)]
struct Met {
    key: Vec<u8>,
    setting: Setting,
    meeting: Meeting,
    is_stale: bool,
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
    /// What reads of registers found.
    register_reads: BTreeMap<Vec<u8>, Vec<Op>>,
    /// Typical one-way delay between nodes, microseconds, and how many of a million messages are
    /// late, when nothing goes wrong in this run: then it is measured how stale reads are.
    pub calm: Option<(u64, u32)>,
    /// Reads that may have missed a write.
    meetings: Vec<Met>,
    /// How stale they were.
    pub staleness: Staleness,
    /// Replicas of a key.
    pub replicas: u8,
    /// Whether stand-ins do not count unless a request says so.
    pub strict: bool,
    /// When a process died: what was acknowledged as buffered may be lost.
    pub deaths: Vec<Nanos>,
    /// Whether all reads of registers are monotonic.
    pub monotonic: bool,
    /// When a node lost its disk: each time a copy of everything.
    pub emptied: Vec<Nanos>,
    /// Where failures are shown, too.
    pub recorder: Option<Rc<Recorder>>,
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

/// The number that a value begins with.
pub fn number_of(value: &[u8]) -> WriteId {
    let digits: Vec<u8> = value.iter().copied().take_while(u8::is_ascii_digit).take(20).collect();
    String::from_utf8_lossy(&digits).parse().unwrap_or(0)
}

/// A key, for messages.
pub fn name(key: &[u8]) -> String {
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

    /// A write is sent; returns its number and value. `content` makes the value of the number;
    /// without it the write deletes.
    pub fn begin(
        &mut self,
        key: &[u8],
        content: Option<impl FnOnce(WriteId) -> Vec<u8>>,
        token: bool,
        seen: BTreeSet<WriteId>,
        begun: Nanos,
    ) -> (WriteId, Option<Vec<u8>>) {
        let id = self.writes.len() as u64 + 1;
        let value = content.map(|content| content(id));
        let outcome = Outcome::Unknown;
        seen.iter().for_each(|old| self.covers.entry(*old).or_default().push(id));
        self.of_key.entry(key.to_vec()).or_default().push(id);
        let (key, delete) = (key.to_vec(), value.is_none());
        let stored = value.clone().unwrap_or_default();
        let write = Write { key, delete, token, seen, outcome, begun, value: stored };
        self.writes.insert(id, write);
        (id, value)
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
        let line = format!("{}: {what}", name(key));
        if let Some(recorder) = &self.recorder {
            recorder.note(EventKind::Failure, Lane::Client(0), || line.clone());
        }
        self.violations.push(line);
    }

    /// The writes that values are of. Values nobody wrote, and those of writes that were answered
    /// "not applied", are violations.
    pub fn identify(&mut self, key: &[u8], values: &[Vec<u8>]) -> BTreeSet<WriteId> {
        let mut ids = BTreeSet::new();
        for value in values {
            let id = number_of(value);
            let problem = match self.writes.get(&id) {
                Some(write) if write.key != key => Some("belongs to another key"),
                Some(write) if write.delete || write.value != *value => {
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

    /// Whether the writers of a key replace whatever its replica has.
    pub fn is_last_write_wins(&self, key: &[u8]) -> bool {
        match self.style(key) {
            Style::Replace => true,
            Style::Register => self.replicas == 1,
            Style::Versions | Style::Cart => false,
        }
    }

    /// A client learns of its own write.
    pub fn own_write(&self, session: &mut Session, key: &[u8], id: WriteId) {
        let write = self.writes.get(&id).filter(|write| !write.delete);
        if let Some(Outcome::Acknowledged(ack)) = write.map(|write| write.outcome)
            && !ack.sloppy
        {
            session.learn(key, Known { id, copies: ack.acks });
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

    /// The writes that cover a write.
    pub fn covering(&self, id: WriteId) -> impl Iterator<Item = (&WriteId, &Write)> {
        let covers = self.covers.get(&id).map(Vec::as_slice).unwrap_or_default();
        covers.iter().filter_map(|id| self.writes.get_key_value(id))
    }

    /// Whether some process died.
    pub fn died(&self) -> bool {
        !self.deaths.is_empty()
    }

    /// Copies of an acknowledged write that are certainly there: every disk lost since may have
    /// had one.
    fn copies_left(&self, write: &Write, ack: &Acknowledgement) -> u8 {
        let lost = self.emptied.iter().filter(|at| **at >= write.begun).count();
        ack.acks.saturating_sub(u8::try_from(lost).unwrap_or(u8::MAX))
    }

    fn deletes(&self, id: WriteId) -> bool {
        self.writes.get(&id).is_some_and(|write| write.delete)
    }

    /// A write, for messages.
    pub fn describe(&self, id: WriteId) -> String {
        format!("{id}: {:?}", self.writes.get(&id))
    }
}
