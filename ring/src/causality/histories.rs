//! Random histories of one key, checked against a model that remembers every write by name.
//!
//! The model keeps plain sets of dots: what each replica and each client has seen, and for each
//! write what its author had seen. A version should stand exactly when no write's author had seen
//! it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::context::Context;
use super::dot::Dot;
use super::hlc::Hlc;
use super::merge::{Merged, compare, merge, merge_all};
use super::object::{Object, ObjectRef};
use super::update::{Change, apply};
use crate::ids::Actor;

const REPLICAS: usize = 4;
const CLIENTS: usize = 3;

type Seen = BTreeSet<Dot>;

#[derive(Debug, Clone)]
enum Step {
    Read { client: usize, replica: usize },
    Put { client: usize, replica: usize },
    Delete { client: usize, replica: usize },
    BlindPut { replica: usize },
    Replace { replica: usize },
    Sync { from: usize, to: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (c, r) = (0..CLIENTS, 0..REPLICAS);
    prop_oneof![
        3 => (c.clone(), r.clone()).prop_map(|(client, replica)| Step::Read { client, replica }),
        6 => (c.clone(), r.clone()).prop_map(|(client, replica)| Step::Put { client, replica }),
        1 => (c, r.clone()).prop_map(|(client, replica)| Step::Delete { client, replica }),
        2 => r.clone().prop_map(|replica| Step::BlindPut { replica }),
        1 => r.clone().prop_map(|replica| Step::Replace { replica }),
        4 => (r.clone(), r).prop_map(|(from, to)| Step::Sync { from, to }),
    ]
}

#[derive(Default)]
struct World {
    stored: [Option<Vec<u8>>; REPLICAS],
    replica_seen: [Seen; REPLICAS],
    clients: [(Context, Seen); CLIENTS],
    /// What the author of each write had seen; and whether it is a deletion.
    writes: BTreeMap<Dot, (Seen, bool)>,
    issued: u64,
}

impl World {
    fn run(steps: &[Step]) -> World {
        let mut world = World::default();
        steps.iter().for_each(|step| world.step(step));
        world
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Read { client, replica } => {
                let Some(stored) = &self.stored[replica] else { return };
                let context = ObjectRef::decode(stored).unwrap().seen();
                self.clients[client] = (context, self.replica_seen[replica].clone());
            }
            Step::Put { client, replica } => self.write(Some(client), replica, false, false),
            Step::Delete { client, replica } => self.write(Some(client), replica, true, false),
            Step::BlindPut { replica } => self.write(None, replica, false, false),
            Step::Replace { replica } => self.write(None, replica, false, true),
            Step::Sync { from, to } => self.sync(from, to),
        }
    }

    fn write(&mut self, client: Option<usize>, replica: usize, delete: bool, replace: bool) {
        // Counters are shared by all keys of a replica, so they skip numbers here.
        self.issued += 3;
        let me = Dot::new(Actor(replica as u64), self.issued);
        let (context, mut past) = match client {
            Some(client) => self.clients[client].clone(),
            None => Default::default(),
        };
        let value = self.issued.to_le_bytes();
        let change = Change {
            value: (!delete).then_some(&value[..]),
            context: client.is_some().then_some(&context),
            replace,
            token: None,
        };
        let mut bytes = Vec::new();
        let Ok(applied) = apply(self.stored[replica].as_deref(), &change, me, Hlc(1), &mut bytes)
        else {
            return;
        };
        if replace {
            past.extend(&self.replica_seen[replica]);
        }
        let before = std::mem::take(&mut self.replica_seen[replica]);
        self.replica_seen[replica] = before.union(&past).copied().collect();
        self.replica_seen[replica].insert(applied.dot);
        self.writes.insert(applied.dot, (past.clone(), delete));
        self.stored[replica] = Some(bytes);
        if let Some(client) = client {
            past.insert(applied.dot);
            let alone = applied.versions == 1;
            let seen = if alone { self.replica_seen[replica].clone() } else { past };
            self.clients[client] = (applied.context, seen);
        }
    }

