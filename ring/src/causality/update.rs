//! What a client's write does to the versions of one key, at the replica that names it. Bytes in,
//! bytes out.
//!
//! A write supersedes the versions its context has seen and stands beside those it has not. The
//! coordinator's actor names every version with a dot it never issues twice for a key: deletions
//! keep the key's vector, and after a restart the counters go on above everything that may have
//! been issued before, because a buffered write that clients saw may be lost with the power.

//! The replica must hold all it ever named for this key: the new version's dot stands in the
//! vector, which says that all earlier ones of this actor were seen. A replica that lost data, or
//! gave it away (a stand-in that handed its data off), must write under a new incarnation.

use coronet_probe::{Bug, Mark, mark, seeded};

use super::context::Context;
use super::dot::Dot;
use super::hlc::Hlc;
use super::object::{self, ObjectError, ObjectRef, SiblingRef, Token};

/// Versions of one key from which clients should be warned: somebody writes without reading.
pub const SOFT_VERSIONS: usize = 16;

/// Versions of one key from which client writes are refused; reading and writing with the
/// context that was read resolves them. Merging what replicas hold is never refused.
pub const MAX_VERSIONS: usize = 64;

/// A write, checked and decoded.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The new value; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// What the client has seen; `None` for a blind write.
    pub context: Option<&'a Context>,
    /// Whether the write supersedes every version there is, seen or not (last write wins).
    pub replace: bool,
    /// The client's name for this write.
    pub token: Option<&'a Token>,
}

/// What became of a client's write: the object that shall be stored stands in the buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the writer has seen now.
    pub context: Context,
    /// The version's timestamp.
    pub hlc: Hlc,
    /// The very same write was applied before. The buffer holds the object as it is, to be stored
    /// again: that the first attempt is durable is not known.
    pub repeated: bool,
    /// The version's name.
    pub dot: Dot,
    /// Versions the object has now; from [`SOFT_VERSIONS`] on the client should be warned.
    pub versions: usize,
}

/// Why a write cannot be applied. Nothing changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The key has too many unresolved versions.
    #[error(
        "the key has {MAX_VERSIONS} unresolved versions; read it and write with the context of \
         that read"
    )]
    TooManyVersions,
    /// The actor has no counter left: a damaged dot was taken for a real one.
    #[error("the replica's write counter is exhausted; it needs a new incarnation")]
    Exhausted,
    /// The stored bytes are not an object.
    #[error("stored object: {0}")]
    Stored(#[from] ObjectError),
}

/// Applies `change` to the stored bytes and appends the new object to `into`. `issued` is the
/// highest dot that may have been issued before this start of the node, of whatever key.
pub fn apply(
    stored_bytes: Option<&[u8]>,
    change: &Change<'_>,
    issued: Dot,
    now: Hlc,
    into: &mut Vec<u8>,
) -> Result<Applied, ChangeError> {
    let stored = stored_bytes.map(ObjectRef::decode).transpose()?;
    let before = || stored.iter().flat_map(ObjectRef::siblings);
    if let Some(token) = change.token
        && let Some(same) = before().find(|sibling| sibling.token == Some(token))
    {
        mark(Mark::TokenRepeated);
        into.extend_from_slice(stored_bytes.unwrap_or_default());
        let versions = before().count();
        let alone = versions == 1;
        let context = match &stored {
            Some(object) if alone => object.seen(),
            _ => seen_with(change, before().filter(|other| is_twin(other, &same)).map(|s| s.dot)),
        }
        .bounded(same.dot);
        return Ok(Applied { context, hlc: same.hlc, repeated: true, dot: same.dot, versions });
    }
    let mut seen = stored.map(|object| object.seen()).unwrap_or_default();
    let held = seen.highest(issued.actor);
    if let Some(context) = change.context.filter(|_| !seeded(Bug::ContextForgotten)) {
        // The client may have seen writes that have not come here yet: they are superseded too.
        seen.merge(context);
    }
    let highest = if seeded(Bug::OldIncarnation) { held } else { seen.highest(issued.actor) };
    let highest = highest.max(issued.counter);
    let counter = highest.checked_add(1).ok_or(ChangeError::Exhausted)?;
    let dot = Dot { actor: issued.actor, counter };
    seen.observe_through(dot);
    // A deletion carries nothing but its dot, which the vector has: it gives way to any write.
    let mut versions: Vec<SiblingRef<'_>> =
        before().filter(|old| !old.tombstone && !superseded(change, old, before())).collect();
    if versions.len() >= MAX_VERSIONS {
        mark(Mark::TooManyVersions);
        return Err(ChangeError::TooManyVersions);
    }
    let alone = versions.is_empty();
    let hlc = now.max(Hlc(before().map(|old| old.hlc.0).max().unwrap_or(0).saturating_add(1)));
    versions.push(SiblingRef {
        dot,
        hlc,
        tombstone: change.value.is_none(),
        token: change.token,
        value: change.value.unwrap_or_default(),
    });
    versions.sort_unstable_by_key(|version| version.dot);
    if seeded(Bug::VectorPruned) {
        seen = pruned(&seen, &versions);
    }
    object::encode(&seen, &versions, into)?;
    let context = if alone { seen } else { seen_with(change, [dot]) }.bounded(dot);
    Ok(Applied { context, hlc, repeated: false, dot, versions: versions.len() })
}

