//! Clusters of real processes on loopback: nodes die, come back and are missed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/cluster.rs"]
mod cluster;
mod support;
#[path = "support/wires.rs"]
mod wires;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::{Cluster, strict, wait};
use coronet_net::client::blocking::Client;
use coronet_net::client::{ListOptions, RequestOptions};
use coronet_net::{ErrorCode, Quorum, ReplyFlags};
use coronet_ring::NodeId;

fn quorum(r_and_w: u8) -> RequestOptions {
    RequestOptions::new().r(Quorum(r_and_w)).w(Quorum(r_and_w))
}

fn key(n: u32) -> Vec<u8> {
    format!("key/{n:05}").into_bytes()
}

#[test]
fn a_node_that_dies_under_load_costs_no_request_and_no_acknowledged_write() {
    let mut cluster = Cluster::start::<3>(3);
    let client = cluster.client(0);
    for n in 0..600_u32 {
        if n == 200 {
            cluster.kill(2);
        }
        client.put_with(&key(n), &n.to_le_bytes(), &quorum(2)).expect("two of three are there");
    }
    let other = cluster.client(1);
    for n in 0..600_u32 {
        let found = other.get_with(&key(n), &quorum(2)).expect("two of three are there");
        assert_eq!(found.value(), Some(&n.to_le_bytes()[..]), "key {n}");
    }
    // What the node missed comes to it without anybody reading: it was kept for it as hints.
    cluster.restart(2);
    let back = cluster.client(2);
    let own = strict().r(Quorum(1));
    wait("hints arrive", || {
        (0..600_u32).all(|n| {
            back.get_with(&key(n), &own)
                .is_ok_and(|found| found.value() == Some(&n.to_le_bytes()[..]))
        })
    });
}

/// Each node in turn is stopped in order and started again, while clients go on.
#[test]
fn a_rolling_restart_under_load_fails_no_request() {
    let mut cluster = Cluster::start::<3>(3);
    let addresses = cluster.addresses();
    let over = AtomicBool::new(false);
    let (done, failed) = std::thread::scope(|scope| {
        let work = |number: u32| {
            let client = Client::connect(addresses.clone()).unwrap();
            let mut failed = Vec::new();
            let mut done = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let key = key(number * 100_000 + done);
                let value = done.to_le_bytes();
                match client.put_with(&key, &value, &quorum(2)) {
                    Ok(_) => match client.get_with(&key, &quorum(2)) {
                        Ok(found) if found.value() == Some(&value[..]) => {}
                        other => failed.push(format!("get: {other:?}")),
                    },
                    Err(error) => failed.push(format!("put: {error}")),
                }
                done += 1;
            }
            (done, failed)
        };
        let workers: Vec<_> = (0..3).map(|number| scope.spawn(move || work(number))).collect();
        for index in 0..3 {
            cluster.stop(index);
            cluster.restart(index);
            (0..3).for_each(|index| cluster.wait_until_met(index));
        }
        over.store(true, Ordering::Relaxed);
        let ended = workers.into_iter().map(|worker| worker.join().unwrap());
        ended.fold((0, Vec::new()), |(done, mut all), (more, failed)| {
            all.extend(failed);
            (done + more, all)
        })
    });
    assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first());
    assert!(done > 10, "only {done} requests");
}

