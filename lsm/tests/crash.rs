//! Crashes at random points: whatever happens, what is left is a prefix of the log that covers
//! every acknowledged write.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash_support;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use coronet_lsm::env::{Env, TaskClass};
use coronet_lsm::{Engine, Options};
use coronet_sim::{Faults, Rng, Sim, SimEnv, for_each_seed};

use crash_support::model::{End, Model};
use crash_support::visitor::VISITOR;
use crash_support::workload::Workload;
use crash_support::{DIR, create_keyspaces, options, prepare, scan_now, scan_one};

/// One seed's world.
struct World {
    sim: Sim,
    env: SimEnv,
    rng: Rng,
    options: Options,
    model: Rc<RefCell<Model>>,
    /// Honest faults are switched on while the workload runs.
    faulty: bool,
    /// Several keyspaces, and entries that expire.
    wide: bool,
}

impl World {
    fn new(seed: u64, faulty: bool, wide: bool) -> Self {
        let sim = Sim::new(seed);
        let env = sim.node_env("node");
        let mut rng = sim.rng();
        let options = options(&mut rng);
        sim.block_on(prepare(&env));
        World { sim, env, rng, options, model: Rc::default(), faulty, wide }
    }

    fn open(&self) -> Engine<SimEnv> {
        let open = Engine::open(self.env.clone(), Path::new(DIR), self.options.clone());
        let engine = self.sim.block_on(open).expect("open on a healthy disk");
        if self.wide {
            self.sim.block_on(create_keyspaces(&engine));
        }
        engine
    }

    fn end(&mut self, end: End) {
        self.env = match end {
            End::Process => self.sim.kill(&self.env),
            End::Power | End::Closed => self.sim.crash(&self.env),
        };
    }

    /// Begins to recover and is cut off again. A power failure after a kill loses what the kill
    /// left un-synced.
    fn crash_while_opening(&mut self, before: End) -> End {
        let env = self.env.clone();
        let options = self.options.clone();
        self.env.spawn(TaskClass::Foreground, async move {
            let engine = Engine::open(env, Path::new(DIR), options).await;
            assert!(engine.is_ok(), "recovery failed: {:?}", engine.err());
        });
        let events = self.rng.below(400);
        self.sim.run_events(events);
        let again = if self.rng.below(3) == 0 { End::Process } else { End::Power };
        self.end(again);
        if again == End::Power && before == End::Process { End::Power } else { before }
    }

    /// One life: load, end, recovery, checks.
    fn live(&mut self) {
        let engine = self.open();
        let workload = Workload::with(&self.env, engine, &self.model, self.rng.fork(), self.wide);
        if self.faulty {
            workload.read_errors_allowed.set(true);
            self.env.disk().set_faults(Faults::honest(&mut self.rng));
        }
        workload.start();
        let most = [300, 2_000, 12_000][self.rng.index(3)];
        let events = self.rng.below(most);
        self.sim.run_events(events);
        let mut end = match self.rng.below(8) {
            0 if !self.faulty => End::Closed,
            0..3 => End::Process,
            _ => End::Power,
        };
        if end == End::Closed {
            self.sim.block_on(workload.stop());
            self.sim.block_on(workload.engine.close()).expect("close");
        }
        self.env.disk().set_faults(Faults::none());
        drop(workload);
        self.end(end);
        while self.rng.below(3) == 0 {
            end = self.crash_while_opening(end);
        }
        self.check(end);
    }

    fn check_visitor(&self, engine: &Engine<SimEnv>) {
        let found = engine.keyspace(VISITOR).ok();
        let found = found.map(|keyspace| self.sim.block_on(scan_one(&keyspace)).expect("scan"));
        self.model.borrow_mut().visitor.recovered(found.as_ref());
    }

    fn check(&mut self, end: End) {
        let engine = self.open();
        let (now, contents) = self.sim.block_on(scan_now(&self.env, &engine));
        let contents = contents.expect("scan");
        if self.wide {
            self.check_visitor(&engine);
        } else {
            // With expiries the answers of another moment may differ.
            let same = self.sim.block_on(async {
                let mut same = true;
                for (key, value) in &contents {
                    same &= engine.get(key).await.expect("get").as_ref() == Some(value);
                }
                same
            });
            assert!(same, "scan and gets differ");
        }
        self.sim.note(contents.len() as u64, engine.last_seq().0);
        self.model.borrow_mut().recovered(&contents, end, now);
        if self.rng.below(2) == 0 {
            self.sim.block_on(engine.close()).expect("close");
        }
        drop(engine);
        // What an opened engine has shown survives anything that comes next.
        let end = if self.rng.below(2) == 0 { End::Power } else { End::Process };
        self.end(end);
    }
}

fn run(seed: u64, faulty: bool) -> u64 {
    run_with(seed, faulty, false)
}

fn run_with(seed: u64, faulty: bool, wide: bool) -> u64 {
    let mut world = World::new(seed, faulty, wide);
    for _ in 0..world.rng.range(2, 4) {
        world.live();
    }
    world.sim.trace_hash()
}

#[test]
fn acknowledged_writes_survive_crashes() {
    for_each_seed(0..200, |seed| {
        run(seed, false);
    });
}

#[test]
fn acknowledged_writes_survive_crashes_on_a_failing_disk() {
    for_each_seed(1000..1100, |seed| {
        run(seed, true);
    });
}

#[test]
fn keyspaces_and_expiries_survive_crashes() {
    for_each_seed(3000..3150, |seed| {
        run_with(seed, false, true);
    });
}

#[test]
fn keyspaces_and_expiries_survive_crashes_on_a_failing_disk() {
    for_each_seed(4000..4100, |seed| {
        run_with(seed, true, true);
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let mut hashes = Vec::new();
    for seed in [3, 1003] {
        let first = run(seed, seed >= 1000);
        assert_eq!(first, run(seed, seed >= 1000), "seed={seed}");
        hashes.push(first);
    }
    assert_ne!(hashes[0], hashes[1]);
}
