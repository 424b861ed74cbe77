//! Damage in table files: found, reported by file and offset, contained, never carried on.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod engine_support;

use coronet_lsm::env::Env;
use coronet_lsm::{CompactionPolicy, Engine, Error, Options, ScanRange};
use coronet_sim::{Faults, Sim, SimEnv};
use engine_support::{DIR, TestEngine, blocks, collect, key, open, put, value};
use std::path::{Path, PathBuf};
use std::time::Duration;

const KEYS: u64 = 400;

fn options(scrub: u64) -> Options {
    Options {
        memtable_bytes: 1 << 20,
        compaction: CompactionPolicy::leveled().sized(128 << 10, 64 << 10),
        scrub_bytes_per_second: scrub,
        scrub_pause: Duration::from_secs(60),
        full_probe_interval: Duration::from_millis(20),
        ..Options::tiny()
    }
}

/// An engine with one version of every key on a deep level, closed.
async fn build(env: &SimEnv) {
    let engine = open(env, options(0)).await;
    for round in 0..4 {
        for n in (0..KEYS).filter(|n| n % 4 == round) {
            put(env, &engine, &key(n), &value(n, 200)).await;
        }
        engine.flush().await.unwrap();
    }
    engine.compact().await.unwrap();
    // Until the merged tables are removed.
    env.sleep(Duration::from_secs(1)).await;
    engine.close().await.unwrap();
}

fn tables(env: &SimEnv) -> Vec<PathBuf> {
    let mut files = env.disk().files();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "sst"));
    files
}

/// Which keys cannot be read; every other one must be right.
async fn unreadable(engine: &TestEngine, path: &Path, offset: Option<u64>) -> Vec<u64> {
    let mut lost = Vec::new();
    for n in 0..KEYS {
        match engine.get(&key(n)).await {
            Ok(found) => assert_eq!(found, Some(value(n, 200)), "key {n}"),
            Err(Error::Corruption { path: named, offset: at, .. }) => {
                assert_eq!(named, path);
                assert!(offset.is_none_or(|offset| offset == at), "{at}");
                lost.push(n);
            }
            Err(other) => panic!("{other}"),
        }
    }
    lost
}

#[test]
fn a_damaged_block_is_quarantined_and_everything_else_is_served() {
    let sim = Sim::new(1);
    let mut env = sim.node_env("node");
    let lost = sim.block_on(async {
        build(&env).await;
        let path = tables(&env)[0].clone();
        let block = blocks(&env, &path)[2];
        env.disk().flip(&path, block + 700, 4).unwrap();
        let engine = open(&env, options(0)).await;
        let lost = unreadable(&engine, &path, Some(block)).await;
        assert!((5..50).contains(&lost.len()), "{lost:?}");
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!((engine.stats().lost_ranges, engine.stats().damaged_blocks), (1, 1));
        let told = engine.take_incidents();
        assert!(told.len() == 1 && told[0].contains(&format!("offset {block}")), "{told:?}");
        assert!(engine.take_incidents().is_empty());

        // Compaction goes through, keeps what is readable, and carries nothing wrong on.
        for n in (0..KEYS).filter(|n| n % 3 == 0) {
            put(&env, &engine, &key(n), &value(n, 200)).await;
        }
        engine.flush().await.unwrap();
        for _ in 0..4 {
            put(&env, &engine, &key(KEYS), b"x").await;
            put(&env, &engine, b"a", b"x").await;
            engine.flush().await.unwrap();
        }
        engine.compact().await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert!(!tables(&env).contains(&path), "the damaged table was compacted away");
        let still = unreadable(&engine, &path, Some(block)).await;
        // What was written anew is newer than everything that was lost.
        assert!(still.iter().all(|n| lost.contains(n) && n % 3 != 0), "{still:?}");
        assert_eq!(still.len(), lost.iter().filter(|n| *n % 3 != 0).count());

        // A scan reports the hole instead of passing over it, and goes on behind it.
        let mut scan = engine.scan(ScanRange::default()).await.unwrap();
        let stopped = loop {
            match scan.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the scan passed over lost keys"),
                Err(error) => break error,
            }
        };
        assert!(matches!(stopped, Error::Corruption { .. }), "{stopped}");
        scan.seek(&key(lost[lost.len() - 1] + 2)).await.unwrap();
        while scan.next().await.unwrap().is_some() {}
        // So does one from the other side, with the same hole.
        scan.turn().await.unwrap();
        let (stopped, last) = loop {
            let last = scan.entry().map(|(key, _)| key.to_vec());
            match scan.advance().await {
                Ok(()) => assert!(last.is_some(), "the scan passed over lost keys"),
                Err(error) => break (error, last.unwrap()),
            }
        };
        assert!(matches!(stopped, Error::Corruption { .. }), "{stopped}");
        assert!(last > key(lost[lost.len() - 1]), "it stopped early");
        scan.seek_for_prev(&key(lost[0] - 1)).await.unwrap();
        let mut below = 0;
        while scan.next().await.unwrap().is_some() {
            below += 1;
        }
        assert!(below > 0 && below <= lost[0] + 1, "{below} below the hole");
        engine.close().await.unwrap();
        lost
    });
    env = sim.crash(&env);
    sim.block_on(async {
        let engine = open(&env, options(0)).await;
        assert_eq!(engine.stats().lost_ranges, 1, "the quarantine survives a restart");
        assert!(engine.get(&key(lost[1])).await.is_err() || lost[1].is_multiple_of(3));
        let files = env.disk().files();
        let aside = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "damaged");
        assert!(files.iter().any(aside), "the damaged file is kept: {files:?}");
        engine.accept_loss().await.unwrap();
        assert_eq!(engine.stats().lost_ranges, 0);
        let left = collect(&engine, ScanRange::prefix(b"key")).await.len() as u64;
        assert_eq!(left, KEYS + 1 - lost.iter().filter(|n| *n % 3 != 0).count() as u64);
        engine.close().await.unwrap();
        let engine = open(&env, options(0)).await;
        assert_eq!(engine.stats().lost_ranges, 0);
    });
}

