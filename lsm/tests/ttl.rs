//! Entries with an expiry, wherever they are: log, memtable, tables, merged tables, and after a
//! restart.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::env::Env;
use coronet_lsm::{
    CachedRead, Durability, KeyspaceId, KeyspaceOptions, Millis, Options, ScanOptions, ScanRange,
    WriteBatch,
};
use coronet_sim::{Sim, SimEnv};
use engine_support::{TestEngine, collect, delete, key, open, put, value, write};
use std::time::Duration;

const A: KeyspaceId = KeyspaceId(7);

/// The moment in so many milliseconds.
fn after(env: &SimEnv, millis: u64) -> Millis {
    Millis(env.wall_micros() / 1000 + millis)
}

async fn put_until(env: &SimEnv, engine: &TestEngine, key: &[u8], value: &[u8], until: Millis) {
    let mut batch = WriteBatch::new();
    batch.put_until(key, value, until);
    write(env, engine, &batch).await;
}

async fn sleep_until(env: &SimEnv, moment: Millis) {
    let micros = (moment.0 * 1000).saturating_sub(env.wall_micros());
    env.sleep(Duration::from_micros(micros)).await;
}

/// What every kind of read says of a key; all of them must say the same.
async fn read(engine: &TestEngine, key: &[u8]) -> Option<Vec<u8>> {
    let found = engine.get(key).await.unwrap();
    assert_eq!(engine.get_latest(key).await.unwrap(), found);
    assert_eq!(engine.multi_get(&[key.to_vec()]).await.unwrap(), std::slice::from_ref(&found));
    let cached = engine.get_cached(key, |value| value.map(<[u8]>::to_vec)).unwrap();
    assert!(matches!(cached, CachedRead::Done(value) if value == found), "read a moment ago");
    let all = collect(engine, ScanRange::default()).await;
    let mut backward = collect(engine, ScanOptions::backward(ScanRange::default())).await;
    backward.reverse();
    assert_eq!(backward, all);
    assert_eq!(all.into_iter().find(|(k, _)| k == key).map(|(_, value)| value), found);
    found
}

fn bytes_in_tables(engine: &TestEngine) -> u64 {
    engine.stats().level_bytes.iter().sum()
}

/// Level 0 is merged as soon as it has two tables; level 1 is large enough to be the last.
fn eager() -> Options {
    let policy = Options::tiny_policy("leveled(fanout=4)").level0(2).sized(1 << 20, 32 << 10);
    Options { compaction: policy, ..Options::tiny() }
}

/// Where an entry is when its time comes.
#[derive(Debug, Clone, Copy)]
enum Place {
    Memtable,
    Table,
    Merged,
    /// Replayed from the log.
    Replayed,
    /// In a table that was opened again.
    Reopened,
}

#[test]
fn an_entry_is_there_until_its_moment_wherever_it_is() {
    use Place::*;
    for (seed, place) in [Memtable, Table, Merged, Replayed, Reopened].into_iter().enumerate() {
        let sim = Sim::new(seed as u64);
        let mut env = sim.node_env("a");
        let until = after(&env, 2_000);
        let mut engine = sim.block_on(async {
            let engine = open(&env, eager()).await;
            put(&env, &engine, b"k", b"older and for ever").await;
            engine.flush().await.unwrap();
            put_until(&env, &engine, b"k", b"v", until).await;
            put_until(&env, &engine, b"empty", b"", until).await;
            if matches!(place, Table | Merged | Reopened) {
                engine.flush().await.unwrap();
            }
            if matches!(place, Merged) {
                engine.compact().await.unwrap();
                assert_eq!(engine.stats().level_tables[0], 0, "merged");
            }
            engine
        });
        if matches!(place, Replayed | Reopened) {
            drop(engine);
            env = sim.crash(&env);
            engine = sim.block_on(open(&env, eager()));
        }
        sim.block_on(async {
            assert_eq!(read(&engine, b"k").await, Some(b"v".to_vec()), "{place:?}");
            assert_eq!(read(&engine, b"empty").await, Some(Vec::new()), "{place:?}");
            sleep_until(&env, Millis(until.0 - 1)).await;
            assert_eq!(engine.get(b"k").await.unwrap(), Some(b"v".to_vec()), "{place:?}");
            sleep_until(&env, until).await;
            assert_eq!(read(&engine, b"k").await, None, "{place:?}: nothing older comes back");
            assert_eq!(read(&engine, b"empty").await, None, "{place:?}");
            put(&env, &engine, b"k", b"again").await;
            assert_eq!(read(&engine, b"k").await, Some(b"again".to_vec()), "{place:?}");
        });
    }
}

#[test]
fn what_expired_in_memory_stays_a_delete_until_nothing_older_is_below() {
    let sim = Sim::new(11);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, eager()).await;
        put(&env, &engine, b"k", b"old").await;
        engine.flush().await.unwrap();
        let until = after(&env, 50);
        put_until(&env, &engine, b"k", &value(1, 5_000), until).await;
        sleep_until(&env, until).await;
        let before = engine.stats().flush_bytes;
        engine.flush().await.unwrap();
        assert!(engine.stats().flush_bytes - before < 5 * 4096, "no dead value in the table");
        assert_eq!(read(&engine, b"k").await, None);
        engine.compact().await.unwrap();
        assert_eq!(read(&engine, b"k").await, None);
        assert_eq!(bytes_in_tables(&engine), 0, "neither the value nor its delete is left");
    });
}

