//! How many replica messages one control core moves: the control cores of three nodes in one
//! thread, their links as byte strings, their data cores answering at once. What is measured is
//! coordination, encoding, checksums and links; not the kernel and not the engines.
//!
//! A durable PUT with W = 2 of N = 3 sends two asks over links and gets one answer for each; the
//! coordinating node asks its own data core too. So eight messages are encoded or decoded, four on
//! the coordinating control core.
#![allow(missing_docs, clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_net::codec::{Put, Request};
use coronet_net::{Limits, Op, Quorum, RequestHead};
use coronet_ring::causality::update::{self, Change};
use coronet_ring::coordinate::message::{Answer, Ask, Durability};
use coronet_ring::coordinate::quorum::Mode;
use coronet_ring::gossip::member::{Member, Newness, Standing};
use coronet_ring::gossip::state::Founding;
use coronet_ring::{Actor, Dot, Hlc, Incarnation, NodeId, PartitionMap};
use coronet_server::node::{
    Cluster, ClusterConfig, ConnId, Coordinate, CoreId, CoreMessage, Door, NodeEnv,
};
use coronet_sim::{Sim, SimEnv};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const NODES: usize = 3;
const BATCH: usize = 256;
const VALUE: usize = 1024;

#[derive(Clone)]
struct BenchEnv {
    base: SimEnv,
    sent: Rc<RefCell<VecDeque<CoreMessage>>>,
    dialed: Rc<RefCell<Vec<(u64, SocketAddr)>>>,
}

coronet_sim::delegate_env!(BenchEnv, base);

impl NodeEnv for BenchEnv {
    fn core(&self) -> CoreId {
        CoreId(1)
    }

    fn send(&self, _: CoreId, message: CoreMessage) {
        self.sent.borrow_mut().push_back(message);
    }

    fn output_ready(&self) {}

    fn dial(&self, ticket: u64, address: SocketAddr) {
        self.dialed.borrow_mut().push((ticket, address));
    }

    fn log(&self, _: &str) {}
}

struct Node {
    env: BenchEnv,
    cluster: Cluster<BenchEnv>,
}

/// Three linked nodes. Connection `10 * a + b` is the one `a` dialed to `b`, at both ends.
struct World {
    sim: Sim,
    nodes: Vec<Node>,
}

fn conn(from: usize, to: usize) -> ConnId {
    ConnId((10 * from + to) as u64)
}

impl World {
    fn new() -> World {
        let sim = Sim::new(1);
        let address = |index: usize| format!("127.0.0.1:{}", 1000 + index);
        let addresses: BTreeSet<String> = (0..NODES).map(address).collect();
        let founding = Founding { cluster: 1, partitions: 256, depth: 3, addresses };
        let nodes = (0..NODES).map(|index| {
            let base = sim.node_env(&format!("node-{index}"));
            let env = BenchEnv { base, sent: Rc::default(), dialed: Rc::default() };
            let id = NodeId(index as u128 + 1);
            let me = Member {
                id,
                newness: Newness { generation: 1, ..Newness::default() },
                incarnation: Incarnation(index as u64 + 1),
                standing: Standing::Up,
                client_address: address(index),
                peer_address: address(index),
                rack: format!("rack-{index}"),
                weight: 1,
                cores: 1,
            };
            let config = ClusterConfig {
                founding: founding.clone(),
                me,
                stored: None,
                replicas: 3,
                mode: Mode::Strict,
                durability: Durability::Durable,
                blind_replaces: true,
                dir: "/node".into(),
                secret: 1,
                limits: Limits::default(),
            };
            let map = PartitionMap::new(256, 1).unwrap();
            Node { cluster: Cluster::new(env.clone(), config, map).unwrap(), env }
        });
        let world = World { nodes: nodes.collect(), sim };
        for _ in 0..100 {
            world.nodes.iter().for_each(|node| node.cluster.tick(true));
            world.connect();
            while world.carry_links() {}
            let sleep = world.nodes[0].env.base.sleep(Duration::from_millis(50));
            world.sim.block_on(sleep);
        }
        world
    }

    fn connect(&self) {
        for (from, node) in self.nodes.iter().enumerate() {
            for (ticket, address) in node.env.dialed.borrow_mut().drain(..) {
                let to = usize::from(address.port()) - 1000;
                self.nodes[to].cluster.connect(conn(from, to), Door::Peers);
                node.cluster.connect(conn(from, to), Door::Dialed(ticket));
            }
        }
    }

    /// Carries what waits on the links; whether there was anything.
    fn carry_links(&self) -> bool {
        let mut any = false;
        let mut bytes = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            while let Some(link) = node.cluster.next_dirty() {
                any = true;
                bytes.clear();
                node.cluster.take_output(link, &mut bytes);
                let (from, to) = ((link.0 / 10) as usize, (link.0 % 10) as usize);
                let other = if from == at { to } else { from };
                self.nodes[other].cluster.receive(link, &bytes);
            }
        }
        any
    }

    /// Lets the data cores answer at once; returns the replies to clients.
    fn carry_cores(&self, object: &[u8]) -> usize {
        let mut replies = 0;
        for node in &self.nodes {
            loop {
                let message = node.env.sent.borrow_mut().pop_front();
                match message {
                    Some(CoreMessage::Ask(asked)) => {
                        if matches!(asked.ask, Ask::Name { .. }) {
                            let named = Answer::Named {
                                object: object.to_vec(),
                                context: vec![0; 24],
                                hlc: Hlc(1),
                                versions: 1,
                                stored: false,
                            };
                            node.cluster.answered(asked.ticket, named);
                        }
                        node.cluster.answered(asked.ticket, Answer::Stored);
                    }
                    Some(CoreMessage::Reply { frames, .. }) => {
                        replies += usize::from(!black_box(frames).is_empty());
                    }
                    Some(_) => {}
                    None => break,
                }
            }
        }
        replies
    }

    fn puts(&self, frames: &[Vec<u8>], object: &[u8]) {
        let node = &self.nodes[0];
        for frame in frames {
            node.cluster.coordinate(Coordinate {
                origin: CoreId(0),
                conn: ConnId(1),
                arrived: node.env.now(),
                cost: frame.len(),
                frame: frame.clone(),
            });
        }
        let mut replies = 0;
        while replies < frames.len() || node.cluster.in_flight() > 0 {
            replies += self.carry_cores(object);
            self.carry_links();
        }
        assert_eq!(replies, frames.len());
    }
}

fn control_core(c: &mut Criterion) {
    let world = World::new();
    let frames: Vec<Vec<u8>> = (0..BATCH)
        .map(|n| {
            let key = format!("key-{n:08}");
            let mut head = RequestHead::new(Op::Put, n as u64);
            head.w = Quorum(2);
            let put = Put { key: key.as_bytes(), context: b"", value: &[7; VALUE] };
            let mut frame = Vec::new();
            Request::Put(put).encode(&head, None, &mut frame);
            frame
        })
        .collect();
    let change = Change { value: Some(&[7; VALUE]), context: None, replace: true, token: None };
    let mut object = Vec::new();
    update::apply(None, &change, Dot::new(Actor(1), 0), Hlc(1), &mut object).unwrap();
    world.puts(&frames, &object);
    let mut group = c.benchmark_group("control core");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("PUT 1 KiB, N=3, W=2, all three control cores", |bench| {
        bench.iter(|| world.puts(&frames, &object));
    });
    group.finish();
}

criterion_group!(benches, control_core);
criterion_main!(benches);