#[test]
fn an_accepted_loss_is_no_error_any_more_and_the_keys_can_be_written() {
    let sim = Sim::new(6);
    let mut env = sim.node_env("node");
    let lost = sim.block_on(async {
        build(&env).await;
        let path = tables(&env)[0].clone();
        let block = blocks(&env, &path)[2];
        env.disk().flip(&path, block + 700, 4).unwrap();
        let engine = open(&env, options(0)).await;
        let lost = unreadable(&engine, &path, Some(block)).await;
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(engine.stats().lost_ranges, 1);
        // No merge has come by: the damaged block is where it was.
        engine.accept_loss().await.unwrap();
        for n in 0..KEYS {
            let left = (!lost.contains(&n)).then(|| value(n, 200));
            assert_eq!(engine.get(&key(n)).await.unwrap(), left, "key {n}");
        }
        let left = collect(&engine, ScanRange::prefix(b"key")).await.len();
        assert_eq!(left, KEYS as usize - lost.len());
        put(&env, &engine, &key(lost[0]), b"again").await;
        assert_eq!(engine.get(&key(lost[0])).await.unwrap(), Some(b"again".to_vec()));
        assert_eq!(engine.stats().lost_ranges, 0);
        lost
    });
    // The second opening reads what the first one wrote into its own manifest.
    for _ in 0..2 {
        env = sim.crash(&env);
        sim.block_on(check_accepted(&env, &lost));
    }
}

#[test]
fn what_was_given_up_is_not_answered_from_the_cache_any_more() {
    let sim = Sim::new(12);
    let env = sim.node_env("node");
    sim.block_on(async {
        build(&env).await;
        let path = tables(&env)[0].clone();
        let block = blocks(&env, &path)[2];
        let engine = open(&env, Options { cache_bytes: 4 << 20, ..options(1 << 30) }).await;
        // Into the cache, while all is well.
        assert_eq!(unreadable(&engine, &path, None).await, []);
        env.disk().flip(&path, block + 700, 4).unwrap();
        engine.scrub_now();
        env.sleep(Duration::from_secs(1)).await;
        let misses = engine.stats().cache_misses;
        assert!(!unreadable(&engine, &path, Some(block)).await.is_empty());
        assert_eq!(engine.stats().cache_misses, misses, "the cache has what was there");

        engine.accept_loss().await.unwrap();
        let scanned = collect(&engine, ScanRange::prefix(b"key")).await;
        assert!(scanned.len() < KEYS as usize);
        for n in 0..KEYS {
            let left = scanned.iter().any(|(found, _)| *found == key(n));
            let got = engine.get(&key(n)).await.unwrap();
            assert_eq!(got, left.then(|| value(n, 200)), "key {n}");
        }
        engine.close().await.unwrap();
    });
}

