//! Hosts, their lives, and the phases of a run.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::Options as EngineOptions;
use coronet_lsm::env::{Env, TaskClass};
use coronet_probe::{Bug, Watch};
use coronet_ring::coordinate::quorum::Mode;
use coronet_server::config::ClusterSettings;
use coronet_server::data_dir::Wanted;
use coronet_sim::{Faults as DiskFaults, Latency, Rng, Sim, SimEnv};

use super::clients::{Clients, Directory};
use super::history::{History, Style};
use super::nemesis::{Nemesis, REPLACED, Recovery};
use super::operations::Chosen;
use super::{Options, Report, check};
use crate::sim::checkers::staleness::LATE_FACTOR;
use crate::sim::internet::{Internet, Weather};
use crate::sim::record::{EventKind, Lane, Recorder};
use crate::sim::{Membership, SimNode};

/// Partitions of a simulated cluster.
pub const PARTITIONS: u32 = 16;
/// Nodes of a simulated cluster at most.
pub const MOST_NODES: usize = 9;
const DIR: &str = "/var/node";
/// How long the nodes have to find each other before anything goes wrong.
const FOUNDING: Duration = Duration::from_secs(3);
/// How long the world is left alone before it is checked.
const QUIET: Duration = Duration::from_secs(20);
/// Until a process that did not start, because its disk failed, is started again.
const RETRY: Duration = Duration::from_millis(500);

/// A node's slot: its process writes itself here once it has started.
type Slot = Rc<RefCell<Option<Result<SimNode, String>>>>;

/// One machine.
pub struct Host {
    /// Its environment in its current life.
    pub env: SimEnv,
    slot: Slot,
    /// Whether a process runs or starts.
    pub running: bool,
    /// Whether it stands still.
    pub paused: bool,
    /// Whether its disk failed or was full in the life of this process.
    pub troubled: bool,
    /// Whether its disk may hold other bytes than were written.
    pub rotten: bool,
    wanted: Wanted,
    membership: Membership,
}

impl Host {
    /// Its next process has so many data cores.
    pub fn set_cores(&mut self, cores: u16) {
        self.wanted.cores = cores;
    }
}

/// Everything there is in a run.
pub struct World {
    /// The executor, the clock, the disks.
    pub sim: Sim,
    /// The world's own choices.
    pub rng: Rng,
    /// The machines.
    pub hosts: Vec<Host>,
    /// The wires between them.
    pub internet: Rc<Internet>,
    /// The nodes that run, for clients.
    pub directory: Directory,
    /// What clients did.
    pub history: Rc<RefCell<History>>,
    /// The wires on a good day.
    pub fair: Weather,
    /// Lines nodes logged, of lives that ended too.
    pub log: VecDeque<String>,
    /// What happened, for people.
    pub recorder: Rc<Recorder>,
    nemesis: Nemesis,
    watch: Watch,
    /// The numbers of the faults planned.
    strikes: Vec<u64>,
    bug: Option<Bug>,
    chaos: Duration,
    clients: u64,
    chosen: Option<Chosen>,
    crew: Option<Clients>,
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(host + 1).unwrap_or(u8::MAX)], 4721))
}

impl World {
    /// The world of a seed, before its first event.
    pub fn new(seed: u64, options: &Options) -> World {
        let watch = Watch::start(options.bug);
        let sim = Sim::new(seed);
        let mut rng = sim.rng();
        let drawn = [1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 6, 7, 9][rng.index(16)];
        let nodes = options.nodes.unwrap_or(drawn).clamp(1, MOST_NODES);
        let replicas = [1, 2, 3, 3, 3, 3, 5][rng.index(7)];
        let fair = Weather {
            delay: [50, 300, 2_000][rng.index(3)],
            late: [5_000, 5_000, 150_000][rng.index(3)],
            late_factor: LATE_FACTOR,
            reset: 0,
            corrupt: 0,
        };
        let addresses: Vec<SocketAddr> = (0..nodes).map(address).collect();
        let recorder = Recorder::new(sim.node_env("recorder"), options.record);
        let wires = sim.node_env("wires");
        let internet = Internet::new(wires, rng.fork(), &addresses, fair, &recorder);
        let mode = if rng.below(2) == 0 { Mode::Sloppy } else { Mode::Strict };
        let engine = EngineOptions {
            memtable_bytes: 16 << (10 + rng.below(4)),
            max_key_bytes: (64 << 10) + 64,
            max_value_bytes: 2 << 20,
            // Off, as long as the partition and what all keys begin with, a byte longer.
            filter_prefix_bytes: [0, 6, 7][(seed % 3) as usize],
            ..EngineOptions::tiny()
        };
        let cores = u16::try_from(rng.range(1, 2)).unwrap_or(1);
        let host = |at: usize| Host {
            env: sim.node_env(&format!("node-{}", at + 1)),
            slot: Slot::default(),
            running: false,
            paused: false,
            troubled: false,
            rotten: false,
            wanted: Wanted {
                cores,
                partitions: PARTITIONS,
                clustered: true,
                engine: engine.clone(),
            },
            membership: Membership {
                internet: Rc::clone(&internet),
                host: at,
                settings: ClusterSettings {
                    nodes: addresses.clone(),
                    replicas,
                    rack: format!("rack-{at}"),
                    mode,
                    ..ClusterSettings::default()
                },
                peers: address(at),
            },
        };
        let hosts: Vec<Host> = (0..nodes).map(host).collect();
        let drawn = Duration::from_secs(rng.range(5, 40));
        let chaos = options.millis.map_or(drawn, Duration::from_millis);
        let clients = rng.range(2, 6);
        let nemesis = Nemesis::draw(&mut rng.fork(), nodes, chaos, options);
        let mut history = History::default();
        history.recorder = Some(Rc::clone(&recorder));
        history.calm = nemesis.numbers().is_empty().then_some((fair.delay, fair.late));
        let history = Rc::new(RefCell::new(history));
        let mut world = World {
            directory: Rc::new(RefCell::new((0..nodes).map(|_| None).collect())),
            chaos,
            clients: options.clients.unwrap_or(clients),
            chosen: options.operations.clone(),
            crew: None,
            bug: options.bug,
            watch,
            log: VecDeque::new(),
            sim,
            rng,
            hosts,
            internet,
            history,
            fair,
            recorder,
            strikes: nemesis.numbers(),
            nemesis,
        };
        world.add_keys(options.keys);
        world
    }

