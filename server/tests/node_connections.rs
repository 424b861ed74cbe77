//! What a node does with bytes that are not what they should be, and with clients that dawdle.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use coronet_net::codec::{ErrorReply, Hello, HelloReply, Put, Request};
use coronet_net::{ErrorCode, Op, RequestHead, Status};
use coronet_ring::CoreId;
use support::{TestNode, config, replies, values};

fn error(code: ErrorCode) -> Status {
    Status::Error(code)
}

#[test]
fn hello_comes_first_and_tells_the_layout() {
    let node = TestNode::new(2);
    let conn = node.connect(1);
    assert_eq!(conn.call(&Request::Ping(b"x")).body, b"x");
    assert_eq!(conn.get(b"k").status(), error(ErrorCode::HelloRequired));
    let reply = conn.call(&Request::Hello(Hello::new(CoreId::ANY, "t")));
    let hello = HelloReply::decode(&reply.body).unwrap();
    assert_eq!((hello.core, hello.partitions, hello.ports.len()), (CoreId(1), 64, 2));
    assert_eq!(conn.get(b"k").status(), Status::NotFound);
}

#[test]
fn versions_without_overlap_end_the_connection_with_an_explanation() {
    let node = TestNode::new(1);
    let conn = node.connect(0);
    let hello = Hello { min_version: 7, max_version: 9, ..Hello::new(CoreId::ANY, "t") };
    conn.send(&conn.head(), &Request::Hello(hello));
    let (bytes, _) = conn.take();
    let reply = replies(&bytes).remove(0);
    assert_eq!(reply.status(), error(ErrorCode::UnsupportedVersion));
    assert!(ErrorReply::decode(&reply.body).unwrap().text.contains("versions 1 to 1"));
    assert!(conn.take().1.close_after);
}

#[test]
fn a_frame_may_come_byte_by_byte_and_many_may_come_at_once() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    let mut bytes = Vec::new();
    for n in 0..5_u8 {
        Request::Ping(&[n]).encode(&conn.head(), None, &mut bytes);
    }
    for byte in &bytes[..60] {
        conn.send_bytes(&[*byte]);
    }
    conn.send_bytes(&bytes[60..]);
    let bodies: Vec<_> = conn.replies().into_iter().map(|reply| reply.body).collect();
    assert_eq!(bodies, [[0], [1], [2], [3], [4]]);
}

#[test]
fn what_is_readable_but_wrong_is_answered_and_the_stream_goes_on() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    let mut ping = Vec::new();
    Request::Ping(b"p").encode(&conn.head(), None, &mut ping);
    let rewritten = |at: usize, to: u8| {
        let mut bytes = ping.clone();
        bytes[at] = to;
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    conn.send_bytes(&rewritten(8, 99)); // version
    conn.send_bytes(&rewritten(9, 200)); // operation
    conn.send(&conn.head(), &Request::Get { key: &vec![1; 2000] });
    conn.send(&conn.head(), &Request::Put(Put { key: b"k", context: b"", value: &[0; 17 << 10] }));
    conn.send(&conn.head(), &Request::Get { key: b"" });
    conn.send_bytes(&ping);
    let statuses: Vec<_> = conn.replies().iter().map(support::Reply::status).collect();
    let expected = [
        error(ErrorCode::UnsupportedVersion),
        error(ErrorCode::UnknownOp),
        error(ErrorCode::KeyTooLarge),
        error(ErrorCode::ValueTooLarge),
        error(ErrorCode::InvalidArgument),
        Status::Ok,
    ];
    assert_eq!(statuses, expected);
    assert!(!conn.take().1.close_after);
}

#[test]
fn what_cannot_be_cut_into_frames_is_answered_and_the_connection_ends() {
    let node = TestNode::new(1);
    for (bytes, code) in [
        (vec![0xff; 100], ErrorCode::FrameTooLarge),
        (vec![1, 0, 0, 0, 9, 9, 9, 9], ErrorCode::BadFrame),
        (
            {
                let mut ping = Vec::new();
                Request::Ping(b"p").encode(&RequestHead::new(Op::Ping, 1), None, &mut ping);
                ping[20] ^= 1;
                ping
            },
            ErrorCode::BadFrame,
        ),
    ] {
        let conn = node.client(0);
        conn.send_bytes(&bytes);
        let (out, _) = conn.take();
        assert_eq!(replies(&out)[0].status(), error(code));
        conn.send_bytes(b"more that nobody reads");
        let (out, state) = conn.take();
        assert!(out.is_empty() && state.close_after);
    }
    assert_eq!(node.client(0).get(b"k").status(), Status::NotFound, "others are served");
}

#[test]
fn before_hello_only_small_frames_are_buffered() {
    let node = TestNode::new(1);
    let conn = node.connect(0);
    conn.send_bytes(&(17_u32 << 10).to_le_bytes());
    conn.send_bytes(&[0; 100]);
    assert_eq!(conn.replies()[0].status(), error(ErrorCode::FrameTooLarge));
    assert!(conn.take().1.close_after);
}

