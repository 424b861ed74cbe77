//! Nodes that gossip over a lossy toy network come to know the same, in few rounds.
#![allow(clippy::unwrap_used)] // in helpers: a failure is the test's failure

use coronet_ring::gossip::codec::Unreadable;
use coronet_ring::gossip::detector::Detector;
use coronet_ring::gossip::keyspace::{Keyspace, KeyspaceError, KeyspaceId};
use coronet_ring::gossip::member::{Member, Newness, Standing};
use coronet_ring::gossip::message::{Body, ClusterName, Delta, Digest, Message};
use coronet_ring::gossip::snapshot::SnapshotError;
use coronet_ring::gossip::state::{Event, Founding, Gossip, MAX_DELTA, Target};
use coronet_ring::{Conflicts, Epoch, Incarnation, NodeId, Table};
use proptest::prelude::*;

/// SplitMix64: the whole randomness of a test.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn address(n: usize) -> String {
    format!("10.0.0.{n}:4721")
}

fn member(n: usize) -> Member {
    Member {
        id: NodeId(n as u128 + 1),
        newness: Newness { generation: 100, version: 1, beat: 0 },
        incarnation: Incarnation(n as u64),
        standing: Standing::Up,
        client_address: format!("10.0.0.{n}:4720"),
        peer_address: address(n),
        rack: format!("r{}", n % 3),
        weight: 1,
        cores: 4,
    }
}

fn founding(seeds: usize) -> Founding {
    let addresses = (0..seeds).map(address).collect();
    Founding { cluster: 42, partitions: 64, depth: 3, addresses }
}

/// Nodes that gossip, as they hear of each other: the interval, and what a detector expects.
const INTERVAL: u64 = 300_000;

/// Every node's detector, fed with what its gossip brings; `now` counts rounds.
struct Watchers {
    detectors: Vec<Detector>,
    now: u64,
}

impl Watchers {
    fn new(count: usize) -> Self {
        Self { detectors: vec![Detector::new(INTERVAL * 2); count], now: 0 }
    }

    /// A round of all nodes but the dead one, node after node; returns how often word came of a
    /// node that was suspected.
    fn round(&mut self, cluster: &mut Cluster, dead: Option<usize>) -> usize {
        let (mut suspected, count) = (0, cluster.nodes.len() as u64);
        for from in (0..cluster.nodes.len()).filter(|from| Some(*from) != dead) {
            // Nodes take their turns one after the other, evenly within the interval.
            let now = self.now * INTERVAL + from as u64 * INTERVAL / count;
            self.detectors[from].tick(now);
            cluster.nodes[from].beat();
            let random = cluster.rng.next();
            for (target, message) in cluster.nodes[from].round(random) {
                let Target::Node(id) = target else { continue };
                let to = id.0 as usize - 1;
                if Some(to) != dead {
                    suspected += self.exchange(cluster, from, to, message, now);
                }
            }
        }
        self.now += 1;
        suspected
    }

    fn exchange(
        &mut self,
        cluster: &mut Cluster,
        mut from: usize,
        mut to: usize,
        message: Message,
        now: u64,
    ) -> usize {
        let (mut next, mut suspected) = (Some(message), 0);
        while let Some(message) = next {
            let (random, mut events) = (cluster.rng.next(), Vec::new());
            next = cluster.nodes[to].on_message(message, random, &mut events);
            for event in events {
                let (Event::Beat(id) | Event::Member(id)) = event else { continue };
                let known = self.detectors[to].phi(id, now).is_some();
                suspected += usize::from(known && self.detectors[to].is_suspect(id, now));
                self.detectors[to].heard(id, now);
            }
            (from, to) = (to, from);
        }
        let _ = from;
        suspected
    }

    /// How many of the living suspect a node.
    fn suspecting(&self, node: usize) -> usize {
        let (id, now) = (NodeId(node as u128 + 1), self.now * INTERVAL);
        let others = self.detectors.iter().enumerate().filter(|(n, _)| *n != node);
        others.filter(|(_, detector)| detector.is_suspect(id, now)).count()
    }
}

