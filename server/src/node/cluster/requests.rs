//! Requests this node coordinates: machines, their timers, and the asks they have out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coronet_lsm::env::Nanos;
use coronet_ring::coordinate::budget::{Budget, Budgets};
use coronet_ring::coordinate::get::Get;
use coronet_ring::coordinate::list::{List, Placement};
use coronet_ring::coordinate::message::{Answer, Ask};
use coronet_ring::coordinate::put::Put;
use coronet_ring::coordinate::{Effect, Micros};
use coronet_ring::{CoreId, KeyspaceId, NodeId, PartitionId};

use super::client::{Client, View};
use super::spaces::Space;
use crate::node::Handoff;

/// Repairs after the reply: per second, and at once.
const REPAIRS: (u32, u32) = (2_000, 200);
/// Hedged reads: a twentieth of the reads, at most so many at once.
const HEDGES: u32 = 50;
/// Thousandths of a hedge that each request earns.
const HEDGE_EARNED: u32 = 50;

/// How long a repair or a hint may go without answer.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(30);

/// Requests coordinated at once; more are answered "busy".
const MAX_RUNNING: usize = 100_000;
/// Bytes they hold: what clients sent and replicas answered. More are answered "busy".
const MAX_BYTES: usize = 512 << 20;

/// A coordinator's machine.
pub(super) enum Machine {
    Put(Put),
    Get(Get),
    List(List),
}

/// A request in progress.
pub(super) struct Running {
    machine: Machine,
    pub reply_to: ReplyTo,
    pub space: Space,
    pub partition: PartitionId,
    /// The key; empty for listings.
    pub key: Vec<u8>,
    /// When its client stops waiting.
    pub deadline: Nanos,
    /// When it is ticked next, as in the table of timers.
    due: Option<Micros>,
    /// The asks it has out.
    tickets: BTreeSet<u64>,
    /// What it holds of keys, values and copies, about.
    bytes: usize,
}

/// Where an outcome goes.
#[derive(Debug, Clone)]
pub(super) enum ReplyTo {
    /// To a client, shown in this view.
    Client(Client, View),
    /// To the gathering of this number, as its key of this index.
    Part(u64, usize),
}

impl Running {
    /// A request whose machine was started and holds this many bytes.
    pub(super) fn new(
        machine: Machine,
        reply_to: ReplyTo,
        space: Space,
        partition: PartitionId,
        key: Vec<u8>,
        deadline: Micros,
        bytes: usize,
    ) -> Self {
        let deadline = Nanos(deadline.saturating_mul(1000));
        let tickets = BTreeSet::new();
        Running { machine, reply_to, space, partition, key, deadline, due: None, tickets, bytes }
    }
}

/// What an ask in flight is for.
pub(super) enum Purpose {
    /// A request's, by number, about a partition.
    Request { id: u64, partition: PartitionId },
    /// A repair; its answer changes nothing.
    Repair,
    /// A hint on its way to the replica it is for.
    Handoff(Box<Handoff>),
    /// Whether a data core of another node serves a new keyspace.
    Agreement { keyspace: KeyspaceId, core: CoreId },
    /// Another node's, by its ticket; its bytes are credited when done.
    Remote { ticket: u64, bytes: u64 },
}

/// An ask in flight: who answers it (for [`Purpose::Remote`], who asked), and what for.
pub(super) struct InFlight {
    pub node: NodeId,
    pub purpose: Purpose,
    /// Since when; background asks are given up after a while.
    pub since: Nanos,
}

/// See the module.
pub(super) struct Requests {
    running: BTreeMap<u64, Running>,
    /// What they hold, about.
    bytes: usize,
    timers: BTreeSet<(Micros, u64)>,
    asks: BTreeMap<u64, InFlight>,
    next_id: u64,
    /// Answers that nobody waited for any more.
    unexpected: u64,
    pub budgets: Budgets,
}

/// What a machine is told.
pub(super) enum Input {
    Answer { from: NodeId, partition: PartitionId, answer: Answer },
    Failed(NodeId),
    Tick,
}

impl Requests {
    pub(super) fn new() -> Self {
        Requests {
            running: BTreeMap::new(),
            bytes: 0,
            timers: BTreeSet::new(),
            asks: BTreeMap::new(),
            next_id: 0,
            unexpected: 0,
            budgets: Budgets {
                repair: Budget::new(REPAIRS.0, REPAIRS.1),
                hedge: Budget::new(0, HEDGES),
            },
        }
    }

