//! Who is in the cluster, where partitions are, who seems alive: gossip and failure detection as
//! this node runs them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_probe::{Mark, mark};
use coronet_ring::coordinate::list::Placement;
use coronet_ring::coordinate::quorum::{Peer, Replicas};
use coronet_ring::gossip::detector::{Detector, PHI_ASK, PHI_SUSPECT};
use coronet_ring::gossip::member::Member;
use coronet_ring::gossip::message::Message;
use coronet_ring::gossip::snapshot::SnapshotError;
use coronet_ring::gossip::state::{Event, Founding, Gossip, Target};
use coronet_ring::{Epoch, NodeId, PartitionId, Table};

use super::links::Links;

/// How often a node gossips.
const INTERVAL: Duration = Duration::from_millis(300);

/// See the module.
pub(super) struct Members {
    me: NodeId,
    pub(super) gossip: Gossip,
    detector: Detector,
    next_round: Nanos,
    /// The members and whether they seem alive, as `known` was made from.
    reachable: Vec<(NodeId, bool)>,
    known_epoch: Epoch,
    /// The replicas of partitions that were asked for, by number of replicas and partition.
    known: RefCell<BTreeMap<u8, Vec<Option<Rc<Replicas>>>>>,
}

/// Microseconds of a point in time.
pub(super) fn micros(now: Nanos) -> u64 {
    now.0 / 1000
}

/// What a round of gossip wants said to whom.
pub(super) enum Say {
    To(NodeId, Box<Message>),
    /// Nobody knows yet who is behind the address: a link to it comes first.
    Reach(String),
}

impl Members {
    /// The membership as `stored` has it, or as it is at the very start.
    pub(super) fn new(
        me: Member,
        founding: Founding,
        stored: Option<&[u8]>,
    ) -> Result<Self, SnapshotError> {
        let expected = u64::try_from(INTERVAL.as_micros()).unwrap_or(u64::MAX);
        let id = me.id;
        let gossip = match stored {
            Some(stored) => {
                mark(Mark::ViewRestored);
                Gossip::restore(me, founding, stored)?
            }
            None => Gossip::new(me, founding),
        };
        let detector = Detector::new(expected * 2);
        Ok(Members {
            me: id,
            gossip,
            detector,
            next_round: Nanos(0),
            reachable: Vec::new(),
            known_epoch: Epoch(0),
            known: RefCell::default(),
        })
    }

    /// Something came from a node.
    pub(super) fn heard(&mut self, node: NodeId, now: Nanos) {
        self.detector.heard(node, micros(now));
    }

    /// Nodes that are linked, and silent for longer than usual, though not for so long that they
    /// are suspected. Gossip picks nodes at random, and news of a node come through others: when
    /// those are cut off, a node that is well may not be heard for seconds.
    pub(super) fn silent(&self, links: &Links, now: Nanos) -> Vec<NodeId> {
        let others = self.gossip.members().map(|member| member.id).filter(|id| *id != self.me);
        let is_silent = |phi: f64| (PHI_ASK..PHI_SUSPECT).contains(&phi);
        others
            .filter(|id| links.sends_to(*id))
            .filter(|id| self.detector.phi(*id, micros(now)).is_some_and(is_silent))
            .collect()
    }

    /// Nodes that are linked but silent for improbably long.
    pub(super) fn suspects(&self, links: &Links, now: Nanos) -> Vec<NodeId> {
        let others = self.gossip.members().map(|member| member.id).filter(|id| *id != self.me);
        others
            .filter(|id| links.sends_to(*id) && self.detector.is_suspect(*id, micros(now)))
            .collect()
    }

    /// Whether a node seems reachable.
    pub(super) fn is_alive(&self, node: NodeId, links: &Links, now: Nanos) -> bool {
        node == self.me || (links.is_up(node) && !self.detector.is_suspect(node, micros(now)))
    }

