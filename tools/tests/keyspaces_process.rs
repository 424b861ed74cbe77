//! Keyspaces of a cluster of real processes: made at one node, used at others, learned later by
//! those that were down, kept through restarts, driven by the command line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/cluster.rs"]
mod cluster;
mod support;
#[path = "support/wires.rs"]
mod wires;

use std::collections::BTreeSet;
use std::path::Path;
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

    // It is there without having been made.
    let default = first.create_keyspace("default", &[]).unwrap();
    assert!(default.settings.contains(&("n".to_owned(), "3".to_owned())), "{default:?}");
    first.create_keyspace("carts", &[]).unwrap();
    first.create_keyspace("latest", &[("conflicts", "lww")]).unwrap();
    first.create_keyspace("single", &[("n", "1"), ("compaction", "tiered(fanout=6)")]).unwrap();
    for name in ["carts", "latest", "single"] {
        // No waiting: every node serves what was created.
        for client in [&third, &second, &first] {
            let everywhere = strict().r(Quorum::ALL);
            for n in 0..64 {
                assert!(!client.keyspace(name).get_with(&key(n), &everywhere).unwrap().exists());
            }
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
        assert_eq!(found.value(), Some(&b"single"[..]));
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

/// The numbers that follow this marker in the files of a folder.
fn numbers_after(marker: &[u8], dir: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.append(&mut numbers_after(marker, &entry.path()));
            continue;
        }
        let file = std::fs::read(entry.path()).unwrap_or_default();
        let marked = file.windows(marker.len() + 4).filter(|window| window.starts_with(marker));
        let number = |window: &[u8]| -> Option<u32> {
            std::str::from_utf8(&window[marker.len()..]).ok()?.parse().ok()
        };
        found.extend(marked.filter_map(number));
    }
    found
}

/// How many nodes have each of these values on their disks.
fn copies(cluster: &Cluster, marker: &str) -> Vec<usize> {
    let held = |index| numbers_after(marker.as_bytes(), &cluster.folder(index));
    let held: Vec<_> = (0..cluster.nodes.len()).map(held).collect();
    (0..60).map(|n| held.iter().filter(|numbers| numbers.contains(&n)).count()).collect()
}

#[test]
fn what_has_one_replica_is_on_one_node_and_gone_with_it() {
    let mut cluster = Cluster::start::<3>(3);
    let client = cluster.client(0);
    client.create_keyspace("single", &[("n", "1")]).unwrap();
    client.create_keyspace("pairs", &[("n", "2"), ("w", "all")]).unwrap();
    let (single, pairs) = (client.keyspace("single"), client.keyspace("pairs"));
    for n in 0..60 {
        let acks = |client: &Client, value: &str| {
            let value = format!("{value}-{n:04}");
            client.put_with(&key(n), value.as_bytes(), &strict()).unwrap().info.acks
        };
        assert_eq!((acks(&single, "alone"), acks(&pairs, "both")), (1, 2));
    }
    assert_eq!(copies(&cluster, "alone-"), [1; 60]);
    assert_eq!(copies(&cluster, "both-"), [2; 60]);
    let two = single.put_with(b"k", b"v", &strict().w(Quorum(2))).unwrap_err();
    assert_eq!(two.code(), Some(ErrorCode::InvalidArgument));

    let topology = client.topology().unwrap().expect("a cluster");
    let dead = cluster.client(2).get(b"who").unwrap().info.node;
    cluster.kill(2);
    let one = strict().r(Quorum(1));
    wait("the killed node is missed", || (0..60).any(|n| single.get_with(&key(n), &one).is_err()));
    for n in 0..60 {
        let home = topology.replicas_of(topology.partition_of(&key(n)).unwrap())[0];
        match single.get_with(&key(n), &one) {
            Ok(found) => assert!(found.exists() && home != dead, "key {n}"),
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::NotEnoughReplicas), "key {n}");
                assert_eq!(home, dead, "key {n}");
            }
        }
        assert!(pairs.get_with(&key(n), &one).unwrap().exists(), "key {n}");
    }
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

