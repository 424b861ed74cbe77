//! The load generator's loop: one thread, all connections, readiness by epoll. Decides which
//! request goes out when; a closed loop keeps every connection at its depth, an open loop sends at
//! intended times whatever the server does. Owns no protocol and no report.

use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::connection::{Connection, READ_BYTES, Request};
use super::driver::{BenchError, Driver, Op, Outcome};
use super::keys::{KeyFormat, KeyPicker, Values};
use super::record::Recorder;

/// What a phase sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Every key once, in order.
    Fill,
    /// Reads with this percentage, writes otherwise, keys by the distribution.
    Mix(u32),
}

/// When a phase sends and when it stops.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What is sent.
    pub work: Work,
    /// Requests a second by the clock; `None` keeps every connection at its depth.
    pub rate: Option<f64>,
    /// Stop after this time.
    pub time: Option<Duration>,
    /// Stop after this many requests.
    pub requests: Option<u64>,
    /// Print a line every second.
    pub progress: bool,
}

/// What came of a phase.
pub struct PhaseResult {
    /// Latencies and counts, of every request that was sent.
    pub recorder: Recorder,
    /// From the first request to the end of sending (to the last reply for a counted phase).
    pub window: Duration,
    /// Replies inside the window.
    pub in_window: u64,
    /// Bytes sent in the whole phase.
    pub sent_bytes: u64,
    /// Bytes received in the whole phase.
    pub received_bytes: u64,
    /// Requests that were due inside the window and could not be sent (open loop only).
    pub unsent: u64,
}

/// Without any reply for this long the run is given up.
const STALL: Duration = Duration::from_secs(60);
/// A fill gives up after this many refused writes in a row without one success.
const FILL_PATIENCE: u64 = 100_000;
/// Closer to the next intended start than this the loop spins instead of sleeping: epoll sleeps in
/// whole milliseconds.
const SPIN_NANOS: u64 = 2_000_000;

/// Key numbers for the connections of one server core.
struct Source {
    picker: KeyPicker,
    fill_next: u64,
    retry: Vec<u64>,
}

/// The generator with its open connections.
pub struct Generator<D> {
    driver: D,
    poll: Poll,
    connections: Vec<Connection>,
    sources: Vec<Source>,
    keys: u64,
    format: KeyFormat,
    values: Values,
    check: bool,
    start: Instant,
    scratch: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    next_connection: usize,
}

/// How the generator is set up.
pub struct Setup {
    /// Connections to open.
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// Number of keys.
    pub keys: u64,
    /// How keys look.
    pub format: KeyFormat,
    /// What is stored.
    pub values: Values,
    /// Compare the content of every value read.
    pub check: bool,
}

/// The state of a phase while it runs.
struct Phase {
    plan: Plan,
    recorder: Recorder,
    started: u64,
    issued: u64,
    in_flight: u64,
    stopping: bool,
    window: Option<(Duration, u64)>,
    last_reply: u64,
    refused_in_a_row: u64,
}

