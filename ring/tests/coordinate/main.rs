//! Coordinators over a toy cluster: every combination of N, R, W and dead nodes, and a network
//! that loses, doubles and reorders.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in helpers: a failure is the test's failure

mod listing;
mod timing;
mod world;

use coronet_ring::coordinate::message::Refusal;
use coronet_ring::coordinate::quorum::{Failure, Mode, Need, Outcome};
use proptest::prelude::*;
use world::{Weather, World, get_request, put_request, values};

const KEY: &[u8] = b"key";

fn written(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Written { .. })
}

/// All R, W and numbers of dead replicas for N = 1, 3, 5; deaths known before or noticed on the way.
#[test]
fn every_combination_of_quorums_and_dead_replicas() {
    for n in [1, 3, 5] {
        for w in 1..=n {
            for r in 1..=n {
                for dead in 0..=n {
                    for known in [true, false] {
                        strict(n, w, r, dead, known);
                        sloppy(n, w, r, dead, known);
                    }
                }
            }
        }
    }
}

fn strict(n: usize, w: usize, r: usize, dead: usize, known: bool) {
    let case = format!("strict N={n} W={w} R={r} dead={dead} known={known}");
    let mut world = World::new(n, n, 1);
    (1..=dead).for_each(|node| world.set_down(node, true, known));
    let outcome = world.put(KEY, put_request(b"v", Need::Count(w as u8), Mode::Strict));
    let stored = world.nodes.values().filter(|node| !node.store.is_empty()).count();
    match &outcome {
        Outcome::Written { proof, .. } => {
            assert!(n - dead >= w, "{case}");
            assert!(usize::from(proof.acknowledgements) >= w && !proof.sloppy, "{case}: {proof:?}");
            assert_eq!(stored, n - dead, "{case}: the rest goes on in the background");
        }
        Outcome::Failed(Failure::Unavailable { alive, need }) => {
            assert!(n - dead < w, "{case}");
            assert_eq!(
                (usize::from(*alive), usize::from(*need), stored),
                (n - dead, w, 0),
                "{case}"
            );
        }
        Outcome::Failed(Failure::InDoubt { acknowledgements, .. }) => {
            // Without a token a naming request that got lost may have been applied.
            assert!(!known && usize::from(*acknowledgements) < w, "{case}");
        }
        other => panic!("{case}: {other:?}"),
    }
    let read = world.get(KEY, get_request(Need::Count(r as u8), Mode::Strict));
    match &read {
        Outcome::Read { proof, .. } => {
            assert!(n - dead >= r, "{case}");
            assert!(usize::from(proof.acknowledgements) >= r, "{case}: {proof:?}");
            if written(&outcome) {
                assert_eq!(values(&read), [b"v".to_vec()], "{case}: all alive ones have it");
            }
        }
        Outcome::Failed(Failure::Unavailable { .. } | Failure::TooFewAnswers { .. }) => {
            assert!(n - dead < r, "{case}: {read:?}");
        }
        other => panic!("{case}: {other:?}"),
    }
    // Now the others are dead: with R + W > N what was acknowledged is still read.
    world.nodes.values_mut().for_each(|node| (node.down, node.known) = (false, false));
    (1..=n - r).for_each(|node| world.set_down(node + dead.min(r), true, known));
    let read = world.get(KEY, get_request(Need::Count(r as u8), Mode::Strict));
    if written(&outcome) && r + w > n {
        assert_eq!(values(&read), [b"v".to_vec()], "{case}: {read:?}");
    }
}

fn sloppy(n: usize, w: usize, r: usize, dead: usize, known: bool) {
    let case = format!("sloppy N={n} W={w} R={r} dead={dead} known={known}");
    let mut world = World::new(n, n, 1);
    (1..=dead).for_each(|node| world.set_down(node, true, known));
    let mut request = put_request(b"v", Need::Count(w as u8), Mode::Sloppy);
    request.write.token = Some([1; 16]);
    let outcome = world.put(KEY, request);
    let Outcome::Written { proof, .. } = &outcome else { panic!("{case}: {outcome:?}") };
    assert!(usize::from(proof.acknowledgements) >= w, "{case}");
    assert!(dead < n || proof.sloppy, "{case}: nobody but stand-ins was there");
    let stored = world.nodes.values().filter(|node| !node.store.is_empty()).count();
    assert_eq!(stored, n, "{case}: a stand-in for each dead replica");
    let read = world.get(KEY, get_request(Need::Count(r as u8), Mode::Sloppy));
    assert_eq!(values(&read), [b"v".to_vec()], "{case}: {read:?}");
    world.heal();
    let homes = world.nodes.values().take(n).filter(|node| !node.store.is_empty()).count();
    assert_eq!(homes, n, "{case}: hints bring every home up to date");
}