/// Hundreds of nodes hear of each other through others. Nobody who lives is suspected for that; who
/// dies is suspected by all.
#[test]
fn hundreds_of_nodes_suspect_the_dead_and_nobody_else() {
    const COUNT: usize = 250;
    let mut cluster = Cluster::new(COUNT, 1, 17, 0);
    cluster.rounds_until_agreed(40);
    let mut watchers = Watchers::new(COUNT);
    for _ in 0..10 {
        watchers.round(&mut cluster, None);
    }
    let suspected: usize = (0..70).map(|_| watchers.round(&mut cluster, None)).sum();
    assert_eq!(suspected, 0, "living nodes were suspected");
    assert_eq!(watchers.suspecting(7), 0);
    let within = (1..30).find(|_| {
        watchers.round(&mut cluster, Some(7));
        watchers.suspecting(7) == COUNT - 1
    });
    println!("the dead node is suspected by all after {within:?} rounds");
    assert!(within.is_some(), "a dead node is trusted");
}

fn keyspace(name: &str) -> Keyspace {
    Keyspace {
        name: name.to_owned(),
        version: 0,
        author: NodeId(0),
        dropped: false,
        n: 3,
        r: 2,
        w: 2,
        conflicts: Conflicts::Siblings,
        options: vec![("compression".to_owned(), "lz4".to_owned())],
    }
}

struct Cluster {
    nodes: Vec<Gossip>,
    rng: Rng,
    drop_percent: u64,
    events: Vec<Event>,
    largest: usize,
}

impl Cluster {
    fn new(count: usize, seeds: usize, seed: u64, drop_percent: u64) -> Self {
        let node = |n| Gossip::new(member(n), founding(seeds));
        let nodes = (0..count).map(node).collect();
        Self { nodes, rng: Rng(seed), drop_percent, events: Vec::new(), largest: 0 }
    }

    /// Every node beats and holds one exchange; messages may be lost, at any step.
    fn round(&mut self) {
        for from in 0..self.nodes.len() {
            self.nodes[from].beat();
            let random = self.rng.next();
            for (target, message) in self.nodes[from].round(random) {
                let to = match target {
                    Target::Node(id) => id.0 as usize - 1,
                    Target::Seed(seed) => {
                        (0..self.nodes.len()).find(|n| address(*n) == seed).unwrap()
                    }
                };
                self.exchange(from, to, message);
            }
        }
    }

    fn exchange(&mut self, mut from: usize, mut to: usize, message: Message) {
        let mut next = Some(message);
        while let Some(message) = next {
            if self.rng.next() % 100 < self.drop_percent {
                return;
            }
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            self.largest = self.largest.max(bytes.len());
            let heard = Message::decode(&bytes).unwrap();
            assert_eq!(heard, message);
            let random = self.rng.next();
            next = self.nodes[to].on_message(heard, random, &mut self.events);
            (from, to) = (to, from);
        }
        let _ = from;
    }

    /// Whether all know the same descriptions (heartbeats never stand still).
    fn agrees(&self) -> bool {
        let view = |node: &Gossip| -> Vec<Member> {
            let quiet =
                |m: &Member| Member { newness: Newness { beat: 0, ..m.newness }, ..m.clone() };
            node.members().map(quiet).collect()
        };
        let keyspaces = |node: &Gossip| node.keyspaces().cloned().collect::<Vec<_>>();
        let first = &self.nodes[0];
        first.members().count() == self.nodes.len()
            && first.table().is_some()
            && self.nodes.iter().all(|node| {
                view(node) == view(first)
                    && keyspaces(node) == keyspaces(first)
                    && node.table() == first.table()
            })
    }

    fn rounds_until_agreed(&mut self, most: usize) -> usize {
        for round in 0..most {
            if self.agrees() {
                return round;
            }
            self.round();
        }
        panic!("no agreement after {most} rounds");
    }
}

/// Push-pull spreads in about log2 N rounds; bounds are generous, seeds are fixed.
#[test]
fn any_number_of_nodes_agrees_within_a_few_rounds_despite_losses() {
    for (count, drop, most) in [(1, 0, 1), (3, 0, 6), (3, 30, 15), (30, 0, 12), (100, 20, 20)] {
        let mut cluster = Cluster::new(count, count.min(3), 7, drop);
        let rounds = cluster.rounds_until_agreed(most);
        println!("{count} nodes, {drop} % lost: {rounds} rounds");
        let conflict = |event: &Event| matches!(event, Event::TableConflict(_) | Event::Foreign(_));
        assert!(!cluster.events.iter().any(conflict));
    }
}