/// What was seen, without the first actor that has no version left: a seeded bug.
fn pruned(seen: &Context, versions: &[SiblingRef<'_>]) -> Context {
    let named = |entry: &Dot| versions.iter().any(|version| version.dot.actor == entry.actor);
    let entries = seen.vector().entries();
    let victim = entries.iter().find(|entry| !named(entry)).copied();
    Context::new(entries.iter().copied().filter(|entry| Some(*entry) != victim).collect())
}

/// Whether the write makes an old version obsolete: its context has seen it, or has seen one of
/// the versions beside it that is the same write under another name.
fn superseded<'a>(
    change: &Change<'_>,
    old: &SiblingRef<'a>,
    mut beside: impl Iterator<Item = SiblingRef<'a>>,
) -> bool {
    // A blind deletion removes what is here to be seen.
    let blind = change.context.is_none() || seeded(Bug::DeleteIgnoresContext);
    let everything = change.replace || (change.value.is_none() && blind);
    everything
        || change.context.is_some_and(|context| {
            context.contains(old.dot)
                || beside.any(|other| is_twin(&other, old) && context.contains(other.dot))
        })
}

/// Whether two versions are one write, retried through two replicas of which each gave it a name;
/// a version is its own twin. The values are compared because tokens are the clients' affair:
/// reusing one must not remove what nobody has seen.
fn is_twin(a: &SiblingRef<'_>, b: &SiblingRef<'_>) -> bool {
    let same = |a: &SiblingRef<'_>, b: &SiblingRef<'_>| {
        a.token == b.token && a.tombstone == b.tombstone && a.value == b.value
    };
    a.dot == b.dot || (a.token.is_some() && same(a, b))
}

