//! What the policies cost and how merges proceed: amplification, steps, space, crashes in the
//! middle, FIFO.
#![allow(clippy::unwrap_used)] // a failed step fails the test

mod engine_support;

use coronet_lsm::env::{Env, TaskClass};
use coronet_lsm::{CompactionPolicy, Options, ScanRange, WriteBatch};
use coronet_sim::{Rng, Sim, SimEnv};
use engine_support::{TestEngine, collect, key, open, put, value, write};
use std::collections::BTreeMap;
use std::time::Duration;

fn options(policy: &str, first_run: u64, table: u64) -> Options {
    let policy = policy.parse::<CompactionPolicy>().unwrap().sized(first_run, table);
    Options { compaction: policy, cache_bytes: 16 << 10, ..Options::tiny() }
}

async fn write_many(env: &SimEnv, engine: &TestEngine, keys: impl Iterator<Item = u64>) {
    let mut batch = WriteBatch::new();
    for n in keys {
        batch.put(&key(n), &value(n, 200));
        if batch.len() == 40 {
            write(env, engine, &batch).await;
            batch.clear();
        }
    }
    write(env, engine, &batch).await;
}

/// Costs of one policy on overwrites of a fixed set of keys.
struct Costs {
    /// Bytes written by flushes and merges per byte of keys and values.
    write_amplification: f64,
    /// Disk reads per scan of 50 entries, taken all along.
    reads_per_scan: f64,
}

fn overwrite(policy: &str) -> Costs {
    const KEYS: u64 = 20_000;
    let sim = Sim::new(3);
    let env = sim.node_env("a");
    sim.block_on(async {
        // Without a cache every read shows. Where writers are slowed so early, merges of level 0
        // do not wait for a burst.
        let options = options(policy, 64 << 10, 32 << 10);
        let options = Options { cache_bytes: 0, l0_slowdown: 5, l0_stop: 21, ..options };
        let engine = open(&env, options).await;
        let mut rng = Rng::new(9);
        write_many(&env, &engine, 0..KEYS).await;
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
        let start = engine.stats();
        let (mut reads, mut scans) = (0, 0u32);
        for _ in 0..40 {
            let keys: Vec<u64> = (0..500).map(|_| rng.below(KEYS)).collect();
            write_many(&env, &engine, keys.into_iter()).await;
            engine.compact().await.unwrap();
            let before = env.disk().stats().reads;
            for _ in 0..10 {
                let range = ScanRange { start: key(rng.below(KEYS - 60)), end: None };
                let mut scan = engine.scan(range).await.unwrap();
                for _ in 0..50 {
                    assert!(scan.next().await.unwrap().is_some());
                }
                scans += 1;
            }
            reads += env.disk().stats().reads - before;
        }
        let stats = engine.stats();
        let written = stats.flush_bytes + stats.compaction_write_bytes;
        let written = written - start.flush_bytes - start.compaction_write_bytes;
        let logical = stats.logical_bytes - start.logical_bytes;
        Costs {
            write_amplification: written as f64 / logical as f64,
            reads_per_scan: reads as f64 / f64::from(scans),
        }
    })
}

#[test]
fn tiered_writes_half_of_leveled_and_leveled_reads_half_of_tiered() {
    let leveled = overwrite("leveled");
    let tiered = overwrite("tiered(fanout=6)");
    let lazy = overwrite("lazy_leveled(fanout=6)");
    let report = format!(
        "write amplification: leveled {:.2}, lazy {:.2}, tiered {:.2}; \
         reads per scan: leveled {:.2}, lazy {:.2}, tiered {:.2}",
        leveled.write_amplification,
        lazy.write_amplification,
        tiered.write_amplification,
        leveled.reads_per_scan,
        lazy.reads_per_scan,
        tiered.reads_per_scan,
    );
    println!("{report}");
    assert!(tiered.write_amplification * 2.0 <= leveled.write_amplification, "{report}");
    // Half but for where the last merges happen to stand.
    assert!(leveled.reads_per_scan * 1.9 <= tiered.reads_per_scan, "{report}");
    assert!(lazy.write_amplification < leveled.write_amplification, "{report}");
    assert!(lazy.reads_per_scan < tiered.reads_per_scan, "{report}");
}

