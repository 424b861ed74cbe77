//! What is stored under a key: a version vector and the siblings.
//!
//! Format 1, little endian. No checksum of its own: the engine's blocks and log have theirs.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | flags, 0 |
//! | 2 | 2 | `s`, siblings |
//! | 4 | 2 | `v`, entries of the version vector |
//! | 6 | 16 `v` | actor u64, counter u64; ascending by actor, counters from 1 |
//! | … | | `s` times: |
//! |   | 16 | dot: actor u64, counter u64 |
//! |   | 8 | hybrid timestamp |
//! |   | 1 | flags: 1 tombstone, 2 token follows |
//! |   | 4 | `n`, length of the value |
//! |   | 0 or 16 | idempotency token |
//! |   | `n` | value |
//!
//! Reading borrows ([`ObjectRef`]); one pass checks everything, after which walking the siblings
//! cannot fail. Merging siblings is not done here.

use thiserror::Error;

use super::context::MAX_VECTOR;
use super::dot::{DOT_BYTES, Dot};
use super::hlc::Hlc;
use super::vector::VersionVector;
use crate::bytes::Reader;
use crate::ids::Actor;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 6;
const SIBLING_HEAD_BYTES: usize = DOT_BYTES + 8 + 1 + 4;
const FLAG_TOMBSTONE: u8 = 1;
const FLAG_TOKEN: u8 = 2;

/// Most siblings an object can be stored with. Far above what client writes may create, so that
/// merging what replicas hold never fails.
pub const MAX_SIBLINGS: usize = 1024;

/// A client's name for one write, kept with its sibling: a retry with the same token is the same
/// write.
pub type Token = [u8; 16];

/// Why bytes are not a stored object, or an object cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// Cut off or with bytes left over.
    #[error("stored object does not end where it says")]
    Length,
    /// Written by a later version.
    #[error("stored object has version {0}, this node reads version {VERSION}")]
    Version(u8),
    /// Unknown flags, a vector out of order, a counter of zero, or counts out of bounds.
    #[error("stored object is malformed")]
    Malformed,
    /// More than the format holds.
    #[error(
        "object exceeds the format: {siblings} siblings, {vector} vector entries, largest value {value} bytes"
    )]
    TooLarge {
        /// Number of siblings.
        siblings: usize,
        /// Entries of the version vector.
        vector: usize,
        /// Bytes of the largest value.
        value: usize,
    },
}

/// One version of a key's value, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiblingRef<'a> {
    /// The write that made it.
    pub dot: Dot,
    /// When it was made.
    pub hlc: Hlc,
    /// Whether it is a deletion.
    pub tombstone: bool,
    /// The client's name for the write.
    pub token: Option<&'a Token>,
    /// The value; empty for a deletion.
    pub value: &'a [u8],
}

impl<'a> SiblingRef<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let dot = Dot::read(reader)?;
        let hlc = Hlc(reader.u64()?);
        let flags = reader.u8()?;
        let len = usize::try_from(reader.u32()?).ok()?;
        let token = match flags & FLAG_TOKEN {
            0 => None,
            _ => reader.take(16)?.first_chunk::<16>(),
        };
        let value = reader.take(len)?;
        let known = flags & !(FLAG_TOMBSTONE | FLAG_TOKEN) == 0 && dot.counter > 0;
        known.then_some(Self { dot, hlc, tombstone: flags & FLAG_TOMBSTONE != 0, token, value })
    }

    fn write(&self, into: &mut Vec<u8>) {
        self.dot.write(into);
        into.extend_from_slice(&self.hlc.0.to_le_bytes());
        let tombstone = if self.tombstone { FLAG_TOMBSTONE } else { 0 };
        into.push(tombstone | if self.token.is_some() { FLAG_TOKEN } else { 0 });
        into.extend_from_slice(&(self.value.len() as u32).to_le_bytes()); // bounded by `encode`
        if let Some(token) = self.token {
            into.extend_from_slice(token);
        }
        into.extend_from_slice(self.value);
    }

    /// A copy that owns its bytes.
    pub fn to_owned(&self) -> Sibling {
        Sibling {
            dot: self.dot,
            hlc: self.hlc,
            tombstone: self.tombstone,
            token: self.token.copied(),
            value: self.value.to_vec(),
        }
    }
}

/// A stored object, borrowed from its encoded bytes.
#[derive(Debug, Clone, Copy)]
pub struct ObjectRef<'a> {
    vector: &'a [u8],
    siblings: &'a [u8],
    count: usize,
}

