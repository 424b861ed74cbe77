//! The space of entries that have expired comes back where nobody writes, and nothing they hid
//! comes back to light.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::env::{Env, PAGE};
use coronet_lsm::{Engine, Millis, Options, ScanRange, WriteBatch};
use coronet_sim::{Faults, Rng, Sim, SimEnv, for_each_seed};
use engine_support::{TestEngine, collect, key, open, policy, put, value, write};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Runs that come together by themselves only when there are four.
fn lazy() -> Options {
    let policy = Options::tiny_policy("tiered(fanout=4)").level0(4).sized(4 << 20, 32 << 10);
    Options { compaction: policy, memtable_bytes: 1 << 20, ..Options::tiny() }
}

/// The moment in so many milliseconds.
fn after(env: &SimEnv, millis: u64) -> Millis {
    Millis(env.wall_micros() / 1000 + millis)
}

async fn sleep_until(env: &SimEnv, moment: Millis) {
    let micros = (moment.0 * 1000).saturating_sub(env.wall_micros());
    env.sleep(Duration::from_micros(micros)).await;
}

async fn put_all(
    env: &SimEnv,
    engine: &TestEngine,
    keys: impl Iterator<Item = u64>,
    until: Option<Millis>,
) {
    for n in keys {
        let mut batch = WriteBatch::new();
        match until {
            Some(until) => batch.put_until(&key(n), &value(n, 500), until),
            None => batch.put(&key(n), &value(n, 500)),
        }
        write(env, engine, &batch).await;
    }
    engine.flush().await.unwrap();
}

fn bytes_in_tables(engine: &TestEngine) -> u64 {
    engine.stats().level_bytes.iter().sum()
}

#[test]
fn tables_of_what_has_expired_are_dropped_without_a_write() {
    let sim = Sim::new(1);
    let mut env = sim.node_env("a");
    let until = after(&env, 30_000);
    let engine = sim.block_on(async {
        let engine = open(&env, lazy()).await;
        put_all(&env, &engine, 0..100, Some(until)).await;
        put_all(&env, &engine, 50..150, Some(until)).await;
        env.sleep(Duration::from_secs(10)).await;
        engine
    });
    drop(engine);
    env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, lazy()).await;
        assert!(bytes_in_tables(&engine) > 90_000, "nothing goes before its time");
        let mut scan = engine.scan(ScanRange::default()).await.unwrap();
        sleep_until(&env, until).await;
        env.sleep(Duration::from_secs(2)).await;
        let stats = engine.stats();
        assert_eq!((stats.table_bytes, stats.compaction_write_bytes), (0, 0), "{stats:?}");
        assert_eq!(collect(&engine, ScanRange::default()).await, []);
        // Who began before still sees what was there.
        let mut seen = 0;
        while scan.next().await.unwrap().is_some() {
            seen += 1;
        }
        assert_eq!(seen, 150);
    });
}

#[test]
fn what_expired_goes_on_hiding_older_versions_without_its_values() {
    let sim = Sim::new(2);
    let mut env = sim.node_env("a");
    let engine = sim.block_on(async {
        let engine = open(&env, lazy()).await;
        put_all(&env, &engine, 0..50, None).await;
        let until = after(&env, 5_000);
        put_all(&env, &engine, 0..100, Some(until)).await;
        let full = bytes_in_tables(&engine);
        sleep_until(&env, until).await;
        env.sleep(Duration::from_secs(2)).await;
        assert_eq!(engine.stats().level_runs[0], 2, "both are where they were");
        let left = bytes_in_tables(&engine);
        assert!(left * 3 < full * 2, "{left} of {full} bytes are left");
        assert_eq!(collect(&engine, ScanRange::default()).await, []);
        engine
    });
    drop(engine);
    env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, lazy()).await;
        assert_eq!(collect(&engine, ScanRange::default()).await, []);
        put(&env, &engine, &key(200), b"stays").await;
        let one_run = Options::tiny_policy("leveled(fanout=4)").level0(1).sized(4 << 20, 32 << 10);
        engine.flush().await.unwrap();
        engine.set_policy(one_run).await.unwrap();
        engine.compact().await.unwrap();
        let found = collect(&engine, ScanRange::default()).await;
        assert_eq!(found, [(key(200), b"stays".to_vec())]);
        assert!(bytes_in_tables(&engine) <= 5 * 4096, "nothing else is left");
    });
}

#[test]
fn a_table_of_which_half_has_expired_is_written_anew_alone_and_once() {
    let sim = Sim::new(3);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, lazy()).await;
        put_all(&env, &engine, 200..300, None).await;
        let until = after(&env, 5_000);
        let mut batch = WriteBatch::new();
        for n in 0..90 {
            batch.put_until(&key(n), &value(n, 500), if n < 60 { until } else { Millis(1 << 50) });
        }
        write(&env, &engine, &batch).await;
        engine.flush().await.unwrap();
        let (full, written) = (bytes_in_tables(&engine), engine.stats().compaction_write_bytes);
        sleep_until(&env, until).await;
        env.sleep(Duration::from_secs(2)).await;
        let left = bytes_in_tables(&engine);
        assert!(left + 25_000 < full, "{left} of {full} bytes are left");
        let steps = engine.stats().compaction_steps;
        assert!(steps >= 1 && engine.stats().compaction_write_bytes - written < 50_000);
        env.sleep(Duration::from_secs(300)).await;
        assert_eq!(engine.stats().compaction_steps, steps, "nothing is written again");
        assert_eq!(collect(&engine, ScanRange::default()).await.len(), 130);
    });
}

