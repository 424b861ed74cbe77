//! One process of one node of a light world: gossip, detector, and what it stores.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::{Env, TaskClass};
use coronet_ring::gossip::detector::{Detector, PHI_SUSPECT};
use coronet_ring::gossip::member::{Member, Newness, Standing};
use coronet_ring::gossip::message::Message;
use coronet_ring::gossip::state::{Event, Founding, Gossip, Target};
use coronet_ring::{Incarnation, NodeId};
use coronet_sim::SimEnv;

use super::wires::Wires;

/// How often a node gossips: as often as a real one.
pub const INTERVAL: Duration = Duration::from_millis(300);
/// So many rounds pass between two looks at whether the view must be stored.
const STORE_EVERY: u64 = 8;

/// What a host keeps when its process ends.
pub type Disk = Rc<RefCell<Option<Vec<u8>>>>;

/// The id of the node on a host.
pub fn id_of(host: usize) -> NodeId {
    NodeId(host as u128 + 1)
}

/// The address of a host.
pub fn address_of(host: usize) -> String {
    format!("10.{}.{}.{}:4721", host >> 16, (host >> 8) & 255, host & 255)
}

/// A process.
pub struct Life {
    /// Its environment.
    pub env: SimEnv,
    host: usize,
    /// What it knows.
    pub gossip: RefCell<Gossip>,
    detector: RefCell<Detector>,
    disk: Disk,
    changed: Cell<bool>,
}

impl Life {
    /// Starts a process with what its disk has of the view.
    pub fn start(
        env: SimEnv,
        host: usize,
        rack: String,
        founding: Founding,
        disk: &Disk,
        wires: &Rc<Wires>,
    ) -> Rc<Life> {
        let generation = env.wall_micros() / 1_000_000;
        let me = Member {
            id: id_of(host),
            newness: Newness { generation, version: 1, beat: 0 },
            incarnation: Incarnation(generation),
            standing: Standing::Up,
            client_address: format!("client-{}", address_of(host)),
            peer_address: address_of(host),
            rack,
            weight: 100,
            cores: 1,
        };
        let gossip = match disk.borrow().as_deref() {
            Some(stored) => Gossip::restore(me.clone(), founding.clone(), stored),
            None => Ok(Gossip::new(me.clone(), founding.clone())),
        };
        let gossip = gossip.unwrap_or_else(|error| {
            wires.alarms.borrow_mut().push(format!("node {host} does not start: {error}"));
            Gossip::new(me, founding)
        });
        let interval = u64::try_from(INTERVAL.as_micros()).unwrap_or(u64::MAX);
        let life = Rc::new(Life {
            env,
            host,
            gossip: RefCell::new(gossip),
            detector: RefCell::new(Detector::new(interval * 2)),
            disk: Rc::clone(disk),
            changed: Cell::new(true),
        });
        wires.plug(host, Some(Rc::clone(&life)));
        let (this, wires) = (Rc::clone(&life), Rc::clone(wires));
        life.env.spawn(TaskClass::Foreground, async move { this.gossip_for_ever(&wires).await });
        life
    }

    /// The node.
    pub fn id(&self) -> NodeId {
        id_of(self.host)
    }

    fn micros(&self) -> u64 {
        self.env.now().0 / 1_000
    }

    async fn gossip_for_ever(&self, wires: &Rc<Wires>) {
        let interval = u64::try_from(INTERVAL.as_micros()).unwrap_or(u64::MAX);
        self.env.sleep(Duration::from_micros(self.env.random() % interval)).await;
        for round in 0_u64.. {
            self.detector.borrow_mut().tick(self.micros());
            self.gossip.borrow_mut().beat();
            for (target, message) in self.gossip.borrow().round(self.env.random()) {
                let address = match target {
                    Target::Node(id) => {
                        self.gossip.borrow().member(id).map(|member| member.peer_address.clone())
                    }
                    Target::Seed(address) => Some(address),
                };
                if let Some(to) = address.and_then(|address| wires.host_of(&address)) {
                    wires.send(self.host, to, &message);
                }
            }
            if round % STORE_EVERY == 0 && self.changed.get() {
                self.store();
            }
            self.env.sleep(INTERVAL).await;
        }
    }

    /// Writes down the view.
    pub fn store(&self) {
        let mut bytes = Vec::new();
        self.gossip.borrow().snapshot(&mut bytes);
        *self.disk.borrow_mut() = Some(bytes);
        self.changed.set(false);
    }

    /// Bytes of another node arrive.
    pub(super) fn receive(&self, wires: &Rc<Wires>, from: usize, bytes: &[u8]) {
        let alarm = |what: String| {
            wires.alarms.borrow_mut().push(format!("node {}: {what}", self.host));
        };
        let Some(message) = Message::decode(bytes) else {
            return alarm(format!("a message of node {from} is refused"));
        };
        let mut events = Vec::new();
        let answer = self.gossip.borrow_mut().on_message(message, self.env.random(), &mut events);
        for event in events {
            match event {
                Event::Beat(id) => self.hear(id, wires),
                Event::Member(id) => {
                    self.hear(id, wires);
                    self.changed.set(true);
                }
                Event::Keyspace(_) | Event::Table(_) => self.changed.set(true),
                Event::Foreign(_)
                | Event::TableConflict(_)
                | Event::Impostor(_)
                | Event::Implausible(_) => alarm(event.to_string()),
            }
        }
        if let Some(answer) = answer {
            wires.send(self.host, from, &answer);
        }
    }

    /// A node lives. Every suspicion of a living node ends here, and only here, and is counted.
    fn hear(&self, id: NodeId, wires: &Wires) {
        let (mut detector, now) = (self.detector.borrow_mut(), self.micros());
        if wires.watched.get() && detector.phi(id, now).is_some_and(|phi| phi >= PHI_SUSPECT) {
            wires.false_suspicions.set(wires.false_suspicions.get() + 1);
        }
        detector.heard(id, now);
    }

    /// Whether this node takes another for unreachable.
    pub fn suspects(&self, other: NodeId) -> bool {
        let mut detector = self.detector.borrow_mut();
        detector.tick(self.micros());
        detector.is_suspect(other, self.micros())
    }
}
