//! Frames and bodies: everything comes back, nothing damaged gets through, nothing panics.
#![allow(missing_docs, clippy::unwrap_used)]

use coronet_net::codec::{
    Cursor, CursorError, DecodeError, Delete, Entry, ErrorReply, Hello, HelloReply, KeyListBuf,
    ListPage, ListRequest, MultiResults, MultiWriter, PageWriter, Put, Request, RouteReply,
    StatsReply, VersionRef, Versions, VersionsWriter, Written, negotiate,
};
use coronet_net::limits::{MAX_CREDIT, MAX_KEYS, MAX_PAGE, PRE_HELLO_MAX_FRAME};
use coronet_net::{
    Consistency, Durability, ErrorCode, FrameError, FrameWriter, Limits, Op, Parsed, Quorum,
    QuorumMode, ReplyFlags, ReplyFrame, ReplyHead, RequestFlags, RequestFrame, RequestHead, Status,
    fuzz,
};
use coronet_ring::{CoreId, Epoch, Hlc, Incarnation, KeyspaceId, NodeId, PartitionId};
use proptest::prelude::*;

const LIMITS: Limits = Limits::new(64, 256);

fn consistency() -> impl Strategy<Value = Consistency> {
    let durability =
        prop::sample::select(vec![Durability::Default, Durability::Durable, Durability::Buffered]);
    let mode =
        prop::sample::select(vec![QuorumMode::Default, QuorumMode::Sloppy, QuorumMode::Strict]);
    (durability, mode, any::<bool>(), any::<bool>(), 0_u8..16).prop_map(
        |(durability, mode, lww, monotonic, racks)| Consistency {
            durability,
            mode,
            lww,
            monotonic,
            racks,
        },
    )
}

prop_compose! {
    fn request_head()(
        retry: bool, request_id: u64, deadline_us: u32, partition: u16, r: u8, w: u8,
        consistency in consistency(), epoch: u64, keyspace: Option<u32>,
    ) -> RequestHead {
        RequestHead {
            op: Op::Ping,
            flags: if retry { RequestFlags::RETRY } else { RequestFlags::NONE },
            request_id,
            deadline_us,
            partition: PartitionId(partition),
            r: Quorum(r),
            w: Quorum(w),
            consistency,
            epoch: Epoch(epoch),
            keyspace: KeyspaceId(keyspace.unwrap_or_default()),
        }
    }
}

prop_compose! {
    fn reply_head()(
        op: u8, flags in 0_u16..128, request_id: u64, server_us: u32, partition: u16, acks: u8,
        racks: u8, status: u16, owner: u16, epoch: u64,
    ) -> ReplyHead {
        ReplyHead {
            op,
            flags: ReplyFlags(flags),
            request_id,
            server_us,
            partition: PartitionId(partition),
            acks,
            racks,
            status: Status::from_u16(status),
            owner: CoreId(owner),
            epoch: Epoch(epoch),
        }
    }
}

fn bytes(len: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

/// The parts requests are made of.
#[derive(Debug, Clone)]
struct Parts {
    key: Vec<u8>,
    context: Vec<u8>,
    value: Vec<u8>,
    keys: KeyListBuf,
    name: String,
    number: u32,
}

prop_compose! {
    fn parts()(
        key in bytes(1..=64), context in bytes(0..=40), value in bytes(0..=256),
        keys in prop::collection::vec(bytes(1..=64), 1..9), name in "\\PC{0,20}", number: u32,
    ) -> Parts {
        let mut list = KeyListBuf::new();
        keys.iter().for_each(|key| assert!(list.push(key)));
        Parts { key, context, value, keys: list, name, number }
    }
}

fn requests(parts: &Parts) -> Vec<Request<'_>> {
    let Parts { key, context, value, keys, name, number } = parts;
    vec![
        Request::Ping(value),
        Request::Hello(Hello {
            min_version: 1,
            max_version: 9,
            wanted_core: CoreId(*number as u16),
            features: u64::from(*number),
            name,
        }),
        Request::Put(Put { key, context, value }),
        Request::Get { key },
        Request::Delete(Delete { key, context }),
        Request::MultiGet(keys.as_list()),
        Request::List(ListRequest {
            page_limit: number % MAX_PAGE + 1,
            credit: *number as u16 % MAX_CREDIT + 1,
            prefix: key,
            cursor: context,
        }),
        Request::Stats,
        Request::Topology,
        Request::Route { key },
    ]
}