/// Rounds grow with the logarithm of the number of nodes.
#[test]
fn hundreds_of_nodes_agree_on_members_and_placement() {
    for (count, drop, most) in [(300, 10, 25), (1_000, 0, 30)] {
        let mut cluster = Cluster::new(count, 5, 13, drop);
        let rounds = cluster.rounds_until_agreed(most);
        println!("{count} nodes, {drop} % lost: {rounds} rounds");
        let nodes = cluster.nodes.iter();
        assert!(nodes.clone().all(|node| node.table() == cluster.nodes[0].table()));
        assert_eq!(nodes.map(|node| node.members().count()).min(), Some(count));
    }
}

#[test]
fn news_of_one_node_reach_all_and_heartbeats_go_on() {
    let mut cluster = Cluster::new(30, 3, 11, 10);
    cluster.rounds_until_agreed(20);
    cluster.nodes[17].describe(|me| me.weight = 5);
    cluster.nodes[4].define(keyspace("users")).unwrap();
    assert!(cluster.rounds_until_agreed(15) > 0);
    assert_eq!(cluster.nodes[3].member(NodeId(18)).unwrap().weight, 5);
    assert!(cluster.nodes[29].keyspace(KeyspaceId::of("users")).is_some());
    let beat = |cluster: &Cluster| cluster.nodes[0].member(NodeId(18)).unwrap().newness.beat;
    let before = beat(&cluster);
    (0..10).for_each(|_| cluster.round());
    assert!(beat(&cluster) > before);
}

/// Founders compute the first placement alone and all the same; later nodes learn it.
#[test]
fn the_first_placement_is_the_founders_and_a_newer_one_replaces_it_everywhere() {
    let mut cluster = Cluster::new(5, 3, 3, 0);
    cluster.rounds_until_agreed(10);
    let table = cluster.nodes[4].table().unwrap().clone();
    let ids: Vec<_> = table.nodes().iter().map(|node| node.id.0).collect();
    assert_eq!((table.epoch(), ids), (Epoch(1), vec![1, 2, 3]));
    let next = table.change(Epoch(2), table.nodes()[..2].to_vec()).unwrap();
    assert!(cluster.nodes[0].adopt_table(next.clone()));
    assert!(!cluster.nodes[0].adopt_table(table));
    cluster.rounds_until_agreed(10);
    assert!(cluster.nodes.iter().all(|node| node.table() == Some(&next)));
}

#[test]
fn concurrent_definitions_end_as_one_everywhere() {
    let mut cluster = Cluster::new(10, 3, 5, 20);
    cluster.rounds_until_agreed(20);
    cluster.nodes[2].define(Keyspace { r: 1, ..keyspace("k") }).unwrap();
    cluster.nodes[8].define(Keyspace { r: 3, ..keyspace("k") }).unwrap();
    cluster.rounds_until_agreed(20);
    let chosen = cluster.nodes[0].keyspace(KeyspaceId::of("k")).unwrap();
    assert_eq!((chosen.r, chosen.author), (3, NodeId(9)), "the author with the higher id");
    cluster.nodes[1].define(Keyspace { dropped: true, ..keyspace("k") }).unwrap();
    cluster.rounds_until_agreed(20);
    assert_eq!(cluster.nodes[5].keyspaces().count(), 0);
}

#[test]
fn impossible_keyspaces_are_refused() {
    let mut node = Gossip::new(member(0), founding(1));
    let refused = |k: Keyspace| k.check().err();
    assert_eq!(refused(keyspace("")), Some(KeyspaceError::Name));
    assert_eq!(refused(Keyspace { w: 4, ..keyspace("k") }), Some(KeyspaceError::Quorum));
    assert_eq!(refused(Keyspace { n: 17, ..keyspace("k") }), Some(KeyspaceError::Quorum));
    let unsorted = vec![("b".into(), String::new()), ("a".into(), String::new())];
    assert_eq!(
        node.define(Keyspace { options: unsorted, ..keyspace("k") }),
        Err(KeyspaceError::Options)
    );
}