    /// Requests not finished yet, their background work included.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether a request of this many bytes may be begun.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.running.len() < MAX_RUNNING && self.bytes.saturating_add(bytes) <= MAX_BYTES
    }

    /// A number for a new request.
    pub(super) fn number(&mut self) -> u64 {
        self.next_id += 1;
        self.budgets.hedge.earn(HEDGE_EARNED);
        self.next_id
    }

    /// Adds a request.
    pub(super) fn insert(&mut self, id: u64, running: Running) {
        self.bytes += running.bytes;
        self.running.insert(id, running);
        self.schedule(id);
    }

    /// A request in progress.
    pub(super) fn get(&self, id: u64) -> Option<&Running> {
        self.running.get(&id)
    }

    /// The request is finished: it and its asks are forgotten.
    pub(super) fn finish(&mut self, id: u64) {
        let Some(running) = self.running.remove(&id) else { return };
        self.bytes -= running.bytes;
        if let Some(due) = running.due {
            self.timers.remove(&(due, id));
        }
        for ticket in running.tickets {
            self.asks.remove(&ticket);
        }
    }

    /// Notes an ask; returns its ticket.
    pub(super) fn note(&mut self, ask: InFlight) -> u64 {
        self.next_id += 1;
        if let Purpose::Request { id, .. } = ask.purpose
            && let Some(running) = self.running.get_mut(&id)
        {
            running.tickets.insert(self.next_id);
        }
        self.asks.insert(self.next_id, ask);
        self.next_id
    }

    /// The ask of a ticket; forgotten if `last`.
    pub(super) fn answered(&mut self, ticket: u64, last: bool) -> Option<InFlight> {
        let ask = self.asks.remove(&ticket)?;
        let (node, since) = (ask.node, ask.since);
        match ask.purpose {
            Purpose::Request { id, .. } if last => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.tickets.remove(&ticket);
                }
            }
            Purpose::Request { id, partition } => {
                let purpose = Purpose::Request { id, partition };
                self.asks.insert(ticket, InFlight { node, purpose, since });
            }
            Purpose::Remote { ticket: theirs, bytes } if !last => {
                let purpose = Purpose::Remote { ticket: theirs, bytes };
                self.asks.insert(ticket, InFlight { node, purpose, since });
                // Its bytes are credited once, with the last answer.
                let purpose = Purpose::Remote { ticket: theirs, bytes: 0 };
                return Some(InFlight { node, purpose, since });
            }
            Purpose::Remote { .. }
            | Purpose::Repair
            | Purpose::Handoff(_)
            | Purpose::Agreement { .. } => {}
        }
        Some(ask)
    }

    /// Whether an answer to this ticket may come from a node: the one that was asked, or for
    /// another node's ask this one. What may not is counted: it came after its request had ended.
    pub(super) fn may_answer(&mut self, ticket: u64, from: NodeId, me: NodeId) -> bool {
        let wanted = self.asks.get(&ticket).is_some_and(|ask| match ask.purpose {
            Purpose::Remote { .. } => from == me,
            _ => from == ask.node,
        });
        self.unexpected += u64::from(!wanted);
        wanted
    }

    /// What there is now and what was counted, by name.
    pub(super) fn named(&self) -> [(&'static str, u64); 3] {
        [
            ("requests_running", self.running.len() as u64),
            ("asks_in_flight", self.asks.len() as u64),
            ("answers_unexpected", self.unexpected),
        ]
    }

    /// Gives background asks up that nobody answered for long: a repair is found again by the
    /// next read, a hint is sent again.
    pub(super) fn give_up_background(&mut self, now: Nanos) {
        self.asks.retain(|_, ask| match ask.purpose {
            Purpose::Repair | Purpose::Handoff(_) | Purpose::Agreement { .. } => {
                now.since(ask.since) < BACKGROUND_PATIENCE
            }
            Purpose::Request { .. } | Purpose::Remote { .. } => true,
        });
    }

    /// Whether hints are on their way to a node.
    pub(super) fn hands_off_to(&self, node: NodeId) -> bool {
        let hint = |ask: &InFlight| matches!(ask.purpose, Purpose::Handoff(_));
        self.asks.values().any(|ask| ask.node == node && hint(ask))
    }

    /// A node cannot be answered: forgets what it asked.
    pub(super) fn forget_asks_of(&mut self, node: NodeId) {
        self.asks.retain(|_, ask| !(ask.node == node && is_remote(ask)));
    }

    /// A node will not answer: forgets what it was asked, and returns the requests that wait for it.
    pub(super) fn lost(&mut self, node: NodeId) -> Vec<u64> {
        let asked = |ask: &InFlight| ask.node == node && !is_remote(ask);
        let gone: Vec<u64> =
            self.asks.iter().filter(|(_, ask)| asked(ask)).map(|(t, _)| *t).collect();
        let mut waiting = BTreeSet::new();
        for ticket in gone {
            if let Some(InFlight { purpose: Purpose::Request { id, .. }, .. }) =
                self.answered(ticket, true)
            {
                waiting.insert(id);
            }
        }
        waiting.into_iter().collect()
    }

    /// Requests whose time has come.
    pub(super) fn due(&self, now: Nanos) -> Vec<u64> {
        let now = super::members::micros(now);
        self.timers.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id).collect()
    }

    /// When the next request is due.
    pub(super) fn next_due(&self) -> Option<Micros> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Feeds a machine.
    pub(super) fn feed(
        &mut self,
        id: u64,
        input: Input,
        placement: &dyn Placement,
        now: Nanos,
        effects: &mut Vec<Effect>,
    ) {
        let now = super::members::micros(now);
        let budgets = &mut self.budgets;
        let Some(running) = self.running.get_mut(&id) else { return };
        if let Input::Answer { answer, .. } = &input {
            let bytes = held_by(answer);
            running.bytes += bytes;
            self.bytes += bytes;
        }
        match (&mut running.machine, input) {
            (Machine::Put(put), Input::Answer { from, answer, .. }) => {
                put.on_answer(from, answer, now, effects);
            }
            (Machine::Put(put), Input::Failed(node)) => put.on_failed(node, now, effects),
            (Machine::Put(put), Input::Tick) => put.tick(now, effects),
            (Machine::Get(get), Input::Answer { from, answer, .. }) => {
                get.on_answer(from, answer, now, budgets, effects);
            }
            (Machine::Get(get), Input::Failed(node)) => get.on_failed(node, now, budgets, effects),
            (Machine::Get(get), Input::Tick) => get.tick(now, budgets, effects),
            (Machine::List(list), Input::Answer { from, partition, answer }) => {
                list.on_answer(from, partition, answer, placement, effects);
            }
            (Machine::List(list), Input::Failed(node)) => list.on_failed(node, effects),
            (Machine::List(list), Input::Tick) => list.tick(now, effects),
        }
        self.schedule(id);
    }

    fn schedule(&mut self, id: u64) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let next = match &running.machine {
            Machine::Put(put) => put.next_tick(),
            Machine::Get(get) => get.next_tick(),
            Machine::List(list) => list.next_tick(),
        };
        if next != running.due {
            if let Some(due) = running.due {
                self.timers.remove(&(due, id));
            }
            if let Some(next) = next {
                self.timers.insert((next, id));
            }
            running.due = next;
        }
    }
}

