//! Keyspaces of whole simulated clusters: dropped while a node is away, created again under the same
//! name, processes killed or without power in between. `CORONET_SIM_SEED=7` repeats one seed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_net::codec::{KeyspaceAction, KeyspaceRequest, Put, Request, Settings, Versions};
use coronet_net::{ErrorCode, Op, Quorum, RequestHead, Status};
use coronet_ring::KeyspaceId;
use coronet_sim::for_each_seed;
use coronet_tools::sim::cluster::Options;
use coronet_tools::sim::cluster::reading::{connect, strict};
use coronet_tools::sim::cluster::world::World;
use coronet_tools::sim::{Client, Reply};

const NAME: &str = "docs";
const OLD: &[u8] = b"old";
const NEW: &[u8] = b"new";

/// Three nodes that have met, without any faults but those of the test.
fn founded(seed: u64) -> World {
    let faults = Some(Vec::new());
    let options = Options { nodes: Some(3), faults, millis: Some(1_000), ..Options::default() };
    let mut world = World::new(seed, &options);
    for host in 0..3 {
        let env = world.hosts[host].env.clone();
        world.sim.block_on(async {
            env.create_dir_all(Path::new("/var")).await.unwrap();
            env.sync_dir(Path::new("/")).await.unwrap();
        });
        world.start(host);
    }
    world.pass(Duration::from_secs(3));
    world
}

/// Has a client of a node do something.
fn at<T>(world: &World, host: usize, work: impl AsyncFnOnce(Rc<Client>) -> T) -> T {
    let network = world.directory.borrow()[host].clone().expect("the node runs");
    let env = world.sim.node_env("client");
    world.sim.block_on(async {
        let client = connect(&env, &network).await.expect("it answers");
        work(client).await
    })
}

fn outcome(reply: Option<Reply>) -> Result<Reply, ErrorCode> {
    let reply = reply.expect("an answer");
    match reply.head.status {
        Status::Error(code) => Err(code),
        Status::Ok | Status::NotFound => Ok(reply),
    }
}

fn define(world: &World, host: usize, action: KeyspaceAction) -> Result<Reply, ErrorCode> {
    at(world, host, async |client| {
        let request = KeyspaceRequest { action, name: NAME, settings: Settings::NONE };
        let head = RequestHead::new(Op::Keyspace, 0);
        outcome(client.call(&Request::Keyspace(request), &head, None).await)
    })
}

fn head(op: Op) -> RequestHead {
    let keyspace = KeyspaceId::of(NAME);
    RequestHead { keyspace, deadline_us: 2_000_000, ..RequestHead::new(op, 0) }
}

fn put(world: &World, host: usize, keys: std::ops::Range<u8>, value: &[u8]) {
    at(world, host, async |client| {
        for n in keys {
            let request = Request::Put(Put { key: &[b'k', n], context: b"", value });
            // Some replica may be away: only some of these arrive there.
            let _ = outcome(client.call(&request, &head(Op::Put), None).await);
        }
    });
}

/// What a node answers for a key when one replica, or all, are asked.
fn get(world: &World, host: usize, n: u8, r: Quorum) -> Result<Vec<Vec<u8>>, ErrorCode> {
    let reply = at(world, host, async |client| {
        let head = RequestHead { r, consistency: strict(), ..head(Op::Get) };
        outcome(client.call(&Request::Get { key: &[b'k', n] }, &head, None).await)
    })?;
    let versions = Versions::decode(&reply.body).expect("versions");
    Ok(versions.iter().map(|version| version.value.to_vec()).collect())
}

#[test]
fn what_was_dropped_does_not_come_back_with_a_node_that_was_away() {
    for_each_seed(0..24, |seed| {
        let mut world = founded(seed);
        let (again, power) = (seed % 2 == 0, seed % 3 == 0);
        define(&world, 0, KeyspaceAction::Create).unwrap();
        put(&world, 1, 0..30, OLD);
        world.end(2, power);
        put(&world, 0, 30..40, OLD); // kept as hints for the one that is away
        define(&world, 0, KeyspaceAction::Drop).unwrap();
        assert_eq!(get(&world, 0, 1, Quorum(1)), Err(ErrorCode::UnknownKeyspace), "seed {seed}");
        if again {
            define(&world, 1, KeyspaceAction::Create).unwrap();
            put(&world, 1, 0..5, NEW);
        }
        // What was answered is on disk.
        world.end(0, power);
        world.end(1, !power);
        (0..3).for_each(|host| world.start(host));
        world.pass(Duration::from_secs(20));
        for host in 0..3 {
            for n in 0..40 {
                for r in [Quorum(1), Quorum::ALL] {
                    let found = get(&world, host, n, r);
                    let right = match &found {
                        Err(code) => !again && *code == ErrorCode::UnknownKeyspace,
                        Ok(values) => again && values.iter().all(|value| value == NEW),
                    };
                    assert!(right, "seed {seed}, node {host}, key {n}: {found:?}");
                }
            }
        }
        if again {
            let kept = (0..5).filter(|n| !get(&world, 0, *n, Quorum::ALL).unwrap().is_empty());
            assert!(kept.count() > 0, "seed {seed}: nothing of the new one is there");
        }
    });
}
