//! A node's part in its cluster: runs on the control core.
//!
//! Coordinates clients' requests over the replicas of their keys, answers other nodes' asks with
//! what the data cores say, keeps links, gossips. The logic is `coronet_ring`'s; this is where it
//! meets messages, links and time.
//!
//! * [`links`], [`link`], [`greet`], [`watch`]: connections to the other nodes.
//! * [`members`]: gossip, placement, who seems alive.
//! * [`requests`]: requests in progress and the asks they have out.
//! * [`intake`]: from a client's frame to a machine.
//! * [`machines`]: driving the machines.
//! * [`asks`]: asks between nodes and to the data cores.
//! * [`client`]: requests and replies in the clients' words.
//! * [`gather`]: reads of several keys.
//! * [`spaces`], [`agree`]: keyspaces as gossip knows them, and until all nodes serve a new one.

mod agree;
mod asks;
mod client;
mod gather;
mod greet;
mod intake;
mod link;
mod links;
mod machines;
mod members;
mod requests;
mod spaces;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, Nanos, TaskClass};
use coronet_net::Limits;
use coronet_net::peer::{Greeting, PeerMessage};
use coronet_ring::coordinate::message::{Answer, Durability};
use coronet_ring::coordinate::quorum::Mode;
use coronet_ring::gossip::keyspace::Keyspace;
use coronet_ring::gossip::member::Member;
use coronet_ring::gossip::snapshot::SnapshotError;
use coronet_ring::gossip::state::{Event, Founding};
use coronet_ring::{CoreId, KeyspaceId, NodeId, PartitionMap, key_hash};

use super::kept::VIEW;
use super::keyspaces::{Rollout, Saving, in_cluster};
use super::shard::OutputState;
use super::{ConnId, Coordinate, CoreMessage, Door, Handoff, NodeEnv};
use agree::Agreeing;
use gather::Gather;
use links::{LinkEvent, Links};
use members::{Members, Say};
use requests::Requests;

/// How often data cores are asked for the hints they keep for reachable nodes.
const HINTS: Duration = Duration::from_secs(1);
/// How a node takes part in its cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// What all founding nodes are started with.
    pub founding: Founding,
    /// This node.
    pub me: Member,
    /// What was stored of the cluster before the node stopped.
    pub stored: Option<Vec<u8>>,
    /// Replicas of a key in the default keyspace.
    pub replicas: u8,
    /// Replicas as they are configured: more than there are nodes to hold them, perhaps.
    pub replicas_asked: u8,
    /// Whether stand-ins count when a request does not say.
    pub mode: Mode,
    /// When a write that does not say counts as stored.
    pub durability: Durability,
    /// Whether a write without context replaces what its naming replica has.
    pub blind_replaces: bool,
    /// The folder that what is known of the cluster is kept in.
    pub dir: PathBuf,
    /// Keys the check of contexts; the same on all nodes.
    pub secret: u64,
    /// Bounds of client frames.
    pub limits: Limits,
}

/// A node's part in its cluster. A handle; clones are the same.
pub struct Cluster<E: NodeEnv> {
    inner: Rc<Inner<E>>,
}

impl<E: NodeEnv> Clone for Cluster<E> {
    fn clone(&self) -> Self {
        Cluster { inner: Rc::clone(&self.inner) }
    }
}

struct Inner<E: NodeEnv> {
    env: E,
    state: RefCell<State<E>>,
    /// A task waits for the next request's time.
    timing: Cell<bool>,
}

struct State<E: NodeEnv> {
    env: E,
    config: ClusterConfig,
    map: PartitionMap,
    links: Links,
    members: Members,
    requests: Requests,
    /// Requests for several keys, by number.
    gathers: BTreeMap<u64, Gather>,
    next_hints: Nanos,
    /// Telling the data cores of keyspaces.
    rollout: Rollout<E>,
    /// Keyspaces just created that other nodes do not serve yet.
    agreeing: Vec<Agreeing>,
    /// Storing what is known.
    saving: Saving,
}

