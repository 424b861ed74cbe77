//! Disks that fail while nobody crashes: a log that cannot be trusted, a disk that is full.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash_support;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, TaskClass};
use coronet_lsm::{Durability, Engine, Error, Options, WriteBatch};
use coronet_sim::{Faults, Sim, SimEnv, for_each_seed};

use crash_support::model::{Contents, End, Model};
use crash_support::workload::Workload;
use crash_support::{DIR, options, prepare, scan_all, scan_now};

async fn open(env: &SimEnv, options: &coronet_lsm::Options) -> Engine<SimEnv> {
    Engine::open(env.clone(), Path::new(DIR), options.clone()).await.expect("open")
}

fn one_put(key: &[u8], value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

/// After a failed sync nothing is acknowledged until the engine is opened again, and what was
/// acknowledged before is there.
#[test]
fn after_a_failed_log_sync_nothing_is_acknowledged() {
    for_each_seed(0..40, |seed| {
        let sim = Sim::new(seed);
        let env = sim.node_env("node");
        let mut rng = sim.rng();
        let options = options(&mut rng);
        let model: Rc<RefCell<Model>> = Rc::default();
        let engine = sim.block_on(async {
            prepare(&env).await;
            open(&env, &options).await
        });
        let workload = Workload::new(&env, engine.clone(), &model, rng.fork());
        workload.read_errors_allowed.set(true);
        workload.start();
        sim.run_events(rng.range(200, 3_000));
        env.disk().set_faults(Faults { sync_error: 1_000_000, ..Faults::none() });
        let broken = sim.block_on(async {
            // Busy is an answer too: the flush it waits for cannot finish either.
            loop {
                match engine.write(&one_put(b"x", b"y"), Durability::Durable) {
                    Ok(commit) => break commit.await.expect_err("a sync that fails acknowledged"),
                    Err(Error::Busy { .. }) => env.sleep(Duration::from_millis(5)).await,
                    Err(error) => break error,
                }
            }
        });
        assert!(matches!(broken, Error::LogFailed(_)), "{broken}");
        env.disk().set_faults(Faults::none());
        sim.run_for(Duration::from_millis(300));
        let refused = engine.write(&one_put(b"x", b"z"), Durability::Buffered);
        assert!(matches!(refused, Err(Error::LogFailed(_))), "a log that failed took a write");
        sim.block_on(engine.get(b"key/00001")).expect("reads go on");
        drop((engine, workload));
        let env = sim.crash(&env);
        let engine = sim.block_on(open(&env, &options));
        let (now, contents) = sim.block_on(scan_now(&env, &engine));
        let mut contents = contents.unwrap();
        // The write made here beside the model may or may not have reached the device.
        contents.remove(&b"x"[..]);
        model.borrow_mut().recovered(&contents, End::Power, now);
    });
}

/// Writes one key after the other, without waiting for answers.
struct Filler {
    env: SimEnv,
    engine: Engine<SimEnv>,
    /// What was acknowledged.
    acked: RefCell<Contents>,
    /// Writes in the log that were not answered yet.
    waiting: Cell<usize>,
    /// Answers that were errors, by key.
    failed: RefCell<Vec<(Vec<u8>, Error)>>,
}

impl Filler {
    async fn put(self: &Rc<Self>, number: u64) -> Result<(), Error> {
        let (key, value) = (format!("{number:06}").into_bytes(), vec![number as u8; 900]);
        let commit = loop {
            match self.engine.write(&one_put(&key, &value), Durability::Durable) {
                Err(Error::Busy { .. }) => self.env.sleep(Duration::from_millis(5)).await,
                written => break written?,
            }
        };
        self.waiting.set(self.waiting.get() + 1);
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            match commit.await {
                Ok(_) => drop(this.acked.borrow_mut().insert(key, value)),
                Err(error) => this.failed.borrow_mut().push((key, error)),
            }
            this.waiting.set(this.waiting.get() - 1);
        });
        self.env.sleep(Duration::from_micros(200)).await;
        Ok(())
    }

    async fn until_full(self: &Rc<Self>) -> Error {
        for number in 0..5_000 {
            if let Err(error) = self.put(number).await {
                return error;
            }
        }
        panic!("5000 writes were taken on a disk that is full");
    }

    /// Scans and checks that everything acknowledged by now is there.
    async fn check(&self, engine: &Engine<SimEnv>) -> Contents {
        let acked = self.acked.borrow().clone();
        let contents = scan_all(engine).await.expect("scan");
        for (key, value) in &acked {
            let name = String::from_utf8_lossy(key);
            assert!(contents.get(key) == Some(value), "acknowledged write of {name} lost");
        }
        contents
    }
}

