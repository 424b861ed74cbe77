//! The connections of a core: from completions to the handler and back.
//!
//! Owns the table, the receive buffers and the order in which a connection's life goes on. Every
//! change of a connection ends in [`Net::settle`], which starts or stops what its stage asks for.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::buffers::ReceiveBuffers;
use super::connection::{Connection, Receive, Stage};
use super::core::{Core, Envelope};
use super::listener::Listener;
use super::ring::{Completion, Ring};
use super::serve::{ConnectionHandler, NetStats, ServeOptions};
use crate::node::{ConnId, Door};

/// Low bits of a connection's number: its place in the table. The rest is a counter that is never
/// reused.
const SLOT_BITS: u32 = 20;
/// How long a closed connection may wait for the peer's end.
const LINGER: Duration = Duration::from_secs(1);
/// How long the last output of a closed connection may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Output buffers kept for reuse, and the largest kept.
const SPARE_BUFFERS: usize = 64;
const SPARE_BYTES: usize = 64 * 1024;

enum Phase {
    /// `serve` was not called yet.
    Waiting,
    Open,
    /// Finishing; everything goes at the instant at the latest.
    Draining(Instant),
    /// Closing what is left.
    Closing,
    Down,
}

/// See the module.
pub(super) struct Net {
    handler: Option<Rc<dyn ConnectionHandler>>,
    phase: Phase,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    live: usize,
    issued: u64,
    buffers: ReceiveBuffers,
    spare: Vec<Vec<u8>>,
    /// Connections that may be able to move to another core after this turn's output.
    moving: Vec<ConnId>,
    listeners: Vec<Listener>,
    stats: NetStats,
    drain: Duration,
    waiter: Option<Waker>,
}

impl Net {
    pub(super) fn new(ring: &Ring) -> std::io::Result<Self> {
        Ok(Self {
            handler: None,
            phase: Phase::Waiting,
            connections: Vec::new(),
            free: Vec::new(),
            live: 0,
            issued: 0,
            buffers: ReceiveBuffers::register(ring)?,
            spare: Vec::new(),
            moving: Vec::new(),
            listeners: Vec::new(),
            stats: NetStats::default(),
            drain: Duration::ZERO,
            waiter: None,
        })
    }

    /// Serving starts; the next turn starts to accept.
    pub(super) fn open(
        &mut self,
        core: &Core,
        handler: Rc<dyn ConnectionHandler>,
        options: ServeOptions,
    ) {
        self.handler = Some(handler);
        self.drain = options.drain;
        self.phase = Phase::Open;
        let clients = options
            .listener
            .map(|socket| Listener::clients(socket, options.data_cores, options.connection_limit));
        self.listeners = clients.into_iter().chain(options.peers.map(Listener::peers)).collect();
        self.listeners.iter_mut().for_each(|listener| listener.arm(core));
    }

    /// Whether serving has ended; otherwise `waker` is woken when it does.
    pub(super) fn is_down(&mut self, waker: &Waker) -> bool {
        if matches!(self.phase, Phase::Down) {
            return true;
        }
        self.waiter = Some(waker.clone());
        false
    }

    /// Whether messages of other cores have somebody to go to (or nobody any more).
    pub(super) fn takes_messages(&self) -> bool {
        !matches!(self.phase, Phase::Waiting)
    }

