//! What a client has seen of one key, as opaque bytes it hands back with its next write.
//!
//! Format 1, little endian:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | flags, 0 |
//! | 2 | 2 | `v`, entries of the version vector |
//! | 4 | 2 | `d`, single dots beyond the vector |
//! | 6 | 8 | hash of the key it belongs to |
//! | 14 | 16 `v` | actor u64, counter u64; ascending by actor, counters from 1 |
//! | … | 16 `d` | actor u64, counter u64; ascending, counters from 1 |
//! | … | 8 | check: XXH3-64 of all bytes before, seeded with the cluster's secret |
//!
//! The check tells forged, foreign and damaged contexts from real ones; a context that fails is
//! an error, never an empty context: taking it for empty, or believing it, would destroy or
//! resurrect siblings the client never saw. It keeps out mistakes and casual forgery, not an
//! attacker who can study many contexts.

use coronet_probe::{Bug, seeded};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::dot::{DOT_BYTES, Dot, read_sorted};
use super::vector::VersionVector;
use crate::bytes::Reader;
use crate::ids::Actor;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 14;
const CHECK_BYTES: usize = 8;

/// Most entries of a context's version vector.
pub const MAX_VECTOR: usize = 256;

/// Most single dots of a context.
pub const MAX_DOTS: usize = 64;

/// The longest encoded context.
pub const MAX_CONTEXT_BYTES: usize = HEAD_BYTES + (MAX_VECTOR + MAX_DOTS) * DOT_BYTES + CHECK_BYTES;

/// Why bytes are not a context for this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContextError {
    /// Cut off, or longer than any context.
    #[error("context has an impossible length of {0} bytes")]
    Length(usize),
    /// Written by a later version.
    #[error("context has version {0}, this node reads version {VERSION}")]
    Version(u8),
    /// Changed on the way, or made with another secret.
    #[error("context fails its check: it was changed or comes from another cluster")]
    Check,
    /// A real context of another key.
    #[error("context belongs to another key")]
    OtherKey,
    /// The check holds but the content breaks the format.
    #[error("context is malformed")]
    Malformed,
    /// Too much to encode.
    #[error(
        "context would have {vector} vector entries and {dots} dots; at most {MAX_VECTOR} and {MAX_DOTS}"
    )]
    TooLarge {
        /// Entries of the version vector.
        vector: usize,
        /// Single dots.
        dots: usize,
    },
}

/// What was seen of one key: a version vector, and single writes beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    vector: VersionVector,
    dots: Vec<Dot>,
}

impl Context {
    /// Everything the vector covers was seen.
    pub fn new(vector: VersionVector) -> Self {
        Self { vector, dots: Vec::new() }
    }

    /// A vector and single dots, which must be ascending and beyond the vector.
    pub(crate) fn from_parts(vector: VersionVector, dots: Vec<Dot>) -> Self {
        debug_assert!(dots.is_sorted() && dots.iter().all(|dot| !vector.contains(*dot)));
        Self { vector, dots }
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty() && self.dots.is_empty()
    }

    /// Also this write and all earlier ones of its actor were seen.
    pub fn observe_through(&mut self, dot: Dot) {
        self.vector.observe(dot);
        self.drop_covered();
    }

    /// Also everything the other has seen was seen: the least upper bound of both.
    pub fn merge(&mut self, other: &Context) {
        self.vector.merge(&other.vector);
        other.dots.iter().for_each(|dot| self.observe(*dot));
        self.drop_covered();
    }

    /// Whether everything the other has seen was certainly seen here. Single dots never prove a
    /// stretch of a vector: an actor's counters may skip numbers.
    pub fn covers(&self, other: &Context) -> bool {
        self.vector.covers(&other.vector) && other.dots.iter().all(|dot| self.contains(*dot))
    }

    /// The highest counter seen of an actor, single dots included; zero when none.
    pub fn highest(&self, actor: Actor) -> u64 {
        let single = self.dots.iter().filter(|dot| dot.actor == actor).map(|dot| dot.counter);
        single.max().unwrap_or(0).max(self.vector.get(actor))
    }

    fn drop_covered(&mut self) {
        self.dots.retain(|dot| !self.vector.contains(*dot));
    }

    /// Also this one write was seen, but not those between it and the vector.
    pub fn observe(&mut self, dot: Dot) {
        if dot.counter > 0
            && !self.vector.contains(dot)
            && let Err(at) = self.dots.binary_search(&dot)
        {
            self.dots.insert(at, dot);
        }
    }

