//! What the crash tests share: a model of what an engine may hold after a crash, and a workload
//! that writes, reads, flushes and compacts until it is cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

pub mod model;
pub mod workload;

use std::path::Path;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_lsm::{Codec, CompactionPolicy, Engine, Options, ScanRange};
use coronet_sim::{Rng, SimEnv};

use model::Contents;

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
        compression: std::array::from_fn(|_| [Codec::None, Codec::Lz4, Codec::Zstd][rng.index(3)]),
        ..Options::tiny()
    }
}

/// Any policy that keeps everything, with small sizes.
pub fn policy(rng: &mut Rng) -> CompactionPolicy {
    let names = [
        "leveled(fanout=4)",
        "leveled(fanout=10)",
        "tiered(fanout=3)",
        "tiered",
        "lazy_leveled",
        "tree(fanout=3/5,runs=2/1,last=2)",
    ];
    let policy = names[rng.index(names.len())].parse::<CompactionPolicy>().unwrap();
    policy
        .sized(32 << (10 + rng.below(2)), 8 << (10 + rng.below(3)))
        .level0(2 + rng.below(3) as u32)
}

/// Everything a scan yields, checked to be in order.
pub async fn scan_all(engine: &Engine<SimEnv>) -> coronet_lsm::Result<Contents> {
    let mut scan = engine.scan(ScanRange::default()).await?;
    let mut found = Contents::new();
    while let Some((key, value)) = scan.next().await? {
        assert!(
            found.last_key_value().is_none_or(|(last, _)| *last < key),
            "scan yields {} out of order",
            String::from_utf8_lossy(&key)
        );
        found.insert(key, value);
    }
    Ok(found)
}
