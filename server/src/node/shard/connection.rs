//! One client connection as the shard sees it: bytes in, bytes out, limits and deadlines.
//!
//! Owns buffers and counters; knows nothing of operations. What the limits are is in
//! [`Limits`].

use std::task::Waker;
use std::time::Duration;

use coronet_lsm::env::Nanos;

use crate::node::{CoreId, Timed};

/// What one connection may use, and how long it may dawdle.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest user key, bytes.
    pub key_bytes: usize,
    /// Largest value, bytes.
    pub value_bytes: usize,
    /// Requests of one connection in flight.
    pub in_flight: usize,
    /// Bytes of requests in flight (forwarded or waiting for the disk).
    pub in_flight_bytes: usize,
    /// Replies waiting to be sent, bytes, from which no further request is taken.
    pub output_bytes: usize,
    /// Time from connecting to a complete HELLO.
    pub hello: Duration,
    /// Time a frame may stay incomplete.
    pub partial_frame: Duration,
    /// Time without any request after which a connection is closed; zero means never.
    pub idle: Duration,
    /// How long a write that names no deadline waits for its commit before its client is told
    /// that it is in doubt. It stays in the log and may still be committed: a full disk, for one,
    /// holds it up until there is space.
    pub commit_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes: 64 << 10,
            value_bytes: 16 << 20,
            in_flight: 1024,
            in_flight_bytes: 64 << 20,
            output_bytes: 8 << 20,
            hello: Duration::from_secs(10),
            partial_frame: Duration::from_secs(30),
            idle: Duration::ZERO,
            commit_wait: Duration::from_secs(30),
        }
    }
}

/// Why a connection is closed although the client said nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// No HELLO in time.
    Hello,
    /// A frame was begun and not finished in time.
    PartialFrame,
    /// Nothing was asked for too long.
    Idle,
}

/// Buffers above this size are given back once they are empty: one large value must not pin
/// its size for the life of an idle connection.
const KEEP_BYTES: usize = 64 << 10;

/// A client that sends a large frame at this speed is not cut off.
const SLOWEST_BYTES_PER_SECOND: usize = 32 << 10;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Bytes received and not yet understood: an incomplete frame, or what waits while paused.
    input: Vec<u8>,
    /// Replies not yet taken by the shell.
    pub(super) output: Vec<u8>,
    /// Whether HELLO was answered.
    pub(super) greeted: bool,
    /// Nothing more is read; closed once the output is sent.
    pub(super) closing: bool,
    /// The peer sends nothing more.
    pub(super) ended: bool,
    /// The core that takes this connection over.
    pub(super) hand_over: Option<CoreId>,
    /// Whether the connection is already in the shard's list of changes.
    pub(super) dirty: bool,
    /// Requests in flight.
    in_flight: usize,
    /// Their bytes.
    in_flight_bytes: usize,
    /// What the shell was told last.
    told_paused: bool,
    /// When the connection was made.
    opened: Nanos,
    /// When the bytes arrived that are being worked on.
    arrived: Nanos,
    /// Requests answered since the output was taken, those alike counted together.
    answered: Vec<(Timed, u32)>,
    /// Tasks with more output than fits now.
    waiting: Vec<Waker>,
    /// Since when the head of `input` waits to be completed by the client.
    partial_since: Option<Nanos>,
}

impl Connection {
    pub(super) fn new(now: Nanos) -> Self {
        Connection {
            input: Vec::new(),
            output: Vec::new(),
            greeted: false,
            closing: false,
            ended: false,
            hand_over: None,
            dirty: false,
            in_flight: 0,
            in_flight_bytes: 0,
            told_paused: false,
            opened: now,
            arrived: now,
            answered: Vec::new(),
            waiting: Vec::new(),
            partial_since: None,
        }
    }

