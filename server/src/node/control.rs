//! The control core: what concerns the whole node.
//!
//! For now it sums the counters of the data cores and watches that every one of them makes
//! progress: a node whose control core answers while a data core is stuck is not alive. With an
//! executor of its own or as a guest on data core 0, it hears only messages.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_net::codec::{Request, StatsReply};
use coronet_net::{ErrorCode, FrameWriter, Limits, Op, Parsed, ReplyHead, RequestFrame, Status};
use coronet_ring::CoreId;

use super::admin::Orders;
use super::keyspaces::{Alone, Asker};
use super::{Cluster, ConnId, ControlMessage, Coordinate, CoreMessage, CoreStats, NodeEnv};

/// How often each data core is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Silence after which a data core is reported as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The control core. A handle; clones are the same.
pub struct Control<E: NodeEnv> {
    inner: Rc<RefCell<State<E>>>,
    cluster: Option<Cluster<E>>,
    /// The keyspaces of a node in no cluster.
    alone: Option<Rc<RefCell<Alone<E>>>>,
}

impl<E: NodeEnv> Clone for Control<E> {
    fn clone(&self) -> Self {
        let (inner, alone) = (Rc::clone(&self.inner), self.alone.clone());
        Control { inner, cluster: self.cluster.clone(), alone }
    }
}

struct State<E: NodeEnv> {
    env: E,
    cores: Vec<Health>,
    beat: u64,
    last_ping: Nanos,
    collections: BTreeMap<u64, Collection>,
    next_ticket: u64,
    orders: Orders,
}

/// What is known of a data core.
struct Health {
    /// When it last answered.
    heard: Nanos,
    /// The ping it answered last.
    beat: u64,
    /// Whether its silence was reported.
    reported: bool,
}

/// A client's question for the node's counters while the cores answer.
struct Collection {
    origin: CoreId,
    conn: ConnId,
    request_id: u64,
    cost: usize,
    missing: usize,
    sum: CoreStats,
}

impl<E: NodeEnv> Control<E> {
    /// The control core of a node with `cores` data cores.
    pub fn new(env: E, cores: u16) -> Self {
        let now = env.now();
        let health = || Health { heard: now, beat: 0, reported: false };
        let state = State {
            cores: (0..cores).map(|_| health()).collect(),
            beat: 0,
            last_ping: now,
            collections: BTreeMap::new(),
            next_ticket: 0,
            orders: Orders::default(),
            env,
        };
        Control { inner: Rc::new(RefCell::new(state)), cluster: None, alone: None }
    }

    /// The same with a part in a cluster.
    pub fn with_cluster(self, cluster: Cluster<E>) -> Self {
        Control { cluster: Some(cluster), ..self }
    }

    /// The same with keyspaces of its own, for a node in no cluster.
    pub fn with_keyspaces(self, alone: Alone<E>) -> Self {
        Control { alone: Some(Rc::new(RefCell::new(alone))), ..self }
    }

    /// The node's part in its cluster, if it has one.
    pub fn cluster(&self) -> Option<&Cluster<E>> {
        self.cluster.as_ref()
    }

    /// A message from a data core.
    pub fn message(&self, message: ControlMessage) {
        match (message, &self.cluster) {
            (ControlMessage::Coordinate(request), Some(cluster)) => cluster.coordinate(request),
            (ControlMessage::Answer { ticket, answer }, Some(cluster)) => {
                cluster.answered(ticket, answer);
            }
            (ControlMessage::Dropped { ticket }, Some(cluster)) => cluster.dropped(ticket),
            (ControlMessage::Handoff(handoff), Some(cluster)) => cluster.hand_off(handoff),
            (ControlMessage::Defined { core, id, version, problem }, Some(cluster)) => {
                cluster.defined(core, id, version, problem);
            }
            (ControlMessage::Coordinate(request), None) => self.asked(&request),
            (ControlMessage::Defined { core, id, version, problem }, None) => {
                if let Some(alone) = &self.alone {
                    alone.borrow_mut().defined(core, id, version, problem);
                }
            }
            (message, _) => self.count(message),
        }
    }

    /// A client asks about keyspaces; in no cluster nothing else is for the control core.
    fn asked(&self, request: &Coordinate) {
        let env = self.inner.borrow().env.clone();
        let parsed = RequestFrame::parse(&request.frame, u32::MAX);
        let Ok(Parsed::Frame { frame, .. }) = parsed else {
            // The data core has checked these very bytes.
            return env.log("a frame for the control core does not parse; its request is lost");
        };
        let Coordinate { origin, conn, cost, .. } = *request;
        let asker = Asker { origin, conn, request_id: frame.head.request_id, cost };
        let decoded = Request::decode(&frame, &Limits::default());
        match (decoded, &self.alone) {
            (Ok(Request::Keyspace(request)), Some(alone)) => {
                alone.borrow_mut().asked(asker, &request);
            }
            _ => asker.refuse(&env, ErrorCode::Unsupported, "this node keeps no keyspaces"),
        }
    }