#[test]
fn random_bytes_never_harm_anybody_else() {
    let node = TestNode::new(2);
    let witness = node.client(0);
    witness.put(b"k", b"v");
    let mut rng = node.sim.rng();
    for _ in 0..300 {
        let conn = node.connect(1);
        let mut bytes: Vec<u8> = (0..rng.below(300)).map(|_| rng.below(256) as u8).collect();
        if rng.below(2) == 0 && bytes.len() > 8 {
            // A plausible length, so that more than the first check is reached.
            let len = (bytes.len() - 4) as u32;
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        conn.send_bytes(&bytes);
        conn.take();
        conn.core().disconnect(conn.id);
    }
    assert_eq!(values(&witness.get(b"k")), [b"v"]);
}

#[test]
fn half_open_and_stalled_connections_end_in_time() {
    let node = TestNode::new(1);
    let silent = node.connect(0);
    let stalled = node.client(0);
    let healthy = node.client(0);
    stalled.send_bytes(&[100, 0]);
    node.tick_after(Duration::from_secs(11));
    assert_eq!(silent.replies()[0].status(), error(ErrorCode::HelloRequired));
    assert!(silent.take().1.close_after);
    assert!(!stalled.take().1.close_after);
    node.tick_after(Duration::from_secs(20));
    assert_eq!(stalled.replies()[0].status(), error(ErrorCode::BadFrame));
    assert!(stalled.take().1.close_after);
    assert!(healthy.take().0.is_empty() && !healthy.take().1.close_after);
}

#[test]
fn unread_replies_pause_a_connection_and_reading_resumes_it() {
    let mut config = config(1);
    config.limits.output_bytes = 10_000;
    let node = TestNode::with(config);
    let conn = node.client(0);
    conn.put(b"k", &[7; 4000]);
    let mut bytes = Vec::new();
    for _ in 0..50 {
        Request::Get { key: b"k" }.encode(&conn.head(), None, &mut bytes);
    }
    conn.send_bytes(&bytes);
    assert!(conn.core().next_dirty().is_some());
    let (mut got, mut paused) = (0, 0);
    while got < 50 {
        let (out, state) = conn.take();
        assert!(out.len() < 20_000, "{} bytes waited", out.len());
        assert!(!out.is_empty(), "stuck after {got} replies");
        paused += usize::from(state.paused);
        got += replies(&out).len();
    }
    assert!(paused > 5);
    assert!(!conn.take().1.paused);
}

#[test]
fn requests_in_flight_are_bounded() {
    let mut config = config(2);
    config.limits.in_flight = 4;
    let node = TestNode::with(config);
    let conn = node.client(0);
    let key = node.key_of(1, 0);
    for _ in 0..10 {
        conn.send(&conn.head(), &Request::Get { key: &key });
    }
    assert!(conn.take().1.paused, "four wait for the other core");
    assert_eq!(conn.core().in_flight(), 4);
    let mut got = 0;
    while got < 10 {
        node.settle();
        let replies = conn.replies();
        assert!(!replies.is_empty() && replies.len() <= 4);
        got += replies.len();
    }
    assert!(!conn.take().1.paused);
}

#[test]
fn a_connection_moves_to_the_core_it_asks_for_with_all_it_sent() {
    let node = TestNode::new(2);
    let conn = node.connect(0);
    let mut bytes = Vec::new();
    Request::Hello(Hello::new(CoreId(1), "t")).encode(&conn.head(), None, &mut bytes);
    Request::Ping(b"early").encode(&conn.head(), None, &mut bytes);
    conn.send_bytes(&bytes);
    let (out, state) = conn.take();
    assert!(out.is_empty());
    assert_eq!(state.hand_over, Some(CoreId(1)));
    conn.send_bytes(b"");
    let unread = conn.core().release(conn.id);
    let moved = node.connect(1);
    moved.send_bytes(&unread);
    let replies = moved.replies();
    assert_eq!(HelloReply::decode(&replies[0].body).unwrap().core, CoreId(1));
    assert_eq!(replies[1].body, b"early");
}

#[test]
fn a_peer_that_stops_sending_gets_its_answers_first() {
    let node = TestNode::new(2);
    let conn = node.client(0);
    conn.send(&conn.head(), &Request::Get { key: &node.key_of(1, 0) });
    conn.core().end_of_input(conn.id);
    assert!(!conn.take().1.close_after);
    node.settle();
    let (out, state) = conn.take();
    assert_eq!(replies(&out)[0].status(), Status::NotFound);
    assert!(state.close_after);
}

#[test]
fn replies_to_a_connection_that_left_go_nowhere() {
    let node = TestNode::new(2);
    let conn = node.client(0);
    conn.send(&conn.head(), &Request::Get { key: &node.key_of(1, 0) });
    conn.send(&conn.head(), &Request::Put(Put { key: b"k", context: b"", value: b"v" }));
    conn.core().disconnect(conn.id);
    assert_eq!(conn.core().in_flight(), 0);
    node.settle();
    assert_eq!(values(&node.client(0).get(b"k")), [b"v"]);
}
