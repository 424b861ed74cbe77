//! Keyspaces: several trees over one log, created, altered and dropped while others work.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::env::Env;
use coronet_lsm::{
    Durability, Engine, Error, Keyspace, KeyspaceId, KeyspaceOptions, Options, ScanRange,
    WriteBatch,
};
use coronet_sim::{Sim, SimEnv};
use engine_support::{DIR, TestEngine, key, open, put, value, write};
use std::time::Duration;

const A: KeyspaceId = KeyspaceId(7);
const B: KeyspaceId = KeyspaceId(9);

fn own() -> KeyspaceOptions {
    KeyspaceOptions::default()
}

/// Writes through the handle, however often the engine is busy.
async fn put_in(env: &SimEnv, keyspace: &Keyspace<SimEnv>, key: &[u8], value: &[u8]) {
    loop {
        match keyspace.put(key, value) {
            Ok(commit) => {
                commit.await.unwrap();
                return;
            }
            Err(Error::Busy { retry_after_ms }) => {
                env.sleep(Duration::from_millis(retry_after_ms.into())).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

async fn count(keyspace: &Keyspace<SimEnv>) -> usize {
    let mut scan = keyspace.scan(ScanRange::default()).await.unwrap();
    let mut count = 0;
    while scan.next().await.unwrap().is_some() {
        count += 1;
    }
    count
}

fn files(env: &SimEnv, ending: &str) -> usize {
    let files = env.disk().files();
    files.iter().filter(|path| path.to_string_lossy().ends_with(ending)).count()
}

#[test]
fn the_same_key_has_its_own_value_in_every_keyspace_and_after_a_restart() {
    let sim = Sim::new(1);
    let env = sim.node_env("a");
    let check = async |engine: &TestEngine| {
        let (a, b) = (engine.keyspace(A).unwrap(), engine.keyspace(B).unwrap());
        assert_eq!(engine.get(b"k").await.unwrap(), Some(b"default".to_vec()));
        assert_eq!(a.get(b"k").await.unwrap(), Some(b"in a".to_vec()));
        assert_eq!(b.get(b"k").await.unwrap(), None);
        assert_eq!(b.multi_get(&[b"only b".to_vec()]).await.unwrap(), [Some(b"b".to_vec())]);
        assert_eq!((count(&a).await, count(&b).await), (1, 1));
    };
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        assert!(matches!(engine.keyspace(A), Err(Error::Keyspace { id: A, .. })));
        let a = engine.create_keyspace(A, own()).await.unwrap();
        let b = engine.create_keyspace(B, own()).await.unwrap();
        let again = engine.create_keyspace(A, own()).await;
        assert!(matches!(again, Err(Error::Keyspace { id: A, .. })));
        put(&env, &engine, b"k", b"default").await;
        put_in(&env, &a, b"k", b"in a").await;
        put_in(&env, &b, b"only b", b"b").await;
        check(&engine).await;
        a.flush().await.unwrap();
        assert_eq!((a.stats().flushes, b.stats().flushes, engine.stats().flushes), (1, 0, 1));
        check(&engine).await;
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        check(&engine).await;
        engine.flush().await.unwrap();
        check(&engine).await;
        let ids: Vec<_> = engine.keyspaces().await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [KeyspaceId::DEFAULT, A, B]);
    });
}

#[test]
fn a_batch_over_several_keyspaces_is_one_write() {
    let sim = Sim::new(2);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        let a = engine.create_keyspace(A, own()).await.unwrap();
        put_in(&env, &a, b"gone", b"x").await;
        let mut batch = WriteBatch::new();
        batch.put(b"k", b"default");
        batch.in_keyspace(A).put(b"k", b"in a");
        batch.delete(b"gone");
        let before = engine.stats();
        let commit = engine.write(&batch, Durability::Durable).unwrap();
        assert_eq!(a.get(b"k").await.unwrap(), None);
        assert_eq!(a.get_latest(b"k").await.unwrap(), Some(b"in a".to_vec()));
        assert_eq!(a.get(b"gone").await.unwrap(), Some(b"x".to_vec()));
        commit.await.unwrap();
        assert_eq!(a.get(b"k").await.unwrap(), Some(b"in a".to_vec()));
        assert_eq!(a.get(b"gone").await.unwrap(), None);
        assert_eq!(engine.get(b"k").await.unwrap(), Some(b"default".to_vec()));
        assert_eq!(engine.stats().writes - before.writes, 1);
        // A keyspace that is not there refuses the whole batch.
        batch.in_keyspace(B).put(b"k", b"nowhere");
        batch.in_keyspace(KeyspaceId::DEFAULT).put(b"k", b"not applied");
        let refused = engine.write(&batch, Durability::Durable);
        assert!(matches!(refused, Err(Error::Keyspace { id: B, .. })));
        assert_eq!(engine.get_latest(b"k").await.unwrap(), Some(b"default".to_vec()));
    });
}

