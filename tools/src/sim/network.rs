//! The wires of a simulated node: between its cores, and between it and its clients.
//!
//! Bytes arrive in order, in chunks of random size after random delays. Does for a core what the
//! shell of `server/src/rt` does: moves bytes, pauses reading, closes, hands connections over.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use coronet_lsm::env::{Env, Nanos};
use coronet_ring::NodeId;
use coronet_ring::coordinate::message::Answer;
use coronet_server::node::{ConnId, ControlMessage, CoreId, CoreMessage, Door, NodeCore};
use coronet_sim::{Rng, SimEnv};

use super::client::Client;
use super::env::SimNodeEnv;
use super::internet::{Internet, PipeEnd};

/// Who is at the other end of a connection.
pub(super) enum Far {
    Client(Weak<Client>),
    /// Another node, by the end of the pipe that is here.
    Node(PipeEnd),
}

/// One connection, seen from the middle of the wire.
pub(super) struct Link {
    core: CoreId,
    pub(super) far: Far,
    /// The core asked to read nothing for now.
    paused: bool,
    /// Arrived while paused.
    unread: VecDeque<Vec<u8>>,
    /// When the last chunk scheduled so far arrives, per direction: bytes do not overtake.
    last_up: Nanos,
    last_down: Nanos,
}

impl Link {
    pub(super) fn new(core: CoreId, far: Far, now: Nanos) -> Self {
        let unread = VecDeque::new();
        Link { core, far, paused: false, unread, last_up: now, last_down: now }
    }
}

/// One core's place on the wires.
#[derive(Default)]
struct CoreSlot {
    node: Option<NodeCore<SimNodeEnv>>,
    /// Messages that came before the core was up.
    early: Vec<CoreMessage>,
    pump_scheduled: bool,
}

/// All wires of one node in one life.
pub struct Network {
    env: SimEnv,
    rng: RefCell<Rng>,
    /// Data cores.
    data_cores: u16,
    /// The core the control core runs on: its own, or the first data core.
    control_on: CoreId,
    cores: RefCell<Vec<CoreSlot>>,
    pub(super) links: RefCell<BTreeMap<ConnId, Link>>,
    /// Arrival of the last message per pair of cores.
    last_message: RefCell<BTreeMap<(CoreId, CoreId), Nanos>>,
    next_conn: Cell<u64>,
    log: RefCell<Vec<String>>,
    /// The wires to other nodes, and which of them this node is.
    pub(super) internet: Option<(Rc<Internet>, usize)>,
    node_id: Cell<Option<NodeId>>,
    /// Who waits for a replica's own answer, by ticket.
    pub(super) probes: RefCell<BTreeMap<u64, tokio::sync::oneshot::Sender<Answer>>>,
}

/// Tickets from here on are [`Network::probe`]'s: no node comes that far.
pub(super) const PROBES: u64 = 1 << 63;

impl Network {
    /// Wires for a node of `cores` data cores. Whether the control core has an executor of its
    /// own is drawn.
    pub fn new(env: SimEnv, mut rng: Rng, cores: u16) -> Rc<Self> {
        let slots = (0..=cores).map(|_| CoreSlot::default()).collect();
        let control_on = if rng.below(2) == 0 { CoreId(0) } else { CoreId(cores) };
        Rc::new(Network {
            env,
            rng: RefCell::new(rng),
            data_cores: cores,
            control_on,
            cores: RefCell::new(slots),
            links: RefCell::default(),
            last_message: RefCell::default(),
            next_conn: Cell::new(1),
            log: RefCell::default(),
            internet: None,
            node_id: Cell::new(None),
            probes: RefCell::default(),
        })
    }

    /// The same for a node that others can reach as `host`.
    pub fn among(
        env: SimEnv,
        rng: Rng,
        cores: u16,
        internet: &Rc<Internet>,
        host: usize,
    ) -> Rc<Self> {
        let mut network = Network::new(env, rng, cores);
        if let Some(network) = Rc::get_mut(&mut network) {
            network.internet = Some((Rc::clone(internet), host));
        }
        network
    }

    /// The node these wires belong to, once its data folder said so.
    pub fn node_id(&self) -> Option<NodeId> {
        self.node_id.get()
    }

    pub(super) fn set_node_id(&self, id: NodeId) {
        self.node_id.set(Some(id));
    }

    /// The node's environment without its cores: clock, tasks, randomness.
    pub fn env(&self) -> &SimEnv {
        &self.env
    }

