//! A light world: its hosts, the phases of a run, and what goes wrong.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_ring::gossip::keyspace::Keyspace;
use coronet_ring::gossip::state::Founding;
use coronet_ring::placement::table::PlacedNode;
use coronet_ring::{Conflicts, Epoch, NodeId, Table};
use coronet_sim::{Rng, Sim, SimEnv};

use super::check;
use super::life::{Disk, Life, address_of, id_of};
use super::wires::{Weather, Wires};
use super::{Calm, MOST_NODES, Options, Report};

/// How long nodes may take to find each other, and to agree after the last fault.
const DEADLINE: Duration = Duration::from_secs(120);
/// Up to so many nodes all are founders; of more, [`FOUNDERS`] are, and the others join them. Every
/// node computes the founders' placement by itself: with a thousand that alone takes a minute.
const MOST_FOUNDERS: usize = 100;
const FOUNDERS: usize = 16;
const SECOND: Duration = Duration::from_secs(1);
/// All agree when they do at so many looks in a row, a second apart.
const LOOKS: u32 = 5;
/// How long the nodes are watched when nothing goes wrong any more.
const CALM: Duration = Duration::from_secs(30);
/// So often one node may suspect a living one within an hour of calm.
const MOST_FALSE: f64 = 1.0;
/// A dead node is suspected by all within this time.
const DETECTION: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(100);

/// A machine.
struct Host {
    env: SimEnv,
    disk: Disk,
    rack: String,
}

/// What goes wrong, or is decided.
#[derive(Debug, Clone, Copy)]
enum Strike {
    Weather,
    Partition,
    Mend,
    Kill,
    EmptyDisk,
    Pause,
    Skew,
    Define,
    Place,
    Bury,
}

const STRIKES: [Strike; 10] = [
    Strike::Weather,
    Strike::Partition,
    Strike::Mend,
    Strike::Kill,
    Strike::EmptyDisk,
    Strike::Pause,
    Strike::Skew,
    Strike::Define,
    Strike::Place,
    Strike::Bury,
];

/// Everything there is in a run.
pub struct World {
    sim: Sim,
    rng: Rng,
    hosts: Vec<Host>,
    founding: Founding,
    wires: Rc<Wires>,
    fair: Weather,
    seconds: u64,
    /// Hosts that never come back.
    gone: BTreeSet<usize>,
    /// The placement decided last.
    latest: Option<Table>,
    report: Report,
}

impl World {
    /// The world of a seed, before its first event.
    pub fn new(seed: u64, options: &Options) -> World {
        let sim = Sim::new(seed);
        let mut rng = sim.rng();
        let nodes = options.nodes.clamp(1, MOST_NODES);
        let fair =
            Weather { delay: [300, 3_000, 40_000][rng.index(3)], loss: 0, doubled: 0, late: 0 };
        let addresses: Vec<String> = (0..nodes).map(address_of).collect();
        let wires = Wires::new(rng.fork(), fair, &addresses);
        let racks = 3 + nodes / 20;
        let host = |at: usize| Host {
            env: sim.node_env(&format!("node-{at}")),
            disk: Disk::default(),
            rack: format!("rack-{}", at % racks),
        };
        let founders = if nodes > MOST_FOUNDERS { FOUNDERS } else { nodes };
        let founding = Founding {
            cluster: u128::from(seed),
            partitions: u32::try_from((nodes * 8).next_power_of_two()).unwrap_or(1 << 14),
            depth: 3,
            addresses: addresses.into_iter().take(founders).collect(),
        };
        World {
            hosts: (0..nodes).map(host).collect(),
            sim,
            rng,
            founding,
            wires,
            fair,
            seconds: options.seconds,
            gone: BTreeSet::new(),
            latest: None,
            report: Report { seed, ..Report::default() },
        }
    }

    /// All phases.
    pub fn run(mut self) -> Report {
        (0..self.hosts.len()).for_each(|host| self.start(host));
        self.report.founding = self.settle("founding");
        self.latest = self.table_of(0);
        self.report.violations.extend(self.latest.iter().flat_map(check::faults_of));
        if self.founding.addresses.len() < self.hosts.len() {
            self.place_all();
            let joining = self.settle("joining");
            self.report.founding += joining;
        }
        let end = self.sim.elapsed() + Duration::from_secs(self.seconds);
        while self.sim.elapsed() < end {
            let strike = STRIKES[self.rng.index(STRIKES.len())];
            self.report.strikes += 1;
            self.sim.note(strike as u64, self.report.strikes);
            self.strike(strike);
            let pause = Duration::from_millis(self.rng.below(2_000));
            self.sim.run_for(pause);
        }
        self.heal();
        self.report.settling = self.settle("the last fault");
        self.watch();
        self.lose_one();
        self.report.violations.append(&mut self.wires.alarms.borrow_mut());
        (self.report.messages, self.report.bytes) = self.wires.sent();
        self.report.hash = self.sim.trace_hash();
        self.report.simulated = self.sim.elapsed();
        self.report
    }