impl<'a> ObjectRef<'a> {
    /// Checks the whole object and borrows it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ObjectError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8().ok_or(ObjectError::Length)?;
        if version != VERSION {
            return Err(ObjectError::Version(version));
        }
        let (Some(flags), Some(count), Some(entries)) = (reader.u8(), reader.u16(), reader.u16())
        else {
            return Err(ObjectError::Length);
        };
        let (count, entries) = (usize::from(count), usize::from(entries));
        if flags != 0 || count > MAX_SIBLINGS || entries > MAX_VECTOR {
            return Err(ObjectError::Malformed);
        }
        let vector = reader.take(entries * DOT_BYTES).ok_or(ObjectError::Length)?;
        check_vector(vector)?;
        let siblings = reader.rest();
        for _ in 0..count {
            if reader.len() < SIBLING_HEAD_BYTES {
                return Err(ObjectError::Length);
            }
            SiblingRef::read(&mut reader).ok_or(ObjectError::Malformed)?;
        }
        if !reader.is_empty() {
            return Err(ObjectError::Length);
        }
        Ok(Self { vector, siblings, count })
    }

    /// Number of siblings, deletions included.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no sibling at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The siblings in stored order.
    pub fn siblings(&self) -> Siblings<'a> {
        Siblings { reader: Reader::new(self.siblings), left: self.count }
    }

    /// Siblings that carry a value.
    pub fn values(&self) -> impl Iterator<Item = SiblingRef<'a>> + use<'a> {
        self.siblings().filter(|sibling| !sibling.tombstone)
    }

    /// Whether nothing is left but deletions.
    pub fn is_deleted(&self) -> bool {
        self.values().next().is_none()
    }

    /// The version vector's entries, ascending by actor.
    pub fn vector_entries(&self) -> impl Iterator<Item = Dot> + use<'a> {
        let mut reader = Reader::new(self.vector);
        std::iter::from_fn(move || Dot::read(&mut reader))
    }

    /// The highest counter the vector has of an actor; zero when none.
    pub fn counter_of(&self, actor: Actor) -> u64 {
        self.vector_entries().find(|entry| entry.actor == actor).map_or(0, |entry| entry.counter)
    }

    /// The version vector.
    pub fn vector(&self) -> VersionVector {
        VersionVector::from_sorted(self.vector_entries().collect())
    }

    /// The latest timestamp of any sibling.
    pub fn latest(&self) -> Hlc {
        self.siblings().map(|sibling| sibling.hlc).max().unwrap_or_default()
    }

    /// A copy that owns its bytes.
    pub fn to_owned(&self) -> Object {
        Object {
            vector: self.vector(),
            siblings: self.siblings().map(|sibling| sibling.to_owned()).collect(),
        }
    }
}

fn check_vector(bytes: &[u8]) -> Result<(), ObjectError> {
    let mut reader = Reader::new(bytes);
    let mut last = None;
    while let Some(entry) = Dot::read(&mut reader) {
        if entry.counter == 0 || last >= Some(entry.actor) {
            return Err(ObjectError::Malformed);
        }
        last = Some(entry.actor);
    }
    Ok(())
}

/// Walks the siblings of a checked object.
#[derive(Debug, Clone)]
pub struct Siblings<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for Siblings<'a> {
    type Item = SiblingRef<'a>;

    fn next(&mut self) -> Option<SiblingRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        SiblingRef::read(&mut self.reader)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Siblings<'_> {}

/// Appends an encoded object: the vector and siblings as they are. Borrowed, so that a value goes
/// from the request straight into the encoded object.
pub fn encode(
    vector: &VersionVector,
    siblings: &[SiblingRef<'_>],
    into: &mut Vec<u8>,
) -> Result<(), ObjectError> {
    let value = siblings.iter().map(|sibling| sibling.value.len()).max().unwrap_or(0);
    if siblings.len() > MAX_SIBLINGS || vector.len() > MAX_VECTOR || u32::try_from(value).is_err() {
        let (siblings, vector) = (siblings.len(), vector.len());
        return Err(ObjectError::TooLarge { siblings, vector, value });
    }
    into.reserve(encoded_len(vector, siblings));
    into.extend_from_slice(&[VERSION, 0]);
    into.extend_from_slice(&(siblings.len() as u16).to_le_bytes()); // bounded above
    into.extend_from_slice(&(vector.len() as u16).to_le_bytes());
    vector.entries().iter().for_each(|entry| entry.write(into));
    siblings.iter().for_each(|sibling| sibling.write(into));
    Ok(())
}

fn encoded_len(vector: &VersionVector, siblings: &[SiblingRef<'_>]) -> usize {
    let sibling = |s: &SiblingRef<'_>| SIBLING_HEAD_BYTES + 16 + s.value.len();
    HEAD_BYTES + vector.len() * DOT_BYTES + siblings.iter().map(sibling).sum::<usize>()
}

/// One version of a key's value, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// The write that made it.
    pub dot: Dot,
    /// When it was made.
    pub hlc: Hlc,
    /// Whether it is a deletion.
    pub tombstone: bool,
    /// The client's name for the write.
    pub token: Option<Token>,
    /// The value; empty for a deletion.
    pub value: Vec<u8>,
}

impl Sibling {
    /// The same, borrowed.
    pub fn borrow(&self) -> SiblingRef<'_> {
        SiblingRef {
            dot: self.dot,
            hlc: self.hlc,
            tombstone: self.tombstone,
            token: self.token.as_ref(),
            value: &self.value,
        }
    }
}