#[test]
fn a_quiet_keyspace_does_not_hold_the_log() {
    let sim = Sim::new(3);
    let env = sim.node_env("a");
    let options = Options::tiny();
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        let a = engine.create_keyspace(A, own()).await.unwrap();
        put_in(&env, &a, b"quiet", b"waits").await;
        let mut most = 0;
        for n in 0..4_000 {
            put(&env, &engine, &key(n % 300), &value(n, 700)).await;
            most = most.max(engine.stats().log_segments);
        }
        // The budget, what comes while the flush runs, and the active segment.
        let limit = options.log_bytes / options.log_segment_bytes + 4;
        assert!(most <= limit, "{most} log segments, {limit} are allowed");
        assert_eq!(a.stats().flushes, 1);
        assert_eq!(a.get(b"quiet").await.unwrap(), Some(b"waits".to_vec()));
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        let a = engine.keyspace(A).unwrap();
        assert_eq!(a.get(b"quiet").await.unwrap(), Some(b"waits".to_vec()));
    });
}

#[test]
fn all_keyspaces_together_keep_to_the_memory_budget() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    let options = Options { memtable_bytes: 256 << 10, ..Options::tiny() };
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        let mut keyspaces = Vec::new();
        for id in 1..=6 {
            keyspaces.push(engine.create_keyspace(KeyspaceId(id), own()).await.unwrap());
        }
        for n in 0..3_000 {
            let keyspace = &keyspaces[n as usize % keyspaces.len()];
            put_in(&env, keyspace, &key(n), &value(n, 300)).await;
            let held = engine.stats().memtable_bytes;
            // Active ones within the budget, frozen ones on their way out beside them.
            assert!(held < 3 * options.memtable_bytes as u64, "{held} bytes of memtables");
        }
        assert!(engine.stats().flushes >= 3);
    });
}

#[test]
fn a_dropped_keyspace_frees_its_files_and_its_number() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        let a = engine.create_keyspace(A, own()).await.unwrap();
        for n in 0..500 {
            put_in(&env, &a, &key(n), &value(n, 500)).await;
        }
        a.flush().await.unwrap();
        put_in(&env, &a, b"in the log only", b"x").await;
        assert!(files(&env, ".sst") > 0);
        let mut scan = a.scan(ScanRange::default()).await.unwrap();
        engine.drop_keyspace(A).await.unwrap();
        assert!(matches!(a.get(b"k").await, Err(Error::Keyspace { id: A, .. })));
        assert!(matches!(a.put(b"k", b"v"), Err(Error::Keyspace { id: A, .. })));
        assert!(matches!(engine.keyspace(A), Err(Error::Keyspace { id: A, .. })));
        let mut seen = 0;
        while scan.next().await.unwrap().is_some() {
            seen += 1;
        }
        assert_eq!(seen, 501, "an open scan stays readable");
        drop((scan, a));
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(files(&env, ".sst"), 0, "tables of a dropped keyspace are removed");
        let dropped = engine.drop_keyspace(KeyspaceId::DEFAULT).await;
        assert!(matches!(dropped, Err(Error::Keyspace { .. })));
        let again = engine.create_keyspace(A, own()).await.unwrap();
        assert_eq!(count(&again).await, 0);
        put_in(&env, &again, b"new", b"life").await;
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        let a = engine.keyspace(A).unwrap();
        assert_eq!(count(&a).await, 1, "the log's old entries belong to nobody");
        assert_eq!(a.get(b"new").await.unwrap(), Some(b"life".to_vec()));
        engine.drop_keyspace(A).await.unwrap();
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        assert!(matches!(engine.keyspace(A), Err(Error::Keyspace { id: A, .. })));
    });
}

