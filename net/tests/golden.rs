//! The byte examples of `docs/PROTOCOL.md` are what this crate writes and reads.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;

use coronet_net::codec::{
    Delete, Entry, ErrorReply, Hello, HelloReply, KeyListBuf, KeyspaceAction, KeyspaceInfo,
    KeyspaceReply, KeyspaceRequest, ListRequest, MultiWriter, PageWriter, Put, Request, RouteReply,
    Settings, StatsReply, TopologyNode, TopologyReply, VersionRef, VersionsWriter, Written,
};
use coronet_net::{
    Consistency, Durability, ErrorCode, FrameWriter, Limits, Op, Parsed, Quorum, ReplyFlags,
    ReplyFrame, ReplyHead, RequestFlags, RequestFrame, RequestHead, Status,
};
use coronet_ring::{
    CoreId, Epoch, Hlc, Incarnation, KeyspaceId, NodeId, PartitionId, PlacedNode, Table,
};

const SPECIFICATION: &str = include_str!("../../docs/PROTOCOL.md");

/// The fenced blocks marked `golden NAME`: hex bytes, `;` begins a comment.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = SPECIFICATION.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```golden ") else { continue };
        let mut bytes = Vec::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let hex = line.split(';').next().unwrap();
            bytes.extend(hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()));
        }
        assert!(blocks.insert(name, bytes).is_none(), "{name} twice");
    }
    blocks
}

fn request(
    request: Request<'_>,
    token: Option<[u8; 16]>,
    change: impl FnOnce(&mut RequestHead),
) -> Vec<u8> {
    let mut head = RequestHead::new(request.op(), 7);
    change(&mut head);
    let mut out = Vec::new();
    request.encode(&head, token.as_ref(), &mut out);
    out
}

fn reply(
    op: Op,
    status: Status,
    change: impl FnOnce(&mut ReplyHead),
    body: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let mut head = ReplyHead::new(op.to_u8(), 7, status);
    change(&mut head);
    let mut out = Vec::new();
    let mut frame = FrameWriter::reply(&mut out, &head);
    body(frame.body());
    frame.finish();
    out
}

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let mut keys = KeyListBuf::new();
    assert!(keys.push(b"k1") && keys.push(b"k22"));
    let mut settings = Vec::new();
    let create = KeyspaceRequest {
        action: KeyspaceAction::Create,
        name: "carts",
        settings: Settings::encode([("n", "3"), ("compaction", "tiered")], &mut settings),
    };
    let put = Put { key: b"key", context: b"", value: b"value" };
    vec![
        ("ping request", request(Request::Ping(b"hi"), None, |_| {})),
        (
            "hello request",
            request(Request::Hello(Hello::new(CoreId::ANY, "cli")), None, |head| {
                head.request_id = 0;
            }),
        ),
        (
            "put request",
            request(Request::Put(put), Some(*b"0123456789abcdef"), |head| {
                head.flags = RequestFlags::RETRY;
                head.deadline_us = 1_000_000;
                head.partition = PartitionId(515);
                head.w = Quorum::MAJORITY;
                head.consistency =
                    Consistency { durability: Durability::Durable, ..Consistency::default() };
                head.epoch = Epoch(1);
            }),
        ),
        ("get request", request(Request::Get { key: b"key" }, None, |_| {})),
        (
            "delete request",
            request(Request::Delete(Delete { key: b"key", context: b"ctx" }), None, |_| {}),
        ),
        ("multi_get request", request(Request::MultiGet(keys.as_list()), None, |_| {})),
        (
            "list request",
            request(
                Request::List(ListRequest {
                    page_limit: 1000,
                    credit: 4,
                    prefix: b"docs/",
                    cursor: b"",
                }),
                None,
                |_| {},
            ),
        ),
        ("stats request", request(Request::Stats, None, |_| {})),
        ("route request", request(Request::Route { key: b"key" }, None, |_| {})),
        ("topology request", request(Request::Topology, None, |_| {})),
        (
            "put request in a keyspace",
            request(Request::Put(put), Some(*b"0123456789abcdef"), |head| {
                head.keyspace = KeyspaceId::of("carts");
            }),
        ),
        ("keyspace request", request(Request::Keyspace(create), None, |_| {})),
    ]
}