    /// Waits until all agree and go on agreeing; says how long it took to begin.
    fn settle(&mut self, after: &str) -> Duration {
        let begun = self.sim.elapsed();
        let gone: Vec<NodeId> = self.gone.iter().map(|host| id_of(*host)).collect();
        let (mut looks, mut since) = (0, begun);
        while looks < LOOKS {
            let lives = self.wires.lives();
            match check::disagreement(&lives, &gone, self.latest.as_ref()) {
                None if looks == 0 => (looks, since) = (1, self.sim.elapsed()),
                None => looks += 1,
                Some(what) if self.sim.elapsed() >= begun + DEADLINE => {
                    let text = format!("no agreement {DEADLINE:?} after {after}: {what}");
                    self.report.violations.push(text);
                    return DEADLINE;
                }
                Some(_) => looks = 0,
            }
            self.sim.run_for(SECOND);
        }
        since - begun
    }

    /// Watches a time without faults: whom living nodes suspect, and what gossip costs.
    fn watch(&mut self) {
        let (_, before) = self.wires.sent();
        self.wires.watched.set(true);
        self.sim.run_for(CALM);
        self.wires.watched.set(false);
        let nodes = self.wires.lives().len() as f64;
        let calm = Calm {
            node_hours: nodes * CALM.as_secs_f64() / 3600.0,
            false_suspicions: self.wires.false_suspicions.get(),
            bytes_per_second: (self.wires.sent().1 - before) as f64 / nodes / CALM.as_secs_f64(),
        };
        self.report.calm = calm;
        // One is never too many: of few nodes an hour is not watched.
        if calm.false_suspicions as f64 > (calm.node_hours * MOST_FALSE).max(1.0) {
            let (times, hours) = (calm.false_suspicions, calm.node_hours);
            let text =
                format!("living nodes were suspected {times} times in {hours:.2} node-hours");
            self.report.violations.push(text);
        }
    }

    /// A node dies, and all others come to suspect it.
    fn lose_one(&mut self) {
        let lives = self.wires.lives();
        if lives.len() < 2 {
            return;
        }
        let dead = lives[self.rng.index(lives.len())].id();
        let at = (0..self.hosts.len()).find(|host| id_of(*host) == dead).unwrap_or(0);
        self.kill(at);
        self.gone.insert(at);
        let (lives, died) = (self.wires.lives(), self.sim.elapsed());
        while let Some(trusting) = lives.iter().find(|life| !life.suspects(dead)) {
            if self.sim.elapsed() >= died + DETECTION {
                let text = format!("{} trusts {dead} {DETECTION:?} after its death", trusting.id());
                return self.report.violations.push(text);
            }
            self.sim.run_for(STEP);
        }
        self.report.detection = self.sim.elapsed() - died;
    }

    fn start(&mut self, at: usize) {
        if self.gone.contains(&at) || self.wires.life(at).is_some() {
            return;
        }
        let Host { env, disk, rack } = &self.hosts[at];
        let founding = self.founding.clone();
        Life::start(env.clone(), at, rack.clone(), founding, disk, &self.wires);
    }

    fn kill(&mut self, at: usize) {
        self.wires.plug(at, None);
        let host = &mut self.hosts[at];
        self.sim.resume(&host.env);
        host.env = self.sim.kill(&host.env);
    }

    /// Some hosts: mostly one, now and then a tenth of all.
    fn some(&mut self) -> Vec<usize> {
        let count = if self.rng.below(3) == 0 { self.hosts.len().div_ceil(10) } else { 1 };
        (0..count).map(|_| self.rng.index(self.hosts.len())).collect()
    }

