//! Scans that filters spare tables: the same answers, fewer tables.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod engine_support;

use coronet_lsm::{
    EngineStats, KeyspaceId, KeyspaceOptions, Options, ScanOptions, ScanRange, WriteBatch,
};
use coronet_sim::Sim;
use engine_support::{TestEngine, collect, open, write};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Level 0 keeps what is flushed until the test merges it.
fn options() -> Options {
    let compaction = Options::tiny_policy("leveled(fanout=4)").level0(30);
    Options { compaction, cache_bytes: 1 << 20, l0_slowdown: 90, l0_stop: 99, ..Options::tiny() }
}

/// Merges everything, and lets level 0 grow again.
async fn merge(engine: &TestEngine) {
    engine.set_policy(Options::tiny_policy("leveled(fanout=4)").level0(1)).await.unwrap();
    engine.compact().await.unwrap();
    engine.set_policy(options().compaction).await.unwrap();
}

async fn set_prefix(engine: &TestEngine, bytes: u32) {
    let options =
        KeyspaceOptions { filter_prefix_bytes: Some(bytes), ..KeyspaceOptions::default() };
    engine.alter_keyspace(KeyspaceId::DEFAULT, options).await.unwrap();
}

/// Keys of few different bytes, the smallest and the largest among them.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0), Just(7), Just(8), Just(0xff)], 0..6)
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(Vec<u8>, bool)>),
    Prefix(u32),
    Flush,
    Compact,
    Reopen,
    ScanPrefix(Vec<u8>),
    Scan(Vec<u8>, Option<Vec<u8>>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((key(), prop::bool::weighted(0.8)), 1..12).prop_map(Step::Write),
        1 => (0u32..6).prop_map(Step::Prefix),
        3 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        4 => key().prop_map(Step::ScanPrefix),
        4 => (key(), prop::option::of(key())).prop_map(|(start, end)| Step::Scan(start, end)),
    ]
}

/// A scan shows what the map does, forwards, backwards, and from where it is sent.
async fn check(engine: &TestEngine, model: &Model, range: ScanRange) {
    let wanted: Vec<_> = model
        .range(range.start.clone()..)
        .take_while(|(key, _)| range.end.as_ref().is_none_or(|end| *key < end))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(collect(engine, range.clone()).await, wanted, "{range:?}");
    let mut backward = collect(engine, ScanOptions::backward(range.clone())).await;
    backward.reverse();
    assert_eq!(backward, wanted, "{range:?}");
    let mut scan = engine.scan(range.clone()).await.unwrap();
    for (key, value) in &wanted {
        scan.seek(key).await.unwrap();
        assert_eq!(scan.entry(), Some((&key[..], &value[..])), "{range:?}");
        scan.seek_for_prev(key).await.unwrap();
        assert_eq!(scan.entry(), Some((&key[..], &value[..])), "{range:?}");
    }
    scan.seek_for_prev(&range.start).await.unwrap();
    let first = wanted.first().filter(|(key, _)| *key == range.start);
    assert_eq!(scan.entry().map(|(key, _)| key), first.map(|(key, _)| &key[..]));
}

async fn run(env: &coronet_sim::SimEnv, steps: Vec<Step>) {
    let mut engine = open(env, options()).await;
    let mut model = Model::new();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Write(entries) => {
                let mut batch = WriteBatch::new();
                for (key, put) in entries {
                    let value = format!("{n} of {key:?}").into_bytes();
                    if put {
                        batch.put(&key, &value);
                        model.insert(key, value);
                    } else {
                        batch.delete(&key);
                        model.remove(&key);
                    }
                }
                write(env, &engine, &batch).await;
            }
            Step::Prefix(bytes) => set_prefix(&engine, bytes).await,
            Step::Flush => engine.flush().await.unwrap(),
            Step::Compact => merge(&engine).await,
            Step::Reopen => {
                engine.close().await.unwrap();
                engine = open(env, options()).await;
            }
            Step::ScanPrefix(prefix) => check(&engine, &model, ScanRange::prefix(&prefix)).await,
            Step::Scan(start, end) => check(&engine, &model, ScanRange { start, end }).await,
        }
    }
    engine.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn scans_show_what_a_map_does_however_the_option_is_switched(
        steps in prop::collection::vec(step(), 10..80),
    ) {
        let sim = Sim::new(3);
        let env = sim.node_env("a");
        sim.block_on(run(&env, steps));
    }
}

/// Writes some keys and flushes them to a table of their own.
async fn table(env: &coronet_sim::SimEnv, engine: &TestEngine, keys: &[&str]) {
    let mut batch = WriteBatch::new();
    keys.iter().for_each(|key| batch.put(key.as_bytes(), b"value"));
    write(env, engine, &batch).await;
    engine.flush().await.unwrap();
}

/// Scans everything with a prefix: how many keys, and how many tables were skipped and how many
/// asked in vain, forwards and backwards together.
async fn scan(engine: &TestEngine, prefix: &str) -> (usize, u64, u64) {
    let before = engine.stats();
    let range = ScanRange::prefix(prefix.as_bytes());
    let found = collect(engine, range.clone()).await;
    assert!(found.iter().all(|(key, _)| key.starts_with(prefix.as_bytes())));
    let backward = collect(engine, ScanOptions::backward(range)).await;
    assert_eq!(found.len(), backward.len());
    let after = engine.stats();
    let count = |of: fn(&EngineStats) -> u64| of(&after) - of(&before);
    (found.len(), count(|stats| stats.scan_filter_skips), count(|stats| stats.scan_filter_probes))
}

