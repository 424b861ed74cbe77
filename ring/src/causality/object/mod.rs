//! What is stored under a key: which writes were seen, and the siblings.
//!
//! Formats 1 and 2, little endian. No checksum of its own: the engine's blocks and log have
//! theirs. Format 2 is written only when there are single dots; format 1 has neither field `d`.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 or 2 |
//! | 1 | 1 | flags, 0 |
//! | 2 | 2 | `s`, siblings |
//! | 4 | 2 | `v`, entries of the version vector |
//! | 6 | 0 or 2 | `d`, single dots beyond the vector, at least 1 (format 2) |
//! | … | 16 `v` | actor u64, counter u64; ascending by actor, counters from 1 |
//! | … | 16 `d` | actor u64, counter u64; ascending, beyond the vector (format 2) |
//! | … | | `s` times: |
//! |   | 16 | dot: actor u64, counter u64 |
//! |   | 8 | hybrid timestamp |
//! |   | 1 | flags: 1 tombstone, 2 token follows |
//! |   | 4 | `n`, length of the value |
//! |   | 0 or 16 | idempotency token |
//! |   | `n` | value |
//!
//! Reading borrows ([`ObjectRef`]); one pass checks everything, after which walking the siblings
//! cannot fail. Siblings are stored ascending by dot, so that equal objects have equal bytes.
//! Merging is in [`merge`](super::merge), writing in [`update`](super::update).

use thiserror::Error;

use super::context::{Context, MAX_VECTOR};
use super::dot::{DOT_BYTES, Dot, read_sorted};
use super::hlc::Hlc;
use super::vector::VersionVector;
use crate::bytes::Reader;
use crate::ids::Actor;

/// The newest format, with single dots beyond the vector.
const VERSION: u8 = 2;
/// The format of objects without single dots.
const VERSION_PLAIN: u8 = 1;
const HEAD_BYTES: usize = 8;
const SIBLING_HEAD_BYTES: usize = DOT_BYTES + 8 + 1 + 4;
const FLAG_TOMBSTONE: u8 = 1;
const FLAG_TOKEN: u8 = 2;

/// Most siblings an object can be stored with. Far above what client writes may create, so that
/// merging what replicas hold never fails.
pub const MAX_SIBLINGS: usize = 1024;

/// Most single dots beyond the vector. They come from contexts of writes that left siblings
/// standing and vanish once the replica has merged with the one that issued them.
pub const MAX_SINGLE_DOTS: usize = 1024;

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
        "object exceeds the format: {siblings} siblings, {vector} vector entries, {dots} single \
         dots, largest value {value} bytes"
    )]
    TooLarge {
        /// Number of siblings.
        siblings: usize,
        /// Entries of the version vector.
        vector: usize,
        /// Single dots beyond the vector.
        dots: usize,
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
    dots: &'a [u8],
    siblings: &'a [u8],
    count: usize,
}

impl<'a> ObjectRef<'a> {
    /// Checks the whole object and borrows it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ObjectError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8().ok_or(ObjectError::Length)?;
        if !(VERSION_PLAIN..=VERSION).contains(&version) {
            return Err(ObjectError::Version(version));
        }
        let (Some(flags), Some(count), Some(entries)) = (reader.u8(), reader.u16(), reader.u16())
        else {
            return Err(ObjectError::Length);
        };
        let single = if version == VERSION { reader.u16() } else { Some(0) };
        let single = usize::from(single.ok_or(ObjectError::Length)?);
        let (count, entries) = (usize::from(count), usize::from(entries));
        let bounded = count <= MAX_SIBLINGS && entries <= MAX_VECTOR && single <= MAX_SINGLE_DOTS;
        // Without single dots an object has one encoding only, the plain one.
        if flags != 0 || !bounded || (version == VERSION && single == 0) {
            return Err(ObjectError::Malformed);
        }
        let vector = reader.take(entries * DOT_BYTES).ok_or(ObjectError::Length)?;
        let dots = reader.take(single * DOT_BYTES).ok_or(ObjectError::Length)?;
        check_seen(vector, dots)?;
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
        Ok(Self { vector, dots, siblings, count })
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

