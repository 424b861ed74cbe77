//! A read: R copies merged, differing replicas repaired.
//!
//! The first replica is asked for its whole copy; the others send theirs only when it is short, a
//! digest otherwise. Short copies cost a message whatever they carry, so a digest would save
//! nothing and cost a round trip when it differs; long ones cost bandwidth R times over, and hardly
//! ever differ. A digest that matches no copy at hand is followed by asking for the whole.
//!
//! A stand-in that has nothing says little about a key: its "nothing" counts only when no replica
//! is left that could answer.

use coronet_probe::{Bug, Mark, mark, seeded};

use super::budget::Budgets;
use super::message::{Answer, Ask, Durability, digest};
use super::quorum::{Failure, Mode, Need, Outcome, Peer, Proof, Replicas};
use super::{Effect, Micros};
use crate::causality::merge::merge_all;
use crate::ids::NodeId;

/// Longest copy that a replica sends instead of a digest, bytes.
pub const INLINE: u32 = 4096;

/// A read as the client asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetRequest {
    /// R.
    pub need: Need,
    /// Whether stand-ins count.
    pub mode: Mode,
    /// Write the merged copy back, before the reply, to so many replicas that no later read with
    /// the same R can miss it.
    pub monotonic: bool,
    /// When the read is given up.
    pub deadline: Micros,
    /// When another replica is asked because one is slow; the budget permitting.
    pub hedge_at: Micros,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Waiting,
    Asked,
    Digest(u64),
    Copy(Option<Vec<u8>>),
    Failed,
}

#[derive(Debug, Clone)]
struct Place {
    peer: Peer,
    stands_in: bool,
    state: State,
    /// The merged copy was sent back to it / it is known to hold it.
    written: Written,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    No,
    Sent,
    Holds,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Get {
    request: GetRequest,
    need: usize,
    homes: usize,
    places: Vec<Place>,
    /// Whether a whole copy was asked for.
    asked_whole: bool,
    hedged: bool,
    repaired: bool,
    /// The merged copy and who had answered by then, once it is being written back before the
    /// reply. Who answers later is no proof of it: what is merged then does not count.
    writing_back: Option<(Option<Vec<u8>>, Proof)>,
    replied: bool,
    done: bool,
}

impl Get {
    /// Starts a read; `effects` gets what to do at once.
    pub fn start(request: GetRequest, replicas: &Replicas, effects: &mut Vec<Effect>) -> Get {
        let place = |peer: Peer, stands_in| {
            let state = if peer.alive { State::Waiting } else { State::Failed };
            Place { peer, stands_in, state, written: Written::No }
        };
        let mut places: Vec<_> = replicas.homes.iter().map(|home| place(*home, false)).collect();
        let homes = places.len();
        if request.mode == Mode::Sloppy {
            let away = places.iter().filter(|place| place.state == State::Failed).count();
            // One for each replica that is away, and one for each that may fail meanwhile.
            let stand_ins = replicas.usable_stand_ins().take(away.max(1) + homes);
            places.extend(stand_ins.map(|peer| place(peer, true)));
        }
        let need = request.need.of(homes);
        let mut get = Get {
            need: need.unwrap_or(0),
            homes,
            places,
            asked_whole: false,
            hedged: false,
            repaired: false,
            writing_back: None,
            replied: false,
            done: false,
            request,
        };
        let able = get.places.iter().filter(|place| place.state != State::Failed).count();
        if need.is_none() {
            get.fail(get.request.need.misfit(homes), effects);
        } else if able < get.need {
            let small = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
            let (alive, need) = (small(able), small(get.need));
            get.fail(Failure::Unavailable { alive, need }, effects);
        } else {
            (0..get.need).for_each(|_| get.ask_next(effects));
            // The stand-ins of replicas that are away may hold what those lack.
            let away = get.places[..homes].iter().filter(|p| p.state == State::Failed).count();
            let asked = get.places[homes..].iter().filter(|p| p.state == State::Asked).count();
            (asked..away).for_each(|_| get.ask_stand_in(effects));
        }
        get
    }

    /// A node answered.
    pub fn on_answer(
        &mut self,
        from: NodeId,
        answer: Answer,
        now: Micros,
        budgets: &mut Budgets,
        effects: &mut Vec<Effect>,
    ) {
        let Some(at) = self.places.iter().position(|place| place.peer.node == from) else {
            return;
        };
        if self.done {
            return;
        }
        match answer {
            Answer::Copy(copy) if self.places[at].state != State::Failed => {
                self.places[at].state = State::Copy(copy);
            }
            Answer::Digest(digest) if self.places[at].state == State::Asked => {
                self.places[at].state = State::Digest(digest);
            }
            Answer::Stored if self.places[at].written == Written::Sent => {
                self.places[at].written = Written::Holds;
            }
            Answer::Refused(_) => self.give_up(at, effects),
            _ => {}
        }
        self.settle(now, budgets, effects);
    }