#[test]
fn everything_is_there_after_all_nodes_were_killed_and_listed_once() {
    let mut cluster = Cluster::start::<3>(3);
    let client = cluster.client(1);
    let wanted: BTreeSet<Vec<u8>> = (0..200).map(key).collect();
    for key in &wanted {
        client.put_with(key, b"kept", &quorum(2)).unwrap();
    }
    client.put_with(b"key/gone", b"x", &quorum(3)).unwrap();
    client.delete_with(b"key/gone", &quorum(3)).unwrap();
    drop(client);
    (0..3).for_each(|index| cluster.kill(index));
    (0..3).for_each(|index| cluster.restart(index));
    (0..3).for_each(|index| cluster.wait_until_met(index));
    for index in 0..3 {
        let client = cluster.client(index);
        let listed: Vec<Vec<u8>> = client
            .list(b"key/")
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!((entry.versions, entry.bytes), (1, 4), "of `kept`");
                assert_eq!(entry.hlc, client.get(&entry.key).unwrap().versions[0].hlc);
                entry.key
            })
            .collect();
        let distinct: BTreeSet<Vec<u8>> = listed.iter().cloned().collect();
        assert_eq!((listed.len(), &distinct), (wanted.len(), &wanted), "node {index}");
        let keys: Vec<_> = wanted.iter().cloned().chain([b"key/gone".to_vec()]).collect();
        let found = client.multi_get_with(&keys, &quorum(2));
        let values = found.iter().filter(|f| f.as_ref().unwrap().value() == Some(b"kept")).count();
        assert_eq!((values, found.len()), (200, 201), "node {index}");
    }
}

#[test]
fn a_listing_goes_on_while_nodes_die_and_come_back() {
    let mut cluster = Cluster::start::<3>(3);
    let client = Client::connect(cluster.addresses()).unwrap();
    let wanted: BTreeSet<Vec<u8>> = (0..400).map(key).collect();
    for key in &wanted {
        client.put_with(key, b"v", &quorum(3)).unwrap();
    }
    for n in 0..40 {
        // Deleted keys do not come, whichever replicas are asked.
        let gone = format!("key/gone/{n}").into_bytes();
        client.put_with(&gone, b"v", &quorum(2)).unwrap();
        client.delete_with(&gone, &quorum(2)).unwrap();
    }
    let mut listed: Vec<Vec<u8>> = Vec::new();
    for entry in client.list_with(b"key/", ListOptions::new().page(10).pages(1)) {
        // R of the keyspace is 2: any two of the three replicas are enough.
        listed.push(entry.expect("two of three are there").key);
        match listed.len() {
            60 => cluster.kill(0),
            140 => {
                cluster.restart(0);
                (0..3).for_each(|index| cluster.wait_until_met(index));
            }
            150 => cluster.kill(1),
            230 => {
                cluster.restart(1);
                (0..3).for_each(|index| cluster.wait_until_met(index));
            }
            240 => cluster.kill(2),
            _ => {}
        }
    }
    let distinct: BTreeSet<Vec<u8>> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), wanted.len(), "each key once");
    assert_eq!(distinct, wanted);
}

#[test]
fn what_was_deleted_while_a_replica_was_away_does_not_come_back_with_it() {
    let mut cluster = Cluster::start::<3>(3);
    let client = cluster.client(0);
    for n in 0..120 {
        client.put_with(&key(n), b"old", &quorum(3)).unwrap();
    }
    cluster.kill(2);
    for n in 0..120 {
        // One half with what was read, the other blindly.
        let context = match n % 2 {
            0 => quorum(2).context(client.get_with(&key(n), &quorum(2)).unwrap().context),
            _ => quorum(2),
        };
        client.delete_with(&key(n), &context).unwrap();
    }
    // The node that keeps half of the hints is away when the replica comes back with old values:
    // reads have to repair, in the right direction.
    drop(client);
    cluster.stop(0);
    cluster.restart(2);
    let back = cluster.client(2);
    wait("two of three meet", || back.get_with(b"other", &strict().r(Quorum(2))).is_ok());
    for n in 0..120 {
        let found = back.get_with(&key(n), &strict().r(Quorum(2))).unwrap();
        assert!(!found.exists(), "key {n} is back");
    }
    cluster.restart(0);
    (0..3).for_each(|index| cluster.wait_until_met(index));
    for index in 0..3 {
        let client = cluster.client(index);
        let own = strict().r(Quorum(1));
        wait("every replica knows the deletions", || {
            (0..120).all(|n| client.get_with(&key(n), &own).is_ok_and(|found| !found.exists()))
        });
        for n in 0..120 {
            assert!(!client.get_with(&key(n), &quorum(3)).unwrap().exists(), "key {n} is back");
        }
        assert_eq!(client.list(b"key/").count(), 0, "node {index}");
    }
}