    fn add_keys(&mut self, most: Option<u64>) {
        let mut history = self.history.borrow_mut();
        history.replicas = self.hosts[0].membership.settings.n();
        history.strict = self.hosts[0].membership.settings.mode == Mode::Strict;
        history.monotonic = self.rng.below(2) == 0;
        let drawn = self.rng.range(2, 12);
        for number in 0..drawn.min(most.unwrap_or(drawn)) {
            let style = match self.rng.below(8) {
                0 | 1 => Style::Replace,
                2 => Style::Cart,
                3 => Style::Register,
                _ => Style::Versions,
            };
            history.add_key(format!("sim/{number:02}").as_bytes(), style);
        }
    }

    /// Starts all nodes and lets them find each other.
    pub(super) fn found(&mut self) {
        for host in 0..self.hosts.len() {
            let env = self.hosts[host].env.clone();
            self.sim.block_on(async move {
                for (made, synced) in [("/var", "/")] {
                    let created = env.create_dir_all(Path::new(made)).await;
                    let created = created.and(env.sync_dir(Path::new(synced)).await);
                    assert!(created.is_ok(), "a fresh disk refuses a folder");
                }
            });
            self.start(host);
        }
        self.pass(FOUNDING);
    }

    /// All phases.
    pub fn run(&mut self) {
        self.found();
        let client_env = self.sim.node_env("clients");
        let (directory, history) = (&self.directory, &self.history);
        let rng = self.rng.fork();
        let chosen = self.chosen.take();
        let clients = Clients::new(client_env, rng, directory, history, &self.recorder, chosen);
        clients.start(self.clients);
        self.crew = Some(clients.clone());
        let begun = self.sim.elapsed();
        while let Some(strike) = self.nemesis.next_strike() {
            self.pass((begun + strike.at).saturating_sub(self.sim.elapsed()));
            let mut nemesis = self.nemesis.clone();
            nemesis.strike(self, &strike);
            self.nemesis = nemesis;
        }
        self.pass((begun + self.chaos).saturating_sub(self.sim.elapsed()));
        self.heal();
        clients.stop();
        self.pass(QUIET);
        if !clients.ended() {
            self.pass(QUIET * 3); // all their patience
        }
        if !clients.ended() {
            self.history.borrow_mut().violation(b"", "liveness: a client waits for ever");
        }
        check::check(self);
    }

    /// Lets time pass; starts and ends of processes are noted.
    pub fn pass(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        loop {
            let left = end.saturating_sub(self.sim.elapsed());
            if left.is_zero() {
                break;
            }
            self.sim.run_for(left.min(Duration::from_millis(20)));
            self.note_starts();
            let due = self.nemesis.due(self.sim.elapsed());
            due.into_iter().for_each(|recovery| recovery.apply(self));
        }
    }

    /// Nodes that have started can be found by clients.
    fn note_starts(&mut self) {
        let mut again = Vec::new();
        for (at, host) in self.hosts.iter().enumerate() {
            let mut directory = self.directory.borrow_mut();
            if directory[at].is_some() {
                continue;
            }
            match &*host.slot.borrow() {
                Some(Ok(node)) => {
                    directory[at] = Some(Rc::clone(node.network()));
                    self.recorder.note(EventKind::Fault, Lane::Host(at), || "serves".to_owned());
                }
                Some(Err(_)) if host.running && host.troubled => again.push(at),
                Some(Err(error)) if host.running => {
                    let what = format!("node {} does not start: {error}", at + 1);
                    let mut history = self.history.borrow_mut();
                    if !history.violations.iter().any(|line| line.contains(&what)) {
                        history.violation(b"", &what);
                    }
                }
                _ => {}
            }
        }
        for at in again {
            self.end(at, false);
            self.nemesis.add(self.sim.elapsed() + RETRY, Recovery::Start(at));
        }
    }