    /// A node cannot be reached any more.
    pub fn on_failed(
        &mut self,
        node: NodeId,
        now: Micros,
        budgets: &mut Budgets,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(at) = self.places.iter().position(|place| place.peer.node == node)
            && !self.done
        {
            self.give_up(at, effects);
            self.settle(now, budgets, effects);
        }
    }

    /// Time passed. Call at [`next_tick`](Get::next_tick).
    pub fn tick(&mut self, now: Micros, budgets: &mut Budgets, effects: &mut Vec<Effect>) {
        if self.done {
            return;
        }
        if now >= self.request.deadline {
            if !self.replied {
                let answers = self.proof().acknowledgements;
                let need = u8::try_from(self.need).unwrap_or(u8::MAX);
                return self.fail(Failure::TooFewAnswers { answers, need }, effects);
            }
            return self.end(now, budgets, effects);
        }
        if now >= self.request.hedge_at && !self.hedged && !self.replied {
            let waiting = self.places.iter().any(|place| place.state == State::Waiting);
            // Never twice for one read: a cluster that is slow as a whole gets no slower by it.
            self.hedged = waiting && budgets.hedge.take(now);
            self.request.hedge_at = self.request.deadline;
            if self.hedged {
                mark(Mark::Hedge);
                // The whole copy: whoever is slow may be the one that was asked for it.
                self.asked_whole = false;
                self.ask_next(effects);
            }
        }
    }

    /// When [`tick`](Get::tick) is due.
    pub fn next_tick(&self) -> Option<Micros> {
        let hedge = if self.replied { self.request.deadline } else { self.request.hedge_at };
        (!self.done).then_some(hedge.min(self.request.deadline))
    }

    fn ask_next(&mut self, effects: &mut Vec<Effect>) {
        if let Some(at) = self.places.iter().position(|place| place.state == State::Waiting) {
            self.ask(at, effects);
        }
    }

    fn ask_stand_in(&mut self, effects: &mut Vec<Effect>) {
        let waiting = |place: &Place| place.state == State::Waiting && place.stands_in;
        if let Some(at) = self.places.iter().position(waiting) {
            mark(Mark::StandInReads);
            self.ask(at, effects);
        }
    }

    fn ask(&mut self, at: usize, effects: &mut Vec<Effect>) {
        let inline = if self.asked_whole { INLINE } else { u32::MAX };
        self.asked_whole = true;
        self.places[at].state = State::Asked;
        effects.push(Effect::Send { to: self.places[at].peer.node, ask: Ask::Read { inline } });
    }

    fn give_up(&mut self, at: usize, effects: &mut Vec<Effect>) {
        let was_asked = matches!(self.places[at].state, State::Asked | State::Digest(_));
        self.places[at].written = Written::No;
        if matches!(self.places[at].state, State::Copy(_)) {
            return;
        }
        self.places[at].state = State::Failed;
        if was_asked && !self.replied {
            self.asked_whole = self.places.iter().any(|place| place.state == State::Asked);
            self.ask_next(effects);
        }
    }

    /// Whether a place's answer counts towards R.
    fn counts(&self, place: &Place) -> bool {
        match &place.state {
            State::Copy(None) if place.stands_in => !self.places[..self.homes]
                .iter()
                .any(|home| matches!(home.state, State::Asked | State::Waiting | State::Digest(_))),
            State::Copy(_) => true,
            State::Digest(digest) => {
                self.matching(*digest).is_some() || seeded(Bug::DigestAlwaysMatches)
            }
            State::Waiting | State::Asked | State::Failed => false,
        }
    }

    fn matching(&self, wanted: u64) -> Option<&Vec<u8>> {
        let copies = self.places.iter().filter_map(|place| match &place.state {
            State::Copy(Some(copy)) => Some(copy),
            _ => None,
        });
        copies.into_iter().find(|copy| digest(copy) == wanted)
    }

    fn proof(&self) -> Proof {
        let answered = self.places.iter().filter(|place| self.counts(place));
        let proof = Proof::count(answered.map(|place| (place.peer, place.stands_in)));
        Proof { hedged: self.hedged, repaired: self.repaired, ..proof }
    }

    fn settle(&mut self, now: Micros, budgets: &mut Budgets, effects: &mut Vec<Effect>) {
        if self.done {
            return;
        }
        self.resolve_digests(effects);
        let outstanding = self.places.iter().any(|place| place.state == State::Asked);
        if !self.replied && self.writing_back.is_none() {
            let enough = usize::from(self.proof().acknowledgements) >= self.need;
            if enough && self.request.monotonic && !seeded(Bug::WriteBackForgotten) {
                self.write_back(effects);
            } else if enough {
                self.reply(self.merged(), effects);
            } else if !outstanding {
                match self.places.iter().any(|place| place.state == State::Waiting) {
                    true => self.ask_next(effects),
                    false => {
                        let answers = self.proof().acknowledgements;
                        let need = u8::try_from(self.need).unwrap_or(u8::MAX);
                        self.fail(Failure::TooFewAnswers { answers, need }, effects);
                    }
                }
            }
        }
        self.check_written_back(effects);
        if self.replied
            && !self.done
            && !self.places.iter().any(|place| place.state == State::Asked)
        {
            self.end(now, budgets, effects);
        }
    }

