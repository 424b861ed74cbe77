//! Listings show every live key once, while nodes fail.

use coronet_ring::coordinate::list::{Page, Position};
use coronet_ring::coordinate::quorum::{Failure, Mode, Need, Outcome};
use proptest::prelude::*;

use crate::world::{World, put_request};

fn key(n: usize) -> Vec<u8> {
    format!("k{n:03}").into_bytes()
}

/// Fifty keys, each written while another replica is away, every fifth deleted again.
fn filled() -> (World, Vec<Vec<u8>>) {
    let mut world = World::new(3, 0, 1);
    let mut live = Vec::new();
    for n in 0..50 {
        world.set_down(n % 3 + 1, true, true);
        let put = put_request(b"v", Need::Quorum, Mode::Strict);
        let Outcome::Written { context, .. } = world.put(&key(n), put) else { panic!() };
        world.set_down(n % 3 + 1, false, false);
        if n % 5 == 0 {
            world.set_down((n + 1) % 3 + 1, true, true);
            let mut delete = put_request(b"", Need::Quorum, Mode::Strict);
            (delete.write.value, delete.write.context) = (None, context);
            assert!(matches!(world.put(&key(n), delete), Outcome::Written { .. }));
            world.set_down((n + 1) % 3 + 1, false, false);
        } else {
            live.push(key(n));
        }
    }
    (world, live)
}

#[test]
fn every_live_key_comes_once_whatever_the_page_size() {
    for limit in [1, 2, 7, 100] {
        let (mut world, live) = filled();
        assert_eq!(world.list_all(limit, Need::Quorum), live, "limit {limit}");
    }
}

#[test]
fn keys_come_with_the_versions_sizes_and_times_of_a_read() {
    let mut world = World::new(3, 0, 1);
    let put = |value: &[u8]| put_request(value, Need::All, Mode::Strict);
    assert!(matches!(world.put(b"k1", put(b"twelve bytes")), Outcome::Written { .. }));
    assert!(matches!(world.put(b"k2", put(b"left")), Outcome::Written { .. }));
    let Outcome::Written { hlc, .. } = world.put(b"k2", put(b"right")) else { panic!() };
    let Outcome::Page(Page { keys, next: None }) = world.page(Position::default(), 9, Need::Quorum)
    else {
        panic!()
    };
    let told: Vec<_> = keys.iter().map(|live| (&live.key[..], live.versions, live.bytes)).collect();
    assert_eq!(told, [(&b"k1"[..], 1, 12), (&b"k2"[..], 2, 9)]);
    assert_eq!(keys[1].hlc, hlc);
}

#[test]
fn a_dead_node_changes_nothing_as_long_as_r_replicas_live() {
    for (dead, known) in [(1, true), (2, false), (3, true)] {
        let (mut world, live) = filled();
        world.set_down(dead, true, known);
        assert_eq!(world.list_all(7, Need::Quorum), live);
    }
}

#[test]
fn too_few_replicas_are_an_error_not_an_empty_page() {
    let (mut world, _) = filled();
    (1..=2).for_each(|node| world.set_down(node, true, true));
    let unavailable = Failure::Unavailable { alive: 1, need: 2 };
    let page = world.page(Position::default(), 7, Need::Quorum);
    assert_eq!(page, Outcome::Failed(unavailable));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A node dies and another comes back between any two pages.
    #[test]
    fn pages_go_on_while_nodes_fail(seed: u64, limit in 1_u32..20) {
        let (mut world, live) = filled();
        world.rng.0 = seed;
        world.weather.duplicate = 20;
        world.weather.shuffle = true;
        let (mut keys, mut from) = (Vec::new(), Some(Position::default()));
        while let Some(position) = from {
            let (dead, known) = (world.rng.below(3) + 1, world.rng.chance(50));
            (1..=3).for_each(|node| world.set_down(node, node == dead, known));
            let Outcome::Page(Page { keys: more, next }) =
                world.page(position, limit, Need::Quorum)
            else {
                panic!("two of three are always there")
            };
            keys.extend(more.into_iter().map(|live| live.key));
            from = next;
        }
        prop_assert_eq!(keys, live);
    }
}
