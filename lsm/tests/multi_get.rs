//! Several point reads at once: how many wait for the disk together, and that one block is read
//! once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::Options;
use coronet_lsm::env::{Env, TaskClass};
use coronet_sim::{Sim, SimEnv};
use engine_support::{TestEngine, blocks, key, open, put, value};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const KEYS: u64 = 400;

/// An engine with all keys in tables and nothing in its cache, at rest.
async fn filled(env: &SimEnv, len: usize) -> TestEngine {
    let options = Options { scrub_bytes_per_second: 0, ..Options::tiny() };
    let engine = open(env, options.clone()).await;
    for n in 0..KEYS {
        put(env, &engine, &key(n), &value(n, len)).await;
    }
    engine.flush().await.unwrap();
    engine.compact().await.unwrap();
    // What was just written is in the cache.
    engine.close().await.unwrap();
    let engine = open(env, options).await;
    env.sleep(Duration::from_secs(1)).await;
    env.disk().watch_reads();
    engine
}

type Answer = Rc<RefCell<Option<Vec<Option<Vec<u8>>>>>>;

/// Starts a read of all keys; its answer appears in the cell.
fn start(env: &SimEnv, engine: &TestEngine) -> Answer {
    let (engine, answer): (_, Answer) = (engine.clone(), Rc::default());
    let into = answer.clone();
    env.spawn(TaskClass::Foreground, async move {
        let keys: Vec<_> = (0..KEYS).map(key).collect();
        *into.borrow_mut() = Some(engine.multi_get(&keys).await.unwrap());
    });
    answer
}

fn check(answer: &Answer, len: usize) {
    let values: Vec<_> = (0..KEYS).map(|n| Some(value(n, len))).collect();
    assert!(answer.borrow().as_ref() == Some(&values));
}

#[test]
fn reads_that_wait_for_the_disk_are_bounded() {
    let sim = Sim::new(1);
    let env = sim.node_env("a");
    // Every value fills a block of its own.
    let engine = sim.block_on(filled(&env, 3_900));
    let before = env.disk().stats().reads;
    let answer = start(&env, &engine);
    sim.run_for(Duration::from_secs(1));
    let stats = env.disk().stats();
    assert_eq!((stats.reads - before, stats.most_reads_at_once), (KEYS, 64));
    check(&answer, 3_900);
}

#[test]
fn a_block_that_many_keys_need_is_read_once() {
    let sim = Sim::new(2);
    let env = sim.node_env("a");
    let engine = sim.block_on(filled(&env, 100));
    let files = env.disk().files();
    let tables = files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "sst"));
    let blocks = tables.map(|path| blocks(&env, path).len() as u64).sum();
    assert!(blocks > 5 && blocks < KEYS / 10, "{blocks} blocks");
    let before = env.disk().stats().reads;
    // Two calls at the same time wait for the same reads.
    let answers = [start(&env, &engine), start(&env, &engine)];
    sim.run_for(Duration::from_secs(1));
    assert_eq!(env.disk().stats().reads - before, blocks);
    answers.iter().for_each(|answer| check(answer, 100));
    let again = start(&env, &engine);
    sim.run_for(Duration::from_secs(1));
    check(&again, 100);
    assert_eq!(env.disk().stats().reads - before, blocks, "the cache has them by now");
}