/// The stored view of the cluster; `None` when there is none.
///
/// # Errors
/// When the file cannot be read, or is damaged: the node must not guess where its data belongs.
pub async fn read_cluster_view<E: Env>(env: &E, dir: &Path) -> io::Result<Option<Vec<u8>>> {
    VIEW.read(env, dir).await
}

impl<E: NodeEnv> Cluster<E> {
    /// The cluster as this node sees it at its start. `map` says which data core owns what.
    ///
    /// # Errors
    /// When what was stored is damaged or belongs to another cluster.
    pub fn new(env: E, config: ClusterConfig, map: PartitionMap) -> Result<Self, SnapshotError> {
        let name = config.founding.name();
        let mut bytes = name.id.to_le_bytes().to_vec();
        bytes.extend_from_slice(&name.founding.to_le_bytes());
        let me = &config.me;
        let stored = config.stored.as_deref();
        let members = Members::new(me.clone(), config.founding.clone(), stored)?;
        let greeting = Greeting::new(key_hash(&bytes), me.id, me.incarnation, members.epoch());
        let mut state = State {
            env: env.clone(),
            links: Links::new(greeting),
            members,
            requests: Requests::new(),
            gathers: BTreeMap::new(),
            next_hints: Nanos(0),
            rollout: Rollout::new(env.clone(), map.cores()),
            agreeing: Vec::new(),
            saving: Saving::default(),
            map,
            config,
        };
        state.saving.want();
        let known: Vec<_> = state.members.gossip.keyspaces().cloned().collect();
        known.into_iter().for_each(|keyspace| state.rollout.want(keyspace));
        let inner = Inner { env, state: RefCell::new(state), timing: Cell::new(false) };
        Ok(Cluster { inner: Rc::new(inner) })
    }

    /// Takes definitions that this node kept while it was in no cluster, as far as the cluster has
    /// no later ones. N, R and W are not a node's to choose alone: they stay, or are the cluster's
    /// default.
    pub fn adopt_keyspaces(&self, kept: Vec<Keyspace>) {
        self.with(|state| {
            let nodes = state.config.founding.addresses.len();
            let n = state.config.replicas.min(u8::try_from(nodes).unwrap_or(u8::MAX));
            for keyspace in kept {
                let known = state.members.gossip.keyspace(keyspace.id());
                if known.is_some_and(|known| known.version >= keyspace.version) {
                    continue;
                }
                let definition = in_cluster(keyspace, known, n);
                if let Some(id) = state.members.gossip.adopt_keyspace(definition) {
                    state.saving.want();
                    state.serve_keyspace(id);
                }
            }
        });
    }

    /// Coordinates a client's request.
    pub fn coordinate(&self, request: Coordinate) {
        self.with(|state| state.coordinate(request));
    }

