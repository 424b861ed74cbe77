//! Under FIFO with a time to live an entry goes within a bounded time, however little is written
//! and however often the engine is opened anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod engine_support;

use coronet_lsm::env::{Env, Nanos};
use coronet_lsm::{CompactionPolicy, Options};
use coronet_sim::{Sim, SimEnv};
use engine_support::{TestEngine, key, open, put, value};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(100);
/// A tenth of it, and as long as it may take to flush and to look at tables.
const BOUND: Duration = Duration::from_secs(110 + 3);

fn fifo() -> Options {
    let compaction = CompactionPolicy::fifo(Some(TTL), None);
    Options { compaction, memtable_bytes: 1 << 20, ..Options::tiny() }
}

async fn has(engine: &TestEngine, n: u64) -> bool {
    engine.get(&key(n)).await.unwrap().is_some()
}

async fn sleep_to(env: &SimEnv, start: Nanos, after: Duration) {
    env.sleep(start.after(after).since(env.now())).await;
}

#[test]
fn an_entry_goes_though_little_is_written() {
    let sim = Sim::new(1);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, fifo()).await;
        // The engine has been idle for any time when the first entry comes.
        env.sleep(Duration::from_millis(123_456)).await;
        let start = env.now();
        // One entry every seven seconds, the second at 7 s and so on.
        for n in 0..60 {
            sleep_to(&env, start, Duration::from_secs(7 * n)).await;
            put(&env, &engine, &key(n), &value(n, 100)).await;
            for older in 0..=n {
                let age = Duration::from_secs(7 * (n - older));
                let found = has(&engine, older).await;
                assert!(found || age >= TTL, "entry {older} went after {age:?}");
                assert!(!found || age <= BOUND, "entry {older} is there after {age:?}");
            }
        }
        let stats = engine.stats();
        assert!(stats.flushes > 20 && stats.level_tables[0] <= 12, "{stats:?}");
        env.sleep(BOUND).await;
        assert_eq!((engine.stats().table_bytes, has(&engine, 59).await), (0, false));
    });
}

/// Ends the engine without closing it and opens it again.
fn restart(sim: &Sim, env: &mut SimEnv, engine: TestEngine, power_fails: bool) -> TestEngine {
    drop(engine);
    *env = if power_fails { sim.crash(env) } else { sim.kill(env) };
    sim.block_on(open(env, fifo()))
}

/// No life is long enough for a memtable that begins to age with it.
#[test]
fn restarts_keep_nothing_alive() {
    for power_fails in [false, true] {
        let sim = Sim::new(2);
        let mut env = sim.node_env("a");
        let mut engine = sim.block_on(open(&env, fifo()));
        let mut written = Vec::new();
        for life in 0..40 {
            written.push(env.now());
            sim.block_on(async {
                put(&env, &engine, &key(life), b"v").await;
                env.sleep(Duration::from_secs(3)).await;
            });
            engine = restart(&sim, &mut env, engine, power_fails);
            // As long as the flush takes that an opening begins with.
            sim.run_for(Duration::from_secs(2));
            for n in [0, life / 2, life] {
                let age = env.now().since(written[n as usize]);
                let found = sim.block_on(has(&engine, n));
                assert!(found || age >= TTL, "entry {n} went after {age:?}");
                assert!(!found || age <= BOUND, "entry {n} is there after {age:?}");
            }
        }
        assert!(!sim.block_on(has(&engine, 0)));
    }
}

/// What is written right after the opening does not take in what should have gone long ago.
#[test]
fn what_went_by_while_the_engine_was_closed_counts() {
    let sim = Sim::new(3);
    let mut env = sim.node_env("a");
    let engine = sim.block_on(async {
        let engine = open(&env, fifo()).await;
        put(&env, &engine, &key(0), b"old").await;
        engine.close().await.unwrap();
        engine
    });
    sim.run_for(5 * TTL);
    let engine = restart(&sim, &mut env, engine, true);
    sim.block_on(async {
        assert!(has(&engine, 0).await, "nothing was flushed before");
        put(&env, &engine, &key(1), b"young").await;
        env.sleep(Duration::from_secs(3)).await;
        assert_eq!((has(&engine, 0).await, has(&engine, 1).await), (false, true));
    });
}

#[test]
fn a_switch_to_fifo_finds_what_is_old_in_memory() {
    let sim = Sim::new(4);
    let env = sim.node_env("a");
    sim.block_on(async {
        let options = Options { compaction: CompactionPolicy::leveled(), ..fifo() };
        let engine = open(&env, options).await;
        put(&env, &engine, &key(0), b"v").await;
        env.sleep(10 * TTL).await;
        assert_eq!(engine.stats().flushes, 0, "other policies do not look at the age");
        engine.set_policy(fifo().compaction).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(engine.stats().flushes, 1);
        // Its age in tables is that of the youngest entry it may lie with.
        env.sleep(TTL).await;
        assert!(!has(&engine, 0).await);
    });
}
