//! The engine's numbers on a simulated disk: what is counted is what was done, to the byte where
//! a byte can be known.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::env::{Env, File, OpenMode};
use coronet_lsm::{CompactionPolicy, ScanOptions, WriteBatch};
use coronet_lsm::{Durability, EngineStats, KeyspaceId, KeyspaceOptions, Options, ScanRange};
use coronet_sim::{Sim, SimEnv};
use engine_support::{DIR, collect, key, open, put, value};
use std::path::Path;

const OTHER: KeyspaceId = KeyspaceId(5);
const KEYS: u64 = 100;
const VALUE: usize = 100;
/// Of [`key`] and [`value`].
const ENTRY: u64 = 10 + VALUE as u64;

/// A tree that compacts when it is asked to and not before, with room for all keys in memory.
fn options() -> Options {
    let compaction: CompactionPolicy = "leveled".parse().unwrap();
    Options { memtable_bytes: 1 << 20, compaction, ..Options::tiny() }
}

/// Sizes of all table files on the disk.
async fn files(env: &SimEnv) -> u64 {
    let mut bytes = 0;
    for path in env.list(Path::new(DIR)).await.unwrap() {
        if path.extension().is_some_and(|extension| extension == "sst") {
            bytes += env.open(&path, OpenMode::Read).await.unwrap().len().await.unwrap();
        }
    }
    bytes
}

/// What must hold of any numbers.
fn check_sums(stats: &EngineStats) {
    assert_eq!(stats.level_written_bytes.iter().sum::<u64>(), {
        stats.flush_bytes + stats.compaction_write_bytes
    });
    assert_eq!(stats.level_read_bytes.iter().sum::<u64>(), stats.compaction_read_bytes);
    assert_eq!(stats.level_probes.iter().sum::<u64>(), stats.table_probes);
    assert_eq!(stats.level_filter_skips.iter().sum::<u64>(), stats.filter_skips);
    assert_eq!(stats.level_bytes.iter().sum::<u64>(), stats.table_bytes);
}

#[test]
fn bytes_in_and_bytes_by_cause_are_those_of_the_files() {
    let sim = Sim::new(1);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, options()).await;
        for n in 0..KEYS {
            put(&env, &engine, &key(n), &value(n, VALUE)).await;
        }
        let stats = engine.stats();
        assert_eq!((stats.writes, stats.entries_written), (KEYS, KEYS));
        assert_eq!(stats.logical_bytes, KEYS * ENTRY);
        assert!(stats.log_bytes >= stats.logical_bytes && stats.commit_latency.count() > 0);
        assert_eq!((stats.flush_bytes, stats.table_bytes, stats.bottom_bytes), (0, 0, 0));

        engine.flush().await.unwrap();
        let first = files(&env).await;
        let stats = engine.stats();
        assert_eq!(stats.flush_bytes, first);
        assert_eq!((stats.table_bytes, stats.bottom_bytes), (first, first));
        assert_eq!(stats.space_amplification(), 1.0);
        let log = stats.log_bytes + stats.log_fill_bytes;
        let device = log + first + stats.manifest_bytes;
        assert_eq!(stats.write_amplification(), device as f64 / (KEYS * ENTRY) as f64);
        assert_eq!(stats.table_write_amplification(), first as f64 / (KEYS * ENTRY) as f64);

        // The same keys again: the merge reads both tables and writes what one of them holds.
        for n in 0..KEYS {
            put(&env, &engine, &key(n), &value(n + 1, VALUE)).await;
        }
        engine.flush().await.unwrap();
        let both = files(&env).await;
        assert_eq!(engine.stats().flush_bytes, both);
        engine.set_policy(Options::tiny_policy("leveled(fanout=4)").level0(1)).await.unwrap();
        engine.compact().await.unwrap();
        let stats = engine.stats();
        assert_eq!(stats.compaction_read_bytes, both);
        assert_eq!(stats.level_read_bytes[0], both);
        assert_eq!(stats.compaction_dropped, KEYS);
        assert_eq!(stats.table_bytes, stats.compaction_write_bytes);
        assert_eq!(stats.bottom_bytes, stats.table_bytes);
        assert_eq!(stats.device_read_bytes(), both);
        check_sums(&stats);
    });
}

#[test]
fn a_scan_touches_no_table_without_keys_of_its_range() {
    let sim = Sim::new(6);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, options()).await;
        for prefix in ["a/", "c/", "e/"] {
            for n in 0..KEYS {
                let key = [prefix.as_bytes(), &key(n)].concat();
                put(&env, &engine, &key, &value(n, VALUE)).await;
            }
            engine.flush().await.unwrap();
        }
        engine.close().await.unwrap();
        // Level 0 with a run per prefix, and one run with a table per prefix.
        for merged in [false, true] {
            let engine = open(&env, options()).await;
            if merged {
                let policy = Options::tiny_policy("leveled(fanout=4)").level0(1);
                engine.set_policy(policy).await.unwrap();
                engine.compact().await.unwrap();
                let stats = engine.stats();
                assert_eq!(
                    (stats.level_runs[1], stats.level_tables[1]),
                    (1, 3),
                    "moved as they were"
                );
            }
            engine.close().await.unwrap();
            let engine = open(&env, options()).await;
            let before = engine.stats().block_read_bytes;
            for prefix in ["0", "b", "d", "f"] {
                let range = ScanRange::prefix(prefix.as_bytes());
                let backward = ScanOptions::backward(range.clone());
                assert!(collect(&engine, range).await.is_empty());
                assert!(collect(&engine, backward).await.is_empty());
            }
            assert_eq!(engine.stats().block_read_bytes, before, "merged: {merged}");
            let found = collect(&engine, ScanRange::prefix(b"c/")).await;
            assert_eq!(found.len() as u64, KEYS);
            let read = engine.stats().block_read_bytes - before;
            assert!(read > 0 && read * 2 < engine.stats().block_disk_bytes, "{read}");
            engine.close().await.unwrap();
        }
    });
}

