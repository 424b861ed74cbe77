//! The data folder: created once, refused when it is not whole, and changed to other numbers of
//! cores without losing a key, whatever point a crash hits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_lsm::{Durability, Engine, Error, Options, WriteBatch};
use coronet_ring::PartitionMap;
use coronet_server::data_dir::{DataDir, DataDirError, Wanted};
use coronet_sim::{Sim, SimEnv, for_each_seed};

const DIR: &str = "/data";
const PARTITIONS: u32 = 16;
const KEYS: u32 = 200;

fn wanted(cores: u16) -> Wanted {
    Wanted { cores, partitions: PARTITIONS, clustered: false, engine: Options::tiny() }
}

async fn open(env: &SimEnv, cores: u16) -> Result<DataDir, DataDirError> {
    DataDir::open(env, Path::new(DIR), &wanted(cores)).await
}

fn engine_key(n: u32) -> (Vec<u8>, Vec<u8>) {
    let key = format!("key-{n}").into_bytes();
    let map = PartitionMap::new(PARTITIONS, 1).unwrap();
    let mut full = map.partition_of(&key).0.to_be_bytes().to_vec();
    full.extend_from_slice(&key);
    (key, full)
}

async fn engines(env: &SimEnv, data: &DataDir) -> Vec<Engine<SimEnv>> {
    let mut engines = Vec::new();
    for core in 0..data.identity().cores {
        let dir = data.core_dir(core);
        engines.push(Engine::open(env.clone(), &dir, Options::tiny()).await.unwrap());
    }
    engines
}

/// Writes the keys `from..to` to the engines that own them.
async fn write(env: &SimEnv, data: &DataDir, from: u32, to: u32) {
    let map = PartitionMap::new(PARTITIONS, data.identity().cores).unwrap();
    let engines = engines(env, data).await;
    for n in from..to {
        let (key, full) = engine_key(n);
        let mut batch = WriteBatch::new();
        batch.put(&full, &n.to_le_bytes());
        let engine = &engines[map.core_of_key(&key).index()];
        let commit = loop {
            match engine.write(&batch, Durability::Durable) {
                Ok(commit) => break commit,
                Err(Error::Busy { retry_after_ms }) => {
                    env.sleep(Duration::from_millis(u64::from(retry_after_ms))).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        commit.await.unwrap();
    }
    for engine in engines {
        engine.close().await.unwrap();
    }
}

/// Every key is in the engine that owns it, and nowhere else.
async fn check(env: &SimEnv, data: &DataDir, keys: u32) {
    let map = PartitionMap::new(PARTITIONS, data.identity().cores).unwrap();
    let engines = engines(env, data).await;
    for n in 0..keys {
        let (key, full) = engine_key(n);
        for (core, engine) in engines.iter().enumerate() {
            let owner = map.core_of_key(&key).index() == core;
            let expected = owner.then(|| n.to_le_bytes().to_vec());
            assert_eq!(engine.get(&full).await.unwrap(), expected, "key {n} on core {core}");
        }
    }
    for engine in engines {
        engine.close().await.unwrap();
    }
}

#[test]
fn identity_is_issued_once_and_partitions_are_kept() {
    let sim = Sim::new(3);
    let env = sim.node_env("a");
    sim.block_on(async {
        let first = open(&env, 2).await.unwrap();
        let again = open(&env, 2).await.unwrap();
        assert_eq!(first, again);
        let other = Wanted { partitions: 64, ..wanted(2) };
        let kept = DataDir::open(&env, Path::new(DIR), &other).await.unwrap();
        assert_eq!(kept.identity().partitions, PARTITIONS);
        assert!(matches!(open(&env, 17).await, Err(DataDirError::Placement(_))));
    });
}

#[test]
fn data_without_identity_is_refused_and_a_damaged_identity_named() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        open(&env, 1).await.unwrap();
        let identity = Path::new("/data/node");
        env.disk().flip(identity, 20, 1).unwrap();
        let error = open(&env, 1).await.unwrap_err().to_string();
        assert!(error.contains("/data/node") && error.contains("checksum"), "{error}");
        env.disk().flip(identity, 20, 1).unwrap();
        open(&env, 1).await.unwrap();
        env.remove(identity).await.unwrap();
        assert!(matches!(open(&env, 1).await, Err(DataDirError::Orphaned { .. })));
    });
}

#[test]
fn the_number_of_cores_changes_up_and_down_and_back() {
    let sim = Sim::new(5);
    let env = sim.node_env("a");
    sim.block_on(async {
        let mut keys = 0;
        let mut incarnation = None;
        for cores in [1, 3, 2, 5, 1, 4] {
            let data = open(&env, cores).await.unwrap();
            let issued = *incarnation.get_or_insert(data.identity().incarnation);
            assert_eq!(data.identity().incarnation, issued);
            check(&env, &data, keys).await;
            write(&env, &data, keys, keys + KEYS).await;
            keys += KEYS;
            check(&env, &data, keys).await;
        }
        let generations = env.list(Path::new(DIR)).await.unwrap();
        let old = generations.iter().filter(|path| path.to_string_lossy().contains("gen-"));
        assert_eq!(old.count(), 1, "old generations are gone: {generations:?}");
    });
}