fn table_bytes(env: &SimEnv) -> u64 {
    let files = env.disk().files();
    let tables = files.iter().filter(|path| path.extension().is_some_and(|e| e == "sst"));
    tables.map(|path| env.disk().read_raw(path).map_or(0, |bytes| bytes.len() as u64)).sum()
}

const TABLE: u64 = 16 << 10;
/// Merges only level 0; so that one large merge can be asked for later.
const HEAP: &str = "tree(fanout=2,runs=99,last=99)";

/// Level 1 with several runs of many tables.
async fn several_runs(env: &SimEnv, engine: &TestEngine) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut model = BTreeMap::new();
    let mut rng = Rng::new(4);
    for _ in 0..16 {
        for _ in 0..5 {
            let mut batch = WriteBatch::new();
            for _ in 0..60 {
                let n = rng.next_u64();
                let (k, v) = (key(n % 10_000), value(n, 200));
                batch.put(&k, &v);
                model.insert(k, v);
            }
            write(env, engine, &batch).await;
        }
        engine.flush().await.unwrap();
        engine.compact().await.unwrap();
    }
    // The files that the merges left behind go.
    env.sleep(Duration::from_secs(1)).await;
    model
}

fn heap_options() -> Options {
    let compaction = HEAP.parse::<CompactionPolicy>().unwrap().sized(64 << 10, TABLE);
    Options { compaction, memtable_bytes: 1 << 20, ..Options::tiny() }
}

fn one_run() -> CompactionPolicy {
    "leveled".parse::<CompactionPolicy>().unwrap().sized(1 << 20, TABLE)
}

#[test]
fn a_long_merge_frees_its_inputs_as_it_goes() {
    let sim = Sim::new(11);
    let env = sim.node_env("a");
    let engine = sim.block_on(open(&env, heap_options()));
    let model = sim.block_on(several_runs(&env, &engine));
    let stats = engine.stats();
    let runs = stats.level_runs[1];
    assert!(runs >= 4 && stats.level_tables[1] >= 10 * runs, "{stats:?}");
    let before = table_bytes(&env);
    sim.block_on(engine.set_policy(one_run())).unwrap();
    let (mut most, mut least) = (before, before);
    while engine.stats().level_runs[1] > 1 || engine.stats().compactions == stats.compactions {
        sim.run_events(20);
        most = most.max(table_bytes(&env));
        least = least.min(table_bytes(&env));
    }
    // The output being written, an input of each run that is partly read, and files on their
    // way to removal.
    let allowed = before + (runs + 3) * 2 * TABLE;
    assert!(most <= allowed, "{most} bytes at most, {before} before, {allowed} allowed");
    assert!(least < before, "nothing was freed");
    let steps = engine.stats().compaction_steps - stats.compaction_steps;
    assert!(steps >= 30, "{steps} steps");
    let found = sim.block_on(collect(&engine, ScanRange::default()));
    assert_eq!(found, model.into_iter().collect::<Vec<_>>());
}

/// A step ends with its output; what its inputs read ahead beyond that is read again by the next.
#[test]
fn a_merge_of_many_steps_reads_its_inputs_not_much_more_than_once() {
    let options = Options {
        compaction: HEAP.parse::<CompactionPolicy>().unwrap().sized(64 << 10, 256 << 10),
        memtable_bytes: 1 << 20,
        ..Options::tiny()
    };
    let sim = Sim::new(12);
    let env = sim.node_env("a");
    sim.block_on(async {
        let engine = open(&env, options).await;
        for round in 0..4 {
            write_many(&env, &engine, (0..16_000).filter(|n| n % 4 == round)).await;
            engine.flush().await.unwrap();
        }
        engine.compact().await.unwrap();
        let (input, before) = (table_bytes(&env), env.disk().stats().read_bytes);
        let policy = "leveled".parse::<CompactionPolicy>().unwrap();
        engine.set_policy(policy.sized(64 << 20, 256 << 10)).await.unwrap();
        engine.compact().await.unwrap();
        let read = env.disk().stats().read_bytes - before;
        let steps = engine.stats().compaction_steps;
        assert!(steps >= 10 && read <= input * 2, "{read} bytes of {input} in {steps} steps");
    });
}

