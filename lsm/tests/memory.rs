//! What the engine holds in memory stays within its budgets.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod engine_support;

use coronet_lsm::env::Env;
use coronet_lsm::{Durability, EngineStats, KeyspaceId, KeyspaceOptions, Options, WriteBatch};
use coronet_sim::{Sim, SimEnv};
use engine_support::{TestEngine, key, open, value, write};
use std::time::Duration;

const KEYS: u64 = 12_000;

/// Large filters, small cache.
fn filters(cache_bytes: usize) -> Options {
    Options {
        filter_bits_per_key: 60,
        cache_bytes,
        memtable_bytes: 256 << 10,
        compaction: Options::tiny_policy("leveled(fanout=4)").sized(256 << 10, 64 << 10),
        ..Options::tiny()
    }
}

async fn fill(env: &SimEnv, engine: &TestEngine) {
    for first in (0..KEYS).step_by(50) {
        let mut batch = WriteBatch::new();
        // Every other key, so that there is something to ask for in vain.
        (first..first + 50).for_each(|n| batch.put(&key(n * 7919 % KEYS * 2), &value(n, 20)));
        write(env, engine, &batch).await;
    }
    engine.flush().await.unwrap();
    engine.compact().await.unwrap();
}

/// Reads all over the place and checks the answers; returns what the engine holds then.
async fn read(engine: &TestEngine) -> EngineStats {
    for n in (0..KEYS).step_by(13) {
        assert_eq!(engine.get(&key(n * 7919 % KEYS * 2)).await.unwrap(), Some(value(n, 20)));
        assert_eq!(engine.get(&key(n * 2 + 1)).await.unwrap(), None);
    }
    engine.stats()
}

/// Not all filters fit, some do, and all together keep to the budget.
fn is_within(stats: &EngineStats, total: u64) {
    assert!(stats.filters_left_out_bytes > 0, "there is more than fits");
    is_within_bounds(stats, total);
}

fn is_within_bounds(stats: &EngineStats, total: u64) {
    assert!(stats.table_memory_bytes > 0 && stats.cache_bytes > 0);
    // Filters take three quarters at most, indexes come on top, the cache has a quarter at least.
    let tables = stats.table_memory_bytes;
    assert!(tables <= total * 3 / 4 + total / 32, "tables hold {tables} of {total} bytes");
    assert_eq!(stats.cache_budget_bytes, total.saturating_sub(tables).max(total / 4));
    assert!(stats.cache_bytes <= stats.cache_budget_bytes);
}

#[test]
fn indexes_and_filters_are_part_of_the_cache_budget() {
    let sim = Sim::new(1);
    let env = sim.node_env("a");
    sim.block_on(async {
        let total = 96 << 10;
        let engine = open(&env, filters(total)).await;
        fill(&env, &engine).await;
        is_within(&read(&engine).await, total as u64);
        engine.close().await.unwrap();
        let engine = open(&env, filters(total)).await;
        let stats = read(&engine).await;
        is_within(&stats, total as u64);
        assert!(stats.filter_skips > 0, "some filters fit");
        engine.close().await.unwrap();

        // With more memory all filters are there, and what they take is not the cache's.
        let total = 1 << 20;
        let engine = open(&env, filters(total)).await;
        let stats = read(&engine).await;
        assert_eq!(stats.filters_left_out_bytes, 0);
        assert!(stats.table_memory_bytes > KEYS * 60 / 8, "every filter is held");
        assert_eq!(stats.cache_budget_bytes, total as u64 - stats.table_memory_bytes);
    });
}

#[test]
fn filters_come_back_when_the_tables_are_gone_that_took_their_place() {
    let sim = Sim::new(3);
    let env = sim.node_env("a");
    sim.block_on(async {
        // Room for the filters of all keys once on the last level (90 KiB in a half of it), not for
        // those of the old and the new tables of a merge of everything.
        let engine = open(&env, filters(216 << 10)).await;
        let mut left_out = 0;
        for _ in 0..3 {
            fill(&env, &engine).await;
            left_out = left_out.max(engine.stats().filters_left_out_bytes);
            env.sleep(Duration::from_secs(1)).await;
            let stats = read(&engine).await;
            assert_eq!(stats.filters_left_out_bytes, 0);
            assert!(stats.table_memory_bytes > KEYS * 60 / 8, "every filter is held");
            is_within_bounds(&stats, 216 << 10);
        }
        assert!(left_out > 0, "there was always room: the test shows nothing");
    });
}

#[test]
fn keyspaces_share_the_memory_that_flushed_memtables_leave() {
    let sim = Sim::new(2);
    let env = sim.node_env("a");
    sim.block_on(async {
        let memtable_bytes = 3 << 20;
        let options = Options {
            memtable_bytes,
            log_segment_bytes: 1 << 20,
            log_bytes: 64 << 20,
            ..Options::tiny()
        };
        let engine = open(&env, options).await;
        let mut keyspaces = Vec::new();
        for id in 1..=6 {
            let options = KeyspaceOptions::default();
            keyspaces.push(engine.create_keyspace(KeyspaceId(id), options).await.unwrap());
        }
        for keyspace in &keyspaces {
            for first in (0..2400).step_by(50) {
                let mut batch = WriteBatch::new();
                for n in first..first + 50 {
                    batch.in_keyspace(keyspace.id()).put(&key(n), &value(n, 1000));
                }
                let written = keyspace.write(&batch, Durability::Durable);
                written.unwrap().await.unwrap();
            }
            keyspace.flush().await.unwrap();
        }
        let stats = engine.stats();
        assert!(stats.pooled_bytes > 0, "nothing was handed on");
        assert!(stats.pooled_bytes <= memtable_bytes as u64, "{} bytes", stats.pooled_bytes);
        assert!(stats.memtable_bytes < 1 << 20, "empty memtables hold next to nothing");
    });
}
