//! A node's part in its cluster: runs on the control core.
//!
//! Coordinates clients' requests over the replicas of their keys, answers other nodes' asks with
//! what the data cores say, keeps links, gossips. The logic is `coronet_ring`'s; this is where it
//! meets messages, links and time.
//!
//! * [`links`]: connections to the other nodes.
//! * [`members`]: gossip, placement, who seems alive.
//! * [`requests`]: requests in progress and the asks they have out.
//! * [`client`]: requests and replies in the clients' words.
//! * [`gather`]: reads of several keys.
//! * [`store`]: what is known of the cluster, on disk.

mod client;
mod gather;
mod links;
mod members;
mod requests;
mod store;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Nanos, TaskClass};
use coronet_net::codec::{KeyList, Request, TopologyNode, TopologyReply};
use coronet_net::peer::{Greeting, PeerMessage};
use coronet_net::{
    ErrorCode, FrameWriter, Limits, Parsed, ReplyHead, RequestFrame, RequestHead, Status,
};
use coronet_ring::coordinate::Effect;
use coronet_ring::coordinate::get::{Get, GetRequest};
use coronet_ring::coordinate::list::{List, ListRequest};
use coronet_ring::coordinate::message::{Answer, Ask, Durability, Refusal};
use coronet_ring::coordinate::put::{Put, PutRequest};
use coronet_ring::coordinate::quorum::{Mode, Outcome, Proof};
use coronet_ring::gossip::member::Member;
use coronet_ring::gossip::snapshot::SnapshotError;
use coronet_ring::gossip::state::{Event, Founding};
use coronet_ring::{CoreId, NodeId, PartitionId, PartitionMap, key_hash};

use super::shard::OutputState;
use super::{ConnId, Coordinate, CoreMessage, Door, Handoff, NodeEnv, ShardAsk};
use client::{Client, View};
use gather::Gather;
use links::{LinkEvent, Links};
use members::{Members, PlacementNow, Say};
use requests::{
    InFlight, Input, Machine, Purpose, ReplyTo, Requests, Running, is_last, merge_ask, partition_of,
};
pub use store::read_cluster_view;

/// How often data cores are asked for the hints they keep for reachable nodes.
const HINTS: Duration = Duration::from_secs(1);
/// Requests coordinated at once; more are answered "busy".
const MAX_RUNNING: usize = 100_000;