fn hello_reply() -> HelloReply {
    HelloReply {
        version: 1,
        core: CoreId(1),
        partitions: 1024,
        epoch: Epoch(1),
        node_id: NodeId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
        incarnation: Incarnation(0x1122),
        features: 0,
        limits: Limits::default(),
        in_flight: 1024,
        ports: vec![4720, 4720],
    }
}

/// Two nodes, one of them out of reach, that share two partitions.
fn topology_reply() -> TopologyReply {
    let [one, two] = [(1, "a", true), (2, "b", false)].map(|(id, rack, alive)| TopologyNode {
        id: NodeId(id),
        alive,
        cores: 1,
        address: format!("10.0.0.{id}:4720"),
        rack: rack.to_owned(),
    });
    let nodes = vec![one, two];
    let placed =
        nodes.iter().map(|node| PlacedNode { id: node.id, rack: node.rack.clone(), weight: 1 });
    let mut table = Vec::new();
    Table::create(Epoch(1), 2, 2, placed.collect()).unwrap().encode(&mut table);
    TopologyReply { replicas: 2, nodes, table }
}

fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let owned = |head: &mut ReplyHead| {
        head.server_us = 18;
        head.partition = PartitionId(515);
        (head.acks, head.racks) = (1, 1);
        head.owner = CoreId(1);
        head.epoch = Epoch(1);
    };
    let ok = Status::Ok;
    vec![
        ("hello reply", reply(Op::Hello, ok, |_| {}, |body| hello_reply().write(body))),
        (
            "put reply",
            reply(Op::Put, ok, owned, |body| {
                Written::write(body, Hlc(0x0102), |context| context.extend_from_slice(b"ctx"));
            }),
        ),
        (
            "get reply",
            reply(
                Op::Get,
                ok,
                |head| {
                    owned(head);
                    head.flags = ReplyFlags::FORWARDED;
                },
                |body| {
                    let mut versions = VersionsWriter::new(body);
                    versions.push(VersionRef {
                        hlc: Hlc(0x0102),
                        tombstone: false,
                        value: b"value",
                    });
                    versions.finish(|context| context.extend_from_slice(b"ctx"));
                },
            ),
        ),
        (
            "get reply not found",
            reply(Op::Get, Status::NotFound, owned, |body| {
                VersionsWriter::new(body).finish(|_| {})
            }),
        ),
        (
            "multi_get reply",
            reply(
                Op::MultiGet,
                ok,
                |_| {},
                |body| {
                    let mut results = MultiWriter::new(body);
                    let mut found = results.found(1);
                    found.push(VersionRef { hlc: Hlc(0x0102), tombstone: false, value: b"v" });
                    found.finish(|_| {});
                    results.failed(0, ErrorCode::Corruption);
                    results.finish();
                },
            ),
        ),
        (
            "list reply",
            reply(
                Op::List,
                ok,
                |head| head.partition = PartitionId(512),
                |body| {
                    let mut page = PageWriter::new(body);
                    page.push(Entry { key: b"docs/a", versions: 1, bytes: 5, hlc: Hlc(0x0102) });
                    page.finish(|cursor| cursor.extend_from_slice(b"cursor"));
                },
            ),
        ),
        (
            "stats reply",
            reply(Op::Stats, ok, |_| {}, |body| StatsReply::write(body, [("puts", 3)])),
        ),
        (
            "route reply",
            reply(
                Op::Route,
                ok,
                |_| {},
                |body| {
                    RouteReply {
                        partition: PartitionId(515),
                        core: CoreId(1),
                        epoch: Epoch(1),
                        node_id: hello_reply().node_id,
                    }
                    .write(body);
                },
            ),
        ),
        (
            "keyspace reply",
            reply(
                Op::Keyspace,
                Status::Ok,
                |_| {},
                |body| {
                    let (name, version) = ("carts".to_owned(), 1);
                    let settings = vec![("n".to_owned(), "3".to_owned())];
                    let id = KeyspaceId::of(&name);
                    let info = KeyspaceInfo { id, version, name, settings };
                    KeyspaceReply { keyspaces: vec![info] }.write(body);
                },
            ),
        ),
        (
            "topology reply",
            reply(
                Op::Topology,
                ok,
                |head| head.epoch = Epoch(1),
                |body| topology_reply().write(body),
            ),
        ),
        (
            "error reply",
            reply(
                Op::Put,
                ErrorCode::Busy.into(),
                |_| {},
                |body| {
                    ErrorReply { retry_after_ms: 20, text: "queue full" }.write(body);
                },
            ),
        ),
    ]
}

