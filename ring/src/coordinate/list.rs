//! Live keys of the whole cluster, page by page.
//!
//! Partition by partition, R replicas are asked for a stretch of keys in order. Each sends its
//! objects with lengths for values, so that the merged outline tells what of a key lives; a replica
//! whose stretch was cut vouches for nothing behind its last key. Every live key comes once; a key
//! written or deleted while the listing runs may or may not come.
//!
//! The page's position is all that a listing is: nothing is kept between pages, and a node that
//! fails is replaced by another replica of the partition.

use std::collections::BTreeMap;

use coronet_probe::{Bug, Mark, mark, seeded};

use super::message::{Answer, Ask, ListedKey};
use super::quorum::{Failure, Need, Outcome, Peer, Proof, Replicas};
use super::{Effect, Micros};
use crate::causality::hlc::Hlc;
use crate::causality::merge::merge_all;
use crate::causality::object::ObjectRef;
use crate::causality::resolve::{Conflicts, outlined_length, visible};
use crate::ids::{NodeId, PartitionId};

/// Where the replicas of a partition are, as of now.
pub trait Placement {
    /// Number of partitions.
    fn partitions(&self) -> u32;
    /// The replicas of a partition.
    fn replicas(&self, partition: PartitionId) -> Replicas;
}

/// A place in a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The partition to go on in.
    pub partition: u32,
    /// The last key already listed there.
    pub after: Option<Vec<u8>>,
}

/// A live key, and what a reader would find there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKey {
    /// The key.
    pub key: Vec<u8>,
    /// Versions a reader would be shown.
    pub versions: u16,
    /// Bytes of their values together.
    pub bytes: u64,
    /// When the latest version was written, be it a deletion.
    pub hlc: Hlc,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Live keys, in order within each partition.
    pub keys: Vec<LiveKey>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Position>,
}

/// A page as the client asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// What keys begin with.
    pub prefix: Vec<u8>,
    /// Where to begin.
    pub from: Position,
    /// Keys wanted, and the most that is asked of a replica at once. A page has at least so many
    /// unless the listing ends, replicas fail or time runs out; it can have up to R + 1 times as
    /// many where replicas differ.
    pub limit: u32,
    /// R, for each partition.
    pub need: Need,
    /// What lives is told by.
    pub conflicts: Conflicts,
    /// When the page goes out with what it has.
    pub deadline: Micros,
}

#[derive(Debug, Clone)]
enum State {
    Waiting,
    Asked,
    Keys { entries: Vec<ListedKey>, complete: bool },
    Failed,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct List {
    request: ListRequest,
    at: Position,
    need: usize,
    places: Vec<(Peer, State)>,
    keys: Vec<LiveKey>,
    done: bool,
}

impl List {
    /// Starts a page; `effects` gets what to do at once.
    pub fn start(
        request: ListRequest,
        placement: &dyn Placement,
        effects: &mut Vec<Effect>,
    ) -> List {
        let (at, keys) = (request.from.clone(), Vec::new());
        let mut list = List { at, keys, need: 0, places: Vec::new(), done: false, request };
        list.begin_stretch(placement, effects);
        list
    }

    /// The partition it has come to.
    pub fn partition(&self) -> PartitionId {
        PartitionId(self.at.partition as u16) // at most 2^15
    }

    /// A node answered about `partition`.
    pub fn on_answer(
        &mut self,
        from: NodeId,
        partition: PartitionId,
        answer: Answer,
        placement: &dyn Placement,
        effects: &mut Vec<Effect>,
    ) {
        if self.done || u32::from(partition.0) != self.at.partition {
            return;
        }
        let Some(place) = self.places.iter_mut().find(|(peer, _)| peer.node == from) else {
            return;
        };
        match (answer, &place.1) {
            (Answer::Keys { entries, complete }, State::Asked) => {
                // An answer to an earlier stretch begins before this one: it was duplicated.
                let late =
                    entries.first().is_some_and(|first| Some(&first.key) <= self.at.after.as_ref());
                // Nothing and not complete would never end.
                let useless = entries.is_empty() && !complete;
                match late || useless {
                    true => return,
                    false => place.1 = State::Keys { entries, complete },
                }
            }
            (Answer::Refused(_), State::Asked) => return self.on_failed(from, effects),
            _ => return,
        }
        let answered =
            self.places.iter().filter(|(_, state)| matches!(state, State::Keys { .. })).count();
        if answered >= self.need {
            self.end_stretch(placement, effects);
        }
    }

    /// A node cannot be reached any more.
    pub fn on_failed(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let Some(at) = self.places.iter().position(|(peer, _)| peer.node == node) else { return };
        let was_asked = matches!(self.places[at].1, State::Asked);
        if self.done || matches!(self.places[at].1, State::Keys { .. }) {
            return;
        }
        self.places[at].1 = State::Failed;
        if was_asked {
            match self.ask_next(effects) {
                true => mark(Mark::ListElsewhere),
                false => self.unavailable(effects),
            }
        }
    }