#[test]
fn tables_without_the_prefix_are_not_touched() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, options()).await;
        // The range of every table has every key asked for.
        set_prefix(&engine, 4).await;
        table(&env, &engine, &["a", "bob/1", "bob/2", "z"]).await;
        table(&env, &engine, &["a", "eve/1", "z"]).await;
        set_prefix(&engine, 0).await;
        table(&env, &engine, &["a", "dan/1", "z"]).await;
        set_prefix(&engine, 6).await;
        table(&env, &engine, &["a", "eve/12", "eve/13", "eve/2", "z"]).await;
        assert_eq!(engine.stats().level_tables[0], 4);

        // Twice each: forwards and backwards. The table without prefixes is never asked, the one
        // with six bytes only for so many.
        assert_eq!(scan(&engine, "bob/").await, (2, 2, 2));
        assert_eq!(scan(&engine, "bob/2").await, (1, 2, 2));
        assert_eq!(scan(&engine, "bob/2x").await, (0, 4, 2));
        assert_eq!(scan(&engine, "eve/1").await, (3, 2, 2));
        assert_eq!(scan(&engine, "eve/12").await, (1, 2, 4));
        assert_eq!(scan(&engine, "dan/").await, (1, 4, 0));
        assert_eq!(scan(&engine, "cy/").await, (0, 0, 0));
        assert_eq!(scan(&engine, "cy/-").await, (0, 4, 0));
        assert_eq!(scan(&engine, "").await, (9, 0, 0));

        // A merge writes prefixes of the length of now, for keys that came without, too. Nothing is
        // read for a scan that every table is skipped for.
        set_prefix(&engine, 4).await;
        merge(&engine).await;
        assert_eq!(engine.stats().level_tables.iter().sum::<u64>(), 1);
        let before = engine.stats();
        assert_eq!(scan(&engine, "cat/").await, (0, 2, 0));
        let after = engine.stats();
        assert_eq!(after.cache_hits + after.cache_misses, before.cache_hits + before.cache_misses);
        assert_eq!(scan(&engine, "dan/").await, (1, 0, 2));

        // What was written with prefixes keeps them, whatever is set when it is opened.
        set_prefix(&engine, 0).await;
        engine.close().await.unwrap();
        let engine = open(&env, options()).await;
        assert_eq!(scan(&engine, "cat/").await, (0, 2, 0));
        assert_eq!(scan(&engine, "eve/").await, (4, 0, 2));
        engine.close().await.unwrap();
    });
}

/// Of neighbours in a run only those that may have the prefix are entered.
#[test]
fn a_run_is_narrowed_to_tables_with_the_prefix() {
    let sim = Sim::new(6);
    let env = sim.node_env("a");
    sim.block_on(async {
        let options = Options { filter_prefix_bytes: 4, ..options() };
        let engine = open(&env, options).await;
        for group in 0..8 {
            let mut batch = WriteBatch::new();
            for n in 0..60 {
                let key = format!("{}/{n:04}", group * 2 + 100);
                batch.put(key.as_bytes(), &[group as u8; 900]);
            }
            write(&env, &engine, &batch).await;
        }
        engine.flush().await.unwrap();
        merge(&engine).await;
        let stats = engine.stats();
        assert!(stats.level_tables[1..].iter().any(|tables| *tables > 2), "{stats:?}");
        for group in 0..8 {
            let (found, skips, probes) = scan(&engine, &format!("{}/", group * 2 + 100)).await;
            assert_eq!(found, 60);
            assert!(probes >= 2 && skips <= 2, "{group}: {skips} {probes}");
            // Between two groups: nothing is read for it.
            let blocks = |stats: EngineStats| stats.cache_hits + stats.cache_misses;
            let before = blocks(engine.stats());
            let (found, skips, probes) = scan(&engine, &format!("{}/", group * 2 + 101)).await;
            assert_eq!((found, probes), (0, 0), "{group}: {skips}");
            assert_eq!(blocks(engine.stats()), before, "{group}");
        }
        engine.close().await.unwrap();
    });
}

#[test]
fn a_filter_that_memory_has_no_room_for_skips_nothing() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    sim.block_on(async {
        let options = Options { cache_bytes: 0, filter_prefix_bytes: 2, ..options() };
        let engine = open(&env, options).await;
        table(&env, &engine, &["a", "z"]).await;
        assert!(engine.stats().filters_left_out_bytes > 0);
        assert_eq!(scan(&engine, "k/").await, (0, 0, 0));
        engine.close().await.unwrap();
    });
}

/// The checks above can fail: a filter that denies wrongly hides keys.
#[cfg(debug_assertions)]
#[test]
fn a_filter_that_denies_wrongly_hides_keys() {
    use coronet_probe::{Bug, Watch};
    let _watch = Watch::start(Some(Bug::FilterDeniesPrefix));
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, options()).await;
        set_prefix(&engine, 4).await;
        table(&env, &engine, &["a", "bob/1", "bob/2", "z"]).await;
        assert_eq!(scan(&engine, "bob").await.0, 2);
        assert_eq!(scan(&engine, "bob/").await.0, 0);
        assert_eq!(engine.get(b"bob/1").await.unwrap(), Some(b"value".to_vec()));
        engine.close().await.unwrap();
    });
}
