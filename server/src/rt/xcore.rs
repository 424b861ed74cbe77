//! Messages between cores: one single-producer ring per direction and pair, and a doorbell.
//!
//! Sending never blocks and never loses: what does not fit waits in a queue on the sender's side.
//! A core that is about to sleep says so in its [`Bell`]; whoever sends to it afterwards writes
//! the bell's eventfd, which the sleeper has a pending read on. A core that is busy finds a flag in
//! its bell, which costs it one load of its own memory to look at.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_utils::CachePadded;
use rtrb::{Consumer, Producer, RingBuffer};

use super::ring::{eventfd, write_eventfd};

/// Messages one direction holds before the sender queues on its own side.
const CAPACITY: usize = 1024;
/// Messages taken from one peer per turn, so that a flood does not starve the sockets.
const PER_TURN: usize = 512;

/// How a sleeping core is woken.
pub struct Bell {
    sleeping: CachePadded<AtomicBool>,
    /// Somebody rang since the messages were last taken.
    rung: CachePadded<AtomicBool>,
    eventfd: OwnedFd,
}

impl Bell {
    /// A bell of a core that is awake.
    pub fn new() -> io::Result<Self> {
        let down = || CachePadded::new(AtomicBool::new(false));
        Ok(Self { sleeping: down(), rung: down(), eventfd: eventfd()? })
    }