    /// Time passed. Call at [`next_tick`](List::next_tick).
    pub fn tick(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        if self.done || now < self.request.deadline {
            return;
        }
        if self.at > self.request.from {
            let next = Some(self.at.clone());
            return self.page(next, effects);
        }
        let answers = self.places.iter().filter(|(_, state)| matches!(state, State::Keys { .. }));
        let answers = Proof::count(answers.map(|(peer, _)| (*peer, false))).acknowledgements;
        let need = u8::try_from(self.need).unwrap_or(u8::MAX);
        self.reply(Outcome::Failed(Failure::TooFewAnswers { answers, need }), effects);
    }

    /// When [`tick`](List::tick) is due.
    pub fn next_tick(&self) -> Option<Micros> {
        (!self.done).then_some(self.request.deadline)
    }

    /// Asks R replicas of the current partition for keys behind the current position.
    fn begin_stretch(&mut self, placement: &dyn Placement, effects: &mut Vec<Effect>) {
        if self.at.partition >= placement.partitions() {
            return self.page(None, effects);
        }
        let replicas = placement.replicas(PartitionId(self.at.partition as u16)); // at most 2^15
        let Some(need) = self.request.need.of(replicas.homes.len()) else {
            let misfit = self.request.need.misfit(replicas.homes.len());
            return self.reply(Outcome::Failed(misfit), effects);
        };
        self.need = need;
        let state = |peer: &Peer| if peer.alive { State::Waiting } else { State::Failed };
        self.places = replicas.homes.iter().map(|peer| (*peer, state(peer))).collect();
        for _ in 0..need {
            if !self.ask_next(effects) {
                return self.unavailable(effects);
            }
        }
    }

    fn ask_next(&mut self, effects: &mut Vec<Effect>) -> bool {
        let next = self.places.iter_mut().find(|(_, state)| matches!(state, State::Waiting));
        let Some((peer, state)) = next else { return false };
        *state = State::Asked;
        let ask = Ask::List {
            prefix: self.request.prefix.clone(),
            after: self.at.after.clone(),
            limit: self.request.limit.max(1),
        };
        effects.push(Effect::Send { to: peer.node, ask });
        true
    }

    /// Merges what R replicas sent, as far as all of them vouch for it, and goes on.
    fn end_stretch(&mut self, placement: &dyn Placement, effects: &mut Vec<Effect>) {
        let mut copies: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        let mut bound: Option<Vec<u8>> = None;
        for (_, state) in std::mem::take(&mut self.places) {
            let State::Keys { entries, complete } = state else { continue };
            if let (false, Some(last)) = (complete, entries.last())
                && bound.as_ref().is_none_or(|bound| *bound > last.key)
            {
                bound = Some(last.key.clone());
            }
            for entry in entries {
                copies.entry(entry.key).or_default().push(entry.outline);
            }
        }
        for (key, outlines) in copies {
            let skips = seeded(Bug::ListSkipsKey);
            if bound.as_ref().is_some_and(|bound| key > *bound || (skips && key == *bound)) {
                break;
            }
            self.keys.extend(self.live(key, &outlines));
        }
        self.at = match bound {
            Some(bound) => {
                mark(Mark::ListStretch);
                Position { after: Some(bound), ..self.at }
            }
            None => Position { partition: self.at.partition + 1, after: None },
        };
        let full = self.keys.len() as u64 >= u64::from(self.request.limit.max(1));
        match full && self.at.partition < placement.partitions() {
            true => self.page(Some(self.at.clone()), effects),
            false => self.begin_stretch(placement, effects),
        }
    }

    /// The key, if the merged outlines show a value. One whose outline is no object is listed with
    /// nothing beside it: better a key that may be dead than a live one hidden.
    fn live(&self, key: Vec<u8>, outlines: &[Vec<u8>]) -> Option<LiveKey> {
        let merged = merge_all(outlines.iter().map(Vec::as_slice)).ok().flatten();
        let Some(Ok(object)) = merged.as_deref().map(ObjectRef::decode) else {
            return Some(LiveKey { key, versions: 0, bytes: 0, hlc: Hlc::default() });
        };
        let shown = visible(&object, self.request.conflicts);
        if shown.is_empty() && !seeded(Bug::ListShowsDeleted) {
            return None;
        }
        let versions = u16::try_from(shown.len()).unwrap_or(u16::MAX);
        let bytes = shown.iter().map(outlined_length).sum();
        Some(LiveKey { key, versions, bytes, hlc: object.latest() })
    }

    /// What was listed so far is good; without any, the client is told that too few are there.
    fn unavailable(&mut self, effects: &mut Vec<Effect>) {
        if self.at > self.request.from {
            return self.page(Some(self.at.clone()), effects);
        }
        let able = self.places.iter().filter(|(_, state)| !matches!(state, State::Failed));
        let alive = Proof::count(able.map(|(peer, _)| (*peer, false))).acknowledgements;
        let need = u8::try_from(self.need).unwrap_or(u8::MAX);
        self.reply(Outcome::Failed(Failure::Unavailable { alive, need }), effects);
    }

    fn page(&mut self, next: Option<Position>, effects: &mut Vec<Effect>) {
        let keys = std::mem::take(&mut self.keys);
        self.reply(Outcome::Page(Page { keys, next }), effects);
    }

    fn reply(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.done = true;
        effects.push(Effect::Reply(outcome));
        effects.push(Effect::Done);
    }
}
