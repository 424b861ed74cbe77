//! What goes wrong in a simulated cluster, when and where.
//!
//! The plan of a seed is drawn before its first event, and every strike has its own randomness:
//! leaving one out does not change the others, so that a failing plan can be made smaller.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use coronet_sim::{Faults as DiskFaults, Latency, Rng};

use super::fault::{self, Fault};
use super::world::World;
use super::{Options, wires};
use crate::sim::record::Lane;

/// Shortest time without power or disk: a machine starts no faster.
pub(super) const REPLACED: Duration = Duration::from_millis(50);
/// What a disk that rots damages: a damaged log or manifest would only keep the node from
/// starting.
const TABLES: &str = ".sst";
/// Bytes that a full disk still takes.
const LAST_ROOM: u64 = 64 << 10;

/// One fault.
#[derive(Debug, Clone)]
pub struct Strike {
    /// Its place in the plan.
    pub number: u64,
    /// When, after the chaos begins.
    pub at: Duration,
    /// What.
    pub fault: Fault,
    /// The host.
    pub host: usize,
    /// The other host, where there are two.
    pub other: usize,
    /// How long it lasts.
    pub lasts: Duration,
    /// Where its strength comes from.
    pub seed: u64,
}

/// What ends a fault.
#[derive(Debug, Clone)]
pub enum Recovery {
    /// Start the process of a host.
    Start(usize),
    /// Let a host go on.
    Resume(usize),
    /// The ways between these hosts are open and fast again.
    Mend(Vec<(usize, usize)>),
    /// The wires lose and change nothing any more.
    Fair,
    /// A disk works, is fast and has room.
    Disk(usize),
}

impl Recovery {
    /// Does it.
    pub fn apply(self, world: &mut World) {
        match self {
            Recovery::Start(host) => world.start(host),
            Recovery::Resume(host) => world.resume(host),
            Recovery::Mend(ways) => world.internet.mend(&ways),
            Recovery::Fair => world.internet.set_weather(world.fair),
            Recovery::Disk(host) => world.mend_disk(host),
        }
    }
}

/// The faults of one seed.
#[derive(Clone)]
pub struct Nemesis {
    faults: Vec<Fault>,
    /// Typical time between two faults, and the longest one lasts.
    tempo: (Duration, Duration),
    plan: VecDeque<Strike>,
    recoveries: Vec<(Duration, Recovery)>,
    struck: u64,
}

impl Nemesis {
    /// Draws a plan for so much time.
    pub fn draw(rng: &mut Rng, nodes: usize, chaos: Duration, options: &Options) -> Nemesis {
        let faults = fault::swarm(rng, nodes, options.faults.as_deref());
        let every = Duration::from_millis([300, 1_000, 4_000][rng.index(3)]);
        let longest = Duration::from_millis([500, 4_000, 15_000][rng.index(3)]);
        let mut plan = VecDeque::new();
        let mut counts: BTreeMap<Fault, usize> = BTreeMap::new();
        let mut at = draw(rng, every * 2);
        for number in 0.. {
            if faults.is_empty() || at >= chaos {
                break;
            }
            let fault = faults[rng.index(faults.len())];
            let (host, other) = (rng.index(nodes), rng.index(nodes));
            let (lasts, seed) = (draw(rng, longest), rng.next_u64());
            let count = counts.entry(fault).or_default();
            *count += 1;
            let strike = Strike { number, at, fault, host, other, lasts, seed };
            if *count <= fault.most()
                && options.strikes.as_ref().is_none_or(|s| s.contains(&number))
            {
                plan.push_back(strike);
            }
            at += draw(rng, every * 2);
        }
        Nemesis { faults, tempo: (every, longest), plan, recoveries: Vec::new(), struck: 0 }
    }

    /// The numbers of the faults to come.
    pub fn numbers(&self) -> Vec<u64> {
        self.plan.iter().map(|strike| strike.number).collect()
    }

