//! Messages between nodes. One byte of kind, then the fields in the order of the types, little
//! endian; byte strings after a u32 length; options after a byte 0 or 1.

use coronet_ring::bytes::Reader;
use coronet_ring::coordinate::message::{Answer, Ask, Durability, ListedKey, NewWrite, Refusal};
use coronet_ring::{Epoch, Hlc, NodeId, PartitionId};
use thiserror::Error;

/// What one node tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// Do this as a replica.
    Ask {
        /// Comes back in the answers.
        ticket: u64,
        /// The placement the asking node knows.
        epoch: Epoch,
        /// Microseconds the asking node still waits; what comes too late is not begun. Zero: it
        /// waits for ever.
        left_us: u32,
        /// The keyspace; zero is the default one.
        keyspace: u32,
        /// The partition.
        partition: PartitionId,
        /// The key; empty when the ask is about the partition.
        key: Vec<u8>,
        /// What to do.
        ask: Ask,
    },
    /// An answer to an ask. A named write may be answered twice: when named, when stored.
    Answer {
        /// From the ask.
        ticket: u64,
        /// The answer.
        answer: Answer,
    },
    /// A message of the membership protocol, encoded by it.
    Gossip(Vec<u8>),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The message ends before its fields do.
    #[error("peer message is cut")]
    Truncated,
    /// Bytes follow the message's last field.
    #[error("peer message has {0} bytes too many")]
    Excess(usize),
    /// A kind or a choice that this version does not know.
    #[error("peer message: unknown {what} {value}")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u8,
    },
}

const ASK_NAME: u8 = 1;
const ASK_MERGE: u8 = 2;
const ASK_READ: u8 = 3;
const ASK_LIST: u8 = 4;
const NAMED: u8 = 16;
const STORED: u8 = 17;
const COPY: u8 = 18;
const DIGEST: u8 = 19;
const KEYS: u8 = 20;
const REFUSED: u8 = 21;
const GOSSIP: u8 = 32;

/// Refusals by their number on the wire.
const REFUSALS: [Refusal; 10] = [
    Refusal::Busy,
    Refusal::NotReplica,
    Refusal::DiskFull,
    Refusal::ShuttingDown,
    Refusal::Corrupt,
    Refusal::Fenced,
    Refusal::BadContext,
    Refusal::TooManyVersions,
    Refusal::Invalid,
    Refusal::UnknownKeyspace,
];

impl PeerMessage {
    /// Appends the message.
    pub fn write(&self, into: &mut Vec<u8>) {
        match self {
            PeerMessage::Ask { ticket, epoch, left_us, keyspace, partition, key, ask } => {
                into.push(match ask {
                    Ask::Name { .. } => ASK_NAME,
                    Ask::Merge { .. } => ASK_MERGE,
                    Ask::Read { .. } => ASK_READ,
                    Ask::List { .. } => ASK_LIST,
                });
                into.extend_from_slice(&ticket.to_le_bytes());
                into.extend_from_slice(&epoch.0.to_le_bytes());
                into.extend_from_slice(&left_us.to_le_bytes());
                into.extend_from_slice(&keyspace.to_le_bytes());
                into.extend_from_slice(&partition.0.to_le_bytes());
                bytes(key, into);
                write_ask(ask, into);
            }
            PeerMessage::Answer { ticket, answer } => {
                into.push(match answer {
                    Answer::Named { .. } => NAMED,
                    Answer::Stored => STORED,
                    Answer::Copy(_) => COPY,
                    Answer::Digest(_) => DIGEST,
                    Answer::Keys { .. } => KEYS,
                    Answer::Refused(_) => REFUSED,
                });
                into.extend_from_slice(&ticket.to_le_bytes());
                write_answer(answer, into);
            }
            PeerMessage::Gossip(gossip) => {
                into.push(GOSSIP);
                bytes(gossip, into);
            }
        }
    }

    /// Reads a message that is all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes);
        let message = read(&mut reader)?;
        match reader.len() {
            0 => Ok(message),
            excess => Err(MessageError::Excess(excess)),
        }
    }
}

fn bytes(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&(bytes.len() as u32).to_le_bytes()); // values are far below 4 GiB
    into.extend_from_slice(bytes);
}

fn option<T: ?Sized>(option: Option<&T>, into: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    into.push(u8::from(option.is_some()));
    if let Some(value) = option {
        write(value, into);
    }
}

fn write_ask(ask: &Ask, into: &mut Vec<u8>) {
    let stored = |durability: Durability, hint_for: Option<NodeId>, into: &mut Vec<u8>| {
        into.push(durability as u8);
        option(hint_for.as_ref(), into, |node, into| {
            into.extend_from_slice(&node.0.to_le_bytes());
        });
    };
    match ask {
        Ask::Name { write, durability, hint_for } => {
            option(write.value.as_deref(), into, bytes);
            bytes(&write.context, into);
            into.push(u8::from(write.replace));
            option(write.token.as_ref(), into, |token, into| into.extend_from_slice(token));
            stored(*durability, *hint_for, into);
        }
        Ask::Merge { object, durability, hint_for } => {
            bytes(object, into);
            stored(*durability, *hint_for, into);
        }
        Ask::Read { inline } => into.extend_from_slice(&inline.to_le_bytes()),
        Ask::List { prefix, after, limit } => {
            bytes(prefix, into);
            option(after.as_deref(), into, bytes);
            into.extend_from_slice(&limit.to_le_bytes());
        }
    }
}