    /// Time passed: what to say to whom.
    pub(super) fn tick(&mut self, now: Nanos, random: u64) -> Vec<Say> {
        self.detector.tick(micros(now));
        if now < self.next_round {
            return Vec::new();
        }
        self.next_round = now.after(INTERVAL);
        let round = self.gossip.round(random);
        let say = |(target, message)| match target {
            Target::Node(node) => Say::To(node, Box::new(message)),
            Target::Seed(address) => Say::Reach(address),
        };
        round.into_iter().map(say).collect()
    }

    /// A gossip message came; returns the answer.
    pub(super) fn on_gossip(
        &mut self,
        bytes: &[u8],
        random: u64,
        events: &mut Vec<Event>,
    ) -> Option<Message> {
        self.gossip.on_message(Message::decode(bytes)?, random, events)
    }

    /// The version of the placement; zero before there is one.
    pub(super) fn epoch(&self) -> Epoch {
        self.gossip.table().map_or(Epoch(0), Table::epoch)
    }

    /// Takes notice of who seems reachable and of the placement. Call when time passed, and when
    /// a link or the placement has changed.
    pub(super) fn refresh(&mut self, links: &Links, now: Nanos) {
        let epoch = self.epoch();
        let alive = |member: &Member| (member.id, self.is_alive(member.id, links, now));
        let same = epoch == self.known_epoch
            && self.gossip.members().map(alive).eq(self.reachable.iter().copied());
        if !same {
            self.reachable = self.gossip.members().map(alive).collect();
            self.known_epoch = epoch;
            self.known.get_mut().clear();
        }
    }

    /// Whether coordinators here count on a node: it seemed alive at the last
    /// [`refresh`](Members::refresh).
    pub(super) fn is_reachable(&self, node: NodeId) -> bool {
        self.reachable.contains(&(node, true))
    }

    /// The `n` replicas of a partition as a coordinator here should ask them: itself first, then the
    /// others by their place in the list, those that seem dead last of all. As of the last
    /// [`refresh`](Members::refresh).
    pub(super) fn replicas(&self, partition: PartitionId, n: u8) -> Rc<Replicas> {
        let mut known = self.known.borrow_mut();
        let partitions = self.gossip.table().map_or(0, Table::partitions);
        let known = known.entry(n).or_insert_with(|| vec![None; partitions as usize]);
        match known.get_mut(usize::from(partition.0)) {
            Some(Some(replicas)) => Rc::clone(replicas),
            Some(place) => {
                let replicas = Rc::new(self.find_replicas(partition, n));
                Rc::clone(place.insert(replicas))
            }
            None => Rc::new(self.find_replicas(partition, n)),
        }
    }

    fn find_replicas(&self, partition: PartitionId, n: u8) -> Replicas {
        let Some(table) = self.gossip.table() else {
            let (epoch, none) = (Epoch(0), Vec::new());
            return Replicas { partition, epoch, homes: none.clone(), stand_ins: none };
        };
        let peer = |node: NodeId| Peer {
            node,
            rack: rack_number(table, node),
            alive: self.is_reachable(node),
        };
        let mut homes: Vec<Peer> = table.preference(partition, n).into_iter().map(peer).collect();
        homes.sort_by_key(|peer| (peer.node != self.me, !peer.alive));
        let stand_ins = table.fallbacks(partition, n).into_iter().map(peer).collect();
        Replicas { partition, epoch: table.epoch(), homes, stand_ins }
    }
}

/// A number that tells racks apart: the place of the first node that names this rack.
fn rack_number(table: &Table, node: NodeId) -> u16 {
    let Some(rack) = table.node(node).map(|placed| placed.rack.as_str()) else { return u16::MAX };
    let first = table.nodes().iter().position(|placed| placed.rack == rack);
    first.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)
}

/// The placement as listings ask for it.
pub(super) struct PlacementNow<'a> {
    pub members: &'a Members,
    /// Replicas of a key.
    pub n: u8,
}

impl Placement for PlacementNow<'_> {
    fn partitions(&self) -> u32 {
        self.members.gossip.table().map_or(0, Table::partitions)
    }

    fn replicas(&self, partition: PartitionId) -> Replicas {
        self.members.replicas(partition, self.n).as_ref().clone()
    }
}
