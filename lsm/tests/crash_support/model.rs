//! What was written in which order, and what may be left of it.
//!
//! The engine promises that what survives is a *prefix of the log order*: no hole, no phantom.
//! The prefix covers every acknowledged durable write, every durable write a reader has seen and,
//! when only the process died, every acknowledged buffered write.

use std::collections::BTreeMap;

use super::visitor::Visitor;
use coronet_lsm::{Durability, Error, Millis, Seq};

/// Names of keys (see `super::name`) and the values that a reader sees.
pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// What is stored under names, whether or not its time is over.
type State = BTreeMap<Vec<u8>, Stored>;

/// A value and when it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub value: Vec<u8>,
    pub until: Millis,
}

impl Stored {
    /// A value that stays.
    pub fn for_ever(value: Vec<u8>) -> Self {
        Stored { value, until: Millis(u64::MAX) }
    }
}

/// What a reader sees at `now`.
fn visible(stored: Option<&Stored>, now: Millis) -> Option<&[u8]> {
    stored.filter(|stored| stored.until > now).map(|stored| &*stored.value)
}

/// A write: a name, and a value or a delete.
pub type Op = (Vec<u8>, Option<Stored>);

/// What ended a life of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The power failed: un-synced writes survive in part.
    Power,
    /// The process was killed: what was handed to the system stays.
    Process,
    /// The engine was closed: nothing may be missing.
    Closed,
}

/// One write batch.
pub struct Batch {
    /// Puts (`Some`) and deletes, in order.
    pub ops: Vec<Op>,
    durability: Durability,
    acked: bool,
    seen: bool,
}

/// The history of one life on top of what the previous one left.
#[derive(Default)]
pub struct Model {
    base: State,
    history: Vec<Batch>,
    first_failed: Option<usize>,
    newest_seq: Seq,
    /// Batches of all lives: makes every value unique.
    pub total: u64,
    /// The keyspace that comes and goes.
    pub visitor: Visitor,
}

impl Model {
    /// A batch entered the log; returns its place in this life's history.
    pub fn wrote(&mut self, ops: Vec<Op>, durability: Durability, seq: Seq) -> usize {
        assert!(seq > self.newest_seq, "{seq:?} given out after {:?}", self.newest_seq);
        self.newest_seq = seq;
        self.total += 1;
        self.history.push(Batch { ops, durability, acked: false, seen: false });
        self.history.len() - 1
    }

    /// The batch's commit completed.
    pub fn answered(&mut self, at: usize, answer: Result<Seq, Error>) {
        match answer {
            Ok(_) => {
                if let Some(failed) = self.first_failed {
                    assert!(at < failed, "write {at} acknowledged although write {failed} failed");
                }
                self.history[at].acked = true;
            }
            Err(_) => {
                assert!(!self.history[at].acked);
                self.first_failed = Some(self.first_failed.map_or(at, |first| first.min(at)));
            }
        }
    }

    /// Whether a write of this life failed after it had entered the log.
    pub fn failed(&self) -> bool {
        self.first_failed.is_some()
    }

    /// Number of batches in this life.
    pub fn len(&self) -> usize {
        self.history.len()
    }

    /// Number of batches acknowledged in this life.
    pub fn acked(&self) -> usize {
        self.history.iter().filter(|batch| batch.acked).count()
    }

    /// Length of the prefix every reader sees that starts now.
    pub fn committed(&self) -> usize {
        self.history.iter().rposition(|batch| batch.acked).map_or(0, |at| at + 1)
    }

    /// Length of the prefix that must survive.
    pub fn required(&self, end: End) -> usize {
        let must = |batch: &Batch| match end {
            End::Closed => true,
            End::Process => batch.acked || batch.seen,
            End::Power => batch.durability == Durability::Durable && (batch.acked || batch.seen),
        };
        self.history.iter().rposition(must).map_or(0, |at| at + 1)
    }

    /// Checks one point read that started at `now`, when `committed` batches were committed, and
    /// notes what it showed.
    pub fn check_get(&mut self, key: &[u8], value: Option<&[u8]>, committed: usize, now: Millis) {
        let before = self.history[..committed].iter().rev().flat_map(|b| b.ops.iter().rev());
        let oldest = before
            .filter(|(written, _)| written == key)
            .map(|(_, stored)| stored.as_ref())
            .next()
            .unwrap_or_else(|| self.base.get(key));
        let oldest = visible(oldest, now).map(<[u8]>::to_vec);
        if oldest.as_deref() == value {
            return;
        }
        let shown = self.history[committed..].iter_mut().find(|batch| {
            let last = batch.ops.iter().rev().find(|(written, _)| written == key);
            last.is_some_and(|(_, stored)| visible(stored.as_ref(), now) == value)
        });
        match shown {
            // A missing value may be any of several deletes, so it proves none of them visible.
            Some(batch) => batch.seen |= value.is_some(),
            None => panic!(
                "get {} gave {}, expected {} or later",
                String::from_utf8_lossy(key),
                describe(value),
                describe(oldest.as_deref())
            ),
        }
    }

