//! Blocks that the disk refuses to read while merges need them: nothing else waits for them, they
//! are given up late, and nothing is lost that can still be read.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod engine_support;

use coronet_lsm::env::Env;
use coronet_lsm::inspect::check_table;
use coronet_lsm::{CompactionPolicy, Error, Options, ScanRange, WriteBatch};
use coronet_sim::{Sim, SimEnv};
use engine_support::{TestEngine, key, open, value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const KEYS: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(4);

fn options() -> Options {
    Options {
        memtable_bytes: 32 << 10,
        compaction: CompactionPolicy::leveled().sized(128 << 10, 64 << 10),
        scrub_bytes_per_second: 0,
        full_probe_interval: Duration::from_millis(20),
        unreadable_patience: PATIENCE,
        ..Options::tiny()
    }
}

/// What keys hold; beside the engine.
type Model = BTreeMap<u64, Vec<u8>>;

/// Writes these keys in one batch, with values that follow from `seed`.
async fn write(
    env: &SimEnv,
    engine: &TestEngine,
    model: &mut Model,
    keys: impl Iterator<Item = u64>,
    seed: u64,
) {
    let mut batch = WriteBatch::new();
    for n in keys {
        let bytes = value(seed ^ n, 200);
        batch.put(&key(n), &bytes);
        model.insert(n, bytes);
    }
    engine_support::write(env, engine, &batch).await;
}

/// An engine with one version of every key on deep levels, closed; what it holds.
async fn build(env: &SimEnv) -> Model {
    let engine = open(env, options()).await;
    let mut model = Model::new();
    for first in (0..KEYS).step_by(20) {
        // In no order, so that the tables are merged.
        let keys = (first..first + 20).map(|n| n * 919 % KEYS);
        write(env, &engine, &mut model, keys, 0).await;
    }
    engine.flush().await.unwrap();
    engine.compact().await.unwrap();
    // Until the merged tables are removed.
    env.sleep(Duration::from_secs(1)).await;
    engine.close().await.unwrap();
    model
}

fn files(env: &SimEnv, extension: &str) -> Vec<PathBuf> {
    let mut files = env.disk().files();
    files.retain(|path| path.extension().is_some_and(|ext| ext == extension));
    files
}

/// A table and a block inside it, with the first such key from `n` on. What is read together with
/// the index is not meant: opening needs it.
fn place(env: &SimEnv, n: u64) -> (PathBuf, u64) {
    let mut places = Vec::new();
    for path in files(env, "sst") {
        let mut found = Vec::new();
        let bytes = env.disk().read_raw(&path).unwrap();
        check_table(&bytes, |block, entry| found.push((entry.key.to_vec(), block)));
        let (first, last) = (found[0].1, found[found.len() - 1].1);
        found.retain(|(key, block)| *key >= self::key(n) && *block > first && block + 8192 < last);
        places.extend(found.into_iter().map(|(key, block)| (key, path.clone(), block)));
    }
    let (_, path, block) = places.into_iter().min().unwrap();
    (path, block)
}

/// Which keys cannot be read; every other one must be right.
async fn unreadable(engine: &TestEngine, model: &Model) -> Vec<u64> {
    let mut refused = Vec::new();
    for (n, value) in model {
        match engine.get(&key(*n)).await {
            Ok(found) => assert_eq!(found.as_ref(), Some(value), "key {n}"),
            Err(Error::Corruption { .. } | Error::Io { op: "read", .. }) => refused.push(*n),
            Err(other) => panic!("{other}"),
        }
    }
    refused
}

/// Writes over some keys of `range` for `time`, and lets the engine work.
async fn churn(
    env: &SimEnv,
    engine: &TestEngine,
    model: &mut Model,
    range: std::ops::Range<u64>,
    time: Duration,
) {
    let end = env.now().after(time);
    while env.now() < end {
        let keys = (0..20).map(|_| range.start + env.random() % (range.end - range.start));
        write(env, engine, model, keys, env.random()).await;
        env.sleep(Duration::from_millis(1)).await;
    }
}

/// Writes over all keys until a merge met a block that cannot be read.
async fn churn_until_refused(env: &SimEnv, engine: &TestEngine, model: &mut Model) {
    for _ in 0..200 {
        if engine.stats().refused_tables > 0 {
            return;
        }
        churn(env, engine, model, 0..KEYS, Duration::from_millis(20)).await;
    }
    panic!("no merge needed the block");
}

/// Breaks the block of the key in the middle; some of the tests write only keys far from it.
fn break_one(env: &SimEnv) -> (PathBuf, u64) {
    let (path, block) = place(env, KEYS / 2);
    env.disk().break_sector(&path, block + 600).unwrap();
    (path, block)
}

#[test]
fn a_bad_sector_costs_its_keys_after_patience_is_over_and_nothing_else() {
    let sim = Sim::new(1);
    let mut env = sim.node_env("node");
    let (model, lost) = sim.block_on(async {
        let mut model = build(&env).await;
        let mut engine = open(&env, options()).await;
        let (path, block) = break_one(&env);
        // So that no block is in the cache.
        engine.close().await.unwrap();
        engine = open(&env, options()).await;
        let refused = unreadable(&engine, &model).await;
        assert!((5..50).contains(&refused.len()), "{refused:?}");

        // The first merge of all levels meets the block.
        churn(&env, &engine, &mut model, 0..KEYS / 2 - 50, PATIENCE / 8).await;
        churn(&env, &engine, &mut model, KEYS / 2 + 50..KEYS, PATIENCE / 8).await;
        let met = engine.compact().await;
        assert!(matches!(met, Err(Error::Io { op: "read", .. })), "{met:?}");
        let stats = engine.stats();
        assert_eq!((stats.refused_tables, stats.refused_blocks, stats.lost_ranges), (1, 0, 0));
        let told = engine.take_incidents();
        assert!(told[0].contains(&*path.to_string_lossy()), "{told:?}");
        // The merges of the other tables are done: another compaction adds nothing.
        let again = engine.compact().await;
        assert!(matches!(again, Err(Error::Io { op: "read", .. })), "{again:?}");
        // No try is made more than some ten times.
        let reads = env.disk().stats();
        env.sleep(PATIENCE / 4).await;
        let tries =
            env.disk().stats().faults - reads.faults + env.disk().stats().reads - reads.reads;
        assert!(tries < 20, "{tries} reads of the disk while nobody asks");

        churn(&env, &engine, &mut model, 0..KEYS / 2 - 50, PATIENCE).await;
        let stats = engine.stats();
        assert_eq!((stats.refused_tables, stats.damaged_blocks), (0, 0));
        // What is read together with the sector is refused with it.
        assert!((1..=3).contains(&stats.refused_blocks), "{}", stats.refused_blocks);
        assert_eq!(stats.lost_ranges, stats.refused_blocks);
        let told = engine.take_incidents();
        let named = format!("{} at offset {block} are in quarantine", path.display());
        assert!(told.iter().any(|line| line.contains(&named)), "{told:?}");
        engine.compact().await.unwrap();
        assert_eq!(unreadable(&engine, &model).await, refused);
        // Written again, a key is as good as any.
        write(&env, &engine, &mut model, refused[..1].iter().copied(), 1).await;
        env.sleep(Duration::from_secs(1)).await;
        let kept = path.with_extension("sst.damaged");
        assert!(files(&env, "damaged").contains(&kept) && !files(&env, "sst").contains(&path));
        env.disk().mend();
        assert_eq!(unreadable(&engine, &model).await, refused[1..], "no answer comes back wrong");
        (model, refused)
    });
    env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, options()).await;
        assert_eq!(unreadable(&engine, &model).await, lost[1..]);
        engine.accept_loss().await.unwrap();
        assert_eq!(engine.get(&key(lost[1])).await.unwrap(), None);
    });
}