    /// The next fault of the plan.
    pub fn next_strike(&mut self) -> Option<Strike> {
        self.plan.pop_front()
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

    /// Something more ends a fault.
    pub fn add(&mut self, at: Duration, recovery: Recovery) {
        self.recoveries.push((at, recovery));
    }

    /// No more of it; what would have ended later is ended by the caller.
    pub fn rest(&mut self) {
        self.recoveries.clear();
    }

    /// Does something bad.
    pub fn strike(&mut self, world: &mut World, strike: &Strike) {
        self.struck += 1;
        let Strike { fault, host, other, .. } = *strike;
        world.sim.note(fault as u64, (host * world.hosts.len() + other) as u64);
        let mut rng = Rng::new(strike.seed);
        let name = || format!("{fault:?} #{}", strike.number);
        world.recorder.planned(Lane::Host(host), strike.lasts, name);
        let ends = world.sim.elapsed() + strike.lasts;
        let recovery = match fault {
            Fault::Partition | Fault::Bridge | Fault::Slow | Fault::Clog => {
                let ways = wires::strike(world, strike, &mut rng);
                Some(Recovery::Mend(ways))
            }
            Fault::Reset => {
                world.internet.reset_between(host, other);
                None
            }
            Fault::Loss | Fault::Corrupt => {
                let weather = wires::bad_weather(world.fair, fault, &mut rng);
                world.internet.set_weather(weather);
                Some(Recovery::Fair)
            }
            Fault::Skew => {
                let reach = [100, 5_000, 600_000][rng.index(3)] * 1_000;
                let by = i64::try_from(rng.below(2 * reach)).unwrap_or(0);
                let by = by - i64::try_from(reach).unwrap_or(0);
                world.hosts[host].env.set_wall_offset(by);
                None
            }
            Fault::Drift => {
                let ppm = i64::try_from(rng.below(100_000)).unwrap_or(0) - 50_000;
                world.hosts[host].env.set_wall_drift(ppm);
                None
            }
            Fault::SlowDisk | Fault::DiskErrors | Fault::FullDisk | Fault::Rot => {
                trouble(world, fault, host, &mut rng);
                Some(Recovery::Disk(host))
            }
            Fault::Kill | Fault::Power | Fault::Pause | Fault::Cores | Fault::EmptyDisk => {
                stop(world, fault, host, &mut rng)
            }
        };
        if let Some(recovery) = recovery {
            let replaced = matches!(fault, Fault::EmptyDisk | Fault::Rot);
            let least = if replaced { REPLACED } else { Duration::ZERO };
            self.add(ends + least, recovery);
        }
    }
}

/// A time below `most`.
fn draw(rng: &mut Rng, most: Duration) -> Duration {
    Duration::from_nanos(rng.below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
}

/// A process or machine stops.
fn stop(world: &mut World, fault: Fault, host: usize, rng: &mut Rng) -> Option<Recovery> {
    if fault == Fault::Pause {
        world.hosts[host].running.then(|| world.pause(host))?;
        return Some(Recovery::Resume(host));
    }
    world.end(host, matches!(fault, Fault::Power | Fault::EmptyDisk));
    if fault == Fault::Cores {
        world.hosts[host].set_cores(u16::try_from(rng.range(1, 3)).unwrap_or(1));
    }
    if fault == Fault::EmptyDisk {
        world.empty_disk(host);
    }
    Some(Recovery::Start(host))
}

/// A disk is in trouble.
fn trouble(world: &mut World, fault: Fault, host: usize, rng: &mut Rng) {
    let disk = world.hosts[host].env.disk();
    let faults = match fault {
        Fault::SlowDisk => {
            let factor = [50, 500, 2_000][rng.index(3)];
            let usual = Latency::default();
            return disk.set_latency(Latency { sync: usual.sync * factor, slow: 0, ..usual });
        }
        Fault::FullDisk => {
            let capacity = Some(disk.used() + rng.below(LAST_ROOM));
            DiskFaults { capacity, ..DiskFaults::none() }
        }
        Fault::Rot => DiskFaults::lies(rng, TABLES),
        _ => DiskFaults::honest(rng),
    };
    disk.set_faults(faults);
    world.hosts[host].rotten |= fault == Fault::Rot;
    world.hosts[host].troubled = true;
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (every, longest) = self.tempo;
        write!(f, "{:?} about every {every:?}, up to {longest:?}", self.faults)
    }
}
