//! Random histories against a map: whatever is written, flushed, compacted, closed or crashed,
//! the engine answers as the map does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::{Options, ScanRange, WriteBatch};
use coronet_sim::{Rng, Sim, SimEnv, for_each_seed};
use engine_support::{TestEngine, collect, key, open, policy, value, write};
use std::collections::BTreeMap;

/// One random history against a map, reopened now and then.
fn random_history(seed: u64) {
    let sim = Sim::new(seed);
    let mut rng = sim.rng();
    let mut env = sim.node_env("a");
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for life in 0..4 {
        let steps = rng.range(50, 600);
        sim.block_on(async {
            let engine = open(&env, Options::tiny()).await;
            let found = collect(&engine, ScanRange::default()).await;
            assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>(), "life {life}");
            for _ in 0..steps {
                step(&env, &engine, &mut rng, &mut model).await;
            }
            if rng.below(2) == 0 {
                engine.close().await.unwrap();
            }
        });
        env = if rng.below(2) == 0 { sim.crash(&env) } else { sim.kill(&env) };
    }
}

async fn step(
    env: &SimEnv,
    engine: &TestEngine,
    rng: &mut Rng,
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) {
    match rng.below(100) {
        0..60 => {
            let mut batch = WriteBatch::new();
            for _ in 0..rng.range(1, 8) {
                let k = key(rng.below(300));
                if rng.below(4) == 0 {
                    batch.delete(&k);
                    model.remove(&k);
                } else {
                    let v = value(rng.next_u64(), rng.below(900) as usize);
                    batch.put(&k, &v);
                    model.insert(k, v);
                }
            }
            write(env, engine, &batch).await;
        }
        60..80 => {
            let k = key(rng.below(300));
            assert_eq!(engine.get(&k).await.unwrap().as_ref(), model.get(&k));
        }
        80..90 => {
            let keys: Vec<_> = (0..10).map(|_| key(rng.below(300))).collect();
            let expected: Vec<_> = keys.iter().map(|k| model.get(k).cloned()).collect();
            assert_eq!(engine.multi_get(&keys).await.unwrap(), expected);
        }
        90..96 => {
            let (start, end) = (key(rng.below(300)), key(rng.below(300)));
            let range = ScanRange { start: start.clone(), end: Some(end.clone()) };
            let expected: Vec<_> = model
                .range(start.clone()..)
                .take_while(|(k, _)| **k < end)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert_eq!(collect(engine, range).await, expected);
        }
        96..98 => engine.flush().await.unwrap(),
        98 => engine.set_policy(policy(rng)).await.unwrap(),
        _ => engine.compact().await.unwrap(),
    }
}

#[test]
fn random_histories_match_a_map_over_crashes_and_restarts() {
    for_each_seed(0..60, random_history);
}
