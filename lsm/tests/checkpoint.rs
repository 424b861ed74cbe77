//! Checkpoints of an engine at work: each is a prefix of the history, opens elsewhere, and holds
//! what was committed when it was asked for, whatever happens to the engine meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash_support;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, TaskClass};
use coronet_lsm::{Durability, Engine, Error, KeyspaceId, Options, WriteBatch};
use coronet_sim::{Rng, Sim, SimEnv, for_each_seed};

use crash_support::model::{Contents, End, Model};
use crash_support::workload::Workload;
use crash_support::{DIR, create_keyspaces, options, prepare, scan_all, scan_now};

fn copy_dir(n: usize) -> PathBuf {
    PathBuf::from(format!("/data/checkpoint-{n}"))
}

async fn open(env: &SimEnv, dir: &Path, options: &Options) -> Engine<SimEnv> {
    Engine::open(env.clone(), dir, options.clone()).await.expect("open")
}

/// Opens a copy and checks that it is a prefix of between `from` and `to` batches.
fn check(world: &World, n: usize, from: usize, to: usize) {
    let (now, contents) = world.sim.block_on(async {
        let copy = open(&world.env, &copy_dir(n), &world.options).await;
        let found = scan_now(&world.env, &copy).await;
        copy.close().await.expect("close");
        found
    });
    world.model.borrow().check_scan(&contents.expect("scan"), from, to, now);
}

struct World {
    sim: Sim,
    env: SimEnv,
    rng: Rng,
    options: Options,
    model: Rc<RefCell<Model>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let env = sim.node_env("node");
        let mut rng = sim.rng();
        let options = options(&mut rng);
        sim.block_on(prepare(&env));
        World { sim, env, rng, options, model: Rc::default() }
    }

    /// An engine under load, for a while.
    fn start(&mut self) -> Rc<Workload> {
        let engine = self.sim.block_on(async {
            let engine = open(&self.env, Path::new(DIR), &self.options).await;
            create_keyspaces(&engine).await;
            engine
        });
        let workload = Workload::with(&self.env, engine, &self.model, self.rng.fork(), true);
        workload.start();
        let events = self.rng.below(4_000);
        self.sim.run_events(events);
        workload
    }
}

#[test]
fn a_checkpoint_of_an_engine_at_work_is_a_prefix_of_its_history() {
    let (tables, copied) = (Cell::new(0), Cell::new(0));
    for_each_seed(0..40, |seed| {
        let mut world = World::new(seed);
        let workload = world.start();
        let mut spans = Vec::new();
        for n in 0..3 {
            let from = world.model.borrow().committed();
            let done = world.sim.block_on(workload.engine.checkpoint(&copy_dir(n))).expect("copy");
            spans.push((from, world.model.borrow().len()));
            tables.set(tables.get() + done.tables);
            copied.set(copied.get() + done.copied_bytes);
            let events = world.rng.below(3_000);
            world.sim.run_events(events);
            // While the engine goes on.
            check(&world, n, spans[n].0, spans[n].1);
        }
        world.sim.block_on(workload.stop());
        for (n, (from, to)) in spans.into_iter().enumerate() {
            // And when it has merged and used again what it had then.
            check(&world, n, from, to);
        }
        let found = world.sim.block_on(scan_now(&world.env, &workload.engine));
        let all = world.model.borrow().len();
        world.model.borrow().check_scan(&found.1.expect("scan"), all, all, found.0);
    });
    assert!(tables.get() > 40 && copied.get() > 1 << 20, "{tables:?} tables, {copied:?} bytes");
}

#[test]
fn a_crash_while_a_checkpoint_is_made_leaves_all_of_it_or_nothing() {
    let (whole, nothing) = (Cell::new(0), Cell::new(0));
    for_each_seed(100..180, |seed| {
        let mut world = World::new(seed);
        let workload = world.start();
        let from = world.model.borrow().committed();
        let (engine, returned) = (workload.engine.clone(), Rc::new(Cell::new(false)));
        let told = returned.clone();
        world.env.spawn(TaskClass::Background, async move {
            engine.checkpoint(&copy_dir(0)).await.expect("copy");
            told.set(true);
        });
        let events = world.rng.below(600);
        world.sim.run_events(events);
        let end = [End::Power, End::Process][world.rng.index(2)];
        drop(workload);
        world.env = match end {
            End::Power => world.sim.crash(&world.env),
            _ => world.sim.kill(&world.env),
        };
        let World { sim, env, options, model, .. } = &world;
        let to = model.borrow().len();
        let there = sim.block_on(env.list(&copy_dir(0))).is_ok();
        assert!(there || !returned.get(), "a checkpoint that was reported is gone");
        if there {
            check(&world, 0, from, to);
        }
        let engine = sim.block_on(open(env, Path::new(DIR), options));
        let (now, contents) = sim.block_on(scan_now(env, &engine));
        let contents = contents.expect("scan");
        model.borrow_mut().recovered(&contents, end, now);
        let again = sim.block_on(engine.checkpoint(&copy_dir(0)));
        if there {
            whole.set(whole.get() + 1);
            assert!(matches!(again, Err(Error::Io { .. })), "{again:?}");
        } else {
            nothing.set(nothing.get() + 1);
            again.expect("what the crash left is cleared away");
            check(&world, 0, 0, 0);
        }
    });
    let single = std::env::var_os("CORONET_SIM_SEED").is_some();
    assert!(single || (whole.get() > 5 && nothing.get() > 5), "{whole:?} {nothing:?}");
}

