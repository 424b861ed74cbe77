//! What the engine's functional tests share.
#![allow(dead_code)] // Every test file uses its own part.

use coronet_lsm::env::Env;
use coronet_lsm::inspect::check_table;
use coronet_lsm::{Durability, Engine, Error, Options, ScanOptions, WriteBatch};
use coronet_sim::{Rng, SimEnv};
use std::path::Path;
use std::time::Duration;

#[path = "../policy_support/mod.rs"]
mod policy_support;
#[allow(unused_imports)] // not every test file draws one
pub use policy_support::policy;

pub const DIR: &str = "/data/core-000";

pub type TestEngine = Engine<SimEnv>;

pub async fn open(env: &SimEnv, options: Options) -> TestEngine {
    Engine::open(env.clone(), Path::new(DIR), options).await.unwrap()
}

/// Writes durably; waits as long as the engine says it is busy.
pub async fn write(env: &SimEnv, engine: &TestEngine, batch: &WriteBatch) {
    loop {
        match engine.write(batch, Durability::Durable) {
            Ok(commit) => {
                commit.await.unwrap();
                return;
            }
            Err(Error::Busy { retry_after_ms }) => {
                env.sleep(Duration::from_millis(retry_after_ms.into())).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

pub async fn put(env: &SimEnv, engine: &TestEngine, key: &[u8], value: &[u8]) {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    write(env, engine, &batch).await;
}

pub async fn delete(env: &SimEnv, engine: &TestEngine, key: &[u8]) {
    let mut batch = WriteBatch::new();
    batch.delete(key);
    write(env, engine, &batch).await;
}

pub async fn collect(
    engine: &TestEngine,
    options: impl Into<ScanOptions>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut scan = engine.scan(options).await.unwrap();
    let mut all = Vec::new();
    while let Some(entry) = scan.next().await.unwrap() {
        all.push(entry);
    }
    all
}

pub fn key(n: u64) -> Vec<u8> {
    format!("key-{n:06}").into_bytes()
}

pub fn value(n: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(n);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// Where the data blocks of an undamaged table file begin.
pub fn blocks(env: &SimEnv, path: &Path) -> Vec<u64> {
    let report = check_table(&env.disk().read_raw(path).unwrap(), |_, _| {});
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    report.blocks.iter().map(|block| block.offset).collect()
}