/// How a node takes part in its cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// What all founding nodes are started with.
    pub founding: Founding,
    /// This node.
    pub me: Member,
    /// What was stored of the cluster before the node stopped.
    pub stored: Option<Vec<u8>>,
    /// Replicas of a key.
    pub replicas: u8,
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
    /// What is known has changed and has to be stored.
    changed: bool,
    /// It is being stored.
    storing: Rc<Cell<bool>>,
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
        let members = Members::new(me.clone(), config.founding.clone(), stored, config.replicas)?;
        let greeting = Greeting::new(key_hash(&bytes), me.id, me.incarnation, members.epoch());
        let state = State {
            env: env.clone(),
            map,
            links: Links::new(greeting),
            members,
            requests: Requests::new(),
            gathers: BTreeMap::new(),
            next_hints: Nanos(0),
            changed: true,
            storing: Rc::default(),
            config,
        };
        let inner = Inner { env, state: RefCell::new(state), timing: Cell::new(false) };
        Ok(Cluster { inner: Rc::new(inner) })
    }

    /// Coordinates a client's request.
    pub fn coordinate(&self, request: Coordinate) {
        self.with(|state| state.coordinate(request));
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

/// The keyspace of everything so far.
const DEFAULT_KEYSPACE: u32 = 0;

/// An ask on its way out, with what it is about.
struct Asking {
    partition: PartitionId,
    key: Vec<u8>,
    deadline: Option<Nanos>,
    ask: Ask,
}

impl Asking {
    /// About a request's key; nobody waits for it.
    fn background(running: &Running, ask: Ask) -> Self {
        let (partition, key) = (running.partition, running.key.clone());
        Asking { partition, key, deadline: None, ask }
    }
}

/// How exactly requests are ticked.
const MIN_PAUSE: Duration = Duration::from_micros(500);
const MAX_PAUSE: Duration = Duration::from_millis(5);

impl<E: NodeEnv> State<E> {
    // --- clients ----------------------------------------------------------------------------

    fn coordinate(&mut self, request: Coordinate) {
        let Coordinate { origin, conn, arrived, cost, frame: bytes } = request;
        let Ok(Parsed::Frame { frame, .. }) =
            RequestFrame::parse(&bytes, self.config.limits.max_frame)
        else {
            // The data core has checked these very bytes.
            return self.env.log("a coordinated frame does not parse; its request is lost");
        };
        let head = &frame.head;
        let mut client = Client {
            origin,
            conn,
            request_id: head.request_id,
            cost,
            arrived,
            op: head.op.to_u8(),
            partition: PartitionId::NONE,
            owner: CoreId::ANY,
        };
        if self.members.gossip.table().is_none() {
            let text = "the cluster's nodes have not all met yet";
            return self.refuse(&client, ErrorCode::NotEnoughReplicas, text);
        }
        if self.requests.len() >= MAX_RUNNING {
            return self.refuse(&client, ErrorCode::Busy, "too many requests in progress");
        }
        let decoded = Request::decode(&frame, &self.config.limits);
        let request = match decoded {
            Ok(request) => request,
            Err(error) => return self.refuse(&client, error.code(), &error.to_string()),
        };
        let key = match &request {
            Request::Get { key } => key,
            Request::Put(put) => put.key,
            Request::Delete(delete) => delete.key,
            _ => &[],
        };
        let hash = key_hash(key);
        let conflicts = client::conflicts(head);
        let view = View { hash, conflicts, prefix: Vec::new() };
        if !key.is_empty() {
            client.partition = self.map.partition_of_hash(hash);
            client.owner = self.map.core_of(client.partition);
        }
        let now = self.env.now();
        match &request {
            Request::Get { .. } => {
                let get = client::get_request(head, &self.config, arrived, now);
                let (partition, reply_to) = (client.partition, ReplyTo::Client(client, view));
                self.start_get(get, partition, reply_to, key.to_vec());
            }
            Request::Put(_) | Request::Delete(_) => {
                let put = client::put_request(head, frame.token, &request, &self.config, arrived);
                if let Some(put) = put {
                    self.start_put(put, client, view, key.to_vec());
                }
            }
            Request::List(list) => {
                let partitions = self.map.partitions();
                match client::list_request(head, list, partitions, arrived) {
                    Ok(request) => {
                        let view = View { prefix: list.prefix.to_vec(), ..view };
                        self.start_list(request, client, view);
                    }
                    Err(text) => self.refuse(&client, ErrorCode::BadCursor, &text),
                }
            }
            Request::MultiGet(keys) => self.start_gather(head, keys, client, &view),
            Request::Topology => self.topology(&client),
            _ => self.refuse(&client, ErrorCode::Internal, "not a request to coordinate"),
        }
    }

    fn start_get(
        &mut self,
        request: GetRequest,
        partition: PartitionId,
        reply_to: ReplyTo,
        key: Vec<u8>,
    ) {
        let now = self.env.now();
        let replicas = self.members.replicas(partition, &self.links, now);
        let (id, mut effects) = (self.requests.number(), Vec::new());
        let deadline = request.deadline;
        let machine = Machine::Get(Get::start(request, &replicas, &mut effects));
        self.requests.insert(id, Running::new(machine, reply_to, partition, key, deadline));
        self.carry_out(id, effects);
    }

    /// One read per key.
    fn start_gather(
        &mut self,
        head: &RequestHead,
        keys: &KeyList<'_>,
        client: Client,
        view: &View,
    ) {
        let view = |key: &[u8]| View { hash: key_hash(key), ..view.clone() };
        let views: Vec<View> = keys.iter().map(view).collect();
        let partitions: Vec<_> =
            views.iter().map(|view| self.map.partition_of_hash(view.hash)).collect();
        let (arrived, number) = (client.arrived, self.requests.number());
        let gather = Gather::new(client, views);
        if gather.is_complete() {
            let (epoch, now) = (self.members.epoch(), self.env.now());
            let frames = gather.reply(self.config.secret, 0, epoch, now);
            return self.send_reply(gather.client(), frames);
        }
        self.gathers.insert(number, gather);
        for (index, (key, partition)) in keys.iter().zip(partitions).enumerate() {
            let get = client::get_request(head, &self.config, arrived, self.env.now());
            self.start_get(get, partition, ReplyTo::Part(number, index), key.to_vec());
        }
    }

    fn start_put(&mut self, request: PutRequest, client: Client, view: View, key: Vec<u8>) {
        let now = self.env.now();
        let replicas = self.members.replicas(client.partition, &self.links, now);
        let (id, mut effects) = (self.requests.number(), Vec::new());
        let (deadline, partition) = (request.deadline, client.partition);
        let put = Put::start(request, &replicas, members::micros(now), &mut effects);
        let (machine, reply_to) = (Machine::Put(put), ReplyTo::Client(client, view));
        self.requests.insert(id, Running::new(machine, reply_to, partition, key, deadline));
        self.carry_out(id, effects);
    }

    fn start_list(&mut self, request: ListRequest, client: Client, view: View) {
        let (id, mut effects) = (self.requests.number(), Vec::new());
        let now = self.env.now();
        let placement = PlacementNow { members: &self.members, links: &self.links, now };
        let deadline = request.deadline;
        let machine = Machine::List(List::start(request, &placement, &mut effects));
        let (reply_to, none) = (ReplyTo::Client(client, view), PartitionId::NONE);
        self.requests.insert(id, Running::new(machine, reply_to, none, Vec::new(), deadline));
        self.carry_out(id, effects);
    }

    fn topology(&self, client: &Client) {
        let now = self.env.now();
        let mut table = Vec::new();
        if let Some(known) = self.members.gossip.table() {
            known.encode(&mut table);
        }
        let nodes: Vec<_> = self
            .members
            .gossip
            .members()
            .map(|member| TopologyNode {
                id: member.id,
                alive: self.members.is_alive(member.id, &self.links, now),
                cores: member.cores,
                address: member.client_address.clone(),
                rack: member.rack.clone(),
            })
            .collect();
        let reply = TopologyReply { replicas: self.config.replicas, nodes, table };
        let mut frames = Vec::new();
        let head = ReplyHead {
            epoch: self.members.epoch(),
            ..ReplyHead::new(client.op, client.request_id, Status::Ok)
        };
        let mut frame = FrameWriter::reply(&mut frames, &head);
        reply.write(frame.body());
        frame.finish();
        self.send_reply(client, frames);
    }

    fn refuse(&self, client: &Client, code: ErrorCode, text: &str) {
        let (epoch, now) = (self.members.epoch(), self.env.now());
        let frames = client.error(code, text, &Proof::default(), epoch, now);
        self.send_reply(client, frames);
    }

    fn send_reply(&self, client: &Client, frames: Vec<u8>) {
        let Client { origin, conn, request_id, cost, .. } = *client;
        self.env.send(origin, CoreMessage::Reply { conn, request_id, cost, frames });
    }

    // --- machines ---------------------------------------------------------------------------

    /// Does what a machine wants done, and what follows from it.
    fn carry_out(&mut self, id: u64, effects: Vec<Effect>) {
        let mut waiting = std::collections::VecDeque::from(effects);
        while let Some(effect) = waiting.pop_front() {
            match effect {
                Effect::Send { to, ask } => {
                    let Some(running) = self.requests.get(id) else { continue };
                    let partition = partition_of(running);
                    let (key, deadline) = (running.key.clone(), Some(running.deadline));
                    let purpose = Purpose::Request { id, partition };
                    if !self.ask(to, Asking { partition, key, deadline, ask }, purpose) {
                        let mut more = Vec::new();
                        self.feed(id, Input::Failed(to), &mut more);
                        waiting.extend(more);
                    }
                }
                Effect::Reply(outcome) => self.reply(id, outcome),
                Effect::Repair { to, object } => {
                    let Some(running) = self.requests.get(id) else { continue };
                    let asking = Asking::background(running, merge_ask(object, None));
                    self.ask(to, asking, Purpose::Repair);
                }
                Effect::Hint { target, object } => {
                    let Some(running) = self.requests.get(id) else { continue };
                    let asking = Asking::background(running, merge_ask(object, Some(target)));
                    self.ask(self.config.me.id, asking, Purpose::Repair);
                }
                Effect::Done => self.requests.finish(id),
            }
        }
    }

    fn reply(&mut self, id: u64, outcome: Outcome) {
        let Some(running) = self.requests.get(id) else { return };
        let (secret, epoch, now) = (self.config.secret, self.members.epoch(), self.env.now());
        match running.reply_to.clone() {
            ReplyTo::Client(client, view) => {
                let partitions = self.map.partitions();
                let frames = client.reply(&outcome, &view, secret, partitions, epoch, now);
                self.send_reply(&client, frames);
            }
            ReplyTo::Part(number, index) => {
                let Some(gather) = self.gathers.get_mut(&number) else { return };
                gather.add(index, outcome);
                if gather.is_complete()
                    && let Some(gather) = self.gathers.remove(&number)
                {
                    let budget = self.config.limits.max_reply as usize;
                    let frames = gather.reply(secret, budget, epoch, now);
                    self.send_reply(gather.client(), frames);
                }
            }
        }
    }

    fn feed(&mut self, id: u64, input: Input, effects: &mut Vec<Effect>) {
        let now = self.env.now();
        let placement = PlacementNow { members: &self.members, links: &self.links, now };
        self.requests.feed(id, input, &placement, now, effects);
    }

    fn tick_requests(&mut self) {
        for id in self.requests.due(self.env.now()) {
            let mut effects = Vec::new();
            self.feed(id, Input::Tick, &mut effects);
            self.carry_out(id, effects);
        }
    }

    // --- asks -------------------------------------------------------------------------------

    /// Sends an ask to a node, this one included; `false` when it cannot be sent.
    fn ask(&mut self, to: NodeId, asking: Asking, purpose: Purpose) -> bool {
        let ticket = self.requests.note(InFlight { node: to, purpose });
        if to == self.config.me.id {
            self.ask_own(ticket, asking);
            return true;
        }
        let Asking { partition, key, deadline, ask } = asking;
        let left = deadline.map(|deadline| deadline.since(self.env.now()).as_micros().max(1));
        let left_us = left.map_or(0, |left| u32::try_from(left).unwrap_or(u32::MAX));
        let (epoch, keyspace) = (self.members.epoch(), DEFAULT_KEYSPACE);
        let message = PeerMessage::Ask { ticket, epoch, left_us, keyspace, partition, key, ask };
        let sent = self.links.send(to, &message);
        if !sent {
            self.requests.answered(ticket, true);
        }
        sent
    }

    fn ask_own(&self, ticket: u64, asking: Asking) {
        let Asking { partition, key, deadline, ask } = asking;
        let core = self.map.core_of(partition);
        self.env.send(core, CoreMessage::Ask(ShardAsk { ticket, partition, key, deadline, ask }));
    }

    /// Another node asks.
    fn asked(&mut self, from: NodeId, message: PeerMessage, bytes: u64) {
        let PeerMessage::Ask { ticket: theirs, left_us, keyspace, partition, key, ask, .. } =
            message
        else {
            return;
        };
        let too_long = key.len() > self.config.limits.max_key as usize;
        let unknown = u32::from(partition.0) >= self.map.partitions();
        let about_key = !matches!(ask, Ask::List { .. });
        let misplaced = about_key
            && (key.is_empty() || self.map.partition_of_hash(key_hash(&key)) != partition);
        if too_long || unknown || misplaced || keyspace != DEFAULT_KEYSPACE {
            self.links.worked_off(from, bytes);
            let answer = Answer::Refused(Refusal::Invalid);
            self.links.send(from, &PeerMessage::Answer { ticket: theirs, answer });
            return;
        }
        let purpose = Purpose::Remote { ticket: theirs, bytes };
        let ticket = self.requests.note(InFlight { node: from, purpose });
        let left = (left_us > 0).then(|| Duration::from_micros(u64::from(left_us)));
        let deadline = left.map(|left| self.env.now().after(left));
        self.ask_own(ticket, Asking { partition, key, deadline, ask });
    }

    /// An answer came, from a data core (`from` is this node) or from another node.
    fn answered(&mut self, from: NodeId, ticket: u64, answer: Answer) {
        let Some(ask) = self.requests.answered(ticket, is_last(&answer)) else { return };
        let me = self.config.me.id;
        match ask.purpose {
            Purpose::Remote { ticket, bytes } if from == me => {
                self.links.worked_off(ask.node, bytes);
                self.links.send(ask.node, &PeerMessage::Answer { ticket, answer });
            }
            // Only the node that was asked answers.
            _ if ask.node != from => {}
            Purpose::Request { id, partition } => {
                let mut effects = Vec::new();
                self.feed(id, Input::Answer { from, partition, answer }, &mut effects);
                self.carry_out(id, effects);
            }
            Purpose::Handoff(handoff) if answer == Answer::Stored => {
                self.env.send(handoff.core, CoreMessage::HandedOff(handoff));
            }
            Purpose::Handoff(_) | Purpose::Repair | Purpose::Remote { .. } => {}
        }
    }

    fn dropped(&mut self, ticket: u64) {
        if let Some(InFlight { node, purpose: Purpose::Remote { bytes, .. } }) =
            self.requests.answered(ticket, true)
        {
            self.links.worked_off(node, bytes);
        }
    }

    fn hand_off(&mut self, handoff: Handoff) {
        let (target, partition, key) = (handoff.target, handoff.partition, handoff.key.clone());
        let ask = merge_ask(handoff.object.clone(), None);
        let asking = Asking { partition, key, deadline: None, ask };
        self.ask(target, asking, Purpose::Handoff(Box::new(handoff)));
    }

    // --- the other nodes --------------------------------------------------------------------

    fn work_off_events(&mut self) {
        while let Some(event) = self.links.events.pop_front() {
            match event {
                LinkEvent::Up(node) => {
                    self.members.heard(node, self.env.now());
                    self.env.log(&format!("node {node} is linked"));
                }
                LinkEvent::Down(node) => {
                    self.env.log(&format!("node {node} is no longer linked"));
                    for id in self.requests.lost(node) {
                        let mut effects = Vec::new();
                        self.feed(id, Input::Failed(node), &mut effects);
                        self.carry_out(id, effects);
                    }
                }
                LinkEvent::Message(node, message, bytes) => self.message(node, message, bytes),
                LinkEvent::Trouble(text) => self.env.log(&text),
            }
        }
        self.links.grant_large();
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
                    self.changed = true;
                    self.env.log(&format!("placement of {epoch} adopted"));
                }
                Event::Beat(node) => self.members.heard(*node, self.env.now()),
                Event::Member(_) | Event::Keyspace(_) => self.changed = true,
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
        if self.changed && !self.storing.get() {
            self.changed = false;
            self.store();
        }
        if healthy {
            self.members.gossip.beat();
        }
        for say in self.members.tick(now, self.env.random()) {
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
        self.greet_strangers();
        for dial in self.links.tick(now, self.env.random()) {
            self.env.dial(dial.ticket, dial.address);
        }
        if now >= self.next_hints {
            self.next_hints = now.after(HINTS);
            self.ask_for_hints(now);
        }
    }

    fn store(&self) {
        let (env, dir, storing) =
            (self.env.clone(), self.config.dir.clone(), Rc::clone(&self.storing));
        let mut view = Vec::new();
        self.members.gossip.snapshot(&mut view);
        storing.set(true);
        self.env.spawn(TaskClass::Background, async move {
            if let Err(error) = store::write(&env, &dir, &view).await {
                // The node goes on; a restart learns it from the others.
                env.log(&format!("cannot store what is known of the cluster: {error}"));
            }
            storing.set(false);
        });
    }

    /// Nodes that are linked but not known as members yet learn of this one.
    fn greet_strangers(&mut self) {
        let random = self.env.random();
        let known = |node: &NodeId| self.members.gossip.member(*node).is_some();
        let strangers: Vec<_> = self.links.linked().filter(|node| !known(node)).collect();
        if strangers.is_empty() {
            return;
        }
        let digest = self.members.gossip.round(random).into_iter().next();
        if let Some((_, digest)) = digest {
            strangers.iter().for_each(|node| self.gossip(*node, &digest));
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
