//! What the engine promises, exercised on the simulated disk: commits, reads, scans, flushes,
//! compactions, limits, a full disk, a failing log.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::env::Env;
use coronet_lsm::{
    CachedRead, CompactionFilter, Durability, Engine, Error, FilterDecision, Options, ScanRange,
    WriteBatch,
};
use coronet_sim::{Faults, Sim};
use engine_support::{DIR, collect, delete, key, open, put, value};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

#[test]
fn a_committed_write_is_read_by_every_kind_of_read() {
    let sim = Sim::new(1);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        put(&env, &engine, b"a", b"1").await;
        put(&env, &engine, b"b", b"2").await;
        delete(&env, &engine, b"a").await;
        assert_eq!(engine.get(b"a").await.unwrap(), None);
        assert_eq!(engine.get(b"b").await.unwrap(), Some(b"2".to_vec()));
        let cached = engine.get_cached(b"b", |value| value.map(<[u8]>::to_vec)).unwrap();
        assert!(matches!(cached, CachedRead::Done(Some(v)) if v == b"2"));
        let many = engine.multi_get(&[b"b".to_vec(), b"a".to_vec()]).await.unwrap();
        assert_eq!(many, [Some(b"2".to_vec()), None]);
        let all = collect(&engine, ScanRange::default()).await;
        assert_eq!(all, [(b"b".to_vec(), b"2".to_vec())]);
        engine.close().await.unwrap();
        assert!(matches!(engine.get(b"b").await, Err(Error::Closed)));
    });
}

/// What was at hand before a flush or a compaction is at hand afterwards.
#[test]
fn flushes_and_compactions_cost_readers_no_read_of_the_disk() {
    let sim = Sim::new(6);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options { cache_bytes: 4 << 20, ..Options::tiny() }).await;
        for n in 0..3000u64 {
            put(&env, &engine, &key(n % 500), &value(n, 300)).await;
        }
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
        let stats = engine.stats();
        assert!(stats.compactions > 0, "nothing was merged");
        for n in 2500..3000u64 {
            assert_eq!(engine.get(&key(n % 500)).await.unwrap(), Some(value(n, 300)));
        }
        assert_eq!(engine.stats().cache_misses, stats.cache_misses);
        // And blocks of tables that are gone do not stay.
        assert!(engine.stats().cache_bytes < 2 << 20, "{} bytes", engine.stats().cache_bytes);
        engine.close().await.unwrap();
    });
}

/// Rows of the cache hold the newest version, and must give way to writes in the moment they are
/// made, whether readers may see these yet or not.
#[test]
fn a_row_of_the_cache_never_outlives_a_write() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        let read = |key: &[u8]| match engine.get_cached(key, |value| value.map(<[u8]>::to_vec)) {
            Ok(CachedRead::Done(value)) => value,
            _ => panic!("not in memory"),
        };
        for n in 0..50u64 {
            let (key, old, new) = (key(n), value(n, 100), value(n + 1000, 100));
            put(&env, &engine, &key, &old).await;
            if n % 2 == 0 {
                engine.flush().await.unwrap();
                assert_eq!(engine.get(&key).await.unwrap().as_ref(), Some(&old));
            }
            let before = engine.stats().gets_from_rows;
            for _ in 0..4 {
                assert_eq!(read(&key).as_ref(), Some(&old));
            }
            assert!(engine.stats().gets_from_rows > before, "key {n} became no row");
            let mut batch = WriteBatch::new();
            if n % 3 == 0 {
                batch.delete(&key);
            } else {
                batch.put(&key, &new);
            }
            let commit = engine.write(&batch, Durability::Durable).unwrap();
            // Not committed: readers see the old value, however often they ask.
            for _ in 0..4 {
                assert_eq!(read(&key).as_ref(), Some(&old));
            }
            commit.await.unwrap();
            let expected = (n % 3 != 0).then_some(&new);
            for _ in 0..4 {
                assert_eq!(read(&key).as_ref(), expected);
            }
        }
        engine.close().await.unwrap();
    });
}

#[test]
fn looking_ahead_changes_no_answer_and_no_number() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        let keys: Vec<Vec<u8>> = (0..400).map(key).collect();
        let refs: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let look_ahead = || {
            for keys in refs.chunks(16) {
                let ahead = engine.prefetch(keys);
                (0..20).for_each(|n| engine.prefetch_next(&ahead, n));
            }
        };
        look_ahead();
        for n in 0..300 {
            put(&env, &engine, &key(n), &value(n, 300)).await;
        }
        look_ahead();
        // Again: the second look into a block makes its hints, and reads that come twice rows.
        for _ in 0..4 {
            let before = engine.stats();
            look_ahead();
            engine.prefetch(&refs);
            engine.prefetch(&[&[], b"no such key", &[]]);
            engine.prefetch(&[]);
            assert_eq!(engine.stats(), before);
            for n in 0..400 {
                let expected = (n < 300).then(|| value(n, 300));
                assert_eq!(engine.get(&key(n)).await.unwrap(), expected);
            }
        }
        let stats = engine.stats();
        assert!(stats.flushes > 0 && stats.cache_hits > 0, "{stats:?}");
    });
}