#[test]
fn a_quorum_that_does_not_fit_is_refused() {
    for (nodes, asked) in [(1, 0), (1, 2), (2, 3), (3, 0), (3, 4), (5, 6), (5, 255)] {
        for mode in [Mode::Strict, Mode::Sloppy] {
            // Stand-ins make no quorum reachable that is above N.
            let mut world = World::new(nodes, 2, 1);
            let (need, replicas) = (Need::Count(asked), nodes as u8);
            let bad = Outcome::Failed(Failure::BadQuorum { asked, replicas });
            assert_eq!(world.put(KEY, put_request(b"v", need, mode)), bad);
            assert_eq!(world.get(KEY, get_request(need, mode)), bad);
            let stored = world.nodes.values().filter(|node| !node.store.is_empty()).count();
            assert_eq!(stored, 0, "nothing was written");
        }
    }
}

/// Before the nodes have met nobody knows where a key belongs: that passes, and is no mistake of
/// the client's.
#[test]
fn without_a_placement_requests_are_refused_for_now() {
    for need in [Need::One, Need::Quorum, Need::All, Need::Count(1)] {
        let mut world = World::new(0, 0, 1);
        let refused = Outcome::Failed(Failure::Unavailable { alive: 0, need: 1 });
        assert_eq!(world.put(KEY, put_request(b"v", need, Mode::Sloppy)), refused);
        assert_eq!(world.get(KEY, get_request(need, Mode::Sloppy)), refused);
    }
}

#[test]
fn acknowledgements_can_be_asked_from_distinct_racks() {
    let mut world = World::new(3, 0, 1);
    let mut request = put_request(b"v", Need::Count(2), Mode::Strict);
    request.racks = 3;
    let Outcome::Written { proof, .. } = world.put(KEY, request.clone()) else { panic!() };
    assert_eq!((proof.acknowledgements, proof.racks), (3, 3));
    world.set_down(3, true, true);
    let outcome = world.put(KEY, request);
    assert_eq!(outcome, Outcome::Failed(Failure::TooFewRacks { racks: 2, need: 3 }));
}

#[test]
fn a_context_that_fails_its_check_is_refused_and_nothing_is_stored() {
    let mut world = World::new(3, 0, 1);
    let mut request = put_request(b"v", Need::Quorum, Mode::Strict);
    request.write.context = vec![1; 40];
    let refused = Outcome::Failed(Failure::Refused(Refusal::BadContext));
    assert_eq!(world.put(KEY, request), refused);
    assert!(world.nodes.values().all(|node| node.store.is_empty()));
}

#[test]
fn a_read_repairs_what_it_finds_stale_within_the_budget() {
    let mut world = World::new(3, 0, 1);
    world.set_down(3, true, true);
    world.put(KEY, put_request(b"v", Need::Count(2), Mode::Strict));
    world.nodes.values_mut().for_each(|node| node.hints.clear());
    world.set_down(3, false, false);
    let mut empty = coronet_ring::coordinate::budget::Budget::new(0, 0);
    std::mem::swap(&mut world.budgets.repair, &mut empty);
    let read = world.get(KEY, get_request(Need::All, Mode::Strict));
    assert!(matches!(read, Outcome::Read { proof, .. } if proof.repaired));
    assert!(world.node(3).store.is_empty(), "no budget, no repair");
    std::mem::swap(&mut world.budgets.repair, &mut empty);
    world.get(KEY, get_request(Need::All, Mode::Strict));
    assert_eq!(world.node(3).store.clone(), world.node(1).store);
    let clean = world.get(KEY, get_request(Need::All, Mode::Strict));
    assert!(matches!(clean, Outcome::Read { proof, .. } if !proof.repaired));
}

#[test]
fn long_copies_are_compared_by_digest_and_fetched_when_they_differ() {
    let mut world = World::new(3, 0, 1);
    let long = vec![7; 10_000];
    world.put(KEY, put_request(&long, Need::All, Mode::Strict));
    world.set_down(1, true, true);
    world.put(KEY, put_request(b"short", Need::Count(2), Mode::Strict));
    world.set_down(1, false, false);
    let read = world.get(KEY, get_request(Need::All, Mode::Strict));
    assert_eq!(values(&read), [long, b"short".to_vec()]);
    assert_eq!(world.node(1).store.clone(), world.node(3).store);
}

