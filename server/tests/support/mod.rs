//! A whole node on the simulator: several cores, messages between them, clients that are byte
//! strings. Nothing moves until the test lets it.
// Each test file uses its part; a test may panic.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::Options;
use coronet_lsm::env::Env;
use coronet_net::codec::{Hello, Put, Request};
use coronet_net::{Op, Parsed, ReplyFrame, ReplyHead, RequestHead, Status};
use coronet_ring::coordinate::message::Answer;
use coronet_ring::{Incarnation, NodeId, PartitionMap};
use coronet_server::node::{
    Alone, ConnId, Control, ControlMessage, CoreId, CoreMessage, Door, NodeCore, NodeEnv,
    OutputState, Shard, ShardAsk, ShardConfig, read_keyspaces,
};
use coronet_sim::{Sim, SimEnv};

/// One core's environment: the simulated machine and the queue between the cores.
#[derive(Clone)]
pub struct CoreEnv {
    base: SimEnv,
    core: CoreId,
    wire: Rc<RefCell<VecDeque<(CoreId, CoreMessage)>>>,
}

coronet_sim::delegate_env!(CoreEnv, base);

impl NodeEnv for CoreEnv {
    fn core(&self) -> CoreId {
        self.core
    }

    fn send(&self, to: CoreId, message: CoreMessage) {
        self.wire.borrow_mut().push_back((to, message));
    }

    fn output_ready(&self) {}

    fn dial(&self, _: u64, address: SocketAddr) {
        unreachable!("a single node dials nobody, not even {address}");
    }

    fn log(&self, line: &str) {
        eprintln!("{line}");
    }
}

/// Settings that make everything small.
pub fn config(cores: u16) -> ShardConfig {
    let engine = Options { max_value_bytes: 64 << 10, ..Options::tiny() };
    let mut config = ShardConfig::new(cores, 64, NodeId(9), Incarnation(77));
    config.limits.key_bytes = 1024;
    config.limits.value_bytes = 16 << 10;
    ShardConfig { engine, secret: 5, ..config }
}

/// A node whose test moves its bytes and its time.
pub struct TestNode {
    pub sim: Sim,
    pub cores: Vec<NodeCore<CoreEnv>>,
    pub map: PartitionMap,
    base: SimEnv,
    config: ShardConfig,
    wire: Rc<RefCell<VecDeque<(CoreId, CoreMessage)>>>,
    next_conn: std::cell::Cell<u64>,
}

/// One reply, owned.
#[derive(Debug, Clone)]
pub struct Reply {
    pub head: ReplyHead,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn status(&self) -> Status {
        self.head.status
    }
}

impl TestNode {
    pub fn new(cores: u16) -> Self {
        Self::with(config(cores))
    }

    /// A node with these settings; the control core is a guest of core 0.
    pub fn with(config: ShardConfig) -> Self {
        let sim = Sim::new(1);
        let base = sim.node_env("node");
        Self::start(sim, base, config)
    }

    /// Stops the node and starts it again with what its disk has.
    pub fn restart(self) -> Self {
        for core in &self.cores {
            self.sim.block_on(core.shard().expect("a data core").close()).unwrap();
        }
        let TestNode { sim, base, config, cores, .. } = self;
        drop(cores);
        Self::start(sim, base, config)
    }

    fn start(sim: Sim, base: SimEnv, config: ShardConfig) -> Self {
        let wire = Rc::new(RefCell::new(VecDeque::new()));
        let count = config.cores;
        let opened = (0..count).map(|core| {
            let env = CoreEnv { base: base.clone(), core: CoreId(core), wire: Rc::clone(&wire) };
            let dir = PathBuf::from(format!("/data/core-{core:03}"));
            let shard = sim.block_on(Shard::open(env.clone(), &dir, config.clone())).unwrap();
            let control = (core == 0).then(|| {
                let dir = PathBuf::from("/data");
                let stored = sim.block_on(read_keyspaces(&env, &dir)).unwrap();
                let alone = Alone::new(env.clone(), config.node_id, count, dir, stored);
                Control::new(env, count).with_keyspaces(alone)
            });
            NodeCore::new(Some(shard), control)
        });
        let cores = opened.collect();
        let map = PartitionMap::new(config.partitions, count).unwrap();
        TestNode { cores, map, base, config, wire, next_conn: std::cell::Cell::new(1), sim }
    }

    /// The machine.
    pub fn machine(&self) -> &SimEnv {
        &self.base
    }

    /// Asks a core as the control core does; its answers.
    pub fn ask(&self, core: u16, asked: ShardAsk) -> Vec<Answer> {
        let ticket = asked.ticket;
        self.cores[usize::from(core)].core_message(CoreMessage::Ask(asked));
        let mut answers = Vec::new();
        for _ in 0..20 {
            let messages: Vec<_> = self.wire.borrow_mut().drain(..).collect();
            for (to, message) in messages {
                match message {
                    CoreMessage::Control(ControlMessage::Answer { ticket: of, answer })
                        if of == ticket =>
                    {
                        answers.push(answer);
                    }
                    other if to.index() < self.cores.len() => {
                        self.cores[to.index()].core_message(other);
                    }
                    _ => {}
                }
            }
            self.advance(Duration::from_millis(20));
        }
        answers
    }