async fn check_accepted(env: &SimEnv, lost: &[u64]) {
    let engine = open(env, options(0)).await;
    assert_eq!(engine.get(&key(lost[0])).await.unwrap(), Some(b"again".to_vec()));
    // Nothing rewrote the table: the damaged block is still where it was.
    for n in lost.iter().skip(1) {
        assert_eq!(engine.get(&key(*n)).await.unwrap(), None, "key {n}");
    }
    let left = collect(&engine, ScanRange::prefix(b"key")).await.len();
    assert_eq!(left, KEYS as usize - lost.len() + 1);
    assert_eq!(engine.stats().lost_ranges, 0);
}

#[test]
fn the_scrub_is_changed_and_begun_while_it_works() {
    let sim = Sim::new(7);
    let env = sim.node_env("node");
    sim.block_on(async {
        build(&env).await;
        let engine = open(&env, options(0)).await;
        assert_eq!(engine.scrub_now(), 0, "the scrub is off");
        env.sleep(Duration::from_secs(1000)).await;
        assert_eq!(engine.stats().scrub_bytes, 0);
        let total = engine.stats().block_disk_bytes;
        engine.set_scrub_rate(total / 10);
        assert_eq!(engine.scrub_now(), 1, "one keyspace");
        env.sleep(Duration::from_secs(3)).await;
        let stats = engine.stats();
        assert!(stats.scrub_bytes > 0 && stats.scrub_left_bytes > 0, "{stats:?}");
        engine.set_scrub_rate(1 << 30);
        env.sleep(Duration::from_secs(10)).await;
        let stats = engine.stats();
        assert_eq!((stats.scrub_passes, stats.scrub_left_bytes), (1, 0));
        // Another one long before its pause is over.
        engine.scrub_now();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(engine.stats().scrub_passes, 2);
    });
}

#[test]
fn the_scrub_finds_damage_nobody_ran_into_at_its_pace() {
    let sim = Sim::new(2);
    let env = sim.node_env("node");
    sim.block_on(async {
        build(&env).await;
        let path = tables(&env)[0].clone();
        env.disk().flip(&path, 4096 + 9, 1).unwrap();
        let engine = open(&env, options(16 << 10)).await;
        let total = engine.stats().block_disk_bytes;
        env.sleep(Duration::from_secs(59)).await;
        assert_eq!(engine.stats().scrub_bytes, 0, "it began before its pause was over");
        env.sleep(Duration::from_secs(3)).await;
        let stats = engine.stats();
        assert!(stats.scrub_bytes > 0 && stats.scrub_left_bytes > 0 && stats.scrub_passes == 0);
        env.sleep(Duration::from_secs(total / (16 << 10) + 2)).await;
        let stats = engine.stats();
        assert_eq!((stats.scrub_passes, stats.scrub_bytes), (1, total));
        assert_eq!((stats.damaged_blocks, stats.lost_ranges), (1, 1));
        assert_eq!(engine.take_incidents().len(), 1);
        env.sleep(Duration::from_secs(70 + total / (16 << 10))).await;
        let stats = engine.stats();
        assert_eq!((stats.scrub_passes, stats.damaged_blocks), (2, 1), "reported once");
    });
}

/// What an opening needs of a table is in memory while the table is in use, so nothing is lost
/// that the scrub finds damaged there.
#[test]
fn a_table_with_a_damaged_end_is_written_anew_before_an_opening_needs_it() {
    // The footer itself, and the frames whose places it has at these offsets: filter and index.
    let places = [None, Some(40), Some(32)];
    let cases = places.into_iter().flat_map(|place| [(place, false), (place, true)]);
    for (seed, (place, is_refused)) in (20..).zip(cases) {
        let sim = Sim::new(seed);
        let mut env = sim.node_env("node");
        sim.block_on(async {
            build(&env).await;
            let engine = open(&env, options(1 << 20)).await;
            let path = tables(&env)[0].clone();
            let bytes = env.disk().read_raw(&path).unwrap();
            let footer = bytes.len() - 4096;
            let frame = |at| u64::from_le_bytes(bytes[footer + at..][..8].try_into().unwrap());
            let damaged = place.map_or(footer as u64, frame) + 30;
            if is_refused {
                // One that has nothing of a data block in it.
                env.disk().break_sector(&path, damaged.next_multiple_of(512)).unwrap();
            } else {
                env.disk().flip(&path, damaged, 1).unwrap();
            }
            engine.scrub_now();
            env.sleep(Duration::from_secs(3)).await;
            let told = engine.take_incidents();
            assert!(told.len() == 1 && told[0].contains("written anew"), "{told:?}");
            let stats = engine.stats();
            assert_eq!((stats.rewritten_tables, stats.lost_ranges), (1, 0));
            assert!(!tables(&env).contains(&path), "the damaged file is still there");
        });
        env = sim.crash(&env);
        sim.block_on(async {
            let engine = open(&env, options(0)).await;
            assert_eq!(engine.stats().damaged_tables, 0);
            assert_eq!(unreadable(&engine, Path::new(""), None).await, [0; 0]);
        });
    }
}

