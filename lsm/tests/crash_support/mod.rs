//! What the crash tests share: a model of what an engine may hold after a crash, and a workload
//! that writes, reads, flushes and compacts until it is cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

pub mod model;
#[path = "../policy_support/mod.rs"]
mod policy_support;
pub mod visitor;
pub mod workload;

use std::path::Path;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_lsm::{
    Codec, Engine, Keyspace, KeyspaceId, KeyspaceOptions, Millis, Options, Scan, ScanRange,
};
use coronet_sim::{Rng, SimEnv};
use futures_util::future::join_all;

use model::Contents;
#[allow(unused_imports)] // not every test file draws one
pub use policy_support::policy;

/// The engine's folder in every crash test.
pub const DIR: &str = "/data/engine";

/// Creates the folder's parents durably, as the owner of a data folder does.
pub async fn prepare(env: &SimEnv) {
    env.create_dir_all(Path::new(DIR)).await.unwrap();
    env.sync_dir(Path::new("/data")).await.unwrap();
    env.sync_dir(Path::new("/")).await.unwrap();
}

/// Small sizes, different for every seed, so that segments, tables and levels change often.
pub fn options(rng: &mut Rng) -> Options {
    Options {
        memtable_bytes: 8 << (10 + rng.below(3)),
        log_segment_bytes: 32 << (10 + rng.below(2)),
        compaction: policy(rng),
        max_frozen: 1 + rng.index(2),
        sync_interval: Duration::from_millis(1 + rng.below(30)),
        full_probe_interval: Duration::from_millis(20),
        filter_prefix_bytes: rng.below(16) as u32,
        compression: std::array::from_fn(|_| [Codec::None, Codec::Lz4, Codec::Zstd][rng.index(3)]),
        ..Options::tiny()
    }
}

/// The keyspaces of a workload that has more than one; the last gives its entries an expiry.
pub const KEYSPACES: [KeyspaceId; 3] = [KeyspaceId::DEFAULT, KeyspaceId(5), KeyspaceId(8)];
/// How long entries of the last one live.
pub const DEFAULT_TTL: Duration = Duration::from_millis(40);

/// A key as the model calls it: keys of the default keyspace by themselves, others behind their
/// keyspace.
pub fn name(keyspace: KeyspaceId, key: &[u8]) -> Vec<u8> {
    match keyspace {
        KeyspaceId::DEFAULT => key.to_vec(),
        KeyspaceId(id) => [format!("keyspace {id}:").as_bytes(), key].concat(),
    }
}

/// Creates the keyspaces that are not there.
pub async fn create_keyspaces(engine: &Engine<SimEnv>) {
    for id in KEYSPACES {
        let default_ttl = (id == KEYSPACES[2]).then_some(DEFAULT_TTL);
        if engine.keyspace(id).is_err() {
            let options = KeyspaceOptions { default_ttl, ..KeyspaceOptions::default() };
            engine.create_keyspace(id, options).await.unwrap();
        }
    }
}

/// The time as the engine sees it.
pub fn now(env: &SimEnv) -> Millis {
    Millis(env.wall_micros() / 1000)
}

/// Like [`scan_all`], with the time of the moment.
pub async fn scan_now(
    env: &SimEnv,
    engine: &Engine<SimEnv>,
) -> (Millis, coronet_lsm::Result<Contents>) {
    (now(env), scan_all(engine).await)
}

/// Some keys' beginnings; filters know shorter and longer ones.
const PREFIXES: [&[u8]; 3] = [b"key/0000", b"key/00012", b"key/00030/with"];

/// Everything that scans of all keyspaces yield, of one moment: that of the first poll.
pub async fn scan_all(engine: &Engine<SimEnv>) -> coronet_lsm::Result<Contents> {
    let keyspaces = KEYSPACES.iter().filter_map(|id| engine.keyspace(*id).ok());
    let keyspaces: Vec<_> = keyspaces.collect();
    if keyspaces.is_empty() {
        // Closed, as this says.
        engine.scan(ScanRange::default()).await?;
    }
    // A scan takes its view when it is polled for the first time; these are, one after the other.
    let scans = keyspaces.iter().flat_map(|keyspace| {
        let prefixes = PREFIXES.map(ScanRange::prefix);
        [ScanRange::default()].into_iter().chain(prefixes).map(|range| keyspace.scan(range))
    });
    let mut scans = join_all(scans).await.into_iter();
    let mut found = Contents::new();
    for keyspace in &keyspaces {
        let mut entries = Contents::new();
        if let Some(all) = scans.next() {
            entries = read_to_end(all?).await?;
        }
        for (prefix, scan) in PREFIXES.into_iter().zip(scans.by_ref()) {
            let some = read_to_end(scan?).await?;
            let all = entries.iter().filter(|(key, _)| key.starts_with(prefix));
            assert!(some.iter().eq(all), "{} differs", String::from_utf8_lossy(prefix));
        }
        found.extend(entries.into_iter().map(|(key, value)| (name(keyspace.id(), &key), value)));
    }
    Ok(found)
}

/// Everything that a scan of a keyspace yields, checked to be in order and the same backwards.
pub async fn scan_one(keyspace: &Keyspace<SimEnv>) -> coronet_lsm::Result<Contents> {
    read_to_end(keyspace.scan(ScanRange::default()).await?).await
}

async fn read_to_end(mut scan: Scan<SimEnv>) -> coronet_lsm::Result<Contents> {
    let mut found = Contents::new();
    while let Some((key, value)) = scan.next().await? {
        assert!(
            found.last_key_value().is_none_or(|(last, _)| *last < key),
            "scan yields {} out of order",
            String::from_utf8_lossy(&key)
        );
        found.insert(key, value);
    }
    // The same moment from its end.
    scan.turn().await?;
    for (key, value) in found.iter().rev() {
        assert_eq!(scan.entry(), Some((&key[..], &value[..])), "backwards");
        scan.advance().await?;
    }
    assert!(scan.entry().is_none(), "backwards there is more");
    Ok(found)
}