/// A stored object, owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object {
    /// Which writes the object has seen, those of its siblings included.
    pub vector: VersionVector,
    /// The versions nobody has superseded.
    pub siblings: Vec<Sibling>,
}

impl Object {
    /// Appends the encoded object.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<(), ObjectError> {
        let siblings: Vec<_> = self.siblings.iter().map(Sibling::borrow).collect();
        encode(&self.vector, &siblings, into)
    }

    /// Decodes and copies.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectError> {
        ObjectRef::decode(bytes).map(|object| object.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::causality::vector::tests::vector;

    fn sibling() -> impl Strategy<Value = Sibling> {
        let value = prop::collection::vec(any::<u8>(), 0..40);
        (0_u64..5, 1_u64..9, any::<u64>(), any::<bool>(), any::<Option<Token>>(), value).prop_map(
            |(actor, counter, hlc, tombstone, token, value)| Sibling {
                dot: Dot::new(Actor(actor), counter),
                hlc: Hlc(hlc),
                tombstone,
                token,
                value,
            },
        )
    }

    fn object() -> impl Strategy<Value = Object> {
        (vector(), prop::collection::vec(sibling(), 0..4))
            .prop_map(|(vector, siblings)| Object { vector, siblings })
    }

    fn encoded(object: &Object) -> Vec<u8> {
        let mut bytes = Vec::new();
        object.encode(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn round_trip(object in object()) {
            let bytes = encoded(&object);
            let view = ObjectRef::decode(&bytes).unwrap();
            prop_assert_eq!(view.len(), object.siblings.len());
            prop_assert_eq!(view.siblings().len(), object.siblings.len());
            prop_assert_eq!(view.is_deleted(), object.siblings.iter().all(|s| s.tombstone));
            for actor in 0..8 {
                prop_assert_eq!(view.counter_of(Actor(actor)), object.vector.get(Actor(actor)));
            }
            prop_assert_eq!(view.to_owned(), object);
        }

        #[test]
        fn any_cut_or_addition_is_noticed(object in object(), at: prop::sample::Index) {
            let mut bytes = encoded(&object);
            prop_assert!(ObjectRef::decode(&bytes[..at.index(bytes.len())]).is_err());
            bytes.push(0);
            prop_assert_eq!(ObjectRef::decode(&bytes).err(), Some(ObjectError::Length));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            if let Ok(view) = ObjectRef::decode(&bytes) {
                prop_assert_eq!(encoded(&view.to_owned()), bytes);
            }
        }

        #[test]
        fn damage_never_panics(object in object(), at: prop::sample::Index, to: u8) {
            let mut bytes = encoded(&object);
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(view) = ObjectRef::decode(&bytes) {
                prop_assert_eq!(view.siblings().count(), view.len());
            }
        }
    }

    #[test]
    fn unknown_version_is_named() {
        assert_eq!(ObjectRef::decode(&[2, 0, 0, 0, 0, 0]).err(), Some(ObjectError::Version(2)));
        assert_eq!(ObjectRef::decode(&[]).err(), Some(ObjectError::Length));
    }

    #[test]
    fn limits_hold_in_both_directions() {
        let one = Sibling {
            dot: Dot::new(Actor(1), 1),
            hlc: Hlc(1),
            tombstone: false,
            token: None,
            value: Vec::new(),
        };
        let object = Object { vector: VersionVector::new(), siblings: vec![one; MAX_SIBLINGS + 1] };
        assert!(matches!(object.encode(&mut Vec::new()), Err(ObjectError::TooLarge { .. })));
        let claims_many = [VERSION, 0, 0xff, 0xff, 0, 0];
        assert_eq!(ObjectRef::decode(&claims_many).err(), Some(ObjectError::Malformed));
    }

    /// The bytes of format 1, fixed for ever.
    #[test]
    fn golden() {
        let object = Object {
            vector: [Dot::new(Actor(7), 2)].into_iter().collect(),
            siblings: vec![Sibling {
                dot: Dot::new(Actor(7), 2),
                hlc: Hlc(0x0102),
                tombstone: false,
                token: None,
                value: b"hi".to_vec(),
            }],
        };
        let expected = [
            &[1, 0, 1, 0, 1, 0][..],
            &[7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
            b"hi",
        ]
        .concat();
        assert_eq!(encoded(&object), expected);
    }
}
