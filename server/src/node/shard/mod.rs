//! One data core's share of the node: its connections, its partitions, its engine.
//!
//! * `connection`: one connection's buffers, limits and deadlines.
//! * `intake`: bytes to requests, HELLO, answers back to connections.
//! * `dispatch`: a request to its handler, or to the core that owns its key.
//! * `read`, `write`, `multi`, `list`: the handlers.
//! * `spaces`: the keyspaces.
//! * `own`: names that must not be given again.
//! * `admin`: what the operator wants of this core.
//! * `commits`: writes that wait for their log batch.
//! * `reply`: whom an answer goes to, and the words of errors.

mod admin;
mod commits;
mod connection;
mod dispatch;
mod hints;
mod intake;
mod list;
mod multi;
mod own;
mod read;
mod replica;
mod reply;
mod spaces;
mod turns;
mod write;

pub use connection::Limits;
pub(super) use reply::error_frame;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{Durability, Engine, Options, Result};
use coronet_probe::{Bug, seeded};
use coronet_ring::{CoreId, Dot, HybridClock, Incarnation, NodeId, PartitionMap, PlacementError};

use super::stats::{Counters, OpLatencies, count};
use super::{ConnId, ControlMessage, CoreMessage, CoreStats, NodeEnv};
use commits::CommitQueue;
use connection::Connection;
use hints::Hinted;
use spaces::Spaces;
use turns::KeyLocks;
use write::Waiter;

/// Maps with a fixed seed: the simulator replays a history byte for byte.
type Map<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

fn map<K, V>() -> Map<K, V> {
    Map::with_hasher(ahash::RandomState::with_seeds(0x636f_726f, 0x6e65_7421, 0x6e6f_6465, 1))
}

/// What a write without context does to versions it has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlindWrites {
    /// Replaces them: the last write wins.
    #[default]
    Replace,
    /// Stands beside them as another version.
    Siblings,
}

/// What a shard is told when it opens. The same for all cores of a node.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Number of data cores.
    pub cores: u16,
    /// Number of partitions of the hash space, a power of two.
    pub partitions: u32,
    /// The node's identity, told to clients.
    pub node_id: NodeId,
    /// The node's incarnation: the actor of the versions it writes.
    pub incarnation: Incarnation,
    /// The secret contexts are checked with.
    pub secret: u64,
    /// The port clients connect to, told to clients.
    pub port: u16,
    /// What a write gets that does not ask.
    pub durability: Durability,
    /// What a write without context does.
    pub blind_writes: BlindWrites,
    /// Whether requests are coordinated over the nodes of a cluster.
    pub clustered: bool,
    /// Bounds on connections and requests.
    pub limits: Limits,
    /// How the engine is set up.
    pub engine: Options,
}

impl ShardConfig {
    /// Defaults for a node of this identity with `cores` data cores over `partitions`.
    pub fn new(cores: u16, partitions: u32, node_id: NodeId, incarnation: Incarnation) -> Self {
        ShardConfig {
            cores,
            partitions,
            node_id,
            incarnation,
            secret: 0,
            port: coronet_net::DEFAULT_PORT,
            durability: Durability::Durable,
            blind_writes: BlindWrites::Replace,
            clustered: false,
            limits: Limits::default(),
            engine: Options::default(),
        }
    }
}

/// What the shell has to do with a connection after it took its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputState {
    /// Close the connection once the output is sent.
    pub close_after: bool,
    /// Read nothing more from the socket until a later state says otherwise.
    pub paused: bool,
    /// Give the socket to this core: stop reading, pass what still arrives to
    /// [`Shard::receive`], then move the socket and [`Shard::release`]'s bytes there, where they
    /// go through `connect` and `receive`.
    pub hand_over: Option<CoreId>,
}

/// Why a shard does not open.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// Cores and partitions do not fit.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The engine does not open.
    #[error(transparent)]
    Engine(#[from] coronet_lsm::Error),
}

/// One data core: connections, requests, storage. A handle; clones are the same shard.
pub struct Shard<E: NodeEnv> {
    inner: Rc<Inner<E>>,
}

