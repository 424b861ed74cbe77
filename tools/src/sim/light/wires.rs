//! The network of a light world: single messages, each of which may be lost, come twice, late, or
//! after one that was sent later.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coronet_ring::gossip::message::Message;
use coronet_sim::Rng;

use super::life::Life;

/// A late message takes so many times longer.
const LATE: u64 = 50;

/// What happens to messages.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Typical delay, microseconds.
    pub delay: u64,
    /// Of a million messages so many are lost.
    pub loss: u32,
    /// Of a million so many come twice.
    pub doubled: u32,
    /// Of a million so many are late.
    pub late: u32,
}

/// The wires between all nodes.
pub struct Wires {
    rng: RefCell<Rng>,
    weather: Cell<Weather>,
    /// The side of a partition each node is on.
    sides: RefCell<Vec<u8>>,
    lives: RefCell<Vec<Option<Rc<Life>>>>,
    hosts: BTreeMap<String, usize>,
    messages: Cell<u64>,
    bytes: Cell<u64>,
    /// Whether suspicions of living nodes are counted.
    pub watched: Cell<bool>,
    /// How often one node suspected another that lived, while watched.
    pub false_suspicions: Cell<u64>,
    /// Things gossip must never say in this world.
    pub alarms: RefCell<Vec<String>>,
}

impl Wires {
    /// Wires between nodes of these addresses, none of which runs.
    pub fn new(rng: Rng, weather: Weather, addresses: &[String]) -> Rc<Wires> {
        let hosts = addresses.iter().cloned().zip(0..).collect();
        Rc::new(Wires {
            rng: RefCell::new(rng),
            weather: Cell::new(weather),
            sides: RefCell::new(vec![0; addresses.len()]),
            lives: RefCell::new(vec![None; addresses.len()]),
            hosts,
            messages: Cell::new(0),
            bytes: Cell::new(0),
            watched: Cell::new(false),
            false_suspicions: Cell::new(0),
            alarms: RefCell::default(),
        })
    }

    /// The host of an address.
    pub fn host_of(&self, address: &str) -> Option<usize> {
        self.hosts.get(address).copied()
    }

    /// A process runs from now on, or none does.
    pub fn plug(&self, host: usize, life: Option<Rc<Life>>) {
        self.lives.borrow_mut()[host] = life;
    }

    /// The process of a host.
    pub fn life(&self, host: usize) -> Option<Rc<Life>> {
        self.lives.borrow()[host].clone()
    }

    /// All processes, ascending by host.
    pub fn lives(&self) -> Vec<Rc<Life>> {
        self.lives.borrow().iter().flatten().cloned().collect()
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.weather.set(weather);
    }

    /// Cuts the network: only hosts on one side reach each other.
    pub fn cut(&self, side_of: impl FnMut(usize) -> u8) {
        let mut sides = self.sides.borrow_mut();
        let count = sides.len();
        *sides = (0..count).map(side_of).collect();
    }

    /// Messages and bytes sent so far.
    pub fn sent(&self) -> (u64, u64) {
        (self.messages.get(), self.bytes.get())
    }

    /// Sends a message; its bytes are what a real node would send.
    pub fn send(self: &Rc<Self>, from: usize, to: usize, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.messages.set(self.messages.get() + 1);
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        let copies = {
            let mut rng = self.rng.borrow_mut();
            match (rng.chance(self.weather.get().loss), rng.chance(self.weather.get().doubled)) {
                (true, _) => 0,
                (false, doubled) => 1 + usize::from(doubled),
            }
        };
        let cut = {
            let sides = self.sides.borrow();
            sides[from] != sides[to]
        };
        let Some(life) = self.life(to).filter(|_| !cut) else { return };
        let bytes: Rc<[u8]> = bytes.into();
        for _ in 0..copies {
            let (this, there, bytes) = (Rc::clone(self), Rc::clone(&life), Rc::clone(&bytes));
            // On the receiver's own clock: it waits while the receiver stands still, and is lost
            // with it.
            life.env.after(self.delay(), move || there.receive(&this, from, &bytes));
        }
    }

    fn delay(&self) -> Duration {
        let (weather, mut rng) = (self.weather.get(), self.rng.borrow_mut());
        let late = if rng.chance(weather.late) { LATE } else { 1 };
        Duration::from_micros((weather.delay / 2 + rng.below(weather.delay + 1)) * late)
    }
}
