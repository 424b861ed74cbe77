//! What clients were told about each key, and what a node may therefore answer.
//!
//! Every key has one writer, so that its history is a line of attempts. An attempt whose answer
//! was lost is in doubt: it may be applied at any time of this life of the node. A buffered write
//! is in doubt once the power failed.

use std::collections::{BTreeMap, BTreeSet};

/// How the writer of a key writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every write replaces whatever is there (last write wins).
    Replace,
    /// Every write carries the context of the writer's last answer.
    Context,
    /// Writes carry no context: every version stays.
    Blind,
}

/// What ended a life of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The power failed.
    Power,
    /// The process was killed, or stopped in order.
    Process,
}

#[derive(Debug, Clone)]
struct Attempt {
    number: u64,
    /// `None` deletes.
    value: Option<Vec<u8>>,
    durable: bool,
    acked: bool,
}

/// One key.
#[derive(Debug)]
pub struct KeyModel {
    /// How it is written.
    pub mode: Mode,
    /// The context of the last answer; empty for none.
    pub context: Vec<u8>,
    /// What the last life left.
    base: BTreeSet<Vec<u8>>,
    attempts: Vec<Attempt>,
}

/// Every key of a simulation.
#[derive(Default)]
pub struct Model {
    /// The keys.
    pub keys: BTreeMap<Vec<u8>, KeyModel>,
    next: u64,
}

impl Model {
    /// The model of a key that exists.
    ///
    /// # Panics
    /// When the key was never added.
    pub fn key(&mut self, key: &[u8]) -> &mut KeyModel {
        match self.keys.get_mut(key) {
            Some(model) => model,
            None => panic!("{} was never written by anybody", String::from_utf8_lossy(key)),
        }
    }

    /// Adds a key, unless it is known.
    pub fn add(&mut self, key: Vec<u8>, mode: Mode) {
        let fresh =
            || KeyModel { mode, context: Vec::new(), base: BTreeSet::new(), attempts: Vec::new() };
        self.keys.entry(key).or_insert_with(fresh);
    }

    /// A number for a new attempt, unique in the simulation.
    pub fn issue(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The node restarted: what was acknowledged too weakly for `end` is in doubt.
    pub fn ended(&mut self, end: End) {
        for key in self.keys.values_mut() {
            for attempt in &mut key.attempts {
                attempt.acked &= attempt.durable || end == End::Process;
            }
        }
    }
}

impl KeyModel {
    /// A write is sent.
    pub fn attempt(&mut self, number: u64, value: Option<Vec<u8>>, durable: bool) {
        self.attempts.push(Attempt { number, value, durable, acked: false });
    }

    /// It was acknowledged.
    pub fn acked(&mut self, number: u64) {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.number == number) {
            attempt.acked = true;
        }
    }

    /// It was refused: not applied, now or ever.
    pub fn refused(&mut self, number: u64) {
        self.attempts.retain(|attempt| attempt.number != number);
    }

    /// Number of attempts of this life.
    pub fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// Whether the key certainly has a value.
    pub fn surely_present(&self) -> bool {
        let deleted = self.attempts.iter().any(|attempt| attempt.value.is_none());
        !deleted && (!self.base.is_empty() || self.attempts.iter().any(|attempt| attempt.acked))
    }

    /// Checks the versions an answer shows.
    ///
    /// # Panics
    /// When no history of the attempts gives them.
    pub fn check(&self, key: &[u8], shown: &[Vec<u8>]) {
        let distinct: BTreeSet<Vec<u8>> = shown.iter().cloned().collect();
        let fail = |why: &str| -> ! {
            panic!(
                "{} ({:?}): {why}: shown {:?}, base {:?}, attempts {:?}",
                String::from_utf8_lossy(key),
                self.mode,
                names(shown.iter()),
                names(self.base.iter()),
                self.attempts.iter().map(Attempt::describe).collect::<Vec<_>>()
            )
        };
        if distinct.len() != shown.len() {
            fail("the same write twice");
        }
        let last = self.attempts.iter().rposition(|attempt| attempt.acked);
        // Of the acknowledged writes of a single line of history only the last one is visible.
        let superseded = |value: &Vec<u8>| {
            let at = self.attempts.iter().position(|a| a.value.as_ref() == Some(value));
            match (at, self.mode) {
                (_, Mode::Blind) => false,
                (Some(at), _) => self.attempts[at].acked && Some(at) != last,
                (None, _) => last.is_some(),
            }
        };
        let known = |value: &Vec<u8>| {
            self.base.contains(value)
                || self.attempts.iter().any(|a| a.value.as_ref() == Some(value))
        };
        if !distinct.iter().all(known) {
            fail("a value nobody wrote");
        }
        if distinct.iter().any(superseded) {
            fail("a value that was replaced");
        }
        if self.mode == Mode::Replace && distinct.len() > 1 {
            // An attempt in doubt replaces all, so two versions never stand side by side.
            if !distinct.iter().all(|value| self.base.contains(value)) {
                fail("several versions where each write replaces all");
            }
        }
        if self.lost(&distinct, last) {
            fail("an acknowledged write is missing");
        }
    }

