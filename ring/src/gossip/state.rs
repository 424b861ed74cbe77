//! What one node knows, and how it tells and learns.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::keyspace::{Keyspace, KeyspaceError, KeyspaceId};
use super::member::{MAX_GENERATION_AHEAD, Member, Newness, Standing};
use super::message::{Body, ClusterName, Delta, Digest, MAX_DIGEST, MAX_KEYSPACES, Message};
use crate::hash::key_hash;
use crate::ids::{Epoch, NodeId};
use crate::placement::table::{MAX_NODES, PlacedNode, Table, TableError};

/// Most bytes of descriptions and definitions in one message; the rest follows with the next
/// exchange.
pub const MAX_DELTA: usize = 48 << 10;

/// What all founding nodes are started with, word for word the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// Drawn at random when the cluster is created.
    pub cluster: u128,
    /// Number of partitions.
    pub partitions: u32,
    /// Places per partition: the largest N.
    pub depth: u8,
    /// Peer addresses of the founding nodes. They are the seeds, too.
    pub addresses: BTreeSet<String>,
}

impl Founding {
    /// The name messages carry.
    pub fn name(&self) -> ClusterName {
        let mut text = format!("{};{};", self.partitions, self.depth);
        self.addresses.iter().for_each(|address| text.extend([address, "\n"]));
        ClusterName { id: self.cluster, founding: key_hash(text.as_bytes()) }
    }
}

/// What a message brought to light.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Event {
    /// A member is new, or described itself anew.
    #[error("member {0} is new or changed")]
    Member(NodeId),
    /// A member's heartbeat advanced: it lives.
    #[error("member {0} lives")]
    Beat(NodeId),
    /// A keyspace was defined or changed.
    #[error("keyspace {0:?} changed")]
    Keyspace(KeyspaceId),
    /// A newer placement table was adopted.
    #[error("placement of {0} adopted")]
    Table(Epoch),
    /// The sender belongs to another cluster, or was founded otherwise; its message was ignored.
    #[error("node {0} belongs to another cluster or was started with other founding settings")]
    Foreign(NodeId),
    /// Two different tables of one epoch: some node was founded otherwise. Neither replaces the
    /// other; an operator has to look.
    #[error("node {0} has another placement of the same epoch")]
    TableConflict(NodeId),
    /// Another process uses this node's id.
    #[error("another process speaks as this node, from {0}")]
    Impostor(String),
    /// A description that cannot be true was ignored.
    #[error("node {0} spread an impossible description")]
    Implausible(NodeId),
}

/// Whom to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A known member.
    Node(NodeId),
    /// A seed nobody has met yet, by its peer address.
    Seed(String),
}

/// The state.
#[derive(Debug, Clone)]
pub struct Gossip {
    pub(super) me: NodeId,
    founding: Founding,
    pub(super) name: ClusterName,
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    pub(super) table: Option<Table>,
    /// Hash of the encoded table.
    table_check: u64,
    /// Seeds that are no member's peer address. Kept: with a thousand of them it takes long to
    /// find out, and every round asks.
    unmet: Vec<String>,
}

impl Gossip {
    /// A node that knows itself and nothing else. A founder of one is a cluster at once.
    pub fn new(me: Member, founding: Founding) -> Self {
        let mut gossip = Self::unfounded(me, founding);
        gossip.meet();
        gossip.found();
        gossip
    }

    pub(super) fn unfounded(me: Member, founding: Founding) -> Self {
        let (id, name) = (me.id, founding.name());
        let members = BTreeMap::from([(id, me)]);
        let keyspaces = BTreeMap::new();
        let unmet = Vec::new();
        Self { me: id, founding, name, members, keyspaces, table: None, table_check: 0, unmet }
    }