impl<D: Driver> Generator<D> {
    /// Opens the connections. `picker` makes the key picker of one server core.
    pub fn open(
        mut driver: D,
        setup: Setup,
        picker: impl Fn(usize) -> KeyPicker,
    ) -> Result<Generator<D>, BenchError> {
        let poll = Poll::new().map_err(|e| BenchError::io("creating the poller", e))?;
        let mut connections = Vec::with_capacity(setup.connections);
        for index in 0..setup.connections {
            let (stream, core) = driver.connect(index)?;
            let prepared = stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true));
            prepared.map_err(|e| BenchError::io("preparing a connection", e))?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
                .map_err(|e| BenchError::io("registering a connection", e))?;
            connections.push(Connection::new(stream, core, setup.depth));
        }
        let cores = routed_cores(&driver, &connections, setup.keys);
        if cores == 1 {
            connections.iter_mut().for_each(|connection| connection.core = 0);
        }
        let sources = (0..cores)
            .map(|core| Source { picker: picker(core), fill_next: 0, retry: Vec::new() })
            .collect();
        Ok(Generator {
            driver,
            poll,
            connections,
            sources,
            keys: setup.keys,
            format: setup.format,
            values: setup.values,
            check: setup.check,
            start: Instant::now(),
            scratch: vec![0; READ_BYTES],
            key: Vec::new(),
            value: Vec::new(),
            next_connection: 0,
        })
    }

    /// The protocol, for questions between phases.
    pub fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Runs one phase to its end; afterwards nothing is in flight.
    pub fn run(&mut self, plan: Plan) -> Result<PhaseResult, BenchError> {
        let started = self.now();
        let (sent, received) = self.traffic();
        let mut phase = Phase {
            plan,
            recorder: Recorder::new(plan.rate.is_some()),
            started,
            issued: 0,
            in_flight: 0,
            stopping: false,
            window: None,
            last_reply: started,
            refused_in_a_row: 0,
        };
        if plan.rate.is_none() {
            for index in 0..self.connections.len() {
                self.top_up(index, &mut phase)?;
            }
        }
        self.turn_until_done(&mut phase)?;
        let end = Duration::from_nanos(self.now() - started);
        let (window, in_window) = phase.window.unwrap_or((end, phase.recorder.replies()));
        let unsent = match (plan.rate, plan.time) {
            (Some(rate), Some(_)) => due(rate, window).saturating_sub(phase.issued),
            _ => 0,
        };
        let (sent_after, received_after) = self.traffic();
        Ok(PhaseResult {
            recorder: phase.recorder,
            window,
            in_window,
            sent_bytes: sent_after - sent,
            received_bytes: received_after - received,
            unsent,
        })
    }

    /// Bytes sent and received so far on all connections.
    fn traffic(&self) -> (u64, u64) {
        let sum = |bytes: fn(&Connection) -> u64| self.connections.iter().map(bytes).sum();
        (sum(|connection| connection.sent_bytes), sum(|connection| connection.received_bytes))
    }

    fn turn_until_done(&mut self, phase: &mut Phase) -> Result<(), BenchError> {
        let mut events = Events::with_capacity(1024);
        let mut last_line = phase.started;
        loop {
            let mut now = self.now();
            if let Some(rate) = phase.plan.rate
                && !phase.stopping
            {
                self.send_due(rate, now, phase)?;
            }
            if phase.in_flight == 0 && (phase.stopping || self.exhausted(phase)) {
                return Ok(());
            }
            let timeout = self.timeout(phase, now);
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.map_err(|e| BenchError::io("waiting for replies", e))?,
            }
            for event in &events {
                let Token(index) = event.token();
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.receive(index, phase)?;
                }
                if phase.plan.rate.is_none() {
                    self.top_up(index, phase)?;
                } else if event.is_writable() {
                    self.connections[index].flush()?;
                }
            }
            now = self.now();
            self.check_end(phase, now)?;
            if now - last_line >= 1_000_000_000 {
                phase.recorder.end_second();
                let at = Duration::from_nanos(now - phase.started);
                let since = Duration::from_nanos(now - last_line);
                let line = phase.recorder.interval_line(at, since);
                if phase.plan.progress {
                    eprintln!("{line}");
                }
                last_line = now;
            }
        }
    }

    #[inline]
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Whether the phase has nothing left to send of its own accord.
    fn exhausted(&self, phase: &Phase) -> bool {
        let counted = phase.plan.requests.is_some_and(|limit| phase.issued >= limit);
        let filled = phase.plan.work == Work::Fill
            && self.sources.iter().all(|s| s.fill_next >= self.keys && s.retry.is_empty());
        counted || filled
    }

    fn timeout(&self, phase: &Phase, now: u64) -> Duration {
        let idle = Duration::from_millis(50);
        match phase.plan.rate {
            Some(rate) if !phase.stopping => {
                let next = phase.started + intended(rate, phase.issued);
                let wait = next.saturating_sub(now);
                if wait < SPIN_NANOS {
                    Duration::ZERO
                } else {
                    Duration::from_nanos(wait - SPIN_NANOS / 2).min(idle)
                }
            }
            _ => idle,
        }
    }

    fn check_end(&self, phase: &mut Phase, now: u64) -> Result<(), BenchError> {
        let elapsed = Duration::from_nanos(now - phase.started);
        if !phase.stopping && phase.plan.time.is_some_and(|time| elapsed >= time) {
            phase.stopping = true;
            phase.window = Some((elapsed, phase.recorder.replies()));
        }
        let silent = Duration::from_nanos(now.saturating_sub(phase.last_reply));
        if phase.in_flight > 0 && silent > STALL {
            return Err(BenchError::Stalled(format!(
                "{} requests without an answer for {} s",
                phase.in_flight,
                silent.as_secs()
            )));
        }
        Ok(())
    }

    /// Sends what is due. Requests that fall due in one turn of the loop leave together on one
    /// connection, the next turn's on the next: what a pipelining client does.
    fn send_due(&mut self, rate: f64, now: u64, phase: &mut Phase) -> Result<(), BenchError> {
        let count = self.connections.len();
        let mut full = 0;
        while full < count {
            if phase.started + intended(rate, phase.issued) > now || self.exhausted(phase) {
                break;
            }
            let index = self.next_connection;
            self.next_connection = (index + 1) % count;
            let mut sent = 0;
            while self.connections[index].has_room() && !self.exhausted(phase) {
                let at = phase.started + intended(rate, phase.issued);
                if at > now || !self.issue(index, at, now, phase) {
                    break;
                }
                sent += 1;
            }
            if sent == 0 {
                full += 1;
            } else {
                full = 0;
                self.connections[index].flush()?;
            }
        }
        Ok(())
    }

    /// Fills a connection up to its depth (closed loop).
    fn top_up(&mut self, index: usize, phase: &mut Phase) -> Result<(), BenchError> {
        if !phase.stopping && self.connections[index].has_room() {
            let now = self.now();
            while self.connections[index].has_room()
                && phase.plan.requests.is_none_or(|limit| phase.issued < limit)
                && self.issue(index, now, now, phase)
            {}
        }
        self.connections[index].flush()
    }

    /// Puts the next request of the connection's core in its output; false when there is none.
    fn issue(&mut self, index: usize, intended: u64, now: u64, phase: &mut Phase) -> bool {
        let core = self.connections[index].core;
        let Some((op, key)) = self.next(core, phase.plan.work) else { return false };
        if op == Op::Put {
            self.values.write(key, &mut self.value);
        }
        let request = Request { op, key, intended, sent: now };
        self.connections[index].enqueue(&mut self.driver, request, &self.key, &self.value);
        phase.issued += 1;
        phase.in_flight += 1;
        true
    }

    /// The next operation for a core; its key is left in `self.key`. Keys of other cores are
    /// passed over, so that every request arrives where it belongs.
    fn next(&mut self, core: usize, work: Work) -> Option<(Op, u64)> {
        let one_core = self.sources.len() == 1;
        loop {
            let source = &mut self.sources[core];
            let (op, key) = match work {
                Work::Fill => match source.retry.pop() {
                    Some(key) => (Op::Put, key),
                    None if source.fill_next >= self.keys => return None,
                    None => {
                        source.fill_next += 1;
                        (Op::Put, source.fill_next - 1)
                    }
                },
                Work::Mix(percent) if source.picker.coin(percent) => {
                    (Op::Get, source.picker.read())
                }
                Work::Mix(_) => (Op::Put, source.picker.write()),
            };
            self.format.write(key, &mut self.key);
            if one_core || self.driver.owner(&self.key) == core {
                return Some((op, key));
            }
        }
    }

    fn receive(&mut self, index: usize, phase: &mut Phase) -> Result<(), BenchError> {
        let (start, values, check) = (self.start, &self.values, self.check);
        let connection = &mut self.connections[index];
        let retry = &mut self.sources[connection.core].retry;
        // One clock reading serves all replies of one read: they arrived together.
        let now = start.elapsed().as_nanos() as u64;
        connection.receive(&mut self.driver, &mut self.scratch, |request, outcome| {
            phase.in_flight -= 1;
            phase.last_reply = now;
            phase.settle(&request, &outcome, now, values, check, retry)
        })
    }
}