#[test]
fn a_checkpoint_keeps_when_its_tables_expire() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, lazy()).await;
        let until = after(&env, 30_000);
        put_all(&env, &engine, 0..100, Some(until)).await;
        engine.checkpoint(Path::new("/data/copy")).await.unwrap();
        let copy = Engine::open(env.clone(), Path::new("/data/copy"), lazy()).await.unwrap();
        assert!(bytes_in_tables(&copy) > 50_000);
        sleep_until(&env, until).await;
        env.sleep(Duration::from_secs(2)).await;
        assert_eq!((bytes_in_tables(&copy), copy.stats().compaction_write_bytes), (0, 0));
    });
}

/// A table is being written anew and finds no room for it; another one that goes makes the room.
#[test]
fn what_goes_by_an_edit_does_not_wait_for_what_needs_space() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    let options = Options { full_probe_interval: Duration::from_millis(100), ..lazy() };
    sim.block_on(async {
        let engine = open(&env, options).await;
        let (first, second) = (after(&env, 10_000), after(&env, 20_000));
        let mut batch = WriteBatch::new();
        for n in 0..90 {
            let until = if n < 60 { first } else { Millis(1 << 50) };
            batch.put_until(&key(n), &value(n, 500), until);
        }
        write(&env, &engine, &batch).await;
        engine.flush().await.unwrap();
        put_all(&env, &engine, 100..200, Some(second)).await;
        env.sleep(Duration::from_secs(1)).await;
        // Enough for edits of the manifest, not for a table.
        let capacity = Some(env.disk().used() + 3 * PAGE as u64);
        env.disk().set_faults(Faults { capacity, ..Faults::none() });
        let full = bytes_in_tables(&engine);
        sleep_until(&env, first).await;
        env.sleep(Duration::from_secs(5)).await;
        assert!(engine.stats().background_errors > 0, "the disk is full");
        assert_eq!(bytes_in_tables(&engine), full);
        sleep_until(&env, second).await;
        env.sleep(Duration::from_secs(5)).await;
        let left = bytes_in_tables(&engine);
        assert!(left < full / 4, "{left} of {full} bytes are left");
        assert_eq!(collect(&engine, ScanRange::default()).await.len(), 30);
    });
}

/// A value and the moment it goes.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, Millis)>;

/// Moments lie between the moments of looks.
const STEP: u64 = 100;

async fn check(env: &SimEnv, engine: &TestEngine, model: &Model) {
    let now = Millis((env.wall_micros() / 1000 + STEP) / STEP * STEP);
    sleep_until(env, now).await;
    let shown = model.iter().filter(|(_, (_, until))| *until > now);
    let expected: Vec<_> = shown.map(|(key, (value, _))| (key.clone(), value.clone())).collect();
    assert_eq!(collect(engine, ScanRange::default()).await, expected);
}

async fn step(env: &SimEnv, engine: &TestEngine, rng: &mut Rng, model: &mut Model, for_ever: bool) {
    match rng.below(20) {
        0..10 => {
            let now = after(env, 0).0 / STEP * STEP;
            let mut batch = WriteBatch::new();
            for _ in 0..rng.range(1, 30) {
                let (k, v) = (key(rng.below(120)), value(rng.next_u64(), 200));
                let until = Millis(now + (2 + rng.below(100)) * STEP + STEP / 2);
                match rng.below(8) {
                    0 => {
                        batch.delete(&k);
                        model.remove(&k);
                    }
                    1 if for_ever => {
                        batch.put(&k, &v);
                        model.insert(k, (v, Millis(u64::MAX)));
                    }
                    _ => {
                        batch.put_until(&k, &v, until);
                        model.insert(k, (v, until));
                    }
                }
            }
            write(env, engine, &batch).await;
        }
        10..14 => engine.flush().await.unwrap(),
        14 => engine.set_policy(policy(rng)).await.unwrap(),
        15 => engine.compact().await.unwrap(),
        16..18 => env.sleep(Duration::from_millis(rng.below(4_000))).await,
        _ => check(env, engine, model).await,
    }
}

/// Without entries that stay for ever there is nothing left in the end.
fn random_history(seed: u64) {
    let sim = Sim::new(seed);
    let mut rng = sim.rng();
    let mut env = sim.node_env("a");
    let mut model = Model::new();
    let for_ever = seed.is_multiple_of(2);
    for life in 0..3 {
        sim.block_on(async {
            let engine = open(&env, Options::tiny()).await;
            check(&env, &engine, &model).await;
            for _ in 0..rng.range(20, 120) {
                step(&env, &engine, &mut rng, &mut model, for_ever).await;
            }
            if life == 2 {
                engine.flush().await.unwrap();
                env.sleep(Duration::from_secs(30)).await;
                check(&env, &engine, &model).await;
                let stats = engine.stats();
                assert!(for_ever || stats.table_bytes == 0, "{stats:?}");
            }
        });
        env = if rng.below(2) == 0 { sim.crash(&env) } else { sim.kill(&env) };
    }
}

#[test]
fn random_histories_match_a_map_while_time_goes_by() {
    for_each_seed(0..40, random_history);
}