#[test]
fn strict_requests_are_refused_at_once_when_too_few_replicas_are_there() {
    let mut cluster = Cluster::start::<3>(3);
    cluster.kill(0);
    cluster.kill(2);
    let client = cluster.client(1);
    let impatient = strict().w(Quorum(2)).r(Quorum(2));
    wait("the links are seen to be gone", || {
        let put = client.put_with(b"k", b"refused", &impatient);
        put.is_err_and(|error| error.code() == Some(ErrorCode::NotEnoughReplicas))
    });
    let get = client.get_with(b"k", &impatient).unwrap_err();
    assert_eq!(get.code(), Some(ErrorCode::NotEnoughReplicas));
    let bad = client.get_with(b"k", &strict().r(Quorum(4))).unwrap_err();
    assert_eq!(bad.code(), Some(ErrorCode::InvalidArgument));
    // One is enough for who says so.
    client.put_with(b"one", b"here", &quorum(1)).unwrap();
    assert_eq!(client.get_with(b"one", &quorum(1)).unwrap().value(), Some(&b"here"[..]));
}

#[test]
fn stand_ins_take_writes_for_a_node_that_is_away_and_hand_them_over() {
    let mut cluster = Cluster::start::<5>(3);
    cluster.stop(4);
    let client = cluster.client(0);
    let all = quorum(3);
    wait("the link is seen to be gone", || {
        client.put_with(b"probe", b"x", &all).is_ok_and(|_| {
            (0..40).any(|n| client.put_with(&key(n), b"strict", &strict().w(Quorum(3))).is_err())
        })
    });
    let mut sloppy = 0;
    for n in 0..200 {
        let stored = client.put_with(&key(n), b"new", &all).expect("a stand-in counts");
        sloppy += usize::from(stored.info.flags.contains(ReplyFlags::SLOPPY));
    }
    assert!(sloppy > 20, "only {sloppy} of 200 keys have the stopped node among three of five");
    cluster.restart(4);
    cluster.wait_until_met(4);
    let back = cluster.client(4);
    wait("hints arrive at the replica", || {
        // Each of the three replicas answers by itself, so the stopped one does as well.
        (0..200).all(|n| {
            let read = back.get_with(&key(n), &strict().r(Quorum(3)));
            read.is_ok_and(|found| {
                found.value() == Some(b"new") && !found.info.flags.contains(ReplyFlags::REPAIRED)
            })
        })
    });
}

#[test]
fn writes_with_one_context_through_two_nodes_become_siblings_and_are_merged() {
    let cluster = Cluster::start::<3>(3);
    let (left, right) = (cluster.client(0), cluster.client(2));
    left.put_with(b"cart", b"milk", &quorum(2)).unwrap();
    let read = left.get_with(b"cart", &quorum(2)).unwrap();
    let with = |found: &coronet_net::client::Found| quorum(2).context(found.context.clone());
    left.put_with(b"cart", b"milk eggs", &with(&read)).unwrap();
    right.put_with(b"cart", b"milk bread", &with(&read)).unwrap();
    let both = right.get_with(b"cart", &quorum(2)).unwrap();
    let values: BTreeSet<&[u8]> = both.versions.iter().map(|version| &version.value[..]).collect();
    assert_eq!(values, BTreeSet::from([&b"milk eggs"[..], &b"milk bread"[..]]));
    left.put_with(b"cart", b"milk eggs bread", &with(&both)).unwrap();
    for client in [&left, &right] {
        let merged = client.get_with(b"cart", &quorum(2)).unwrap();
        assert_eq!(merged.value(), Some(&b"milk eggs bread"[..]));
        assert_eq!(merged.versions.len(), 1);
    }
}