    fn sync(&mut self, from: usize, to: usize) {
        let Some(incoming) = self.stored[from].clone() else { return };
        let mut bytes = Vec::new();
        match merge(self.stored[to].as_deref(), &incoming, &mut bytes).unwrap() {
            Merged::Unchanged => {}
            Merged::Replaced | Merged::Joined => self.stored[to] = Some(bytes),
        }
        let seen = self.replica_seen[from].clone();
        self.replica_seen[to].extend(seen);
    }

    fn copies(&self) -> Vec<&[u8]> {
        self.stored.iter().flatten().map(Vec::as_slice).collect()
    }

    /// The values nobody who wrote had seen.
    fn standing(&self) -> Seen {
        let superseded: Seen = self.writes.values().flat_map(|(past, _)| past).copied().collect();
        let values = self.writes.iter().filter(|(_, (_, delete))| !delete);
        values.map(|(dot, _)| *dot).filter(|dot| !superseded.contains(dot)).collect()
    }
}

fn value_dots(bytes: &[u8]) -> Seen {
    ObjectRef::decode(bytes).unwrap().values().map(|sibling| sibling.dot).collect()
}

proptest! {
    /// No dominated version survives, none is lost.
    #[test]
    fn siblings_are_exactly_the_writes_nobody_superseded(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let world = World::run(&steps);
        if let Some(all) = merge_all(world.copies()).unwrap() {
            prop_assert_eq!(value_dots(&all), world.standing());
        }
    }

    #[test]
    fn merge_is_commutative_associative_idempotent(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let world = World::run(&steps);
        let copies = world.copies();
        for a in &copies {
            prop_assert_eq!(merge_all([*a, *a]).unwrap().unwrap(), *a);
            for b in &copies {
                let ab = merge_all([*a, *b]).unwrap().unwrap();
                prop_assert_eq!(&ab, &merge_all([*b, *a]).unwrap().unwrap());
                prop_assert!(merge(Some(&ab), a, &mut Vec::new()) == Ok(Merged::Unchanged));
                for c in &copies {
                    let bc = merge_all([*b, *c]).unwrap().unwrap();
                    prop_assert_eq!(merge_all([&ab[..], *c]), merge_all([*a, &bc[..]]));
                }
            }
        }
    }

    /// Copies that have seen the same are the same, so comparing what was seen is enough.
    #[test]
    fn equal_knowledge_means_equal_bytes(steps in prop::collection::vec(step(), 1..60)) {
        let world = World::run(&steps);
        for a in world.copies() {
            for b in world.copies() {
                let order =
                    compare(&ObjectRef::decode(a).unwrap(), &ObjectRef::decode(b).unwrap());
                prop_assert_eq!(order == Some(std::cmp::Ordering::Equal), a == b);
            }
        }
    }

    /// Stored siblings are sorted and each is among the writes that were seen.
    #[test]
    fn objects_are_well_formed(steps in prop::collection::vec(step(), 1..60)) {
        for copy in World::run(&steps).copies() {
            let object = Object::decode(copy).unwrap();
            prop_assert!(object.siblings.is_sorted_by_key(|sibling| sibling.dot));
            prop_assert!(object.siblings.iter().all(|s| object.seen.contains(s.dot)));
        }
    }
}

/// One client reads and writes, another writes blindly in between: plain version vectors end with
/// a sibling per round.
#[test]
fn two_interleaved_clients_end_with_two_siblings() {
    let mut world = World::default();
    for _ in 0..101 {
        world.step(&Step::Read { client: 0, replica: 0 });
        world.step(&Step::BlindPut { replica: 0 });
        world.step(&Step::Put { client: 0, replica: 0 });
    }
    assert_eq!(value_dots(world.stored[0].as_ref().unwrap()).len(), 2);
}

/// The same with the context of the write's answer in place of a read.
#[test]
fn answers_of_writes_are_enough_context_for_two_siblings() {
    let mut world = World::default();
    for round in 0..101 {
        world.step(&Step::Put { client: 0, replica: round % REPLICAS });
        world.step(&Step::Put { client: 1, replica: round % REPLICAS });
    }
    let all = merge_all(world.copies()).unwrap().unwrap();
    assert_eq!(value_dots(&all).len(), 2);
}