#[test]
fn readers_see_a_write_only_when_it_is_committed_but_latest_readers_at_once() {
    let sim = Sim::new(2);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        put(&env, &engine, b"k", b"old").await;
        let mut batch = WriteBatch::new();
        batch.put(b"k", b"new");
        let commit = engine.write(&batch, Durability::Durable).unwrap();
        let seq = commit.seq();
        assert!(engine.visible_seq() < seq && engine.last_seq() == seq);
        assert_eq!(engine.get(b"k").await.unwrap(), Some(b"old".to_vec()));
        assert_eq!(engine.get_latest(b"k").await.unwrap(), Some(b"new".to_vec()));
        assert_eq!(commit.await.unwrap(), seq);
        assert_eq!(engine.visible_seq(), seq);
        assert_eq!(engine.get(b"k").await.unwrap(), Some(b"new".to_vec()));
    });
}

#[test]
fn writers_of_one_moment_share_one_batch_and_one_sync() {
    let sim = Sim::new(3);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        put(&env, &engine, b"warm", b"up").await;
        let before = engine.stats();
        let mut batch = WriteBatch::new();
        let mut commits = Vec::new();
        for n in 0..100 {
            batch.clear();
            batch.put(&key(n), b"v");
            commits.push(engine.write(&batch, Durability::Durable).unwrap());
        }
        for commit in commits {
            commit.await.unwrap();
        }
        let after = engine.stats();
        assert_eq!(after.log_batches - before.log_batches, 1);
        assert_eq!(after.log_syncs - before.log_syncs, 1);
        assert_eq!(after.writes - before.writes, 100);
    });
}

#[test]
fn buffered_writes_reach_the_device_within_the_interval() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    let options = Options::tiny();
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        let mut batch = WriteBatch::new();
        batch.put(b"k", b"v");
        engine.write(&batch, Durability::Buffered).unwrap().await.unwrap();
        assert_eq!(engine.get(b"k").await.unwrap(), Some(b"v".to_vec()));
        assert_eq!(engine.stats().log_syncs, 0);
        env.sleep(options.sync_interval * 3).await;
        assert_eq!(engine.stats().log_syncs, 1);
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        assert_eq!(engine.get(b"k").await.unwrap(), Some(b"v".to_vec()));
    });
}

#[test]
fn flush_moves_memory_into_tables_and_frees_the_log() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        for n in 0..500 {
            put(&env, &engine, &key(n % 100), &value(n, 700)).await;
        }
        engine.flush().await.unwrap();
        let stats = engine.stats();
        assert_eq!(stats.frozen_memtables, 0);
        assert!(stats.flushes > 5 && stats.flush_bytes > 0, "{stats:?}");
        assert!(stats.log_segments <= 1, "the log keeps {} segments", stats.log_segments);
        assert!(stats.level_tables.iter().sum::<u64>() > 0);
        for n in 400..500 {
            assert_eq!(engine.get(&key(n % 100)).await.unwrap(), Some(value(n, 700)));
        }
        let logs = env.disk().files();
        let logs = logs.iter().filter(|path| path.extension().is_some_and(|e| e == "log")).count();
        assert!(logs <= 5, "{logs} log files: segments are not reused");
    });
}

#[test]
fn compaction_pays_its_debt_and_keeps_the_newest_versions() {
    let sim = Sim::new(6);
    let env = sim.node_env("a");
    let options = Options::tiny();
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        for n in 0..3_000u64 {
            let k = key(n * 7919 % 1000);
            if n % 10 == 9 {
                delete(&env, &engine, &k).await
            } else {
                put(&env, &engine, &k, &value(n, 300)).await
            }
        }
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
        let stats = engine.stats();
        assert!(stats.compactions > 0, "{stats:?}");
        assert!(stats.level_runs[0] < 4, "{stats:?}");
        assert!(stats.compaction_dropped > 0);
        let mut model = BTreeMap::new();
        for n in 0..3_000u64 {
            let k = key(n * 7919 % 1000);
            if n % 10 == 9 {
                model.remove(&k);
            } else {
                model.insert(k, value(n, 300));
            }
        }
        let all = collect(&engine, ScanRange::default()).await;
        assert_eq!(all, model.into_iter().collect::<Vec<_>>());
    });
    sim.run_for(Duration::from_secs(5));
    let live = sim.block_on(async {
        let engine = open(&sim.crash(&env), options).await;
        engine.stats().level_tables.iter().sum::<u64>()
    });
    sim.run_for(Duration::from_secs(5));
    let files = env.disk().files();
    let tables = files.iter().filter(|path| path.extension().is_some_and(|e| e == "sst")).count();
    assert_eq!(tables as u64, live, "orphans stay: {files:?}");
}