#[test]
fn a_long_merge_survives_crashes_without_starting_over() {
    let sim = Sim::new(12);
    let mut env = sim.node_env("a");
    let engine = sim.block_on(open(&env, heap_options()));
    let model = sim.block_on(several_runs(&env, &engine));
    let data = table_bytes(&env);
    sim.block_on(engine.set_policy(one_run())).unwrap();
    sim.run_events(400);
    let (mut written, mut lives) = (0, 0);
    let mut engine = Some(engine);
    let expected: Vec<_> = model.into_iter().collect();
    loop {
        let last = engine.take().unwrap();
        let stats = last.stats();
        if lives > 0 {
            written += stats.compaction_write_bytes;
        }
        drop(last);
        env = if lives % 2 == 0 { sim.crash(&env) } else { sim.kill(&env) };
        lives += 1;
        let again = sim.block_on(open(&env, heap_options()));
        assert_eq!(again.policy(), one_run(), "the policy is kept");
        assert_eq!(sim.block_on(collect(&again, ScanRange::default())), expected);
        if again.stats().level_runs[1] <= 1 {
            break;
        }
        sim.run_events(300);
        engine = Some(again);
        assert!(lives < 500, "no progress over restarts");
    }
    assert!(lives >= 4, "{lives} lives: the merge was too short to be cut off");
    assert!(written <= data * 3 / 2, "{written} bytes written again for {data} bytes of tables");
}

#[test]
fn an_urgent_level_0_interrupts_a_long_merge() {
    let sim = Sim::new(13);
    let env = sim.node_env("a");
    let engine = sim.block_on(open(&env, heap_options()));
    sim.block_on(several_runs(&env, &engine));
    sim.block_on(engine.set_policy(one_run())).unwrap();
    let start = engine.stats();
    let writer = (env.clone(), engine.clone());
    env.spawn(TaskClass::Foreground, async move {
        let (env, engine) = writer;
        for n in 0..12 {
            put(&env, &engine, &key(n), &value(n, 100)).await;
            engine.flush().await.unwrap();
        }
    });
    let mut deep_was_open = false;
    while engine.stats().level_runs[1] > 1 {
        sim.run_events(20);
        let stats = engine.stats();
        deep_was_open |= stats.compactions + stats.trivial_moves
            > start.compactions + start.trivial_moves
            && stats.level_runs[1] > 1;
    }
    assert!(deep_was_open, "no job of level 0 finished before the long merge");
}

/// A merge within level 1 was put aside for level 0, whose keys lie where the merge has not come
/// yet: both bring tables to the same run.
#[test]
fn what_level_0_brings_to_the_run_of_a_merge_under_way_does_not_meet_its_output() {
    let sim = Sim::new(16);
    let mut env = sim.node_env("a");
    let engine = sim.block_on(open(&env, heap_options()));
    // The newest run has keys at both ends, the older ones between them.
    let rounds: Vec<Vec<u64>> = vec![
        (0..4_000).step_by(2).collect(),
        (0..4_000).skip(1).step_by(2).collect(),
        (0..60).chain(8_000..8_180).collect(),
    ];
    let mut model = BTreeMap::new();
    for keys in rounds {
        for part in keys.chunks(keys.len().div_ceil(4)) {
            sim.block_on(write_many(&env, &engine, part.iter().copied()));
            model.extend(part.iter().map(|n| (key(*n), value(*n, 200))));
            sim.block_on(engine.flush()).unwrap();
        }
        sim.block_on(engine.compact()).unwrap();
    }
    assert_eq!(engine.stats().level_runs[..3], [0, 3, 0]);
    let one_run = CompactionPolicy::leveled().sized(16 << 20, TABLE);
    sim.block_on(engine.set_policy(one_run)).unwrap();
    let writer = (env.clone(), engine.clone());
    env.spawn(TaskClass::Foreground, async move {
        let (env, engine) = writer;
        for n in 3_000..3_040 {
            put(&env, &engine, &key(n), &value(n + 1, 100)).await;
            engine.flush().await.unwrap();
        }
    });
    model.extend((3_000..3_040).map(|n| (key(n), value(n + 1, 100))));
    while engine.stats().level_runs[1] > 1 || engine.stats().flushes < 52 {
        sim.run_events(20);
    }
    sim.block_on(engine.compact()).unwrap();
    let expected: Vec<_> = model.into_iter().collect();
    assert_eq!(sim.block_on(collect(&engine, ScanRange::default())), expected);
    drop(engine);
    env = sim.crash(&env);
    let engine = sim.block_on(open(&env, heap_options()));
    assert_eq!(sim.block_on(collect(&engine, ScanRange::default())), expected);
}

