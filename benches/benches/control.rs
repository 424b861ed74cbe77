//! How many replica messages one control core moves, and where the time goes: the control cores of
//! three nodes in one thread, their links as byte strings, their data cores answering at once. What
//! is measured is coordination, encoding, checksums and links; not the kernel and not the engines.
//!
//! A PUT of N = 3 is named by the coordinating node's own data core; two asks leave over links and
//! two answers come back: four replica messages at the coordinating control core, four at the other
//! two. A GET with R = 2 asks one other node: two and two. Requests come in batches of 256, as a
//! busy core gets them.
//!
//! After criterion's figures of the whole, a table of each step's time on its node.
#![allow(missing_docs, clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

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
/// Batches that the table of steps is made from.
const SPLIT_BATCHES: u32 = 2_000;

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
                replicas_asked: 3,
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
            while world.carry_links(&mut Spent::default()) {}
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
    fn carry_links(&self, spent: &mut Spent) -> bool {
        let mut any = false;
        for (at, node) in self.nodes.iter().enumerate() {
            while let Some(link) = node.cluster.next_dirty() {
                any = true;
                let mut bytes = Vec::new();
                spent.time(at, Step::End, || node.cluster.take_output(link, &mut bytes));
                let (from, to) = ((link.0 / 10) as usize, (link.0 % 10) as usize);
                let other = if from == at { to } else { from };
                let receive = || self.nodes[other].cluster.receive(link, &bytes);
                spent.time(other, Step::Receive, receive);
            }
        }
        any
    }

    /// Lets the data cores answer at once; returns the replies to clients.
    fn carry_cores(&self, object: &[u8], spent: &mut Spent) -> usize {
        let mut replies = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            let messages = std::mem::take(&mut *node.env.sent.borrow_mut());
            let mut answers = Vec::new();
            for message in messages {
                match message {
                    CoreMessage::Ask(asked) => match asked.ask {
                        Ask::Name { .. } => {
                            let named = Answer::Named {
                                object: object.to_vec(),
                                context: vec![0; 24],
                                hlc: Hlc(1),
                                versions: 1,
                                stored: false,
                            };
                            answers.push((asked.ticket, named));
                            answers.push((asked.ticket, Answer::Stored));
                        }
                        Ask::Read { .. } => {
                            answers.push((asked.ticket, Answer::Copy(Some(object.to_vec()))));
                        }
                        _ => answers.push((asked.ticket, Answer::Stored)),
                    },
                    CoreMessage::Reply { frames, .. } => {
                        replies += usize::from(!black_box(frames).is_empty());
                    }
                    _ => {}
                }
            }
            spent.time(at, Step::Answered, || {
                for (ticket, answer) in answers {
                    node.cluster.answered(ticket, answer);
                }
            });
        }
        replies
    }

    /// A batch of requests from their frames to the last answer.
    fn requests(&self, frames: &[Vec<u8>], object: &[u8], spent: &mut Spent) {
        let node = &self.nodes[0];
        let now = node.env.now();
        let request = |frame: &Vec<u8>| Coordinate {
            origin: CoreId(0),
            conn: ConnId(1),
            arrived: now,
            cost: frame.len(),
            frame: frame.clone(),
        };
        let requests: Vec<_> = frames.iter().map(request).collect();
        spent.time(0, Step::Coordinate, || {
            for request in requests {
                node.cluster.coordinate(request);
            }
        });
        let mut replies = 0;
        while replies < frames.len() || node.cluster.in_flight() > 0 {
            replies += self.carry_cores(object, spent);
            self.carry_links(spent);
        }
        assert_eq!(replies, frames.len());
    }
}

/// What a control core does with a batch.
#[derive(Clone, Copy)]
enum Step {
    /// From clients' frames to machines and their first asks.
    Coordinate,
    /// Data cores' answers: fed to machines, or encoded for the node that asked.
    Answered,
    /// Ending batches: their checksums.
    End,
    /// A link's bytes: checksum, decoding, then machines, or asks to the data cores.
    Receive,
}

const STEPS: [(Step, &str); 4] = [
    (Step::Coordinate, "client frames to asks"),
    (Step::Answered, "data cores' answers, encoded or fed to machines"),
    (Step::End, "ending batches: checksums"),
    (Step::Receive, "link bytes: checksum, decode, machines or asks to data cores"),
];

/// Time by node and step.
#[derive(Default)]
struct Spent {
    counted: bool,
    by: [[Duration; STEPS.len()]; NODES],
}

impl Spent {
    fn time<T>(&mut self, node: usize, step: Step, act: impl FnOnce() -> T) -> T {
        if !self.counted {
            return act();
        }
        let began = Instant::now();
        let out = act();
        self.by[node][step as usize] += began.elapsed();
        out
    }
}

/// Runs batches and prints where their time went. `messages`: replica messages of a request that
/// pass the coordinating control core.
fn split(world: &World, name: &str, frames: &[Vec<u8>], object: &[u8], messages: u32) {
    let mut spent = Spent { counted: true, ..Spent::default() };
    for _ in 0..SPLIT_BATCHES {
        world.requests(frames, object, &mut spent);
    }
    let requests = f64::from(SPLIT_BATCHES) * frames.len() as f64;
    let nanos = |time: Duration| time.as_nanos() as f64 / requests;
    println!("\n{name}: nanoseconds per request");
    println!("{:>12} {:>12}", "coordinator", "others, each");
    for (step, what) in STEPS {
        let [own, others @ ..] = &spent.by;
        let others: Duration = others.iter().map(|steps| steps[step as usize]).sum();
        let others = nanos(others) / (NODES - 1) as f64;
        println!("{:>12.0} {others:>12.0}  {what}", nanos(own[step as usize]));
    }
    let own = nanos(spent.by[0].iter().sum());
    println!(
        "{own:>12.0}               in all: {:.0} requests/s, {:.0} replica messages/s by the core\n",
        1e9 / own,
        1e9 / own * f64::from(messages)
    );
}

fn frames(request: impl Fn(&[u8], &mut RequestHead, &mut Vec<u8>)) -> Vec<Vec<u8>> {
    let frame = |n: usize| {
        let (key, mut frame) = (format!("key-{n:08}"), Vec::new());
        let mut head = RequestHead::new(Op::Get, n as u64);
        request(key.as_bytes(), &mut head, &mut frame);
        frame
    };
    (0..BATCH).map(frame).collect()
}

fn control_core(c: &mut Criterion) {
    let world = World::new();
    for value in [100, 1024] {
        let value = vec![7; value];
        let change = Change { value: Some(&value), context: None, replace: true, token: None };
        let mut object = Vec::new();
        update::apply(None, &change, Dot::new(Actor(1), 0), Hlc(1), &mut object).unwrap();
        let puts = frames(|key, head, into| {
            head.w = Quorum(2);
            let put = Put { key, context: b"", value: &value };
            Request::Put(put).encode(head, None, into);
        });
        let gets = frames(|key, head, into| {
            head.r = Quorum(2);
            Request::Get { key }.encode(head, None, into);
        });
        for (verb, frames, messages) in [("PUT", puts, 4), ("GET", gets, 2)] {
            let name = format!("{verb} {} bytes, N=3, quorum 2", value.len());
            let mut group = c.benchmark_group("three control cores");
            group.throughput(Throughput::Elements(BATCH as u64));
            group.bench_function(&name, |bench| {
                bench.iter(|| world.requests(&frames, &object, &mut Spent::default()));
            });
            group.finish();
            split(&world, &name, &frames, &object, messages);
        }
    }
}

criterion_group!(benches, control_core);
criterion_main!(benches);