/// A full disk: a clear error, reads go on, and writes do once there is space.
#[test]
fn a_full_disk_refuses_writes_until_space_is_freed() {
    for_each_seed(0..40, |seed| {
        let sim = Sim::new(seed);
        let env = sim.node_env("node");
        let mut rng = sim.rng();
        let options = options(&mut rng);
        let engine = sim.block_on(async {
            prepare(&env).await;
            open(&env, &options).await
        });
        let filler = Rc::new(Filler {
            env: env.clone(),
            engine: engine.clone(),
            acked: RefCell::default(),
            waiting: Cell::new(0),
            failed: RefCell::default(),
        });
        let room = env.disk().used() + rng.range(0, 400_000);
        env.disk().set_faults(Faults { capacity: Some(room), ..Faults::none() });
        let full = sim.block_on(filler.until_full());
        assert!(full.is_disk_full(), "{full}");
        sim.block_on(filler.check(&engine));
        env.disk().set_faults(Faults::none());
        sim.run_for(Duration::from_secs(2));
        sim.block_on(async {
            for number in 700_000..700_050 {
                filler.put(number).await.expect("writes resume once there is space");
            }
        });
        sim.run_for(Duration::from_secs(2));
        assert_eq!(filler.waiting.get(), 0, "writes that waited for space are answered");
        assert!(filler.failed.borrow().is_empty(), "{:?}", filler.failed.borrow());
        sim.block_on(filler.check(&engine));
        drop(engine);
        let env = sim.crash(&env);
        let contents = sim.block_on(async { filler.check(&open(&env, &options).await).await });
        assert_eq!(contents.len(), filler.acked.borrow().len(), "a refused write was applied");
    });
}

/// Writes `numbers` without asking for durability.
async fn put_buffered(
    env: &SimEnv,
    engine: &Engine<SimEnv>,
    numbers: std::ops::Range<u64>,
) -> Result<(), Error> {
    for number in numbers {
        let batch = one_put(format!("{number:06}").as_bytes(), &[number as u8; 900]);
        let commit = loop {
            match engine.write(&batch, Durability::Buffered) {
                Err(Error::Busy { .. }) => env.sleep(Duration::from_millis(5)).await,
                written => break written?,
            }
        };
        commit.await?;
    }
    Ok(())
}

/// A table must not hold more than a power failure leaves of the log: the numbers that are written
/// next would not follow what the log has, and the opening after that would find a gap.
#[test]
fn a_flush_never_runs_ahead_of_the_log() {
    for_each_seed(0..40, |seed| {
        let sim = Sim::new(seed);
        let mut env = sim.node_env("node");
        // Nobody but the flush syncs the log.
        let options = Options { sync_interval: Duration::from_secs(3600), ..Options::tiny() };
        sim.block_on(prepare(&env));
        for life in 0..3 {
            let engine = sim.block_on(open(&env, &options));
            let flushed = sim.block_on(async {
                // Several segments of log, then a table of all of them.
                put_buffered(&env, &engine, life * 1000..life * 1000 + 200).await.expect("write");
                engine.flush().await.expect("flush");
                let flushed = scan_all(&engine).await.expect("scan");
                let more = life * 1000 + 500..life * 1000 + 520;
                put_buffered(&env, &engine, more).await.expect("write");
                flushed
            });
            drop(engine);
            env = sim.crash(&env);
            let engine = sim.block_on(open(&env, &options));
            let found = sim.block_on(scan_all(&engine)).expect("scan");
            assert!(flushed.iter().all(|(key, value)| found.get(key) == Some(value)));
            drop(engine);
            env = sim.kill(&env);
        }
    });
}

/// A failed sync may have forgotten what reads still show. What an opening shows after that was
/// in the log it found, and must be there after a power failure.
#[test]
fn what_is_shown_after_a_failed_sync_and_a_kill_survives_power_loss() {
    let shown_unsynced = Cell::new(0);
    for_each_seed(0..40, |seed| {
        let sim = Sim::new(seed);
        let env = sim.node_env("node");
        let options = Options::tiny();
        sim.block_on(prepare(&env));
        let engine = sim.block_on(open(&env, &options));
        sim.block_on(async {
            put_buffered(&env, &engine, 0..5).await.expect("write");
            engine.flush().await.expect("flush");
            env.disk().set_faults(Faults { sync_error: 1_000_000, ..Faults::none() });
            // Until the log fails.
            let _ = put_buffered(&env, &engine, 5..20).await;
        });
        // Long enough for the sync of the buffered writes to be tried.
        sim.run_for(Duration::from_millis(300));
        env.disk().set_faults(Faults::none());
        drop(engine);
        let env = sim.kill(&env);
        let engine = sim.block_on(open(&env, &options));
        let shown = sim.block_on(scan_all(&engine)).expect("scan");
        shown_unsynced.set(shown_unsynced.get() + shown.len().saturating_sub(5));
        drop(engine);
        let env = sim.crash(&env);
        let engine = sim.block_on(open(&env, &options));
        let found = sim.block_on(scan_all(&engine)).expect("scan");
        assert!(found == shown, "{} entries were shown, {} are left", shown.len(), found.len());
    });
    assert!(shown_unsynced.get() > 0, "the test shows nothing: no write outlived its failed sync");
}
