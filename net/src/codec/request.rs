//! All requests behind one decoder.

use coronet_ring::bytes::Reader;
use coronet_ring::causality::context::MAX_CONTEXT_BYTES;

use super::admin::Admin;
use super::hello::Hello;
use super::keyspace::KeyspaceRequest;
use super::list::ListRequest;
use super::multi::KeyList;
use super::{DecodeError, check_key_len, finished, read_key};
use crate::frame::{FrameWriter, RequestFrame, RequestHead, TOKEN_BYTES};
use crate::limits::Limits;
use crate::op::Op;

/// The body of a PUT: key length u32, context length u16, key, context, and the value to the end
/// of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What the client has seen of the key; empty for nothing.
    pub context: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// The body of a DELETE: key length u32, context length u16, key, context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What the client has seen of the key; empty for nothing.
    pub context: &'a [u8],
}

/// A request's meaning, borrowed from its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Answer with these bytes.
    Ping(&'a [u8]),
    /// Open the connection.
    Hello(Hello<'a>),
    /// Store a value.
    Put(Put<'a>),
    /// Read a key. Body: key (u32 length, bytes).
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Delete a key.
    Delete(Delete<'a>),
    /// Read several keys.
    MultiGet(KeyList<'a>),
    /// List keys.
    List(ListRequest<'a>),
    /// Read counters. Empty body.
    Stats,
    /// Where does a key live? Body as of GET.
    Route {
        /// The key.
        key: &'a [u8],
    },
    /// The cluster's nodes and placement. Empty body.
    Topology,
    /// Create, change or list keyspaces.
    Keyspace(KeyspaceRequest<'a>),
    /// Do what the operator wants.
    Admin(Admin<'a>),
}

impl<'a> Request<'a> {
    /// Decodes a frame's body within the limits.
    #[inline]
    pub fn decode(frame: &RequestFrame<'a>, limits: &Limits) -> Result<Self, DecodeError> {
        let body = frame.body;
        match frame.head.op {
            Op::Get => Ok(Request::Get { key: only_key(body, limits)? }),
            Op::Put => {
                let [key, context, value] = key_and_context(body, limits)?;
                if value.len() > limits.max_value as usize {
                    let (len, limit) = (value.len(), limits.max_value);
                    return Err(DecodeError::ValueTooLarge { len, limit });
                }
                Ok(Request::Put(Put { key, context, value }))
            }
            Op::Delete => {
                let [key, context, rest] = key_and_context(body, limits)?;
                finished(&Reader::new(rest))?;
                Ok(Request::Delete(Delete { key, context }))
            }
            Op::MultiGet => Ok(Request::MultiGet(KeyList::decode(body, limits)?)),
            Op::List => Ok(Request::List(ListRequest::decode(body, limits)?)),
            Op::Route => Ok(Request::Route { key: only_key(body, limits)? }),
            Op::Ping => Ok(Request::Ping(body)),
            Op::Hello => Ok(Request::Hello(Hello::decode(body)?)),
            Op::Stats => finished(&Reader::new(body)).map(|()| Request::Stats),
            Op::Admin => Ok(Request::Admin(Admin::decode(body)?)),
            Op::Topology => finished(&Reader::new(body)).map(|()| Request::Topology),
            Op::Keyspace => Ok(Request::Keyspace(KeyspaceRequest::decode(body)?)),
        }
    }

    /// The operation.
    pub fn op(&self) -> Op {
        match self {
            Request::Ping(_) => Op::Ping,
            Request::Hello(_) => Op::Hello,
            Request::Put(_) => Op::Put,
            Request::Get { .. } => Op::Get,
            Request::Delete(_) => Op::Delete,
            Request::MultiGet(_) => Op::MultiGet,
            Request::List(_) => Op::List,
            Request::Stats => Op::Stats,
            Request::Topology => Op::Topology,
            Request::Keyspace(_) => Op::Keyspace,
            Request::Admin(_) => Op::Admin,
            Request::Route { .. } => Op::Route,
        }
    }

    /// Appends a whole frame and returns its length. The header's operation is set to the
    /// request's. Lengths are not checked against limits here: the node does that.
    pub fn encode(
        &self,
        head: &RequestHead,
        token: Option<&[u8; TOKEN_BYTES]>,
        out: &mut Vec<u8>,
    ) -> usize {
        let head = RequestHead { op: self.op(), ..*head };
        let mut frame = FrameWriter::request(out, &head, token);
        self.write_body(frame.body());
        frame.finish()
    }

    fn write_body(&self, body: &mut Vec<u8>) {
        match self {
            Request::Ping(bytes) => body.extend_from_slice(bytes),
            Request::Hello(hello) => hello.write(body),
            Request::Put(put) => {
                write_key_and_context(body, put.key, put.context);
                body.extend_from_slice(put.value);
            }
            Request::Get { key } | Request::Route { key } => write_key(body, key),
            Request::Delete(delete) => write_key_and_context(body, delete.key, delete.context),
            Request::MultiGet(keys) => keys.write(body),
            Request::List(list) => list.write(body),
            Request::Keyspace(request) => request.write(body),
            Request::Admin(admin) => admin.write(body),
            Request::Stats | Request::Topology => {}
        }
    }
}

fn only_key<'a>(body: &'a [u8], limits: &Limits) -> Result<&'a [u8], DecodeError> {
    let mut reader = Reader::new(body);
    let key = read_key(&mut reader, limits)?;
    finished(&reader)?;
    Ok(key)
}

/// Key, context and what follows them.
fn key_and_context<'a>(body: &'a [u8], limits: &Limits) -> Result<[&'a [u8]; 3], DecodeError> {
    let mut reader = Reader::new(body);
    let (Some(key), Some(context)) = (reader.u32(), reader.u16()) else {
        return Err(DecodeError::Truncated("lengths"));
    };
    check_key_len(key, limits)?;
    let context = usize::from(context);
    if context > MAX_CONTEXT_BYTES {
        return Err(DecodeError::ContextTooLarge(context));
    }
    let key = reader.take(key as usize).ok_or(DecodeError::Truncated("key"))?;
    let context = reader.take(context).ok_or(DecodeError::Truncated("context"))?;
    Ok([key, context, reader.rest()])
}

fn write_key(body: &mut Vec<u8>, key: &[u8]) {
    body.extend_from_slice(&(key.len() as u32).to_le_bytes()); // a frame is below 4 GiB
    body.extend_from_slice(key);
}

/// Contexts longer than the length field holds are cut, and refused by the node's check.
fn write_key_and_context(body: &mut Vec<u8>, key: &[u8], context: &[u8]) {
    let context = &context[..context.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&(key.len() as u32).to_le_bytes());
    body.extend_from_slice(&(context.len() as u16).to_le_bytes()); // bounded above
    body.extend_from_slice(key);
    body.extend_from_slice(context);
}
