//! Stored bytes that change by themselves: an opened engine gives right answers or reports
//! damage, never a wrong value.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coronet_lsm::{Durability, Engine, Millis, Options, WriteBatch};
use coronet_sim::{DiskImage, Rng, Sim, SimEnv};

use crash_support::model::{Contents, Model, Stored};
use crash_support::workload::value;
use crash_support::{DIR, prepare, scan_all};

const KEYS: u64 = 24;

fn small() -> Options {
    Options { memtable_bytes: 16 << 10, log_segment_bytes: 16 << 10, ..Options::tiny() }
}

/// Writes, flushes, overwrites, deletes, compacts, and leaves a tail in the log.
async fn fill(env: &SimEnv, model: &mut Model, close: bool) {
    prepare(env).await;
    let engine = Engine::open(env.clone(), Path::new(DIR), small()).await.unwrap();
    for number in 0..3 * KEYS {
        let key = format!("key/{:04}", number * 7 % KEYS).into_bytes();
        let kept = (!number.is_multiple_of(9)).then(|| value(number, 0, 40));
        let mut batch = WriteBatch::new();
        match &kept {
            Some(value) => batch.put(&key, value),
            None => batch.delete(&key),
        }
        let commit = engine.write(&batch, Durability::Durable).unwrap();
        let op = (key, kept.map(Stored::for_ever));
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
        match self.sim.block_on(scan_all(&engine)) {
            Ok(found) => assert!(found == self.right, "{place}: scan is wrong"),
            Err(_) => reported = true,
        }
        for number in 0..KEYS {
            let key = format!("key/{number:04}").into_bytes();
            match self.sim.block_on(engine.get(&key)) {
                Ok(found) => {
                    assert!(found.as_ref() == self.right.get(&key), "{place}: get is wrong")
                }
                Err(_) => reported = true,
            }
        }
        outcome.reported += u64::from(reported);
        outcome.right += u64::from(!reported);
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
        for kind in [".log", ".sst", "MANIFEST"] {
            let mut of_kind = outcomes
                .iter()
                .filter(|(path, _)| path.to_string_lossy().contains(kind))
                .map(|(_, o)| o.refused + o.reported + o.torn);
            assert!(of_kind.any(|noticed| noticed > 50), "{kind}: {outcomes:?}");
        }
    }
}
