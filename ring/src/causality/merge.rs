//! Joining what two replicas hold of one key. Bytes in, bytes out.
//!
//! The join is a least upper bound: commutative, associative, idempotent, so that replicas which
//! have seen the same writes hold the same bytes, in whatever order and however often they heard
//! of them. A sibling survives when the other side holds it too or has not seen it; one that the
//! other side has seen and no longer holds was superseded there. Nothing is ever left out by size
//! or age, and no limit on siblings applies: refusing here would lose acknowledged writes.

use std::cmp::Ordering;

use coronet_probe::{Bug, Mark, mark, seeded};

use super::context::Context;
use super::object::{self, Object, ObjectError, ObjectRef, Sibling, SiblingRef};

/// What the local copy has to do after a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// Nothing: the local copy knew everything.
    Unchanged,
    /// Store the incoming object, which knows everything the local copy does.
    Replaced,
    /// Store the join: each side had something the other did not.
    Joined,
}

/// Joins `incoming` into `local` and appends what is to be stored, unless nothing changes.
pub fn merge(
    local: Option<&[u8]>,
    incoming: &[u8],
    into: &mut Vec<u8>,
) -> Result<Merged, ObjectError> {
    let theirs = ObjectRef::decode(incoming)?;
    let Some(local) = local else {
        into.extend_from_slice(incoming);
        return Ok(Merged::Replaced);
    };
    if local == incoming {
        return Ok(Merged::Unchanged);
    }
    let ours = ObjectRef::decode(local)?;
    let start = into.len();
    join(&ours, &theirs, into)?;
    if into[start..] == *local {
        into.truncate(start);
        return Ok(Merged::Unchanged);
    }
    if into[start..] == *incoming {
        return Ok(Merged::Replaced);
    }
    mark(Mark::Joined);
    Ok(Merged::Joined)
}

/// Joins any number of copies of one key; `None` when there is none.
pub fn merge_all<'a>(
    copies: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<Vec<u8>>, ObjectError> {
    let mut all: Option<Vec<u8>> = None;
    for copy in copies {
        let mut next = Vec::new();
        if merge(all.as_deref(), copy, &mut next)? != Merged::Unchanged {
            all = Some(next);
        }
    }
    Ok(all)
}

/// The causal order of two copies; `None` when each has seen something the other has not.
pub fn compare(a: &ObjectRef<'_>, b: &ObjectRef<'_>) -> Option<Ordering> {
    let (a, b) = (a.seen(), b.seen());
    match (a.covers(&b), b.covers(&a)) {
        (true, true) => Some(Ordering::Equal),
        (true, false) => Some(Ordering::Greater),
        (false, true) => Some(Ordering::Less),
        (false, false) => None,
    }
}