/// Whether it is another node's ask to this one.
fn is_remote(ask: &InFlight) -> bool {
    matches!(ask.purpose, Purpose::Remote { .. })
}

/// Bytes of an answer that a machine keeps.
fn held_by(answer: &Answer) -> usize {
    match answer {
        Answer::Named { object, .. } | Answer::Copy(Some(object)) => object.len(),
        Answer::Keys { entries, .. } => {
            entries.iter().map(|entry| entry.key.len() + entry.outline.len()).sum()
        }
        Answer::Stored | Answer::Copy(None) | Answer::Digest(_) | Answer::Refused(_) => 0,
    }
}

/// Whether more answers follow this one.
pub(super) fn is_last(answer: &Answer) -> bool {
    !matches!(answer, Answer::Named { stored: false, .. })
}

/// The partition a machine's ask is about: its key's, or the one its listing has come to.
pub(super) fn partition_of(running: &Running) -> PartitionId {
    match &running.machine {
        Machine::List(list) => list.partition(),
        Machine::Put(_) | Machine::Get(_) => running.partition,
    }
}

/// An ask that merges an object in the background.
pub(super) fn merge_ask(object: Vec<u8>, hint_for: Option<NodeId>) -> Ask {
    use coronet_ring::coordinate::message::Durability;
    Ask::Merge { object, durability: Durability::Durable, hint_for }
}

#[cfg(test)]
mod tests {
    use coronet_ring::Epoch;
    use coronet_ring::causality::resolve::Conflicts;
    use coronet_ring::coordinate::get::GetRequest;
    use coronet_ring::coordinate::quorum::{Mode, Need, Peer, Replicas};

    use super::*;

    struct Three;

    impl Placement for Three {
        fn partitions(&self) -> u32 {
            1
        }