#[test]
fn another_cluster_or_another_founding_is_not_listened_to() {
    let mut node = Gossip::new(member(0), founding(2));
    let stranger = Gossip::new(member(1), Founding { cluster: 43, ..founding(2) });
    let misfounded = Gossip::new(member(2), Founding { depth: 2, ..founding(2) });
    for other in [stranger, misfounded] {
        let (_, message) = other.round(0).remove(0);
        let (from, mut events) = (message.from, Vec::new());
        assert_eq!(node.on_message(message, 0, &mut events), None);
        assert_eq!(events, [Event::Foreign(from)]);
    }
    assert_eq!(node.members().count(), 1);
}

#[test]
fn two_placements_of_one_epoch_are_noticed() {
    let mut cluster = Cluster::new(3, 3, 3, 0);
    cluster.rounds_until_agreed(10);
    let table = cluster.nodes[0].table().unwrap().clone();
    for (node, keep) in [(0, 0..2), (1, 1..3)] {
        let next = table.change(Epoch(2), table.nodes()[keep].to_vec()).unwrap();
        cluster.nodes[node].adopt_table(next);
    }
    (0..5).for_each(|_| cluster.round());
    assert!(cluster.events.iter().any(|event| matches!(event, Event::TableConflict(_))));
}

/// A restart with a clock that went back must not be taken for old news.
#[test]
fn a_restarted_node_is_believed_even_when_its_clock_went_back() {
    let mut cluster = Cluster::new(5, 3, 9, 0);
    cluster.rounds_until_agreed(10);
    cluster.nodes[2].describe(|me| me.weight = 9);
    cluster.rounds_until_agreed(10);
    let again = Member { newness: Newness { generation: 50, version: 1, beat: 0 }, ..member(2) };
    cluster.nodes[2] = Gossip::new(again, founding(3));
    cluster.rounds_until_agreed(15);
    assert_eq!(cluster.nodes[0].member(NodeId(3)).unwrap().weight, 1);
}

#[test]
fn impossible_news_are_ignored() {
    let mut cluster = Cluster::new(2, 2, 9, 0);
    cluster.rounds_until_agreed(10);
    let far = Newness { generation: 1 << 60, version: 1, beat: 0 };
    let lie = Member { newness: far, weight: 77, ..member(1) };
    let table = Some(vec![1, 2, 3]);
    let delta = Delta { members: vec![lie], table, ..Delta::default() };
    let from = NodeId(9);
    let message = Message { cluster: founding(2).name(), from, body: Body::Delta(delta) };
    let mut events = Vec::new();
    assert_eq!(cluster.nodes[0].on_message(message, 0, &mut events), None);
    assert_eq!(events, [Event::Implausible(from), Event::Implausible(from)]);
    assert_eq!(cluster.nodes[0].member(NodeId(2)).unwrap().weight, 1);
}

#[test]
fn messages_stay_small_and_what_did_not_fit_follows() {
    let mut cluster = Cluster::new(2, 2, 21, 0);
    for n in 0..600 {
        let options = (0..4).map(|o| (format!("{o}"), "x".repeat(60))).collect();
        cluster.nodes[0]
            .define(Keyspace { options, ..keyspace(&format!("keyspace-{n}")) })
            .unwrap();
    }
    assert!(cluster.rounds_until_agreed(30) > 2, "more than one message was needed");
    assert!(cluster.largest < 2 * MAX_DELTA, "{}", cluster.largest);
}

fn newness() -> impl Strategy<Value = Newness> {
    any::<(u64, u64, u64)>().prop_map(|(generation, version, beat)| Newness {
        generation,
        version,
        beat,
    })
}