    fn strike(&mut self, strike: Strike) {
        match strike {
            Strike::Weather => {
                let mut draw = |most: u64| u32::try_from(self.rng.below(most)).unwrap_or(0);
                let (loss, doubled, late) = (draw(400_000), draw(300_000), draw(300_000));
                self.wires.set_weather(Weather { loss, doubled, late, ..self.fair });
            }
            Strike::Partition => {
                let sides = self.rng.range(2, 4);
                let rng = &mut self.rng;
                self.wires.cut(|_| u8::try_from(rng.below(sides)).unwrap_or(0));
            }
            Strike::Mend => self.mend(),
            Strike::Kill | Strike::EmptyDisk => {
                for at in self.some() {
                    self.kill(at);
                    if matches!(strike, Strike::EmptyDisk) {
                        self.hosts[at].disk.take();
                    }
                }
            }
            Strike::Pause => {
                for at in self.some() {
                    self.sim.pause(&self.hosts[at].env);
                }
            }
            Strike::Skew => {
                for at in self.some() {
                    let by = i64::try_from(self.rng.below(7_200_000_000)).unwrap_or(0);
                    self.hosts[at].env.set_wall_offset(by - 3_600_000_000);
                }
            }
            Strike::Define => self.define(),
            Strike::Place => self.place(),
            Strike::Bury => self.bury(),
        }
    }

    /// Ends all faults but the deaths.
    fn mend(&mut self) {
        self.wires.cut(|_| 0);
        self.wires.set_weather(self.fair);
        for at in 0..self.hosts.len() {
            self.sim.resume(&self.hosts[at].env);
            self.start(at);
        }
    }

    /// As [`World::mend`]; and one node is told once more what was decided: the one that was told
    /// may have lost it with its disk.
    fn heal(&mut self) {
        self.mend();
        if let (Some(latest), Some(life)) = (self.latest.clone(), self.any_life()) {
            life.gossip.borrow_mut().adopt_table(latest);
        }
    }

    fn any_life(&mut self) -> Option<Rc<Life>> {
        let lives = self.wires.lives();
        (!lives.is_empty()).then(|| Rc::clone(&lives[self.rng.index(lives.len())]))
    }

    fn table_of(&self, host: usize) -> Option<Table> {
        self.wires.life(host)?.gossip.borrow().table().cloned()
    }

    /// A node defines or changes a keyspace.
    fn define(&mut self) {
        let Some(life) = self.any_life() else { return };
        let keyspace = Keyspace {
            name: format!("space-{}", self.rng.below(6)),
            version: life.env.wall_micros(),
            author: life.id(),
            dropped: self.rng.below(5) == 0,
            n: 3,
            r: u8::try_from(self.rng.range(1, 3)).unwrap_or(1),
            w: 2,
            conflicts: Conflicts::Siblings,
            options: Vec::new(),
        };
        if let Err(error) = life.gossip.borrow_mut().define(keyspace) {
            self.report.violations.push(format!("a definition is refused: {error}"));
        }
        life.store();
    }

    /// The next placement has one node less, or one more of those that may hold data.
    fn place(&mut self) {
        let Some(old) = self.latest.clone() else { return };
        let mut nodes: Vec<PlacedNode> = old.nodes().to_vec();
        let at = self.rng.index(self.hosts.len());
        match nodes.iter().position(|node| node.id == id_of(at)) {
            Some(found) if nodes.len() > 1 => drop(nodes.remove(found)),
            Some(_) => return,
            None if self.gone.contains(&at) => return,
            None => {
                let rack = self.hosts[at].rack.clone();
                nodes.push(PlacedNode { id: id_of(at), rack, weight: 100 });
            }
        }
        if let Some(new) = self.change(&old, nodes) {
            self.report.violations.extend(check::faults_of_change(&old, &new));
        }
    }

    /// Every host gets its share.
    fn place_all(&mut self) {
        let placed = |(at, host): (usize, &Host)| PlacedNode {
            id: id_of(at),
            rack: host.rack.clone(),
            weight: 100,
        };
        let nodes = self.hosts.iter().enumerate().map(placed).collect();
        if let Some(old) = self.latest.clone() {
            self.change(&old, nodes);
        }
    }

    /// The next placement is decided, and one node is told.
    fn change(&mut self, old: &Table, nodes: Vec<PlacedNode>) -> Option<Table> {
        match old.change(Epoch(old.epoch().0 + 1), nodes) {
            Ok(new) => {
                self.report.violations.extend(check::faults_of(&new));
                if let Some(life) = self.any_life() {
                    life.gossip.borrow_mut().adopt_table(new.clone());
                    life.store();
                }
                self.latest = Some(new.clone());
                Some(new)
            }
            Err(error) => {
                self.report.violations.push(format!("placement: {error}"));
                None
            }
        }
    }

    /// A node is gone for good; at most a tenth of all.
    fn bury(&mut self) {
        if self.gone.len() < self.hosts.len() / 10 {
            let at = self.rng.index(self.hosts.len());
            self.kill(at);
            self.gone.insert(at);
        }
    }
}