    /// Asks for the whole where a digest differs from every copy, once all copies asked for whole
    /// are here.
    fn resolve_digests(&mut self, effects: &mut Vec<Effect>) {
        let copy_awaited = !self.places.iter().any(|p| matches!(p.state, State::Copy(_)))
            && self.places.iter().any(|place| place.state == State::Asked);
        for at in 0..self.places.len() {
            let State::Digest(digest) = self.places[at].state else { continue };
            let differs = !copy_awaited && self.matching(digest).is_none();
            if differs && !seeded(Bug::DigestAlwaysMatches) {
                mark(Mark::DigestDiffers);
                self.places[at].state = State::Asked;
                let ask = Ask::Read { inline: u32::MAX };
                effects.push(Effect::Send { to: self.places[at].peer.node, ask });
            }
        }
    }

    /// All copies at hand, merged. A copy that is no object is left out: its replica is repaired
    /// with what the others have.
    fn merged(&self) -> Option<Vec<u8>> {
        let mut all: Option<Vec<u8>> = None;
        for place in &self.places {
            if let State::Copy(Some(copy)) = &place.state {
                if all.is_some() && seeded(Bug::ReadsFirstCopy) {
                    break;
                }
                let both = all.as_deref().into_iter().chain([copy.as_slice()]);
                if let Ok(Some(merged)) = merge_all(both) {
                    all = Some(merged);
                }
            }
        }
        all
    }

    fn holds(&self, place: &Place, merged: &[u8]) -> bool {
        match &place.state {
            State::Copy(Some(copy)) => copy == merged,
            State::Digest(other) => *other == digest(merged),
            _ => place.written == Written::Holds,
        }
    }

    /// Monotonic reads: so many homes must hold the merged copy that any R of them include one.
    fn write_back(&mut self, effects: &mut Vec<Effect>) {
        mark(Mark::WriteBack);
        let merged = self.merged();
        if let Some(object) = &merged {
            for at in 0..self.homes {
                let place = &self.places[at];
                if self.holds(place, object) {
                    self.places[at].written = Written::Holds;
                } else if place.state != State::Failed {
                    self.places[at].written = Written::Sent;
                    self.repaired |= matches!(self.places[at].state, State::Copy(_));
                    let (object, durability) = (object.clone(), Durability::Durable);
                    let ask = Ask::Merge { object, durability, hint_for: None };
                    effects.push(Effect::Send { to: self.places[at].peer.node, ask });
                }
            }
        }
        self.writing_back = Some((merged, self.proof()));
    }

    fn check_written_back(&mut self, effects: &mut Vec<Effect>) {
        let Some((merged, _)) = &self.writing_back else { return };
        let homes = &self.places[..self.homes];
        let count = |which: Written| homes.iter().filter(|place| place.written == which).count();
        let needed = (self.homes + 1).saturating_sub(self.need);
        let holds = count(Written::Holds);
        if self.replied {
            return;
        }
        if merged.is_none() || holds >= needed {
            let merged = merged.clone();
            self.reply(merged, effects);
        } else if holds + count(Written::Sent) < needed {
            let small = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
            self.fail(
                Failure::TooFewAnswers { answers: small(holds), need: small(needed) },
                effects,
            );
        }
    }

    fn reply(&mut self, object: Option<Vec<u8>>, effects: &mut Vec<Effect>) {
        let mut proof = match &self.writing_back {
            Some((_, proof)) => Proof { hedged: self.hedged, ..*proof },
            None => self.proof(),
        };
        let differ = object.as_deref().is_some_and(|merged| {
            let answered = self.places.iter().filter(|place| self.counts(place));
            answered.filter(|place| !place.stands_in).any(|place| !self.holds(place, merged))
        });
        self.repaired |= differ;
        proof.repaired = self.repaired;
        effects.push(Effect::Reply(Outcome::Read { object, proof }));
        self.replied = true;
    }

    /// Repairs homes that differ, as far as the budget goes, and ends.
    fn end(&mut self, now: Micros, budgets: &mut Budgets, effects: &mut Vec<Effect>) {
        if let Some(merged) = self.merged() {
            for place in &self.places[..self.homes] {
                let known = matches!(place.state, State::Copy(_) | State::Digest(_));
                let stale = known && !self.holds(place, &merged) && place.written == Written::No;
                if stale && !seeded(Bug::RepairForgotten) && budgets.repair.take(now) {
                    mark(Mark::ReadRepair);
                    let (to, object) = (place.peer.node, merged.clone());
                    effects.push(Effect::Repair { to, object });
                }
            }
        }
        self.done = true;
        effects.push(Effect::Done);
    }

    fn fail(&mut self, failure: Failure, effects: &mut Vec<Effect>) {
        if !self.replied {
            effects.push(Effect::Reply(Outcome::Failed(failure)));
        }
        self.replied = true;
        self.done = true;
        effects.push(Effect::Done);
    }
}
