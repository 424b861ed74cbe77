//! A write: one replica names it, the others merge.
//!
//! The write is first applied by one replica of the key, which issues its dot: the coordinator when
//! it is one, otherwise the first reachable one. Only a replica knows what the dot must stand
//! beside. The named object then goes to all others at once; merging is idempotent, so nothing is
//! lost or doubled however often it arrives.
//!
//! A naming request that got lost may have been applied. It is tried on another replica only if
//! the write has a token, because two names of one token are one write to every reader.

use coronet_probe::{Bug, Mark, mark, seeded};

use super::message::{Answer, Ask, Durability, NewWrite};
use super::quorum::{Failure, Mode, Need, Outcome, Peer, Proof, Replicas};
use super::{Effect, Micros};
use crate::causality::hlc::Hlc;
use crate::ids::NodeId;

/// A write as the client asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRequest {
    /// The write.
    pub write: NewWrite,
    /// W.
    pub need: Need,
    /// Racks the acknowledgements must come from; 0 or 1 asks for nothing.
    pub racks: u8,
    /// Whether stand-ins count.
    pub mode: Mode,
    /// When a replica counts it as stored.
    pub durability: Durability,
    /// When the client is told "in doubt" and late replicas get hints.
    pub deadline: Micros,
    /// How long the naming replica may take before another is tried; only with a token.
    pub patience: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Asked,
    Stored,
    /// Given up; the home needs a hint.
    Failed,
}

/// One of the N places a write goes to: a home, or its stand-in.
#[derive(Debug, Clone, Copy)]
struct Place {
    home: Peer,
    holder: Peer,
    state: State,
}

impl Place {
    fn hint_for(&self) -> Option<NodeId> {
        (self.holder.node != self.home.node).then_some(self.home.node)
    }
}

/// What the naming replica answered.
#[derive(Debug, Clone)]
struct Named {
    object: Vec<u8>,
    context: Vec<u8>,
    hlc: Hlc,
    versions: u16,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Put {
    request: PutRequest,
    need: usize,
    places: Vec<Place>,
    stand_ins: Vec<Peer>,
    namer: usize,
    name_by: Micros,
    named: Option<Named>,
    /// A naming request whose outcome is unknown was sent and given up.
    maybe_named: bool,
    replied: bool,
    done: bool,
}

impl Put {
    /// Starts a write; `effects` gets what to do at once.
    pub fn start(
        request: PutRequest,
        replicas: &Replicas,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) -> Put {
        let homes = replicas.homes.iter();
        let place = |home: &Peer| Place { home: *home, holder: *home, state: State::Waiting };
        let mut put = Put {
            need: 0,
            places: homes.map(place).collect(),
            stand_ins: replicas.usable_stand_ins().collect(),
            namer: 0,
            name_by: now,
            named: None,
            maybe_named: false,
            replied: false,
            done: false,
            request,
        };
        let Some(need) = put.request.need.of(put.places.len()) else {
            put.fail(put.request.need.misfit(put.places.len()), effects);
            put.finish(effects);
            return put;
        };
        put.need = need;
        for at in 0..put.places.len() {
            if !put.places[at].holder.alive {
                put.substitute(at);
            }
        }
        let able = Proof::count(put.counted(|state| state != State::Failed));
        if usize::from(able.acknowledgements) < need || able.racks < put.request.racks {
            put.unavailable(effects);
            put.finish(effects);
            return put;
        }
        put.ask_for_name(now, effects);
        put
    }

    /// A node answered.
    pub fn on_answer(
        &mut self,
        from: NodeId,
        answer: Answer,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let Some(at) = self.places.iter().position(|place| place.holder.node == from) else {
            return;
        };
        if self.done {
            return;
        }
        match answer {
            Answer::Named { object, context, hlc, versions, stored } => {
                let named = Named { object, context, hlc, versions };
                self.on_named(at, named, stored, effects);
            }
            Answer::Stored if self.named.is_some() => {
                if self.places[at].state != State::Failed {
                    self.places[at].state = State::Stored;
                }
            }
            Answer::Refused(refusal) if self.named.is_none() && refusal.is_final() => {
                let doubt = self.maybe_named.then(|| self.in_doubt());
                self.fail(doubt.unwrap_or(Failure::Refused(refusal)), effects);
                return self.finish(effects);
            }
            Answer::Refused(_) => self.give_up(at, false, now, effects),
            Answer::Stored | Answer::Copy(_) | Answer::Digest(_) | Answer::Keys { .. } => {}
        }
        self.settle(effects);
    }

