//! What was written in which order, and what may be left of it.
//!
//! The engine promises that what survives is a *prefix of the log order*: no hole, no phantom.
//! The prefix covers every acknowledged durable write, every durable write a reader has seen and,
//! when only the process died, every acknowledged buffered write.

use std::collections::BTreeMap;

use coronet_lsm::{Durability, Error, Seq};

/// Keys and values.
pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

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
    pub ops: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    durability: Durability,
    acked: bool,
    seen: bool,
}

/// The history of one life on top of what the previous one left.
#[derive(Default)]
pub struct Model {
    base: Contents,
    history: Vec<Batch>,
    first_failed: Option<usize>,
    newest_seq: Seq,
    /// Batches of all lives: makes every value unique.
    pub total: u64,
}

impl Model {
    /// A batch entered the log; returns its place in this life's history.
    pub fn wrote(
        &mut self,
        ops: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        durability: Durability,
        seq: Seq,
    ) -> usize {
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

    /// Checks one point read that started when `committed` batches were committed, and notes
    /// what it showed.
    pub fn check_get(&mut self, key: &[u8], value: Option<&[u8]>, committed: usize) {
        let before = self.history[..committed].iter().rev().flat_map(|b| b.ops.iter().rev());
        let oldest = before
            .filter(|(written, _)| written == key)
            .map(|(_, value)| value.clone())
            .next()
            .unwrap_or_else(|| self.base.get(key).cloned());
        if oldest.as_deref() == value {
            return;
        }
        let shown = self.history[committed..].iter_mut().find(|batch| {
            let last = batch.ops.iter().rev().find(|(written, _)| written == key);
            last.is_some_and(|(_, written)| written.as_deref() == value)
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

    /// Checks a whole scan whose view was taken when between `from` and `to` batches were
    /// visible.
    pub fn check_scan(&self, contents: &Contents, from: usize, to: usize) {
        if self.find_prefix(contents, from, to).is_none() {
            panic!("scan shows no prefix in {from}..={to}: {}", self.differences(contents, from));
        }
    }

    /// The next life found `contents`: checks them and starts a new history on top.
    pub fn recovered(&mut self, contents: Contents, end: End) {
        let from = self.required(end);
        let to = self.history.len();
        if self.find_prefix(&contents, from, to).is_none() {
            panic!(
                "after {end:?} {} entries are no prefix of {from}..={to} writes ({} acked): {}",
                contents.len(),
                self.acked(),
                self.differences(&contents, from)
            );
        }
        self.base = contents;
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

    /// The state after the first `upto` batches.
    pub fn state(&self, upto: usize) -> Contents {
        let mut state = self.base.clone();
        for batch in &self.history[..upto] {
            for (key, value) in &batch.ops {
                match value {
                    Some(value) => state.insert(key.clone(), value.clone()),
                    None => state.remove(key),
                };
            }
        }
        state
    }

    /// The shortest prefix within `from..=to` batches that gives `contents`.
    pub fn find_prefix(&self, contents: &Contents, from: usize, to: usize) -> Option<usize> {
        let mut state = self.state(from);
        let mut wrong =
            state.iter().filter(|(key, value)| contents.get(*key) != Some(*value)).count()
                + contents.keys().filter(|key| !state.contains_key(*key)).count();
        for upto in from..=to {
            if wrong == 0 {
                return Some(upto);
            }
            for (key, value) in self.history.get(upto).into_iter().flat_map(|batch| &batch.ops) {
                let expected = contents.get(key);
                wrong -= usize::from(state.get(key) != expected);
                match value {
                    Some(value) => state.insert(key.clone(), value.clone()),
                    None => state.remove(key),
                };
                wrong += usize::from(state.get(key) != expected);
            }
        }
        None
    }

    fn differences(&self, contents: &Contents, from: usize) -> String {
        let state = self.state(from);
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
