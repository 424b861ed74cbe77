//! A disk that lies: writes that arrive wrong or elsewhere, reads that return something else, and
//! crashes on top. One rule: every answer is right or a reported error, and every acknowledged
//! durable write is there or its loss is reported.
//!
//! A disk with sectors that go bad says so, but does not give what it had either: the same rule.
//!
//! The lies are about tables. About the log they are not all detectable: when the newest batch is
//! written wrong, it looks like one that was being written when the power failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash_support;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::{Engine, Error, Options};
use coronet_sim::{Faults, Latency, Rng, Sim, SimEnv, for_each_seed};

use crash_support::model::{End, Model};
use crash_support::workload::Workload;
use crash_support::{DIR, now, options, prepare, scan_now};

/// What happened over all seeds, so that the test proves that it tests something.
#[derive(Debug, Default)]
struct Coverage {
    faults: Cell<u64>,
    right: Cell<u64>,
    reported: Cell<u64>,
    quarantined: Cell<u64>,
    /// Blocks that were given up because they could not be read.
    given_up: Cell<u64>,
    unconfirmed: Cell<u64>,
}

fn add(cell: &Cell<u64>, n: u64) {
    cell.set(cell.get() + n);
}

struct World<'a> {
    sim: Sim,
    env: SimEnv,
    options: Options,
    model: Rc<RefCell<Model>>,
    coverage: &'a Coverage,
}

impl World<'_> {
    fn open(&self) -> Engine<SimEnv> {
        let open = || Engine::open(self.env.clone(), Path::new(DIR), self.options.clone());
        let mut opened = self.sim.block_on(open());
        if let Err(Error::Io { op: "read", .. }) = opened {
            // Index, filter or footer of a table: that is refused until it can be read.
            self.env.disk().mend();
            opened = self.sim.block_on(open());
        }
        opened.expect("tables that are damaged do not keep the engine from opening")
    }

    /// Checks every key by itself: right for a state after the required writes, or reported.
    fn check(&mut self, end: End) {
        let engine = self.open();
        let required = self.model.borrow().required(end);
        let keys = self.model.borrow().keys();
        for key in keys {
            let (now, found) =
                self.sim.block_on(async { (now(&self.env), engine.get(&key).await) });
            match found {
                Ok(value) => {
                    self.model.borrow_mut().check_get(&key, value.as_deref(), required, now);
                    add(&self.coverage.right, 1);
                }
                Err(error) => {
                    assert!(reports(&error), "{error}");
                    add(&self.coverage.reported, 1);
                }
            }
        }
        let (now, contents) = self.sim.block_on(scan_now(&self.env, &engine));
        match contents {
            Ok(contents) => {
                let model = self.model.borrow();
                model.check_scan(&contents, required, model.len(), now);
            }
            Err(error) => assert!(reports(&error), "{error}"),
        }
        self.sim.run_for(Duration::from_secs(2));
        add(&self.coverage.quarantined, engine.stats().lost_ranges);
        add(&self.coverage.given_up, engine.stats().refused_blocks);
    }
}

/// Whether this is what somebody is told whose key cannot be read.
fn reports(error: &Error) -> bool {
    matches!(error, Error::Corruption { .. } | Error::Io { op: "read", .. })
}

/// Sectors of tables that go bad for good, and reads that fail once.
fn bad_sectors(rng: &mut Rng) -> Faults {
    let mut draw = |max: u64| rng.below(max) as u32;
    let (bad_sector, read_error) = (draw(20_000), draw(20_000));
    Faults { bad_sector, read_error, only: Some(".sst".to_owned()), ..Faults::none() }
}

fn run(seed: u64, draw: fn(&mut Rng) -> Faults, coverage: &Coverage) -> u64 {
    let sim = Sim::new(seed);
    let env = sim.node_env("node");
    let mut rng = sim.rng();
    let mut options = options(&mut rng);
    options.scrub_bytes_per_second = [0, 1 << 20][rng.index(2)];
    options.scrub_pause = Duration::from_millis(20);
    options.unreadable_patience = Duration::from_millis([0, 100, 10_000][seed as usize % 3]);
    sim.block_on(prepare(&env));
    let mut world = World { sim, env, options, model: Rc::default(), coverage };
    if rng.below(3) == 0 {
        // A slow disk: a tenth of all operations take a hundred times as long.
        let slow = Latency { slow: 100_000, slow_factor: 100, ..Latency::default() };
        world.env.disk().set_latency(slow);
    }
    let engine = world.open();
    let workload = Workload::new(&world.env, engine.clone(), &world.model, rng.fork());
    workload.read_errors_allowed.set(true);
    workload.start();
    world.env.disk().set_faults(draw(&mut rng));
    world.sim.run_events(rng.range(2_000, 20_000));
    add(&coverage.faults, world.env.disk().stats().faults);
    add(&coverage.unconfirmed, engine.stats().damage_not_confirmed);
    add(&coverage.given_up, engine.stats().refused_blocks);
    world.env.disk().set_faults(Faults::none());
    drop((engine, workload));
    let end = [End::Process, End::Power][rng.index(2)];
    world.env = match end {
        End::Process => world.sim.kill(&world.env),
        _ => world.sim.crash(&world.env),
    };
    world.check(end);
    if rng.below(2) == 0 {
        world.env.disk().mend();
    }
    // What was found out is not forgotten: the same rule holds in the next life.
    world.env = world.sim.kill(&world.env);
    world.check(end);
    world.sim.trace_hash()
}

#[test]
fn a_lying_disk_never_gives_a_wrong_answer() {
    let coverage = Coverage::default();
    for_each_seed(0..80, |seed| {
        run(seed, |rng| Faults::lies(rng, ".sst"), &coverage);
    });
    let Coverage { faults, right, reported, quarantined, unconfirmed, .. } = &coverage;
    for reached in [faults, right, reported, quarantined, unconfirmed] {
        assert!(
            reached.get() > 0 || std::env::var_os("CORONET_SIM_SEED").is_some(),
            "{coverage:?}"
        );
    }
}

#[test]
fn bad_sectors_never_give_a_wrong_answer() {
    let coverage = Coverage::default();
    for_each_seed(5000..5080, |seed| {
        run(seed, bad_sectors, &coverage);
    });
    let Coverage { faults, right, reported, quarantined, given_up, .. } = &coverage;
    for reached in [faults, right, reported, quarantined, given_up] {
        assert!(
            reached.get() > 0 || std::env::var_os("CORONET_SIM_SEED").is_some(),
            "{coverage:?}"
        );
    }
}

#[test]
fn the_same_seed_tells_the_same_lies() {
    let coverage = Coverage::default();
    let lies = |rng: &mut Rng| Faults::lies(rng, ".sst");
    assert_eq!(run(7, lies, &coverage), run(7, lies, &coverage));
}