    fn lost(&self, shown: &BTreeSet<Vec<u8>>, last: Option<usize>) -> bool {
        let in_doubt = |attempt: &&Attempt| !attempt.acked;
        if self.mode == Mode::Blind {
            let acked = self.attempts.iter().filter(|attempt| attempt.acked);
            let must = self.base.iter().chain(acked.filter_map(|a| a.value.as_ref()));
            return must.into_iter().any(|value| !shown.contains(value));
        }
        let must: Vec<&Vec<u8>> = match last {
            Some(at) => self.attempts[at].value.iter().collect(),
            None => self.base.iter().collect(),
        };
        if must.iter().all(|value| shown.contains(*value)) {
            return false;
        }
        // Something in doubt may have replaced it: a deletion (nothing to see), or a value that
        // is to be seen now.
        let deleted = self.attempts.iter().filter(in_doubt).any(|a| a.value.is_none());
        let replaced = self
            .attempts
            .iter()
            .filter(in_doubt)
            .any(|a| a.value.as_ref().is_some_and(|value| shown.contains(value)));
        !(deleted || replaced)
    }

    /// The new life showed these versions: they are the truth from now on.
    pub fn recovered(&mut self, key: &[u8], shown: &[Vec<u8>], context: &[u8]) {
        self.check(key, shown);
        self.base = shown.iter().cloned().collect();
        self.attempts.clear();
        self.context = context.to_vec();
    }
}

impl Attempt {
    fn describe(&self) -> String {
        let value = match &self.value {
            Some(value) => name(value),
            None => format!("delete {}", self.number),
        };
        let durable = if self.durable { "durable" } else { "buffered" };
        let state = if self.acked { "acknowledged" } else { "in doubt" };
        format!("{value} {durable} {state}")
    }
}

fn name(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(16)]).into_owned()
}

fn names<'a>(values: impl Iterator<Item = &'a Vec<u8>>) -> Vec<String> {
    values.map(|value| name(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(mode: Mode, attempts: &[(&str, bool)]) -> KeyModel {
        let mut model = Model::default();
        model.add(b"k".to_vec(), mode);
        let mut key = model.keys.remove(&b"k"[..]).unwrap();
        for (number, (value, acked)) in (1..).zip(attempts) {
            let value = (!value.is_empty()).then(|| value.as_bytes().to_vec());
            key.attempt(number, value, true);
            if *acked {
                key.acked(number);
            }
        }
        key
    }

    fn accepts(key: &KeyModel, shown: &[&str]) -> bool {
        let shown: Vec<Vec<u8>> = shown.iter().map(|v| v.as_bytes().to_vec()).collect();
        let check = std::panic::AssertUnwindSafe(|| key.check(b"k", &shown));
        std::panic::catch_unwind(check).is_ok()
    }

    #[test]
    fn replacing_shows_the_last_acknowledged_or_something_in_doubt() {
        let history = key(Mode::Replace, &[("a", true), ("b", true), ("c", false)]);
        assert!(accepts(&history, &["b"]) && accepts(&history, &["c"]));
        assert!(!accepts(&history, &["a"]) && !accepts(&history, &[]));
        assert!(!accepts(&history, &["b", "c"]) && !accepts(&history, &["x"]));
        let deleted = key(Mode::Replace, &[("a", true), ("", false)]);
        assert!(accepts(&deleted, &["a"]) && accepts(&deleted, &[]));
        let gone = key(Mode::Replace, &[("a", true), ("", true)]);
        assert!(!accepts(&gone, &["a"]) && accepts(&gone, &[]));
    }

    #[test]
    fn contexts_leave_what_is_in_doubt_beside_the_last_acknowledged() {
        let history = key(Mode::Context, &[("a", true), ("b", false), ("c", true)]);
        assert!(accepts(&history, &["c"]) && accepts(&history, &["b", "c"]));
        assert!(!accepts(&history, &["a", "c"]) && !accepts(&history, &[]));
    }

    #[test]
    fn blind_writes_all_stay_once() {
        let history = key(Mode::Blind, &[("a", true), ("b", false), ("c", true)]);
        assert!(accepts(&history, &["a", "c"]) && accepts(&history, &["a", "b", "c"]));
        assert!(!accepts(&history, &["a"]) && !accepts(&history, &["a", "a", "c"]));
    }

    #[test]
    fn a_power_failure_puts_buffered_writes_in_doubt() {
        let mut model = Model::default();
        model.add(b"k".to_vec(), Mode::Replace);
        let number = model.issue();
        model.key(b"k").attempt(number, Some(b"a".to_vec()), false);
        model.key(b"k").acked(number);
        model.ended(End::Process);
        assert!(!accepts(model.key(b"k"), &[]));
        model.ended(End::Power);
        assert!(accepts(model.key(b"k"), &[]) && accepts(model.key(b"k"), &["a"]));
    }
}
