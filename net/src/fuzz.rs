//! Every decoder that sees bytes from outside, one function each.
//!
//! Each takes any bytes, must neither panic nor allocate beyond their size, and checks that what
//! decodes encodes to the same again where the format is canonical. Tests drive them with random
//! bytes; a fuzzer can drive them as they are.

use coronet_ring::gossip::message::Message as Gossip;
use coronet_ring::{Context, KeyspaceId, ObjectRef, Table};

use crate::codec::{
    Cursor, ErrorReply, Hello, HelloReply, KeyList, ListPage, ListRequest, MultiResults, Request,
    RouteReply, StatsReply, TopologyReply, Versions, Written,
};
use crate::frame::{Parsed, ReplyFrame, RequestFrame, RequestHead};
use crate::limits::Limits;
use crate::op::Op;
use crate::peer::{Batch, Frame, FrameKind, Greeting, PeerMessage};

/// A decoder that takes any bytes.
pub type Entry = fn(&[u8]);

/// Every entry with its name.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("request_stream", request_stream),
    ("reply_stream", reply_stream),
    ("request_bodies", request_bodies),
    ("reply_bodies", reply_bodies),
    ("context", context),
    ("object", object),
    ("cursor", cursor),
    ("peer_stream", peer_stream),
    ("peer_message", peer_message),
    ("gossip", gossip),
    ("placement", placement),
];

/// A stream of requests, as a node reads it.
pub fn request_stream(mut bytes: &[u8]) {
    let limits = Limits::new(1 << 10, 1 << 16);
    while let Ok(Parsed::Frame { frame, consumed }) = RequestFrame::parse(bytes, limits.max_frame) {
        if let Ok(request) = Request::decode(&frame, &limits) {
            let mut again = Vec::new();
            request.encode(&frame.head, frame.token, &mut again);
            // HELLO may carry fields of later versions, which are not encoded again.
            assert!(frame.head.op == Op::Hello || again == bytes[..consumed]);
        }
        bytes = &bytes[consumed..];
    }
}

/// A stream of replies, as a client reads it.
pub fn reply_stream(mut bytes: &[u8]) {
    while let Ok(Parsed::Frame { frame, consumed }) = ReplyFrame::parse(bytes, 1 << 20) {
        reply_bodies(frame.body);
        bytes = &bytes[consumed..];
    }
}

/// The bytes as the body of every request.
pub fn request_bodies(body: &[u8]) {
    let limits = Limits::new(1 << 10, 1 << 16);
    for op in Op::ALL {
        let frame = RequestFrame { head: RequestHead::new(op, 0), token: None, body };
        let _ = Request::decode(&frame, &limits);
    }
    let _ = Hello::decode(body);
    let _ = ListRequest::decode(body, &limits);
    if let Ok(keys) = KeyList::decode(body, &limits) {
        assert_eq!(keys.iter().count(), keys.len());
    }
}

/// The bytes as the body of every reply.
pub fn reply_bodies(body: &[u8]) {
    let _ = (ErrorReply::decode(body), HelloReply::decode(body), Written::decode(body));
    let _ = (RouteReply::decode(body), StatsReply::decode(body), TopologyReply::decode(body));
    if let Ok(versions) = Versions::decode(body) {
        assert_eq!(versions.iter().count(), versions.len());
    }
    if let Ok(page) = ListPage::decode(body) {
        assert_eq!(page.entries().count(), page.len());
    }
    if let Ok(results) = MultiResults::decode(body) {
        assert!(results.count() <= body.len());
    }
}

/// The bytes as a context.
pub fn context(bytes: &[u8]) {
    if let Ok(context) = Context::decode(bytes, 0, 0) {
        let mut again = Vec::new();
        assert_eq!(context.encode(0, 0, &mut again), Ok(bytes.len()));
    }
}

/// The bytes as a stored object.
pub fn object(bytes: &[u8]) {
    if let Ok(object) = ObjectRef::decode(bytes) {
        assert_eq!(object.siblings().count(), object.len());
        let _ = (object.vector(), object.latest());
    }
}

/// The bytes as a cursor.
pub fn cursor(bytes: &[u8]) {
    if let Ok(cursor) = Cursor::decode(bytes, KeyspaceId::DEFAULT, b"", 1024) {
        let mut again = Vec::new();
        cursor.encode(KeyspaceId::DEFAULT, b"", 1024, &mut again);
        assert_eq!(again, bytes);
    }
}

/// A stream between nodes, as the receiving one reads it.
pub fn peer_stream(mut bytes: &[u8]) {
    while let Ok(Parsed::Frame { frame, consumed }) = Frame::parse(bytes, 1 << 20) {
        match frame.kind {
            FrameKind::Batch => Batch::new(frame.body).for_each(peer_message),
            FrameKind::Greeting => drop(Greeting::decode(frame.body)),
            FrameKind::Refused | FrameKind::Credit => {}
        }
        bytes = &bytes[consumed..];
    }
}

/// The bytes as a message between nodes.
pub fn peer_message(bytes: &[u8]) {
    if let Ok(message) = PeerMessage::decode(bytes) {
        let mut again = Vec::new();
        message.write(&mut again);
        assert_eq!(again, bytes);
    }
}

/// The bytes as a gossip message.
pub fn gossip(bytes: &[u8]) {
    if let Some(message) = Gossip::decode(bytes) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(again, bytes);
    }
}

/// The bytes as a placement table.
pub fn placement(bytes: &[u8]) {
    if let Ok(table) = Table::decode(bytes) {
        let mut again = Vec::new();
        table.encode(&mut again);
        assert_eq!(again, bytes);
    }
}