    /// The single dots beyond the vector, ascending.
    pub fn dot_entries(&self) -> impl Iterator<Item = Dot> + use<'a> {
        let mut reader = Reader::new(self.dots);
        std::iter::from_fn(move || Dot::read(&mut reader))
    }

    /// Which writes the object has seen, those of its siblings included.
    pub fn seen(&self) -> Context {
        Context::from_parts(self.vector(), self.dot_entries().collect())
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
            seen: self.seen(),
            siblings: self.siblings().map(|sibling| sibling.to_owned()).collect(),
        }
    }
}

/// Vector entries ascend by actor; single dots ascend and lie beyond the vector. Allocates
/// nothing for the common object without single dots.
fn check_seen(vector: &[u8], dots: &[u8]) -> Result<(), ObjectError> {
    let mut reader = Reader::new(vector);
    let mut last = None;
    while let Some(entry) = Dot::read(&mut reader) {
        if entry.counter == 0 || last >= Some(entry.actor) {
            return Err(ObjectError::Malformed);
        }
        last = Some(entry.actor);
    }
    if dots.is_empty() {
        return Ok(());
    }
    let entries = vector.len() / DOT_BYTES;
    let vector = read_sorted(&mut Reader::new(vector), entries, |dot| dot.actor);
    let single = read_sorted(&mut Reader::new(dots), dots.len() / DOT_BYTES, |dot| *dot);
    match (vector.map(VersionVector::from_sorted), single) {
        (Some(vector), Some(dots)) if !dots.iter().any(|dot| vector.contains(*dot)) => Ok(()),
        _ => Err(ObjectError::Malformed),
    }
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

/// Appends an encoded object: what was seen, and the siblings, which must ascend by dot. Borrowed,
/// so that a value goes from the request straight into the encoded object.
pub fn encode(
    seen: &Context,
    siblings: &[SiblingRef<'_>],
    into: &mut Vec<u8>,
) -> Result<(), ObjectError> {
    debug_assert!(siblings.is_sorted_by_key(|sibling| sibling.dot));
    let value = siblings.iter().map(|sibling| sibling.value.len()).max().unwrap_or(0);
    let (vector, dots) = (seen.vector().entries(), seen.dots());
    if siblings.len() > MAX_SIBLINGS
        || vector.len() > MAX_VECTOR
        || dots.len() > MAX_SINGLE_DOTS
        || u32::try_from(value).is_err()
    {
        let (siblings, vector, dots) = (siblings.len(), vector.len(), dots.len());
        return Err(ObjectError::TooLarge { siblings, vector, dots, value });
    }
    let sibling = |s: &SiblingRef<'_>| SIBLING_HEAD_BYTES + 16 + s.value.len();
    let bytes = siblings.iter().map(sibling).sum::<usize>();
    into.reserve(HEAD_BYTES + (vector.len() + dots.len()) * DOT_BYTES + bytes);
    into.extend_from_slice(&[if dots.is_empty() { VERSION_PLAIN } else { VERSION }, 0]);
    into.extend_from_slice(&(siblings.len() as u16).to_le_bytes()); // bounded above
    into.extend_from_slice(&(vector.len() as u16).to_le_bytes());
    if !dots.is_empty() {
        into.extend_from_slice(&(dots.len() as u16).to_le_bytes());
    }
    vector.iter().chain(dots).for_each(|entry| entry.write(into));
    siblings.iter().for_each(|sibling| sibling.write(into));
    Ok(())
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
    pub seen: Context,
    /// The versions nobody has superseded, ascending by dot.
    pub siblings: Vec<Sibling>,
}

impl Object {
    /// Appends the encoded object.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<(), ObjectError> {
        let siblings: Vec<_> = self.siblings.iter().map(Sibling::borrow).collect();
        encode(&self.seen, &siblings, into)
    }

    /// Decodes and copies.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectError> {
        ObjectRef::decode(bytes).map(|object| object.to_owned())
    }
}

#[cfg(test)]
mod tests;