/// Buffers that live as long as the shard, so that a request allocates nothing.
#[derive(Default)]
struct Scratch {
    key: Vec<u8>,
    object: Vec<u8>,
    dots: Vec<Dot>,
    batch: coronet_lsm::WriteBatch,
}

struct Inner<E: NodeEnv> {
    env: E,
    /// The engine's folder.
    dir: PathBuf,
    engine: Engine<E>,
    config: ShardConfig,
    me: CoreId,
    /// Names versions: this node's actor, and the counter that none issued before this start
    /// exceeds. It is the engine's: every dot comes with a sequence number, and those are never
    /// used twice, lost ones included.
    issued: Cell<Dot>,
    map: PartitionMap,
    wire: coronet_net::Limits,
    clock: RefCell<HybridClock>,
    conns: RefCell<Map<ConnId, Connection>>,
    dirty: RefCell<VecDeque<ConnId>>,
    scratch: RefCell<Scratch>,
    durable: CommitQueue<Waiter>,
    buffered: CommitQueue<Waiter>,
    locks: KeyLocks<E>,
    /// The keyspaces this core serves.
    spaces: RefCell<Spaces<E>>,
    /// Where hints are kept for whom.
    hinted: RefCell<Hinted>,
    /// Parts still missing of requests that several cores answer.
    parts: RefCell<Map<(ConnId, u64), usize>>,
    /// Requests of this core's connections, and of other cores' connections, in flight.
    in_flight: Cell<usize>,
    in_flight_for_others: Cell<usize>,
    draining: Cell<bool>,
    counters: Counters,
    latencies: RefCell<OpLatencies>,
}

impl<E: NodeEnv> Clone for Shard<E> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<E: NodeEnv> Shard<E> {
    /// Opens this core's engine in `dir` (created when absent) and starts the shard's tasks.
    pub async fn open(
        env: E,
        dir: &Path,
        config: ShardConfig,
    ) -> std::result::Result<Self, OpenError> {
        let map = PartitionMap::new(config.partitions, config.cores)?;
        let engine = Engine::open(env.clone(), dir, config.engine.clone()).await?;
        let hinted = if config.clustered { hints::open(&engine).await? } else { Hinted::new() };
        let to_u32 = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let limits = &config.limits;
        let issued = if seeded(Bug::OldIncarnation) { 0 } else { engine.last_seq().0 };
        let inner = Rc::new(Inner {
            me: env.core(),
            issued: Cell::new(Dot::new(config.incarnation, issued)),
            map,
            wire: coronet_net::Limits::new(to_u32(limits.key_bytes), to_u32(limits.value_bytes)),
            clock: RefCell::default(),
            conns: RefCell::new(self::map()),
            dirty: RefCell::default(),
            scratch: RefCell::default(),
            durable: CommitQueue::default(),
            buffered: CommitQueue::default(),
            locks: KeyLocks::default(),
            spaces: RefCell::new(Spaces::new(&engine)?),
            hinted: RefCell::new(hinted),
            parts: RefCell::new(self::map()),
            in_flight: Cell::new(0),
            in_flight_for_others: Cell::new(0),
            draining: Cell::new(false),
            counters: Counters::default(),
            latencies: RefCell::default(),
            engine,
            dir: dir.to_owned(),
            config,
            env: env.clone(),
        });
        for durability in [Durability::Durable, Durability::Buffered] {
            let shard = Rc::clone(&inner);
            env.spawn(TaskClass::Foreground, async move {
                let queue = shard.commits(durability);
                queue.run(|reply, result| shard.committed(reply, result)).await;
            });
        }
        Ok(Self { inner })
    }

    /// A client connected.
    pub fn connect(&self, conn: ConnId) {
        let inner = &self.inner;
        count(&inner.counters.connections_opened);
        inner.conns.borrow_mut().insert(conn, Connection::new(inner.env.now()));
    }

    /// Bytes arrived: decodes them and executes inline what needs no disk.
    pub fn receive(&self, conn: ConnId, bytes: &[u8]) {
        self.inner.receive(conn, bytes);
    }

    /// The peer sends nothing more but may still read: what it asked is answered, then the
    /// connection closes.
    pub fn end_of_input(&self, conn: ConnId) {
        self.inner.end_of_input(conn);
    }