fn write_answer(answer: &Answer, into: &mut Vec<u8>) {
    match answer {
        Answer::Named { object, context, hlc, versions, stored } => {
            bytes(object, into);
            bytes(context, into);
            into.extend_from_slice(&hlc.0.to_le_bytes());
            into.extend_from_slice(&versions.to_le_bytes());
            into.push(u8::from(*stored));
        }
        Answer::Stored => {}
        Answer::Copy(copy) => option(copy.as_deref(), into, bytes),
        Answer::Digest(digest) => into.extend_from_slice(&digest.to_le_bytes()),
        Answer::Keys { entries, complete } => {
            into.extend_from_slice(&(entries.len() as u32).to_le_bytes());
            for entry in entries {
                bytes(&entry.key, into);
                bytes(&entry.outline, into);
            }
            into.push(u8::from(*complete));
        }
        Answer::Refused(refusal) => {
            let number = REFUSALS.iter().position(|known| known == refusal);
            into.push(number.unwrap_or_default() as u8);
        }
    }
}

type Read<T> = Result<T, MessageError>;

fn whole<T>(value: Option<T>) -> Read<T> {
    value.ok_or(MessageError::Truncated)
}

fn read_bytes(reader: &mut Reader<'_>) -> Read<Vec<u8>> {
    let len = whole(reader.u32())?;
    Ok(whole(reader.take(len as usize))?.to_vec())
}

fn read_bool(reader: &mut Reader<'_>, what: &'static str) -> Read<bool> {
    match whole(reader.u8())? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(MessageError::Unknown { what, value }),
    }
}

fn read_option<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    read: impl FnOnce(&mut Reader<'_>) -> Read<T>,
) -> Read<Option<T>> {
    if read_bool(reader, what)? { read(reader).map(Some) } else { Ok(None) }
}

fn read(reader: &mut Reader<'_>) -> Read<PeerMessage> {
    let kind = whole(reader.u8())?;
    match kind {
        ASK_NAME..=ASK_LIST => {
            let ticket = whole(reader.u64())?;
            let epoch = Epoch(whole(reader.u64())?);
            let (left_us, keyspace) = (whole(reader.u32())?, whole(reader.u32())?);
            let partition = PartitionId(whole(reader.u16())?);
            let key = read_bytes(reader)?;
            let ask = read_ask(kind, reader)?;
            Ok(PeerMessage::Ask { ticket, epoch, left_us, keyspace, partition, key, ask })
        }
        NAMED..=REFUSED => {
            let ticket = whole(reader.u64())?;
            Ok(PeerMessage::Answer { ticket, answer: read_answer(kind, reader)? })
        }
        GOSSIP => Ok(PeerMessage::Gossip(read_bytes(reader)?)),
        value => Err(MessageError::Unknown { what: "kind", value }),
    }
}

fn read_ask(kind: u8, reader: &mut Reader<'_>) -> Read<Ask> {
    let durability = |reader: &mut Reader<'_>| match whole(reader.u8())? {
        0 => Ok(Durability::Durable),
        1 => Ok(Durability::Buffered),
        value => Err(MessageError::Unknown { what: "durability", value }),
    };
    let target = |reader: &mut Reader<'_>| {
        read_option(reader, "hint", |reader| whole(reader.u128()).map(NodeId))
    };
    Ok(match kind {
        ASK_NAME => {
            let value = read_option(reader, "value", read_bytes)?;
            let context = read_bytes(reader)?;
            let replace = read_bool(reader, "replace")?;
            let token = read_option(reader, "token", |reader| whole(reader.array::<16>()))?;
            let write = NewWrite { value, context, replace, token };
            Ask::Name { write, durability: durability(reader)?, hint_for: target(reader)? }
        }
        ASK_MERGE => Ask::Merge {
            object: read_bytes(reader)?,
            durability: durability(reader)?,
            hint_for: target(reader)?,
        },
        ASK_READ => Ask::Read { inline: whole(reader.u32())? },
        _ => Ask::List {
            prefix: read_bytes(reader)?,
            after: read_option(reader, "position", read_bytes)?,
            limit: whole(reader.u32())?,
        },
    })
}

fn read_answer(kind: u8, reader: &mut Reader<'_>) -> Read<Answer> {
    Ok(match kind {
        NAMED => Answer::Named {
            object: read_bytes(reader)?,
            context: read_bytes(reader)?,
            hlc: Hlc(whole(reader.u64())?),
            versions: whole(reader.u16())?,
            stored: read_bool(reader, "stored")?,
        },
        STORED => Answer::Stored,
        COPY => Answer::Copy(read_option(reader, "copy", read_bytes)?),
        DIGEST => Answer::Digest(whole(reader.u64())?),
        KEYS => {
            let count = whole(reader.u32())?;
            // Each entry takes at least its two lengths: no count makes this reserve more.
            let most = reader.len() / 8;
            let mut entries = Vec::with_capacity(most.min(count as usize));
            for _ in 0..count {
                let (key, outline) = (read_bytes(reader)?, read_bytes(reader)?);
                entries.push(ListedKey { key, outline });
            }
            Answer::Keys { entries, complete: read_bool(reader, "complete")? }
        }
        _ => {
            let value = whole(reader.u8())?;
            let refusal = REFUSALS.get(usize::from(value)).copied();
            Answer::Refused(refusal.ok_or(MessageError::Unknown { what: "refusal", value })?)
        }
    })
}