    /// The core is about to sleep. It must look at its queues after this and before it does.
    pub fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The core is awake; nobody needs to ring.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Whether somebody rang since [`Bell::answer`].
    pub fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// The core is about to take its messages.
    fn answer(&self) {
        if self.has_rung() {
            self.rung.store(false, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
    }

    /// Tells the core, and wakes it when it sleeps. Called after the message is in its queue.
    pub fn ring(&self) {
        // Orders the message's publication before the look at the flags: either the receiver sees
        // the message or this sees that it sleeps, or has answered.
        fence(Ordering::SeqCst);
        if !self.has_rung() {
            self.rung.store(true, Ordering::Relaxed);
        }
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.force();
        }
    }

    /// Writes the eventfd whatever the core says it does.
    pub fn force(&self) {
        write_eventfd(self.eventfd.as_raw_fd());
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

struct Outbound<M> {
    ring: Producer<M>,
    overflow: VecDeque<M>,
    bell: Arc<Bell>,
    /// Something was sent since the bell was last looked at.
    touched: bool,
}

/// One core's end of the mesh.
pub struct MeshEnd<M> {
    me: usize,
    /// By core; `None` at the own place.
    outbound: Vec<Option<Outbound<M>>>,
    inbound: Vec<Consumer<M>>,
    /// Messages to itself.
    own: VecDeque<M>,
    /// Outbound rings touched or overflowing, so that a quiet turn costs one comparison.
    pending: bool,
    bell: Arc<Bell>,
}

/// Connects `cores` cores with each other. The ends are handed to their threads.
pub fn mesh<M: Send>(cores: usize) -> io::Result<Vec<MeshEnd<M>>> {
    let bells = (0..cores).map(|_| Bell::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    let mut ends: Vec<MeshEnd<M>> = bells
        .iter()
        .enumerate()
        .map(|(me, bell)| MeshEnd {
            me,
            outbound: (0..cores).map(|_| None).collect(),
            inbound: Vec::new(),
            own: VecDeque::new(),
            pending: false,
            bell: Arc::clone(bell),
        })
        .collect();
    for from in 0..cores {
        for to in (0..cores).filter(|to| *to != from) {
            let (ring, consumer) = RingBuffer::new(CAPACITY);
            let bell = Arc::clone(&bells[to]);
            let outbound = Outbound { ring, overflow: VecDeque::new(), bell, touched: false };
            ends[from].outbound[to] = Some(outbound);
            ends[to].inbound.push(consumer);
        }
    }
    Ok(ends)
}

impl<M: Send> MeshEnd<M> {
    /// This core's bell.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Cores in the mesh.
    pub fn cores(&self) -> usize {
        self.outbound.len()
    }

    /// Sends to a core. Messages of one pair arrive in order, each once. A core beyond the mesh
    /// (a control core without a thread of its own) is served by core 0.
    pub fn send(&mut self, to: usize, message: M) {
        let to = if to < self.outbound.len() { to } else { 0 };
        if to == self.me {
            self.own.push_back(message);
            return;
        }
        if let Some(Some(outbound)) = self.outbound.get_mut(to) {
            outbound.touched = true;
            self.pending = true;
            if !outbound.overflow.is_empty() {
                outbound.overflow.push_back(message);
            } else if let Err(rtrb::PushError::Full(message)) = outbound.ring.push(message) {
                outbound.overflow.push_back(message);
            }
        }
    }

    /// Moves what had to wait and rings the bells of sleeping receivers; once per turn.
    pub fn flush(&mut self) {
        if !self.pending {
            return;
        }
        self.pending = false;
        for outbound in self.outbound.iter_mut().flatten() {
            while let Some(message) = outbound.overflow.pop_front() {
                outbound.touched = true;
                if let Err(rtrb::PushError::Full(message)) = outbound.ring.push(message) {
                    outbound.overflow.push_front(message);
                    break;
                }
            }
            if std::mem::take(&mut outbound.touched) {
                outbound.bell.ring();
            }
            self.pending |= !outbound.overflow.is_empty();
        }
    }

    /// Takes waiting messages, a bounded number per peer. Returns how many.
    pub fn receive(&mut self, into: &mut Vec<M>) -> usize {
        let before = into.len();
        self.bell.answer();
        into.extend(self.own.drain(..));
        for ring in &mut self.inbound {
            let mut left = PER_TURN;
            while left > 0 {
                let Ok(message) = ring.pop() else { break };
                into.push(message);
                left -= 1;
            }
            if left == 0 {
                self.bell.rung.store(true, Ordering::Relaxed);
            }
        }
        into.len() - before
    }

    /// Whether others sent something since [`MeshEnd::receive`]; cheap enough to ask all the time.
    pub fn has_rung(&self) -> bool {
        self.bell.has_rung()
    }

    /// Whether messages wait to be received.
    pub fn has_inbound(&self) -> bool {
        !self.own.is_empty() || self.inbound.iter().any(|ring| !ring.is_empty())
    }

    /// Whether messages wait on this side for room or for a bell to be rung.
    pub fn has_outbound(&self) -> bool {
        self.pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_keeps_order_and_loses_nothing() {
        let mut ends = mesh::<usize>(2).unwrap();
        let (mut right, mut left) = (ends.pop().unwrap(), ends.pop().unwrap());
        let total = CAPACITY * 3 + 17;
        for message in 0..total {
            left.send(1, message);
        }
        assert!(left.outbound[1].as_ref().unwrap().overflow.len() > CAPACITY);
        let mut got = Vec::new();
        left.flush();
        assert_eq!(right.receive(&mut got), PER_TURN);
        assert!(right.has_rung(), "the rest still waits");
        while got.len() < total {
            left.flush();
            right.receive(&mut got);
        }
        assert_eq!(got, (0..total).collect::<Vec<_>>());
        left.flush();
        assert!(!left.has_outbound() && !right.has_inbound());
    }

    #[test]
    fn own_messages_and_unknown_cores_arrive() {
        let mut ends = mesh::<u8>(2).unwrap();
        ends[1].send(1, 7);
        ends[1].send(9, 8);
        ends[1].flush();
        let mut got = Vec::new();
        assert_eq!(ends[1].receive(&mut got), 1);
        assert_eq!(ends[0].receive(&mut got), 1);
        assert_eq!(got, [7, 8]);
    }

    #[test]
    fn a_busy_core_sees_that_messages_came() {
        let mut ends = mesh::<u8>(2).unwrap();
        let (mut right, mut left) = (ends.pop().unwrap(), ends.pop().unwrap());
        let mut got = Vec::new();
        for message in 0..3 {
            assert!(!right.has_rung());
            left.send(1, message);
            left.flush();
            assert!(right.has_rung() && !left.has_rung());
            assert_eq!(right.receive(&mut got), 1);
        }
        assert!(!right.has_rung());
    }

    #[test]
    fn the_bell_is_written_only_for_a_sleeper() {
        let bell = Bell::new().unwrap();
        bell.ring();
        bell.announce_sleep();
        bell.ring();
        bell.ring(); // already woken
        let mut count = [0u8; 8];
        let mut file = std::fs::File::from(bell.eventfd.try_clone().unwrap());
        std::io::Read::read_exact(&mut file, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