        fn replicas(&self, partition: PartitionId) -> Replicas {
            let peer = |node| Peer { node: NodeId(node), rack: 0, alive: true };
            let homes = (1..=3).map(peer).collect();
            Replicas { partition, epoch: Epoch(1), homes, stand_ins: Vec::new() }
        }
    }

    fn read(requests: &mut Requests, bytes: usize) -> u64 {
        let get = GetRequest {
            need: Need::Quorum,
            mode: Mode::Strict,
            monotonic: false,
            deadline: 1_000,
            hedge_at: 1_000,
        };
        let replicas = Three.replicas(PartitionId(0));
        let machine = Machine::Get(Get::start(get, &replicas, &mut Vec::new()));
        let (id, reply_to) = (requests.number(), ReplyTo::Part(0, 0));
        let (id_of, conflicts) = (KeyspaceId::DEFAULT, Conflicts::Siblings);
        let space = Space { id: id_of, n: 3, quorums: None, conflicts };
        let (partition, key) = (PartitionId(0), b"k".to_vec());
        let running = Running::new(machine, reply_to, space, partition, key, 1_000, bytes);
        requests.insert(id, running);
        id
    }

    #[test]
    fn what_requests_hold_is_bounded_and_given_back() {
        let mut requests = Requests::new();
        let first = read(&mut requests, MAX_BYTES - 100);
        assert!(requests.has_room_for(100) && !requests.has_room_for(101));
        // A copy that a replica answers counts, too.
        let answer = Answer::Copy(Some(vec![0; 60]));
        let input = Input::Answer { from: NodeId(1), partition: PartitionId(0), answer };
        requests.feed(first, input, &Three, Nanos(1), &mut Vec::new());
        assert!(requests.has_room_for(40) && !requests.has_room_for(41));
        let second = read(&mut requests, 40);
        assert!(!requests.has_room_for(1));
        requests.finish(first);
        requests.finish(second);
        assert!(requests.has_room_for(MAX_BYTES) && requests.bytes == 0);
    }

    fn ask(requests: &mut Requests, node: u128, purpose: Purpose) -> u64 {
        requests.note(InFlight { node: NodeId(node), purpose, since: Nanos(0) })
    }

    fn count(requests: &Requests, name: &str) -> u64 {
        requests.named().into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// A replica that takes an ask and never answers holds nothing here beyond the request's
    /// deadline; what it says later finds nobody.
    #[test]
    fn an_ask_that_is_never_answered_ends_with_its_request() {
        let (mut requests, me) = (Requests::new(), NodeId(9));
        let id = read(&mut requests, 10);
        let of = |id| Purpose::Request { id, partition: PartitionId(0) };
        let tickets = [1, 2].map(|node| ask(&mut requests, node, of(id)));
        let before = Nanos(999_000);
        assert_eq!((requests.due(before), requests.next_due()), (vec![], Some(1_000)));
        assert!(requests.may_answer(tickets[0], NodeId(1), me));
        assert!(!requests.may_answer(tickets[0], NodeId(2), me), "another was asked");
        let (deadline, mut effects) = (Nanos(1_000_000), Vec::new());
        assert_eq!(requests.due(deadline), [id]);
        requests.feed(id, Input::Tick, &Three, deadline, &mut effects);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Done)), "{effects:?}");
        requests.finish(id);
        assert_eq!((requests.len(), requests.asks.len(), requests.next_due()), (0, 0, None));
        assert!(!requests.may_answer(tickets[1], NodeId(2), me));
        assert_eq!(
            (count(&requests, "asks_in_flight"), count(&requests, "answers_unexpected")),
            (0, 2)
        );
    }

    /// No client waits for repairs, hints and agreements: they have a time of their own.
    #[test]
    fn background_asks_are_given_up_after_a_while() {
        let mut requests = Requests::new();
        let id = read(&mut requests, 10);
        ask(&mut requests, 1, Purpose::Request { id, partition: PartitionId(0) });
        ask(&mut requests, 1, Purpose::Repair);
        let agreement = Purpose::Agreement { keyspace: KeyspaceId::DEFAULT, core: CoreId(0) };
        ask(&mut requests, 2, agreement);
        let patience = Nanos(0).after(BACKGROUND_PATIENCE);
        requests.give_up_background(Nanos(patience.0 - 1));
        assert_eq!(requests.asks.len(), 3);
        requests.give_up_background(patience);
        assert_eq!(requests.asks.len(), 1, "the request's ends with its request");
    }
}