    /// The same with no more single dots than can be encoded, `keep` among them. To leave dots out
    /// is safe: the next write may let versions stand that were seen, and supersedes none that
    /// were not. Those of a writer's context go without loss: its write has superseded them, and
    /// the object that was written covers them.
    pub(crate) fn bounded(mut self, keep: Dot) -> Self {
        let mut over = self.dots.len().saturating_sub(MAX_DOTS);
        self.dots.retain(|dot| {
            let goes = over > 0 && *dot != keep;
            over -= usize::from(goes);
            !goes
        });
        self
    }

    /// Whether the write was seen.
    pub fn contains(&self, dot: Dot) -> bool {
        self.vector.contains(dot) || self.dots.binary_search(&dot).is_ok()
    }

    /// The version vector.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// Single writes beyond the vector, ascending.
    pub fn dots(&self) -> &[Dot] {
        &self.dots
    }

    /// Appends the encoded context, bound to the key of `key_hash`, and returns its length.
    pub fn encode(
        &self,
        key_hash: u64,
        secret: u64,
        into: &mut Vec<u8>,
    ) -> Result<usize, ContextError> {
        encode_parts(self.vector.entries(), &self.dots, key_hash, secret, into)
    }

    /// Decodes a context and checks that it belongs to the key of `key_hash`.
    pub fn decode(bytes: &[u8], key_hash: u64, secret: u64) -> Result<Self, ContextError> {
        let length = ContextError::Length(bytes.len());
        if !(HEAD_BYTES + CHECK_BYTES..=MAX_CONTEXT_BYTES).contains(&bytes.len()) {
            return Err(length);
        }
        let (payload, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(length)?;
        let mut reader = Reader::new(payload);
        let (Some(version), Some(flags), Some(vector), Some(dots), Some(bound_to)) =
            (reader.u8(), reader.u8(), reader.u16(), reader.u16(), reader.u64())
        else {
            return Err(length);
        };
        if version != VERSION {
            return Err(ContextError::Version(version));
        }
        if xxh3_64_with_seed(payload, secret) != u64::from_le_bytes(*check) {
            return Err(ContextError::Check);
        }
        if bound_to != key_hash && !seeded(Bug::ContextOfAnyKey) {
            return Err(ContextError::OtherKey);
        }
        let (vector, dots) = (usize::from(vector), usize::from(dots));
        if flags != 0
            || vector > MAX_VECTOR
            || dots > MAX_DOTS
            || reader.len() != (vector + dots) * DOT_BYTES
        {
            return Err(ContextError::Malformed);
        }
        let vector = read_sorted(&mut reader, vector, |dot| dot.actor);
        let dots = read_sorted(&mut reader, dots, |dot| *dot);
        match (vector, dots) {
            (Some(vector), Some(dots)) => {
                let vector = VersionVector::from_sorted(vector);
                match dots.iter().any(|dot| vector.contains(*dot)) {
                    true => Err(ContextError::Malformed),
                    false => Ok(Self { vector, dots }),
                }
            }
            _ => Err(ContextError::Malformed),
        }
    }
}

/// Encodes a context without building one: the read path has the vector's entries at hand.
/// They must be ascending by actor, the dots ascending, as [`VersionVector`] and
/// [`ObjectRef`](super::object::ObjectRef) give them.
pub fn encode_parts(
    vector: &[Dot],
    dots: &[Dot],
    key_hash: u64,
    secret: u64,
    into: &mut Vec<u8>,
) -> Result<usize, ContextError> {
    if vector.len() > MAX_VECTOR || dots.len() > MAX_DOTS {
        return Err(ContextError::TooLarge { vector: vector.len(), dots: dots.len() });
    }
    let start = into.len();
    into.extend_from_slice(&[VERSION, 0]);
    into.extend_from_slice(&(vector.len() as u16).to_le_bytes()); // bounded above
    into.extend_from_slice(&(dots.len() as u16).to_le_bytes());
    into.extend_from_slice(&key_hash.to_le_bytes());
    vector.iter().chain(dots).for_each(|dot| dot.write(into));
    let check = xxh3_64_with_seed(&into[start..], secret);
    into.extend_from_slice(&check.to_le_bytes());
    Ok(into.len() - start)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::causality::vector::tests::{dots, vector};

    const KEY: u64 = 0x1234;
    const SECRET: u64 = 0x5eed;

    pub(crate) fn context() -> impl Strategy<Value = Context> {
        (vector(), dots(8)).prop_map(|(vector, dots)| {
            let mut context = Context::new(vector);
            dots.into_iter().for_each(|dot| context.observe(dot));
            context
        })
    }

    fn encoded(context: &Context) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(context.encode(KEY, SECRET, &mut bytes), Ok(bytes.len()));
        bytes
    }

