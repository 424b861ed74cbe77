//! A network cut in two between real processes: both sides go on, and nothing is lost or made up
//! when it heals.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/cluster.rs"]
mod cluster;
mod support;
#[path = "support/wires.rs"]
mod wires;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster::{Cluster, strict, wait};
use coronet_net::client::blocking::Client;
use coronet_net::client::{ClientError, RequestOptions};
use coronet_net::{ErrorCode, Quorum, QuorumMode, ReplyFlags};

/// Keys written on both sides and read after the cut by all replicas.
const READ: u32 = 24;
/// Keys written on both sides that nobody reads until hints have brought them.
const HINTED: u32 = 24;

fn sloppy(r_and_w: u8) -> RequestOptions {
    let options = RequestOptions::new().quorum_mode(QuorumMode::Sloppy);
    options.r(Quorum(r_and_w)).w(Quorum(r_and_w))
}

fn key(n: u32) -> Vec<u8> {
    format!("cart/{n:03}").into_bytes()
}

type Values = BTreeSet<Vec<u8>>;

fn values(client: &Client, key: &[u8], options: &RequestOptions) -> Option<Values> {
    let found = client.get_with(key, options).ok()?;
    let count = found.versions.len();
    let values: Values = found.versions.into_iter().map(|version| version.value).collect();
    assert_eq!(values.len(), count, "one write is shown twice");
    Some(values)
}

/// One side's writes of a key, each with what the one before had seen, and for every third key one
/// more that has seen only what was there before the cut. Returns what nobody has superseded on
/// this side.
fn write_side(
    client: &Client,
    side: &str,
    n: u32,
    base: &[u8],
    options: &RequestOptions,
) -> Values {
    let (mut context, mut latest) = (base.to_vec(), Vec::new());
    for step in 0..=n % 3 {
        latest = format!("{side} {n} {step}").into_bytes();
        let with = options.clone().context(context);
        context = client.put_with(&key(n), &latest, &with).expect("goes on while cut").context;
    }
    let mut left = Values::from([latest]);
    if n % 3 == 1 {
        let stale = format!("{side} {n} stale").into_bytes();
        let with = options.clone().context(base);
        client.put_with(&key(n), &stale, &with).expect("goes on while cut");
        left.insert(stale);
    }
    left
}

fn is_refused(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::NotEnoughReplicas) && !error.possibly_applied()
}

/// Waits until a node holds this many of its peers for unreachable.
fn wait_until_alone(client: &Client, unreachable: usize) {
    wait("the cut is noticed", || {
        let topology = client.topology().unwrap().expect("a cluster");
        topology.nodes.iter().filter(|node| !node.alive).count() == unreachable
    });
}

/// Cuts `island` off, writes on both sides with as many acknowledgements as told, heals, and
/// holds what is read then against what was written.
fn both_sides_of_a_cut<const N: usize>(island: &[usize], island_w: u8, mainland_w: u8) {
    let cluster = Cluster::start_on_wires::<N>(3);
    let wires = cluster.wires.as_ref().unwrap();
    let (minority, majority) = (cluster.client(island[0]), cluster.client(0));
    let before = |n| {
        let stored = majority.put_with(&key(n), b"before", &strict().w(Quorum(3)));
        stored.expect("all are there").context
    };
    let bases: Vec<_> = (0..READ + HINTED).map(before).collect();

    wires.cut_off(island);
    wait_until_alone(&minority, N - island.len());
    wait_until_alone(&majority, island.len());
    let (here, there) = (sloppy(island_w), sloppy(mainland_w));
    let mut wanted = Vec::new();
    for (n, base) in (0..).zip(&bases) {
        let mut left = write_side(&minority, "island", n, base, &here);
        assert_eq!(values(&minority, &key(n), &here).as_ref(), Some(&left), "each reads its own");
        let others = write_side(&majority, "mainland", n, base, &there);
        assert_eq!(values(&majority, &key(n), &there).as_ref(), Some(&others), "key {n}");
        left.extend(others);
        wanted.push(left);
    }

    wires.heal();
    (0..N).for_each(|index| cluster.wait_until_met(index));
    // Hints drain by themselves: each replica's own copy has both sides' writes.
    for index in 0..N {
        let (client, own) = (cluster.client(index), strict().r(Quorum(1)));
        wait("hints drain", || {
            let hinted = READ..READ + HINTED;
            hinted
                .into_iter()
                .all(|n| values(&client, &key(n), &own).as_ref() == Some(&wanted[n as usize]))
        });
    }
    for (n, wanted) in (0..READ).zip(&wanted) {
        for index in [0, island[0]] {
            let read = values(&cluster.client(index), &key(n), &strict().r(Quorum(3)));
            assert_eq!(read.as_ref(), Some(wanted), "key {n} through node {index}");
        }
    }
}

