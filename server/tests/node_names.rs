//! A replica that lost writes of its own: whatever tells it of them, it gives none of their names
//! to another write.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use coronet_ring::causality::object::ObjectRef;
use coronet_ring::coordinate::message::{Answer, Ask, Durability, NewWrite};
use coronet_ring::{Actor, Dot, KeyspaceId, merge};
use coronet_server::node::{ShardAsk, ShardConfig};
use support::{TestNode, config};

/// The incarnation of the nodes here.
const ME: Actor = Actor(77);

fn node(cores: u16) -> TestNode {
    TestNode::with(ShardConfig { clustered: true, ..config(cores) })
}

fn asked(node: &TestNode, key: &[u8], ask: Ask) -> Vec<Answer> {
    let partition = node.map.partition_of(key);
    let (keyspace, key) = (KeyspaceId::DEFAULT, key.to_vec());
    let core = node.map.core_of(partition).0;
    node.ask(core, ShardAsk { ticket: 1, keyspace, partition, key, deadline: None, ask })
}

/// Has a node name a write; the object and the writer's context.
fn named(node: &TestNode, key: &[u8], value: &[u8], context: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (value, context) = (Some(value.to_vec()), context.to_vec());
    let write = NewWrite { value, context, replace: false, token: None };
    let ask = Ask::Name { write, durability: Durability::Buffered, hint_for: None };
    match asked(node, key, ask).into_iter().next() {
        Some(Answer::Named { object, context, .. }) => (object, context),
        other => panic!("{other:?}"),
    }
}

fn merged(node: &TestNode, key: &[u8], object: &[u8]) {
    let ask =
        Ask::Merge { object: object.to_vec(), durability: Durability::Buffered, hint_for: None };
    assert_eq!(asked(node, key, ask), [Answer::Stored]);
}

fn dots(object: &[u8]) -> Vec<Dot> {
    ObjectRef::decode(object).unwrap().siblings().map(|sibling| sibling.dot).collect()
}

fn values(a: &[u8], b: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    merge(Some(a), b, &mut all).unwrap();
    let all = if all.is_empty() { a } else { &all };
    let object = ObjectRef::decode(all).unwrap();
    object.values().map(|sibling| sibling.value.to_vec()).collect()
}

fn renamed(node: &TestNode) -> u64 {
    node.cores.iter().map(|core| core.shard().unwrap().stats().node.new_names).sum()
}

/// What unguarded nodes do: one name, two values, and one of them is gone for good.
#[test]
fn a_node_that_forgot_all_and_hears_nothing_gives_a_name_twice() {
    let (before, after) = (node(1), node(1));
    let (old, _) = named(&before, b"k", b"old", b"");
    let (new, _) = named(&after, b"k", b"new", b"");
    assert_eq!((dots(&old), values(&old, &new).len()), (dots(&new), 1));
}

#[test]
fn what_another_replica_holds_tells_a_node_that_it_forgot() {
    let (before, after) = (node(2), node(2));
    let (one, two) = (before.key_of(0, 1), before.key_of(1, 1));
    let (old, _) = named(&before, &two, b"old", b"");
    let (other, _) = named(&before, &one, b"other", b"");
    // A repair of one key is enough, for all keys, also those of the other core.
    merged(&after, &one, &other);
    let (new, _) = named(&after, &two, b"new", b"");
    assert!(dots(&new).iter().all(|dot| dot.actor != ME), "{:?}", dots(&new));
    assert_eq!(values(&old, &new).len(), 2, "both are there, side by side");
    assert_eq!(renamed(&after), 2, "each core once");
    assert!(after.cores.iter().all(|core| !core.shard().unwrap().keeps_its_name()));
}

#[test]
fn a_client_s_context_tells_a_node_that_it_forgot() {
    let (before, after) = (node(1), node(1));
    named(&before, b"k", b"older", b"");
    let (old, context) = named(&before, b"k", b"old", b"");
    let (new, _) = named(&after, b"k", b"new", &context);
    assert!(dots(&new).iter().all(|dot| dot.actor != ME));
    assert!(values(&old, &new).contains(&b"new".to_vec()));
    assert_eq!(renamed(&after), 1);
}

/// The engine's numbers went on; only the copy of this key is older than what others have.
#[test]
fn one_key_that_went_back_is_noticed_too() {
    let (before, after) = (node(1), node(1));
    let (old, _) = named(&before, b"k", b"old", b"");
    (0..50).for_each(|n| drop(named(&after, format!("k{n}").as_bytes(), b"v", b"")));
    merged(&after, b"k", &old);
    assert_eq!(renamed(&after), 1);
    let (new, _) = named(&after, b"k", b"new", b"");
    assert!(dots(&new).contains(&dots(&old)[0]), "nothing of the old write is lost");
    assert_eq!(dots(&new).len(), 2);
}

/// Repairs, hints and contexts of a node that lost nothing change no name.
#[test]
fn a_node_that_forgot_nothing_keeps_its_name() {
    let node = node(2);
    for core in 0..2 {
        let key = node.key_of(core, 7);
        let (first, context) = named(&node, &key, b"first", b"");
        let (second, later) = named(&node, &key, b"second", &context);
        merged(&node, &key, &first);
        merged(&node, &key, &second);
        let (third, _) = named(&node, &key, b"third", &later);
        assert!(dots(&third).iter().all(|dot| dot.actor == ME));
    }
    assert_eq!(renamed(&node), 0);
    let node = node.restart();
    let key = node.key_of(0, 7);
    let (fourth, _) = named(&node, &key, b"fourth", b"");
    merged(&node, &key, &fourth);
    assert_eq!(renamed(&node), 0, "nor does a restart that lost nothing");
}