#[test]
fn reads_are_counted_where_they_looked() {
    let sim = Sim::new(2);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, options()).await;
        for n in 0..KEYS {
            put(&env, &engine, &key(n), &value(n, VALUE)).await;
        }
        engine.get(&key(0)).await.unwrap();
        assert_eq!((engine.stats().gets, engine.stats().gets_cached), (1, 1));
        assert_eq!(engine.stats().table_probes, 0);
        engine.flush().await.unwrap();
        // A flush leaves its blocks in the cache; a new engine has none.
        engine.close().await.unwrap();
        let engine = open(&env, options()).await;

        engine.get(&key(7)).await.unwrap();
        let stats = engine.stats();
        assert_eq!((stats.gets, stats.gets_cached), (1, 0));
        assert_eq!((stats.cache_hits, stats.cache_misses, stats.level_probes[0]), (0, 1, 1));
        assert_eq!((stats.read_latency.count(), stats.multi_get_latency.count()), (1, 0));
        let block = stats.block_read_bytes;
        assert!(block > 0 && block.is_multiple_of(512) && block <= stats.block_disk_bytes);

        // The block is in memory now: nothing is read, and the cache is asked once.
        engine.get(&key(7)).await.unwrap();
        let stats = engine.stats();
        assert_eq!((stats.cache_hits, stats.cache_misses), (1, 1));
        assert_eq!(stats.block_read_bytes, block);
        assert_eq!(stats.read_latency.count(), 1);

        // A key between the table's first and last that it does not have.
        let mut skipped = 0;
        for n in 0..KEYS {
            let absent = [&key(n)[..], b"x"].concat();
            assert_eq!(engine.get(&absent).await.unwrap(), None);
            skipped = engine.stats().level_filter_skips[0];
        }
        let stats = engine.stats();
        // The last one lies beyond the table; a filter lets few of the others pass.
        assert_eq!(skipped + stats.level_probes[0], KEYS - 1 + 2);
        assert!(skipped > KEYS / 2, "{skipped}");

        let absent = [b"key-000003x".to_vec(), key(KEYS / 2), key(KEYS - 1)];
        engine.multi_get(&absent).await.unwrap();
        assert_eq!(engine.stats().multi_get_latency.count(), 1);
        assert_eq!(engine.stats().scans, 0);
        assert_eq!(collect(&engine, ScanRange::default()).await.len() as u64, KEYS);
        let stats = engine.stats();
        assert_eq!((stats.scans, stats.scan_latency.count()), (1, 1));
        let data = stats.block_disk_bytes;
        assert!(stats.block_read_bytes + stats.scan_read_bytes >= data, "{stats:?}");
        check_sums(&stats);
    });
}

#[test]
fn a_read_that_waits_counts_every_table_it_looks_into() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        // No room for filters: every table whose range has the key is looked into.
        let options = Options { cache_bytes: 1, ..options() };
        let engine = open(&env, options.clone()).await;
        for part in 0..2 {
            for n in (part..KEYS).step_by(2) {
                put(&env, &engine, &key(n), &value(n, VALUE)).await;
            }
            engine.flush().await.unwrap();
        }
        let tables = engine.stats().level_runs[0];
        assert_eq!(tables, 2, "two overlapping runs");
        assert_eq!(engine.get(&key(4)).await.unwrap(), Some(value(4, VALUE)));
        let stats = engine.stats();
        assert_eq!((stats.gets_cached, stats.level_probes[0]), (0, 2));
        check_sums(&stats);
    });
}

#[test]
fn keyspaces_are_counted_apart_and_add_up_even_when_one_is_dropped() {
    let sim = Sim::new(3);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, options()).await;
        let other = engine.create_keyspace(OTHER, KeyspaceOptions::default()).await.unwrap();
        put(&env, &engine, b"one", b"1").await;
        other.put(b"three", b"333").unwrap().await.unwrap();
        let mut both = WriteBatch::new();
        both.put(b"k", b"v");
        both.in_keyspace(OTHER).put(b"k", b"vv");
        both.delete(b"gone");
        engine.write(&both, Durability::Durable).unwrap().await.unwrap();
        engine.flush().await.unwrap();
        other.get(b"three").await.unwrap();

        let per: Vec<_> = engine.keyspace_stats();
        let [(KeyspaceId::DEFAULT, default), (OTHER, other)] = &per[..] else {
            panic!("{:?}", per.iter().map(|(id, _)| id).collect::<Vec<_>>())
        };
        assert_eq!((default.entries_written, default.logical_bytes), (2, 4 + 2));
        assert_eq!((other.entries_written, other.logical_bytes), (3, 8 + 3 + 4));
        assert_eq!((default.gets, other.gets), (0, 1));
        assert!(other.flush_bytes > 0 && other.log_bytes == 0);
        let all = engine.stats();
        assert_eq!(all.writes, 3);
        assert_eq!(all.logical_bytes, default.logical_bytes + other.logical_bytes);
        assert_eq!(all.flush_bytes, default.flush_bytes + other.flush_bytes);
        assert_eq!(all.table_bytes, files(&env).await);
        assert_eq!(all.space_amplification(), 1.0);

        engine.drop_keyspace(OTHER).await.unwrap();
        let after = engine.stats();
        assert_eq!(after.table_bytes, default.table_bytes);
        assert_eq!(
            (after.logical_bytes, after.flush_bytes, after.gets),
            (all.logical_bytes, all.flush_bytes, all.gets)
        );
        check_sums(&engine.keyspace_stats()[0].1);
    });
}
