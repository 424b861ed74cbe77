//! The engine and its files: damage is reported with file and offset, unknown versions are
//! refused, folders are rebuilt for another number of cores.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::env::{Env, OpenMode};
use coronet_lsm::reshard::link_into;
use coronet_lsm::{Engine, Error, Options, ScanRange, WriteBatch};
use coronet_sim::{Sim, SimEnv, for_each_seed};
use engine_support::{DIR, put, write};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

async fn contents(engine: &Engine<SimEnv>, range: ScanRange) -> Contents {
    let mut scan = engine.scan(range).await.unwrap();
    let mut all = Contents::new();
    while let Some((key, value)) = scan.next().await.unwrap() {
        all.insert(key, value);
    }
    all
}

fn files(env: &SimEnv, ending: &str) -> Vec<PathBuf> {
    let files = env.disk().files().into_iter();
    files.filter(|path| path.to_string_lossy().contains(ending)).collect()
}

/// A folder with a table, a manifest and twenty batches in one log segment.
fn folder(seed: u64) -> (Sim, SimEnv) {
    let sim = Sim::new(seed);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = Engine::open(env.clone(), Path::new(DIR), Options::tiny()).await.unwrap();
        put(&env, &engine, b"in-table", &[7; 300]).await;
        engine.flush().await.unwrap();
        for n in 0..20u8 {
            put(&env, &engine, &[b'k', n], &[n; 100]).await;
        }
    });
    let env = sim.kill(&env);
    (sim, env)
}

fn open_error(sim: &Sim, env: &SimEnv) -> Error {
    let opened = sim.block_on(Engine::open(env.clone(), Path::new(DIR), Options::tiny()));
    opened.err().expect("the folder is damaged")
}

/// The offset of the batch that holds key `n` in the raw log.
fn batch_of(raw: &[u8], n: u8) -> Option<usize> {
    let record = [1, 2, 100, b'k', n, n, n, n];
    let at = raw.windows(record.len()).position(|window| window == record)?;
    Some(at / 4096 * 4096)
}

/// The segment in use that holds key `n`, and the offset of the batch.
fn find_batch(env: &SimEnv, n: u8) -> (PathBuf, u64) {
    let found = files(env, ".log").into_iter().find_map(|path| {
        let at = batch_of(&env.disk().read_raw(&path).unwrap(), n)?;
        Some((path, at as u64))
    });
    found.unwrap()
}