/// What the writer has seen after its write, when other versions stand beside it: not those.
fn seen_with(change: &Change<'_>, dots: impl IntoIterator<Item = Dot>) -> Context {
    let mut context = change.context.cloned().unwrap_or_default();
    dots.into_iter().for_each(|dot| context.observe(dot));
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::context::MAX_DOTS;
    use crate::causality::merge::merge_all;
    use crate::ids::Actor;

    const ME: Dot = Dot { actor: Actor(7), counter: 0 };

    fn put(value: &[u8]) -> Change<'_> {
        Change { value: Some(value), context: None, replace: false, token: None }
    }

    fn run(stored: &mut Option<Vec<u8>>, change: &Change<'_>) -> Applied {
        let mut bytes = Vec::new();
        let applied = apply(stored.as_deref(), change, ME, Hlc(5), &mut bytes).unwrap();
        *stored = Some(bytes);
        applied
    }

    fn values(stored: &Option<Vec<u8>>) -> Vec<Vec<u8>> {
        let object = ObjectRef::decode(stored.as_deref().unwrap()).unwrap();
        object.values().map(|sibling| sibling.value.to_vec()).collect()
    }

    fn written(applied: Applied) -> Context {
        assert!(!applied.repeated);
        applied.context
    }

    #[test]
    fn a_context_supersedes_what_it_saw_and_nothing_else() {
        let mut stored = None;
        let first = written(run(&mut stored, &put(b"a")));
        run(&mut stored, &put(b"b"));
        assert_eq!(values(&stored), [b"a".to_vec(), b"b".to_vec()]);
        run(&mut stored, &Change { context: Some(&first), ..put(b"c") });
        assert_eq!(values(&stored), [b"b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn the_returned_context_does_not_cover_unseen_versions() {
        let mut stored = None;
        run(&mut stored, &put(b"a"));
        let second = written(run(&mut stored, &put(b"b")));
        run(&mut stored, &Change { context: Some(&second), ..put(b"c") });
        assert_eq!(values(&stored), [b"a".to_vec(), b"c".to_vec()]);
    }

    /// Somebody else's version stands beside those of a client that always goes on from its last
    /// answer: each of its answers has one more single dot, for ever.
    #[test]
    fn a_client_that_never_reads_again_can_go_on_for_ever() {
        let mut stored = None;
        run(&mut stored, &put(b"other"));
        let mut context = written(run(&mut stored, &put(b"0")));
        for n in 1..3 * MAX_DOTS {
            let value = n.to_string();
            let change = Change { context: Some(&context), ..put(value.as_bytes()) };
            context = written(run(&mut stored, &change));
            assert_eq!(values(&stored), [b"other".to_vec(), value.into_bytes()]);
            context.encode(1, 2, &mut Vec::new()).unwrap();
        }
    }

    #[test]
    fn replacing_leaves_one_version() {
        let mut stored = None;
        run(&mut stored, &put(b"a"));
        run(&mut stored, &put(b"b"));
        let context = written(run(&mut stored, &Change { replace: true, ..put(b"c") }));
        assert_eq!(values(&stored), [b"c".to_vec()]);
        run(&mut stored, &Change { context: Some(&context), ..put(b"d") });
        assert_eq!(values(&stored), [b"d".to_vec()]);
    }

    #[test]
    fn a_repeated_token_changes_nothing() {
        let mut stored = None;
        let token = [3; 16];
        let once = Change { token: Some(&token), ..put(b"a") };
        run(&mut stored, &once);
        let before = stored.clone();
        assert!(run(&mut stored, &once).repeated);
        assert_eq!(stored, before);
    }

    /// One write named by two replicas, in the copy of a third, beside a version of somebody else.
    fn named_twice(value: &[u8]) -> (Option<Vec<u8>>, [Context; 2]) {
        let token = [3; 16];
        let once = Change { token: Some(&token), ..put(b"a") };
        let again = Change { token: Some(&token), ..put(value) };
        let name = |actor, change: &Change<'_>, into: &mut Vec<u8>| {
            let issued = Dot { actor: Actor(actor), counter: 0 };
            apply(None, change, issued, Hlc(5), into).unwrap().context
        };
        let (mut first, mut second, mut other) = (Vec::new(), Vec::new(), Vec::new());
        let contexts = [name(1, &once, &mut first), name(2, &again, &mut second)];
        name(3, &put(b"other"), &mut other);
        (merge_all([&first[..], &second, &other]).unwrap(), contexts)
    }

    #[test]
    fn a_context_that_saw_one_name_of_a_write_supersedes_them_all() {
        for by in 0..2 {
            let (mut stored, contexts) = named_twice(b"a");
            run(&mut stored, &Change { context: Some(&contexts[by]), ..put(b"b") });
            assert_eq!(values(&stored), [b"other".to_vec(), b"b".to_vec()], "name {by}");
        }
    }

    #[test]
    fn a_retry_that_finds_two_names_gives_a_context_of_both() {
        let token = [3; 16];
        let (mut stored, _) = named_twice(b"a");
        let retried = run(&mut stored, &Change { token: Some(&token), ..put(b"a") });
        assert!(retried.repeated);
        // Wherever one of them is still alone, the next write replaces it.
        for actor in [1, 2] {
            assert!(retried.context.contains(Dot { actor: Actor(actor), counter: 1 }));
        }
        assert!(!retried.context.contains(Dot { actor: Actor(3), counter: 1 }));
    }

    #[test]
    fn a_token_used_for_two_values_removes_neither_unseen() {
        let (mut stored, contexts) = named_twice(b"another");
        run(&mut stored, &Change { context: Some(&contexts[0]), ..put(b"b") });
        let left = [b"another".to_vec(), b"other".to_vec(), b"b".to_vec()];
        assert_eq!(values(&stored), left);
    }

    #[test]
    fn dots_are_never_issued_twice_even_after_deletion() {
        let mut stored = None;
        let context = written(run(&mut stored, &put(b"a")));
        run(&mut stored, &Change { value: None, ..put(b"") });
        assert!(values(&stored).is_empty());
        run(&mut stored, &put(b"b"));
        run(&mut stored, &Change { context: Some(&context), ..put(b"c") });
        assert_eq!(values(&stored), [b"b".to_vec(), b"c".to_vec()], "an old context saw only `a`");
    }

    #[test]
    fn dots_lost_before_a_restart_are_not_issued_again() {
        let (mut lost, mut stored) = (None, None);
        let old = written(run(&mut lost, &put(b"lost")));
        let after = Dot { counter: 100, ..ME };
        let new = apply(None, &put(b"new"), after, Hlc(5), stored.insert(Vec::new())).unwrap();
        assert!(!old.contains(Dot { counter: 101, ..ME }) && new.context.contains(after));
        let change = Change { context: Some(&old), ..put(b"old") };
        let mut bytes = Vec::new();
        apply(stored.as_deref(), &change, after, Hlc(6), &mut bytes).unwrap();
        assert_eq!(values(&Some(bytes)), [b"new".to_vec(), b"old".to_vec()]);
    }

    #[test]
    fn too_many_versions_are_refused_and_resolving_still_works() {
        let mut stored = None;
        for n in 0..MAX_VERSIONS {
            run(&mut stored, &put(&[n as u8]));
        }
        let refused = apply(stored.as_deref(), &put(b"x"), ME, Hlc(5), &mut Vec::new());
        assert_eq!(refused, Err(ChangeError::TooManyVersions));
        let all = Context::new(ObjectRef::decode(stored.as_deref().unwrap()).unwrap().vector());
        run(&mut stored, &Change { context: Some(&all), ..put(b"x") });
        assert_eq!(values(&stored), [b"x".to_vec()]);
    }

    #[test]
    fn damaged_objects_are_not_overwritten() {
        let refused = apply(Some(&[9, 9]), &put(b"x"), ME, Hlc(5), &mut Vec::new());
        assert!(matches!(refused, Err(ChangeError::Stored(_))));
    }
}
