//! Folders written by every format so far: each must open and say what was put into it.
//!
//! `golden/NAME/` holds the files of one engine as that format wrote them. A change of a format
//! adds a folder (`CORONET_GOLDEN_OUT=DIR cargo test -p coronet-lsm --test golden -- --ignored`
//! writes one) and never changes an old one. Folders up to the third hold one keyspace; from the
//! fourth on there is a damaged keyspace and one with every option beside it.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod golden_support;

use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode};
use coronet_lsm::{Codec, Durability, Engine, Options, ScanRange, WriteBatch};
use coronet_sim::{Sim, SimEnv};
use golden_support::Contents;
use std::path::{Path, PathBuf};

const DIR: &str = "/data/engine";

fn options() -> Options {
    let mut options = Options {
        log_segment_bytes: 16 << 10,
        memtable_bytes: 1 << 20,
        log_bytes: 4 << 20,
        ..Options::tiny()
    };
    options.compression[0] = Codec::Lz4;
    options.compression[1] = Codec::Zstd;
    options
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// One write of the history that every golden folder holds.
fn step(n: u32) -> (Vec<u8>, Option<Vec<u8>>) {
    let key = format!("user/{:03}/name", n * 7 % 90).into_bytes();
    let value = format!("value {n} of a golden file, {}", "abc".repeat(n as usize % 40));
    (key, (!n.is_multiple_of(11)).then(|| value.into_bytes()))
}

/// Steps that are flushed to tables; the rest stays in the log.
const FLUSHED: u32 = 120;
const STEPS: u32 = 125;

fn expected() -> Contents {
    let mut all = Contents::new();
    for (key, value) in (0..STEPS).map(step) {
        match value {
            Some(value) => drop(all.insert(key, value)),
            None => drop(all.remove(&key)),
        }
    }
    all
}

async fn write_history(env: &SimEnv) {
    // Without a cache the damage is met that this history has.
    let options = Options { cache_bytes: 0, ..options() };
    let engine = Engine::open(env.clone(), Path::new(DIR), options).await.unwrap();
    for n in 0..STEPS {
        let (key, value) = step(n);
        let mut batch = WriteBatch::new();
        match value {
            Some(value) => batch.put(&key, &value),
            None => batch.delete(&key),
        }
        engine.write(&batch, Durability::Durable).unwrap().await.unwrap();
        if n + 1 == FLUSHED {
            engine.flush().await.unwrap();
            golden_support::write(env, &engine).await;
        }
    }
    engine.close().await.unwrap();
}

/// Puts the files of a golden folder on the simulated disk.
async fn bring(env: &SimEnv, from: &Path) {
    env.create_dir_all(Path::new(DIR)).await.unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let mut buf = AlignedBuf::default();
        buf.extend_from_slice(&std::fs::read(&path).unwrap());
        let at = Path::new(DIR).join(path.file_name().unwrap());
        let file = env.open(&at, OpenMode::CreateNew).await.unwrap();
        file.write_at(0, buf).await.0.unwrap();
        file.sync().await.unwrap();
    }
    env.sync_dir(Path::new(DIR)).await.unwrap();
}

/// Folders before this one hold the default keyspace only.
const KEYSPACES_SINCE: u32 = 4;

/// Table files of a golden folder.
fn tables(from: &Path) -> u64 {
    let names = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|ext| ext == "sst")).count() as u64
}

fn name(folder: &Path) -> u32 {
    folder.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn every_golden_folder_opens_and_is_right() {
    let mut seen = 0;
    for entry in std::fs::read_dir(golden()).unwrap() {
        let from = entry.unwrap().path();
        if !from.is_dir() {
            continue;
        }
        let sim = Sim::new(5);
        let env = sim.node_env("node");
        let found = sim.block_on(async {
            bring(&env, &from).await;
            let engine = Engine::open(env.clone(), Path::new(DIR), options()).await.unwrap();
            let mut found = Contents::new();
            let mut scan = engine.scan(ScanRange::default()).await.unwrap();
            while let Some((key, value)) = scan.next().await.unwrap() {
                assert_eq!(engine.get(&key).await.unwrap().as_ref(), Some(&value));
                found.insert(key, value);
            }
            assert_eq!(engine.stats().level_tables.iter().sum::<u64>(), tables(&from));
            if name(&from) >= KEYSPACES_SINCE {
                golden_support::check(&engine, name(&from)).await;
            }
            found
        });
        assert!(found == expected(), "{} reads differently", from.display());
        seen += 1;
    }
    assert!(seen > 0, "no golden folder");
}

/// Not a test: writes the files of this release's formats.
#[test]
#[ignore = "writes files"]
fn write_golden_folder() {
    let out = PathBuf::from(std::env::var_os("CORONET_GOLDEN_OUT").unwrap());
    let sim = Sim::new(1);
    let env = sim.node_env("node");
    sim.block_on(write_history(&env));
    std::fs::create_dir_all(&out).unwrap();
    for path in env.disk().files() {
        let bytes = env.disk().read_raw(&path).unwrap();
        if bytes.iter().any(|byte| *byte != 0) {
            std::fs::write(out.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
}