#[test]
fn a_table_is_written_anew_to_its_end_whatever_the_policy_becomes_meanwhile() {
    let sim = Sim::new(30);
    let env = sim.node_env("node");
    sim.block_on(async {
        build(&env).await;
        let sized = |table| CompactionPolicy::leveled().sized(1 << 20, table);
        let engine = open(&env, Options { compaction: sized(8 << 10), ..options(1 << 30) }).await;
        let path = tables(&env)[0].clone();
        let footer = env.disk().read_raw(&path).unwrap().len() as u64 - 4096;
        env.disk().flip(&path, footer + 30, 1).unwrap();
        engine.scrub_now();
        while engine.stats().compaction_steps == 0 {
            env.sleep(Duration::from_micros(100)).await;
        }
        assert_eq!(engine.stats().rewritten_tables, 0, "it takes several steps");
        engine.set_policy(sized(16 << 10)).await.unwrap();
        env.sleep(Duration::from_secs(3)).await;
        assert_eq!(engine.stats().rewritten_tables, 1);
        assert!(!tables(&env).contains(&path), "the damaged file is still there");
        assert_eq!(unreadable(&engine, Path::new(""), None).await, [0; 0]);
        engine.close().await.unwrap();
    });
}

/// A bad sector, or a controller that is away for a while: told, not taken for damage.
#[test]
fn blocks_that_the_disk_refuses_to_read_are_told_and_read_again_by_the_next_pass() {
    let sim = Sim::new(11);
    let env = sim.node_env("node");
    sim.block_on(async {
        build(&env).await;
        let engine = open(&env, options(1 << 20)).await;
        let path = tables(&env)[0].clone();
        env.disk().flip(&path, 4096 + 9, 1).unwrap();
        let only = Some(path.display().to_string());
        env.disk().set_faults(Faults { read_error: 1_000_000, only, ..Faults::none() });
        engine.scrub_now();
        env.sleep(Duration::from_secs(3)).await;
        let (stats, told) = (engine.stats(), engine.take_incidents());
        assert!(stats.unreadable_blocks > 5 && stats.damaged_blocks == 0, "{stats:?}");
        let all = format!("{} blocks of the table cannot be read", stats.unreadable_blocks);
        assert!(told.len() == 1 && told[0].contains(&all), "{told:?}");
        assert_eq!(stats.scrub_passes, 1);
        env.disk().set_faults(Faults::none());
        engine.scrub_now();
        env.sleep(Duration::from_secs(3)).await;
        let after = engine.stats();
        assert_eq!((after.unreadable_blocks, after.damaged_blocks), (stats.unreadable_blocks, 1));
    });
}

#[test]
fn a_table_that_cannot_be_opened_costs_its_keys_and_not_the_engine() {
    let sim = Sim::new(3);
    let env = sim.node_env("node");
    sim.block_on(async {
        build(&env).await;
        let path = tables(&env)[0].clone();
        let len = env.disk().read_raw(&path).unwrap().len() as u64;
        env.disk().flip(&path, len - 4096 + 30, 1).unwrap();
        for _ in 0..2 {
            let engine = open(&env, options(0)).await;
            let lost = unreadable(&engine, &path, Some(0)).await;
            assert!(!lost.is_empty() && lost.len() < KEYS as usize, "{}", lost.len());
            engine.close().await.unwrap();
        }
        env.sleep(Duration::from_secs(1)).await;
        assert!(env.disk().files().contains(&path.with_extension("sst.damaged")));
        assert!(!env.disk().files().contains(&path));
    });
}

#[test]
fn a_missing_table_refuses_to_open() {
    let sim = Sim::new(4);
    let env = sim.node_env("node");
    sim.block_on(async {
        build(&env).await;
        env.remove(&tables(&env)[0]).await.unwrap();
        let opened = Engine::open(env.clone(), Path::new(DIR), options(0)).await;
        assert!(matches!(opened, Err(Error::Io { .. })));
    });
}