proptest! {
    #[test]
    fn requests_come_back(head in request_head(), token: Option<[u8; 16]>, parts in parts()) {
        let mut stream = Vec::new();
        for request in requests(&parts) {
            request.encode(&head, token.as_ref(), &mut stream);
        }
        let mut rest = &stream[..];
        for request in requests(&parts) {
            let Ok(Parsed::Frame { frame, consumed }) = RequestFrame::parse(rest, LIMITS.max_frame)
            else { panic!() };
            let mut flags = head.flags;
            if token.is_some() {
                flags = flags | RequestFlags::TOKEN;
            }
            if head.keyspace != KeyspaceId::DEFAULT {
                flags = flags | RequestFlags::KEYSPACE;
            }
            prop_assert_eq!(frame.head, RequestHead { op: request.op(), flags, ..head });
            prop_assert_eq!(frame.token, token.as_ref());
            prop_assert_eq!(Request::decode(&frame, &LIMITS), Ok(request));
            rest = &rest[consumed..];
        }
        prop_assert!(rest.is_empty());
        fuzz::request_stream(&stream);
    }

    #[test]
    fn every_cut_is_incomplete_and_says_what_it_needs(
        head in request_head(), parts in parts(), pick: prop::sample::Index,
    ) {
        let mut stream = Vec::new();
        requests(&parts)[pick.index(9)].encode(&head, None, &mut stream);
        for cut in 0..stream.len() {
            let Ok(Parsed::Incomplete { need }) =
                RequestFrame::parse(&stream[..cut], LIMITS.max_frame) else { panic!() };
            prop_assert!(need > cut && need <= stream.len());
            prop_assert!(cut < 4 || need == stream.len());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed(
        head in request_head(), parts in parts(), pick: prop::sample::Index,
        at: prop::sample::Index, bit in 0_u32..8,
    ) {
        let mut stream = Vec::new();
        requests(&parts)[pick.index(9)].encode(&head, None, &mut stream);
        let at = at.index(stream.len());
        stream[at] ^= 1_u8 << bit;
        // Behind a longer length more may follow; it must not make a frame either.
        stream.extend_from_slice(&[0x5a; 300]);
        match RequestFrame::parse(&stream, LIMITS.max_frame) {
            Ok(Parsed::Frame { frame, .. }) => panic!("{frame:?}"),
            Ok(Parsed::Incomplete { .. }) => prop_assert!(at < 4),
            Err(error) => prop_assert!(error.fatal(), "{error}"),
        }
    }

    #[test]
    fn damaged_bodies_are_refused_or_other_requests(
        parts in parts(), pick: prop::sample::Index, cut: prop::sample::Index,
    ) {
        let mut stream = Vec::new();
        let request = requests(&parts)[pick.index(9)];
        request.encode(&RequestHead::new(Op::Ping, 1), None, &mut stream);
        let body = &stream[40..];
        if body.is_empty() {
            return Ok(());
        }
        let frame = RequestFrame {
            head: RequestHead::new(request.op(), 1),
            token: None,
            body: &body[..cut.index(body.len())],
        };
        match (request.op(), Request::decode(&frame, &LIMITS)) {
            // The rest of the frame is the payload: shorter is another payload.
            (Op::Ping, decoded) => prop_assert!(decoded.is_ok()),
            (Op::Put, Ok(Request::Put(put))) => prop_assert!(put.value.len() < parts.value.len()),
            (_, decoded) => prop_assert!(decoded.is_err(), "{decoded:?}"),
        }
    }

    #[test]
    fn replies_come_back(head in reply_head(), body in bytes(0..=300)) {
        let mut stream = b"before".to_vec();
        let mut frame = FrameWriter::reply(&mut stream, &ReplyHead::new(1, 2, Status::Ok));
        frame.body().extend_from_slice(&body);
        frame.set_reply(&head);
        prop_assert_eq!(frame.finish(), 40 + body.len());
        let Ok(Parsed::Frame { frame, consumed }) = ReplyFrame::parse(&stream[6..], 1000)
        else { panic!() };
        prop_assert_eq!(consumed, stream.len() - 6);
        prop_assert_eq!(frame, ReplyFrame { head, body: &body });
    }

    #[test]
    fn random_bytes_never_panic(input in bytes(0..=300)) {
        fuzz::ENTRIES.iter().for_each(|(_, entry)| entry(&input));
    }

    /// Random bytes hardly ever get past the checksum: these frames carry a right one.
    #[test]
    fn random_frames_never_panic(mut frame in bytes(40..=300), op in 0_u8..12, reply: bool) {
        let len = frame.len() as u32 - 4;
        frame[..4].copy_from_slice(&len.to_le_bytes());
        frame[8] = 1;
        frame[9] = op;
        frame[10] &= 3;
        frame[11] = if reply { 0x80 } else { 0 };
        frame[28] &= 0x1f;
        frame[29] &= 0x0f;
        frame[30..32].fill(0);
        let crc = crc32c::crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        fuzz::ENTRIES.iter().for_each(|(_, entry)| entry(&frame));
    }

    #[test]
    fn versions_come_back(
        versions in prop::collection::vec((any::<u64>(), any::<bool>(), bytes(0..=50)), 0..5),
        context in bytes(0..=50), cut: prop::sample::Index,
    ) {
        let mut body = Vec::new();
        let mut writer = VersionsWriter::new(&mut body);
        for (hlc, tombstone, value) in &versions {
            writer.push(VersionRef { hlc: Hlc(*hlc), tombstone: *tombstone, value });
        }
        writer.finish(|into| into.extend_from_slice(&context));
        let read = Versions::decode(&body).unwrap();
        prop_assert_eq!(read.len(), versions.len());
        prop_assert_eq!(read.context(), &context[..]);
        for (version, (hlc, tombstone, value)) in read.iter().zip(&versions) {
            prop_assert_eq!(version, VersionRef { hlc: Hlc(*hlc), tombstone: *tombstone, value });
        }
        prop_assert!(Versions::decode(&body[..cut.index(body.len())]).is_err());
        body.push(0);
        prop_assert_eq!(Versions::decode(&body), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn pages_come_back(
        keys in prop::collection::vec((bytes(1..=30), any::<u16>(), any::<u64>()), 0..6),
        cursor in bytes(0..=40), cut: prop::sample::Index,
    ) {
        let entry = |(key, versions, number): &(Vec<u8>, u16, u64)| {
            (key.clone(), *versions, *number, Hlc(number ^ 1))
        };
        let mut body = Vec::new();
        let mut writer = PageWriter::new(&mut body);
        for (key, versions, bytes, hlc) in keys.iter().map(entry) {
            writer.push(Entry { key: &key, versions, bytes, hlc });
        }
        writer.finish(|into| into.extend_from_slice(&cursor));
        let page = ListPage::decode(&body).unwrap();
        prop_assert_eq!((page.len(), page.cursor()), (keys.len(), &cursor[..]));
        for (read, (key, versions, bytes, hlc)) in page.entries().zip(keys.iter().map(entry)) {
            prop_assert_eq!(read, Entry { key: &key, versions, bytes, hlc });
        }
        prop_assert!(ListPage::decode(&body[..cut.index(body.len())]).is_err());
    }

    #[test]
    fn cursors_come_back_and_damage_is_noticed(
        partition in 0_u16..1024, keyspace: u32, tail in bytes(0..=30), at: prop::sample::Index, bit in 0_u32..8,
    ) {
        let last_key = [b"p/", &tail[..]].concat();
        let cursor = Cursor { partition: PartitionId(partition), last_key: &last_key };
        let mut bytes = Vec::new();
        let here = KeyspaceId(keyspace);
        fn decode<'a>(
            bytes: &'a [u8], keyspace: KeyspaceId, prefix: &str, partitions: u32,
        ) -> Result<Cursor<'a>, CursorError> {
            Cursor::decode(bytes, keyspace, prefix.as_bytes(), partitions)
        }
        cursor.encode(here, b"p/", 1024, &mut bytes);
        prop_assert_eq!(decode(&bytes, here, "p/", 1024), Ok(cursor));
        let elsewhere = KeyspaceId(keyspace ^ 5);
        prop_assert_eq!(decode(&bytes, elsewhere, "p/", 1024), Err(CursorError::OtherPrefix));
        prop_assert_eq!(decode(&bytes, here, "q/", 1024), Err(CursorError::OtherPrefix));
        prop_assert_eq!(decode(&bytes, here, "p/", 512), Err(CursorError::Partitions(512)));
        let at = at.index(bytes.len());
        prop_assert_eq!(decode(&bytes[..at], here, "p/", 1024), Err(CursorError::Damaged));
        bytes[at] ^= 1_u8 << bit;
        prop_assert_eq!(decode(&bytes, here, "p/", 1024), Err(CursorError::Damaged));
    }

    #[test]
    fn small_replies_come_back(number: u64, name in "\\PC{0,20}", context in bytes(0..=30)) {
        let mut body = Vec::new();
        let hello = HelloReply {
            version: 1,
            core: CoreId(number as u16),
            partitions: number as u32,
            epoch: Epoch(number),
            node_id: NodeId(u128::from(number) << 9),
            incarnation: Incarnation(number),
            features: number,
            limits: Limits { max_frame: 1, max_reply: 2, max_key: 3, max_value: number as u32 },
            in_flight: 5,
            ports: vec![number as u16; (number % 7) as usize],
        };
        hello.write(&mut body);
        prop_assert_eq!(HelloReply::decode(&body), Ok(hello));
        prop_assert!(HelloReply::decode(&body[..body.len() - 1]).is_err());
        body.push(1); // a later version's field
        prop_assert!(HelloReply::decode(&body).is_ok());

        body.clear();
        let error = ErrorReply { retry_after_ms: number as u32, text: &name };
        error.write(&mut body);
        prop_assert_eq!(ErrorReply::decode(&body), Ok(error));

        body.clear();
        Written::write(&mut body, Hlc(number), |into| into.extend_from_slice(&context));
        let written = Written { hlc: Hlc(number), context: &context };
        prop_assert_eq!(Written::decode(&body), Ok(written));

        body.clear();
        StatsReply::write(&mut body, [(&name[..], number), ("other", 1)]);
        let stats = StatsReply::decode(&body).unwrap();
        prop_assert_eq!(stats.counters, vec![(name, number), ("other".to_owned(), 1)]);

        body.clear();
        let route = RouteReply {
            partition: PartitionId(number as u16),
            core: CoreId(1),
            epoch: Epoch(number),
            node_id: NodeId(7),
        };
        route.write(&mut body);
        prop_assert_eq!(RouteReply::decode(&body), Ok(route));
    }
}

#[test]
fn multi_results_come_back() {
    let mut body = Vec::new();
    let mut writer = MultiWriter::new(&mut body);
    let mut found = writer.found(2);
    found.push(VersionRef { hlc: Hlc(1), tombstone: false, value: b"v" });
    found.finish(|context| context.push(9));
    writer.not_found(0, |_| {});
    writer.failed(1, ErrorCode::Corruption);
    assert!(writer.len() > 2 && !writer.is_empty());
    writer.finish();
    let results: Vec<_> = MultiResults::decode(&body).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(results.iter().map(|entry| entry.index).collect::<Vec<_>>(), [2, 0, 1]);
    assert_eq!(results[0].result.unwrap().iter().next().unwrap().value, b"v");
    assert_eq!(results[0].result.unwrap().context(), [9]);
    assert!(results[1].result.unwrap().is_empty());
    assert_eq!(results[2].result, Err(ErrorCode::Corruption));
    for cut in 2..body.len() {
        let results = MultiResults::decode(&body[..cut]).unwrap();
        assert!(results.last().unwrap().is_err(), "{cut}");
    }
    body.push(0);
    let last = MultiResults::decode(&body).unwrap().last().unwrap();
    assert_eq!(last, Err(DecodeError::Trailing(1)));
}

fn decode(op: Op, body: &[u8]) -> Result<Request<'_>, DecodeError> {
    let frame = RequestFrame { head: RequestHead::new(op, 1), token: None, body };
    Request::decode(&frame, &LIMITS)
}

#[test]
fn every_limit_is_checked() {
    let mut body = Vec::new();
    let put = |body: &mut Vec<u8>, key: usize, context: usize, value: usize| {
        body.clear();
        body.extend_from_slice(&(key as u32).to_le_bytes());
        body.extend_from_slice(&(context as u16).to_le_bytes());
        body.resize(body.len() + key + context + value, 7);
    };
    put(&mut body, 64, 0, 256);
    assert!(decode(Op::Put, &body).is_ok());
    put(&mut body, 65, 0, 0);
    assert_eq!(decode(Op::Put, &body), Err(DecodeError::KeyTooLarge { len: 65, limit: 64 }));
    assert_eq!(decode(Op::Delete, &body), Err(DecodeError::KeyTooLarge { len: 65, limit: 64 }));
    put(&mut body, 1, 0, 257);
    assert_eq!(decode(Op::Put, &body), Err(DecodeError::ValueTooLarge { len: 257, limit: 256 }));
    assert_eq!(decode(Op::Delete, &body), Err(DecodeError::Trailing(257)));
    put(&mut body, 0, 0, 1);
    assert_eq!(decode(Op::Put, &body), Err(DecodeError::EmptyKey));
    put(&mut body, 1, 60_000, 0);
    assert_eq!(decode(Op::Put, &body), Err(DecodeError::ContextTooLarge(60_000)));
    // A length far beyond the body is refused for what it claims, not read.
    assert_eq!(
        decode(Op::Get, &u32::MAX.to_le_bytes()),
        Err(DecodeError::KeyTooLarge { len: u32::MAX, limit: 64 })
    );
    assert_eq!(decode(Op::Stats, b"x"), Err(DecodeError::Trailing(1)));
    let list = |page_limit, credit| {
        let mut body = Vec::new();
        ListRequest { page_limit, credit, prefix: b"", cursor: b"" }.write(&mut body);
        body
    };
    assert!(decode(Op::List, &list(1, 1)).is_ok());
    for bad in [list(0, 1), list(MAX_PAGE + 1, 1), list(1, 0), list(1, MAX_CREDIT + 1)] {
        assert!(matches!(decode(Op::List, &bad), Err(DecodeError::OutOfBounds(_))));
    }
    let mut keys = KeyListBuf::new();
    for _ in 0..MAX_KEYS {
        assert!(keys.push(b"k"));
    }
    assert!(!keys.push(b"k"), "full");
    assert_eq!(keys.len(), usize::from(MAX_KEYS));
    let too_many = (MAX_KEYS + 1).to_le_bytes();
    assert_eq!(decode(Op::MultiGet, &too_many), Err(DecodeError::OutOfBounds("number of keys")));
    assert_eq!(decode(Op::MultiGet, &[0, 0]), Err(DecodeError::OutOfBounds("number of keys")));
}

#[test]
fn lengths_are_refused_before_the_frame_is_there() {
    let parse = |len: u32, limit| RequestFrame::parse(&len.to_le_bytes(), limit).err();
    assert_eq!(parse(PRE_HELLO_MAX_FRAME - 4, PRE_HELLO_MAX_FRAME), None);
    let over = parse(PRE_HELLO_MAX_FRAME - 3, PRE_HELLO_MAX_FRAME).unwrap();
    assert_eq!(over.code(), ErrorCode::FrameTooLarge);
    let longest = parse(u32::MAX, u32::MAX).unwrap();
    assert!(longest.fatal() && longest.code() == ErrorCode::FrameTooLarge);
    assert_eq!(parse(36, PRE_HELLO_MAX_FRAME), None);
    assert_eq!(parse(35, PRE_HELLO_MAX_FRAME).unwrap().code(), ErrorCode::BadFrame);
}

/// A PING changed after the checksum was made, with a new one.
fn changed(change: impl FnOnce(&mut [u8])) -> FrameError {
    let mut frame = Vec::new();
    Request::Ping(b"x").encode(&RequestHead::new(Op::Ping, 77), None, &mut frame);
    change(&mut frame);
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    RequestFrame::parse(&frame, 1000).unwrap_err()
}

#[test]
fn refused_frames_can_be_answered() {
    let cases: [(FrameError, ErrorCode); 6] = [
        (changed(|frame| frame[8] = 2), ErrorCode::UnsupportedVersion),
        (changed(|frame| frame[9] = 200), ErrorCode::UnknownOp),
        (changed(|frame| frame[10] = 0x80), ErrorCode::InvalidArgument),
        (changed(|frame| frame[11] = 0x80), ErrorCode::BadFrame),
        (changed(|frame| frame[28] = 3), ErrorCode::InvalidArgument),
        (changed(|frame| frame[10] = 1), ErrorCode::BadFrame), // a token that is not there
    ];
    for (error, code) in cases {
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.fatal());
        let FrameError::Refused { request_id, consumed, .. } = error else { panic!() };
        assert_eq!((request_id, consumed), (77, 41));
    }
    let mut request = Vec::new();
    Request::Stats.encode(&RequestHead::new(Op::Stats, 5), None, &mut request);
    let error = ReplyFrame::parse(&request, 1000).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadFrame);
}

#[test]
fn an_abandoned_frame_leaves_nothing_behind() {
    let mut out = b"before".to_vec();
    let mut frame = FrameWriter::reply(&mut out, &ReplyHead::new(1, 2, Status::Ok));
    assert!(frame.is_empty());
    frame.body().extend_from_slice(b"body");
    frame.clear_body();
    assert!(frame.is_empty());
    drop(frame);
    assert_eq!(out, b"before");
}

#[test]
fn versions_are_negotiated() {
    assert_eq!(negotiate(1, 1), Some(1));
    assert_eq!(negotiate(0, 9), Some(1));
    assert_eq!(negotiate(2, 9), None);
    assert_eq!(negotiate(0, 0), None);
    assert_eq!(negotiate(9, 1), None);
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let text = "ä".repeat(1000);
    let mut body = Vec::new();
    ErrorReply { retry_after_ms: 1, text: &text }.write(&mut body);
    assert_eq!(ErrorReply::decode(&body).unwrap().text.len(), 1024);
    body.clear();
    Hello::new(CoreId::ANY, &text).write(&mut body);
    assert_eq!(Hello::decode(&body).unwrap().name.len(), 254);
}
