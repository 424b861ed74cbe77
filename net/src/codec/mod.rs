//! The bodies of requests and replies.
//!
//! Requests decode into views that borrow the frame. Replies are written in place by the node
//! (`write` functions append to the frame's body) and decoded into views by the client.

mod admin;
mod cursor;
mod error;
mod hello;
mod keyspace;
mod list;
mod multi;
mod object;
mod reply;
mod request;
mod topology;

pub use admin::{Admin, MAX_CHECKPOINT_NAME, is_checkpoint_name};
pub use cursor::{Cursor, CursorError};
pub use error::{DecodeError, ErrorReply};
pub use hello::{Hello, HelloReply, negotiate};
pub use keyspace::{
    KeyspaceAction, KeyspaceInfo, KeyspaceReply, KeyspaceRequest, MAX_SETTINGS, Settings,
};
pub use list::{Entries, Entry, ListPage, ListRequest, PageWriter};
pub use multi::{KeyList, KeyListBuf, Keys, MultiEntry, MultiResults, MultiWriter};
pub use object::{VersionRef, Versions, VersionsIter, VersionsWriter, Written};
pub use reply::{RouteReply, StatsReply};
pub use request::{Delete, Put, Request};
pub use topology::{TopologyNode, TopologyReply};

use coronet_ring::bytes::Reader;

use crate::limits::Limits;

/// A key: length u32, bytes. Its length is checked before it is taken.
fn read_key<'a>(reader: &mut Reader<'a>, limits: &Limits) -> Result<&'a [u8], DecodeError> {
    let len = reader.u32().ok_or(DecodeError::Truncated("key length"))?;
    check_key_len(len, limits)?;
    reader.take(len as usize).ok_or(DecodeError::Truncated("key"))
}

fn check_key_len(len: u32, limits: &Limits) -> Result<(), DecodeError> {
    if len == 0 {
        return Err(DecodeError::EmptyKey);
    }
    if len > limits.max_key {
        return Err(DecodeError::KeyTooLarge { len, limit: limits.max_key });
    }
    Ok(())
}

/// Bytes after a u16 length.
fn read_short<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], DecodeError> {
    let len = reader.u16().ok_or(DecodeError::Truncated(field))?;
    reader.take(usize::from(len)).ok_or(DecodeError::Truncated(field))
}

/// Appends bytes after a u16 length that `write` fills; more than 65535 are cut off, which the
/// limits of everything written this way rule out.
fn write_short(body: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = body.len();
    body.extend_from_slice(&[0; 2]);
    write(body);
    body.truncate(at + 2 + usize::from(u16::MAX));
    let len = (body.len() - at - 2) as u16; // bounded by the line above
    body[at..at + 2].copy_from_slice(&len.to_le_bytes());
}

fn finished(reader: &Reader<'_>) -> Result<(), DecodeError> {
    if reader.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(reader.len())) }
}
