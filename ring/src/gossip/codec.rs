//! Gossip messages as bytes. Format 1, little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | kind: 1 digest, 2 delta |
//! | 16, 8 | cluster id, hash of the founding settings |
//! | 16 | sender |
//! | | digest, or delta |
//!
//! Newness: generation, version, beat (8 each). Text: length (2), UTF-8. Lists: number (2), items.
//! Digest: complete (1), table epoch (8), hash of the table (8), members (id 16, newness), keyspaces (id 4, version 8,
//! author 16). Delta: members, beats (id, newness), keyspaces, table (length 4, bytes; 0: none),
//! want (1: digest follows, 0). Member: id 16, newness, incarnation 8, standing 1, client address,
//! peer address, rack, weight 4, cores 2. Keyspace: name, version 8, author 16, dropped 1, N 1,
//! R 1, W 1, conflicts 1 (0 siblings, 1 last write wins), options (name, value).
//!
//! The frame that carries a message has the checksum.

use super::keyspace::{Keyspace, KeyspaceId, MAX_NAME, MAX_OPTION, MAX_OPTIONS};
use super::member::{MAX_ADDRESS, Member, Newness, Standing};
use super::message::{Body, ClusterName, Delta, Digest, MAX_DIGEST, MAX_KEYSPACES, Message};
use crate::bytes::Reader;
use crate::causality::resolve::Conflicts;
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::placement::table::{MAX_NODES, MAX_RACK};

const VERSION: u8 = 1;

/// Longest encoded placement table in a message, bytes.
pub const MAX_TABLE: usize = 2 << 20;

/// Why bytes that a node kept are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Of a later release.
    #[error("has format version {0}, this release reads version {VERSION}; upgrade coronetd")]
    Version(u8),
    /// Cut off, changed, or without sense.
    #[error("is damaged")]
    Damaged,
}

/// Checks the version that kept bytes begin with.
pub(super) fn check_version(bytes: &[u8]) -> Result<(), Unreadable> {
    match bytes.first() {
        Some(&VERSION) => Ok(()),
        Some(found) => Err(Unreadable::Version(*found)),
        None => Err(Unreadable::Damaged),
    }
}

impl Message {
    /// Appends the encoded message.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let kind = match self.body {
            Body::Digest(_) => 1,
            Body::Delta(_) => 2,
        };
        into.extend_from_slice(&[VERSION, kind]);
        into.extend_from_slice(&self.cluster.id.to_le_bytes());
        into.extend_from_slice(&self.cluster.founding.to_le_bytes());
        into.extend_from_slice(&self.from.0.to_le_bytes());
        match &self.body {
            Body::Digest(digest) => write_digest(digest, into),
            Body::Delta(delta) => write_delta(delta, into),
        }
    }

    /// Decodes a message; `None` for bytes that are none of this version.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let mut reader = Reader::new(bytes);
        let (version, kind) = (reader.u8()?, reader.u8()?);
        let cluster = ClusterName { id: reader.u128()?, founding: reader.u64()? };
        let from = NodeId(reader.u128()?);
        let body = match (version, kind) {
            (VERSION, 1) => Body::Digest(read_digest(&mut reader)?),
            (VERSION, 2) => Body::Delta(read_delta(&mut reader)?),
            _ => return None,
        };
        reader.is_empty().then_some(Message { cluster, from, body })
    }
}

fn write_text(text: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(&(text.len() as u16).to_le_bytes()); // all texts are limited
    into.extend_from_slice(text.as_bytes());
}

