//! Asks between nodes and to the own data cores, and their answers.

use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_net::peer::PeerMessage;
use coronet_probe::{Bug, seeded};
use coronet_ring::coordinate::message::{Answer, Ask, Refusal};
use coronet_ring::{KeyspaceId, NodeId, PartitionId, key_hash};

use super::State;
use super::requests::{InFlight, Input, Purpose, Running, is_last, merge_ask};
use crate::node::{CoreMessage, Handoff, NodeEnv, ShardAsk};

/// An ask on its way out, with what it is about.
pub(super) struct Asking {
    pub keyspace: KeyspaceId,
    pub partition: PartitionId,
    pub key: Vec<u8>,
    pub deadline: Option<Nanos>,
    pub ask: Ask,
}

impl Asking {
    /// About a request's key; nobody waits for it.
    pub(super) fn background(running: &Running, ask: Ask) -> Self {
        let (keyspace, partition) = (running.space.id, running.partition);
        Asking { keyspace, partition, key: running.key.clone(), deadline: None, ask }
    }
}

impl<E: NodeEnv> State<E> {
    /// Sends an ask to a node, this one included; `false` when it cannot be sent.
    pub(super) fn ask(&mut self, to: NodeId, asking: Asking, purpose: Purpose) -> bool {
        let ticket = self.requests.note(InFlight { node: to, purpose, since: self.env.now() });
        if to == self.config.me.id {
            self.ask_own(ticket, asking);
            return true;
        }
        let Asking { keyspace, partition, key, deadline, ask } = asking;
        let left = deadline.map(|deadline| deadline.since(self.env.now()).as_micros().max(1));
        let left_us = left.map_or(0, |left| u32::try_from(left).unwrap_or(u32::MAX));
        let (epoch, keyspace) = (self.members.epoch(), keyspace.0);
        let message = PeerMessage::Ask { ticket, epoch, left_us, keyspace, partition, key, ask };
        let sent = self.links.send(to, &message);
        if !sent {
            self.requests.answered(ticket, true);
        }
        sent
    }

    fn ask_own(&self, ticket: u64, asking: Asking) {
        let Asking { keyspace, partition, key, deadline, ask } = asking;
        let core = self.map.core_of(partition);
        let ask = ShardAsk { ticket, keyspace, partition, key, deadline, ask };
        self.env.send(core, CoreMessage::Ask(ask));
    }

    /// Another node asks.
    pub(super) fn asked(&mut self, from: NodeId, message: PeerMessage, bytes: u64) {
        let PeerMessage::Ask { ticket: theirs, left_us, keyspace, partition, key, ask, .. } =
            message
        else {
            return;
        };
        let too_long = key.len() > self.config.limits.max_key as usize;
        let unknown = u32::from(partition.0) >= self.map.partitions();
        let about_key = !matches!(ask, Ask::List { .. });
        let misplaced = about_key
            && (key.is_empty() || self.map.partition_of_hash(key_hash(&key)) != partition);
        if too_long || unknown || misplaced {
            self.links.worked_off(from, bytes);
            let answer = Answer::Refused(Refusal::Invalid);
            self.links.answer(from, PeerMessage::Answer { ticket: theirs, answer });
            return;
        }
        let purpose = Purpose::Remote { ticket: theirs, bytes };
        let ticket = self.requests.note(InFlight { node: from, purpose, since: self.env.now() });
        let left = (left_us > 0).then(|| Duration::from_micros(u64::from(left_us)));
        let deadline = left.map(|left| self.env.now().after(left));
        let keyspace = KeyspaceId(keyspace);
        self.ask_own(ticket, Asking { keyspace, partition, key, deadline, ask });
    }

    /// What a node was asked will not be answered: requests that wait for it are told.
    pub(super) fn lost(&mut self, node: NodeId) {
        self.members.refresh(&self.links, self.env.now());
        for id in self.requests.lost(node) {
            let mut effects = Vec::new();
            self.feed(id, Input::Failed(node), &mut effects);
            self.carry_out(id, effects);
        }
    }

    /// A node dialed, so it runs: it is dialed at once, too. Without that link it is given no
    /// answer.
    pub(super) fn dial_back(&mut self, node: NodeId) {
        let now = self.env.now();
        self.members.refresh(&self.links, now);
        if let Some(member) = self.members.gossip.member(node) {
            self.links.retry(&member.peer_address, now);
        }
    }

    /// An answer came, from a data core (`from` is this node) or from another node.
    pub(super) fn answered(&mut self, from: NodeId, ticket: u64, answer: Answer) {
        if !self.requests.may_answer(ticket, from, self.config.me.id) {
            return;
        }
        let Some(ask) = self.requests.answered(ticket, is_last(&answer)) else { return };
        match ask.purpose {
            Purpose::Remote { ticket, bytes } => {
                self.links.worked_off(ask.node, bytes);
                self.links.answer(ask.node, PeerMessage::Answer { ticket, answer });
            }
            Purpose::Request { id, partition } => {
                let mut effects = Vec::new();
                self.feed(id, Input::Answer { from, partition, answer }, &mut effects);
                self.carry_out(id, effects);
            }
            Purpose::Handoff(handoff) if answer == Answer::Stored => {
                self.env.send(handoff.core, CoreMessage::HandedOff(handoff));
            }
            Purpose::Agreement { keyspace, core } => self.agreed(from, keyspace, core, &answer),
            Purpose::Handoff(_) | Purpose::Repair => {}
        }
    }

    pub(super) fn dropped(&mut self, ticket: u64) {
        if let Some(InFlight { node, purpose: Purpose::Remote { bytes, .. }, .. }) =
            self.requests.answered(ticket, true)
        {
            self.links.worked_off(node, bytes);
        }
    }

    pub(super) fn hand_off(&mut self, handoff: Handoff) {
        let (target, partition, key) = (handoff.target, handoff.partition, handoff.key.clone());
        let ask = merge_ask(handoff.object.clone(), None);
        let asking = Asking { keyspace: handoff.keyspace, partition, key, deadline: None, ask };
        let handoff = Box::new(handoff);
        if seeded(Bug::HintForgottenWhenSent) {
            self.ask(target, asking, Purpose::Repair);
            return self.env.send(handoff.core, CoreMessage::HandedOff(handoff));
        }
        self.ask(target, asking, Purpose::Handoff(handoff));
    }
}
