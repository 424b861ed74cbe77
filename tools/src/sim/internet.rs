//! The wires between nodes: connections with delays, resets, slow links and partitions.
//!
//! A direction between two hosts may be cut: what is sent stays on the wire and arrives when the
//! cut ends, unless the connection is reset. A process that dies resets its connections; a machine
//! that loses its power says nothing, and its peers learn of it when it is back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use coronet_lsm::env::{Env, Nanos};
use coronet_server::node::{ConnId, Door};
use coronet_sim::{Rng, SimEnv};

use super::network::{Network, chunks};
use super::record::Recorder;

/// How long a dial over a cut wire takes to fail.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);
/// No parcel takes longer, however slow the way and however often it was lost: what is on its way
/// when the wires are mended must arrive within the patience of the checks.
const LONGEST: Duration = Duration::from_secs(10);

/// One end of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeEnd {
    pipe: u64,
    side: usize,
}

impl PipeEnd {
    fn other(self) -> PipeEnd {
        PipeEnd { side: 1 - self.side, ..self }
    }
}

struct End {
    host: usize,
    network: Weak<Network>,
    conn: ConnId,
}

enum Parcel {
    Bytes(Vec<u8>),
    Close,
}

/// A connection between two nodes. Directions are named by the end they start at.
struct Pipe {
    ends: [End; 2],
    /// When the last parcel sent so far arrives.
    last: [Nanos; 2],
    /// What waits for a cut to end or a node to go on.
    held: [VecDeque<Parcel>; 2],
}

struct Host {
    address: SocketAddr,
    env: Option<SimEnv>,
    network: Weak<Network>,
}

/// So many messages' delays are noted.
const MOST_DELAYS: usize = 20_000;

/// What the wires do to what is sent.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Typical delay, microseconds.
    pub delay: u64,
    /// Chance in a million that a parcel is late.
    pub late: u32,
    /// How many times longer a late one takes.
    pub late_factor: u64,
    /// Chance in a million that sending resets the connection.
    pub reset: u32,
    /// Chance in a million that one byte of what is sent changes.
    pub corrupt: u32,
}

/// All wires between the nodes of a world.
pub struct Internet {
    env: SimEnv,
    rng: RefCell<Rng>,
    hosts: RefCell<Vec<Host>>,
    pipes: RefCell<BTreeMap<u64, Pipe>>,
    cuts: RefCell<BTreeSet<(usize, usize)>>,
    slow: RefCell<BTreeMap<(usize, usize), u64>>,
    weather: Cell<Weather>,
    next_pipe: Cell<u64>,
    recorder: Rc<Recorder>,
    /// How long messages took to arrive whole, microseconds: the first [`MOST_DELAYS`].
    delays: RefCell<Vec<u64>>,
}

impl Internet {
    /// Wires between hosts at these addresses, none of them up. `env` belongs to no host.
    pub fn new(
        env: SimEnv,
        rng: Rng,
        addresses: &[SocketAddr],
        weather: Weather,
        recorder: &Rc<Recorder>,
    ) -> Rc<Self> {
        let host =
            |address: &SocketAddr| Host { address: *address, env: None, network: Weak::new() };
        Rc::new(Internet {
            env,
            rng: RefCell::new(rng),
            hosts: RefCell::new(addresses.iter().map(host).collect()),
            pipes: RefCell::default(),
            cuts: RefCell::default(),
            slow: RefCell::default(),
            weather: Cell::new(weather),
            next_pipe: Cell::new(1),
            recorder: Rc::clone(recorder),
            delays: RefCell::default(),
        })
    }

    /// A host's process listens from now on; connections of an earlier life are reset.
    pub fn up(self: &Rc<Self>, host: usize, env: &SimEnv, network: &Rc<Network>) {
        self.reset_all(host);
        if let Some(host) = self.hosts.borrow_mut().get_mut(host) {
            (host.env, host.network) = (Some(env.clone()), Rc::downgrade(network));
        }
    }

    /// A host is gone. With `reset` its peers notice; a machine without power tells nobody.
    pub fn down(self: &Rc<Self>, host: usize, reset: bool) {
        if let Some(host) = self.hosts.borrow_mut().get_mut(host) {
            (host.env, host.network) = (None, Weak::new());
        }
        if reset {
            self.reset_all(host);
        }
    }

    /// Cuts the way from one host to another.
    pub fn cut(&self, from: usize, to: usize) {
        self.cuts.borrow_mut().insert((from, to));
    }

    /// Delays everything from one host to another by a factor.
    pub fn slow_down(&self, from: usize, to: usize, factor: u64) {
        self.slow.borrow_mut().insert((from, to), factor.max(1));
    }

    /// Ends cuts and slowness of some ways; what was held arrives.
    pub fn mend(self: &Rc<Self>, ways: &[(usize, usize)]) {
        for way in ways {
            self.cuts.borrow_mut().remove(way);
            self.slow.borrow_mut().remove(way);
        }
        self.release();
    }