#[test]
fn an_error_that_passes_costs_nothing() {
    let sim = Sim::new(2);
    let env = sim.node_env("node");
    sim.block_on(async {
        let mut model = build(&env).await;
        let engine = open(&env, options()).await;
        let (path, _) = break_one(&env);
        churn_until_refused(&env, &engine, &mut model).await;
        churn(&env, &engine, &mut model, 0..KEYS, PATIENCE / 8).await;
        assert_eq!(engine.stats().refused_tables, 1);
        env.disk().mend();
        churn(&env, &engine, &mut model, 0..KEYS, PATIENCE * 2).await;
        engine.compact().await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let stats = engine.stats();
        assert_eq!((stats.refused_tables, stats.refused_blocks, stats.lost_ranges), (0, 0, 0));
        assert_eq!(unreadable(&engine, &model).await, [0; 0]);
        assert!(!files(&env, "sst").contains(&path), "the table was merged");
        assert!(files(&env, "damaged").is_empty());
    });
}

/// As long as a block is waited for: what has nothing to do with its table is merged.
#[test]
fn other_merges_go_on_meanwhile() {
    let sim = Sim::new(3);
    let env = sim.node_env("node");
    sim.block_on(async {
        let mut model = build(&env).await;
        let patient = Options { unreadable_patience: Duration::from_secs(3600), ..options() };
        let engine = open(&env, patient).await;
        let (path, block) = place(&env, 100);
        env.disk().break_sector(&path, block + 600).unwrap();
        churn_until_refused(&env, &engine, &mut model).await;
        let before = engine.stats();
        for _ in 0..20 {
            churn(&env, &engine, &mut model, 1_000..KEYS, Duration::from_secs(1)).await;
            let stats = engine.stats();
            assert!(stats.level_runs[0] < 12, "{:?}", stats.level_runs);
        }
        let stats = engine.stats();
        assert!(stats.compactions > before.compactions + 20, "{}", stats.compactions);
        assert_eq!(stats.background_errors, before.background_errors, "the merge was not tried");
        assert_eq!((stats.refused_tables, stats.lost_ranges), (1, 0));
        env.disk().mend();
        env.sleep(Duration::from_secs(600)).await;
        engine.compact().await.unwrap();
        assert_eq!(unreadable(&engine, &model).await, [0; 0]);
    });
}