    /// Lines the node logged, each after its core.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    pub(super) fn log(&self, core: CoreId, line: &str) {
        self.log.borrow_mut().push(format!("{core}: {line}"));
    }

    pub(super) fn new_conn(&self) -> ConnId {
        ConnId(self.next_conn.replace(self.next_conn.get() + 1))
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    /// A delay, now and then a long one.
    fn delay(&self, typical_micros: u64) -> Duration {
        let factor = if self.below(50) == 0 { 40 } else { 1 };
        Duration::from_nanos(self.below(typical_micros * 2_000) * factor)
    }

    pub(super) fn node(&self, core: CoreId) -> Option<NodeCore<SimNodeEnv>> {
        self.cores.borrow().get(core.index())?.node.clone()
    }

    /// The core the control core runs on.
    pub(super) fn control_on(&self) -> CoreId {
        self.control_on
    }

    /// A core is up: messages that waited for it are delivered.
    pub(super) fn attach(self: &Rc<Self>, core: CoreId, node: NodeCore<SimNodeEnv>) {
        let early = {
            let mut cores = self.cores.borrow_mut();
            let slot = &mut cores[core.index()];
            slot.node = Some(node.clone());
            std::mem::take(&mut slot.early)
        };
        for message in early {
            node.core_message(message);
        }
        self.schedule_pump(core);
    }

    /// Lets go of the cores, which hold these wires in turn.
    pub(super) fn detach(&self) {
        let cores = std::mem::take(&mut *self.cores.borrow_mut());
        drop(cores);
        self.links.borrow_mut().clear();
    }

    pub(super) fn nodes(&self) -> Vec<NodeCore<SimNodeEnv>> {
        self.cores.borrow().iter().filter_map(|slot| slot.node.clone()).collect()
    }

    /// Number of data cores.
    pub fn cores(&self) -> u16 {
        self.data_cores
    }

    pub(super) fn send_to_core(self: &Rc<Self>, from: CoreId, to: CoreId, message: CoreMessage) {
        let message = match message {
            CoreMessage::Control(ControlMessage::Answer { ticket, answer }) if ticket >= PROBES => {
                if let Some(waiter) = self.probes.borrow_mut().remove(&ticket) {
                    // The waiter may have given up.
                    let _ = waiter.send(answer);
                }
                return;
            }
            message => message,
        };
        let to = if to == CoreId(self.data_cores) { self.control_on } else { to };
        let delay = self.delay(3);
        let at = {
            let mut last = self.last_message.borrow_mut();
            let last = last.entry((from, to)).or_default();
            *last = self.env.now().after(delay).max(*last);
            *last
        };
        let this = Rc::clone(self);
        self.env.after(at.since(self.env.now()), move || this.deliver_to_core(to, message));
    }

    fn deliver_to_core(self: &Rc<Self>, to: CoreId, message: CoreMessage) {
        match self.node(to) {
            Some(node) => {
                node.core_message(message);
                self.schedule_pump(to);
            }
            None => {
                if let Some(slot) = self.cores.borrow_mut().get_mut(to.index()) {
                    slot.early.push(message);
                }
            }
        }
    }

    /// The loop of a core's shell comes round to sending soon.
    pub(super) fn schedule_pump(self: &Rc<Self>, core: CoreId) {
        let first = match self.cores.borrow_mut().get_mut(core.index()) {
            Some(slot) => !std::mem::replace(&mut slot.pump_scheduled, true),
            None => false,
        };
        if first {
            let this = Rc::clone(self);
            self.env.after(self.delay(5), move || this.pump(core));
        }
    }

    fn pump(self: &Rc<Self>, core: CoreId) {
        if let Some(slot) = self.cores.borrow_mut().get_mut(core.index()) {
            slot.pump_scheduled = false;
        }
        let Some(node) = self.node(core) else { return };
        while let Some(conn) = node.next_dirty() {
            let mut output = Vec::new();
            let state = node.take_output(conn, &mut output);
            self.send_down(conn, output);
            self.set_paused(conn, state.paused);
            if state.close_after {
                self.close_down(conn);
            } else if let Some(target) = state.hand_over {
                let this = Rc::clone(self);
                self.env.after(self.delay(20), move || this.hand_over(conn, core, target));
            }
        }
    }

    fn set_paused(self: &Rc<Self>, conn: ConnId, paused: bool) {
        let resumed = match self.links.borrow_mut().get_mut(&conn) {
            Some(link) => std::mem::replace(&mut link.paused, paused) && !paused,
            None => false,
        };
        if resumed {
            let this = Rc::clone(self);
            self.env.after(self.delay(5), move || this.read_on(conn));
        }
    }

    /// Passes on what arrived while reading was paused, until it is paused again.
    fn read_on(self: &Rc<Self>, conn: ConnId) {
        let next = match self.links.borrow_mut().get_mut(&conn) {
            Some(link) if !link.paused => link.unread.pop_front(),
            _ => None,
        };
        if let Some(bytes) = next {
            self.receive(conn, &bytes);
            let this = Rc::clone(self);
            self.env.after(self.delay(5), move || this.read_on(conn));
        }
    }

    fn receive(self: &Rc<Self>, conn: ConnId, bytes: &[u8]) {
        let Some(core) = self.links.borrow().get(&conn).map(|link| link.core) else { return };
        if let Some(node) = self.node(core) {
            node.receive(conn, bytes);
            self.schedule_pump(core);
        }
    }

    fn hand_over(self: &Rc<Self>, conn: ConnId, from: CoreId, to: CoreId) {
        let Some(old) = self.node(from) else { return };
        if !self.links.borrow().contains_key(&conn) {
            return; // the client hung up meanwhile
        }
        let unread = old.release(conn);
        let new = self.node(to);
        assert!(new.is_some(), "{conn} is handed to {to}, which does not exist");
        if let Some(link) = self.links.borrow_mut().get_mut(&conn) {
            link.core = to;
        }
        if let Some(new) = new {
            new.connect(conn, Door::Clients);
            if !unread.is_empty() {
                new.receive(conn, &unread);
            }
        }
        self.set_paused(conn, false);
        self.schedule_pump(to);
    }

    /// A client connects; any core may accept it. `None` while the node is not up.
    pub(super) fn connect(self: &Rc<Self>, client: &Weak<Client>) -> Option<ConnId> {
        let core = CoreId(u16::try_from(self.below(u64::from(self.cores()))).unwrap_or(0));
        let node = self.node(core)?;
        let conn = self.new_conn();
        let now = self.env.now();
        let link = Link::new(core, Far::Client(client.clone()), now);
        self.links.borrow_mut().insert(conn, link);
        node.connect(conn, Door::Clients);
        self.schedule_pump(core);
        Some(conn)
    }

    /// Sends bytes to the node.
    pub(super) fn send_up(self: &Rc<Self>, conn: ConnId, bytes: Vec<u8>) {
        for chunk in self.chunks(bytes) {
            let delay = self.delay(30);
            let at = match self.links.borrow_mut().get_mut(&conn) {
                Some(link) => {
                    link.last_up = self.env.now().after(delay).max(link.last_up);
                    link.last_up
                }
                None => return,
            };
            let this = Rc::clone(self);
            self.env.after(at.since(self.env.now()), move || this.arrive_up(conn, chunk));
        }
    }

    pub(super) fn arrive_up(self: &Rc<Self>, conn: ConnId, chunk: Vec<u8>) {
        let reads = match self.links.borrow_mut().get_mut(&conn) {
            Some(link) if link.paused || !link.unread.is_empty() => {
                link.unread.push_back(chunk);
                return;
            }
            Some(_) => true,
            None => false,
        };
        if reads {
            self.receive(conn, &chunk);
        }
    }

    fn send_down(self: &Rc<Self>, conn: ConnId, bytes: Vec<u8>) {
        let pipe = match self.links.borrow().get(&conn) {
            Some(Link { far: Far::Node(pipe), .. }) => Some(*pipe),
            _ => None,
        };
        if let (Some(pipe), Some((internet, _))) = (pipe, &self.internet) {
            return internet.send(pipe, bytes);
        }
        for chunk in self.chunks(bytes) {
            let delay = self.delay(30);
            let (at, client) = match self.links.borrow_mut().get_mut(&conn) {
                Some(link) => {
                    link.last_down = self.env.now().after(delay).max(link.last_down);
                    let Far::Client(client) = &link.far else { return };
                    (link.last_down, client.clone())
                }
                None => return,
            };
            self.env.after(at.since(self.env.now()), move || {
                if let Some(client) = client.upgrade() {
                    client.arrived(&chunk);
                }
            });
        }
    }

    /// The node closes: what it sent before still arrives.
    fn close_down(self: &Rc<Self>, conn: ConnId) {
        let Some(link) = self.links.borrow_mut().remove(&conn) else { return };
        if let Some(node) = self.node(link.core) {
            node.disconnect(conn);
        }
        match (link.far, &self.internet) {
            (Far::Client(client), _) => {
                self.env.after(link.last_down.since(self.env.now()), move || {
                    if let Some(client) = client.upgrade() {
                        client.hung_up();
                    }
                });
            }
            (Far::Node(pipe), Some((internet, _))) => internet.close(pipe),
            (Far::Node(_), None) => {}
        }
    }

    /// The client hangs up: what is still on the wire is lost in both directions.
    pub(super) fn hang_up(self: &Rc<Self>, conn: ConnId) {
        let Some(link) = self.links.borrow_mut().remove(&conn) else { return };
        if let Some(node) = self.node(link.core) {
            node.disconnect(conn);
            self.schedule_pump(link.core);
        }
    }

    fn chunks(&self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        chunks(&mut self.rng.borrow_mut(), bytes)
    }
}

/// Bytes as they come out of a wire: in one piece or in several.
pub(super) fn chunks(rng: &mut Rng, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    if rng.below(3) > 0 {
        return if bytes.is_empty() { Vec::new() } else { vec![bytes] };
    }
    let mut chunks = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let most = if rng.below(4) == 0 { 4 } else { 2_000 };
        let at = (1 + rng.index(most)).min(rest.len());
        let (chunk, after) = rest.split_at(at);
        chunks.push(chunk.to_vec());
        rest = after;
    }
    chunks
}