#[test]
fn deletes_vanish_at_the_last_level() {
    let sim = Sim::new(7);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        for n in 0..400 {
            put(&env, &engine, &key(n), &value(n, 500)).await;
        }
        for n in 0..400 {
            delete(&env, &engine, &key(n)).await;
        }
        for n in 0..400 {
            put(&env, &engine, &key(1000 + n), &value(n, 500)).await;
            delete(&env, &engine, &key(1000 + n)).await;
        }
        engine.flush().await.unwrap();
        // Enough overwrites of the ends of the range to push everything through the levels.
        for n in 0..600u64 {
            put(&env, &engine, &key(n % 2 * 2000), &value(n, 500)).await;
            if n % 50 == 0 {
                engine.flush().await.unwrap();
            }
        }
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
        assert_eq!(collect(&engine, ScanRange::default()).await.len(), 2);
        let bytes: u64 = engine.stats().level_bytes.iter().sum();
        assert!(bytes < 150_000, "{bytes} bytes of tables hold two entries");
    });
}

#[test]
fn the_filter_drops_entries_at_the_last_level_only() {
    let sim = Sim::new(8);
    let env = sim.node_env("a");
    sim.block_on(async {
        let filter: CompactionFilter = Box::new(|_, value| {
            if value.starts_with(b"dead") { FilterDecision::Drop } else { FilterDecision::Keep }
        });
        let options = Options::tiny();
        let engine =
            Engine::open_with(env.clone(), Path::new(DIR), options, Some(filter)).await.unwrap();
        for n in 0..600u64 {
            let v = if n % 2 == 0 { b"dead".to_vec() } else { value(n, 400) };
            put(&env, &engine, &key(n), &v).await;
        }
        for round in 0..8u64 {
            put(&env, &engine, &key(0), &value(round, 100)).await;
            put(&env, &engine, &key(599), &value(round, 100)).await;
            engine.flush().await.unwrap();
        }
        engine.compact().await.unwrap();
        let all = collect(&engine, ScanRange::default()).await;
        assert!(all.len() < 400, "{} entries left", all.len());
        assert!((1..600).step_by(2).all(|n| all.iter().any(|(k, _)| *k == key(n))));
    });
}

#[test]
fn a_scan_keeps_its_moment_while_everything_changes() {
    let sim = Sim::new(9);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        for n in 0..300 {
            put(&env, &engine, &key(n), &value(n, 300)).await;
        }
        let mut scan = engine.scan(ScanRange::default()).await.unwrap();
        for n in 0..900 {
            put(&env, &engine, &key(n % 450), &value(n + 10_000, 300)).await;
        }
        delete(&env, &engine, &key(5)).await;
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
        for n in 0..300 {
            assert_eq!(scan.next().await.unwrap(), Some((key(n), value(n, 300))));
        }
        assert_eq!(scan.next().await.unwrap(), None);
        scan.seek(&key(5)).await.unwrap();
        assert_eq!(scan.next().await.unwrap(), Some((key(5), value(5, 300))));
    });
}

