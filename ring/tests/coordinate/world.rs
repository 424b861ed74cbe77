//! A toy cluster: replicas in memory, a network that the test's seed plays with.

use std::collections::BTreeMap;

use coronet_ring::causality::resolve::outline;
use coronet_ring::causality::update::{Change, apply};
use coronet_ring::coordinate::Effect;
use coronet_ring::coordinate::budget::{Budget, Budgets};
use coronet_ring::coordinate::get::{Get, GetRequest};
use coronet_ring::coordinate::list::{List, ListRequest, Page, Placement, Position};
use coronet_ring::coordinate::message::{
    Answer, Ask, Durability, ListedKey, NewWrite, Refusal, digest,
};
use coronet_ring::coordinate::put::{Put, PutRequest};
use coronet_ring::coordinate::quorum::{Mode, Need, Outcome, Peer, Replicas};
use coronet_ring::{
    Actor, Conflicts, Context, Dot, Epoch, Hlc, Merged, NodeId, ObjectRef, PartitionId, merge,
};

pub const DEADLINE: u64 = 1_000_000;
const SECRET: u64 = 7;

/// SplitMix64: the whole randomness of a test.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Chances in percent that a message is lost or comes twice; whether order is random.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub drop: u64,
    pub duplicate: u64,
    pub shuffle: bool,
}

/// A key and the object to merge there.
type Hint = (Vec<u8>, Vec<u8>);

#[derive(Default)]
pub struct Node {
    pub down: bool,
    /// Whether other nodes know that it is down.
    pub known: bool,
    pub store: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Hints kept here, by the node they are for.
    pub hints: BTreeMap<NodeId, Vec<Hint>>,
    issued: u64,
}

impl Node {
    fn merge(&mut self, key: &[u8], object: &[u8]) {
        let mut bytes = Vec::new();
        let merged = merge(self.store.get(key).map(Vec::as_slice), object, &mut bytes).unwrap();
        if merged != Merged::Unchanged {
            self.store.insert(key.to_vec(), bytes);
        }
    }

    fn serve(&mut self, me: NodeId, key: &[u8], ask: Ask) -> Vec<Answer> {
        match ask {
            Ask::Name { write, hint_for, .. } => self.name(me, key, &write, hint_for),
            Ask::Merge { object, hint_for, .. } => {
                self.merge(key, &object);
                self.note(key, hint_for);
                vec![Answer::Stored]
            }
            Ask::Read { inline } => vec![match self.store.get(key) {
                Some(copy) if copy.len() > inline as usize => Answer::Digest(digest(copy)),
                copy => Answer::Copy(copy.cloned()),
            }],
            Ask::List { prefix, after, limit } => vec![self.list(&prefix, after, limit)],
        }
    }

    fn name(
        &mut self,
        me: NodeId,
        key: &[u8],
        write: &NewWrite,
        hint_for: Option<NodeId>,
    ) -> Vec<Answer> {
        let hash = coronet_ring::key_hash(key);
        let context = match write.context.is_empty() {
            true => None,
            false => match Context::decode(&write.context, hash, SECRET) {
                Ok(context) => Some(context),
                Err(_) => return vec![Answer::Refused(Refusal::BadContext)],
            },
        };
        let change = Change {
            value: write.value.as_deref(),
            context: context.as_ref(),
            replace: write.replace,
            token: write.token.as_ref(),
        };
        let issued = Dot { actor: Actor(me.0 as u64), counter: self.issued };
        let mut object = Vec::new();
        let stored = self.store.get(key).map(Vec::as_slice);
        let Ok(applied) = apply(stored, &change, issued, Hlc(1), &mut object) else {
            return vec![Answer::Refused(Refusal::TooManyVersions)];
        };
        self.issued = self.issued.max(applied.dot.counter);
        self.store.insert(key.to_vec(), object.clone());
        self.note(key, hint_for);
        let mut context = Vec::new();
        applied.context.encode(hash, SECRET, &mut context).unwrap();
        let (hlc, versions) = (applied.hlc, applied.versions as u16);
        vec![Answer::Named { object, context, hlc, versions, stored: false }, Answer::Stored]
    }

    fn note(&mut self, key: &[u8], hint_for: Option<NodeId>) {
        if let (Some(target), Some(object)) = (hint_for, self.store.get(key)) {
            let hint = (key.to_vec(), object.clone());
            self.hints.entry(target).or_default().push(hint);
        }
    }

