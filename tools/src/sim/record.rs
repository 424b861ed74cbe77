//! What happened in a simulated cluster, for people: messages, faults, operations, failures.
//!
//! Nothing is kept unless it was asked for, and keeping it changes nothing in the run.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, Nanos};
use coronet_sim::SimEnv;

use super::caption::caption;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// Bytes from one host to another.
    Message,
    /// Something goes wrong with a host, or is well again.
    Fault,
    /// A client's operation.
    Operation,
    /// Something that must not happen.
    Failure,
    /// Bytes from one host to another in which no client has a part: gossip, credits.
    Chatter,
}

/// Where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// A host.
    Host(usize),
    /// A client.
    Client(usize),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: EventKind,
    /// When it began, nanoseconds of virtual time.
    pub from: u64,
    /// When it ended; `from` when it took no time.
    pub until: u64,
    /// Where.
    pub lane: Lane,
    /// The other host, of a message.
    pub to: Option<usize>,
    /// In words.
    pub text: String,
}

/// Collects the events of a run.
pub struct Recorder {
    clock: SimEnv,
    events: Option<RefCell<Vec<Event>>>,
}

impl Recorder {
    /// One that keeps events, or one that does not.
    pub fn new(clock: SimEnv, keeps: bool) -> Rc<Recorder> {
        Rc::new(Recorder { clock, events: keeps.then(RefCell::default) })
    }

    /// Something began at `from` and is over now.
    pub fn span(&self, kind: EventKind, lane: Lane, from: Nanos, text: impl FnOnce() -> String) {
        self.add(kind, lane, None, (from, self.clock.now()), text);
    }

    /// Something happens now.
    pub fn note(&self, kind: EventKind, lane: Lane, text: impl FnOnce() -> String) {
        self.span(kind, lane, self.clock.now(), text);
    }

    /// A fault begins now and lasts so long.
    pub fn planned(&self, lane: Lane, lasts: Duration, text: impl FnOnce() -> String) {
        let now = self.clock.now();
        self.add(EventKind::Fault, lane, None, (now, now.after(lasts)), text);
    }

    /// Bytes that are sent now, in pieces, arrive.
    pub(super) fn message(&self, (from, to): (usize, usize), arrives: Nanos, bytes: &[u8]) {
        if self.keeps() {
            let times = (self.clock.now(), arrives);
            let (words, concerns_clients) = caption(bytes);
            let kind = if concerns_clients { EventKind::Message } else { EventKind::Chatter };
            let text = || format!("{words}: {} bytes", bytes.len());
            self.add(kind, Lane::Host(from), Some(to), times, text);
        }
    }

    /// Whether events are kept.
    pub(super) fn keeps(&self) -> bool {
        self.events.is_some()
    }

    fn add(
        &self,
        kind: EventKind,
        lane: Lane,
        to: Option<usize>,
        (from, until): (Nanos, Nanos),
        text: impl FnOnce() -> String,
    ) {
        if let Some(events) = &self.events {
            let text = text();
            events.borrow_mut().push(Event { kind, from: from.0, until: until.0, lane, to, text });
        }
    }

    /// All events, in the order of their beginnings.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.events.as_ref().map(|e| e.borrow().clone()).unwrap_or_default();
        events.sort_by_key(|event| event.from);
        events
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lane::Host(at) => write!(f, "node-{}", at + 1),
            Lane::Client(at) => write!(f, "client-{}", at + 1),
        }
    }
}

/// The events as lines: time in seconds, where, what.
pub fn lines(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        let (at, took) = (event.from as f64 / 1e9, (event.until - event.from) as f64 / 1e6);
        let to = event.to.map(|to| format!(" -> {}", Lane::Host(to))).unwrap_or_default();
        let (kind, lane, what) = (event.kind, event.lane, &event.text);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{at:.6} {kind:?} {lane}{to} {what} ({took:.3} ms)");
    }
    text
}

#[cfg(test)]
mod tests {
    use coronet_sim::Sim;

    use super::*;

    #[test]
    fn events_are_kept_in_order_only_when_asked_for() {
        let sim = Sim::new(1);
        for keeps in [true, false] {
            let recorder = Recorder::new(sim.node_env("clock"), keeps);
            recorder.message((0, 2), Nanos(5_000_000), b"part");
            recorder.note(EventKind::Fault, Lane::Host(1), || "killed".to_owned());
            let text = lines(&recorder.events());
            assert_eq!(
                text.contains("Message node-1 -> node-3 a part of a frame: 4 bytes"),
                keeps,
                "{text}"
            );
            assert_eq!(text.contains("Fault node-2 killed"), keeps, "{text}");
        }
    }
}
