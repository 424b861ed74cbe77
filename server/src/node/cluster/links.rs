//! Links to the other nodes: who is dialed when, greetings, batches, credit.
//!
//! Each node dials every other one and sends on the link it dialed; what it accepted it reads.
//! All messages of a turn leave in one batch. A receiver grants credit for what it has worked
//! off; beyond the window messages wait here, beyond the queue they are refused.
//!
//! Greetings are in [`super::greet`], what ends links that stopped moving in [`super::watch`].

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_net::Parsed;
use coronet_net::peer::{Batch, Frame, FrameKind, Greeting, PeerMessage, Refused};
use coronet_ring::NodeId;

use super::super::shard::OutputState;
use super::super::{ConnId, Door};
use super::link::{Link, Role, WINDOW};

/// Bytes that wait for credit before messages are refused.
const QUEUE: usize = 32 << 20;
/// Longest frame that is accepted.
const MAX_FRAME: u32 = 64 << 20;
/// Pauses between two attempts to reach a peer.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Answers kept for a node that dialed and is not linked yet.
const OWED: usize = 1024;
/// An address that was never reached for so long is told.
const UNREACHED: Duration = Duration::from_secs(5);
/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(5);

/// What happened on the links.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// Messages can be sent to this node from now on.
    Up(NodeId),
    /// No longer; what was sent may or may not have arrived.
    Down(NodeId),
    /// This node can be reached by that one, which just dialed.
    Heard(NodeId),
    /// Nothing comes from this node any more, not even answers to what it was asked before.
    Unheard(NodeId),
    /// A node says something that took this many bytes.
    Message(NodeId, PeerMessage, u64),
    /// Nothing sent to this node was worked off for a while: it should be sent something that is
    /// worked off at once.
    Quiet(NodeId),
    /// Something an operator should know.
    Trouble(String),
}

/// An address and the attempts to reach it.
pub(super) struct Target {
    /// Whom it led to last.
    pub node: Option<NodeId>,
    dialing: bool,
    pub conn: Option<ConnId>,
    pub next_try: Nanos,
    pub pause: Duration,
    /// Since when it is dialed.
    since: Nanos,
    /// The last refusal, or that nobody is there, was told.
    pub complained: bool,
    /// That its node answers at another address, too, was told.
    pub told_twice: bool,
}

/// What to dial now.
pub(super) struct Dial {
    pub ticket: u64,
    pub address: SocketAddr,
}

/// See the module.
pub(super) struct Links {
    pub(super) greeting: Greeting,
    pub(super) links: BTreeMap<ConnId, Link>,
    pub(super) targets: BTreeMap<String, Target>,
    /// The link this node sends on, by node.
    pub(super) up: BTreeMap<NodeId, ConnId>,
    /// The link another node sends on, by node.
    pub(super) reads: BTreeMap<NodeId, ConnId>,
    /// Answers for nodes that are heard and not linked yet.
    pub(super) owed: BTreeMap<NodeId, Vec<PeerMessage>>,
    dials: BTreeMap<u64, String>,
    next_ticket: u64,
    dirty: VecDeque<ConnId>,
    pub(super) events: VecDeque<LinkEvent>,
    /// When time was told last.
    pub(super) last_tick: Option<Nanos>,
}

impl Links {
    pub(super) fn new(greeting: Greeting) -> Self {
        Links {
            greeting,
            links: BTreeMap::new(),
            targets: BTreeMap::new(),
            up: BTreeMap::new(),
            reads: BTreeMap::new(),
            owed: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_ticket: 0,
            dirty: VecDeque::new(),
            events: VecDeque::new(),
            last_tick: None,
        }
    }

    /// Keeps a link to this address from now on.
    pub(super) fn reach(&mut self, address: &str, now: Nanos) {
        if !self.targets.contains_key(address) {
            let target = Target {
                node: None,
                dialing: false,
                conn: None,
                next_try: now,
                pause: FIRST_PAUSE,
                since: now,
                complained: false,
                told_twice: false,
            };
            self.targets.insert(address.to_owned(), target);
        }
    }

    /// Dials an address at its next tick, whatever pause it has come to.
    pub(super) fn retry(&mut self, address: &str, now: Nanos) {
        if let Some(target) = self.targets.get_mut(address) {
            (target.next_try, target.pause) = (now, FIRST_PAUSE);
        }
    }

    /// Whether messages can be sent to a node.
    pub(super) fn sends_to(&self, node: NodeId) -> bool {
        self.up.contains_key(&node)
    }

