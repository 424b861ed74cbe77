//! Disks that fail while nobody crashes: a log that cannot be trusted, a disk that is full.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash_support;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_lsm::{Durability, Engine, Error, WriteBatch};
use coronet_sim::{Faults, Sim, SimEnv, for_each_seed};

use crash_support::model::{Contents, End, Model};
use crash_support::workload::Workload;
use crash_support::{DIR, options, prepare, scan_all};

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
        let mut contents =
            sim.block_on(async { scan_all(&open(&env, &options).await).await.unwrap() });
        // The write made here beside the model may or may not have reached the device.
        contents.remove(&b"x"[..]);
        model.borrow_mut().recovered(contents, End::Power);
    });
}

/// A full disk: a clear error, reads go on, and writes do once there is space.
#[test]
fn a_full_disk_refuses_writes_until_space_is_freed() {
    for_each_seed(0..40, |seed| {
        let sim = Sim::new(seed);
        let env = sim.node_env("node");
        let mut rng = sim.rng();
        let options = options(&mut rng);
        let expected = RefCell::new(Contents::new());
        let engine = sim.block_on(async {
            prepare(&env).await;
            open(&env, &options).await
        });
        let room = env.disk().used() + rng.range(0, 400_000);
        env.disk().set_faults(Faults { capacity: Some(room), ..Faults::none() });
        let put = async |number: u64| -> Result<(), Error> {
            let (key, value) = (format!("{number:06}").into_bytes(), vec![number as u8; 900]);
            loop {
                let written = engine.write(&one_put(&key, &value), Durability::Durable);
                match written {
                    Ok(commit) => break commit.await.map(|_| ()),
                    Err(Error::Busy { .. }) => env.sleep(Duration::from_millis(5)).await,
                    Err(error) => break Err(error),
                }
            }?;
            expected.borrow_mut().insert(key, value);
            Ok(())
        };
        sim.block_on(async {
            let full = loop_until_full(&put).await;
            assert!(full.is_disk_full(), "{full}");
            for _ in 0..5 {
                env.sleep(Duration::from_millis(30)).await;
                if let Err(error) = put(500_000).await {
                    assert!(error.is_disk_full(), "{error}");
                }
            }
        });
        let contents = sim.block_on(scan_all(&engine)).expect("reads go on");
        for (key, value) in &*expected.borrow() {
            assert_eq!(contents.get(key), Some(value), "seed={seed}");
        }
        env.disk().set_faults(Faults::none());
        sim.run_for(Duration::from_secs(2));
        sim.block_on(async {
            for number in 700_000..700_050 {
                put(number).await.expect("writes resume once there is space");
            }
        });
        drop(engine);
        let env = sim.crash(&env);
        let contents = sim.block_on(async { scan_all(&open(&env, &options).await).await.unwrap() });
        for (key, value) in &*expected.borrow() {
            assert_eq!(contents.get(key), Some(value), "acknowledged write lost");
        }
        // A refused write was "not applied"; one that was cut off in the log is in doubt.
        let known = expected.borrow().len();
        assert!(contents.len() <= known + 1, "{} entries, {known} acknowledged", contents.len());
    });
}

async fn loop_until_full(put: &impl AsyncFn(u64) -> Result<(), Error>) -> Error {
    for number in 0..5_000 {
        if let Err(error) = put(number).await {
            return error;
        }
    }
    panic!("5000 writes fit on a disk that is full");
}
