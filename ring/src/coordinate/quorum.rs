//! Whom to ask, how many to wait for, what to tell the client.

use std::collections::BTreeSet;

use thiserror::Error;

use super::message::Refusal;
use crate::causality::hlc::Hlc;
use crate::ids::{Epoch, NodeId, PartitionId};

/// How many replicas a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// One.
    One,
    /// More than half.
    Quorum,
    /// All.
    All,
    /// This many.
    Count(u8),
}

impl Need {
    /// The number for `n` replicas; `None` when it is zero or more than there are.
    pub fn of(self, n: usize) -> Option<usize> {
        let count = match self {
            Need::One => 1,
            Need::Quorum => n / 2 + 1,
            Need::All => n,
            Need::Count(count) => usize::from(count),
        };
        (1..=n).contains(&count).then_some(count)
    }

    /// Why [`of`](Need::of) gives nothing for `n` replicas: what was asked can never be reached,
    /// or nobody knows yet where the replicas are.
    pub(super) fn misfit(self, n: usize) -> Failure {
        let small = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
        let asked = match self {
            Need::Count(asked) => asked,
            Need::One | Need::Quorum | Need::All => small(n).max(1),
        };
        match n {
            0 => Failure::Unavailable { alive: 0, need: asked.max(1) },
            n => Failure::BadQuorum { asked, replicas: small(n) },
        }
    }
}

/// Whether stand-ins count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Stand-ins count for replicas that are away: writes and reads go on, promises get weaker.
    Sloppy,
    /// Only the replicas themselves count.
    #[default]
    Strict,
}

/// A node as a coordinator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Its rack, by any numbering that tells racks apart.
    pub rack: u16,
    /// Whether it is believed to be reachable.
    pub alive: bool,
}

/// The nodes of one partition as the coordinator's placement and failure detector have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// The partition.
    pub partition: PartitionId,
    /// The version of the placement.
    pub epoch: Epoch,
    /// The N replicas, in the order they should be asked: the coordinator itself first if it is
    /// one, slow ones last.
    pub homes: Vec<Peer>,
    /// Who stands in, best first.
    pub stand_ins: Vec<Peer>,
}

impl Replicas {
    /// Stand-ins that are reachable and no replicas themselves: nobody is counted twice.
    pub(super) fn usable_stand_ins(&self) -> impl Iterator<Item = Peer> {
        let home = |peer: &Peer| self.homes.iter().any(|home| home.node == peer.node);
        self.stand_ins.iter().filter(move |peer| peer.alive && !home(peer)).copied()
    }
}

/// What the answers behind a reply were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proof {
    /// Distinct nodes that answered in time.
    pub acknowledgements: u8,
    /// Distinct racks they are on.
    pub racks: u8,
    /// Whether stand-ins were counted.
    pub sloppy: bool,
    /// Whether replicas differed and repairs were sent.
    pub repaired: bool,
    /// Whether another replica was asked because one was slow.
    pub hedged: bool,
}

impl Proof {
    /// Counts distinct nodes and racks; with each whether it stands in.
    pub(super) fn count(answered: impl Iterator<Item = (Peer, bool)>) -> Proof {
        let (mut nodes, mut racks, mut sloppy) = (BTreeSet::new(), BTreeSet::new(), false);
        for (peer, stands_in) in answered {
            nodes.insert(peer.node);
            racks.insert(peer.rack);
            sloppy |= stands_in;
        }
        let small = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
        let (acknowledgements, racks) = (small(nodes.len()), small(racks.len()));
        Proof { acknowledgements, racks, sloppy, ..Proof::default() }
    }
}

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The write is stored on as many replicas as asked.
    Written {
        /// The client's next context, encoded.
        context: Vec<u8>,
        /// The version's timestamp.
        hlc: Hlc,
        /// Versions the key has now.
        versions: u16,
        /// Who stored it.
        proof: Proof,
    },
    /// The key's copies, merged; `None`: no replica asked has any.
    Read {
        /// The encoded object; the reader sees what [`visible`](crate::visible) shows.
        object: Option<Vec<u8>>,
        /// Who answered.
        proof: Proof,
    },
    /// A page of live keys.
    Page(super::list::Page),
    /// Not done as asked.
    Failed(Failure),
}

/// Why a request was not done as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Failure {
    /// R or W is zero or more than the replicas a key has: no time or retry will help.
    #[error(
        "{asked} replicas are asked for, a key has {replicas} here: ask for 1 to {replicas}, \
         one, quorum or all"
    )]
    BadQuorum {
        /// R or W of the request.
        asked: u8,
        /// Replicas of a key: N, or the nodes there are if that is fewer.
        replicas: u8,
    },
    /// The reachable replicas are on too few racks. Nothing was applied.
    #[error("replicas on {racks} racks are reachable, on {need} are needed")]
    TooFewRacks {
        /// Racks that may be counted.
        racks: u8,
        /// Racks wanted.
        need: u8,
    },
    /// Too few replicas are reachable. Nothing was applied.
    #[error("{alive} replicas are reachable, {need} are needed")]
    Unavailable {
        /// Replicas that may be counted.
        alive: u8,
        /// Replicas wanted.
        need: u8,
    },
    /// The write may be applied, now, later or never.
    #[error("{acknowledgements} of {need} replicas acknowledged")]
    InDoubt {
        /// Distinct nodes that stored it as far as is known.
        acknowledgements: u8,
        /// Nodes wanted.
        need: u8,
    },
    /// A read got too few answers in time.
    #[error("{answers} of {need} replicas answered in time")]
    TooFewAnswers {
        /// Distinct nodes that answered.
        answers: u8,
        /// Nodes wanted.
        need: u8,
    },
    /// A replica refused for a reason that holds everywhere. Nothing was applied.
    #[error("{0}")]
    Refused(Refusal),
}