    /// What the cluster's part of this node counts, by name.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let state = self.inner.state.borrow();
        let config = &state.config;
        let replicas = [("replicas", config.replicas), ("replicas_asked", config.replicas_asked)];
        let replicas = replicas.into_iter().map(|(name, count)| (name, u64::from(count)));
        let all = replicas.chain(state.requests.named());
        all.map(|(name, count)| (format!("cluster.{name}"), count)).collect()
    }

    /// A data core answered.
    pub fn answered(&self, ticket: u64, answer: Answer) {
        self.with(|state| {
            let me = state.config.me.id;
            state.answered(me, ticket, answer);
        });
    }

    /// A data core will not answer: what became of the ask is not known.
    pub fn dropped(&self, ticket: u64) {
        self.with(|state| state.dropped(ticket));
    }

    /// A data core serves a keyspace's definition, or cannot.
    pub fn defined(&self, core: CoreId, id: KeyspaceId, version: u64, problem: Option<String>) {
        self.with(|state| state.rollout.defined(core, id, version, problem));
    }

    /// A data core read a hint for a node that is back.
    pub fn hand_off(&self, handoff: Handoff) {
        self.with(|state| state.hand_off(handoff));
    }

    /// Whether the connection is a link to another node.
    pub fn has(&self, conn: ConnId) -> bool {
        self.inner.state.borrow().links.has(conn)
    }

    /// A connection of another node, or to one.
    pub fn connect(&self, conn: ConnId, door: Door) {
        self.with(|state| state.links.connect(conn, door, state.env.now()));
    }

    /// Dialing failed.
    pub fn dial_failed(&self, ticket: u64) {
        self.with(|state| state.links.dial_failed(ticket));
    }

    /// Bytes arrived on a link.
    pub fn receive(&self, conn: ConnId, bytes: &[u8]) {
        self.with(|state| state.links.receive(conn, bytes));
    }

    /// The other side sends nothing more: there is nothing to say either.
    pub fn end(&self, conn: ConnId) {
        self.with(|state| state.links.close(conn));
    }

    /// A link is gone.
    pub fn disconnect(&self, conn: ConnId) {
        self.with(|state| state.links.disconnect(conn));
    }

    /// The next link with output.
    pub fn next_dirty(&self) -> Option<ConnId> {
        self.inner.state.borrow_mut().links.next_dirty()
    }

    /// Moves a link's output to the end of `into`.
    pub fn take_output(&self, conn: ConnId, into: &mut Vec<u8>) -> OutputState {
        self.inner.state.borrow_mut().links.take_output(conn, into)
    }

    /// Time passed; called about every 50 milliseconds. `healthy`: all data cores make progress.
    /// Without that the heart does not beat, whatever the control core still does.
    pub fn tick(&self, healthy: bool) {
        self.with(|state| state.tick(healthy));
    }

    /// Requests in progress, their background work included.
    pub fn in_flight(&self) -> usize {
        self.inner.state.borrow().requests.len()
    }

    /// What is asked, then what follows from it: link events, timers, output.
    fn with(&self, act: impl FnOnce(&mut State<E>)) {
        let mut state = self.inner.state.borrow_mut();
        act(&mut state);
        state.work_off_events();
        if state.links.has_dirty() {
            self.inner.env.output_ready();
        }
        let due = state.requests.next_due();
        drop(state);
        if due.is_some() && !self.inner.timing.replace(true) {
            let cluster = self.clone();
            self.inner.env.spawn(TaskClass::Foreground, async move { cluster.keep_time().await });
        }
    }

    /// Ticks requests when their time has come, for as long as there are any.
    async fn keep_time(&self) {
        loop {
            let due = self.inner.state.borrow().requests.next_due();
            let Some(due) = due else { break };
            let due = Nanos(due.saturating_mul(1000));
            // A request that comes meanwhile may be due earlier: never sleep for long.
            let pause = due.since(self.inner.env.now());
            self.inner.env.sleep(pause.clamp(MIN_PAUSE, MAX_PAUSE)).await;
            self.with(State::tick_requests);
        }
        self.inner.timing.set(false);
    }
}

/// How exactly requests are ticked.
const MIN_PAUSE: Duration = Duration::from_micros(500);
const MAX_PAUSE: Duration = Duration::from_millis(5);

impl<E: NodeEnv> State<E> {
    fn work_off_events(&mut self) {
        while let Some(event) = self.links.events.pop_front() {
            match event {
                LinkEvent::Up(node) => {
                    self.members.heard(node, self.env.now());
                    self.members.refresh(&self.links, self.env.now());
                    self.env.log(&format!("node {node} is linked"));
                }
                LinkEvent::Down(node) => {
                    self.env.log(&format!("node {node} is no longer linked"));
                    self.requests.forget_asks_of(node);
                    self.lost(node);
                }
                LinkEvent::Heard(node) => self.dial_back(node),
                LinkEvent::Unheard(node) => self.lost(node),
                LinkEvent::Message(node, message, bytes) => self.message(node, message, bytes),
                LinkEvent::Quiet(node) => self.greet([node]),
                LinkEvent::Trouble(text) => self.env.log(&text),
            }
        }
    }

    fn message(&mut self, from: NodeId, message: PeerMessage, bytes: u64) {
        self.members.heard(from, self.env.now());
        match message {
            PeerMessage::Ask { .. } => self.asked(from, message, bytes),
            PeerMessage::Answer { ticket, answer } => {
                self.links.worked_off(from, bytes);
                self.answered(from, ticket, answer);
            }
            PeerMessage::Gossip(gossip) => {
                self.links.worked_off(from, bytes);
                let mut events = Vec::new();
                let random = self.env.random();
                let reply = self.members.on_gossip(&gossip, random, &mut events);
                if let Some(reply) = reply {
                    self.gossip(from, &reply);
                }
                self.learned(events);
            }
        }
    }