    fn count(&self, message: ControlMessage) {
        let state = &mut *self.inner.borrow_mut();
        match message {
            ControlMessage::Stats { origin, conn, request_id, cost } => {
                let missing = state.cores.len();
                let sum = CoreStats::default();
                state.collect(Collection { origin, conn, request_id, cost, missing, sum });
            }
            ControlMessage::CoreStats { ticket, core: _, stats } => {
                let cluster = self.cluster.as_ref().map(Cluster::counters);
                state.add(ticket, &stats, cluster.unwrap_or_default());
            }
            ControlMessage::Admin { origin, conn, request_id, cost, task } => {
                let asker = Asker { origin, conn, request_id, cost };
                let cores = u16::try_from(state.cores.len()).unwrap_or(u16::MAX);
                for (core, message) in state.orders.begin(asker, task, cores) {
                    state.env.send(core, message);
                }
            }
            ControlMessage::AdminDone(done) => {
                if let Some((core, message)) = state.orders.done(done) {
                    state.env.send(core, message);
                }
            }
            ControlMessage::Pong { core, beat } => state.pong(core, beat),
            // A data core sends these only in a cluster, or they are dealt with.
            ControlMessage::Coordinate(_)
            | ControlMessage::Answer { .. }
            | ControlMessage::Dropped { .. }
            | ControlMessage::Defined { .. }
            | ControlMessage::Handoff(_) => {}
        }
    }

    /// Asks for signs of life and reports those who gave none.
    pub fn tick(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.tick(self.stuck().is_empty());
        }
        if let Some(alone) = &self.alone {
            alone.borrow_mut().tick();
        }
        let state = &mut *self.inner.borrow_mut();
        let now = state.env.now();
        if now.since(state.last_ping) < PING_EVERY {
            return;
        }
        state.last_ping = now;
        state.beat += 1;
        let beat = state.beat;
        for (index, core) in state.cores.iter_mut().enumerate() {
            let id = CoreId(index as u16); // bounded by the u16 it was made from
            let silent = now.since(core.heard);
            if silent >= STUCK_AFTER && !core.reported {
                core.reported = true;
                let seconds = silent.as_secs();
                state.env.log(&format!("{id} has made no progress for {seconds} s"));
            }
            state.env.send(id, CoreMessage::Ping { beat });
        }
    }

    /// Data cores that gave no sign of life for a while.
    pub fn stuck(&self) -> Vec<CoreId> {
        let state = self.inner.borrow();
        let stuck = state.cores.iter().enumerate().filter(|(_, core)| core.reported);
        stuck.map(|(index, _)| CoreId(index as u16)).collect()
    }
}

impl<E: NodeEnv> State<E> {
    fn collect(&mut self, collection: Collection) {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.collections.insert(ticket, collection);
        for index in 0..self.cores.len() {
            self.env.send(CoreId(index as u16), CoreMessage::CollectStats { ticket });
        }
    }

    fn add(&mut self, ticket: u64, stats: &CoreStats, cluster: Vec<(String, u64)>) {
        let Some(collection) = self.collections.get_mut(&ticket) else { return };
        collection.sum.add(stats);
        collection.missing = collection.missing.saturating_sub(1);
        if collection.missing > 0 {
            return;
        }
        if let Some(done) = self.collections.remove(&ticket) {
            let mut frames = Vec::new();
            let head = ReplyHead::new(Op::Stats.to_u8(), done.request_id, Status::Ok);
            let mut frame = FrameWriter::reply(&mut frames, &head);
            let mut named = done.sum.named();
            named.push(("node.data_cores".to_owned(), self.cores.len() as u64));
            let stuck = self.cores.iter().filter(|core| core.reported).count();
            named.push(("node.stuck_cores".to_owned(), stuck as u64));
            named.extend(cluster);
            StatsReply::write(frame.body(), named.iter().map(|(name, n)| (name.as_str(), *n)));
            frame.finish();
            let Collection { conn, request_id, cost, .. } = done;
            let reply = CoreMessage::Reply { conn, request_id, cost, timed: None, frames };
            self.env.send(done.origin, reply);
        }
    }

    fn pong(&mut self, core: CoreId, beat: u64) {
        let now = self.env.now();
        let Some(health) = self.cores.get_mut(core.index()) else { return };
        health.heard = now;
        health.beat = health.beat.max(beat);
        if std::mem::take(&mut health.reported) {
            self.env.log(&format!("{core} makes progress again"));
        }
    }
}