    /// A node cannot be reached any more.
    pub fn on_failed(&mut self, node: NodeId, now: Micros, effects: &mut Vec<Effect>) {
        self.stand_ins.retain(|peer| peer.node != node);
        if let Some(at) = self.places.iter().position(|place| place.holder.node == node)
            && !self.done
        {
            self.give_up(at, true, now, effects);
            self.settle(effects);
        }
    }

    /// Time passed. Call at [`next_tick`](Put::next_tick).
    pub fn tick(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        if self.done {
            return;
        }
        if now >= self.request.deadline {
            if !self.replied {
                let failure = self.in_doubt();
                self.fail(failure, effects);
            }
            for at in 0..self.places.len() {
                if matches!(self.places[at].state, State::Waiting | State::Asked) {
                    self.places[at].state = State::Failed;
                    self.hint(at, effects);
                }
            }
            return self.finish(effects);
        }
        if self.named.is_none() && self.request.write.token.is_some() && now >= self.name_by {
            // It may still answer: its place stays asked.
            self.maybe_named = true;
            mark(Mark::NamedElsewhere);
            self.ask_for_name(now, effects);
        }
    }

    /// When [`tick`](Put::tick) is due.
    pub fn next_tick(&self) -> Option<Micros> {
        let retry = self.named.is_none() && self.request.write.token.is_some();
        let next =
            if retry { self.name_by.min(self.request.deadline) } else { self.request.deadline };
        (!self.done).then_some(next)
    }

    /// Asks the best place that was not asked yet to name the write.
    fn ask_for_name(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let waiting = |place: &Place| place.state == State::Waiting;
        let homes = self.places.iter().position(|p| waiting(p) && p.hint_for().is_none());
        let Some(at) = homes.or_else(|| self.places.iter().position(waiting)) else {
            self.name_by = self.request.deadline;
            return;
        };
        self.namer = at;
        self.name_by = now.saturating_add(self.request.patience.max(1));
        let place = &mut self.places[at];
        place.state = State::Asked;
        let (write, durability) = (self.request.write.clone(), self.request.durability);
        let ask = Ask::Name { write, durability, hint_for: place.hint_for() };
        effects.push(Effect::Send { to: place.holder.node, ask });
    }

    fn on_named(&mut self, at: usize, named: Named, stored: bool, effects: &mut Vec<Effect>) {
        if self.named.is_some() {
            // A namer that was given up on, late, or the same answer again. It stored the write
            // under another name: let it merge the name the others have.
            if at != self.namer && self.places[at].state == State::Asked {
                mark(Mark::NamedTwice);
                self.merge_at(at, effects);
            }
            if at == self.namer && stored {
                self.places[at].state = State::Stored;
            }
            return;
        }
        self.named = Some(named);
        self.namer = at;
        let stored = stored || seeded(Bug::NamerCountsEarly);
        self.places[at].state = if stored { State::Stored } else { State::Asked };
        for at in 0..self.places.len() {
            match self.places[at].state {
                State::Waiting => self.merge_at(at, effects),
                // Asked to name it as well, and silent so far.
                State::Asked if at != self.namer => self.merge_at(at, effects),
                State::Failed => self.hint(at, effects),
                State::Asked | State::Stored => {}
            }
        }
    }

    fn merge_at(&mut self, at: usize, effects: &mut Vec<Effect>) {
        let Some(named) = &self.named else { return };
        let place = &mut self.places[at];
        place.state = State::Asked;
        let (object, durability) = (named.object.clone(), self.request.durability);
        let ask = Ask::Merge { object, durability, hint_for: place.hint_for() };
        effects.push(Effect::Send { to: place.holder.node, ask });
    }