/// Appends the least upper bound of two copies.
fn join(a: &ObjectRef<'_>, b: &ObjectRef<'_>, into: &mut Vec<u8>) -> Result<(), ObjectError> {
    let (seen_a, seen_b) = (a.seen(), b.seen());
    let mut siblings = Vec::with_capacity(a.len() + b.len());
    let (ours, theirs): (Vec<_>, Vec<_>) = (a.siblings().collect(), b.siblings().collect());
    let (mut i, mut j) = (0, 0);
    while i < ours.len() || j < theirs.len() {
        let order = match (ours.get(i), theirs.get(j)) {
            (Some(x), Some(y)) => x.dot.cmp(&y.dot),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        match order {
            Ordering::Less if !seen_b.contains(ours[i].dot) => siblings.push(ours[i]),
            Ordering::Less if seeded(Bug::MergeKeepsReplaced) => siblings.push(ours[i]),
            Ordering::Greater if !seen_a.contains(theirs[j].dot) => siblings.push(theirs[j]),
            Ordering::Equal => siblings.push(same_write(ours[i], theirs[j])),
            Ordering::Less | Ordering::Greater => {}
        }
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
    }
    if siblings.len() > 1 && seeded(Bug::MergeDropsSibling) {
        siblings.pop();
    }
    let mut seen = seen_a;
    seen.merge(&seen_b);
    object::encode(&seen, &siblings, into)
}

/// One write in two copies. They are the same bytes unless one was damaged or a dot was issued
/// twice; then every replica must choose the same one.
fn same_write<'a>(a: SiblingRef<'a>, b: SiblingRef<'a>) -> SiblingRef<'a> {
    let key = |s: &SiblingRef<'a>| (s.hlc, s.tombstone, s.token, s.value);
    if key(&a) >= key(&b) { a } else { b }
}

impl Object {
    /// An object of one version that has seen what `context` has.
    pub fn new(context: Context, version: Sibling) -> Self {
        let mut seen = context;
        seen.observe_through(version.dot);
        Self { seen, siblings: vec![version] }
    }

    /// Drops the versions that `context` has seen and records that they were: what a writer with
    /// this context means by "instead of what I saw".
    pub fn discard(&mut self, context: &Context) {
        self.siblings.retain(|sibling| !context.contains(sibling.dot));
        self.seen.merge(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::dot::Dot;
    use crate::causality::hlc::Hlc;
    use crate::ids::Actor;

    fn version(actor: u64, counter: u64, value: &[u8]) -> Sibling {
        Sibling {
            dot: Dot::new(Actor(actor), counter),
            hlc: Hlc(counter),
            tombstone: false,
            token: None,
            value: value.to_vec(),
        }
    }

    fn bytes(object: &Object) -> Vec<u8> {
        let mut bytes = Vec::new();
        object.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn says_what_the_local_copy_must_do() {
        let first = Object::new(Context::default(), version(1, 1, b"a"));
        let second = Object::new(first.seen.clone(), version(2, 1, b"b"));
        let aside = Object::new(Context::default(), version(3, 1, b"c"));
        let (first, second, aside) = (bytes(&first), bytes(&second), bytes(&aside));
        let run = |local: Option<&[u8]>, incoming: &[u8]| {
            let mut into = Vec::new();
            (merge(local, incoming, &mut into).unwrap(), into)
        };
        assert_eq!(run(None, &first), (Merged::Replaced, first.clone()));
        assert_eq!(run(Some(&first), &first), (Merged::Unchanged, Vec::new()));
        assert_eq!(run(Some(&first), &second), (Merged::Replaced, second.clone()));
        assert_eq!(run(Some(&second), &first), (Merged::Unchanged, Vec::new()));
        let (merged, joined) = run(Some(&second), &aside);
        assert_eq!(merged, Merged::Joined);
        assert_eq!(Object::decode(&joined).unwrap().siblings.len(), 2);
        assert_eq!(merge_all([]).unwrap(), None);
        assert_eq!(merge_all([&first[..], &aside, &second]).unwrap(), Some(joined));
    }

    #[test]
    fn compares_by_what_was_seen() {
        let first = Object::new(Context::default(), version(1, 1, b"a"));
        let second = Object::new(first.seen.clone(), version(2, 1, b"b"));
        let aside = Object::new(Context::default(), version(3, 1, b"c"));
        let order = |x: &Object, y: &Object| {
            let (x, y) = (bytes(x), bytes(y));
            compare(&ObjectRef::decode(&x).unwrap(), &ObjectRef::decode(&y).unwrap())
        };
        assert_eq!(order(&first, &second), Some(Ordering::Less));
        assert_eq!(order(&second, &first), Some(Ordering::Greater));
        assert_eq!(order(&first, &first), Some(Ordering::Equal));
        assert_eq!(order(&second, &aside), None);
    }

    #[test]
    fn discarding_is_remembered() {
        let mut object = Object::new(Context::default(), version(1, 1, b"a"));
        let old = bytes(&object);
        let seen = object.seen.clone();
        object.discard(&seen);
        assert!(object.siblings.is_empty());
        assert_eq!(merge(Some(&bytes(&object)), &old, &mut Vec::new()), Ok(Merged::Unchanged));
    }

    #[test]
    fn a_dot_with_two_contents_has_one_winner() {
        let one = bytes(&Object::new(Context::default(), version(1, 1, b"a")));
        let other = bytes(&Object::new(Context::default(), version(1, 1, b"b")));
        let forth = merge_all([&one[..], &other]).unwrap();
        assert_eq!(forth, merge_all([&other[..], &one]).unwrap());
    }
}