    /// The wires are like this from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.weather.set(weather);
    }

    /// Ends all cuts and slowness. What was held arrives, or its connection is reset.
    pub fn heal(self: &Rc<Self>, weather: Weather) {
        self.cuts.borrow_mut().clear();
        self.slow.borrow_mut().clear();
        self.weather.set(weather);
        let held: Vec<u64> = {
            let pipes = self.pipes.borrow();
            let holds = |pipe: &Pipe| pipe.held.iter().any(|held| !held.is_empty());
            pipes.iter().filter(|(_, pipe)| holds(pipe)).map(|(id, _)| *id).collect()
        };
        for pipe in held {
            if self.rng.borrow_mut().below(3) == 0 {
                self.reset(pipe);
            }
        }
        self.release();
    }

    /// Resets the connections between two hosts.
    pub fn reset_between(self: &Rc<Self>, a: usize, b: usize) {
        let between = |pipe: &Pipe| {
            let hosts = [pipe.ends[0].host, pipe.ends[1].host];
            hosts == [a, b] || hosts == [b, a]
        };
        self.reset_where(between);
    }

    fn reset_all(self: &Rc<Self>, host: usize) {
        self.reset_where(|pipe| pipe.ends.iter().any(|end| end.host == host));
    }

    fn reset_where(self: &Rc<Self>, which: impl Fn(&Pipe) -> bool) {
        let hit: Vec<u64> = {
            let pipes = self.pipes.borrow();
            pipes.iter().filter(|(_, pipe)| which(pipe)).map(|(id, _)| *id).collect()
        };
        hit.into_iter().for_each(|pipe| self.reset(pipe));
    }

    /// Both ends lose the connection and what was on the way.
    fn reset(self: &Rc<Self>, pipe: u64) {
        let Some(pipe) = self.pipes.borrow_mut().remove(&pipe) else { return };
        for end in pipe.ends {
            let delay = self.delay(end.host, end.host);
            self.env.after(delay, move || {
                if let Some(network) = end.network.upgrade() {
                    network.hang_up(end.conn);
                }
            });
        }
    }

    /// Delivers what is held and no longer blocked: after a heal, after a node goes on.
    pub fn release(self: &Rc<Self>) {
        let ends: Vec<PipeEnd> = {
            let pipes = self.pipes.borrow();
            let sides = |pipe: &u64| [0, 1].map(|side| PipeEnd { pipe: *pipe, side });
            pipes.keys().flat_map(sides).collect()
        };
        for from in ends {
            while let Some(parcel) = self.next_held(from) {
                self.deliver(from, parcel);
            }
        }
    }

    fn next_held(&self, from: PipeEnd) -> Option<Parcel> {
        if self.is_blocked(from)? {
            return None;
        }
        self.pipes.borrow_mut().get_mut(&from.pipe)?.held[from.side].pop_front()
    }

    /// Whether nothing arrives at the other end now; `None` when there is no such pipe.
    fn is_blocked(&self, from: PipeEnd) -> Option<bool> {
        let (a, b) = {
            let pipes = self.pipes.borrow();
            let pipe = pipes.get(&from.pipe)?;
            (pipe.ends[from.side].host, pipe.ends[1 - from.side].host)
        };
        let paused = |env: &SimEnv| env.is_paused();
        let stands_still =
            self.hosts.borrow().get(b).and_then(|host| host.env.as_ref()).is_some_and(paused);
        Some(stands_still || self.cuts.borrow().contains(&(a, b)))
    }

    fn delay(&self, from: usize, to: usize) -> Duration {
        let weather = self.weather.get();
        let mut rng = self.rng.borrow_mut();
        let late = if rng.chance(weather.late) { weather.late_factor } else { 1 };
        let slow = self.slow.borrow().get(&(from, to)).copied().unwrap_or(1);
        let nanos = (weather.delay * 500 + rng.below(weather.delay * 1_000)) * late * slow;
        Duration::from_nanos(nanos).min(LONGEST)
    }

    /// Sends bytes from an end.
    pub(super) fn send(self: &Rc<Self>, from: PipeEnd, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let corrupt = self.rng.borrow_mut().chance(self.weather.get().corrupt);
        if corrupt {
            let mut rng = self.rng.borrow_mut();
            let at = rng.index(bytes.len());
            bytes[at] ^= 1 << rng.index(8);
        }
        if self.rng.borrow_mut().chance(self.weather.get().reset) {
            return self.reset(from.pipe);
        }
        let whole = self.recorder.keeps().then(|| bytes.clone());
        let pieces = chunks(&mut self.rng.borrow_mut(), bytes);
        pieces.into_iter().for_each(|piece| self.put(from, Parcel::Bytes(piece)));
        self.time(from);
        if let Some(bytes) = whole {
            self.record(from, &bytes);
        }
    }

    /// An end closes: what it sent before still arrives.
    pub(super) fn close(self: &Rc<Self>, from: PipeEnd) {
        self.put(from, Parcel::Close);
    }

    fn put(self: &Rc<Self>, from: PipeEnd, parcel: Parcel) {
        let hosts = match self.pipes.borrow().get(&from.pipe) {
            Some(pipe) => (pipe.ends[from.side].host, pipe.ends[1 - from.side].host),
            None => return,
        };
        let due = self.env.now().after(self.delay(hosts.0, hosts.1));
        let at = match self.pipes.borrow_mut().get_mut(&from.pipe) {
            Some(pipe) => {
                pipe.last[from.side] = due.max(pipe.last[from.side]);
                pipe.last[from.side]
            }
            None => return,
        };
        let this = Rc::clone(self);
        self.env.after(at.since(self.env.now()), move || this.arrive(from, parcel));
    }

    /// Notes how long what was sent last takes: the delays of its pieces, and of what was sent
    /// before it on the same wire.
    fn time(&self, from: PipeEnd) {
        let (pipes, mut delays) = (self.pipes.borrow(), self.delays.borrow_mut());
        if let Some(pipe) = pipes.get(&from.pipe).filter(|_| delays.len() < MOST_DELAYS) {
            let took = pipe.last[from.side].since(self.env.now());
            delays.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// How long messages took to arrive, microseconds, as far as they were noted.
    pub fn delays(&self) -> Vec<u64> {
        self.delays.borrow().clone()
    }

    /// Keeps what was sent last, for people.
    fn record(&self, from: PipeEnd, bytes: &[u8]) {
        let pipes = self.pipes.borrow();
        if let Some(pipe) = pipes.get(&from.pipe) {
            let hosts = (pipe.ends[from.side].host, pipe.ends[1 - from.side].host);
            self.recorder.message(hosts, pipe.last[from.side], bytes);
        }
    }

    fn arrive(self: &Rc<Self>, from: PipeEnd, parcel: Parcel) {
        let Some(blocked) = self.is_blocked(from) else { return };
        {
            let mut pipes = self.pipes.borrow_mut();
            let Some(pipe) = pipes.get_mut(&from.pipe) else { return };
            if blocked || !pipe.held[from.side].is_empty() {
                return pipe.held[from.side].push_back(parcel);
            }
        }
        self.deliver(from, parcel);
    }

    fn deliver(self: &Rc<Self>, from: PipeEnd, parcel: Parcel) {
        let to = from.other();
        let (network, conn) = match self.pipes.borrow().get(&from.pipe) {
            Some(pipe) => (pipe.ends[to.side].network.upgrade(), pipe.ends[to.side].conn),
            None => return,
        };
        // Nobody there: a machine without power. The sender hears nothing until it is back.
        let Some(network) = network else { return };
        match parcel {
            Parcel::Bytes(bytes) => network.from_node(conn, bytes),
            Parcel::Close => {
                self.pipes.borrow_mut().remove(&from.pipe);
                network.hang_up(conn);
            }
        }
    }

    /// A node dials an address.
    pub(super) fn dial(
        self: &Rc<Self>,
        from: usize,
        network: &Rc<Network>,
        ticket: u64,
        address: SocketAddr,
    ) {
        let to = self.hosts.borrow().iter().position(|host| host.address == address);
        let (this, caller) = (Rc::clone(self), Rc::downgrade(network));
        let reachable = |to: usize| {
            let cuts = self.cuts.borrow();
            !cuts.contains(&(from, to)) && !cuts.contains(&(to, from))
        };
        match to {
            Some(to) if reachable(to) => {
                let delay = self.delay(from, to) + self.delay(to, from);
                self.env.after(delay, move || this.connect(from, caller, ticket, to));
            }
            _ => self.env.after(DIAL_PATIENCE, move || {
                if let Some(caller) = caller.upgrade() {
                    caller.dial_failed(ticket);
                }
            }),
        }
    }

    fn connect(self: &Rc<Self>, from: usize, caller: Weak<Network>, ticket: u64, to: usize) {
        let Some(here) = caller.upgrade() else { return };
        let there = self.hosts.borrow().get(to).and_then(|host| host.network.upgrade());
        let pipe = self.next_pipe.replace(self.next_pipe.get() + 1);
        let [near, far] = [0, 1].map(|side| PipeEnd { pipe, side });
        let Some(there) = there else { return here.dial_failed(ticket) };
        let Some(far_conn) = there.connect_node(Door::Peers, far) else {
            return here.dial_failed(ticket);
        };
        // The caller's process may have died meanwhile; its peer sees the connection end.
        let Some(near_conn) = here.connect_node(Door::Dialed(ticket), near) else {
            return there.hang_up(far_conn);
        };
        let now = self.env.now();
        let ends = [
            End { host: from, network: caller, conn: near_conn },
            End { host: to, network: Rc::downgrade(&there), conn: far_conn },
        ];
        let held = [VecDeque::new(), VecDeque::new()];
        self.pipes.borrow_mut().insert(pipe, Pipe { ends, last: [now, now], held });
    }
}
