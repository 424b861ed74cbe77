//! Links to the other nodes: who is dialed when, greetings, batches, credit.
//!
//! Each node dials every other one and sends on the link it dialed; what it accepted it reads.
//! All messages of a turn leave in one batch. A receiver grants credit for what it has worked
//! off; beyond the window messages wait here, beyond the queue they are refused.

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
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(5);

/// What happened on the links.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// Messages can be sent to this node from now on.
    Up(NodeId),
    /// No longer; what was sent may or may not have arrived.
    Down(NodeId),
    /// A node says something that took this many bytes.
    Message(NodeId, PeerMessage, u64),
    /// Something an operator should know.
    Trouble(String),
}

/// An address and the attempts to reach it.
struct Target {
    /// Whom it led to last.
    node: Option<NodeId>,
    dialing: bool,
    conn: Option<ConnId>,
    next_try: Nanos,
    pause: Duration,
    /// The last refusal was told.
    complained: bool,
}

/// What to dial now.
pub(super) struct Dial {
    pub ticket: u64,
    pub address: SocketAddr,
}

/// See the module.
pub(super) struct Links {
    greeting: Greeting,
    links: BTreeMap<ConnId, Link>,
    targets: BTreeMap<String, Target>,
    /// The link this node sends on, by node.
    up: BTreeMap<NodeId, ConnId>,
    dials: BTreeMap<u64, String>,
    next_ticket: u64,
    dirty: VecDeque<ConnId>,
    pub(super) events: VecDeque<LinkEvent>,
    scratch: Vec<u8>,
}

impl Links {
    pub(super) fn new(greeting: Greeting) -> Self {
        Links {
            greeting,
            links: BTreeMap::new(),
            targets: BTreeMap::new(),
            up: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_ticket: 0,
            dirty: VecDeque::new(),
            events: VecDeque::new(),
            scratch: Vec::new(),
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
                complained: false,
            };
            self.targets.insert(address.to_owned(), target);
        }
    }

    /// Whether messages can be sent to a node.
    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.up.contains_key(&node)
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
        self.scratch.clear();
        message.write(&mut self.scratch);
        if link.waiting.is_empty() && link.sent - link.credited < WINDOW {
            link.append(&self.scratch);
            self.mark(conn);
        } else {
            link.waiting_bytes += self.scratch.len();
            link.waiting.push_back(self.scratch.clone());
        }
        true
    }

    /// A message of this many bytes that came from `from` is worked off.
    pub(super) fn worked_off(&mut self, from: NodeId, bytes: u64) {
        let read = |link: &&mut Link| matches!(link.role, Role::Reads) && link.node == Some(from);
        if let Some(link) = self.links.values_mut().find(read) {
            link.worked += bytes;
        }
    }

    /// Ends the link this node sends to another on, so that it is dialed anew.
    pub(super) fn reset(&mut self, node: NodeId) {
        if let Some(conn) = self.up.get(&node).copied() {
            self.close(conn);
        }
    }

    /// What is due: addresses to dial, late greetings, credit.
    pub(super) fn tick(&mut self, now: Nanos, jitter: u64) -> Vec<Dial> {
        let late = |link: &Link| link.node.is_none() && now.since(link.opened) > GREETING;
        let late: Vec<_> = self.links.iter().filter(|(_, l)| late(l)).map(|(c, _)| *c).collect();
        late.into_iter().for_each(|conn| self.close(conn));
        let owed = |link: &Link| link.worked > link.granted;
        let owed: Vec<_> = self.links.iter().filter(|(_, l)| owed(l)).map(|(c, _)| *c).collect();
        owed.into_iter().for_each(|conn| self.grant(conn));
        let mut dials = Vec::new();
        for (at, (address, target)) in self.targets.iter_mut().enumerate() {
            if target.dialing || target.conn.is_some() || now < target.next_try {
                continue;
            }
            let Ok(parsed) = address.parse() else { continue };
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
        let Some(link) = self.links.remove(&conn) else { return };
        if let Role::Sends(address) = &link.role
            && let Some(target) = self.targets.get_mut(address)
            && target.conn == Some(conn)
        {
            target.conn = None;
        }
        if let Some(node) = link.node
            && self.up.get(&node) == Some(&conn)
        {
            self.up.remove(&node);
            self.events.push_back(LinkEvent::Down(node));
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
                    let total = u64::from_le_bytes(*total);
                    link.credited = link.credited.max(total).min(link.sent);
                    link.drain();
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

    /// The node that dialed says who it is.
    fn greeted_by_dialer(&mut self, conn: ConnId, body: &[u8]) {
        let greeting = self.greeting;
        let known = Greeting::decode(body).ok_or(Refused::Unreadable);
        let accepted = known.and_then(|other| greeting.accepts(&other).map(|()| other));
        let Some(link) = self.links.get_mut(&conn) else { return };
        match accepted {
            Ok(other) => {
                link.node = Some(other.node);
                link.frame(FrameKind::Greeting, |into| greeting.write(into));
                self.mark(conn);
                // An older link of the same node is a leftover.
                let old = self.links.iter().find(|(id, link)| {
                    **id != conn
                        && matches!(link.role, Role::Reads)
                        && link.node == Some(other.node)
                });
                if let Some(old) = old.map(|(id, _)| *id) {
                    self.close(old);
                }
            }
            Err(refused) => {
                link.frame(FrameKind::Refused, |into| into.push(refused as u8));
                self.close(conn);
            }
        }
    }

    /// The node that was dialed says who it is.
    fn answered(&mut self, conn: ConnId, body: &[u8]) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Role::Sends(address) = &link.role else { return };
        let address = address.clone();
        let known = Greeting::decode(body).ok_or(Refused::Unreadable);
        match known.and_then(|other| self.greeting.accepts(&other).map(|()| other)) {
            Ok(other) => {
                link.node = Some(other.node);
                if let Some(target) = self.targets.get_mut(&address) {
                    (target.node, target.pause) = (Some(other.node), FIRST_PAUSE);
                    target.complained = false;
                }
                // Two addresses of one node: the later link is the better one.
                let old = self.up.insert(other.node, conn);
                match old {
                    Some(old) => self.close(old),
                    None => self.events.push_back(LinkEvent::Up(other.node)),
                }
            }
            Err(refused) => {
                self.complain(&address, refused);
                self.close(conn);
            }
        }
    }

    fn complain(&mut self, address: &str, refused: Refused) {
        let Some(target) = self.targets.get_mut(address) else { return };
        if !std::mem::replace(&mut target.complained, true) {
            self.events.push_back(LinkEvent::Trouble(format!("peer {address}: {refused}")));
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

    /// Grants what is owed when it is a good part of the window.
    pub(super) fn grant_large(&mut self) {
        let owed = |link: &Link| link.worked - link.granted > WINDOW / 4;
        let owed: Vec<_> = self.links.iter().filter(|(_, l)| owed(l)).map(|(c, _)| *c).collect();
        owed.into_iter().for_each(|conn| self.grant(conn));
    }

    /// Ends a link once its output is sent.
    pub(super) fn close(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.closing = true;
            self.mark(conn);
        }
    }

    fn mark(&mut self, conn: ConnId) {
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