#[test]
fn a_node_that_joins_or_leaves_a_cluster_keeps_its_keyspaces() {
    let dir = tempfile::tempdir().unwrap();
    let [peers] = support::free_addresses::<1>();
    let member = [
        ("CORONET_LISTEN_PEERS", peers.as_str()),
        ("CORONET_CLUSTER_NODES", peers.as_str()),
        ("CORONET_CLUSTER_REPLICAS", "1"),
    ];
    let start = |settings: &[(&str, &str)]| {
        let server = support::Server::start_with(dir.path(), settings);
        let client = Client::connect(server.addr.as_str()).unwrap();
        (server, client)
    };
    let put = |client: &Client, name: &str| {
        client.keyspace(name).put(b"k", name.as_bytes()).unwrap();
    };
    let check = |client: &Client, names: &[&str]| {
        for name in names {
            let space = client.keyspace(name);
            wait("the keyspace is served", || space.get(b"k").is_ok());
            assert_eq!(space.get(b"k").unwrap().value(), Some(name.as_bytes()), "{name}");
            assert!(knows(client, name), "{name}");
        }
    };
    let (server, client) = start(&[]);
    client.create_keyspace("alone", &[("ttl", "300d")]).unwrap();
    put(&client, "alone");
    assert!(server.stop().success());

    let (server, client) = start(&member);
    check(&client, &["alone"]);
    client.create_keyspace("together", &[]).unwrap();
    put(&client, "together");
    assert!(server.stop().success());

    let (server, client) = start(&[]);
    check(&client, &["alone", "together"]);
    client.alter_keyspace("together", &[("ttl", "10d")]).unwrap();
    assert!(server.stop().success());

    let (_server, client) = start(&member);
    check(&client, &["alone", "together"]);
    let ttl = |name: &str| {
        let all = client.keyspaces().unwrap();
        let found = all.into_iter().find(|keyspace| keyspace.name == name).unwrap();
        found.settings.into_iter().find(|(setting, _)| setting == "ttl").unwrap().1
    };
    assert_eq!((ttl("alone").as_str(), ttl("together").as_str()), ("300d", "10d"));
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

#[test]
fn a_keyspace_that_is_not_there_is_named_and_ends_with_5() {
    let dir = tempfile::tempdir().unwrap();
    let server = support::Server::start_with(dir.path(), &[]);
    let get: &[&str] = &["get", "--keyspace", "nowhere", "a"];
    let put = &["put", "--keyspace", "nowhere", "a", "1"];
    let set = &["keyspace", "set", "nowhere", "--ttl", "1h"];
    let set_beside = &["keyspace", "set", "nowhere", "--ttl", "1h", "--keyspace", "other"];
    for args in [get, put, set, set_beside] {
        let refused = coronet(&server.addr, args);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(5), "{args:?}: {said}");
        assert!(said.contains("\"nowhere\""), "{args:?}: {said}");
        assert!(!said.contains("default") && !said.contains("other"), "{args:?}: {said}");
    }
}

/// The lengths of the prefixes in the filters of all tables of a checkpoint.
fn prefixes_in(checkpoint: &Path) -> BTreeSet<u64> {
    let tables = |core: std::fs::DirEntry| std::fs::read_dir(core.path()).unwrap().flatten();
    let cores = std::fs::read_dir(checkpoint.join("gen-000001")).unwrap().flatten();
    let paths = cores.flat_map(tables).map(|file| file.path());
    let tables: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "sst")).collect();
    assert!(!tables.is_empty(), "no tables in the checkpoint");
    let output = Command::new(env!("CARGO_BIN_EXE_coronet"))
        .args(["sst", "stats", "--json"])
        .args(&tables)
        .output()
        .expect("coronet runs");
    assert!(output.status.success(), "{output:?}");
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let stats = lines.map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap());
    stats.map(|stats| stats["filter_prefix_bytes"].as_u64().unwrap()).collect()
}

/// Bytes of an engine's key before the user's: the partition.
const PARTITION_BYTES: u64 = 2;

#[test]
fn prefixes_for_filters_are_set_with_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let small = [("CORONET_MEMORY_MEMTABLE", "1 MiB")];
    let server = support::Server::start_with(dir.path(), &small);
    let run = |args: &[&str]| coronet(&server.addr, args);
    let text = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for wrong in ["257", "-1", "some"] {
        let flag = format!("--filter-prefix={wrong}");
        let refused = run(&["keyspace", "create", "docs", &flag]);
        assert_eq!(refused.status.code(), Some(2), "{wrong}: {refused:?}");
    }
    let made = text(&["keyspace", "create", "docs", "--filter-prefix", "8"]);
    assert!(made.starts_with("docs") && made.contains("filter_prefix=8"), "{made}");

    let client = Client::connect(server.addr.as_str()).unwrap();
    let docs = client.keyspace("docs");
    let fill = |round: u8| {
        for n in 0..80 {
            docs.put(&key(n), &vec![round; 64 << 10]).unwrap();
        }
    };
    fill(1);
    text(&["checkpoint", "with"]);
    let with = prefixes_in(&dir.path().join("checkpoints/with"));
    assert_eq!(with, BTreeSet::from([PARTITION_BYTES + 8]));
    let all: Vec<String> = (0..80).map(|n| String::from_utf8(key(n)).unwrap()).collect();
    let listed = |prefix: &str| -> Vec<String> {
        let keys = text(&["ls", "--keyspace", "docs", prefix]);
        let mut keys: Vec<String> = keys.lines().map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    };
    // Shorter than what the filters know, as long, longer, and nothing.
    assert_eq!(listed("key/"), all);
    assert_eq!(listed("key/0000"), all[..10]);
    assert_eq!(listed("key/00012"), all[12..13]);
    assert_eq!(listed("key/9999"), all[..0]);

    let changed = text(&["keyspace", "set", "docs", "--filter-prefix", "5"]);
    assert!(changed.contains("filter_prefix=5"), "{changed}");
    assert!(text(&["keyspace", "ls"]).contains("filter_prefix=5"));
    fill(2);
    text(&["checkpoint", "other"]);
    let other = prefixes_in(&dir.path().join("checkpoints/other"));
    assert!(other.contains(&(PARTITION_BYTES + 5)), "new tables have the new length: {other:?}");
    assert_eq!(listed("key/0000"), all[..10]);
    assert!(!text(&["keyspace", "set", "docs", "--filter-prefix="]).contains("filter_prefix"));
    assert_eq!(listed("key/0000"), all[..10]);
}