    /// Whether a node can be sent asks and can answer them: it sends on a link of its own.
    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.up.contains_key(&node) && self.reads.contains_key(&node)
    }

    /// The nodes messages can be sent to.
    pub(super) fn linked(&self) -> impl Iterator<Item = NodeId> {
        self.up.keys().copied()
    }

    /// Whether the connection is one of these links.
    pub(super) fn has(&self, conn: ConnId) -> bool {
        self.links.contains_key(&conn)
    }

    /// Sends a message; `false` when it cannot be sent now.
    pub(super) fn send(&mut self, to: NodeId, message: &PeerMessage) -> bool {
        let Some(conn) = self.up.get(&to).copied() else { return false };
        let Some(link) = self.links.get_mut(&conn) else { return false };
        if link.waiting_bytes > QUEUE {
            return false;
        }
        if link.waiting.is_empty() && link.has_credit() {
            link.append(|into| message.write(into));
            self.mark(conn);
        } else {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            link.waiting_bytes += bytes.len();
            link.waiting.push_back(bytes);
        }
        true
    }

    /// Sends an answer, or keeps it until the link is there to a node that is heard already.
    pub(super) fn answer(&mut self, to: NodeId, answer: PeerMessage) {
        if !self.send(to, &answer) && !self.sends_to(to) && self.reads.contains_key(&to) {
            let owed = self.owed.entry(to).or_default();
            if owed.len() < OWED {
                owed.push(answer);
            }
        }
    }

    /// A message of this many bytes that came from `from` is worked off. Credit is granted at once
    /// when it is a good part of the window, else with the next tick.
    pub(super) fn worked_off(&mut self, from: NodeId, bytes: u64) {
        let Some(conn) = self.reads.get(&from).copied() else { return };
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.worked += bytes;
        if link.worked - link.granted > WINDOW / 4 {
            self.grant(conn);
        }
    }

    /// What is due: addresses to dial, late greetings, credit.
    pub(super) fn tick(&mut self, now: Nanos, jitter: u64) -> Vec<Dial> {
        let late = |link: &Link| link.node.is_none() && now.since(link.opened) > GREETING;
        let late: Vec<_> = self.links.iter().filter(|(_, l)| late(l)).map(|(c, _)| *c).collect();
        late.into_iter().for_each(|conn| self.close(conn));
        self.watch(now);
        let owed = |link: &Link| link.worked > link.granted;
        let owed: Vec<_> = self.links.iter().filter(|(_, l)| owed(l)).map(|(c, _)| *c).collect();
        owed.into_iter().for_each(|conn| self.grant(conn));
        let mut dials = Vec::new();
        for (at, (address, target)) in self.targets.iter_mut().enumerate() {
            if target.dialing || target.conn.is_some() || now < target.next_try {
                continue;
            }
            let Ok(parsed) = address.parse() else { continue };
            if target.node.is_none()
                && now.since(target.since) >= UNREACHED
                && !std::mem::replace(&mut target.complained, true)
            {
                let text =
                    format!("peer {address}: not reached since this node's start; goes on trying");
                self.events.push_back(LinkEvent::Trouble(text));
            }
            target.dialing = true;
            self.next_ticket += 1;
            self.dials.insert(self.next_ticket, address.clone());
            dials.push(Dial { ticket: self.next_ticket, address: parsed });
            let spread = target.pause.as_millis() as u64 / 2 + 1;
            let extra = (jitter >> (at % 32)) % spread;
            target.next_try = now.after(target.pause + Duration::from_millis(extra));
            target.pause = (target.pause * 2).min(LONGEST_PAUSE);
        }
        dials
    }

    /// A connection is there.
    pub(super) fn connect(&mut self, conn: ConnId, door: Door, now: Nanos) {
        let role = match door {
            Door::Dialed(ticket) => {
                let Some(address) = self.dials.remove(&ticket) else { return };
                if let Some(target) = self.targets.get_mut(&address) {
                    (target.dialing, target.conn) = (false, Some(conn));
                }
                Role::Sends(address)
            }
            Door::Peers | Door::Clients => Role::Reads,
        };
        let mut link = Link::new(role, now);
        if matches!(link.role, Role::Sends(_)) {
            let greeting = self.greeting;
            link.frame(FrameKind::Greeting, |into| greeting.write(into));
        }
        self.links.insert(conn, link);
        self.mark(conn);
    }

    /// Dialing did not succeed; it is tried again later.
    pub(super) fn dial_failed(&mut self, ticket: u64) {
        let address = self.dials.remove(&ticket);
        if let Some(target) = address.and_then(|address| self.targets.get_mut(&address)) {
            target.dialing = false;
        }
    }

    /// The connection is gone.
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        self.free_target(conn);
        let Some(link) = self.links.remove(&conn) else { return };
        let Some(node) = link.node else { return };
        if self.up.get(&node) == Some(&conn) {
            self.up.remove(&node);
            self.events.push_back(LinkEvent::Down(node));
        }
        if self.reads.get(&node) == Some(&conn) {
            self.reads.remove(&node);
            self.owed.remove(&node);
            self.events.push_back(LinkEvent::Unheard(node));
        }
    }

    /// Bytes arrived.
    pub(super) fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if link.closing {
            return;
        }
        let mut input = std::mem::take(&mut link.input);
        input.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match Frame::parse(&input[at..], MAX_FRAME) {
                Ok(Parsed::Frame { frame, consumed }) => {
                    self.frame(conn, frame);
                    at += consumed;
                }
                Ok(Parsed::Incomplete { .. }) => break,
                Err(error) => {
                    self.events.push_back(LinkEvent::Trouble(format!("a peer's link: {error}")));
                    self.close(conn);
                    break;
                }
            }
        }
        input.drain(..at);
        if let Some(link) = self.links.get_mut(&conn) {
            link.input = input;
        }
    }

    fn frame(&mut self, conn: ConnId, frame: Frame<'_>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if link.closing {
            return;
        }
        match (frame.kind, &link.role, link.node) {
            (FrameKind::Greeting, Role::Reads, None) => self.greeted_by_dialer(conn, frame.body),
            (FrameKind::Greeting, Role::Sends(_), None) => self.answered(conn, frame.body),
            (FrameKind::Refused, Role::Sends(address), None) => {
                let reason = frame.body.first().copied().and_then(Refused::from_u8);
                let reason = reason.unwrap_or(Refused::Unreadable);
                let address = address.clone();
                self.complain(&address, reason);
                self.close(conn);
            }
            (FrameKind::Batch, Role::Reads, Some(node)) => self.batch(conn, node, frame.body),
            (FrameKind::Credit, Role::Sends(_), Some(_)) => {
                if let Some(total) = frame.body.first_chunk::<8>() {
                    link.credit(u64::from_le_bytes(*total));
                    self.mark(conn);
                }
            }
            _ => {
                let text = format!("a peer sent {:?} out of turn", frame.kind);
                self.events.push_back(LinkEvent::Trouble(text));
                self.close(conn);
            }
        }
    }

    fn batch(&mut self, conn: ConnId, node: NodeId, body: &[u8]) {
        let mut batch = Batch::new(body);
        for bytes in batch.by_ref() {
            match PeerMessage::decode(bytes) {
                Ok(message) => {
                    let message = LinkEvent::Message(node, message, bytes.len() as u64);
                    self.events.push_back(message);
                }
                Err(error) => {
                    let text = format!("node {node}: {error}");
                    self.events.push_back(LinkEvent::Trouble(text));
                    return self.close(conn);
                }
            }
        }
        if !batch.is_empty() {
            let text = format!("node {node} sent a cut batch");
            self.events.push_back(LinkEvent::Trouble(text));
            self.close(conn);
        }
    }

    fn grant(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.granted = link.worked;
            let total = link.worked.to_le_bytes();
            link.frame(FrameKind::Credit, |into| into.extend_from_slice(&total));
            self.mark(conn);
        }
    }

    /// Ends a link once its output is sent.
    pub(super) fn close(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.closing = true;
            self.mark(conn);
        }
    }

    pub(super) fn mark(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn)
            && !std::mem::replace(&mut link.dirty, true)
        {
            self.dirty.push_back(conn);
        }
    }

    /// The next link with output.
    pub(super) fn next_dirty(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.dirty.pop_front() {
            if let Some(link) = self.links.get_mut(&conn) {
                link.dirty = false;
                return Some(conn);
            }
        }
        None
    }

    /// Whether some link has output.
    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Moves a link's output to the end of `into`.
    pub(super) fn take_output(&mut self, conn: ConnId, into: &mut Vec<u8>) -> OutputState {
        let Some(link) = self.links.get_mut(&conn) else {
            return OutputState { close_after: true, ..OutputState::default() };
        };
        link.end_batch();
        into.append(&mut link.output);
        OutputState { close_after: link.closing, ..OutputState::default() }
    }
}