    /// Whether the kernel holds nothing of the sockets.
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0 && self.listeners.is_empty()
    }

    pub(super) fn stats(&self) -> NetStats {
        NetStats { open: self.live as u64, ..self.stats }
    }

    /// Gives the receive buffers' memory back; only when [`Net::is_empty`].
    pub(super) fn release(&mut self, ring: &Ring) {
        self.buffers.release(ring);
    }

    // --- events -----------------------------------------------------------------------------

    /// The listener's completion.
    pub(super) fn accepted(&mut self, core: &Core, completion: Completion) {
        let named = |listener: &&mut Listener| listener.index() == completion.rest();
        let Some(listener) = self.listeners.iter_mut().find(named) else { return };
        if let Some((socket, door)) = listener.accepted(core, completion, &mut self.stats) {
            self.add(core, socket, door, &[]);
        }
    }

    /// Something from another core.
    pub(super) fn deliver(&mut self, core: &Core, envelope: Envelope) {
        match (envelope, &self.handler) {
            (Envelope::Message(message), Some(handler)) => handler.core_message(message),
            (Envelope::Socket { socket, door, unread }, Some(_)) => {
                self.add(core, socket, door, &unread);
            }
            (Envelope::NotDialed { ticket }, Some(handler)) => handler.dial_failed(ticket),
            (Envelope::Message(_) | Envelope::NotDialed { .. }, None) => {}
            (Envelope::Socket { .. }, None) => {
                core.shared.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn add(&mut self, core: &Core, socket: OwnedFd, door: Door, unread: &[u8]) {
        let Some(handler) = self.handler.clone() else { return };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            (self.connections.len() - 1) as u32
        });
        self.issued += 1;
        let id = ConnId(self.issued << SLOT_BITS | u64::from(slot));
        self.connections[slot as usize] = Some(Connection::new(id, socket));
        self.live += 1;
        handler.connect(id, door);
        if !unread.is_empty() {
            handler.receive(id, unread);
        }
        if matches!(self.phase, Phase::Open | Phase::Draining(_)) {
            self.settle(core, id);
        } else {
            self.kill(core, id);
        }
    }

    /// A receive's completion.
    pub(super) fn received(&mut self, core: &Core, completion: Completion) {
        let id = ConnId(completion.rest());
        let Some(connection) = find(&mut self.connections, id) else {
            // Connections outlive their operations; only the buffer could be lost here.
            completion.buffer().into_iter().for_each(|buffer| self.buffers.recycle(buffer));
            return;
        };
        let more = completion.more();
        if !more {
            connection.receive = Receive::Off;
        }
        let stage = connection.stage;
        if let Some(buffer) = completion.buffer() {
            let len = usize::try_from(completion.result).unwrap_or(0);
            self.stats.received += len as u64;
            if let (Stage::Open | Stage::Moving(_), Some(handler)) = (stage, &self.handler)
                && len > 0
            {
                handler.receive(id, self.buffers.filled(buffer, len));
            }
            self.buffers.recycle(buffer);
        }
        match -completion.result {
            0 => self.ended(core, id),
            count if count < 0 => {}
            libc::ENOBUFS => self.stats.buffer_shortages += 1,
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            _ => return self.kill(core, id),
        }
        if !more {
            self.settle(core, id);
        }
    }

    /// The peer sends nothing more.
    fn ended(&mut self, core: &Core, id: ConnId) {
        let Some(connection) = find(&mut self.connections, id) else { return };
        if connection.ended {
            return;
        }
        connection.ended = true;
        match (connection.stage, &self.handler) {
            (Stage::Open, Some(handler)) => handler.end_of_input(id),
            (Stage::Lingering(_), _) => self.kill(core, id),
            _ => {}
        }
    }

    /// A send's completion.
    pub(super) fn sent(&mut self, core: &Core, completion: Completion) {
        let id = ConnId(completion.rest());
        let Some(connection) = find(&mut self.connections, id) else { return };
        match usize::try_from(completion.result) {
            Ok(count) => {
                self.stats.sent += count as u64;
                let Some(output) = connection.advance(core, count) else { return };
                let dirty = std::mem::take(&mut connection.dirty);
                self.keep(output);
                if dirty {
                    self.take_output(core, id);
                }
                self.settle(core, id);
            }
            Err(_) if matches!(-completion.result, libc::EINTR | libc::EAGAIN) => {
                connection.advance(core, 0);
            }
            Err(_) => {
                connection.abandon_send();
                self.kill(core, id);
            }
        }
    }

    // --- output -----------------------------------------------------------------------------

    /// One send for every connection that became dirty, and moves that are due.
    pub(super) fn flush(&mut self, core: &Core) {
        let Some(handler) = self.handler.clone() else { return };
        while let Some(id) = handler.next_dirty() {
            let Some(connection) = find(&mut self.connections, id) else { continue };
            if connection.is_sending() {
                connection.dirty = true;
            } else {
                self.take_output(core, id);
            }
            self.settle(core, id);
        }
        while let Some(id) = self.moving.pop() {
            self.move_away(core, id);
        }
    }

    /// Asks the handler for output and sends it. Nothing may be on its way.
    fn take_output(&mut self, core: &Core, id: ConnId) {
        let Some(handler) = &self.handler else { return };
        let Some(connection) = find(&mut self.connections, id) else { return };
        if !connection.known {
            return;
        }
        let mut output = self.spare.pop().unwrap_or_default();
        let state = handler.take_output(id, &mut output);
        connection.paused = state.paused;
        if connection.stage == Stage::Open {
            if state.close_after {
                connection.stage = Stage::Closing(Instant::now() + LAST_WORDS);
            } else if let Some(to) = state.hand_over {
                connection.stage = Stage::Moving(to);
            }
        }
        if output.is_empty() || connection.stage == Stage::Dead {
            self.keep(output);
        } else {
            connection.send(core, output);
        }
    }

    /// Keeps an output buffer for reuse.
    fn keep(&mut self, mut output: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && output.capacity() <= SPARE_BYTES {
            output.clear();
            self.spare.push(output);
        }
    }

    // --- life -------------------------------------------------------------------------------

    /// Starts and stops what the connection's stage asks for.
    fn settle(&mut self, core: &Core, id: ConnId) {
        let Some(connection) = find(&mut self.connections, id) else { return };
        let silent = !connection.is_sending() && !connection.dirty;
        let wanted = match connection.stage {
            // While the peer does not read what it asked for, nothing more is taken from it.
            Stage::Open => !(connection.paused || (connection.is_sending() && connection.dirty)),
            Stage::Moving(_) => {
                if silent && connection.receive == Receive::Off {
                    self.moving.push(id);
                    return;
                }
                false
            }
            Stage::Closing(_) if silent => return self.linger(core, id),
            Stage::Closing(_) | Stage::Lingering(_) => true,
            Stage::Dead => {
                if connection.is_idle() {
                    self.remove(core, id);
                }
                return;
            }
        };
        match connection.receive {
            Receive::Off if wanted && !connection.ended => connection.start_receive(core),
            Receive::Armed if !wanted => connection.cancel_receive(core),
            _ => {}
        }
    }

    /// Everything was said: tells the peer and waits for its end.
    fn linger(&mut self, core: &Core, id: ConnId) {
        let Some(connection) = find(&mut self.connections, id) else { return };
        if connection.ended {
            return self.kill(core, id);
        }
        connection.stage = Stage::Lingering(Instant::now() + LINGER);
        connection.shut_down(libc::SHUT_WR);
        self.forget(id);
        self.settle(core, id);
    }

    /// Tells the handler that the connection is gone.
    fn forget(&mut self, id: ConnId) {
        let Some(connection) = find(&mut self.connections, id) else { return };
        if std::mem::take(&mut connection.known)
            && let Some(handler) = &self.handler
        {
            handler.disconnect(id);
        }
    }

    /// Gives the connection up. It goes once the kernel holds nothing of it.
    fn kill(&mut self, core: &Core, id: ConnId) {
        let Some(connection) = find(&mut self.connections, id) else { return };
        if connection.stage != Stage::Dead {
            connection.stage = Stage::Dead;
            // Ends a receive and a send in flight.
            connection.shut_down(libc::SHUT_RDWR);
            self.forget(id);
        }
        self.settle(core, id);
    }

    fn remove(&mut self, core: &Core, id: ConnId) {
        let slot = slot_of(id);
        self.connections[slot] = None;
        self.free.push(slot as u32);
        self.live -= 1;
        core.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Hands the connection to the core it asked for, unless that has to wait for last output.
    fn move_away(&mut self, core: &Core, id: ConnId) {
        self.take_output(core, id);
        let Some(handler) = self.handler.clone() else { return };
        let slot = slot_of(id);
        let Some(connection) = find(&mut self.connections, id) else { return };
        let Stage::Moving(to) = connection.stage else { return };
        if !connection.is_idle() {
            return; // settled again when the send completes
        }
        let Some(connection) = self.connections[slot].take() else { return };
        self.free.push(slot as u32);
        self.live -= 1;
        let unread = handler.release(id);
        let socket = connection.into_socket();
        core.mesh
            .borrow_mut()
            .send(to.index(), Envelope::Socket { socket, door: Door::Clients, unread });
    }

    // --- time and end -----------------------------------------------------------------------

    /// Deadlines.
    pub(super) fn tick(&mut self, core: &Core) {
        self.listeners.iter_mut().for_each(|listener| listener.tick(core));
        if let Some(handler) = &self.handler {
            handler.tick();
        }
        let now = Instant::now();
        let late = |c: &Connection| match c.stage {
            Stage::Closing(until) | Stage::Lingering(until) => until <= now,
            _ => false,
        };
        self.ids(late).into_iter().for_each(|id| self.kill(core, id));
    }

    /// The process is asked to end; called every turn until it has.
    pub(super) fn stop(&mut self, core: &Core) {
        match self.phase {
            Phase::Open => {
                self.phase = Phase::Draining(Instant::now() + self.drain);
                if let Some(handler) = &self.handler {
                    handler.drain();
                }
                self.listeners.iter_mut().for_each(|listener| listener.close(core));
            }
            Phase::Draining(until) => {
                let busy = self.handler.as_ref().is_some_and(|handler| handler.in_flight() > 0)
                    || self.connections.iter().flatten().any(|c| c.is_sending() || c.dirty);
                if !busy || Instant::now() >= until {
                    self.phase = Phase::Closing;
                    self.ids(|_| true).into_iter().for_each(|id| self.kill(core, id));
                }
            }
            Phase::Closing => {
                self.listeners.retain(|listener| !listener.is_idle());
                if self.is_empty() {
                    self.phase = Phase::Down;
                    self.handler = None;
                    if let Some(waiter) = self.waiter.take() {
                        waiter.wake();
                    }
                }
            }
            Phase::Waiting | Phase::Down => {}
        }
    }

    /// The connections that `pick` names.
    fn ids(&self, pick: impl Fn(&Connection) -> bool) -> Vec<ConnId> {
        self.connections.iter().flatten().filter(|c| pick(c)).map(|c| c.id).collect()
    }
}

/// A connection's place in the table.
fn slot_of(id: ConnId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}

/// The connection of that number, unless it is gone.
fn find(connections: &mut [Option<Connection>], id: ConnId) -> Option<&mut Connection> {
    connections.get_mut(slot_of(id))?.as_mut().filter(|connection| connection.id == id)
}
