//! What golden folders from the fourth on hold: every feature that has a place in a file.
#![allow(clippy::unwrap_used)] // a failed step fails the test

use coronet_lsm::env::Env;
use coronet_lsm::inspect::check_table;
use coronet_lsm::{
    Codec, CompactionPolicy, Durability, Engine, Error, KeyspaceId, KeyspaceOptions, Millis,
    Options, ScanRange, WriteBatch,
};
use coronet_sim::SimEnv;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Beside the default keyspace: one with every option, and tables on two levels.
const FULL: KeyspaceId = KeyspaceId(7);
/// One with a damaged block.
const DAMAGED: KeyspaceId = KeyspaceId(9);
/// One that was dropped.
const DROPPED: KeyspaceId = KeyspaceId(8);

/// The year 2100.
const LATE: Millis = Millis(4_102_444_800_000);
/// Long ago.
const PAST: Millis = Millis(1);

/// Keys of the keyspace with the damaged block.
const DAMAGED_KEYS: u32 = 90;
/// Where that block, which is not the first, begins at most.
const DAMAGED_OFFSET: u64 = 4096;

/// Folders before this one know no prefixes in filters.
const PREFIXES_SINCE: u32 = 6;

fn full_options(folder: u32) -> KeyspaceOptions {
    let mut compression = Options::tiny().compression;
    (compression[0], compression[1]) = (Codec::Lz4, Codec::Zstd);
    KeyspaceOptions {
        memtable_percent: Some(50),
        block_bytes: Some(8192),
        compression: Some(compression),
        filter_bits_per_key: Some(12),
        // As long as "entry/012": ten keys have the same.
        filter_prefix_bytes: (folder >= PREFIXES_SINCE).then_some(9),
        default_ttl: Some(Duration::from_secs(100 * 365 * 86_400)),
        durability: Some(Durability::Buffered),
    }
}

/// Merges two tables of level 0 as soon as they are there; level 1 is then full enough.
fn policy() -> CompactionPolicy {
    let policy: CompactionPolicy = "tiered(fanout=3)".parse().unwrap();
    policy.sized(1 << 20, 64 << 10).level0(2)
}

fn value(n: u32) -> Vec<u8> {
    format!("value {n} of a keyspace, {}", "repeated ".repeat(n as usize % 50)).into_bytes()
}

fn key(n: u32) -> Vec<u8> {
    format!("entry/{n:04}").into_bytes()
}

/// What the entries of one batch do: put, put with a late, a past or no expiry, delete.
fn add(batch: &mut WriteBatch, n: u32) {
    let (key, value) = (key(n * 13 % 120), value(n));
    match n % 5 {
        0 => batch.put_until(&key, &value, LATE),
        1 => batch.put_until(&key, &value, PAST),
        2 => batch.delete(&key),
        _ => batch.put(&key, &value),
    }
}

fn expected_full() -> Contents {
    let mut all = Contents::new();
    for n in 0..STEPS {
        let key = key(n * 13 % 120);
        match n % 5 {
            1 | 2 => drop(all.remove(&key)),
            _ => drop(all.insert(key, value(n))),
        }
    }
    all
}

/// Entries of the keyspace with every option; flushed at each of `FLUSHES`, the rest stays in
/// the log.
const STEPS: u32 = 310;
const FLUSHES: [u32; 3] = [100, 200, 300];
/// When the tables so far are merged; the third stays on level 0.
const MERGED: u32 = 200;

/// Writes everything beyond the default keyspace.
pub async fn write(env: &SimEnv, engine: &Engine<SimEnv>) {
    let full = engine.create_keyspace(FULL, full_options(u32::MAX)).await.unwrap();
    full.set_policy(policy()).await.unwrap();
    for n in 0..STEPS {
        let mut batch = WriteBatch::new();
        add(batch.in_keyspace(FULL), n);
        engine.write(&batch, Durability::Durable).unwrap().await.unwrap();
        if FLUSHES.contains(&(n + 1)) {
            full.flush().await.unwrap();
        }
        if n + 1 == MERGED {
            full.compact().await.unwrap();
        }
    }
    let dropped = engine.create_keyspace(DROPPED, KeyspaceOptions::default()).await.unwrap();
    dropped.put(b"gone", b"with its keyspace").unwrap().await.unwrap();
    engine.drop_keyspace(DROPPED).await.unwrap();
    damage(env, engine).await;
    // Until the merged tables are removed.
    env.sleep(Duration::from_secs(1)).await;
}

/// A keyspace with one table, the second block of which cannot be read.
async fn damage(env: &SimEnv, engine: &Engine<SimEnv>) {
    let before = env.disk().files();
    let damaged = engine.create_keyspace(DAMAGED, KeyspaceOptions::default()).await.unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..DAMAGED_KEYS {
        batch.in_keyspace(DAMAGED).put(&key(n), &[n as u8; 200]);
    }
    engine.write(&batch, Durability::Durable).unwrap().await.unwrap();
    damaged.flush().await.unwrap();
    let is_table = |path: &Path| path.extension().is_some_and(|ext| ext == "sst");
    let files = env.disk().files();
    let table = files.iter().find(|path| is_table(path) && !before.contains(path)).unwrap();
    let block = check_table(&env.disk().read_raw(table).unwrap(), |_, _| {}).blocks[1].offset;
    env.disk().flip(table, block + 100, 3).unwrap();
    for n in 0..DAMAGED_KEYS {
        let _ = damaged.get(&key(n)).await;
    }
    env.sleep(Duration::from_secs(1)).await;
    assert_eq!(damaged.stats().lost_ranges, 1);
}

/// Checks everything beyond the default keyspace.
pub async fn check(engine: &Engine<SimEnv>, folder: u32) {
    let keyspaces = engine.keyspaces().await;
    let plain = KeyspaceOptions::default();
    let wanted = [
        (KeyspaceId::DEFAULT, plain.clone()),
        (FULL, full_options(folder)),
        (DAMAGED, plain.clone()),
    ];
    assert_eq!(keyspaces, wanted);

    let full = engine.keyspace(FULL).unwrap();
    assert_eq!(full.policy(), policy());
    assert_eq!(full.stats().level_tables[..3], [1, 1, 0]);
    let stats = full.stats();
    assert!(stats.block_disk_bytes < stats.block_raw_bytes, "compressed");
    for (prefix, keys) in [("entry/004", 6), ("entry/013", 0)] {
        let mut scan = full.scan(ScanRange::prefix(prefix.as_bytes())).await.unwrap();
        let mut seen = 0;
        while scan.next().await.unwrap().is_some() {
            seen += 1;
        }
        assert_eq!(seen, keys, "{prefix}");
    }
    let mut found = Contents::new();
    let mut scan = full.scan(ScanRange::default()).await.unwrap();
    while let Some((key, value)) = scan.next().await.unwrap() {
        assert_eq!(full.get(&key).await.unwrap().as_ref(), Some(&value));
        found.insert(key, value);
    }
    assert_eq!(found, expected_full());

    let damaged = engine.keyspace(DAMAGED).unwrap();
    assert_eq!(damaged.stats().lost_ranges, 1);
    let (mut lost, mut block) = (0, None);
    for n in 0..DAMAGED_KEYS {
        match damaged.get(&key(n)).await {
            Ok(value) => assert_eq!(value, Some(vec![n as u8; 200])),
            Err(Error::Corruption { offset, .. }) => {
                assert!((1..=DAMAGED_OFFSET).contains(&offset));
                assert_eq!(*block.get_or_insert(offset), offset);
                lost += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!((5..60).contains(&lost), "{lost} keys are lost");
}