#[test]
fn fifo_forgets_by_age_and_by_size() {
    let sim = Sim::new(14);
    let env = sim.node_env("a");
    sim.block_on(async {
        let policy = CompactionPolicy::fifo(Some(Duration::from_secs(100)), Some(60 << 10));
        let engine = open(&env, Options { compaction: policy, ..Options::tiny() }).await;
        for n in 0..40 {
            put(&env, &engine, &key(n), &value(n, 3000)).await;
            engine.flush().await.unwrap();
        }
        engine.compact().await.unwrap();
        let stats = engine.stats();
        assert!(stats.level_bytes[0] <= 60 << 10 && stats.tables_dropped > 0, "{stats:?}");
        assert_eq!(stats.compaction_write_bytes, 0);
        assert!(engine.get(&key(0)).await.unwrap().is_none());
        assert!(engine.get(&key(39)).await.unwrap().is_some());
        env.sleep(Duration::from_secs(120)).await;
        assert_eq!(engine.stats().level_tables[0], 0, "everything is too old");
        engine.close().await.unwrap();
    });
}

/// Writers did not bring about what the policy before left, and are not stopped for it.
#[test]
fn a_policy_that_owes_much_at_once_does_not_stall_writers() {
    let sim = Sim::new(18);
    let env = sim.node_env("a");
    sim.block_on(async {
        let policy = CompactionPolicy::fifo(Some(Duration::from_secs(100_000)), None);
        let engine = open(&env, Options { compaction: policy, ..Options::tiny() }).await;
        for round in 0..80 {
            write_many(&env, &engine, (0..40).map(|n| n * 80 + round)).await;
            engine.flush().await.unwrap();
        }
        assert_eq!(engine.stats().level_runs[0], 80);
        engine.set_policy(Options::tiny_policy("leveled")).await.unwrap();
        let start = env.now();
        write_many(&env, &engine, 0..200).await;
        let stats = engine.stats();
        let took = env.now().since(start);
        assert!(stats.stalled_micros == 0 && took < Duration::from_secs(1), "{took:?} {stats:?}");
        engine.compact().await.unwrap();
        assert!(engine.stats().level_runs[0] < 4, "{:?}", engine.stats());
    });
}

/// Point reads that were answered from memory and from tables leave rows in the cache.
#[test]
fn what_fifo_dropped_is_gone_for_point_reads_too() {
    let sim = Sim::new(17);
    let env = sim.node_env("a");
    sim.block_on(async {
        let policy = CompactionPolicy::fifo(Some(Duration::from_secs(100)), None);
        let cache_bytes = 1 << 20;
        let options = Options { compaction: policy, cache_bytes, ..Options::tiny() };
        let engine = open(&env, options).await;
        for n in 0..40 {
            put(&env, &engine, &key(n), &value(n, 100)).await;
        }
        for flushed in [false, true] {
            if flushed {
                engine.flush().await.unwrap();
            }
            for n in (0..40).chain(0..40) {
                assert_eq!(engine.get(&key(n)).await.unwrap(), Some(value(n, 100)));
            }
        }
        assert!(engine.stats().gets_from_rows > 0, "no row was kept");
        env.sleep(Duration::from_secs(120)).await;
        assert_eq!(engine.stats().tables_dropped, 1);
        for n in 0..40 {
            assert_eq!(engine.get(&key(n)).await.unwrap(), None, "key {n}");
        }
    });
}