    /// Every member known, this node included, ascending by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A member.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The keyspaces that are not dropped.
    pub fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.keyspaces.values().filter(|keyspace| !keyspace.dropped)
    }

    /// A keyspace that is not dropped.
    pub fn keyspace(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.keyspaces.get(&id).filter(|keyspace| !keyspace.dropped)
    }

    /// The placement this node knows; `None` until all founders are known.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Changes this node's description of itself.
    pub fn describe(&mut self, change: impl FnOnce(&mut Member)) {
        if let Some(me) = self.members.get_mut(&self.me) {
            change(me);
            me.id = self.me;
            me.newness.version += 1;
        }
        self.meet();
    }

    /// The data cores made progress: the heart beats.
    pub fn beat(&mut self) {
        if let Some(me) = self.members.get_mut(&self.me) {
            me.newness.beat += 1;
        }
    }

    /// Defines or changes a keyspace. The author is set here, and the version: beyond the one
    /// known here and beyond the given one. A caller that gives its wall clock never makes the
    /// same version twice with different content, whatever it forgot in a crash.
    pub fn define(&mut self, mut keyspace: Keyspace) -> Result<KeyspaceId, KeyspaceError> {
        keyspace.author = self.me;
        keyspace.check()?;
        let id = keyspace.id();
        if let Some(other) = self.keyspaces.get(&id) {
            if other.name != keyspace.name {
                return Err(KeyspaceError::Taken(other.name.clone()));
            }
            keyspace.version = keyspace.version.max(other.version);
        }
        keyspace.version += 1;
        self.keyspaces.insert(id, keyspace);
        Ok(id)
    }

    /// Takes a definition as another node, or this one in another life, has made it; returns its
    /// id if it is sound and wins over what is known.
    pub fn adopt_keyspace(&mut self, keyspace: Keyspace) -> Option<KeyspaceId> {
        let id = keyspace.id();
        let known = self.keyspaces.get(&id);
        let room = known.is_some() || self.keyspaces.len() < MAX_KEYSPACES;
        let wins = keyspace.check().is_ok() && room && known.is_none_or(|k| keyspace.wins_over(k));
        wins.then(|| {
            self.keyspaces.insert(id, keyspace);
            id
        })
    }

    /// A definition for others who need not wait for the next exchange.
    pub fn announce(&self, id: KeyspaceId) -> Option<Message> {
        let keyspaces = vec![self.keyspaces.get(&id)?.clone()];
        Some(Message { body: Body::Delta(Delta { keyspaces, ..Delta::default() }), ..self.empty() })
    }

    /// Takes a newer placement table; what the topology log decides comes in here.
    pub fn adopt_table(&mut self, table: Table) -> bool {
        let newer = self.table.as_ref().is_none_or(|known| known.epoch() < table.epoch());
        if newer {
            self.set_table(table);
        }
        newer
    }

    fn set_table(&mut self, table: Table) {
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        self.table_check = key_hash(&encoded);
        self.table = Some(table);
    }

    /// Begins this interval's exchange: whom to send the digest to. `random` decides.
    pub fn round(&self, random: u64) -> Vec<(Target, Message)> {
        let digest = Message { body: Body::Digest(self.digest(random)), ..self.empty() };
        let others: Vec<NodeId> = self
            .members
            .values()
            .filter(|member| member.id != self.me && member.standing != Standing::Left)
            .map(|member| member.id)
            .collect();
        let mut targets = Vec::new();
        if !others.is_empty() {
            let at = random as usize % others.len();
            targets.push((Target::Node(others[at]), digest.clone()));
        }
        if !self.unmet.is_empty() {
            let at = (random >> 32) as usize % self.unmet.len();
            targets.push((Target::Seed(self.unmet[at].clone()), digest));
        }
        targets
    }

    /// Takes a message; returns the answer to its sender, if there is one. `random` spreads what
    /// does not fit into one message.
    pub fn on_message(
        &mut self,
        message: Message,
        random: u64,
        events: &mut Vec<Event>,
    ) -> Option<Message> {
        if message.cluster != self.name {
            events.push(Event::Foreign(message.from));
            return None;
        }
        let wanted = match message.body {
            Body::Digest(digest) => {
                self.compare_tables(message.from, &digest, events);
                let mut delta = self.better_than(&digest, random);
                delta.want = Some(self.digest(random));
                return Some(Message { body: Body::Delta(delta), ..self.empty() });
            }
            Body::Delta(delta) => self.learn(message.from, delta, events)?,
        };
        let delta = self.better_than(&wanted, random);
        let nothing = delta == Delta::default();
        (!nothing).then(|| Message { body: Body::Delta(delta), ..self.empty() })
    }

    fn empty(&self) -> Message {
        Message { cluster: self.name, from: self.me, body: Body::Delta(Delta::default()) }
    }

    /// What this node knows, in short; with very many members a window of them.
    fn digest(&self, random: u64) -> Digest {
        let complete = self.members.len() <= MAX_DIGEST;
        let skip = if complete { 0 } else { random as usize % self.members.len() };
        let turned = self.members.values().skip(skip).chain(self.members.values().take(skip));
        let mut members: Vec<_> =
            turned.take(MAX_DIGEST).map(|member| (member.id, member.newness)).collect();
        members.sort_unstable();
        let keyspaces = self.keyspaces.iter().map(|(id, k)| (*id, k.version, k.author)).collect();
        let table = self.table.as_ref().map_or(Epoch(0), Table::epoch);
        Digest { members, complete, keyspaces, table, table_check: self.table_check }
    }

    /// What the sender of a digest does not know, as much as fits into one message.
    fn better_than(&self, digest: &Digest, random: u64) -> Delta {
        let (mut delta, mut bytes) = (Delta::default(), 0);
        let mut theirs = Ascending { items: &digest.members, at: 0 };
        let skip = random as usize % self.members.len().max(1);
        let turned = self.members.values().skip(skip).chain(self.members.values().take(skip));
        for member in turned {
            let newness = member.newness;
            match theirs.of(member.id) {
                Some(known) if known >= newness => continue,
                Some(known) if known.same_description(&newness) => {
                    bytes += 40;
                    delta.beats.push((member.id, newness));
                }
                None if !digest.complete => continue,
                _ => {
                    bytes += member.client_address.len() + member.peer_address.len() + 128;
                    delta.members.push(member.clone());
                }
            }
            if bytes > MAX_DELTA {
                return delta;
            }
        }
        for (id, keyspace) in &self.keyspaces {
            let known = digest.keyspaces.iter().find(|(other, ..)| other == id);
            // Equal versions of one author are equal.
            if known.is_none_or(|(_, version, author)| {
                (*version, *author) < (keyspace.version, keyspace.author)
            }) {
                let options = keyspace.options.iter().map(|(a, b)| a.len() + b.len() + 4);
                bytes += options.sum::<usize>() + keyspace.name.len() + 64;
                delta.keyspaces.push(keyspace.clone());
            }
            if bytes > MAX_DELTA {
                return delta;
            }
        }
        if let Some(table) = self.table.as_ref().filter(|table| table.epoch() > digest.table) {
            let mut encoded = Vec::new();
            table.encode(&mut encoded);
            delta.table = Some(encoded);
        }
        delta
    }

    /// Takes what is newer; returns what the sender wants to know.
    pub(super) fn learn(
        &mut self,
        from: NodeId,
        delta: Delta,
        events: &mut Vec<Event>,
    ) -> Option<Digest> {
        let described = !delta.members.is_empty();
        for member in delta.members {
            self.learn_member(from, member, events);
        }
        if described {
            self.meet();
        }
        for (id, newness) in delta.beats {
            if let Some(known) = self.members.get_mut(&id)
                && id != self.me
                && known.newness.same_description(&newness)
                && known.newness < newness
            {
                known.newness = newness;
                events.push(Event::Beat(id));
            }
        }
        let learned = delta.keyspaces.into_iter().filter_map(|k| self.adopt_keyspace(k));
        events.extend(learned.map(Event::Keyspace));
        if let Some(bytes) = delta.table {
            self.learn_table(from, &bytes, events);
        }
        self.found().into_iter().for_each(|epoch| events.push(Event::Table(epoch)));
        delta.want.iter().for_each(|digest| self.compare_tables(from, digest, events));
        delta.want
    }

    fn learn_member(&mut self, from: NodeId, heard: Member, events: &mut Vec<Event>) {
        let id = heard.id;
        if id == self.me {
            return self.heard_of_myself(heard, events);
        }
        let room = self.members.contains_key(&id) || self.members.len() < MAX_NODES;
        let known = self.members.get(&id).map(|known| known.newness).unwrap_or_default();
        let first = known == Newness::default();
        let ahead = heard.newness.generation.saturating_sub(known.generation);
        if !room || (!first && ahead > MAX_GENERATION_AHEAD) {
            return events.push(Event::Implausible(from));
        }
        if heard.newness > known {
            self.members.insert(id, heard);
            events.push(Event::Member(id));
        }
    }

    /// Someone remembers an earlier run of this node that seems newer (its clock was ahead), or
    /// another process uses its id. Either way this one must speak louder.
    fn heard_of_myself(&mut self, heard: Member, events: &mut Vec<Event>) {
        let Some(me) = self.members.get_mut(&self.me) else { return };
        if heard.newness.generation < me.newness.generation {
            return;
        }
        let other_process = heard.newness.generation == me.newness.generation
            && heard.peer_address != me.peer_address;
        if other_process {
            events.push(Event::Impostor(heard.peer_address));
        }
        if heard.newness > me.newness {
            me.newness.generation = heard.newness.generation + 1;
            events.push(Event::Member(self.me));
        }
    }

    fn compare_tables(&self, from: NodeId, digest: &Digest, events: &mut Vec<Event>) {
        let same_epoch = self.table.as_ref().is_some_and(|table| table.epoch() == digest.table);
        if same_epoch && digest.table_check != self.table_check {
            events.push(Event::TableConflict(from));
        }
    }

    fn learn_table(&mut self, from: NodeId, bytes: &[u8], events: &mut Vec<Event>) {
        let Ok(table) = Table::decode(bytes) else {
            return events.push(Event::Implausible(from));
        };
        let epoch = table.epoch();
        if self.adopt_table(table) {
            events.push(Event::Table(epoch));
        }
    }

    /// Finds out which seeds are still unmet, after descriptions changed.
    fn meet(&mut self) {
        let met: BTreeSet<&str> =
            self.members.values().map(|member| member.peer_address.as_str()).collect();
        let unmet = self.founding.addresses.iter().filter(|seed| !met.contains(seed.as_str()));
        self.unmet = unmet.cloned().collect();
    }

    /// The first table, once every founder is known: a function of the founding settings and of
    /// what the founders say of themselves, so that all compute the same.
    fn found(&mut self) -> Option<Epoch> {
        if self.table.is_some() {
            return None;
        }
        if !self.unmet.is_empty() {
            return None;
        }
        // Of several members with one address the first counts.
        let members = self.members.values().rev();
        let by_address: BTreeMap<&str, &Member> =
            members.map(|member| (member.peer_address.as_str(), member)).collect();
        let founder = |address: &String| by_address.get(address.as_str()).copied();
        let founders: Option<Vec<_>> = self.founding.addresses.iter().map(founder).collect();
        let placed = |member: &&Member| PlacedNode {
            id: member.id,
            rack: member.rack.clone(),
            weight: member.weight,
        };
        let nodes = founders?.iter().map(placed).collect();
        let table: Result<Table, TableError> =
            Table::create(Epoch(1), self.founding.partitions, self.founding.depth, nodes);
        self.set_table(table.ok()?);
        self.table.as_ref().map(Table::epoch)
    }
}

/// A digest's members, looked up in ascending order, which may begin anew. A digest that is not
/// ascending, as no node of this program sends it, is answered with more than it asks for.
struct Ascending<'a> {
    items: &'a [(NodeId, Newness)],
    at: usize,
}

impl Ascending<'_> {
    fn of(&mut self, id: NodeId) -> Option<Newness> {
        if self.at > 0 && self.items[self.at - 1].0 >= id {
            self.at = 0;
        }
        while self.items.get(self.at).is_some_and(|(other, _)| *other < id) {
            self.at += 1;
        }
        self.items.get(self.at).filter(|(other, _)| *other == id).map(|(_, newness)| *newness)
    }
}