fn digest() -> impl Strategy<Value = Digest> {
    let members = prop::collection::vec((any::<u128>().prop_map(NodeId), newness()), 0..5);
    let keyspaces = prop::collection::vec(any::<(u32, u64, u128)>(), 0..5);
    (members, any::<bool>(), keyspaces, any::<(u64, u64)>()).prop_map(
        |(members, complete, k, t)| {
            let keyspaces =
                k.into_iter().map(|(id, v, a)| (KeyspaceId(id), v, NodeId(a))).collect();
            Digest { members, complete, keyspaces, table: Epoch(t.0), table_check: t.1 }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let delta = (
        prop::collection::vec((0_usize..9, newness()), 0..4),
        prop::collection::vec((any::<u128>().prop_map(NodeId), newness()), 0..4),
        prop::collection::vec("[a-z]{1,9}", 0..3),
        prop::option::of(prop::collection::vec(any::<u8>(), 1..50)),
        prop::option::of(digest()),
    )
        .prop_map(|(members, beats, names, table, want)| {
            let members =
                members.into_iter().map(|(n, newness)| Member { newness, ..member(n) }).collect();
            let keyspaces = names.iter().map(|name| keyspace(name)).collect();
            Body::Delta(Delta { members, beats, keyspaces, table, want })
        });
    let body = prop_oneof![digest().prop_map(Body::Digest), delta];
    (body, any::<(u128, u64, u128)>()).prop_map(|(body, (id, founding, from))| Message {
        cluster: ClusterName { id, founding },
        from: NodeId(from),
        body,
    })
}

proptest! {
    #[test]
    fn messages_round_trip_and_cuts_are_noticed(message in message(), at: prop::sample::Index) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        prop_assert_eq!(Message::decode(&bytes), Some(message));
        prop_assert_eq!(Message::decode(&bytes[..at.index(bytes.len())]), None);
        bytes.push(0);
        prop_assert_eq!(Message::decode(&bytes), None);
    }

    #[test]
    fn damaged_and_random_bytes_never_panic(
        message in message(),
        at: prop::sample::Index,
        to: u8,
        random in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = to;
        for bytes in [bytes, random] {
            if let Some(message) = Message::decode(&bytes) {
                let mut again = Vec::new();
                message.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}

/// The bytes of format 1, fixed for ever.
#[test]
fn golden() {
    let digest = Digest {
        members: vec![(NodeId(5), Newness { generation: 1, version: 2, beat: 3 })],
        complete: true,
        keyspaces: vec![],
        table: Epoch(4),
        table_check: 6,
    };
    let cluster = ClusterName { id: 7, founding: 8 };
    let message = Message { cluster, from: NodeId(9), body: Body::Digest(digest) };
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let wide = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let number = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
    let expected = [
        &[1, 1][..],
        &wide(7),
        &number(8),
        &wide(9),
        &[1],
        &number(4),
        &number(6),
        &[1, 0],
        &wide(5),
        &number(1),
        &number(2),
        &number(3),
        &[0, 0],
    ]
    .concat();
    assert_eq!(bytes, expected);
}

/// All nodes stop and start again with what they stored.
#[test]
fn a_whole_cluster_restarts_with_its_keyspaces_and_placement() {
    let mut cluster = Cluster::new(5, 3, 3, 0);
    cluster.rounds_until_agreed(10);
    cluster.nodes[3].define(keyspace("kept")).unwrap();
    cluster.nodes[1].define(Keyspace { dropped: true, ..keyspace("gone") }).unwrap();
    let table = cluster.nodes[0].table().unwrap().clone();
    cluster.nodes[0].adopt_table(table.change(Epoch(7), table.nodes()[..2].to_vec()).unwrap());
    cluster.rounds_until_agreed(10);
    for n in 0..5 {
        let mut stored = Vec::new();
        cluster.nodes[n].snapshot(&mut stored);
        let again =
            Member { newness: Newness { generation: 200, version: 1, beat: 0 }, ..member(n) };
        let cut = Gossip::restore(again.clone(), founding(3), &stored[1..]);
        assert_eq!(cut.err(), Some(Unreadable::Damaged.into()));
        let node = Gossip::restore(again.clone(), founding(3), &stored).unwrap();
        assert_eq!(node.table().map(Table::epoch), Some(Epoch(7)));
        assert_eq!(node.member(NodeId(n as u128 + 1)), Some(&again), "it speaks for itself anew");
        let other = Gossip::restore(again, founding(2), &stored);
        assert_eq!(other.err(), Some(SnapshotError::OtherCluster));
        cluster.nodes[n] = node;
    }
    cluster.rounds_until_agreed(10);
    let names: Vec<_> = cluster.nodes[4].keyspaces().map(|k| k.name.as_str()).collect();
    assert_eq!(names, ["kept"]);
}

/// A founder of one would compute its first table anew, from what it is now.
#[test]
fn a_stored_table_is_kept_over_founding() {
    let node = Gossip::new(member(0), founding(1));
    let table = node.table().unwrap().clone();
    let mut stored = Vec::new();
    node.snapshot(&mut stored);
    let changed = Member { rack: "elsewhere".to_owned(), ..member(0) };
    let node = Gossip::restore(changed, founding(1), &stored).unwrap();
    assert_eq!(node.table(), Some(&table));
}
