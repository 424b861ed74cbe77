//! Stored bytes that change by themselves: an opened engine gives right answers or reports
//! damage, never a wrong value.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coronet_lsm::{
    Codec, CompactionPolicy, Durability, Engine, KeyspaceId, KeyspaceOptions, Millis, Options,
    WriteBatch,
};
use coronet_sim::{DiskImage, Rng, Sim, SimEnv};

use crash_support::model::{Contents, Model, Stored};
use crash_support::workload::value;
use crash_support::{DIR, KEYSPACES, name, prepare, scan_all};

const KEYS: u64 = 24;

/// The keyspace beside the default one, with a policy of its own and values that expire.
const OTHER: KeyspaceId = KEYSPACES[1];

fn small() -> Options {
    let mut compression = Options::tiny().compression;
    compression[1] = Codec::Zstd;
    Options {
        memtable_bytes: 16 << 10,
        log_segment_bytes: 16 << 10,
        compression,
        ..Options::tiny()
    }
}

/// Writes, flushes, overwrites, deletes, compacts, and leaves a tail in the log; in two keyspaces,
/// one of them compressed.
async fn fill(env: &SimEnv, model: &mut Model, close: bool) {
    prepare(env).await;
    let engine = Engine::open(env.clone(), Path::new(DIR), small()).await.unwrap();
    let other = engine.create_keyspace(OTHER, KeyspaceOptions::default()).await.unwrap();
    other.set_policy(CompactionPolicy::tiered().level0(2)).await.unwrap();
    for number in 0..3 * KEYS {
        let key = format!("key/{:04}", number * 7 % KEYS).into_bytes();
        let kept = (!number.is_multiple_of(9)).then(|| value(number, 0, 40));
        let keyspace = if number.is_multiple_of(3) { OTHER } else { KeyspaceId::DEFAULT };
        let until = if keyspace == OTHER { Millis(u64::MAX >> 8) } else { Millis(u64::MAX) };
        let mut batch = WriteBatch::new();
        batch.in_keyspace(keyspace);
        match &kept {
            Some(value) if keyspace == OTHER => batch.put_until(&key, value, until),
            Some(value) => batch.put(&key, value),
            None => batch.delete(&key),
        }
        let commit = engine.write(&batch, Durability::Durable).unwrap();
        let op = (name(keyspace, &key), kept.map(|value| Stored { value, until }));
        let at = model.wrote(vec![op], Durability::Durable, commit.seq());
        model.answered(at, commit.await);
        match number {
            20 | 40 | 60 => engine.flush().await.unwrap(),
            41 => engine.compact().await.unwrap(),
            _ => {}
        }
    }
    if close {
        engine.close().await.unwrap();
    }
}

/// Which bytes of a file are tried: every one, but of long rows of zeros only some, unless
/// `CORONET_FLIP_ALL` is set.
fn offsets(bytes: &[u8], rng: &mut Rng) -> BTreeSet<u64> {
    let all = std::env::var_os("CORONET_FLIP_ALL").is_some();
    let near = |at: usize| bytes[at.saturating_sub(8)..bytes.len().min(at + 9)].iter();
    let chosen =
        (0..bytes.len()).filter(|at| all || near(*at).any(|byte| *byte != 0) || rng.below(97) == 0);
    chosen.map(|at| at as u64).collect()
}

/// Every key by itself: each right, or an error. Returns whether there was one.
async fn gets_are_right(engine: &Engine<SimEnv>, right: &Contents, place: &str) -> bool {
    let mut reported = false;
    for keyspace in [KeyspaceId::DEFAULT, OTHER] {
        let Ok(handle) = engine.keyspace(keyspace) else {
            panic!("{place}: keyspace {keyspace} is gone")
        };
        for number in 0..KEYS {
            let key = format!("key/{number:04}").into_bytes();
            match handle.get(&key).await {
                Ok(found) => {
                    assert!(found.as_ref() == right.get(&name(keyspace, &key)), "{place}: get");
                }
                Err(_) => reported = true,
            }
        }
    }
    reported
}

struct Damaged<'a> {
    sim: &'a Sim,
    env: SimEnv,
    image: DiskImage,
    model: &'a Model,
    right: Contents,
}

/// What an opener of a damaged folder got.
#[derive(Debug, Default)]
struct Outcome {
    refused: u64,
    reported: u64,
    torn: u64,
    right: u64,
}