/// A power failure at a random point of a change; the next start finishes or undoes it.
#[test]
fn a_crash_during_the_change_loses_nothing() {
    for_each_seed(0..60, |seed| {
        let sim = Sim::new(seed);
        let mut rng = sim.rng();
        let mut env = sim.node_env("a");
        let before = 1 + rng.below(4) as u16;
        sim.block_on(async {
            let data = open(&env, before).await.unwrap();
            write(&env, &data, 0, KEYS).await;
        });
        for _ in 0..3 {
            let cores = 1 + rng.below(4) as u16;
            let task = {
                let env = env.clone();
                async move { drop(open(&env, cores).await) }
            };
            env.spawn(coronet_lsm::env::TaskClass::Foreground, task);
            sim.run_events(rng.below(1500));
            env = sim.crash(&env);
        }
        let after = 1 + rng.below(4) as u16;
        sim.block_on(async {
            let data = open(&env, after).await.unwrap();
            assert_eq!(data.identity().cores, after);
            check(&env, &data, KEYS).await;
        });
    });
}

/// A data folder on a machine of its own.
struct Folder {
    sim: Sim,
    env: SimEnv,
}

impl Folder {
    fn new() -> Self {
        let sim = Sim::new(1);
        Folder { env: sim.node_env("node"), sim }
    }

    fn open(&self, clustered: bool, cores: u16) -> DataDir {
        let wanted = Wanted { clustered, ..wanted(cores) };
        let env = &self.env;
        self.sim.block_on(async move {
            let data = DataDir::open(env, Path::new(DIR), &wanted).await.unwrap();
            write(env, &data, 0, 1).await;
            data
        })
    }

    fn end(&self, data: &DataDir) {
        self.sim.block_on(data.mark_clean(&self.env)).unwrap();
    }

    fn wait(&self, time: Duration) {
        self.sim.block_on(self.env.sleep(time));
    }
}

#[test]
fn an_end_that_was_not_clean_costs_a_clustered_node_its_incarnation() {
    let folder = Folder::new();
    let first = folder.open(true, 1);
    folder.end(&first);
    let second = folder.open(true, 1);
    assert_eq!(second.identity(), first.identity(), "it ended in order");
    let third = folder.open(true, 1);
    assert_ne!(third.identity().incarnation, first.identity().incarnation);
    assert_eq!(third.identity().node_id, first.identity().node_id);
    let alone = folder.open(false, 1);
    assert_eq!(alone.identity(), third.identity(), "alone, counters go on above all issued ones");
}

/// Others may know what the crash took, however well the node alone ended afterwards.
#[test]
fn a_time_alone_does_not_make_up_for_a_crash_in_the_cluster() {
    let folder = Folder::new();
    let crashed = folder.open(true, 1);
    let alone = folder.open(false, 1);
    folder.end(&alone);
    let back = folder.open(true, 1);
    assert_ne!(back.identity().incarnation, crashed.identity().incarnation);
}

#[test]
fn a_change_of_cores_keeps_the_incarnation_of_a_node_that_ended_in_order() {
    let folder = Folder::new();
    let first = folder.open(true, 1);
    folder.end(&first);
    let second = folder.open(true, 3);
    assert_eq!(second.identity().incarnation, first.identity().incarnation);
    folder.end(&second);
    assert_eq!(folder.open(true, 2).identity().incarnation, first.identity().incarnation);
}

/// A copy of the folder of a node that was down brings the mark of a clean end along. Going on as
/// that incarnation would give its later names away a second time.
#[test]
fn an_old_copy_of_the_folder_costs_the_incarnation() {
    let folder = Folder::new();
    let first = folder.open(true, 1);
    folder.end(&first);
    let copy = folder.env.disk().image();
    let second = folder.open(true, 1);
    assert_eq!(second.identity().incarnation, first.identity().incarnation);
    folder.wait(Duration::from_secs(3_601));
    folder.env.disk().restore(&copy);
    let restored = folder.open(true, 1);
    assert_ne!(restored.identity().incarnation, first.identity().incarnation);
}

/// The engines went, identity and mark stayed.
#[test]
fn a_mark_without_engines_does_not_count() {
    let folder = Folder::new();
    let first = folder.open(true, 2);
    folder.end(&first);
    let (node, mark) = (Path::new("/data/node"), Path::new("/data/clean"));
    folder.env.disk().keep_only(&[node, mark]);
    let wiped = folder.open(true, 2);
    assert_ne!(wiped.identity().incarnation, first.identity().incarnation);
}

#[test]
fn a_mark_that_is_damaged_or_of_another_incarnation_does_not_count() {
    for (offset, mask) in [(0, 1), (8, 1), (16, 1), (24, 1), (32, 1)] {
        let folder = Folder::new();
        let first = folder.open(true, 1);
        folder.end(&first);
        folder.env.disk().flip(Path::new("/data/clean"), offset, mask).unwrap();
        let second = folder.open(true, 1);
        let same = second.identity().incarnation == first.identity().incarnation;
        assert!(!same, "byte {offset} changed");
    }
    let folder = Folder::new();
    let first = folder.open(true, 1);
    folder.end(&first);
    let mark = folder.env.disk().read_raw(Path::new("/data/clean")).unwrap();
    let crashed = folder.open(true, 1);
    let renamed = folder.open(true, 1);
    folder.end(&renamed);
    folder.env.disk().write_raw(Path::new("/data/clean"), mark).unwrap();
    let again = folder.open(true, 1);
    assert_eq!(crashed.identity(), first.identity());
    assert_ne!(again.identity().incarnation, renamed.identity().incarnation);
}
