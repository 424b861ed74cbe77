//! Keyspaces of a cluster of real processes: made at one node, used at others, learned later by
//! those that were down, kept through restarts, driven by the command line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/cluster.rs"]
mod cluster;
mod support;
#[path = "support/wires.rs"]
mod wires;

use std::collections::BTreeSet;
use std::process::{Command, Output};

use cluster::{Cluster, strict, wait};
use coronet_net::ErrorCode;
use coronet_net::Quorum;
use coronet_net::client::RequestOptions;
use coronet_net::client::blocking::Client;

fn key(n: u32) -> Vec<u8> {
    format!("key/{n:05}").into_bytes()
}

/// Whether a node's own list has the keyspace.
fn knows(client: &Client, name: &str) -> bool {
    client.keyspaces().unwrap().iter().any(|keyspace| keyspace.name == name)
}

/// Waits until this client's node coordinates in its keyspace, and so many replicas serve it.
fn wait_until_served(client: &Client, replicas: u8) {
    let all = match replicas {
        3 => strict().r(Quorum::ALL),
        fewer => strict().r(Quorum(fewer)),
    };
    // Keys of many partitions: every core of every replica is asked.
    wait("the keyspace is served", || (0..64).all(|n| client.get_with(&key(n), &all).is_ok()));
}

fn listed(client: &Client) -> BTreeSet<Vec<u8>> {
    client.list(b"").map(|entry| entry.unwrap().key).collect()
}

#[test]
fn a_keyspace_made_at_one_node_is_used_at_another_with_its_own_rules() {
    let cluster = Cluster::start::<3>(3);
    let [first, second, third] = [0, 1, 2].map(|index| cluster.client(index));
    let unknown = third.keyspace("carts").put(b"k", b"v").unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownKeyspace));
    assert!(!unknown.possibly_applied());

    first.create_keyspace("carts", &[]).unwrap();
    first.create_keyspace("latest", &[("conflicts", "lww")]).unwrap();
    first.create_keyspace("single", &[("n", "1"), ("compaction", "tiered(fanout=6)")]).unwrap();
    for name in ["carts", "latest", "single"] {
        for client in [&first, &second, &third] {
            wait_until_served(&client.keyspace(name), 3);
        }
        first.keyspace(name).put(b"warm", b"up").unwrap();
    }

    // The same keys in each, with other values; deleted in one they stay in the others.
    for n in 0..60 {
        third.keyspace("carts").put(&key(n), b"cart").unwrap();
        third.keyspace("single").put(&key(n), b"single").unwrap();
    }
    for n in 0..60 {
        assert_eq!(second.keyspace("carts").get(&key(n)).unwrap().value(), Some(&b"cart"[..]));
        let found = first.keyspace("single").get(&key(n)).unwrap();
        assert_eq!((found.value(), found.info.acks), (Some(&b"single"[..]), 1));
        assert!(!second.get(&key(n)).unwrap().exists(), "nothing in the default keyspace");
    }
    third.keyspace("carts").delete(&key(7)).unwrap();
    assert_eq!(first.keyspace("single").get(&key(7)).unwrap().value(), Some(&b"single"[..]));
    third.put(b"default only", b"v").unwrap();
    let wanted: BTreeSet<_> = (0..60).map(key).chain([b"warm".to_vec()]).collect();
    assert_eq!(listed(&second.keyspace("single")), wanted);
    let wanted: BTreeSet<_> = wanted.into_iter().filter(|name| *name != key(7)).collect();
    assert_eq!(listed(&second.keyspace("carts")), wanted);
    assert_eq!(listed(&first), BTreeSet::from([b"default only".to_vec()]));

    // Two writes that know of the same version only: siblings, or the later one.
    for (name, versions) in [("carts", 2), ("latest", 1)] {
        let (a, b) = (first.keyspace(name), third.keyspace(name));
        let seen = a.put(b"both", b"0").unwrap().context;
        let after = RequestOptions::new().context(seen);
        a.put_with(b"both", b"1", &after).unwrap();
        b.put_with(b"both", b"2", &after).unwrap();
        let found = b.get_with(b"both", &strict().r(Quorum(3))).unwrap();
        assert_eq!(found.versions.len(), versions, "{name}");
        assert_eq!(found.value(), Some(&b"2"[..]), "{name}");
    }
    // What was seen in one keyspace says nothing in another.
    let seen = first.keyspace("carts").get(b"warm").unwrap().context;
    let foreign =
        first.keyspace("latest").put_with(b"warm", b"x", &RequestOptions::new().context(seen));
    assert_eq!(foreign.unwrap_err().code(), Some(ErrorCode::BadContext));
}