#[test]
fn merges_free_the_space_of_what_expired() {
    let sim = Sim::new(12);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, eager()).await;
        let until = after(&env, 5_000);
        for n in 0..300 {
            put_until(&env, &engine, &key(n), &value(n, 600), until).await;
            if n % 100 == 99 {
                engine.flush().await.unwrap();
            }
        }
        put(&env, &engine, &key(150), b"stays").await;
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
        let full = bytes_in_tables(&engine);
        assert!(full > 150_000, "{full} bytes before the moment");
        sleep_until(&env, until).await;
        assert_eq!(collect(&engine, ScanRange::default()).await.len(), 1);
        // Merges over the whole range of keys meet everything there is.
        for round in 0..12 {
            for n in [0, 299] {
                put(&env, &engine, &key(n), &value(round, 300)).await;
            }
            engine.flush().await.unwrap();
            engine.compact().await.unwrap();
        }
        let left = bytes_in_tables(&engine);
        assert!(left < full / 4, "{left} of {full} bytes are left");
        assert_eq!(collect(&engine, ScanRange::default()).await.len(), 3);
    });
}

#[test]
fn an_open_scan_shows_what_had_not_expired_when_it_began() {
    let sim = Sim::new(13);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, eager()).await;
        let until = after(&env, 1_000);
        for n in 0..100 {
            put_until(&env, &engine, &key(n), &value(n, 200), until).await;
        }
        let mut scan = engine.scan(ScanRange::default()).await.unwrap();
        sleep_until(&env, until).await;
        assert_eq!(collect(&engine, ScanRange::default()).await.len(), 0);
        // The flush drops the values; the scan holds the memtable of its moment.
        engine.flush().await.unwrap();
        let mut seen = 0;
        while scan.next().await.unwrap().is_some() {
            seen += 1;
        }
        assert_eq!(seen, 100);
    });
}

#[test]
fn a_clock_that_goes_back_brings_nothing_back() {
    let sim = Sim::new(14);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, eager()).await;
        let until = after(&env, 100);
        put_until(&env, &engine, b"k", b"v", until).await;
        sleep_until(&env, until).await;
        assert_eq!(engine.get(b"k").await.unwrap(), None);
        env.set_wall_offset(-3_600_000_000);
        assert_eq!(read(&engine, b"k").await, None);
        engine.flush().await.unwrap();
        assert_eq!(read(&engine, b"k").await, None);
    });
}

#[test]
fn a_keyspace_gives_its_entries_the_default_that_holds_when_they_are_written() {
    let sim = Sim::new(15);
    let env = sim.node_env("a");
    let ttl = |millis| KeyspaceOptions {
        default_ttl: Some(Duration::from_millis(millis)),
        ..KeyspaceOptions::default()
    };
    sim.block_on(async {
        let engine = open(&env, eager()).await;
        let a = engine.create_keyspace(A, ttl(500)).await.unwrap();
        let written = after(&env, 0);
        a.put(b"short", b"v").unwrap().await.unwrap();
        a.put_until(b"own", b"v", Millis(written.0 + 5_000)).unwrap().await.unwrap();
        engine.alter_keyspace(A, ttl(2_000)).await.unwrap();
        let altered = after(&env, 0);
        a.put(b"long", b"v").unwrap().await.unwrap();
        put(&env, &engine, b"default keyspace", b"v").await;
        a.flush().await.unwrap();
        engine.alter_keyspace(A, KeyspaceOptions::default()).await.unwrap();
        a.put(b"for ever", b"v").unwrap().await.unwrap();
        let shown = async || {
            let keys = [b"short".to_vec(), b"long".to_vec(), b"own".to_vec(), b"for ever".to_vec()];
            let values = a.multi_get(&keys).await.unwrap();
            values.iter().map(|value| value.is_some()).collect::<Vec<_>>()
        };
        sleep_until(&env, Millis(written.0 + 499)).await;
        assert_eq!(shown().await, [true; 4]);
        sleep_until(&env, Millis(altered.0 + 600)).await;
        assert_eq!(shown().await, [false, true, true, true]);
        sleep_until(&env, Millis(altered.0 + 2_100)).await;
        assert_eq!(shown().await, [false, false, true, true]);
        sleep_until(&env, Millis(written.0 + 5_000)).await;
        assert_eq!(shown().await, [false, false, false, true]);
        assert_eq!(read(&engine, b"default keyspace").await, Some(b"v".to_vec()));
    });
}

#[test]
fn a_batch_with_and_without_expiry_is_replayed_as_it_was() {
    let sim = Sim::new(16);
    let env = sim.node_env("a");
    let until = after(&env, 10_000);
    sim.block_on(async {
        let engine = open(&env, eager()).await;
        engine.create_keyspace(A, KeyspaceOptions::default()).await.unwrap();
        let mut batch = WriteBatch::new();
        batch.put(b"plain", b"1");
        batch.put_until(b"timed", b"2", until);
        batch.in_keyspace(A).put_until(b"timed", b"3", Millis(until.0 + 1_000));
        batch.put_until(b"dead on arrival", b"4", Millis(1));
        engine.write(&batch, Durability::Durable).unwrap().await.unwrap();
        delete(&env, &engine, b"nothing").await;
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, eager()).await;
        let a = engine.keyspace(A).unwrap();
        assert_eq!(read(&engine, b"plain").await, Some(b"1".to_vec()));
        assert_eq!(read(&engine, b"timed").await, Some(b"2".to_vec()));
        assert_eq!(a.get(b"timed").await.unwrap(), Some(b"3".to_vec()));
        assert_eq!(a.get(b"dead on arrival").await.unwrap(), None);
        sleep_until(&env, until).await;
        assert_eq!(read(&engine, b"timed").await, None);
        assert_eq!(a.get(b"timed").await.unwrap(), Some(b"3".to_vec()));
        sleep_until(&env, Millis(until.0 + 1_000)).await;
        assert_eq!(a.get(b"timed").await.unwrap(), None);
    });
}
