//! What a hostile or broken client can send: truncated, oversized, unknown-version and random
//! frames, thousands of half-open connections, values over the limit. Each gets a clear error or a
//! closed connection; the server goes on serving and loses nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use coronet_net::codec::{ErrorReply, Hello, HelloReply, Put, Request};
use coronet_net::frame::HEADER_BYTES;
use coronet_net::{ErrorCode, FrameWriter, Limits, Op, Parsed, ReplyFrame, RequestHead, Status};
use coronet_ring::CoreId;
use support::{Random, Server, run_ok};

/// No answer within this is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Replies in these tests are small.
const MAX_REPLY: u32 = 64 << 20;

/// A connection on which anything can be sent.
struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Reply(u64, Status),
    Closed,
}

impl Wire {
    fn connect(server: &Server) -> Wire {
        let stream = TcpStream::connect(&server.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire { stream, input: Vec::new() }
    }

    /// A connection that has said HELLO, and what the server told.
    fn greeted(server: &Server) -> (Wire, HelloReply) {
        let mut wire = Wire::connect(server);
        wire.send(&frame(&Request::Hello(Hello::new(CoreId::ANY, "bad input test")), 1));
        let reply = wire.reply(|reply| {
            assert_eq!(reply.head.status, Status::Ok);
            HelloReply::decode(reply.body).unwrap()
        });
        (wire, reply.expect("an answer to HELLO"))
    }

    /// Sends; a server that has closed already is no error here.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn reply<R>(&mut self, read: impl FnOnce(&ReplyFrame<'_>) -> R) -> Option<R> {
        loop {
            if let Parsed::Frame { frame, consumed } =
                ReplyFrame::parse(&self.input, MAX_REPLY).expect("a sound reply")
            {
                let result = read(&frame);
                self.input.drain(..consumed);
                return Some(result);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no answer: {e}"),
            }
        }
    }

    fn answer(&mut self) -> Answer {
        let reply = self.reply(|reply| {
            if let Status::Error(code) = reply.head.status {
                let error = ErrorReply::decode(reply.body).expect("an error body");
                assert!(!error.text.is_empty(), "{code} without a text");
            }
            Answer::Reply(reply.head.request_id, reply.head.status)
        });
        reply.unwrap_or(Answer::Closed)
    }

    /// Everything until the server closes.
    fn drain(&mut self) {
        while self.reply(|_| ()).is_some() {}
    }

    fn expect_error(&mut self, bytes: &[u8], code: ErrorCode) {
        self.send(bytes);
        assert_eq!(self.answer(), Answer::Reply(9, Status::Error(code)));
    }

    fn ping(&mut self) {
        self.send(&frame(&Request::Ping(b"still there?"), 77));
        assert_eq!(self.answer(), Answer::Reply(77, Status::Ok));
    }
}

fn frame(request: &Request<'_>, id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&RequestHead::new(request.op(), id), None, &mut out);
    out
}

/// A frame with a body that is not what its operation asks for.
fn raw_body(op: Op, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::request(&mut out, &RequestHead::new(op, 9), None);
    frame.body().extend_from_slice(body);
    frame.finish();
    out
}