/// After a monotonic read no later read with the same R shows less, whoever answers it.
#[test]
fn monotonic_reads_are_written_back_before_the_reply() {
    for survivor in 1..=3 {
        let mut world = World::new(3, 0, 1);
        (2..=3).for_each(|node| world.set_down(node, true, true));
        world.put(KEY, put_request(b"v", Need::One, Mode::Strict));
        world.nodes.values_mut().for_each(|node| node.hints.clear());
        (2..=3).for_each(|node| world.set_down(node, false, false));
        let mut request = get_request(Need::One, Mode::Strict);
        request.monotonic = true;
        assert_eq!(values(&world.get(KEY, request)), [b"v".to_vec()]);
        let others = (1..=3).filter(|node| *node != survivor);
        others.for_each(|node| world.set_down(node, true, true));
        let read = world.get(KEY, get_request(Need::One, Mode::Strict));
        assert_eq!(values(&read), [b"v".to_vec()], "asking only {survivor}");
    }
}

#[test]
fn a_retry_after_a_lost_answer_is_one_write() {
    let mut world = World::new(3, 0, 1);
    let mut request = put_request(b"v", Need::Quorum, Mode::Strict);
    request.write.token = Some([9; 16]);
    for down in 1..=3 {
        world.set_down(down, true, true);
        assert!(written(&world.put(KEY, request.clone())));
        world.set_down(down, false, false);
    }
    world.heal();
    let read = world.get(KEY, get_request(Need::All, Mode::Strict));
    assert_eq!(values(&read), [b"v".to_vec()]);
}

#[test]
fn deleting_needs_no_more_than_writing_and_stays() {
    let mut world = World::new(3, 0, 1);
    let Outcome::Written { context, .. } =
        world.put(KEY, put_request(b"v", Need::All, Mode::Strict))
    else {
        panic!()
    };
    world.set_down(3, true, true);
    let mut delete = put_request(b"", Need::Quorum, Mode::Strict);
    (delete.write.value, delete.write.context) = (None, context);
    assert!(written(&world.put(KEY, delete)));
    world.nodes.values_mut().for_each(|node| node.hints.clear());
    world.set_down(3, false, false);
    assert!(!world.node(3).store.is_empty(), "the one that was away still has the value");
    let read = world.get(KEY, get_request(Need::All, Mode::Strict));
    assert_eq!(values(&read), Vec::<Vec<u8>>::new());
    assert_eq!(world.node(1).store.clone(), world.node(3).store);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the network does, an acknowledged write is read with R + W > N, and repair brings
    /// all replicas to the same bytes.
    #[test]
    fn no_acknowledged_write_is_lost(
        seed: u64,
        n in prop::sample::select(vec![1_usize, 3, 5]),
        w in 1_usize..=5,
        sloppy: bool,
        drop in 0_u64..30,
        duplicate in 0_u64..30,
        puts in 1_usize..12,
    ) {
        let w = w.min(n);
        let r = n + 1 - w;
        let mode = if sloppy { Mode::Sloppy } else { Mode::Strict };
        let mut world = World::new(n, 2, seed);
        let (mut acknowledged, mut named) = (Vec::new(), Vec::new());
        for put in 0..puts {
            world.weather = Weather { drop, duplicate, shuffle: true };
            for node in 1..=n {
                let (down, known) = (world.rng.chance(25), world.rng.chance(50));
                world.set_down(node, down, known);
            }
            let value = vec![put as u8];
            let mut request = put_request(&value, Need::Count(w as u8), mode);
            if world.rng.chance(50) {
                request.write.token = Some([put as u8; 16]);
                named.push(value.clone());
            }
            if written(&world.put(KEY, request)) {
                acknowledged.push(value);
            }
            if !sloppy {
                // Right now, from any R replicas that are there.
                world.weather = Weather { drop: 0, duplicate, shuffle: true };
                let read = world.get(KEY, get_request(Need::Count(r as u8), Mode::Strict));
                if matches!(read, Outcome::Read { .. }) {
                    let shown = values(&read);
                    prop_assert!(acknowledged.iter().all(|value| shown.contains(value)));
                }
            }
        }
        world.heal();
        let read = world.get(KEY, get_request(Need::All, Mode::Strict));
        let shown = values(&read);
        for value in &acknowledged {
            prop_assert!(shown.contains(value), "{:?} not in {:?}", value, shown);
        }
        for value in &named {
            // Tried on several replicas and doubled by the network, yet one write.
            prop_assert!(shown.iter().filter(|other| *other == value).count() <= 1);
        }
        let first = world.node(1).store.clone();
        for node in 2..=n {
            prop_assert_eq!(&world.node(node).store, &first, "after repair");
        }
    }
}