/// Lengths of a frame's fields with their names, for people who compare bytes.
const REQUEST_FIELDS: &[(usize, &str)] = &[
    (4, "length"),
    (4, "checksum"),
    (4, "version, operation, flags"),
    (8, "request id"),
    (4, "deadline"),
    (2, "partition"),
    (2, "R, W"),
    (4, "consistency, reserved"),
    (8, "epoch"),
];
const REPLY_FIELDS: &[(usize, &str)] = &[
    (4, "length"),
    (4, "checksum"),
    (4, "version, operation, flags"),
    (8, "request id"),
    (4, "server time"),
    (2, "partition"),
    (2, "acks, racks"),
    (4, "status, owner"),
    (8, "epoch"),
];

fn dump(mut bytes: &[u8], fields: &[(usize, &str)]) -> String {
    let mut text = String::new();
    let fields = fields.iter().map(|(len, name)| (*len, Some(*name)));
    for (len, name) in fields.chain(std::iter::repeat((16, None))) {
        let (line, rest) = bytes.split_at(len.min(bytes.len()));
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable = |byte: &u8| if byte.is_ascii_graphic() { *byte as char } else { '.' };
        let name = name.map_or_else(|| line.iter().map(printable).collect(), str::to_owned);
        writeln!(text, "{:<48}; {name}", hex.join(" ")).unwrap();
        bytes = rest;
        if bytes.is_empty() {
            return text;
        }
    }
    text
}

#[test]
fn examples_are_what_is_written() {
    let examples = examples();
    let mut wrong = String::new();
    let mut count = 0;
    for (frames, fields) in [(requests(), REQUEST_FIELDS), (replies(), REPLY_FIELDS)] {
        for (name, bytes) in frames {
            count += 1;
            if examples.get(name) != Some(&bytes) {
                writeln!(wrong, "```golden {name}\n{}```", dump(&bytes, fields)).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "the specification differs; written are:\n{wrong}");
    assert_eq!(examples.len(), count, "an example nothing writes");
}

#[test]
fn examples_can_be_read() {
    let examples = examples();
    for (name, _) in requests() {
        let Ok(Parsed::Frame { frame, consumed }) =
            RequestFrame::parse(&examples[name], Limits::default().max_frame)
        else {
            panic!("{name}")
        };
        assert_eq!(consumed, examples[name].len());
        Request::decode(&frame, &Limits::default()).unwrap();
    }
    for (name, _) in replies() {
        let parsed = ReplyFrame::parse(&examples[name], Limits::default().max_reply);
        assert!(matches!(parsed, Ok(Parsed::Frame { .. })), "{name}");
    }
    let hello = ReplyFrame::parse(&examples["hello reply"], 1000).unwrap();
    let Parsed::Frame { frame, .. } = hello else { panic!() };
    assert_eq!(HelloReply::decode(frame.body), Ok(hello_reply()));
    let topology = ReplyFrame::parse(&examples["topology reply"], 1000).unwrap();
    let Parsed::Frame { frame, .. } = topology else { panic!() };
    assert_eq!(TopologyReply::decode(frame.body), Ok(topology_reply()));
}

#[test]
fn every_error_is_in_the_table() {
    for code in ErrorCode::all() {
        let row = SPECIFICATION
            .lines()
            .find(|line| line.starts_with(&format!("| {:#06x} |", code.to_u16())))
            .unwrap_or_else(|| panic!("{code:?} is not in the table"));
        let yes = |column: usize| row.split('|').nth(column).unwrap().trim() == "yes";
        assert_eq!((yes(3), yes(4)), (code.retryable(), code.possibly_applied()), "{row}");
        assert!(row.contains(code.text()), "{row}");
    }
}
