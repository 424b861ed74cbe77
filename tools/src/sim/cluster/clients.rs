//! Clients of a simulated cluster: each talks to any node, keeps, drops and reuses contexts,
//! retries through other nodes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, TaskClass};
use coronet_net::codec::{Delete, Put, Request, Written};
use coronet_net::frame::TOKEN_BYTES;
use coronet_net::{
    Consistency, Durability, Op, Quorum, QuorumMode, RequestFlags, RequestHead, Status,
};
use coronet_sim::{Rng, SimEnv};

use super::history::{Acknowledgement, History, Outcome, Shown, Style, WriteId};
use super::promise;
use super::reading::{self, Found, PATIENCE, connect, is_sloppy, within};
use crate::sim::{Client, Network};

/// The common beginning of all keys.
pub const PREFIX: &[u8] = b"sim/";
/// Writes of one key at most: they are compared with each other.
const MOST_WRITES: usize = 200;

/// The networks of the nodes that run, by host.
pub type Directory = Rc<RefCell<Vec<Option<Rc<Network>>>>>;

/// A context with the writes it covers.
#[derive(Clone, Default)]
struct Held {
    bytes: Vec<u8>,
    seen: BTreeSet<WriteId>,
}

/// All clients of a world.
pub struct Clients {
    env: SimEnv,
    rng: RefCell<Rng>,
    directory: Directory,
    history: Rc<RefCell<History>>,
    keys: Vec<Vec<u8>>,
    stop: Cell<bool>,
    running: Cell<usize>,
    pause: u64,
}

impl Clients {
    /// Clients that work with `keys`; `env` is no node's.
    pub fn new(
        env: SimEnv,
        mut rng: Rng,
        directory: &Directory,
        history: &Rc<RefCell<History>>,
    ) -> Rc<Self> {
        let keys = history.borrow().keys();
        let pause = [20_000, 60_000, 300_000][rng.index(3)];
        Rc::new(Clients {
            env,
            rng: RefCell::new(rng),
            directory: Rc::clone(directory),
            history: Rc::clone(history),
            keys,
            stop: Cell::new(false),
            running: Cell::new(0),
            pause,
        })
    }

    /// Starts some.
    pub fn start(self: &Rc<Self>, count: u64) {
        for _ in 0..count {
            let this = Rc::clone(self);
            self.running.set(self.running.get() + 1);
            self.env.spawn(TaskClass::Foreground, async move {
                this.work().await;
                this.running.set(this.running.get() - 1);
            });
        }
    }

    /// Ends them after what they are at.
    pub fn stop(&self) {
        self.stop.set(true);
    }