    fn learned(&mut self, events: Vec<Event>) {
        for event in events {
            match &event {
                Event::Table(epoch) => {
                    self.saving.want();
                    self.members.refresh(&self.links, self.env.now());
                    self.env.log(&format!("placement of {epoch} adopted"));
                }
                Event::Beat(node) => self.members.heard(*node, self.env.now()),
                Event::Member(_) => drop(self.saving.want()),
                Event::Keyspace(id) => {
                    self.saving.want();
                    self.serve_keyspace(*id);
                }
                Event::Foreign(_)
                | Event::TableConflict(_)
                | Event::Impostor(_)
                | Event::Implausible(_) => self.env.log(&event.to_string()),
            }
        }
    }

    fn gossip(&mut self, to: NodeId, message: &coronet_ring::gossip::message::Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.links.send(to, &PeerMessage::Gossip(bytes));
    }

    fn tick(&mut self, healthy: bool) {
        let now = self.env.now();
        self.store();
        self.ask_for_agreement();
        self.rollout.tick(&self.saving);
        if healthy {
            self.members.gossip.beat();
        }
        let round = self.members.tick(now, self.env.random());
        if !round.is_empty() {
            let silent = self.members.silent(&self.links, now);
            if !silent.is_empty() {
                self.greet(silent);
            }
        }
        for say in round {
            match say {
                Say::To(node, message) => self.gossip(node, &message),
                Say::Reach(address) => self.links.reach(&address, now),
            }
        }
        let me = self.config.me.id;
        let others = self.members.gossip.members().filter(|member| member.id != me);
        let addresses: Vec<_> = others.map(|member| member.peer_address.clone()).collect();
        addresses.iter().for_each(|address| self.links.reach(address, now));
        // A silent link may be cut: a new one gets through earlier than the old one recovers.
        for node in self.members.suspects(&self.links, now) {
            self.links.reset(node);
        }
        self.members.refresh(&self.links, now);
        self.greet_strangers();
        for dial in self.links.tick(now, self.env.random()) {
            self.env.dial(dial.ticket, dial.address);
        }
        if now >= self.next_hints {
            self.next_hints = now.after(HINTS);
            self.requests.give_up_background(now);
            self.ask_for_hints(now);
        }
    }

    /// Stores what is known if it changed.
    fn store(&mut self) {
        let Some(save) = self.saving.begin() else { return };
        let (env, dir) = (self.env.clone(), self.config.dir.clone());
        let mut view = Vec::new();
        self.members.gossip.snapshot(&mut view);
        self.env.spawn(TaskClass::Background, async move {
            let written = VIEW.write(&env, &dir, &view).await;
            if let Err(error) = &written {
                // The node goes on; a restart learns it from the others.
                env.log(&format!("cannot store what is known of the cluster: {error}"));
            }
            save.end(written.is_ok());
        });
    }

    /// Nodes that are linked but not known as members yet learn of this one.
    fn greet_strangers(&mut self) {
        let known = |node: &NodeId| self.members.gossip.member(*node).is_some();
        let strangers: Vec<_> = self.links.linked().filter(|node| !known(node)).collect();
        self.greet(strangers);
    }

    /// Gossips with nodes out of turn.
    fn greet(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        let random = self.env.random();
        for node in nodes {
            let digest = self.members.gossip.round(random).into_iter().next();
            if let Some((_, digest)) = digest {
                self.gossip(node, &digest);
            }
        }
    }

    fn ask_for_hints(&mut self, now: Nanos) {
        let me = self.config.me.id;
        let others: Vec<_> =
            self.members.gossip.members().map(|member| member.id).filter(|id| *id != me).collect();
        for target in others {
            if self.members.is_alive(target, &self.links, now)
                && !self.requests.hands_off_to(target)
            {
                for core in 0..self.map.cores() {
                    self.env.send(CoreId(core), CoreMessage::ReplayHints { target });
                }
            }
        }
    }
}