#[test]
fn a_node_that_was_down_learns_keyspaces_and_what_was_written_to_them() {
    let mut cluster = Cluster::start::<3>(3);
    cluster.kill(2);
    let client = cluster.client(0);
    let made = client.create_keyspace("later", &[("r", "1"), ("w", "2")]).unwrap();
    let later = client.keyspace("later");
    wait_until_served(&later, 2);
    for n in 0..100 {
        // Its third replica is away: kept for it as hints, which must say in which keyspace.
        later.put(&key(n), b"kept").unwrap();
    }
    cluster.restart(2);
    cluster.wait_until_met(2);
    let back = cluster.client(2);
    wait("the definition arrives", || back.keyspaces().unwrap().contains(&made));
    let own = strict().r(Quorum(1));
    wait("hints arrive", || {
        (0..100).all(|n| {
            let found = back.keyspace("later").get_with(&key(n), &own);
            found.is_ok_and(|found| found.value() == Some(b"kept"))
        })
    });
    assert!(listed(&back).is_empty(), "no hint went to the default keyspace");

    // All nodes killed: definitions and data come back, and an alteration reaches every node.
    drop((client, later, back));
    (0..3).for_each(|index| cluster.kill(index));
    (0..3).for_each(|index| cluster.restart(index));
    (0..3).for_each(|index| cluster.wait_until_met(index));
    let clients = [0, 1, 2].map(|index| cluster.client(index));
    for client in &clients {
        assert!(knows(client, "later"));
        wait_until_served(&client.keyspace("later"), 3);
        let found = client.keyspace("later").get(&key(3)).unwrap();
        assert_eq!(found.value(), Some(&b"kept"[..]));
    }
    let policy = ("compaction", "lazy_leveled");
    let altered = clients[1].alter_keyspace("later", &[policy]).unwrap();
    let default = clients[2].alter_keyspace("default", &[policy]).unwrap();
    for client in &clients {
        wait("the alterations arrive", || {
            let known = client.keyspaces().unwrap();
            known.contains(&altered) && known.contains(&default)
        });
        client.keyspace("later").put(b"still", b"written").unwrap();
        client.put(b"still", b"written").unwrap();
    }
}

/// Runs `coronet` against a node.
fn coronet(addr: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coronet"))
        .args(["--addr", addr])
        .args(args)
        .output()
        .expect("coronet runs")
}

#[test]
fn the_command_line_makes_uses_changes_and_lists_keyspaces() {
    let dir = tempfile::tempdir().unwrap();
    let server = support::Server::start_with(dir.path(), &[]);
    let run = |args: &[&str]| coronet(&server.addr, args);
    let text = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let made = run(&["keyspace", "create", "docs", "--lww", "--compaction", "tiered(fanout=6)"]);
    assert!(text(made).starts_with("docs  n=1  r=1  w=1  conflicts=lww  compaction=tiered"));
    text(run(&["put", "--keyspace", "docs", "a", "1"]));
    text(run(&["put", "b", "2"]));
    assert_eq!(text(run(&["get", "--keyspace", "docs", "a"])), "1");
    assert_eq!(run(&["get", "a"]).status.code(), Some(3));
    assert_eq!(text(run(&["ls", "--keyspace", "docs"])), "a\n");
    assert_eq!(text(run(&["ls"])), "b\n");
    text(run(&["keyspace", "set", "default", "--compaction", "lazy_leveled"]));
    let listed = text(run(&["keyspace", "ls"]));
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(lines[0].starts_with("default") && lines[0].contains("compaction=lazy_leveled"));
    assert_eq!(run(&["keyspace", "create", "docs", "--siblings"]).status.code(), Some(2));
    assert_eq!(run(&["keyspace", "set", "docs"]).status.code(), Some(2));
    let bench = ["bench", "--keyspace", "docs", "--requests", "200", "--load", "--keys", "20"];
    text(run(&[&bench[..], &["--connections", "2", "--check", "--quiet"]].concat()));
    assert_eq!(text(run(&["ls", "--keyspace", "docs"])).lines().count(), 21);
    text(run(&["delete", "--keyspace", "docs", "a"]));
    assert_eq!(run(&["get", "--keyspace", "docs", "a"]).status.code(), Some(3));
    assert_eq!(run(&["get", "--keyspace", "nowhere", "a"]).status.code(), Some(5));
}