    /// The connection is gone; what it still had in flight is answered to nobody.
    pub fn disconnect(&self, conn: ConnId) {
        self.inner.forget(conn);
    }

    /// Forgets a connection that is being handed to another core and returns its unread input.
    pub fn release(&self, conn: ConnId) -> Vec<u8> {
        self.inner.forget(conn).map(|mut gone| gone.take_input()).unwrap_or_default()
    }

    /// A message from another core of this node.
    pub fn core_message(&self, message: CoreMessage) {
        let inner = &self.inner;
        match message {
            CoreMessage::Request { origin, conn, arrived, frame } => {
                inner.serve_forwarded((origin, conn), arrived, &frame);
            }
            CoreMessage::Reply { conn, request_id, cost, timed, frames } => {
                inner.answered_elsewhere((conn, request_id), cost, timed, &frames);
            }
            CoreMessage::CollectStats { ticket } => {
                let (core, stats) = (inner.me, Box::new(self.stats()));
                inner.tell_control(ControlMessage::CoreStats { ticket, core, stats });
            }
            CoreMessage::Admin { ticket, task } => inner.do_task(ticket, task),
            CoreMessage::Ping { beat } => {
                inner.tell_control(ControlMessage::Pong { core: inner.me, beat });
            }
            CoreMessage::Ask(ask) => inner.ask(ask),
            CoreMessage::ReplayHints { target } => inner.replay_hints(target),
            CoreMessage::TakeNewName => inner.take_new_name(),
            CoreMessage::Define(definition) => inner.define(*definition),
            CoreMessage::HandedOff(handoff) => inner.handed_off(*handoff),
            // For the control core; the shell that runs one gives it this message.
            CoreMessage::Control(_) => {}
        }
    }

    /// The next connection with output or a changed state; each is named once per change.
    pub fn next_dirty(&self) -> Option<ConnId> {
        self.inner.next_dirty()
    }

    /// Moves the connection's output to the end of `into`.
    pub fn take_output(&self, conn: ConnId, into: &mut Vec<u8>) -> OutputState {
        self.inner.take_output(conn, into)
    }

    /// Deadlines and half-open connections; called about every 50 milliseconds.
    pub fn tick(&self) {
        self.inner.tick();
    }

    /// Takes no new requests from now on (they are answered "shutting down"); what is in flight
    /// is finished.
    pub fn drain(&self) {
        self.inner.draining.set(true);
    }

    /// Requests in flight on this core, for connections of any core.
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight.get() + self.inner.in_flight_for_others.get()
    }

    /// This core's counters.
    pub fn stats(&self) -> CoreStats {
        let mut node = self.inner.counters.snapshot();
        node.connections = self.inner.conns.borrow().len() as u64;
        let keyspaces = self.inner.engine.keyspace_stats().into_iter().collect();
        let latencies = self.inner.latencies.borrow().clone();
        CoreStats { node, engine: self.inner.engine.stats(), keyspaces, latencies }
    }

    /// Whether this core still writes under the incarnation it was opened with. If not, the folder
    /// must not be marked as having ended in order.
    pub fn keeps_its_name(&self) -> bool {
        self.inner.issued.get().actor == self.inner.config.incarnation.into()
    }

    /// Closes the engine: logs synced, tasks stopped. Requests that come later are refused.
    pub async fn close(&self) -> Result<()> {
        self.inner.draining.set(true);
        let result = self.inner.engine.close().await;
        self.inner.durable.close();
        self.inner.buffered.close();
        result
    }
}

impl<E: NodeEnv> Inner<E> {
    fn commits(&self, durability: Durability) -> &CommitQueue<Waiter> {
        match durability {
            Durability::Durable => &self.durable,
            Durability::Buffered => &self.buffered,
        }
    }

    fn tell_control(&self, message: ControlMessage) {
        // The control core's address follows the data cores'.
        self.env.send(CoreId(self.config.cores), CoreMessage::Control(message));
    }

    /// Appends the engine key of a user key: partition, big endian, then the key.
    fn engine_key(partition: coronet_ring::PartitionId, key: &[u8], into: &mut Vec<u8>) {
        into.extend_from_slice(&partition.0.to_be_bytes());
        into.extend_from_slice(key);
    }
}