#[test]
fn engine_and_checkpoint_go_different_ways() {
    let sim = Sim::new(7);
    let env = sim.node_env("node");
    let options = Options::tiny();
    let put = async |engine: &Engine<SimEnv>, key: &[u8], value: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        engine.write(&batch, Durability::Durable).unwrap().await.unwrap();
    };
    let expected = |pairs: &[(&[u8], &[u8])]| -> Contents {
        pairs.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
    };
    sim.block_on(async {
        prepare(&env).await;
        let engine = open(&env, Path::new(DIR), &options).await;
        put(&engine, b"table", b"1").await;
        engine.flush().await.unwrap();
        put(&engine, b"log", b"1").await;
        let made = engine.checkpoint(&copy_dir(0)).await.unwrap();
        assert_eq!((made.tables, made.seq), (1, engine.visible_seq()));
        assert!(made.copied_bytes > 0 && made.linked_bytes > 0);
        let copy = open(&env, &copy_dir(0), &options).await;
        put(&engine, b"engine", b"2").await;
        put(&copy, b"copy", b"2").await;
        for engine in [&engine, &copy] {
            put(engine, b"table", b"3").await;
            engine.flush().await.unwrap();
            engine.compact().await.unwrap();
        }
        let common: [(&[u8], &[u8]); 2] = [(b"table", b"3"), (b"log", b"1")];
        let own = expected(&[common[0], common[1], (b"engine", b"2")]);
        assert_eq!(scan_all(&engine).await.unwrap(), own);
        let own = expected(&[common[0], common[1], (b"copy", b"2")]);
        assert_eq!(scan_all(&copy).await.unwrap(), own);
        // An empty engine has nothing to copy, and the folder above need not exist.
        let empty = open(&env, Path::new("/data/empty"), &options).await;
        let made = empty.checkpoint(Path::new("/backups/today/empty")).await.unwrap();
        assert_eq!((made.tables, made.copied_bytes), (0, 0));
        let copy = open(&env, Path::new("/backups/today/empty"), &options).await;
        assert!(scan_all(&copy).await.unwrap().is_empty());
        empty.close().await.unwrap();
        let refused = empty.checkpoint(&copy_dir(1)).await;
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    });
}

#[test]
fn segments_that_a_checkpoint_held_are_used_again() {
    let sim = Sim::new(8);
    let env = sim.node_env("node");
    let options = Options::tiny();
    sim.block_on(async {
        prepare(&env).await;
        let engine = open(&env, Path::new(DIR), &options).await;
        for n in 0..600u64 {
            let mut batch = WriteBatch::new();
            batch.put(&n.to_be_bytes(), &[7; 700]);
            let written = loop {
                match engine.write(&batch, Durability::Durable) {
                    Ok(written) => break written,
                    Err(error) => assert!(matches!(error, Error::Busy { .. }), "{error}"),
                }
                env.sleep(Duration::from_millis(5)).await;
            };
            if n == 300 {
                // What is committed now will be in the copy.
                written.await.unwrap();
                let engine = engine.clone();
                env.spawn(TaskClass::Background, async move {
                    engine.checkpoint(&copy_dir(0)).await.unwrap();
                });
            }
            env.sleep(Duration::from_micros(100)).await;
        }
        engine.flush().await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert!(engine.stats().log_segments <= 1, "{}", engine.stats().log_segments);
        let copy = open(&env, &copy_dir(0), &options).await;
        assert!(copy.keyspace(KeyspaceId::DEFAULT).is_ok());
        let rows = scan_all(&copy).await.unwrap().len();
        assert!(rows >= 300, "{rows}");
    });
}