    /// Whether all have ended.
    pub fn ended(&self) -> bool {
        self.running.get() == 0
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    fn index(&self, len: usize) -> usize {
        self.rng.borrow_mut().index(len)
    }

    async fn sleep(&self, max_micros: u64) {
        let time = Duration::from_micros(1 + self.below(max_micros));
        self.env.sleep(time).await;
    }

    async fn any_node(&self) -> Option<Rc<Client>> {
        let network = {
            let directory = self.directory.borrow();
            let up: Vec<_> = directory.iter().flatten().collect();
            Rc::clone(up.get(self.index(up.len()))?)
        };
        connect(&self.env, &network).await
    }

    async fn work(&self) {
        let mut contexts: BTreeMap<Vec<u8>, Vec<Held>> = BTreeMap::new();
        let mut client: Option<Rc<Client>> = None;
        while !self.stop.get() {
            self.sleep(self.pause).await;
            if self.below(8) == 0 || client.as_ref().is_none_or(|client| !client.is_open()) {
                client = self.any_node().await;
            }
            let Some(open) = &client else { continue };
            let key = self.keys[self.index(self.keys.len())].clone();
            let held = contexts.entry(key.clone()).or_default();
            match self.below(20) {
                0 => self.list(open).await,
                1 => self.look(&key).await,
                2..=8 => {
                    if let Some(seen) = self.read(open, &key).await {
                        held.push(seen);
                    }
                }
                _ => {
                    if let Some(seen) = self.write(&mut client, &key, held).await {
                        held.push(seen);
                    }
                }
            }
            if held.len() > 4 {
                held.remove(0);
            }
        }
    }

    fn quorum(&self) -> Quorum {
        [Quorum::DEFAULT, Quorum(1), Quorum::MAJORITY, Quorum::ALL][self.index(4)]
    }

    fn mode(&self) -> QuorumMode {
        [QuorumMode::Default, QuorumMode::Sloppy, QuorumMode::Strict][self.index(3)]
    }

    async fn read(&self, client: &Client, key: &[u8]) -> Option<Held> {
        let since = self.env.now();
        let (r, mode) = (self.quorum(), self.mode());
        let found = reading::get(&self.env, client, key, r, mode).await?;
        let Found { values, context, answers, sloppy } = found;
        let mut history = self.history.borrow_mut();
        promise::check_read(&mut history, key, (r, mode), (answers, sloppy));
        let ids = history.identify(key, &values);
        history.check(key, &Shown { since, answers, sloppy, ids: ids.clone() });
        let seen = ids.iter().flat_map(|id| history.covered_by(*id)).collect();
        Some(Held { bytes: context, seen })
    }

    /// Looks at one replica's copy.
    async fn look(&self, key: &[u8]) {
        let network = {
            let directory = self.directory.borrow();
            let at = self.index(directory.len());
            directory.get(at).and_then(Option::as_ref).map(Rc::clone)
        };
        let Some(network) = network else { return };
        let copy = within(&self.env, PATIENCE, network.probe(super::world::PARTITIONS, key)).await;
        if let Some(Some(Some(copy))) = copy {
            self.history.borrow_mut().check_dots(key, &copy);
        }
    }

    async fn list(&self, client: &Client) {
        if let Some(keys) = reading::list(&self.env, client, PREFIX).await {
            let distinct: BTreeSet<_> = keys.iter().collect();
            let mut history = self.history.borrow_mut();
            if distinct.len() != keys.len() {
                history.violation(PREFIX, "a listing names a key twice");
            }
            for key in distinct.into_iter().filter(|key| !self.keys.contains(*key)) {
                history.violation(key, "is listed and was never written");
            }
        }
    }

    /// Writes a key; returns what its author has seen then.
    async fn write(
        &self,
        client: &mut Option<Rc<Client>>,
        key: &[u8],
        contexts: &[Held],
    ) -> Option<Held> {
        let style = self.history.borrow().style(key);
        if self.history.borrow().count(key) >= MOST_WRITES {
            return None;
        }
        // Mostly the latest context, sometimes an old one, sometimes none.
        let held = match self.below(6) {
            0 => Held::default(),
            1 if !contexts.is_empty() => contexts[self.index(contexts.len())].clone(),
            _ => contexts.last().cloned().unwrap_or_default(),
        };
        let held = if style == Style::Replace { Held::default() } else { held };
        let may_delete = style == Style::Replace || !held.bytes.is_empty();
        let len = (!may_delete || self.below(5) > 0).then(|| match self.below(12) {
            0 => self.index(6_000),
            _ => self.index(60),
        });
        let token = self.below(2) == 0;
        let begun = self.history.borrow_mut().begin(key, len, token, held.seen.clone());
        let (id, value) = begun;
        let request = match &value {
            Some(value) => Request::Put(Put { key, context: &held.bytes, value }),
            None => Request::Delete(Delete { key, context: &held.bytes }),
        };
        let durable = self.below(3) > 0;
        let consistency = Consistency {
            durability: if durable { Durability::Durable } else { Durability::Buffered },
            mode: self.mode(),
            lww: style == Style::Replace,
            racks: 0,
        };
        let op = if value.is_some() { Op::Put } else { Op::Delete };
        // Mostly less patience than the node would have.
        let deadline_us = match self.below(4) {
            0 => 0,
            _ => u32::try_from(20_000 + self.below(2_000_000)).unwrap_or(0),
        };
        let head =
            RequestHead { w: self.quorum(), consistency, deadline_us, ..RequestHead::new(op, 0) };
        let written = self.deliver(client, &request, head, token.then_some(id)).await;
        let (outcome, context) = written;
        let outcome = match outcome {
            Outcome::Acknowledged(ack) => Outcome::Acknowledged(Acknowledgement { durable, ..ack }),
            outcome => outcome,
        };
        let mut history = self.history.borrow_mut();
        if let Outcome::Acknowledged(ack) = outcome {
            let got = (ack.acks, ack.sloppy);
            promise::check_write(&mut history, key, (head.w, consistency.mode), got);
        }
        history.end(id, outcome);
        let bytes = context.filter(|_| style == Style::Versions)?;
        Some(Held { bytes, seen: history.covered_by(id) })
    }

    /// Sends a write until its outcome is known, or gives up. Only writes with a token (`number`)
    /// are sent more than once.
    async fn deliver(
        &self,
        client: &mut Option<Rc<Client>>,
        request: &Request<'_>,
        mut head: RequestHead,
        number: Option<WriteId>,
    ) -> (Outcome, Option<Vec<u8>>) {
        let mut token = [0; TOKEN_BYTES];
        token[..8].copy_from_slice(&number.unwrap_or(0).to_le_bytes());
        let mut doubtful = false;
        for _ in 0..4 {
            if let Some(open) = client {
                let sent = open.call(request, &head, number.map(|_| &token));
                let patience = Duration::from_micros(1 + self.below(PATIENCE.as_micros() as u64));
                let reply = within(&self.env, patience, sent).await.flatten();
                match reply.as_ref().map(|reply| (reply, reply.head.status)) {
                    Some((reply, Status::Ok)) => return self.acknowledged(reply),
                    Some((_, Status::Error(code))) => doubtful |= code.possibly_applied(),
                    Some((_, Status::NotFound)) | None => doubtful = true,
                }
                if reply.is_none() {
                    *client = None; // what still comes on it is not waited for
                }
            }
            if number.is_none() || self.below(4) == 0 {
                break;
            }
            self.sleep(500_000).await;
            head.flags = RequestFlags::RETRY;
            *client = self.any_node().await;
        }
        (if doubtful { Outcome::Unknown } else { Outcome::NotApplied }, None)
    }

    fn acknowledged(&self, reply: &crate::sim::Reply) -> (Outcome, Option<Vec<u8>>) {
        let written = match Written::decode(&reply.body) {
            Ok(written) => written,
            Err(error) => panic!("answer to a write: {error}"),
        };
        let (at, acks, sloppy) = (self.env.now(), reply.head.acks, is_sloppy(reply));
        let ack = Acknowledgement { at, acks, sloppy, durable: false };
        (Outcome::Acknowledged(ack), Some(written.context.to_vec()))
    }
}
