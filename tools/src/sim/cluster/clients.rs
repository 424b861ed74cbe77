//! Clients of a simulated cluster: each talks to any node, keeps, drops and reuses contexts,
//! retries through other nodes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, Nanos, TaskClass};
use coronet_net::codec::{Delete, Put, Request, Written};
use coronet_net::frame::TOKEN_BYTES;
use coronet_net::{
    Consistency, Durability, Op, Quorum, QuorumMode, RequestFlags, RequestHead, Status,
};
use coronet_ring::NodeId;
use coronet_sim::{Rng, SimEnv};

use super::cart;
use super::history::{
    Acknowledgement, History, Outcome, Shown, Style, WriteId, name, number_of, value_of,
};
use super::mix::{Habit, Mix, Step};
use super::operations::{self, Chosen, Operation};
use super::promise;
use super::reading::{self, Found, PATIENCE, connect, is_sloppy, within};
use super::words;
use crate::sim::checkers::session::Session;
use crate::sim::record::{EventKind, Lane, Recorder};
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

/// One client.
struct Author {
    number: usize,
    step: u64,
    session: Session,
}

impl Author {
    /// What it is at.
    fn step(&self) -> operations::Step {
        (self.number as u64 + 1, self.step)
    }
}

/// What all clients of a world share.
#[derive(Default)]
struct Common {
    stop: Cell<bool>,
    running: Cell<usize>,
    /// If set: only these operations are carried out.
    chosen: Option<Chosen>,
    done: RefCell<Vec<Operation>>,
}

/// The clients of a world, or one of them.
#[derive(Clone)]
pub struct Clients {
    env: SimEnv,
    /// Of a client: the randomness of its step.
    rng: RefCell<Rng>,
    directory: Directory,
    history: Rc<RefCell<History>>,
    keys: Vec<Vec<u8>>,
    common: Rc<Common>,
    mix: Mix,
    recorder: Rc<Recorder>,
}

impl Clients {
    /// Clients that work with the keys of `history`; `env` is no node's.
    pub fn new(
        env: SimEnv,
        mut rng: Rng,
        directory: &Directory,
        history: &Rc<RefCell<History>>,
        recorder: &Rc<Recorder>,
        chosen: Option<Chosen>,
    ) -> Self {
        let keys = history.borrow().keys();
        let mix = Mix::draw(&mut rng);
        Clients {
            env,
            rng: RefCell::new(rng),
            directory: Rc::clone(directory),
            history: Rc::clone(history),
            keys,
            common: Rc::new(Common { chosen, ..Common::default() }),
            mix,
            recorder: Rc::clone(recorder),
        }
    }

    /// Starts some.
    pub fn start(&self, count: u64) {
        let running = &self.common.running;
        for number in 0..usize::try_from(count).unwrap_or(0) {
            let plan = self.rng.borrow_mut().fork();
            let this = self.clone();
            running.set(running.get() + 1);
            self.env.spawn(TaskClass::Foreground, async move {
                this.work(number, plan).await;
                this.common.running.set(this.common.running.get() - 1);
            });
        }
    }

    /// Ends them after what they are at.
    pub fn stop(&self) {
        self.common.stop.set(true);
    }

    /// Whether all have ended.
    pub fn ended(&self) -> bool {
        self.common.running.get() == 0
    }

    /// The operations so far, by key.
    pub fn operations(&self) -> Vec<Operation> {
        let mut done = self.common.done.borrow().clone();
        done.sort_unstable();
        done
    }

    /// Whether a client carries out this step; if so, that it does is noted.
    fn performs(&self, author: &Author, key: usize, at: Nanos) -> bool {
        let step = author.step();
        let performs = self.common.chosen.as_ref().is_none_or(|c| c.0.contains_key(&step));
        if performs {
            self.common.done.borrow_mut().push(Operation { key, step, at });
        }
        performs
    }

    /// The pause before a step: until the instant that was chosen for it, or as long as it was
    /// drawn. Returns its end.
    async fn pause(&self, author: &Author) -> Nanos {
        let drawn = Duration::from_micros(1 + self.below(self.mix.pause));
        let chosen = self.common.chosen.as_ref();
        let instant = chosen.and_then(|chosen| *chosen.0.get(&author.step())?);
        let now = self.env.now();
        let pause = instant.map_or(drawn, |instant| instant.since(now));
        self.env.sleep(pause).await;
        now.after(pause)
    }