    proptest! {
        #[test]
        fn round_trip(context in context()) {
            prop_assert_eq!(Context::decode(&encoded(&context), KEY, SECRET), Ok(context));
        }

        #[test]
        fn merge_is_the_least_upper_bound(a in context(), b in context(), c in context()) {
            let join = |x: &Context, y: &Context| {
                let mut joined = x.clone();
                joined.merge(y);
                joined
            };
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&a, &a), a.clone());
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
            prop_assert!(join(&a, &b).covers(&a) && join(&a, &b).covers(&b));
            if c.covers(&a) && c.covers(&b) {
                prop_assert!(c.covers(&join(&a, &b)));
            }
        }

        #[test]
        fn any_change_is_noticed(context in context(), at: prop::sample::Index, bit in 0_u32..8) {
            let mut bytes = encoded(&context);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(Context::decode(&bytes, KEY, SECRET).is_err());
        }

        #[test]
        fn any_cut_is_noticed(context in context(), at: prop::sample::Index) {
            let bytes = encoded(&context);
            prop_assert!(Context::decode(&bytes[..at.index(bytes.len())], KEY, SECRET).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Context::decode(&bytes, KEY, SECRET).is_err());
        }

        #[test]
        fn foreign_contexts_are_refused(context in context(), other: u64) {
            let bytes = encoded(&context);
            if other != KEY {
                prop_assert_eq!(
                    Context::decode(&bytes, other, SECRET), Err(ContextError::OtherKey));
            }
            if other != SECRET {
                prop_assert_eq!(Context::decode(&bytes, KEY, other), Err(ContextError::Check));
            }
        }
    }

    #[test]
    fn size_is_bounded() {
        let entries = |n: u64| (0..n).map(|actor| Dot::new(Actor(actor), 1));
        let largest = Context::new(entries(MAX_VECTOR as u64).collect());
        assert!(Context::decode(&encoded(&largest), KEY, SECRET).is_ok());
        let over = Context::new(entries(MAX_VECTOR as u64 + 1).collect());
        assert!(matches!(
            over.encode(KEY, SECRET, &mut Vec::new()),
            Err(ContextError::TooLarge { vector: 257, dots: 0 })
        ));
        let long = vec![VERSION; MAX_CONTEXT_BYTES + 1];
        assert_eq!(Context::decode(&long, KEY, SECRET), Err(ContextError::Length(long.len())));
    }

    #[test]
    fn unknown_version_is_named() {
        let mut bytes = encoded(&Context::default());
        bytes[0] = 9;
        assert_eq!(Context::decode(&bytes, KEY, SECRET), Err(ContextError::Version(9)));
    }

    #[test]
    fn checked_but_unsorted_content_is_malformed() {
        let unsorted = [Dot::new(Actor(2), 1), Dot::new(Actor(1), 1)];
        let mut bytes = Vec::new();
        encode_parts(&unsorted, &[], KEY, SECRET, &mut bytes).unwrap();
        assert_eq!(Context::decode(&bytes, KEY, SECRET), Err(ContextError::Malformed));
        let zero = [Dot::new(Actor(1), 0)];
        bytes.clear();
        encode_parts(&zero, &[], KEY, SECRET, &mut bytes).unwrap();
        assert_eq!(Context::decode(&bytes, KEY, SECRET), Err(ContextError::Malformed));
    }

    #[test]
    fn dots_beyond_the_vector_are_seen_alone() {
        let mut context = Context::new(VersionVector::from_iter([Dot::new(Actor(1), 2)]));
        context.observe(Dot::new(Actor(1), 4));
        context.observe(Dot::new(Actor(1), 1));
        assert!(context.contains(Dot::new(Actor(1), 4)));
        assert!(!context.contains(Dot::new(Actor(1), 3)));
        assert_eq!(context.dots(), [Dot::new(Actor(1), 4)]);
    }
}