#[test]
fn limits_are_refused_before_anything_is_applied() {
    let sim = Sim::new(10);
    let env = sim.node_env("a");
    sim.block_on(async {
        let options = Options::tiny();
        let engine = open(&env, options.clone()).await;
        let mut batch = WriteBatch::new();
        batch.put(b"fine", b"v");
        batch.put(b"k", &vec![0; options.max_value_bytes + 1]);
        let refused = engine.write(&batch, Durability::Durable).map(drop);
        assert!(matches!(refused, Err(Error::TooLarge { what: "value", .. })));
        assert_eq!(engine.get_latest(b"fine").await.unwrap(), None);
        assert_eq!(engine.last_seq(), engine.visible_seq());
        batch.clear();
        let empty = engine.write(&batch, Durability::Durable).unwrap().await.unwrap();
        assert_eq!(empty, engine.visible_seq());
    });
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_segment_of_its_own() {
    let sim = Sim::new(11);
    let env = sim.node_env("a");
    let options = Options { log_segment_bytes: 16 << 10, ..Options::tiny() };
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        let mut batch = WriteBatch::new();
        for n in 0..4 {
            batch.put(&key(n), &value(n, 15_000));
        }
        engine.write(&batch, Durability::Durable).unwrap().await.unwrap();
        put(&env, &engine, b"after", b"it").await;
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        for n in 0..4 {
            assert_eq!(engine.get(&key(n)).await.unwrap(), Some(value(n, 15_000)));
        }
        assert_eq!(engine.get(b"after").await.unwrap(), Some(b"it".to_vec()));
    });
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_and_heals() {
    let sim = Sim::new(12);
    let env = sim.node_env("a");
    let options = Options { full_probe_interval: Duration::from_millis(100), ..Options::tiny() };
    sim.block_on(async {
        let engine = open(&env, options.clone()).await;
        put(&env, &engine, b"before", b"v").await;
        let used = env.disk().used();
        env.disk().set_faults(Faults { capacity: Some(used + 100_000), ..Faults::none() });
        let mut accepted = Vec::new();
        let mut refused = false;
        for n in 0..2_000u64 {
            let mut batch = WriteBatch::new();
            batch.put(&key(n), &value(n, 500));
            match engine.write(&batch, Durability::Durable) {
                Ok(commit) => accepted.push((n, commit)),
                Err(Error::DiskFull) => {
                    refused = true;
                    break;
                }
                Err(other) => panic!("{other}"),
            }
            if n % 20 == 19 {
                env.sleep(Duration::from_millis(5)).await;
            }
        }
        assert!(refused, "the disk never filled");
        assert_eq!(engine.get(b"before").await.unwrap(), Some(b"v".to_vec()));
        env.disk().set_faults(Faults::none());
        env.sleep(Duration::from_secs(2)).await;
        for (_, commit) in &mut accepted {
            commit.await.unwrap();
        }
        put(&env, &engine, b"after", b"v").await;
        for (n, _) in &accepted {
            assert_eq!(engine.get(&key(*n)).await.unwrap(), Some(value(*n, 500)));
        }
        assert!(engine.stats().writes_disk_full > 0);
        engine.flush().await.unwrap();
    });
}

#[test]
fn a_failed_log_sync_is_never_acknowledged_and_ends_writing() {
    let sim = Sim::new(13);
    let env = sim.node_env("a");
    let only = Some(".log".to_owned());
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        put(&env, &engine, b"a", b"1").await;
        env.disk().set_faults(Faults { sync_error: 1_000_000, only, ..Faults::none() });
        let mut batch = WriteBatch::new();
        batch.put(b"a", b"2");
        let commit = engine.write(&batch, Durability::Durable).unwrap();
        assert!(matches!(commit.await, Err(Error::LogFailed(_))));
        env.disk().set_faults(Faults::none());
        let refused = engine.write(&batch, Durability::Durable).map(drop);
        assert!(matches!(refused, Err(Error::LogFailed(_))));
        assert_eq!(engine.get(b"a").await.unwrap(), Some(b"1".to_vec()));
        assert!(matches!(engine.close().await, Err(Error::LogFailed(_))));
    });
    sim.block_on(async {
        let engine = open(&env, Options::tiny()).await;
        let found = engine.get(b"a").await.unwrap();
        assert!(found == Some(b"1".to_vec()) || found == Some(b"2".to_vec()));
        put(&env, &engine, b"a", b"3").await;
    });
}

#[test]
fn writers_that_do_not_wait_are_slowed_and_none_is_lost() {
    let sim = Sim::new(14);
    let env = sim.node_env("a");
    let options = Options { l0_slowdown: 5, l0_stop: 8, ..Options::tiny() };
    sim.block_on(async {
        let engine = open(&env, options).await;
        let mut commits = Vec::new();
        for n in 0..6_000u64 {
            let mut batch = WriteBatch::new();
            batch.put(&key(n * 31 % 3000), &value(n, 400));
            loop {
                match engine.write(&batch, Durability::Durable) {
                    Ok(commit) => break commits.push(commit),
                    Err(Error::Busy { retry_after_ms }) => {
                        let pause = Duration::from_millis(retry_after_ms.into());
                        env.sleep(pause).await;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            if commits.len() >= 64 {
                for commit in commits.drain(..) {
                    commit.await.unwrap();
                }
            }
        }
        for commit in commits {
            commit.await.unwrap();
        }
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
        assert_eq!(collect(&engine, ScanRange::default()).await.len(), 3_000);
    });
}

#[test]
fn sequence_numbers_are_never_used_twice() {
    let sim = Sim::new(15);
    let mut env = sim.node_env("a");
    let mut last = 0;
    for round in 0..4u64 {
        let seq = sim.block_on(async {
            let engine = open(&env, Options::tiny()).await;
            let mut batch = WriteBatch::new();
            batch.put(&key(round), b"v");
            engine.write(&batch, Durability::Durable).unwrap().await.unwrap().0
        });
        assert!(seq > last);
        last = seq;
        env = if round % 2 == 0 { sim.crash(&env) } else { sim.kill(&env) };
    }
}