#[test]
fn a_client_goes_to_replicas_and_goes_on_without_a_killed_node() {
    let mut cluster = Cluster::start::<3>(2);
    let client = Client::connect(cluster.addresses()).unwrap();
    let topology = client.topology().unwrap().expect("a cluster");
    assert_eq!((topology.replicas, topology.nodes.len()), (2, 3));
    for n in 0..50 {
        let stored = client.put_with(&key(n), b"v", &quorum(1)).unwrap();
        let partition = topology.partition_of(&key(n)).unwrap();
        assert!(topology.replicas_of(partition).contains(&stored.info.node));
    }
    for n in 50..300 {
        if n == 100 {
            cluster.kill(1);
        }
        // The default is sloppy: a stand-in counts. A retry leaves one version, not two.
        client.put(&key(n), b"v").expect("two of three are there");
    }
    wait("all are read", || {
        (0..300).all(|n| client.get_with(&key(n), &quorum(1)).is_ok_and(|found| found.exists()))
    });
    for n in 100..300 {
        assert_eq!(client.get(&key(n)).unwrap().versions.len(), 1, "key {n}");
    }
}

#[test]
fn more_replicas_than_nodes_are_told_at_the_start_in_the_status_and_to_requests() {
    let cluster = Cluster::start::<2>(3);
    let addresses = cluster.addresses().join(",");
    let log = cluster.log(0);
    assert!(log.contains("cluster.replicas is 3, but cluster.nodes has 2 of them"), "{log}");
    for command in ["status", "ring"] {
        let text = String::from_utf8(support::run_ok(&addresses, &[command])).unwrap();
        let told = "replicas: N=3 asked, 2 nodes: each key has 2, requests for more are refused";
        assert!(text.lines().any(|line| line == told), "{command}: {text}");
        let json = support::run_ok(&addresses, &[command, "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["replicas"], &json["replicas_asked"]), (&2.into(), &3.into()));
    }
    // What can never be reached is no matter of waiting, and nothing is written.
    let client = cluster.client(0);
    for options in [strict(), RequestOptions::default()] {
        let put = client.put_with(b"k", b"v", &options.clone().w(Quorum(3))).unwrap_err();
        assert_eq!(put.code(), Some(ErrorCode::InvalidArgument));
        let text = put.to_string();
        assert!(text.contains("3 replicas are asked for, a key has 2 here"), "{text}");
        let get = client.get_with(b"k", &options.clone().r(Quorum(3))).unwrap_err();
        assert_eq!(get.code(), Some(ErrorCode::InvalidArgument));
        assert!(!client.get_with(b"k", &options.clone().r(Quorum::ALL)).unwrap().exists());
    }
    assert!(client.list(b"").next().is_none());
}

#[test]
fn the_cluster_is_shown_driven_and_missed_by_the_command() {
    let mut cluster = Cluster::start::<3>(3);
    let addresses = cluster.addresses().join(",");
    let json = |bytes: &[u8]| -> serde_json::Value { serde_json::from_slice(bytes).unwrap() };
    let status = json(&support::run_ok(&addresses, &["status", "--json"]));
    assert_eq!((&status["epoch"], &status["replicas"]), (&1.into(), &3.into()));
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    let ring = json(&support::run_ok(&addresses, &["ring", "--json", "--key", "some key"]));
    assert_eq!(ring["racks_violated"], 0);
    let held: u64 = ring["nodes"].as_array().unwrap().iter().flat_map(|n| n["held"].as_u64()).sum();
    assert_eq!(held, 3 * ring["partitions"].as_u64().unwrap());
    assert_eq!(ring["key"]["replicas"].as_array().unwrap().len(), 3);
    assert!(!support::run_ok(&addresses, &["ring"]).is_empty());

    let put = support::run(&addresses, &["put", "some key", "x", "--w", "all", "-v"]);
    assert!(put.status.success());
    let told = String::from_utf8_lossy(&put.stderr).into_owned();
    assert!(told.contains("3 acknowledgements from 3 racks"), "{told}");
    let get = ["get", "some key", "--r", "quorum", "--strict"];
    assert_eq!(support::run_ok(&addresses, &get), b"x");
    let bench = json(&support::run_ok(
        &addresses,
        &[
            "bench",
            "--connections",
            "3",
            "--depth",
            "2",
            "--keys",
            "1000",
            "--value-size",
            "50",
            "--requests",
            "2000",
            "--load",
            "--check",
            "--quiet",
            "--json",
            "--r",
            "2",
            "--w",
            "2",
        ],
    ));
    assert_eq!((&bench["requests"], &bench["errors"]), (&2000.into(), &serde_json::json!({})));

    // The node that is asked for its view is the first address that answers.
    cluster.kill(0);
    wait("the killed node is missed", || {
        let status = support::run(&addresses, &["status"]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        status.status.code() == Some(5) && text.starts_with("2 of 3 nodes alive")
    });
    let refused = support::run(&addresses, &["get", "some key", "--r", "all", "--strict"]);
    assert_eq!(refused.status.code(), Some(5));
    assert_eq!(support::run_ok(&addresses, &["get", "some key"]), b"x");
}

/// A key whose first two replicas are these nodes.
fn key_of(client: &Client, first: NodeId, second: NodeId) -> Vec<u8> {
    let topology = client.topology().unwrap().expect("a cluster");
    let fits = |key: &Vec<u8>| {
        let partition = topology.partition_of(key).expect("a placement");
        topology.replicas_of(partition)[..2] == [first, second]
    };
    (0..).map(key).find(fits).expect("every pair comes first somewhere")
}

#[test]
fn replies_tell_who_answered_whether_replicas_were_repaired_and_slow_ones_passed_over() {
    let mut cluster = Cluster::start::<3>(3);
    let client = cluster.client(0);
    let node = |index: usize| cluster.client(index).get(b"who").unwrap().info.node;
    let key = key_of(&client, node(0), node(1));
    let key_text = String::from_utf8(key.clone()).unwrap();
    let said = |address: &str, args: &[&str]| {
        let output = support::run(address, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let two = strict().r(Quorum(2)).w(Quorum(2));
    client.put_with(&key, b"v", &strict().w(Quorum(3))).unwrap();
    let read = client.get_with(&key, &two).unwrap().info;
    assert_eq!((read.acks, read.racks), (2, 2));
    // A busy machine may hedge by itself.
    assert_eq!(read.flags.without(ReplyFlags::HEDGED), ReplyFlags::NONE);

    // A replica that hangs is passed over before anybody holds it for dead.
    let slow = cluster.nodes[1].as_ref().unwrap();
    slow.pause();
    let read = client.get_with(&key, &two).unwrap();
    assert!(read.info.flags.contains(ReplyFlags::HEDGED), "{:?}", read.info);
    assert_eq!((read.value(), read.info.acks, read.info.racks), (Some(&b"v"[..]), 2, 2));
    slow.resume();
    cluster.wait_until_met(0);
    cluster.wait_until_met(1);

    // What a node missed, with its hints out of reach, is found by a read and told.
    cluster.kill(2);
    for n in 0..2 {
        client.put_with(format!("missed/{n}").as_bytes(), b"v", &two).unwrap();
    }
    drop(client);
    cluster.stop(0);
    cluster.restart(2);
    let client = cluster.client(1);
    wait("two of three meet", || client.get_with(b"other", &two).is_ok());
    let repaired = client.get_with(b"missed/0", &two).unwrap();
    assert_eq!((repaired.value(), repaired.info.acks), (Some(&b"v"[..]), 2));
    assert!(repaired.info.flags.contains(ReplyFlags::REPAIRED), "{:?}", repaired.info);
    let told = said(&cluster.addresses().join(","), &["get", "missed/1", "--r", "2", "-v"]);
    assert!(told.contains("2 acknowledgements from 2 racks"), "{told}");
    assert!(told.contains(", repaired"), "{told}");
    let told = said(&cluster.addresses().join(","), &["put", &key_text, "x", "--w", "2", "-v"]);
    assert!(!told.contains("sloppy"), "{told}");
}