/// A disk that gives nothing of a file has not lost a sector.
#[test]
fn a_file_that_is_away_altogether_is_waited_for() {
    let sim = Sim::new(4);
    let env = sim.node_env("node");
    sim.block_on(async {
        let mut model = build(&env).await;
        let engine = open(&env, options()).await;
        let (path, _) = place(&env, KEYS / 2);
        let len = env.disk().read_raw(&path).unwrap().len() as u64;
        (0..len).step_by(512).for_each(|at| env.disk().break_sector(&path, at).unwrap());
        churn(&env, &engine, &mut model, 0..KEYS, PATIENCE * 4).await;
        let stats = engine.stats();
        assert_eq!((stats.refused_tables, stats.lost_ranges), (1, 0));
        env.disk().mend();
        env.sleep(PATIENCE * 4).await;
        engine.compact().await.unwrap();
        assert_eq!(unreadable(&engine, &model).await, [0; 0]);
    });
}

/// Nothing but the quarantine is remembered: a restart waits anew.
#[test]
fn a_crash_while_a_block_is_waited_for_begins_the_wait_anew() {
    let sim = Sim::new(5);
    let mut env = sim.node_env("node");
    let mut model = sim.block_on(build(&env));
    for life in 0..3 {
        sim.block_on(async {
            let engine = open(&env, options()).await;
            if life == 0 {
                break_one(&env);
            }
            churn(&env, &engine, &mut model, 0..KEYS / 2 - 50, PATIENCE / 2).await;
            let stats = engine.stats();
            assert_eq!((stats.refused_tables, stats.lost_ranges), (1, 0), "life {life}");
        });
        env = sim.crash(&env);
    }
    sim.block_on(async {
        let engine = open(&env, options()).await;
        churn(&env, &engine, &mut model, 0..KEYS / 2 - 50, PATIENCE * 2).await;
        let stats = engine.stats();
        assert_eq!(stats.refused_tables, 0);
        assert!(stats.refused_blocks > 0 && stats.refused_blocks == stats.lost_ranges);
    });
}

/// A scan gives what lies in front of the block, although it reads far ahead.
#[test]
fn a_scan_gives_everything_in_front_of_a_bad_sector() {
    let sim = Sim::new(6);
    let env = sim.node_env("node");
    sim.block_on(async {
        let model = build(&env).await;
        for n in (100..1_500).step_by(100) {
            let (path, block) = place(&env, n);
            env.disk().break_sector(&path, block + 600).unwrap();
            let engine = open(&env, options()).await;
            let refused = unreadable(&engine, &model).await;
            engine.close().await.unwrap();
            let engine = open(&env, options()).await;
            let mut scan = engine.scan(ScanRange::default()).await.unwrap();
            let mut given = 0;
            let stopped = loop {
                match scan.next().await {
                    Ok(Some((found, _))) => assert_eq!(found, key(given)),
                    Ok(None) => panic!("the scan passed over keys"),
                    Err(error) => break error,
                }
                given += 1;
            };
            assert!(matches!(stopped, Error::Io { op: "read", .. }), "{stopped}");
            // Other tables may have keys between the last one that can be read and the block.
            assert!(given <= refused[0] && given + 6 > refused[0], "{given} of {}", refused[0]);
            env.disk().mend();
            engine.close().await.unwrap();
        }
    });
}