fn read_text(reader: &mut Reader<'_>, most: usize) -> Option<String> {
    let len = usize::from(reader.u16()?);
    let bytes = reader.take(len).filter(|_| len <= most)?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn write_list<T>(items: &[T], into: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    into.extend_from_slice(&(items.len() as u16).to_le_bytes()); // all lists are limited
    items.iter().for_each(|item| write(item, into));
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    most: usize,
    read: impl Fn(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::from(reader.u16()?);
    // Every item has at least four bytes: nothing is reserved beyond what there is.
    let plausible = count <= most && count * 4 <= reader.len();
    if !plausible {
        return None;
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(read(reader)?);
    }
    Some(items)
}

fn write_newness((id, newness): &(NodeId, Newness), into: &mut Vec<u8>) {
    into.extend_from_slice(&id.0.to_le_bytes());
    for number in [newness.generation, newness.version, newness.beat] {
        into.extend_from_slice(&number.to_le_bytes());
    }
}

fn read_newness(reader: &mut Reader<'_>) -> Option<(NodeId, Newness)> {
    let id = NodeId(reader.u128()?);
    let (generation, version, beat) = (reader.u64()?, reader.u64()?, reader.u64()?);
    Some((id, Newness { generation, version, beat }))
}

fn write_digest(digest: &Digest, into: &mut Vec<u8>) {
    into.push(u8::from(digest.complete));
    into.extend_from_slice(&digest.table.0.to_le_bytes());
    into.extend_from_slice(&digest.table_check.to_le_bytes());
    write_list(&digest.members, into, write_newness);
    write_list(&digest.keyspaces, into, |(id, version, author), into| {
        into.extend_from_slice(&id.0.to_le_bytes());
        into.extend_from_slice(&version.to_le_bytes());
        into.extend_from_slice(&author.0.to_le_bytes());
    });
}

fn read_digest(reader: &mut Reader<'_>) -> Option<Digest> {
    let complete = read_bool(reader)?;
    let (table, table_check) = (Epoch(reader.u64()?), reader.u64()?);
    let members = read_list(reader, MAX_DIGEST, read_newness)?;
    let keyspaces = read_list(reader, MAX_KEYSPACES, |reader| {
        Some((KeyspaceId(reader.u32()?), reader.u64()?, NodeId(reader.u128()?)))
    })?;
    Some(Digest { members, complete, keyspaces, table, table_check })
}

fn read_bool(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn write_delta(delta: &Delta, into: &mut Vec<u8>) {
    write_list(&delta.members, into, write_member);
    write_list(&delta.beats, into, write_newness);
    write_list(&delta.keyspaces, into, write_keyspace);
    let table = delta.table.as_deref().unwrap_or_default();
    into.extend_from_slice(&(table.len() as u32).to_le_bytes()); // tables are limited
    into.extend_from_slice(table);
    into.push(u8::from(delta.want.is_some()));
    delta.want.iter().for_each(|digest| write_digest(digest, into));
}

fn read_delta(reader: &mut Reader<'_>) -> Option<Delta> {
    let members = read_list(reader, MAX_NODES, read_member)?;
    let beats = read_list(reader, MAX_NODES, read_newness)?;
    let keyspaces = read_list(reader, MAX_KEYSPACES, read_keyspace)?;
    let len = usize::try_from(reader.u32()?).ok()?;
    let table = reader.take(len).filter(|_| len <= MAX_TABLE)?;
    let table = (len > 0).then(|| table.to_vec());
    let want = match read_bool(reader)? {
        true => Some(read_digest(reader)?),
        false => None,
    };
    Some(Delta { members, beats, keyspaces, table, want })
}

fn write_member(member: &Member, into: &mut Vec<u8>) {
    write_newness(&(member.id, member.newness), into);
    into.extend_from_slice(&member.incarnation.0.to_le_bytes());
    into.push(member.standing as u8);
    write_text(&member.client_address, into);
    write_text(&member.peer_address, into);
    write_text(&member.rack, into);
    into.extend_from_slice(&member.weight.to_le_bytes());
    into.extend_from_slice(&member.cores.to_le_bytes());
}

fn read_member(reader: &mut Reader<'_>) -> Option<Member> {
    let (id, newness) = read_newness(reader)?;
    Some(Member {
        id,
        newness,
        incarnation: Incarnation(reader.u64()?),
        standing: Standing::from_u8(reader.u8()?)?,
        client_address: read_text(reader, MAX_ADDRESS)?,
        peer_address: read_text(reader, MAX_ADDRESS)?,
        rack: read_text(reader, MAX_RACK)?,
        weight: reader.u32()?,
        cores: reader.u16()?,
    })
}

/// Appends definitions as they are kept on disk: version 1 (1), list.
pub fn encode_keyspaces<'a>(keyspaces: impl IntoIterator<Item = &'a Keyspace>, into: &mut Vec<u8>) {
    let keyspaces: Vec<&Keyspace> = keyspaces.into_iter().take(MAX_KEYSPACES).collect();
    into.push(VERSION);
    write_list(&keyspaces, into, |keyspace, into| write_keyspace(keyspace, into));
}

/// Reads [`encode_keyspaces`].
///
/// # Errors
/// For other bytes, for those of a later version, and for definitions that make no sense.
pub fn decode_keyspaces(bytes: &[u8]) -> Result<Vec<Keyspace>, Unreadable> {
    check_version(bytes)?;
    let mut reader = Reader::new(&bytes[1..]); // the version is there
    let keyspaces = read_list(&mut reader, MAX_KEYSPACES, read_keyspace);
    let keyspaces = keyspaces.ok_or(Unreadable::Damaged)?;
    let sound = keyspaces.iter().all(|keyspace| keyspace.check().is_ok());
    if reader.is_empty() && sound { Ok(keyspaces) } else { Err(Unreadable::Damaged) }
}

fn write_keyspace(keyspace: &Keyspace, into: &mut Vec<u8>) {
    write_text(&keyspace.name, into);
    into.extend_from_slice(&keyspace.version.to_le_bytes());
    into.extend_from_slice(&keyspace.author.0.to_le_bytes());
    let lww = u8::from(keyspace.conflicts == Conflicts::LastWriteWins);
    let dropped = u8::from(keyspace.dropped);
    into.extend_from_slice(&[dropped, keyspace.n, keyspace.r, keyspace.w, lww]);
    write_list(&keyspace.options, into, |(name, value), into| {
        write_text(name, into);
        write_text(value, into);
    });
}

fn read_keyspace(reader: &mut Reader<'_>) -> Option<Keyspace> {
    Some(Keyspace {
        name: read_text(reader, MAX_NAME)?,
        version: reader.u64()?,
        author: NodeId(reader.u128()?),
        dropped: read_bool(reader)?,
        n: reader.u8()?,
        r: reader.u8()?,
        w: reader.u8()?,
        conflicts: match read_bool(reader)? {
            true => Conflicts::LastWriteWins,
            false => Conflicts::Siblings,
        },
        options: read_list(reader, MAX_OPTIONS, |reader| {
            Some((read_text(reader, MAX_OPTION)?, read_text(reader, MAX_OPTION)?))
        })?,
    })
}