    fn list(&self, prefix: &[u8], after: Option<Vec<u8>>, limit: u32) -> Answer {
        let behind = |key: &Vec<u8>| after.as_ref().is_none_or(|after| key > after);
        let mut rest = self.store.iter().filter(|(key, _)| key.starts_with(prefix) && behind(key));
        let entries = rest.by_ref().take(limit as usize).map(|(key, object)| ListedKey {
            key: key.clone(),
            outline: outline(&ObjectRef::decode(object).unwrap()).unwrap(),
        });
        let entries = entries.collect();
        Answer::Keys { entries, complete: rest.next().is_none() }
    }
}

enum Machine {
    Put(Put),
    Get(Get),
    List(List),
}

enum Message {
    To(NodeId, Ask),
    From(NodeId, Answer),
    Lost(NodeId),
    Repair(NodeId, Vec<u8>),
}

pub struct World {
    pub nodes: BTreeMap<NodeId, Node>,
    pub homes: usize,
    pub rng: Rng,
    pub weather: Weather,
    pub budgets: Budgets,
    /// The coordinating node, which keeps hints.
    pub me: NodeId,
}

impl World {
    /// Nodes 1 to `homes` are the replicas, `extra` more stand in.
    pub fn new(homes: usize, extra: usize, seed: u64) -> World {
        let node = |n| (NodeId(n as u128), Node::default());
        let budget = Budget::new(1_000_000, 1_000_000);
        World {
            nodes: (1..=homes + extra).map(node).collect(),
            homes,
            rng: Rng(seed),
            weather: Weather::default(),
            budgets: Budgets { repair: budget, hedge: budget },
            me: NodeId((homes + extra) as u128),
        }
    }

    pub fn node(&mut self, n: usize) -> &mut Node {
        self.nodes.get_mut(&NodeId(n as u128)).unwrap()
    }

    pub fn set_down(&mut self, n: usize, down: bool, known: bool) {
        let node = self.node(n);
        (node.down, node.known) = (down, known);
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |(id, node): (&NodeId, &Node)| Peer {
            node: *id,
            rack: (id.0 % 3) as u16,
            alive: !(node.down && node.known),
        };
        self.nodes.iter().map(peer).collect()
    }

    pub fn put(&mut self, key: &[u8], request: PutRequest) -> Outcome {
        let (replicas, mut effects) = (self.replicas(PartitionId(0)), Vec::new());
        let put = Put::start(request, &replicas, 0, &mut effects);
        self.run(key, Machine::Put(put), effects)
    }

    pub fn get(&mut self, key: &[u8], request: GetRequest) -> Outcome {
        let (replicas, mut effects) = (self.replicas(PartitionId(0)), Vec::new());
        let get = Get::start(request, &replicas, &mut effects);
        self.run(key, Machine::Get(get), effects)
    }

    pub fn page(&mut self, from: Position, limit: u32, need: Need) -> Outcome {
        let request = ListRequest {
            prefix: b"k".to_vec(),
            from,
            limit,
            need,
            conflicts: Conflicts::Siblings,
            deadline: DEADLINE,
        };
        let mut effects = Vec::new();
        let list = List::start(request, &*self, &mut effects);
        self.run(b"", Machine::List(list), effects)
    }