    /// Whether no further request is taken now.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.in_flight >= limits.in_flight
            || self.in_flight_bytes >= limits.in_flight_bytes
            || self.output.len() >= limits.output_bytes
    }

    /// Whether requests may be taken from the input.
    pub(super) fn takes_requests(&self, limits: &Limits) -> bool {
        !self.closing && self.hand_over.is_none() && !self.is_full(limits)
    }

    /// Notes when input arrived, unless older input still waits: deadlines count from there.
    pub(super) fn note_arrival(&mut self, now: Nanos) {
        if self.input.is_empty() {
            self.arrived = now;
        }
    }

    /// When the input being worked on arrived.
    pub(super) fn arrived(&self) -> Nanos {
        self.arrived
    }

    /// Appends to the waiting input. Nothing is kept of a closing connection.
    pub(super) fn keep_input(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Whether input waits.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Takes the waiting input to work on it; the rest comes back with [`Self::return_input`].
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Puts the input back without its first `used` bytes.
    pub(super) fn return_input(&mut self, mut input: Vec<u8>, used: usize) {
        if self.closing || used >= input.len() {
            input.clear();
            if input.capacity() > KEEP_BYTES {
                input = Vec::new();
            }
        } else if used > 0 {
            input.drain(..used);
        }
        self.input = input;
    }

    /// Notes whether the head of the input is a frame the client has not finished, and whether
    /// it is another one than before.
    pub(super) fn note_partial(&mut self, partial: bool, another: bool, now: Nanos) {
        self.partial_since = match (partial, self.partial_since) {
            (false, _) => None,
            (true, Some(since)) if !another => Some(since),
            (true, _) => Some(now),
        };
    }

    /// A request is in flight from now on.
    pub(super) fn begin(&mut self, bytes: usize) {
        self.in_flight += 1;
        self.in_flight_bytes += bytes;
    }

    /// A request in flight is answered.
    pub(super) fn finish(&mut self, bytes: usize) {
        assert!(self.in_flight > 0, "an answer without a request in flight");
        self.in_flight -= 1;
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
    }

    /// A request was answered. Its latency ends when the output is taken: one look at the clock
    /// for all that leave together.
    pub(super) fn answered(&mut self, timed: Timed) {
        match self.answered.last_mut() {
            Some((last, count)) if *last == timed => *count += 1,
            _ => self.answered.push((timed, 1)),
        }
    }

    /// The requests answered since the last call.
    pub(super) fn take_answered(&mut self) -> impl Iterator<Item = (Timed, u32)> + '_ {
        self.answered.drain(..)
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the shell must hear about a change of the paused state.
    pub(super) fn pause_changed(&self, limits: &Limits) -> bool {
        self.told_paused != self.wants_pause(limits)
    }

    fn wants_pause(&self, limits: &Limits) -> bool {
        self.closing || self.hand_over.is_some() || self.is_full(limits)
    }

    /// The paused state, told to the shell.
    pub(super) fn tell_paused(&mut self, limits: &Limits) -> bool {
        self.told_paused = self.wants_pause(limits);
        self.told_paused
    }

    /// Wakes the task when output was taken, or the connection is gone.
    pub(super) fn wait_for_room(&mut self, task: &Waker) {
        self.waiting.push(task.clone());
    }

    /// Moves the output to the end of `into`.
    pub(super) fn drain_output(&mut self, into: &mut Vec<u8>) {
        if into.is_empty() {
            std::mem::swap(&mut self.output, into);
        } else {
            into.append(&mut self.output);
        }
        if self.output.capacity() > KEEP_BYTES {
            self.output = Vec::new();
        }
        self.output.clear();
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// What the connection failed to do in time. Waiting for us is never its fault.
    pub(super) fn overdue(&self, limits: &Limits, now: Nanos) -> Option<Overdue> {
        if self.closing || self.hand_over.is_some() {
            return None;
        }
        if !self.greeted && now.since(self.opened) >= limits.hello {
            return Some(Overdue::Hello);
        }
        // What has arrived of a large frame earns it more time.
        let earned = Duration::from_secs((self.input.len() / SLOWEST_BYTES_PER_SECOND) as u64);
        let allowed = limits.partial_frame + earned;
        if self.partial_since.is_some_and(|since| now.since(since) >= allowed) {
            return Some(Overdue::PartialFrame);
        }
        let quiet = self.in_flight == 0 && self.output.is_empty() && self.input.is_empty();
        if !limits.idle.is_zero() && quiet && now.since(self.arrived) >= limits.idle {
            return Some(Overdue::Idle);
        }
        None
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn silence_is_overdue_only_where_the_client_is_to_blame() {
        let limits = Limits { idle: Duration::from_secs(60), ..Limits::default() };
        let mut conn = Connection::new(at(0));
        assert_eq!(conn.overdue(&limits, at(9)), None);
        assert_eq!(conn.overdue(&limits, at(10)), Some(Overdue::Hello));
        conn.greeted = true;
        conn.note_partial(true, false, at(10));
        conn.note_partial(true, false, at(39));
        assert_eq!(conn.overdue(&limits, at(39)), None);
        assert_eq!(conn.overdue(&limits, at(40)), Some(Overdue::PartialFrame));
        conn.note_partial(false, false, at(40));
        conn.begin(10);
        assert_eq!(conn.overdue(&limits, at(100)), None);
        conn.finish(10);
        assert_eq!(conn.overdue(&limits, at(100)), Some(Overdue::Idle));
    }

    #[test]
    fn each_limit_pauses_and_relief_resumes() {
        let limits =
            Limits { in_flight: 2, in_flight_bytes: 100, output_bytes: 10, ..Limits::default() };
        let mut conn = Connection::new(at(0));
        assert!(!conn.tell_paused(&limits));
        conn.begin(1);
        conn.begin(1);
        assert!(conn.pause_changed(&limits) && conn.tell_paused(&limits));
        conn.finish(1);
        assert!(conn.pause_changed(&limits) && !conn.tell_paused(&limits));
        conn.begin(200);
        conn.finish(1);
        assert!(conn.is_full(&limits));
        conn.finish(200);
        conn.output.extend_from_slice(&[0; 10]);
        assert!(conn.is_full(&limits));
        let mut out = Vec::new();
        conn.drain_output(&mut out);
        assert_eq!(out.len(), 10);
        assert!(!conn.is_full(&limits));
    }

    #[test]
    fn returned_input_keeps_what_was_not_used() {
        let mut conn = Connection::new(at(0));
        conn.keep_input(b"abcdef");
        let input = conn.take_input();
        conn.return_input(input, 4);
        assert_eq!(conn.take_input(), b"ef");
        conn.closing = true;
        conn.keep_input(b"x");
        assert!(!conn.has_input());
    }
}