    /// A key that this core owns.
    pub fn key_of(&self, core: u16, salt: u32) -> Vec<u8> {
        (0_u32..)
            .map(|n| format!("key-{salt}-{n}").into_bytes())
            .find(|key| self.map.core_of_key(key) == CoreId(core))
            .unwrap()
    }

    /// A connection to a core, without HELLO.
    pub fn connect(&self, core: u16) -> Conn<'_> {
        let id = ConnId(self.next_conn.get());
        self.next_conn.set(id.0 + 1);
        let conn = Conn { node: self, core, id, next: std::cell::Cell::new(1) };
        conn.core().connect(id, Door::Clients);
        conn
    }

    /// A connection that said HELLO.
    pub fn client(&self, core: u16) -> Conn<'_> {
        let conn = self.connect(core);
        let hello = Request::Hello(Hello::new(CoreId::ANY, "test"));
        assert_eq!(conn.call(&hello).status(), Status::Ok);
        conn
    }

    /// Delivers what the cores sent each other, once.
    pub fn deliver(&self) -> bool {
        let messages: Vec<_> = self.wire.borrow_mut().drain(..).collect();
        let any = !messages.is_empty();
        for (to, message) in messages {
            let to = if to.index() < self.cores.len() { to.index() } else { 0 };
            self.cores[to].core_message(message);
        }
        any
    }

    /// Lets disk, tasks and messages go on until nothing is left to do.
    pub fn settle(&self) {
        for _ in 0..4 {
            while self.deliver() {}
            self.advance(Duration::from_millis(200));
        }
        while self.deliver() {}
    }

    /// Lets the machine work for a span of time; messages between cores stay where they are.
    pub fn advance(&self, duration: Duration) {
        self.sim.block_on(self.base.sleep(duration));
    }

    /// Lets the cores work and look at the time until clients who wait for the disk are answered.
    pub fn settle_and_tick(&self) {
        for _ in 0..4 {
            self.settle();
            self.tick_after(Duration::from_millis(50));
        }
        self.settle();
    }

    /// Advances time only, and lets every core look at its deadlines.
    pub fn tick_after(&self, duration: Duration) {
        self.advance(duration);
        self.cores.iter().for_each(NodeCore::tick);
    }
}

/// One connection.
pub struct Conn<'n> {
    node: &'n TestNode,
    core: u16,
    pub id: ConnId,
    next: std::cell::Cell<u64>,
}

impl Conn<'_> {
    pub fn core(&self) -> &NodeCore<CoreEnv> {
        &self.node.cores[usize::from(self.core)]
    }

    /// A header with a fresh request number.
    pub fn head(&self) -> RequestHead {
        let id = self.next.get();
        self.next.set(id + 1);
        RequestHead::new(Op::Ping, id)
    }

    pub fn send_bytes(&self, bytes: &[u8]) {
        self.core().receive(self.id, bytes);
    }

    pub fn send(&self, head: &RequestHead, request: &Request<'_>) {
        let mut bytes = Vec::new();
        request.encode(head, None, &mut bytes);
        self.send_bytes(&bytes);
    }

    /// Takes what the connection has to say now.
    pub fn take(&self) -> (Vec<u8>, OutputState) {
        while self.core().next_dirty().is_some() {}
        let mut out = Vec::new();
        let state = self.core().take_output(self.id, &mut out);
        (out, state)
    }

    /// All whole replies there are now.
    pub fn replies(&self) -> Vec<Reply> {
        let (bytes, _) = self.take();
        replies(&bytes)
    }

    /// Sends one request, lets the node work, returns its last reply.
    pub fn call_with(&self, head: &RequestHead, request: &Request<'_>) -> Reply {
        self.send(head, request);
        self.node.settle();
        self.replies().pop().expect("a reply")
    }

    pub fn call(&self, request: &Request<'_>) -> Reply {
        self.call_with(&self.head(), request)
    }

    pub fn put(&self, key: &[u8], value: &[u8]) -> Reply {
        self.put_with(key, value, b"")
    }

    pub fn put_with(&self, key: &[u8], value: &[u8], context: &[u8]) -> Reply {
        self.call(&Request::Put(Put { key, context, value }))
    }

    pub fn get(&self, key: &[u8]) -> Reply {
        self.call(&Request::Get { key })
    }
}

pub fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        match ReplyFrame::parse(bytes, u32::MAX).expect("well-formed reply") {
            Parsed::Frame { frame, consumed } => {
                found.push(Reply { head: frame.head, body: frame.body.to_vec() });
                bytes = &bytes[consumed..];
            }
            Parsed::Incomplete { .. } => panic!("cut reply"),
        }
    }
    found
}

/// The values of a GET reply.
pub fn values(reply: &Reply) -> Vec<Vec<u8>> {
    let versions = coronet_net::codec::Versions::decode(&reply.body).expect("versions");
    versions.iter().map(|version| version.value.to_vec()).collect()
}

/// The context of a GET reply.
pub fn context(reply: &Reply) -> Vec<u8> {
    coronet_net::codec::Versions::decode(&reply.body).expect("versions").context().to_vec()
}