    /// Starts a host's process.
    pub fn start(&mut self, at: usize) {
        let rng = self.rng.fork();
        let host = &mut self.hosts[at];
        if host.running {
            return;
        }
        host.running = true;
        let (env, slot) = (host.env.clone(), Rc::clone(&host.slot));
        let (wanted, membership) = (host.wanted.clone(), host.membership.clone());
        host.env.spawn(TaskClass::Foreground, async move {
            let started =
                SimNode::start_member(env, rng, Path::new(DIR), wanted, &membership).await;
            *slot.borrow_mut() = Some(started.map_err(|error| error.to_string()));
        });
    }

    /// Ends a host's process: killed, or with the power.
    pub fn end(&mut self, at: usize, power: bool) {
        if !self.hosts[at].running {
            return;
        }
        self.resume(at);
        let now = self.hosts[at].env.now();
        self.history.borrow_mut().deaths.push(now);
        let what = if power { "loses its power" } else { "is killed" };
        self.recorder.note(EventKind::Fault, Lane::Host(at), || what.to_owned());
        self.internet.down(at, !power);
        let network = self.directory.borrow_mut()[at].take();
        let host = &mut self.hosts[at];
        host.running = false;
        let old = host.env.clone();
        host.env = if power { self.sim.crash(&old) } else { self.sim.kill(&old) };
        let node = host.slot.borrow_mut().take();
        drop(node);
        if let Some(network) = network {
            network.break_off();
            let name = host.env.name().to_owned();
            self.log.extend(network.log_lines().into_iter().map(|line| format!("{name} {line}")));
        }
        let excess = self.log.len().saturating_sub(2_000);
        self.log.drain(..excess);
    }

    /// Stops a host's process for a while.
    pub fn pause(&mut self, at: usize) {
        self.hosts[at].paused = true;
        self.sim.pause(&self.hosts[at].env);
    }

    /// Lets it go on.
    pub fn resume(&mut self, at: usize) {
        if std::mem::replace(&mut self.hosts[at].paused, false) {
            self.sim.resume(&self.hosts[at].env);
            self.internet.release();
        }
    }

    /// A disk works again. The process that saw it fail is started anew, as an operator would.
    pub fn mend_disk(&mut self, at: usize) {
        let disk = self.hosts[at].env.disk();
        disk.set_latency(Latency::default());
        disk.set_faults(DiskFaults::none());
        let (rotten, running) = (self.hosts[at].rotten, self.hosts[at].running);
        self.hosts[at].rotten = false;
        let troubled = std::mem::take(&mut self.hosts[at].troubled);
        if running && (troubled || rotten) {
            self.end(at, rotten);
        }
        if rotten {
            self.empty_disk(at);
            self.sim.run_for(REPLACED);
        }
        if running && (troubled || rotten) {
            self.start(at);
        }
    }

    /// The disk of a host without power is replaced: who the node is and whom it knew is copied
    /// to the new one, its data is gone.
    pub fn empty_disk(&mut self, at: usize) {
        let kept = ["node", "cluster"].map(|name| Path::new(DIR).join(name));
        self.hosts[at].env.disk().keep_only(&[&kept[0], &kept[1]]);
        self.history.borrow_mut().emptied.push(self.hosts[at].env.now());
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.nemesis.rest();
        self.internet.heal(self.fair);
        for at in 0..self.hosts.len() {
            self.resume(at);
            self.mend_disk(at);
            self.start(at);
        }
    }

    /// What came of the run so far.
    pub fn report(&self) -> Report {
        let history = self.history.borrow();
        let settings = &self.hosts[0].membership.settings;
        Report {
            seed: self.sim.seed(),
            setting: format!(
                "{} nodes, N={}, {:?}, {} clients, {} keys, {:?} of {}{}",
                self.hosts.len(),
                settings.n(),
                settings.mode,
                self.clients,
                history.keys().len(),
                self.chaos,
                self.nemesis,
                self.bug.map(|bug| format!(", bug {bug}")).unwrap_or_default(),
            ),
            hash: self.sim.trace_hash(),
            simulated: self.sim.elapsed(),
            acknowledged: history.acknowledged,
            reads: history.reads,
            faults: self.nemesis.struck(),
            marks: self.watch.marks(),
            strikes: self.strikes.clone(),
            events: self.recorder.events(),
            staleness: history.staleness.clone(),
            operations: self.crew.as_ref().map(Clients::operations).unwrap_or_default(),
            millis: u64::try_from(self.chaos.as_millis()).unwrap_or(u64::MAX),
            violations: history.violations.clone(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Nodes and clients hold their networks, which hold them.
        for network in self.directory.borrow().iter().flatten() {
            network.break_off();
        }
        for host in &self.hosts {
            let node = host.slot.borrow_mut().take();
            drop(node);
        }
    }
}
