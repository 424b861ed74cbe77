//! Histories in which a replica reuses a causal past it lost, named after the issue that collected
//! them (basho/riak_kv#679). In each, going on under the old incarnation silently destroys an
//! acknowledged write; in each, [`own::check`] notices first.

use super::context::Context;
use super::dot::Dot;
use super::hlc::Hlc;
use super::merge::{merge, merge_all};
use super::object::ObjectRef;
use super::own::{self, Amnesia};
use super::update::{Change, apply};
use crate::ids::Actor;

/// One replica's copy of the key, its name and its counter.
struct Replica {
    me: Actor,
    issued: u64,
    stored: Option<Vec<u8>>,
}

impl Replica {
    fn new(me: u64) -> Self {
        Self { me: Actor(me), issued: 0, stored: None }
    }

    fn seen(&self) -> Option<Context> {
        self.stored.as_deref().map(|bytes| ObjectRef::decode(bytes).unwrap().seen())
    }

    fn change(&mut self, value: Option<&[u8]>, context: Option<&Context>) -> Context {
        let change = Change { value, context, replace: false, token: None };
        let issued = Dot { actor: self.me, counter: self.issued };
        let mut bytes = Vec::new();
        let applied = apply(self.stored.as_deref(), &change, issued, Hlc(1), &mut bytes).unwrap();
        self.issued = applied.dot.counter;
        self.stored = Some(bytes);
        applied.context
    }

    fn put(&mut self, value: &[u8]) -> Context {
        self.change(Some(value), None)
    }

    /// What a replica does with an incoming object: look for itself in it, then merge.
    fn receive(&mut self, from: &Replica) -> Result<(), Amnesia> {
        let incoming = from.stored.as_deref().unwrap();
        let heard = ObjectRef::decode(incoming).unwrap().seen();
        own::check(self.me, self.issued, self.seen().as_ref(), &heard)?;
        self.merge(from);
        Ok(())
    }

    fn merge(&mut self, from: &Replica) {
        let mut bytes = Vec::new();
        let incoming = from.stored.as_deref().unwrap();
        merge(self.stored.as_deref(), incoming, &mut bytes).unwrap();
        if !bytes.is_empty() {
            self.stored = Some(bytes);
        }
    }
}

fn values(replicas: &[&Replica]) -> Vec<Vec<u8>> {
    let copies = replicas.iter().filter_map(|replica| replica.stored.as_deref());
    let all = merge_all(copies).unwrap().unwrap();
    let object = ObjectRef::decode(&all).unwrap();
    object.values().map(|sibling| sibling.value.to_vec()).collect()
}

/// The disk lost everything, counter included; the replica writes again under its old name.
#[test]
fn kv679_lost_disk() {
    let (mut a, mut b) = (Replica::new(1), Replica::new(2));
    a.put(b"old 1");
    a.put(b"old 2");
    b.receive(&a).unwrap();

    let mut same = Replica::new(1);
    same.put(b"new");
    assert!(!values(&[&same, &b]).contains(&b"new".to_vec()), "what happens unguarded");
    let lost = Amnesia::Beyond { dot: Dot::new(Actor(1), 2), issued: 1 };
    assert_eq!(same.receive(&b), Err(lost));

    let mut fresh = Replica::new(11);
    fresh.put(b"new");
    fresh.receive(&b).unwrap();
    assert_eq!(values(&[&fresh, &b]).len(), 3);
}

/// Only this key was lost (a corrupt block, a lost log tail); the counter went on rising, so that
/// the new write seems to have seen the old one.
#[test]
fn kv679_lost_key() {
    let (mut a, mut b) = (Replica::new(1), Replica::new(2));
    a.put(b"old");
    b.receive(&a).unwrap();
    a.stored = None;
    let before = a.receive(&b);
    assert_eq!(before, Err(Amnesia::Forgotten { dot: Dot::new(Actor(1), 1), held: 0 }));

    a.put(b"new");
    assert_eq!(values(&[&a, &b]), [b"new".to_vec()], "what happens unguarded");

    let mut fresh = Replica::new(11);
    fresh.put(b"new");
    fresh.receive(&b).unwrap();
    assert_eq!(values(&[&fresh, &b]).len(), 2);
}

/// The tombstone was collected on two replicas while a third still had it; the key lived on.
#[test]
fn kv679_doomstone() {
    let (mut a, mut away) = (Replica::new(1), Replica::new(3));
    let context = a.put(b"old");
    a.change(None, Some(&context));
    away.receive(&a).unwrap();
    // Collected too early, together with the counter that lived in the object.
    (a.stored, a.issued) = (None, 0);
    a.put(b"new");
    assert!(values(&[&a, &away]).is_empty(), "what happens unguarded");
    assert!(matches!(a.receive(&away), Err(Amnesia::Beyond { .. })));

    let mut fresh = Replica::new(11);
    fresh.put(b"new");
    fresh.receive(&away).unwrap();
    assert_eq!(values(&[&fresh, &away]), [b"new".to_vec()]);
}

/// A backup brings back an old copy and an old counter.
#[test]
fn kv679_restored_backup() {
    let (mut a, mut b) = (Replica::new(1), Replica::new(2));
    a.put(b"kept");
    let (backup, issued) = (a.stored.clone(), a.issued);
    a.put(b"after the backup");
    b.receive(&a).unwrap();
    (a.stored, a.issued) = (backup, issued);
    // Anything that names the lost write tells, a client's context as well as a replica's copy. A
    // replica that writes first cannot notice any more: restoring takes a new incarnation by rule.
    let heard = own::check(a.me, a.issued, a.seen().as_ref(), &b.seen().unwrap());
    assert_eq!(heard, Err(Amnesia::Beyond { dot: Dot::new(Actor(1), 2), issued: 1 }));
    a.put(b"new");
    assert_eq!(values(&[&a, &b]).len(), 2, "what happens unguarded: one dot, two contents");

    let mut fresh = Replica::new(11);
    fresh.put(b"new");
    fresh.receive(&b).unwrap();
    assert_eq!(values(&[&fresh, &b]).len(), 3);
}

/// Two replicas were given one name. Whoever first hears of the other's writes, here by a write it
/// did not coordinate, must stop.
#[test]
fn kv679_two_replicas_one_name() {
    let (mut one, mut two) = (Replica::new(1), Replica::new(1));
    one.put(b"first");
    two.put(b"other first");
    two.put(b"other second");
    assert!(values(&[&one, &two]).len() < 3, "what happens unguarded");
    assert!(matches!(one.receive(&two), Err(Amnesia::Beyond { .. })));

    let mut renamed = Replica::new(11);
    renamed.merge(&one);
    renamed.receive(&two).unwrap();
    renamed.put(b"third");
    assert!(values(&[&renamed, &two]).contains(&b"third".to_vec()));
}

/// A stand-in gave its data to the replica it stood in for, forgot it, and stands in again. Its
/// second write must not seem to have seen its first.
#[test]
fn kv679_stand_in_after_handing_off() {
    let (mut home, mut stand_in) = (Replica::new(1), Replica::new(9));
    stand_in.put(b"hinted");
    home.receive(&stand_in).unwrap();
    stand_in.stored = None;
    let mut renamed = Replica::new(10);
    stand_in.put(b"hinted again");
    assert_eq!(values(&[&home, &stand_in]).len(), 1, "what happens under the same name");
    renamed.put(b"hinted again");
    assert_eq!(values(&[&home, &renamed]).len(), 2);
}
