//! What goes wrong in a simulated cluster. Which faults there are, and how often, is drawn per
//! seed: a mix of everything would hide what only a few of them show.

use std::fmt;
use std::time::Duration;

use coronet_sim::{Latency, Rng};

use super::world::World;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Some hosts are cut off from the others, in both directions or in one.
    Partition,
    /// The wires are whole again.
    Heal,
    /// One way is many times slower.
    Slow,
    /// Connections between two hosts are reset.
    Reset,
    /// A process is killed and started again later.
    Kill,
    /// A machine loses its power and what was not synced.
    Power,
    /// A process stands still for a while.
    Pause,
    /// A wall clock jumps.
    Skew,
    /// A disk takes long to sync, or is well again.
    SlowDisk,
}

const ALL: [Fault; 9] = [
    Fault::Partition,
    Fault::Heal,
    Fault::Slow,
    Fault::Reset,
    Fault::Kill,
    Fault::Power,
    Fault::Pause,
    Fault::Skew,
    Fault::SlowDisk,
];

/// What ends a fault.
#[derive(Debug, Clone, Copy)]
pub enum Recovery {
    /// Start the process of a host.
    Start(usize),
    /// Let a host go on.
    Resume(usize),
}

impl Recovery {
    /// Does it.
    pub fn apply(self, world: &mut World) {
        match self {
            Recovery::Start(host) => world.start(host),
            Recovery::Resume(host) => world.resume(host),
        }
    }
}

/// The faults of one seed.
#[derive(Clone)]
pub struct Nemesis {
    faults: Vec<Fault>,
    nodes: usize,
    /// Typical time between two faults.
    every: Duration,
    /// Longest time until a fault ends by itself.
    longest: Duration,
    recoveries: Vec<(Duration, Recovery)>,
    struck: u64,
}

impl Nemesis {
    /// Draws a mix.
    pub fn draw(rng: &mut Rng, nodes: usize) -> Nemesis {
        let among = nodes > 1;
        let faults = ALL.into_iter().filter(|fault| {
            let possible = among
                || !matches!(fault, Fault::Partition | Fault::Heal | Fault::Slow | Fault::Reset);
            rng.below(2) == 0 && possible
        });
        let mut faults: Vec<Fault> = faults.collect();
        if faults.contains(&Fault::Partition) && !faults.contains(&Fault::Heal) {
            faults.push(Fault::Heal);
        }
        Nemesis {
            faults,
            nodes,
            every: Duration::from_millis([300, 1_000, 4_000][rng.index(3)]),
            longest: Duration::from_millis([500, 4_000, 15_000][rng.index(3)]),
            recoveries: Vec::new(),
            struck: 0,
        }
    }

    /// Time until the next fault.
    pub fn pause(&self, rng: &mut Rng) -> Duration {
        Duration::from_nanos(rng.below(self.every.as_nanos() as u64 * 2))
    }

    /// Faults so far.
    pub fn struck(&self) -> u64 {
        self.struck
    }

    /// What ends by now.
    pub fn due(&mut self, now: Duration) -> Vec<Recovery> {
        let due = self.recoveries.extract_if(.., |(at, _)| *at <= now);
        due.map(|(_, recovery)| recovery).collect()
    }

    /// No more of it; what would have ended later is ended by the caller.
    pub fn rest(&mut self) {
        self.recoveries.clear();
    }

    /// Does something bad.
    pub fn strike(&mut self, world: &mut World) {
        if self.faults.is_empty() {
            return;
        }
        self.struck += 1;
        let fault = self.faults[world.rng.index(self.faults.len())];
        let (a, b) = (world.rng.index(self.nodes), world.rng.index(self.nodes));
        world.sim.note(fault as u64, (a * self.nodes + b) as u64);
        let lasts = Duration::from_nanos(world.rng.below(self.longest.as_nanos() as u64));
        let ends = world.sim.elapsed() + lasts;
        match fault {
            Fault::Partition => self.partition(world),
            Fault::Heal => {
                let weather = world.fair;
                world.internet.heal(weather);
            }
            Fault::Slow if a != b => {
                let factor = world.rng.range(5, 400);
                world.internet.slow_down(a, b, factor);
            }
            Fault::Reset => world.internet.reset_between(a, b),
            Fault::Kill | Fault::Power => {
                world.end(a, fault == Fault::Power);
                self.recoveries.push((ends, Recovery::Start(a)));
            }
            Fault::Pause if world.hosts[a].running => {
                world.pause(a);
                self.recoveries.push((ends, Recovery::Resume(a)));
            }
            Fault::Skew => {
                let reach = [100, 5_000, 600_000][world.rng.index(3)] * 1_000;
                let by = i64::try_from(world.rng.below(2 * reach)).unwrap_or(0);
                world.hosts[a].env.set_wall_offset(by - i64::try_from(reach).unwrap_or(0));
            }
            Fault::SlowDisk => {
                let factor = [1, 50, 500, 2_000][world.rng.index(4)];
                let usual = Latency::default();
                let sync = usual.sync * factor;
                world.hosts[a].env.disk().set_latency(Latency { sync, slow: 0, ..usual });
            }
            Fault::Slow | Fault::Pause => {}
        }
    }

    fn partition(&self, world: &mut World) {
        let side: Vec<bool> = match world.rng.below(2) {
            0 => {
                let alone = world.rng.index(self.nodes);
                (0..self.nodes).map(|host| host == alone).collect()
            }
            _ => (0..self.nodes).map(|_| world.rng.below(2) == 0).collect(),
        };
        let ways = world.rng.below(4); // 0: only out, 1: only in, else both
        for a in (0..self.nodes).filter(|host| side[*host]) {
            for b in (0..self.nodes).filter(|host| !side[*host]) {
                if ways != 1 {
                    world.internet.cut(a, b);
                }
                if ways != 0 {
                    world.internet.cut(b, a);
                }
            }
        }
    }
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} about every {:?}, up to {:?}", self.faults, self.every, self.longest)
    }
}