/// Changes bytes of a whole frame and makes its checksum right again.
fn forged(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

fn put(key: &[u8], value: &[u8]) -> Vec<u8> {
    frame(&Request::Put(Put { key, context: &[], value }), 9)
}

fn get(key: &[u8]) -> Vec<u8> {
    frame(&Request::Get { key }, 9)
}

/// A server with a value that must survive everything.
fn server(scratch: &tempfile::TempDir) -> Server {
    let server = Server::start(&scratch.path().join("data"));
    run_ok(&server.addr, &["put", "canary", "alive"]);
    server
}

fn assert_serves(server: &mut Server) {
    assert!(server.is_running(), "the server ended:\n{}", server.log());
    assert_eq!(run_ok(&server.addr, &["get", "canary"]), b"alive");
    run_ok(&server.addr, &["put", "after", "still writable"]);
    assert_eq!(run_ok(&server.addr, &["get", "after"]), b"still writable");
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn refused_requests_leave_the_connection_usable() {
    let scratch = tempfile::tempdir().unwrap();
    let mut server = server(&scratch);
    let (mut wire, hello) = Wire::greeted(&server);
    wire.expect_error(&forged(get(b"k"), |f| f[8] = 99), ErrorCode::UnsupportedVersion);
    wire.ping();
    wire.expect_error(&forged(get(b"k"), |f| f[9] = 200), ErrorCode::UnknownOp);
    wire.ping();
    wire.expect_error(&forged(get(b"k"), |f| f[10] |= 0x40), ErrorCode::InvalidArgument);
    wire.ping();
    wire.expect_error(&raw_body(Op::Get, &100u32.to_le_bytes()), ErrorCode::BadFrame);
    wire.expect_error(&raw_body(Op::Put, b"\x05"), ErrorCode::BadFrame);
    wire.expect_error(&raw_body(Op::Stats, b"unexpected"), ErrorCode::BadFrame);
    wire.expect_error(&get(b""), ErrorCode::InvalidArgument);
    wire.ping();
    let Limits { max_key, max_value, .. } = hello.limits;
    let long_key = vec![b'k'; max_key as usize + 1];
    wire.expect_error(&get(&long_key), ErrorCode::KeyTooLarge);
    wire.expect_error(&put(&long_key, b""), ErrorCode::KeyTooLarge);
    wire.ping();
    wire.expect_error(&put(b"k", &vec![1; max_value as usize + 1]), ErrorCode::ValueTooLarge);
    wire.ping();
    let forged_context = Put { key: b"canary", context: &[9; 40], value: b"gone?" };
    wire.expect_error(&frame(&Request::Put(forged_context), 9), ErrorCode::BadContext);
    wire.ping();
    assert_serves(&mut server);
    assert!(server.stop().success());
}

#[test]
fn the_largest_allowed_key_and_value_are_stored() {
    let scratch = tempfile::tempdir().unwrap();
    let mut server = server(&scratch);
    let (mut wire, hello) = Wire::greeted(&server);
    let Limits { max_key, max_value, .. } = hello.limits;
    let key = vec![b'k'; max_key as usize];
    let value = Random(5).bytes(max_value as usize);
    wire.send(&put(&key, &value));
    assert_eq!(wire.answer(), Answer::Reply(9, Status::Ok));
    wire.send(&get(&key));
    let equal = wire.reply(|reply| {
        let versions = coronet_net::codec::Versions::decode(reply.body).unwrap();
        versions.iter().next().is_some_and(|version| version.value == value)
    });
    assert_eq!(equal, Some(true));
    assert_serves(&mut server);
    assert!(server.stop().success());
}

#[test]
fn unreadable_streams_are_closed() {
    let scratch = tempfile::tempdir().unwrap();
    let mut server = server(&scratch);
    let closed = |mut wire: Wire, bytes: &[u8], code| {
        wire.send(bytes);
        // Nobody knows which request it was: the stream is not to be read on.
        assert_eq!(wire.answer(), Answer::Reply(0, Status::Error(code)));
        assert_eq!(wire.answer(), Answer::Closed);
    };
    // Lengths: below a header, over the limit, as large as the field goes.
    let lengths = [
        (0, ErrorCode::BadFrame),
        (HEADER_BYTES as u32 - 5, ErrorCode::BadFrame),
        (u32::MAX - 4, ErrorCode::FrameTooLarge),
        (u32::MAX, ErrorCode::FrameTooLarge),
    ];
    for (length, code) in lengths {
        for greeted in [false, true] {
            let wire = if greeted { Wire::greeted(&server).0 } else { Wire::connect(&server) };
            let mut bytes = get(b"k");
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            closed(wire, &bytes, code);
        }
    }
    // A damaged checksum.
    let mut bytes = put(b"canary", b"damaged");
    *bytes.last_mut().unwrap() ^= 1;
    closed(Wire::greeted(&server).0, &bytes, ErrorCode::BadFrame);
    // Before HELLO a large frame is refused whatever its content: its head is enough.
    let large = put(b"canary", &vec![0; 100 << 10]);
    closed(Wire::connect(&server), &large[..HEADER_BYTES], ErrorCode::FrameTooLarge);
    let mut wire = Wire::connect(&server);
    wire.send(&large);
    wire.drain();
    // And so is work.
    let mut wire = Wire::connect(&server);
    wire.expect_error(&put(b"canary", b"without HELLO"), ErrorCode::HelloRequired);
    assert_serves(&mut server);
    assert!(server.stop().success());
}

#[test]
fn frames_cut_at_every_byte_do_no_harm() {
    let scratch = tempfile::tempdir().unwrap();
    let mut server = server(&scratch);
    let whole = put(b"canary", b"half");
    for cut in 0..whole.len() {
        let (mut wire, _) = Wire::greeted(&server);
        wire.send(&whole[..cut]);
    }
    // The same frame byte by byte is a good one.
    let (mut wire, _) = Wire::greeted(&server);
    for byte in put(b"slow", b"but whole") {
        wire.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(wire.answer(), Answer::Reply(9, Status::Ok));
    assert_eq!(run_ok(&server.addr, &["get", "slow"]), b"but whole");
    assert_serves(&mut server);
    assert!(server.stop().success());
}

#[test]
fn random_bytes_and_random_bodies_do_no_harm() {
    let scratch = tempfile::tempdir().unwrap();
    let mut server = server(&scratch);
    let mut random = Random(0xBAD);
    for round in 0..400 {
        let mut wire =
            if round % 2 == 0 { Wire::connect(&server) } else { Wire::greeted(&server).0 };
        for _ in 0..1 + random.below(8) {
            let length = random.below(600) as usize;
            let noise = random.bytes(length);
            match random.below(3) {
                0 => wire.send(&noise),
                // A sound frame around noise reaches the decoders of the bodies.
                1 => {
                    let op = Op::ALL[random.below(Op::ALL.len() as u64) as usize];
                    wire.send(&raw_body(op, &noise));
                }
                // A sound frame with a forged header.
                _ => {
                    let at = 8 + random.below(32) as usize;
                    let byte = random.next() as u8;
                    wire.send(&forged(raw_body(Op::Put, &noise), |f| f[at] = byte));
                }
            }
        }
        if round % 3 == 0 {
            // Leave without reading a single answer.
            continue;
        }
        let _ = wire.stream.shutdown(std::net::Shutdown::Write);
        wire.drain();
    }
    assert_serves(&mut server);
    assert!(server.stop().success());
}

/// Raises the limit of open files of this process as far as allowed; returns it.
fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[test]
fn ten_thousand_half_open_connections_do_not_stop_the_service() {
    let scratch = tempfile::tempdir().unwrap();
    // The server inherits the raised limit.
    let allowed = raise_open_files();
    let mut server = server(&scratch);
    let count = 10_000.min(allowed.saturating_sub(500));
    eprintln!("{count} connections; {allowed} open files allowed on each side");
    let hello = frame(&Request::Hello(Hello::new(CoreId::ANY, "half open")), 1);
    let mut held = Vec::new();
    for number in 0..count {
        let stream =
            TcpStream::connect(&server.addr).unwrap_or_else(|e| panic!("connection {number}: {e}"));
        let sent = match number % 3 {
            0 => Ok(()),
            1 => (&stream).write_all(&hello[..7]),
            _ => (&stream).write_all(&[&hello[..], &put(b"never", b"whole")[..20]].concat()),
        };
        sent.unwrap_or_else(|e| panic!("connection {number}: {e}"));
        held.push(stream);
    }
    assert_serves(&mut server);
    drop(held);
    assert_serves(&mut server);
    assert!(server.stop().success());
}