#[test]
fn damage_in_the_middle_of_the_log_is_reported_with_its_place() {
    // Key 3 lies in a full segment, key 17 in the last one.
    for n in [3, 17] {
        let (sim, env) = folder(1);
        let (log, at) = find_batch(&env, n);
        env.disk().flip(&log, at + 80, 0x10).unwrap();
        match open_error(&sim, &env) {
            Error::Corruption { path, offset, .. } => assert_eq!((path, offset), (log, at)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_torn_last_batch_is_dropped_and_counted() {
    let (sim, env) = folder(2);
    let (log, at) = find_batch(&env, 19);
    env.disk().flip(&log, at + 80, 0x10).unwrap();
    sim.block_on(async {
        let engine = Engine::open(env.clone(), Path::new(DIR), Options::tiny()).await.unwrap();
        assert_eq!(engine.stats().torn_tails, 1);
        assert_eq!(engine.stats().torn_tail_bytes, 4096 * 2);
        assert_eq!(engine.get(&[b'k', 19]).await.unwrap(), None);
        assert_eq!(engine.get(&[b'k', 18]).await.unwrap(), Some(vec![18; 100]));
        put(&env, &engine, b"next", b"life").await;
    });
    let env = sim.crash(&env);
    sim.block_on(async {
        let engine = Engine::open(env.clone(), Path::new(DIR), Options::tiny()).await.unwrap();
        assert_eq!(contents(&engine, ScanRange::default()).await.len(), 21);
    });
}

#[test]
fn a_damaged_manifest_and_a_missing_table_are_reported() {
    let (sim, env) = folder(3);
    let image = env.disk().image();
    let manifest = files(&env, "MANIFEST").remove(0);
    env.disk().flip(&manifest, 4096 + 40, 1).unwrap();
    assert!(matches!(open_error(&sim, &env), Error::Corruption { path, .. } if path == manifest));
    env.disk().restore(&image);
    let table = files(&env, ".sst").remove(0);
    sim.block_on(env.remove(&table)).unwrap();
    assert!(matches!(open_error(&sim, &env), Error::Io { path, .. } if path == table));
}

/// On a full disk every start of a new folder leaves half a manifest; `sim_cluster`, seed 20207.
#[test]
fn half_made_first_manifests_are_no_damage_and_lost_ones_are() {
    let (sim, env) = folder(6);
    let whole = files(&env, "MANIFEST");
    let ours = env.disk().files().into_iter().filter(|path| path.starts_with(DIR));
    let others: Vec<PathBuf> = ours.filter(|path| !whole.contains(path)).collect();
    for path in &whole {
        env.disk().write_raw(path, Vec::new()).unwrap();
    }
    assert!(matches!(open_error(&sim, &env), Error::Corruption { .. }), "data without a manifest");
    others.iter().chain(&whole).for_each(|path| sim.block_on(env.remove(path)).unwrap());
    for number in [1, 2, 3] {
        let path = Path::new(DIR).join(format!("MANIFEST-{number:06}"));
        sim.block_on(env.open(&path, OpenMode::CreateNew)).unwrap();
    }
    sim.block_on(async {
        let engine = Engine::open(env.clone(), Path::new(DIR), Options::tiny()).await.unwrap();
        assert_eq!(engine.get(b"k").await.unwrap(), None);
    });
}

#[test]
fn files_of_a_newer_release_are_refused_by_name() {
    let (sim, env) = folder(4);
    let image = env.disk().image();
    for (ending, magic) in [("MANIFEST", &b"CRNTMAN\0"[..]), (".log", b"CRNTLOG\0")] {
        env.disk().restore(&image);
        let in_use = |path: &PathBuf| env.disk().read_raw(path).unwrap().starts_with(magic);
        let file = files(&env, ending).into_iter().find(in_use).unwrap();
        env.disk().flip(&file, 8, 0x40).unwrap();
        match open_error(&sim, &env) {
            Error::UnknownVersion { path, found, supported } => {
                assert_eq!(path, file);
                assert_eq!(found, supported ^ 0x40);
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_missing_log_segment_is_reported() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    let options = Options { memtable_bytes: 1 << 20, ..Options::tiny() };
    sim.block_on(async {
        let engine = Engine::open(env.clone(), Path::new(DIR), options.clone()).await.unwrap();
        for n in 0..60u8 {
            put(&env, &engine, &[n], &[n; 3000]).await;
        }
        assert!(engine.stats().log_segments >= 3);
    });
    let env = sim.kill(&env);
    let in_use = |path: &PathBuf| env.disk().read_raw(path).unwrap().starts_with(b"CRNTLOG\0");
    let first = files(&env, ".log").into_iter().find(in_use).unwrap();
    sim.block_on(env.remove(&first)).unwrap();
    assert!(matches!(open_error(&sim, &env), Error::Corruption { .. }));
}

/// Keys of engine `n` of `count`: those whose first byte is in its part of 0..240.
fn part(n: u8, count: u8) -> ScanRange {
    let width = 240 / count;
    ScanRange { start: vec![n * width], end: Some(vec![(n + 1) * width]) }
}

fn core_dir(generation: u32, n: u8) -> PathBuf {
    PathBuf::from(format!("/data/gen-{generation:06}/core-{n:03}"))
}

/// Fills `count` engines over their parts; returns everything they hold.
async fn fill(env: &SimEnv, generation: u32, count: u8, rng: &mut coronet_sim::Rng) -> Contents {
    let mut model = Contents::new();
    for n in 0..count {
        let dir = core_dir(generation, n);
        let engine = Engine::open(env.clone(), &dir, Options::tiny()).await.unwrap();
        let range = part(n, count);
        model.extend(contents(&engine, range.clone()).await);
        let (low, high) = (u64::from(range.start[0]), u64::from(range.end.unwrap()[0]));
        for _ in 0..rng.range(0, 400) {
            let mut key = vec![rng.range(low, high - 1) as u8];
            key.extend_from_slice(format!("{:03}", rng.below(50)).as_bytes());
            let mut batch = WriteBatch::new();
            if rng.below(5) == 0 {
                batch.delete(&key);
                model.remove(&key);
            } else {
                let value = vec![rng.below(256) as u8; rng.below(600) as usize];
                batch.put(&key, &value);
                model.insert(key, value);
            }
            write(env, &engine, &batch).await;
        }
        engine.flush().await.unwrap();
        engine.close().await.unwrap();
    }
    model
}

fn change_of_cores(seed: u64) {
    let sim = Sim::new(seed);
    let mut env = sim.node_env("a");
    let mut rng = sim.rng();
    let mut count = rng.range(1, 4) as u8;
    for generation in 1..4 {
        let model = sim.block_on(fill(&env, generation, count, &mut rng));
        let before = count;
        count = rng.range(1, 4) as u8;
        let sources: Vec<PathBuf> = (0..before).map(|n| core_dir(generation, n)).collect();
        sim.block_on(async {
            for n in 0..count {
                let dest = core_dir(generation + 1, n);
                let range = part(n, count);
                link_into(&env, &sources, &dest, &range, &Options::tiny()).await.unwrap();
            }
        });
        env = sim.crash(&env);
        sim.block_on(async {
            let mut found = Contents::new();
            for n in 0..count {
                let dir = core_dir(generation + 1, n);
                let engine = Engine::open(env.clone(), &dir, Options::tiny()).await.unwrap();
                let all = contents(&engine, ScanRange::default()).await;
                assert_eq!(all, contents(&engine, part(n, count)).await, "foreign keys show");
                for (key, value) in &all {
                    assert_eq!(engine.get(key).await.unwrap().as_ref(), Some(value));
                }
                engine.compact().await.unwrap();
                found.extend(all);
                engine.close().await.unwrap();
            }
            assert!(found == model, "{before} to {count} cores changed the contents");
        });
    }
}

#[test]
fn a_change_of_cores_keeps_every_entry_and_shows_no_foreign_one() {
    for_each_seed(0..40, change_of_cores);
}

#[test]
fn linking_refuses_a_source_that_was_not_flushed() {
    let (sim, env) = folder(6);
    let sources = [PathBuf::from(DIR)];
    let dest = Path::new("/data/new");
    let (range, options) = (ScanRange::default(), Options::tiny());
    match sim.block_on(link_into(&env, &sources, dest, &range, &options)) {
        Err(Error::Corruption { what, .. }) => assert!(what.contains("flush before linking")),
        other => panic!("{other:?}"),
    }
}

/// Many runs of which few have keys in the range: the next flush must still be the newest run.
#[test]
fn what_is_written_after_a_change_of_cores_is_newer_than_all_runs_taken_over() {
    let (sim, env) = folder(44);
    let source = core_dir(1, 0);
    let dest = core_dir(2, 0);
    // Two runs with the key, then three without any key of the range.
    let options = Options { compaction: "tiered(fanout=20)".parse().unwrap(), ..Options::tiny() };
    let flushed = |path: PathBuf, rounds: Vec<Vec<(&'static [u8], &'static [u8])>>| {
        let (env, options) = (env.clone(), options.clone());
        async move {
            let engine = Engine::open(env.clone(), &path, options).await.unwrap();
            for round in rounds {
                for (key, value) in round {
                    put(&env, &engine, key, value).await;
                }
                engine.flush().await.unwrap();
            }
            let found = engine.get(b"b").await.unwrap();
            engine.close().await.unwrap();
            found
        }
    };
    let old = vec![
        vec![(&b"y"[..], &b"1"[..])],
        vec![(&b"z"[..], &b"1"[..])],
        vec![(&b"y"[..], &b"2"[..])],
        vec![(&b"b"[..], &b"old"[..]), (&b"z"[..], &b"2"[..])],
    ];
    sim.block_on(flushed(source.clone(), old));
    let range = ScanRange { start: b"a".to_vec(), end: Some(b"c".to_vec()) };
    sim.block_on(link_into(&env, &[source], &dest, &range, &options)).unwrap();
    let found = sim.block_on(flushed(dest, vec![vec![(&b"b"[..], &b"new"[..])]]));
    assert_eq!(found.as_deref(), Some(&b"new"[..]));
}