    fn record(&self, author: &Author, since: Nanos, text: impl FnOnce() -> String) {
        let lane = Lane::Client(author.number);
        let text = || format!("{} (step {}.{})", text(), author.number + 1, author.step);
        self.recorder.span(EventKind::Operation, lane, since, text);
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

    /// Works until told to stop. The first one writes what one client only writes.
    async fn work(&self, number: usize, mut plan: Rng) {
        let mut author = Author { number, step: 0, session: Session::default() };
        let mut contexts: BTreeMap<Vec<u8>, Vec<Held>> = BTreeMap::new();
        let mut client: Option<Rc<Client>> = None;
        while !self.common.stop.get() {
            author.step += 1;
            self.rng.replace(plan.fork());
            let begins = self.pause(&author).await;
            let (step, at) = {
                let rng = &mut self.rng.borrow_mut();
                (self.mix.step(rng), self.mix.key(rng, self.keys.len()))
            };
            let performs = self.performs(&author, at, begins);
            // Left out or not: the next steps go to the same node.
            if self.below(8) == 0 || client.as_ref().is_none_or(|client| !client.is_open()) {
                client = self.any_node().await;
            }
            if !performs {
                continue;
            }
            let Some(open) = &client else { continue };
            let key = self.keys[at].clone();
            let style = self.history.borrow().style(&key);
            let replaces = self.history.borrow().is_last_write_wins(&key);
            let held = contexts.entry(key.clone()).or_default();
            match (step, style) {
                (Step::List, _) => self.list(open).await,
                (Step::Look, _) => self.look(&key).await,
                (Step::Write, Style::Cart) => {
                    self.add_item(&mut client, &mut author, &key).await;
                }
                (Step::Write, Style::Register) if number == 0 && !replaces => {
                    self.replace(&mut client, &mut author, &key).await;
                }
                (Step::Write, _) if style != Style::Register || replaces => {
                    let old = held.clone();
                    held.extend(self.write(&mut client, &mut author, &key, old).await);
                }
                _ => {
                    let read = self.read(open, &mut author, &key).await;
                    held.extend(read.map(|(seen, _)| seen));
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

    /// How a key is read.
    fn ask(&self, key: &[u8]) -> (Quorum, Consistency) {
        let history = self.history.borrow();
        if history.style(key) == Style::Register {
            let monotonic = history.monotonic;
            return (Quorum::MAJORITY, Consistency { monotonic, ..reading::strict() });
        }
        let (mode, monotonic) = (self.mode(), self.below(8) == 0);
        (self.quorum(), Consistency { mode, monotonic, ..Consistency::default() })
    }

    async fn read(
        &self,
        client: &Client,
        author: &mut Author,
        key: &[u8],
    ) -> Option<(Held, Vec<Vec<u8>>)> {
        let since = self.env.now();
        let (r, consistency) = self.ask(key);
        let (mode, monotonic) = (consistency.mode, consistency.monotonic);
        let found = reading::get(&self.env, client, key, r, consistency).await;
        self.record(author, since, || match &found {
            Some(found) => {
                let ids: Vec<_> = found.values.iter().map(|value| number_of(value)).collect();
                let count = found.answers;
                let r = words::of_quorum(r);
                format!("read {} with R={r} {mode:?}: {ids:?} from {count}", name(key))
            }
            None => {
                format!("read {} with R={} {mode:?}: no answer", name(key), words::of_quorum(r))
            }
        });
        let Found { values, context, answers, sloppy, hedged } = found?;
        let mut history = self.history.borrow_mut();
        promise::check_read(&mut history, key, (r, mode), (answers, sloppy));
        let ids = history.identify(key, &values);
        let replicas = history.replicas;
        // So many that a second read of as many meets one of them.
        let overlap = (replicas + 1).saturating_sub(promise::needed(r, replicas));
        let copies = if monotonic && !sloppy { overlap } else { 1 };
        let (by, until) = (client.node_id(), self.env.now());
        let shown = Shown { since, answers, sloppy, copies, by, hedged, until, ids };
        history.check(key, &shown);
        history.check_session(&mut author.session, key, &shown);
        let ids = shown.ids;
        let seen = ids.iter().flat_map(|id| history.covered_by(*id)).collect();
        Some((Held { bytes: context, seen }, values))
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

    /// Puts one more item into a cart.
    async fn add_item(&self, client: &mut Option<Rc<Client>>, author: &mut Author, key: &[u8]) {
        let Some(open) = client else { return };
        let Some((held, values)) = self.read(open, author, key).await else { return };
        let items = values.iter().flat_map(|value| cart::items(value)).collect();
        if self.history.borrow().count(key) < MOST_WRITES {
            self.send(client, author, key, &held, Some(|id| cart::encode(id, &items))).await;
        }
    }

    /// Replaces what a register holds.
    async fn replace(&self, client: &mut Option<Rc<Client>>, author: &mut Author, key: &[u8]) {
        let Some(open) = client else { return };
        let Some((held, _)) = self.read(open, author, key).await else { return };
        if self.history.borrow().count(key) < MOST_WRITES {
            let (id, _) = self.send(client, author, key, &held, Some(|id| value_of(id, 9))).await;
            self.history.borrow().own_write(&mut author.session, key, id);
        }
    }

    /// Writes a key; returns what its author has seen then.
    async fn write(
        &self,
        client: &mut Option<Rc<Client>>,
        author: &mut Author,
        key: &[u8],
        contexts: Vec<Held>,
    ) -> Option<Held> {
        let style = self.history.borrow().style(key);
        if self.history.borrow().count(key) >= MOST_WRITES {
            return None;
        }
        let habit = self.mix.habit(&mut self.rng.borrow_mut());
        let held = match habit {
            _ if self.history.borrow().is_last_write_wins(key) => Held::default(),
            Habit::Blind => Held::default(),
            Habit::Old if !contexts.is_empty() => contexts[self.index(contexts.len())].clone(),
            Habit::Old | Habit::Latest => contexts.last().cloned().unwrap_or_default(),
        };
        let may_delete = style == Style::Replace || !held.bytes.is_empty();
        let deletes = may_delete && self.mix.deletes(&mut self.rng.borrow_mut());
        let len = match self.below(12) {
            0 => self.index(6_000),
            _ => self.index(60),
        };
        let content = (!deletes).then_some(|id| value_of(id, len));
        let (id, context) = self.send(client, author, key, &held, content).await;
        self.history.borrow().own_write(&mut author.session, key, id);
        let bytes = context.filter(|_| style == Style::Versions)?;
        Some(Held { bytes, seen: self.history.borrow().covered_by(id) })
    }

    /// Sends a write or deletion; returns its number and the context it was answered with.
    async fn send(
        &self,
        client: &mut Option<Rc<Client>>,
        author: &Author,
        key: &[u8],
        held: &Held,
        content: Option<impl FnOnce(WriteId) -> Vec<u8>>,
    ) -> (WriteId, Option<Vec<u8>>) {
        // A late retry may be a new write: none of a register.
        let is_register = self.history.borrow().style(key) == Style::Register;
        let token = !is_register && self.mix.has_token(&mut self.rng.borrow_mut());
        let (seen, now) = (held.seen.clone(), self.env.now());
        let begun = self.history.borrow_mut().begin(key, content, token, seen, now);
        let (id, value) = begun;
        let request = match &value {
            Some(value) => Request::Put(Put { key, context: &held.bytes, value }),
            None => Request::Delete(Delete { key, context: &held.bytes }),
        };
        let durable = is_register || self.below(3) > 0;
        let consistency = Consistency {
            durability: if durable { Durability::Durable } else { Durability::Buffered },
            mode: if is_register { QuorumMode::Strict } else { self.mode() },
            lww: self.history.borrow().is_last_write_wins(key),
            ..Consistency::default()
        };
        let op = if value.is_some() { Op::Put } else { Op::Delete };
        // Mostly less patience than the node would have.
        let deadline_us = match self.below(4) {
            0 => 0,
            _ => u32::try_from(20_000 + self.below(2_000_000)).unwrap_or(0),
        };
        let w = if is_register { Quorum::MAJORITY } else { self.quorum() };
        let head = RequestHead { w, consistency, deadline_us, ..RequestHead::new(op, 0) };
        let written = self.deliver(client, &request, head, token.then_some(id)).await;
        let (outcome, context) = written;
        let outcome = match outcome {
            Outcome::Acknowledged(ack) => Outcome::Acknowledged(Acknowledgement { durable, ..ack }),
            outcome => outcome,
        };
        self.record(author, now, || {
            let verb = if value.is_some() { "write" } else { "delete" };
            let (w, outcome) = (words::of_quorum(w), words::of_outcome(&outcome));
            format!("{verb} {id} of {} with W={w}: {outcome}", name(key))
        });
        let mut history = self.history.borrow_mut();
        if let Outcome::Acknowledged(ack) = outcome {
            let got = (ack.acks, ack.sloppy);
            promise::check_write(&mut history, key, (w, consistency.mode), got);
        }
        history.end(id, outcome);
        (id, context)
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
                    Some((reply, Status::Ok)) => return self.acknowledged(reply, open.node_id()),
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

    fn acknowledged(&self, reply: &crate::sim::Reply, by: NodeId) -> (Outcome, Option<Vec<u8>>) {
        let written = match Written::decode(&reply.body) {
            Ok(written) => written,
            Err(error) => panic!("answer to a write: {error}"),
        };
        let (at, acks, sloppy) = (self.env.now(), reply.head.acks, is_sloppy(reply));
        let ack = Acknowledgement { at, acks, sloppy, durable: false, by };
        (Outcome::Acknowledged(ack), Some(written.context.to_vec()))
    }
}