    /// Plays one request to its end.
    fn run(&mut self, key: &[u8], mut machine: Machine, mut effects: Vec<Effect>) -> Outcome {
        let (mut queue, mut outcome, mut done) = (Vec::new(), None, false);
        loop {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Send { to, ask } => self.post(Message::To(to, ask), &mut queue),
                    Effect::Repair { to, object } => queue.push(Message::Repair(to, object)),
                    Effect::Reply(reply) => {
                        assert!(outcome.replace(reply).is_none(), "one reply only");
                    }
                    Effect::Hint { target, object } => {
                        let me = self.me;
                        let hints = &mut self.nodes.get_mut(&me).unwrap().hints;
                        hints.entry(target).or_default().push((key.to_vec(), object));
                    }
                    Effect::Done => {
                        assert!(!done, "ends once");
                        done = true;
                    }
                }
            }
            if queue.is_empty() && done {
                return outcome.expect("a machine that ended has replied");
            }
            if queue.is_empty() {
                // Everything was delivered or lost; only time goes on.
                let (world, effects) = (&mut *self, &mut effects);
                let now = match &machine {
                    Machine::Put(put) => put.next_tick(),
                    Machine::Get(get) => get.next_tick(),
                    Machine::List(list) => list.next_tick(),
                };
                let now = now.expect("a machine that is not done has a next tick");
                match &mut machine {
                    Machine::Put(put) => put.tick(now, effects),
                    Machine::Get(get) => get.tick(now, &mut world.budgets, effects),
                    Machine::List(list) => list.tick(now, effects),
                }
                continue;
            }
            let at = if self.weather.shuffle { self.rng.below(queue.len()) } else { 0 };
            match queue.remove(at) {
                Message::To(to, ask) => {
                    let node = self.nodes.get_mut(&to).unwrap();
                    if node.down {
                        queue.push(Message::Lost(to));
                        continue;
                    }
                    for answer in node.serve(to, key, ask) {
                        self.post(Message::From(to, answer), &mut queue);
                    }
                }
                Message::Repair(to, object) => {
                    let node = self.nodes.get_mut(&to).unwrap();
                    if !node.down {
                        node.merge(key, &object);
                    }
                }
                Message::From(from, answer) => match &mut machine {
                    Machine::Put(put) => put.on_answer(from, answer, 1, &mut effects),
                    Machine::Get(get) => {
                        get.on_answer(from, answer, 1, &mut self.budgets, &mut effects);
                    }
                    Machine::List(list) => {
                        let partition = PartitionId(0);
                        list.on_answer(from, partition, answer, &*self, &mut effects);
                    }
                },
                Message::Lost(node) => match &mut machine {
                    Machine::Put(put) => put.on_failed(node, 1, &mut effects),
                    Machine::Get(get) => get.on_failed(node, 1, &mut self.budgets, &mut effects),
                    Machine::List(list) => list.on_failed(node, &mut effects),
                },
            }
        }
    }

    fn post(&mut self, message: Message, queue: &mut Vec<Message>) {
        if self.rng.chance(self.weather.drop) {
            return;
        }
        if self.rng.chance(self.weather.duplicate) {
            let copy = match &message {
                Message::To(to, ask) => Message::To(*to, ask.clone()),
                Message::From(from, answer) => Message::From(*from, answer.clone()),
                Message::Lost(node) => Message::Lost(*node),
                Message::Repair(to, object) => Message::Repair(*to, object.clone()),
            };
            queue.push(copy);
        }
        queue.push(message);
    }

    /// Every node is back; hints go where they belong.
    pub fn heal(&mut self) {
        self.weather = Weather::default();
        let mut hints = Vec::new();
        for node in self.nodes.values_mut() {
            (node.down, node.known) = (false, false);
            hints.extend(std::mem::take(&mut node.hints));
        }
        for (target, hints) in hints {
            let node = self.nodes.get_mut(&target).unwrap();
            hints.iter().for_each(|(key, object)| node.merge(key, object));
        }
    }

    /// Lists everything, page by page.
    pub fn list_all(&mut self, limit: u32, need: Need) -> Vec<Vec<u8>> {
        let (mut keys, mut from) = (Vec::new(), Some(Position::default()));
        while let Some(position) = from {
            match self.page(position, limit, need) {
                Outcome::Page(Page { keys: more, next }) => {
                    keys.extend(more.into_iter().map(|live| live.key));
                    from = next;
                }
                other => panic!("{other:?}"),
            }
        }
        keys
    }
}

impl Placement for World {
    fn partitions(&self) -> u32 {
        1
    }

    fn replicas(&self, partition: PartitionId) -> Replicas {
        let mut homes = self.peers();
        let stand_ins = homes.split_off(self.homes);
        Replicas { partition, epoch: Epoch(1), homes, stand_ins }
    }
}

pub fn write(value: &[u8]) -> NewWrite {
    let value = Some(value.to_vec());
    NewWrite { value, context: Vec::new(), replace: false, token: None }
}

pub fn put_request(value: &[u8], need: Need, mode: Mode) -> PutRequest {
    PutRequest {
        write: write(value),
        need,
        racks: 0,
        mode,
        durability: Durability::Durable,
        deadline: DEADLINE,
        patience: DEADLINE / 4,
    }
}

pub fn get_request(need: Need, mode: Mode) -> GetRequest {
    GetRequest { need, mode, monotonic: false, deadline: DEADLINE, hedge_at: DEADLINE / 4 }
}

/// The values of a read, sorted.
pub fn values(outcome: &Outcome) -> Vec<Vec<u8>> {
    let Outcome::Read { object: Some(object), .. } = outcome else { return Vec::new() };
    let object = ObjectRef::decode(object).unwrap();
    let shown = coronet_ring::visible(&object, Conflicts::Siblings);
    let mut values: Vec<_> = shown.iter().map(|sibling| sibling.value.to_vec()).collect();
    values.sort();
    values
}