#[test]
fn siblings_are_exactly_the_concurrent_writes_of_both_sides() {
    both_sides_of_a_cut::<3>(&[2], 1, 2);
}

#[test]
fn stand_ins_keep_both_sides_writing_and_give_everything_back() {
    both_sides_of_a_cut::<5>(&[3, 4], 2, 2);
}

#[test]
fn the_cut_off_side_refuses_strict_requests_at_once() {
    let cluster = Cluster::start_on_wires::<3>(3);
    let wires = cluster.wires.as_ref().unwrap();
    let (minority, majority) = (cluster.client(2), cluster.client(0));
    majority.put_with(b"k", b"before", &strict().w(Quorum(3))).unwrap();
    wires.cut_off(&[2]);
    wait_until_alone(&minority, 2);
    let two = strict().r(Quorum(2)).w(Quorum(2));
    let started = Instant::now();
    let put = minority.put_with(b"k", b"refused", &two).unwrap_err();
    let delete = minority.delete_with(b"k", &two).unwrap_err();
    let get = minority.get_with(b"k", &two).unwrap_err();
    // A request without deadline may take ten seconds: one that waited would show.
    assert!(started.elapsed().as_secs() < 8, "not refused at once: {:?}", started.elapsed());
    for error in [put, delete, get] {
        assert!(is_refused(&error), "{error}");
    }
    let one = minority.get_with(b"k", &strict().r(Quorum(1))).unwrap();
    assert_eq!((one.value(), one.info.acks), (Some(&b"before"[..]), 1));
    assert!(!one.info.flags.contains(ReplyFlags::SLOPPY));

    wait_until_alone(&majority, 1);
    // On a machine that does other things, one of the two may miss a moment.
    let mut found = None;
    wait("the others go on", || {
        found = majority.get_with(b"k", &two).ok();
        found.is_some()
    });
    let context = found.unwrap().context;
    let stored = majority.put_with(b"k", b"after", &two.clone().context(context)).unwrap();
    assert_eq!((stored.info.acks, stored.info.racks), (2, 2));
    wires.heal();
    cluster.wait_until_met(2);
    let healed = values(&minority, b"k", &strict().r(Quorum(3)));
    assert_eq!(healed, Some(Values::from([b"after".to_vec()])), "what was refused left nothing");
}

#[test]
fn monotonic_reads_are_refused_while_a_later_read_could_go_backwards() {
    let cluster = Cluster::start_on_wires::<3>(3);
    let wires = cluster.wires.as_ref().unwrap();
    let writer = cluster.client(2);
    writer.put_with(b"k", b"old", &strict().w(Quorum(3))).unwrap();
    wires.cut_off(&[2]);
    let one = strict().r(Quorum(1)).w(Quorum(1));
    writer.put_with(b"k", b"new", &one).unwrap();
    // Only one replica has it: whoever reads it here and then elsewhere goes back in time.
    assert_eq!(writer.get_with(b"k", &one).unwrap().value(), Some(&b"new"[..]));
    let elsewhere = cluster.client(0).get_with(b"k", &one).unwrap();
    assert_eq!(elsewhere.value(), Some(&b"old"[..]));
    let monotonic = one.monotonic(true).deadline(Duration::from_secs(2));
    writer.get_with(b"k", &monotonic).expect_err("the others cannot be made to have it");

    wires.heal();
    let patient = monotonic.clone().deadline(Duration::from_secs(10));
    wait("the others are reached", || writer.get_with(b"k", &patient).is_ok());
    for index in 0..3 {
        let own = cluster.client(index).get_with(b"k", &strict().r(Quorum(1))).unwrap();
        assert_eq!(own.value(), Some(&b"new"[..]), "node {index} right after the answer");
    }
}