impl Damaged<'_> {
    fn try_flip(&mut self, path: &Path, offset: u64, mask: u8, outcome: &mut Outcome) {
        self.env = self.sim.kill(&self.env);
        self.env.disk().restore(&self.image);
        self.env.disk().flip(path, offset, mask).unwrap();
        let place = format!("{} at {offset} with mask {mask:#x}", path.display());
        let opened = Engine::open(self.env.clone(), Path::new(DIR), small());
        let Ok(engine) = self.sim.block_on(opened) else {
            outcome.refused += 1;
            return;
        };
        if engine.stats().torn_tails > 0 {
            // The newest log batch cannot be told from one that was being written: what is left
            // must still be a prefix.
            outcome.torn += 1;
            if let Ok(found) = self.sim.block_on(scan_all(&engine)) {
                let prefix = self.model.find_prefix(&found, 0, self.model.len(), Millis(0));
                assert!(prefix.is_some(), "{place}: torn tail left no prefix of the history");
            }
            return;
        }
        let mut reported = false;
        // Merges carry on nothing wrong; they cost too much for every byte.
        let merged = self.sim.rng().below(16) == 0;
        for round in 0..=u32::from(merged) {
            match self.sim.block_on(scan_all(&engine)) {
                Ok(found) => assert!(found == self.right, "{place}: scan {round} is wrong"),
                Err(_) => reported = true,
            }
            reported |= self.sim.block_on(gets_are_right(&engine, &self.right, &place));
            if merged {
                self.sim.block_on(merge_everything(&engine));
            }
        }
        outcome.reported += u64::from(reported);
        outcome.right += u64::from(!reported);
    }
}

/// As far as damage lets it.
async fn merge_everything(engine: &Engine<SimEnv>) {
    let _ = engine.flush().await;
    for keyspace in [KeyspaceId::DEFAULT, OTHER] {
        let Ok(handle) = engine.keyspace(keyspace) else { continue };
        let _ = handle.set_policy(Options::tiny_policy("leveled(fanout=4)").level0(1)).await;
        let _ = handle.compact().await;
    }
}

fn flip_everything(close: bool) -> Vec<(PathBuf, Outcome)> {
    let sim = Sim::new(77 + u64::from(close));
    let env = sim.node_env("node");
    let mut rng = sim.rng();
    let mut model = Model::default();
    sim.block_on(fill(&env, &mut model, close));
    sim.run_for(Duration::from_millis(200));
    let env = sim.kill(&env);
    let right = model.contents(model.len(), Millis(0));
    let mut damaged = Damaged { sim: &sim, image: env.disk().image(), env, model: &model, right };
    let mut outcomes = Vec::new();
    for path in damaged.env.disk().files() {
        damaged.env.disk().restore(&damaged.image);
        let bytes = damaged.env.disk().read_raw(&path).unwrap();
        let mut outcome = Outcome::default();
        for offset in offsets(&bytes, &mut rng) {
            damaged.try_flip(&path, offset, 1 << rng.below(8), &mut outcome);
        }
        outcomes.push((path, outcome));
    }
    outcomes
}

#[test]
fn no_flipped_byte_gives_a_wrong_value() {
    // The identity of a data folder is the node's file: its flips are tested beside it.
    for close in [true, false] {
        let outcomes = flip_everything(close);
        assert!(outcomes.len() >= 3, "only {} files", outcomes.len());
        let noticed: u64 = outcomes.iter().map(|(_, o)| o.refused + o.reported + o.torn).sum();
        let unharmed: u64 = outcomes.iter().map(|(_, o)| o.right).sum();
        assert!(noticed > 100 && unharmed > 0, "{outcomes:?}");
        let tables = outcomes.iter().filter(|(path, _)| path.to_string_lossy().ends_with(".sst"));
        for (path, outcome) in tables {
            // A damaged table is put aside, wherever the damage is; the rest goes on serving.
            assert_eq!(outcome.refused, 0, "{}: {outcome:?}", path.display());
        }
        for kind in [".log", ".sst", "MANIFEST"] {
            let mut of_kind = outcomes
                .iter()
                .filter(|(path, _)| path.to_string_lossy().contains(kind))
                .map(|(_, o)| o.refused + o.reported + o.torn);
            assert!(of_kind.any(|noticed| noticed > 50), "{kind}: {outcomes:?}");
        }
    }
}
