//! Random histories against a map: whatever is written, flushed, compacted, closed or crashed,
//! the engine answers as the map does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::{Options, ScanOptions, ScanRange, WriteBatch};
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
            let filter_prefix_bytes = rng.below(11) as u32;
            let engine = open(&env, Options { filter_prefix_bytes, ..Options::tiny() }).await;
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
            let (start, mut end) = (key(rng.below(300)), Some(key(rng.below(300))));
            if rng.below(2) == 0 {
                let prefix = &start[..rng.index(start.len() + 1)];
                end = ScanRange::prefix(prefix).end;
            }
            let range = ScanRange { start: start.clone(), end: end.clone() };
            let expected: Vec<_> = model
                .range(start.clone()..)
                .take_while(|(k, _)| end.as_ref().is_none_or(|end| *k < end))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert_eq!(collect(engine, range.clone()).await, expected);
            let backward = ScanOptions::backward(range);
            let few = rng.below(20);
            let limited = collect(engine, backward.clone().limit(few)).await;
            let reversed = expected.iter().rev().cloned();
            assert_eq!(limited, reversed.clone().take(few as usize).collect::<Vec<_>>());
            assert_eq!(collect(engine, backward.clone()).await, reversed.collect::<Vec<_>>());
            wander(engine, rng, &expected, backward).await;
        }
        96..98 => engine.flush().await.unwrap(),
        98 => engine.set_policy(policy(rng)).await.unwrap(),
        _ => engine.compact().await.unwrap(),
    }
}

/// Steps, seeks and turns at random; `all` is what the scan can show, in order.
async fn wander(
    engine: &TestEngine,
    rng: &mut Rng,
    all: &[(Vec<u8>, Vec<u8>)],
    options: ScanOptions,
) {
    let mut scan = engine.scan(options).await.unwrap();
    // Where the scan stands in `all`, counted from 1; before the first or behind the last is out.
    let (mut at, mut forward) = (all.len() as i64, false);
    for _ in 0..40 {
        let shown = usize::try_from(at - 1).ok().and_then(|at| all.get(at));
        assert_eq!(scan.entry(), shown.map(|(key, value)| (&key[..], &value[..])));
        let step = if forward { 1 } else { -1 };
        match rng.below(10) {
            0 | 1 => {
                scan.turn().await.unwrap();
                forward = !forward;
                at -= step;
            }
            2 => {
                let from = key(rng.below(320));
                scan.seek(&from).await.unwrap();
                (at, forward) = (all.partition_point(|(k, _)| *k < from) as i64 + 1, true);
            }
            3 => {
                let from = key(rng.below(320));
                scan.seek_for_prev(&from).await.unwrap();
                (at, forward) = (all.partition_point(|(k, _)| *k <= from) as i64, false);
            }
            _ if shown.is_some() => {
                scan.advance().await.unwrap();
                at += step;
            }
            _ => {}
        }
    }
}

#[test]
fn random_histories_match_a_map_over_crashes_and_restarts() {
    for_each_seed(0..60, random_history);
}