#[test]
fn merges_make_room_for_slow_foreground_work_and_say_so() {
    let sim = Sim::new(15);
    let env = sim.node_env("a");
    // Every commit takes longer than this.
    let latency_target = Duration::from_micros(1);
    let engine = sim.block_on(open(&env, Options { latency_target, ..heap_options() }));
    let model = sim.block_on(several_runs(&env, &engine));
    sim.block_on(engine.set_policy(one_run())).unwrap();
    let start = engine.stats();
    sim.block_on(async {
        for n in 0..150 {
            put(&env, &engine, &key(n + 20_000), &value(n, 100)).await;
        }
    });
    let stats = engine.stats();
    assert!(stats.paced_micros > start.paced_micros, "{stats:?}");
    assert!(stats.paced_bytes_per_second > 0 && start.compaction_debt_bytes > 0, "{stats:?}");
    assert_eq!(stats.commit_latency.count(), stats.log_batches);
    assert!(stats.commit_latency.quantile(500) > 1);
    // Without foreground work nothing is held back, and the debt ends.
    sim.block_on(engine.compact()).unwrap();
    sim.run_for(Duration::from_secs(1));
    let stats = engine.stats();
    assert_eq!((stats.compaction_debt_bytes, stats.paced_bytes_per_second), (0, 0), "{stats:?}");
    assert_eq!(sim.block_on(collect(&engine, ScanRange::default())).len(), model.len() + 150);
}

/// FIFO leaves as many runs as there were flushes: for leveling all of them are owed at once, and
/// far more than writers may bring about.
#[test]
fn what_another_policy_or_an_opening_finds_owed_slows_nobody_at_once() {
    const RUNS: u64 = 120;
    let sim = Sim::new(17);
    let mut env = sim.node_env("a");
    let options = Options {
        compaction: CompactionPolicy::fifo(None, Some(1 << 30)),
        ..options("leveled", 64 << 10, TABLE)
    };
    let put_some = async |env: &SimEnv, engine: &TestEngine, from: u64| {
        for n in from..from + 20 {
            put(env, engine, &key(n), &value(n, 100)).await;
        }
        let stats = engine.stats();
        (stats.stalled_micros, stats.delayed_micros)
    };
    let engine = sim.block_on(open(&env, options.clone()));
    sim.block_on(async {
        for round in 0..RUNS {
            write_many(&env, &engine, (0..80).map(|n| n * RUNS + round)).await;
            engine.flush().await.unwrap();
        }
        assert_eq!(engine.stats().level_runs[0], RUNS);
        engine.set_policy(one_run()).await.unwrap();
        let stats = engine.stats();
        assert!(stats.level_runs[0] >= RUNS - 32 && stats.compaction_debt_bytes > 1 << 20);
        assert_eq!(put_some(&env, &engine, 100_000).await, (0, 0), "after the switch");
    });
    drop(engine);
    env = sim.crash(&env);
    let engine = sim.block_on(open(&env, options));
    sim.block_on(async {
        let stats = engine.stats();
        assert!(stats.level_runs[0] >= 40, "{} runs: merged too early", stats.level_runs[0]);
        assert_eq!(put_some(&env, &engine, 200_000).await, (0, 0), "after the opening");
        engine.compact().await.unwrap();
        assert_eq!(put_some(&env, &engine, 300_000).await, (0, 0), "after the merges");
        assert_eq!(engine.stats().compaction_debt_bytes, 0);
        let found = collect(&engine, ScanRange::default()).await;
        assert_eq!(found.len() as u64, 80 * RUNS + 60);
    });
}