#[test]
fn options_are_checked_changed_live_and_kept() {
    let sim = Sim::new(6);
    let env = sim.node_env("a");
    let small = KeyspaceOptions { memtable_percent: Some(25), ..own() };
    sim.block_on(async {
        let engine = open(&env, Options { memtable_bytes: 400 << 10, ..Options::tiny() }).await;
        let bad = KeyspaceOptions { block_bytes: Some(1), ..own() };
        let refused = engine.create_keyspace(A, bad.clone()).await;
        assert!(matches!(refused, Err(Error::BadOptions(what)) if what.contains("block_bytes")));
        let a = engine.create_keyspace(A, own()).await.unwrap();
        let refused = engine.alter_keyspace(A, bad).await;
        assert!(matches!(refused, Err(Error::BadOptions(_))));
        for n in 0..100 {
            put_in(&env, &a, &key(n), &value(n, 1500)).await;
        }
        assert_eq!(a.stats().flushes, 0);
        engine.alter_keyspace(A, small.clone()).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(a.stats().flushes, 1, "the memtable is over its new share");
        engine.close().await.unwrap();
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        assert_eq!(engine.keyspaces().await[1], (A, small));
    });
}

#[test]
fn buffered_is_the_default_where_a_keyspace_says_so() {
    let sim = Sim::new(7);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        let options = KeyspaceOptions { durability: Some(Durability::Buffered), ..own() };
        let a = engine.create_keyspace(A, options).await.unwrap();
        let b = engine.create_keyspace(B, own()).await.unwrap();
        a.put(b"k", b"v").unwrap().await.unwrap();
        assert_eq!(engine.stats().log_syncs, 0);
        b.delete(b"k").unwrap().await.unwrap();
        assert_eq!(engine.stats().log_syncs, 1);
    });
}

#[test]
fn a_change_of_cores_keeps_keyspaces() {
    let sim = Sim::new(8);
    let env = sim.node_env("a");
    let options = KeyspaceOptions { block_bytes: Some(2048), ..own() };
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        let a = engine.create_keyspace(A, options.clone()).await.unwrap();
        put(&env, &engine, b"k", b"default").await;
        put_in(&env, &a, b"k", b"in a").await;
        let mut batch = WriteBatch::new();
        batch.in_keyspace(A).put(b"z", b"other half");
        write(&env, &engine, &batch).await;
        engine.flush().await.unwrap();
        engine.close().await.unwrap();
        let dest = std::path::Path::new("/data/new");
        let range = ScanRange { start: Vec::new(), end: Some(b"m".to_vec()) };
        let sources = [std::path::PathBuf::from(DIR)];
        coronet_lsm::reshard::link_into(&env, &sources, dest, &range, &Options::tiny())
            .await
            .unwrap();
        let engine = Engine::open(env.clone(), dest, Options::tiny()).await.unwrap();
        let a = engine.keyspace(A).unwrap();
        assert_eq!(engine.get(b"k").await.unwrap(), Some(b"default".to_vec()));
        assert_eq!(a.get(b"k").await.unwrap(), Some(b"in a".to_vec()));
        assert_eq!(a.get(b"z").await.unwrap(), None);
        assert_eq!(engine.keyspaces().await[1], (A, options));
    });
}

#[test]
fn a_flush_of_one_keyspace_does_not_tear_a_batch_apart() {
    for seed in 20..30 {
        let sim = Sim::new(seed);
        let env = sim.node_env("a");
        let options = Options { sync_interval: Duration::from_secs(60), ..Options::tiny() };
        sim.block_on(async {
            let engine = open(&env, options.clone()).await;
            let a = engine.create_keyspace(A, own()).await.unwrap();
            let mut batch = WriteBatch::new();
            batch.put(b"k", b"default");
            batch.in_keyspace(A).put(b"k", b"in a");
            engine.write(&batch, Durability::Buffered).unwrap().await.unwrap();
            a.flush().await.unwrap();
        });
        // Nothing asked for a sync but the flush.
        let env = sim.crash(&env);
        sim.block_on(async {
            let engine = open(&env, options.clone()).await;
            let a = engine.keyspace(A).unwrap();
            assert_eq!(a.get(b"k").await.unwrap(), Some(b"in a".to_vec()));
            assert_eq!(engine.get(b"k").await.unwrap(), Some(b"default".to_vec()));
        });
    }
}