impl Phase {
    /// Records what became of a request.
    fn settle(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
        now: u64,
        values: &Values,
        check: bool,
        retry: &mut Vec<u64>,
    ) -> Result<(), BenchError> {
        let wrong = match (request.op, outcome) {
            (Op::Put, Outcome::Stored) | (Op::Get, Outcome::Missing) => None,
            (Op::Get, Outcome::Value(value)) if value.len() != values.size() => {
                Some("wrong-length")
            }
            (Op::Get, Outcome::Value(value)) if check && !values.matches(request.key, value) => {
                Some("wrong-content")
            }
            (Op::Get, Outcome::Value(_)) => None,
            (_, Outcome::Failed(kind)) => Some(kind.as_ref()),
            _ => return Err(BenchError::Protocol("a reply of the wrong kind".into())),
        };
        match wrong {
            None => {
                self.refused_in_a_row = 0;
                let missing = *outcome == Outcome::Missing;
                let service = now.saturating_sub(request.sent);
                let response = now.saturating_sub(request.intended);
                self.recorder.done(request.op, missing, service, response);
            }
            Some(kind) => {
                self.recorder.failed(kind);
                self.refused_in_a_row += 1;
                if self.plan.work == Work::Fill {
                    if self.refused_in_a_row > FILL_PATIENCE {
                        return Err(BenchError::Refused(format!("the fill is refused: {kind}")));
                    }
                    retry.push(request.key);
                }
            }
        }
        Ok(())
    }
}

/// The cores whose keys are kept apart: all of the server's when each has a connection and
/// certainly some keys, else one source feeds every connection and the server forwards.
fn routed_cores<D: Driver>(driver: &D, connections: &[Connection], keys: u64) -> usize {
    let cores = driver.cores().max(1);
    let covered = (0..cores).all(|core| connections.iter().any(|c| c.core == core));
    if covered && keys >= 256 * cores as u64 { cores } else { 1 }
}

/// When the request with this number should start, in nanoseconds after the phase began.
fn intended(rate: f64, number: u64) -> u64 {
    (number as f64 * 1e9 / rate) as u64
}

/// How many requests are due in a window.
fn due(rate: f64, window: Duration) -> u64 {
    (window.as_secs_f64() * rate) as u64
}

#[cfg(test)]
#[path = "generator_tests.rs"]
mod tests;