    /// The holder of a place did not do it: a stand-in takes over, or a hint is kept.
    fn give_up(&mut self, at: usize, unknown: bool, now: Micros, effects: &mut Vec<Effect>) {
        if matches!(self.places[at].state, State::Stored | State::Failed) {
            return;
        }
        let asked_to_name = self.named.is_none() && self.places[at].state == State::Asked;
        self.maybe_named |= asked_to_name && unknown;
        self.substitute(at);
        if self.named.is_some() {
            match self.places[at].state {
                State::Waiting => self.merge_at(at, effects),
                _ => self.hint(at, effects),
            }
        } else if asked_to_name && (!unknown || self.request.write.token.is_some()) {
            // Where too few are left nobody is asked any more: it must not be applied after all.
            if self.enough(&Proof::count(self.counted(|state| state != State::Failed))) {
                self.ask_for_name(now, effects);
            }
        } else if asked_to_name {
            let failure = self.in_doubt();
            self.fail(failure, effects);
            self.finish(effects);
        }
    }

    /// Puts the next stand-in into a place, or marks it failed.
    fn substitute(&mut self, at: usize) {
        let place = &mut self.places[at];
        place.state = State::Failed;
        let sloppy = self.request.mode == Mode::Sloppy || seeded(Bug::StrictCountsStandIns);
        if sloppy && !self.stand_ins.is_empty() {
            mark(Mark::StandInWrites);
            place.holder = self.stand_ins.remove(0);
            place.state = State::Waiting;
        }
    }

    fn hint(&self, at: usize, effects: &mut Vec<Effect>) {
        if let Some(named) = &self.named {
            let (target, object) = (self.places[at].home.node, named.object.clone());
            effects.push(Effect::Hint { target, object });
        }
    }

    fn counted(&self, which: impl Fn(State) -> bool) -> impl Iterator<Item = (Peer, bool)> {
        let places = self.places.iter().filter(move |place| which(place.state));
        places.map(|place| (place.holder, place.hint_for().is_some()))
    }

    /// Replies once enough is known, and ends once nothing is awaited.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        if self.done {
            return;
        }
        let proof = Proof::count(self.counted(|state| state == State::Stored));
        if !self.replied {
            let possible = Proof::count(self.counted(|state| state != State::Failed));
            match &self.named {
                Some(named) if self.enough(&proof) => {
                    let Named { context, hlc, versions, .. } = named.clone();
                    let written = Outcome::Written { context, hlc, versions, proof };
                    effects.push(Effect::Reply(written));
                    self.replied = true;
                }
                None if !self.enough(&possible) && !self.maybe_named && !self.is_being_named() => {
                    // All that were asked refused: nothing is applied anywhere.
                    self.unavailable(effects);
                    return self.finish(effects);
                }
                _ if !self.enough(&possible) => {
                    let failure = self.in_doubt();
                    self.fail(failure, effects);
                }
                _ => {}
            }
        }
        let open = |place: &Place| matches!(place.state, State::Waiting | State::Asked);
        if !self.places.iter().any(open) {
            self.finish(effects);
        }
    }

    fn enough(&self, proof: &Proof) -> bool {
        let need = self.need - usize::from(seeded(Bug::AckOneShort));
        usize::from(proof.acknowledgements) >= need && proof.racks >= self.request.racks
    }

    /// Whether a replica was asked to name the write and may still do so.
    fn is_being_named(&self) -> bool {
        self.named.is_none() && self.places.iter().any(|place| place.state == State::Asked)
    }

    fn unavailable(&mut self, effects: &mut Vec<Effect>) {
        mark(Mark::TooFewReplicas);
        let able = Proof::count(self.counted(|state| state != State::Failed));
        let need = u8::try_from(self.need).unwrap_or(u8::MAX);
        let (alive, racks) = (able.acknowledgements, able.racks);
        let failure = if alive < need {
            Failure::Unavailable { alive, need }
        } else {
            Failure::TooFewRacks { racks, need: self.request.racks }
        };
        self.fail(failure, effects);
    }

    fn in_doubt(&self) -> Failure {
        let proof = Proof::count(self.counted(|state| state == State::Stored));
        let need = u8::try_from(self.need).unwrap_or(u8::MAX);
        if seeded(Bug::DoubtIsRefusal) {
            return Failure::Unavailable { alive: proof.acknowledgements, need };
        }
        mark(Mark::InDoubt);
        Failure::InDoubt { acknowledgements: proof.acknowledgements, need }
    }

    fn fail(&mut self, failure: Failure, effects: &mut Vec<Effect>) {
        if !self.replied {
            effects.push(Effect::Reply(Outcome::Failed(failure)));
            self.replied = true;
        }
    }

    fn finish(&mut self, effects: &mut Vec<Effect>) {
        if !self.done {
            self.done = true;
            effects.push(Effect::Done);
        }
    }
}