    /// Checks a whole scan whose view was taken at `now`, when between `from` and `to` batches
    /// were visible.
    pub fn check_scan(&self, contents: &Contents, from: usize, to: usize, now: Millis) {
        if self.find_prefix(contents, from, to, now).is_none() {
            panic!(
                "scan shows no prefix in {from}..={to}: {}",
                self.differences(contents, from, now)
            );
        }
    }

    /// The next life found `contents` at `now`: checks them and starts a new history on top.
    pub fn recovered(&mut self, contents: &Contents, end: End, now: Millis) {
        let from = self.required(end);
        let to = self.history.len();
        let Some(upto) = self.find_prefix(contents, from, to, now) else {
            panic!(
                "after {end:?} {} entries are no prefix of {from}..={to} writes ({} acked): {}",
                contents.len(),
                self.acked(),
                self.differences(contents, from, now)
            );
        };
        // Another prefix may look the same now, but then it does so for ever: values are unique,
        // and what has expired stays so.
        self.base = self.state(upto);
        self.base.retain(|_, stored| stored.until > now);
        self.history.clear();
        self.first_failed = None;
    }

    /// Every key that was ever written or found.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let written = self.history.iter().flat_map(|batch| &batch.ops).map(|(key, _)| key);
        let mut keys: Vec<_> = self.base.keys().chain(written).cloned().collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// What a reader sees at `now` after the first `upto` batches.
    pub fn contents(&self, upto: usize, now: Millis) -> Contents {
        let shown = |(key, stored)| Some((key, visible(Some(&stored), now)?.to_vec()));
        self.state(upto).into_iter().filter_map(shown).collect()
    }

    fn state(&self, upto: usize) -> State {
        let mut state = self.base.clone();
        for (key, stored) in self.history[..upto].iter().flat_map(|batch| &batch.ops) {
            apply(&mut state, key, stored);
        }
        state
    }

    /// The shortest prefix within `from..=to` batches that gives `contents` at `now`.
    pub fn find_prefix(
        &self,
        contents: &Contents,
        from: usize,
        to: usize,
        now: Millis,
    ) -> Option<usize> {
        let mut state = self.state(from);
        let differs = |state: &State, key: &Vec<u8>| {
            visible(state.get(key), now) != contents.get(key).map(Vec::as_slice)
        };
        let mut wrong = state.keys().filter(|key| differs(&state, key)).count()
            + contents.keys().filter(|key| !state.contains_key(*key)).count();
        for upto in from..=to {
            if wrong == 0 {
                return Some(upto);
            }
            for (key, stored) in self.history.get(upto).into_iter().flat_map(|batch| &batch.ops) {
                wrong -= usize::from(differs(&state, key));
                apply(&mut state, key, stored);
                wrong += usize::from(differs(&state, key));
            }
        }
        None
    }

    fn differences(&self, contents: &Contents, from: usize, now: Millis) -> String {
        let state = self.contents(from, now);
        let mut keys: Vec<&Vec<u8>> = state.keys().chain(contents.keys()).collect();
        keys.sort();
        keys.dedup();
        let wrong = keys.into_iter().filter(|key| state.get(*key) != contents.get(*key));
        let mut text = format!("differences to the state after {from} writes:");
        for key in wrong.take(12) {
            let writes: Vec<usize> = (0..self.history.len())
                .filter(|at| self.history[*at].ops.iter().any(|(written, _)| written == key))
                .collect();
            text.push_str(&format!(
                "\n  {}: expected {}, found {}, written by {writes:?}",
                String::from_utf8_lossy(key),
                describe(state.get(key).map(Vec::as_slice)),
                describe(contents.get(key).map(Vec::as_slice))
            ));
        }
        text
    }
}

fn apply(state: &mut State, key: &[u8], stored: &Option<Stored>) {
    match stored {
        Some(stored) => state.insert(key.to_vec(), stored.clone()),
        None => state.remove(key),
    };
}

/// A value by its first bytes: its number (see `workload::value`) and its length.
fn describe(value: Option<&[u8]>) -> String {
    match value {
        None => "nothing".into(),
        Some(value) => {
            let head = String::from_utf8_lossy(&value[..value.len().min(12)]).into_owned();
            format!("{head:?} ({} bytes)", value.len())
        }
    }
}
