//! What a node does with requests: versions and contexts, cores, listings, deadlines, retries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use coronet_net::codec::{
    Delete, KeyListBuf, ListPage, ListRequest, MultiResults, Put, Request, RouteReply, StatsReply,
    Written,
};
use coronet_net::{Consistency, ErrorCode, Quorum, ReplyFlags, RequestHead, Status};
use coronet_ring::{CoreId, PartitionId};
use coronet_server::node::BlindWrites;
use support::{Conn, Reply, TestNode, config, context, values};

fn error(code: ErrorCode) -> Status {
    Status::Error(code)
}

fn written_context(reply: &Reply) -> Vec<u8> {
    assert_eq!(reply.status(), Status::Ok);
    Written::decode(&reply.body).unwrap().context.to_vec()
}

fn siblings() -> TestNode {
    TestNode::with(coronet_server::node::ShardConfig {
        blind_writes: BlindWrites::Siblings,
        ..config(1)
    })
}

#[test]
fn put_get_delete() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    assert_eq!(conn.get(b"k").status(), Status::NotFound);
    let first = written_context(&conn.put(b"k", b"one"));
    let second = written_context(&conn.put_with(b"k", b"two", &first));
    let found = conn.get(b"k");
    assert_eq!((values(&found), context(&found)), (vec![b"two".to_vec()], second.clone()));
    let delete = Request::Delete(Delete { key: b"k", context: &second });
    written_context(&conn.call(&delete));
    let gone = conn.get(b"k");
    assert_eq!(gone.status(), Status::NotFound);
    assert!(!context(&gone).is_empty(), "a deletion has a context");
    assert_eq!(conn.put(b"empty", b"").status(), Status::Ok);
    assert_eq!(values(&conn.get(b"empty")), [b""]);
}

#[test]
fn concurrent_writes_stay_side_by_side_until_somebody_saw_both() {
    let node = siblings();
    let conn = node.client(0);
    let base = written_context(&conn.put(b"k", b"base"));
    conn.put_with(b"k", b"left", &base);
    conn.put_with(b"k", b"right", &base);
    let both = conn.get(b"k");
    assert_eq!(values(&both), [b"left".to_vec(), b"right".to_vec()]);
    let lww = Consistency { lww: true, ..Consistency::default() };
    let head = RequestHead { consistency: lww, ..conn.head() };
    assert_eq!(values(&conn.call_with(&head, &Request::Get { key: b"k" })), [b"right".to_vec()]);
    conn.put_with(b"k", b"merged", &context(&both));
    assert_eq!(values(&conn.get(b"k")), [b"merged".to_vec()]);
}

#[test]
fn blind_writes_do_what_the_node_is_set_to() {
    let replacing = TestNode::new(1);
    let conn = replacing.client(0);
    conn.put(b"k", b"a");
    conn.put(b"k", b"b");
    assert_eq!(values(&conn.get(b"k")), [b"b"]);
    let keeping = siblings();
    let conn = keeping.client(0);
    conn.put(b"k", b"a");
    conn.put(b"k", b"b");
    assert_eq!(values(&conn.get(b"k")), [b"a", b"b"]);
    let lww = Consistency { lww: true, ..Consistency::default() };
    let head = RequestHead { consistency: lww, ..conn.head() };
    conn.call_with(&head, &Request::Put(Put { key: b"k", context: b"", value: b"c" }));
    assert_eq!(values(&conn.get(b"k")), [b"c"]);
}

#[test]
fn a_bad_context_is_refused_and_destroys_nothing() {
    let node = siblings();
    let conn = node.client(0);
    let good = written_context(&conn.put(b"k", b"a"));
    conn.put(b"k", b"b");
    let other = written_context(&conn.put(b"other", b"x"));
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    for bad in [other, forged, good[..good.len() - 1].to_vec(), vec![0; 40]] {
        assert_eq!(conn.put_with(b"k", b"c", &bad).status(), error(ErrorCode::BadContext));
        let delete = Request::Delete(Delete { key: b"k", context: &bad });
        assert_eq!(conn.call(&delete).status(), error(ErrorCode::BadContext));
    }
    assert_eq!(values(&conn.get(b"k")), [b"a", b"b"]);
}

#[test]
fn writes_of_one_key_in_one_batch_see_each_other() {
    let node = siblings();
    let conn = node.client(0);
    for value in [b"a", b"b", b"c"] {
        conn.send(&conn.head(), &Request::Put(Put { key: b"k", context: b"", value }));
    }
    node.settle();
    assert_eq!(conn.replies().len(), 3);
    assert_eq!(values(&conn.get(b"k")), [b"a", b"b", b"c"]);
}

#[test]
fn a_retry_with_the_same_token_is_the_same_write() {
    let node = siblings();
    let conn = node.client(0);
    let put = Request::Put(Put { key: b"k", context: b"", value: b"v" });
    let send = |token: [u8; 16]| {
        let mut bytes = Vec::new();
        put.encode(&conn.head(), Some(&token), &mut bytes);
        conn.send_bytes(&bytes);
        node.settle();
        conn.replies().remove(0)
    };
    let first = send([1; 16]);
    let retry = send([1; 16]);
    assert_eq!(first.body, retry.body, "same timestamp, same context");
    assert_eq!(values(&conn.get(b"k")).len(), 1);
    send([2; 16]);
    assert_eq!(values(&conn.get(b"k")).len(), 2);
}

#[test]
fn a_wrong_core_forwards_and_says_so() {
    let node = TestNode::new(3);
    let conn = node.client(0);
    let key = node.key_of(2, 0);
    let put = conn.put(&key, b"v");
    assert_eq!((put.status(), put.head.owner), (Status::Ok, CoreId(2)));
    assert!(put.head.flags.contains(ReplyFlags::FORWARDED));
    assert_eq!(put.head.partition, node.map.partition_of(&key));
    let found = conn.get(&key);
    assert!(found.head.flags.contains(ReplyFlags::FORWARDED));
    assert_eq!(values(&found), [b"v"]);
    let direct = node.client(2).get(&key);
    assert!(!direct.head.flags.contains(ReplyFlags::FORWARDED));
    let route = RouteReply::decode(&conn.call(&Request::Route { key: &key }).body).unwrap();
    assert_eq!((route.core, route.partition), (CoreId(2), node.map.partition_of(&key)));
}

#[test]
fn more_replicas_than_there_are_is_an_error_that_says_so() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    let put = Request::Put(Put { key: b"k", context: b"", value: b"v" });
    for (w, fits) in [(0, true), (1, true), (254, true), (255, true), (2, false), (3, false)] {
        let head = RequestHead { w: Quorum(w), ..conn.head() };
        let reply = conn.call_with(&head, &put);
        let expected = if fits { Status::Ok } else { error(ErrorCode::InvalidArgument) };
        assert_eq!(reply.status(), expected, "w = {w}");
    }
    let head = RequestHead { r: Quorum(2), ..conn.head() };
    let reply = conn.call_with(&head, &Request::Get { key: b"k" });
    let text = coronet_net::codec::ErrorReply::decode(&reply.body).unwrap().text.to_owned();
    assert!(text.contains("r = 2"), "{text}");
}

/// Lists everything with a prefix from core 0, following cursors to the cores they name.
fn list_all(node: &TestNode, prefix: &[u8], page_limit: u32, credit: u16) -> Vec<Vec<u8>> {
    let clients: Vec<Conn<'_>> =
        (0..node.cores.len()).map(|core| node.client(core as u16)).collect();
    let (mut keys, mut cursor, mut core) = (Vec::new(), Vec::new(), 0);
    loop {
        let conn = &clients[core];
        let list = ListRequest { page_limit, credit, prefix, cursor: &cursor };
        conn.send(&conn.head(), &Request::List(list));
        node.settle();
        let pages = conn.replies();
        assert!(!pages.is_empty() && pages.len() <= usize::from(credit));
        for (at, reply) in pages.iter().enumerate() {
            assert_eq!(reply.status(), Status::Ok);
            assert_eq!(reply.head.more(), at + 1 < pages.len());
            let page = ListPage::decode(&reply.body).unwrap();
            assert!(page.len() <= page_limit as usize);
            keys.extend(page.entries().map(|entry| entry.key.to_vec()));
        }
        let last = pages.last().unwrap();
        let next = ListPage::decode(&last.body).unwrap().cursor().to_vec();
        if next.is_empty() {
            assert_eq!(last.head.partition, PartitionId::NONE);
            return keys;
        }
        core = last.head.owner.index();
        assert_eq!(node.map.core_of(last.head.partition), last.head.owner);
        cursor = next;
    }
}

#[test]
fn a_listing_names_every_key_once_over_pages_and_cores() {
    let node = TestNode::new(3);
    let conn = node.client(0);
    let mut expected = BTreeSet::new();
    for n in 0..60_u32 {
        let key = format!("a/{n}").into_bytes();
        conn.put(&key, b"v");
        conn.put(format!("b/{n}").as_bytes(), b"v");
        expected.insert(key);
    }
    conn.call(&Request::Delete(Delete { key: b"a/7", context: b"" }));
    expected.remove(&b"a/7"[..]);
    for (page_limit, credit) in [(1, 1), (7, 3), (1000, 1), (5, 64)] {
        let keys = list_all(&node, b"a/", page_limit, credit);
        assert_eq!(keys.len(), expected.len(), "page {page_limit}, credit {credit}");
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    assert_eq!(list_all(&node, b"", 1000, 1).len(), 119);
    assert!(list_all(&node, b"nothing", 10, 1).is_empty());
}

#[test]
fn a_listing_at_the_wrong_core_is_forwarded_and_a_foreign_cursor_refused() {
    let node = TestNode::new(2);
    node.client(0).put(b"x", b"v");
    let conn = node.client(1);
    let list = ListRequest { page_limit: 10, credit: 5, prefix: b"", cursor: b"" };
    let reply = conn.call(&Request::List(list));
    assert!(reply.head.flags.contains(ReplyFlags::FORWARDED), "partition 0 is on core 0");
    let page = ListPage::decode(&reply.body).unwrap();
    let list = ListRequest { prefix: b"other", cursor: page.cursor(), ..list };
    assert_eq!(conn.call(&Request::List(list)).status(), error(ErrorCode::BadCursor));
    let list = ListRequest { prefix: b"", cursor: &[9; 30], ..list };
    assert_eq!(conn.call(&Request::List(list)).status(), error(ErrorCode::BadCursor));
}

#[test]
fn several_keys_are_read_from_all_cores() {
    let node = TestNode::new(3);
    let conn = node.client(1);
    let mut keys = KeyListBuf::new();
    for n in 0..30_u32 {
        let key = format!("k{n}").into_bytes();
        assert!(keys.push(&key));
        if n % 3 != 0 {
            conn.put(&key, &n.to_le_bytes());
        }
    }
    conn.send(&conn.head(), &Request::MultiGet(keys.as_list()));
    node.settle();
    let frames = conn.replies();
    let mut seen = [false; 30];
    for (at, frame) in frames.iter().enumerate() {
        assert_eq!(frame.head.more(), at + 1 < frames.len());
        for entry in MultiResults::decode(&frame.body).unwrap() {
            let entry = entry.unwrap();
            let found = entry.result.unwrap();
            let n = u32::from(entry.index);
            let value = found.iter().next().map(|version| version.value.to_vec());
            assert_eq!(value, (n % 3 != 0).then(|| n.to_le_bytes().to_vec()));
            assert!(!std::mem::replace(&mut seen[n as usize], true), "{n} twice");
        }
    }
    assert!(seen.iter().all(|seen| *seen));
    assert_eq!(conn.core().in_flight(), 0);
}

#[test]
fn request_numbers_used_twice_harm_only_their_own_answers() {
    let node = TestNode::new(3);
    let conn = node.client(0);
    let mut keys = KeyListBuf::new();
    (0..3).for_each(|core| assert!(keys.push(&node.key_of(core, 0))));
    let head = conn.head();
    for _ in 0..3 {
        conn.send(&head, &Request::MultiGet(keys.as_list()));
        conn.send(&head, &Request::Get { key: &node.key_of(1, 0) });
    }
    node.settle();
    let refused = conn.replies().into_iter().filter(|reply| reply.status() != Status::Ok);
    assert!(refused.count() >= 2);
    assert_eq!(conn.core().in_flight(), 0);
    assert_eq!(conn.put(b"k", b"v").status(), Status::Ok);
}

#[test]
fn work_whose_deadline_passed_is_dropped_and_not_applied() {
    let node = TestNode::new(2);
    let conn = node.client(0);
    let key = node.key_of(1, 0);
    let head = RequestHead { deadline_us: 1000, ..conn.head() };
    conn.send(&head, &Request::Put(Put { key: &key, context: b"", value: b"late" }));
    node.advance(Duration::from_millis(2)); // it waits between the cores
    node.settle();
    assert_eq!(conn.replies()[0].status(), error(ErrorCode::DeadlineExceeded));
    assert_eq!(conn.get(&key).status(), Status::NotFound);
}

#[test]
fn a_write_that_misses_its_deadline_on_the_way_to_the_disk_is_in_doubt() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    let head = RequestHead { deadline_us: 1, ..conn.head() };
    conn.send(&head, &Request::Put(Put { key: b"k", context: b"", value: b"v" }));
    node.tick_after(Duration::from_nanos(1500));
    let reply = conn.replies().remove(0);
    assert_eq!(reply.status(), error(ErrorCode::InDoubt));
    assert!(reply.head.flags.contains(ReplyFlags::IN_DOUBT));
    node.settle();
    assert!(conn.replies().is_empty(), "answered once");
    assert_eq!(values(&conn.get(b"k")), [b"v"], "it was applied in the end");
}

#[test]
fn a_write_without_deadline_is_in_doubt_when_the_disk_takes_too_long() {
    let mut config = config(1);
    config.limits.commit_wait = Duration::from_micros(15);
    let node = TestNode::with(config);
    let conn = node.client(0);
    conn.send(&conn.head(), &Request::Put(Put { key: b"k", context: b"", value: b"v" }));
    node.tick_after(Duration::from_nanos(500));
    assert!(conn.replies().is_empty());
    node.tick_after(Duration::from_micros(15));
    assert_eq!(conn.replies().remove(0).status(), error(ErrorCode::InDoubt));
    node.settle();
    assert!(conn.replies().is_empty(), "answered once");
    assert_eq!(values(&conn.get(b"k")), [b"v"], "it was applied in the end");
}

#[test]
fn a_durable_write_is_not_answered_before_the_disk_has_it() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    conn.send(&conn.head(), &Request::Put(Put { key: b"k", context: b"", value: b"v" }));
    assert!(conn.replies().is_empty());
    assert_eq!(conn.core().in_flight(), 1);
    node.settle();
    assert_eq!(conn.replies().len(), 1);
    assert_eq!(conn.core().in_flight(), 0);
}

#[test]
fn writes_queue_behind_a_read_from_disk_and_none_is_lost() {
    let mut config = config(1);
    config.blind_writes = BlindWrites::Siblings;
    config.engine.cache_bytes = 4096;
    let node = TestNode::with(config);
    let conn = node.client(0);
    conn.put(b"key", b"first");
    // Push the key out of memory: into a table, and its block out of the small cache.
    for n in 0..400_u32 {
        conn.send(
            &conn.head(),
            &Request::Put(Put {
                key: format!("fill{n}").as_bytes(),
                context: b"",
                value: &[n as u8; 500],
            }),
        );
        if n % 20 == 0 {
            node.settle();
        }
    }
    node.settle();
    conn.take();
    for value in [b"a", b"b", b"c"] {
        conn.send(&conn.head(), &Request::Put(Put { key: b"key", context: b"", value }));
    }
    assert_eq!(conn.core().in_flight(), 3);
    node.settle();
    assert!(conn.replies().iter().all(|reply| reply.status() == Status::Ok));
    let expected = [b"first".to_vec(), b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
    assert_eq!(values(&conn.get(b"key")), expected);
}

#[test]
fn counters_are_summed_over_the_cores() {
    let node = TestNode::new(3);
    for core in 0..3 {
        let conn = node.client(core);
        conn.put(&node.key_of(core, 1), b"v");
    }
    let reply = node.client(1).call(&Request::Stats);
    let stats = StatsReply::decode(&reply.body).unwrap();
    assert_eq!(stats.get("node.puts"), Some(3));
    assert_eq!(stats.get("engine.entries_written"), Some(3));
    assert_eq!(stats.get("keyspace.0.entries_written"), Some(3));
    assert_eq!(stats.get("node.data_cores"), Some(3));
    assert_eq!(stats.get("node.stuck_cores"), Some(0));
}

/// Adds up what the buckets of an operation counted, those up to a latency only.
fn counted(stats: &StatsReply, op: &str, within_micros: u64) -> u64 {
    let prefix = format!("latency.{op}.upto_");
    let buckets = stats.counters.iter().filter_map(|(name, count)| {
        let last = name.strip_prefix(&prefix)?.strip_suffix("_micros")?;
        Some((last.parse::<u64>().unwrap(), *count))
    });
    buckets.filter(|(last, _)| *last <= within_micros).map(|(_, count)| count).sum()
}

#[test]
fn latencies_count_per_operation_from_arrival_to_the_answer_on_its_way() {
    let node = TestNode::new(2);
    let conn = node.client(0);
    let (own, other) = (node.key_of(0, 1), node.key_of(1, 1));
    // Two at once, and their answers stay with the node for a while.
    for key in [&own, &other] {
        conn.send(&conn.head(), &Request::Get { key });
    }
    while node.deliver() {}
    node.advance(Duration::from_millis(7));
    assert_eq!(conn.replies().len(), 2);
    // An answer that leaves at once.
    conn.send(&conn.head(), &Request::Get { key: &own });
    assert_eq!(conn.replies().len(), 1);
    let mut list = KeyListBuf::new();
    assert!(list.push(&own) && list.push(&other));
    conn.call(&Request::MultiGet(list.as_list()));
    for key in [&own, &other] {
        conn.put(key, b"v");
    }
    conn.call(&Request::Delete(Delete { key: &other, context: b"" }));

    let reply = node.client(1).call(&Request::Stats);
    let stats = StatsReply::decode(&reply.body).unwrap();
    for (op, count) in [("get", 3), ("multi_get", 1), ("put", 2), ("delete", 1), ("list", 0)] {
        assert_eq!(stats.get(&format!("latency.{op}.count")), Some(count), "{op}");
        assert_eq!(counted(&stats, op, u64::MAX), count, "{op}");
    }
    assert_eq!(counted(&stats, "get", 6_999), 1);
    assert_eq!(counted(&stats, "get", 7_000 * 5 / 4), 3);
    assert!(stats.get("latency.get.p50_micros").unwrap() >= 7_000);
}

#[test]
fn a_data_core_that_does_not_answer_is_noticed() {
    let node = TestNode::new(2);
    for _ in 0..8 {
        node.advance(Duration::from_secs(1));
        node.cores[0].tick(); // asks, but nothing is delivered
    }
    node.settle(); // late, but they answer
    let reply = node.client(0).call(&Request::Stats);
    let stats = StatsReply::decode(&reply.body).unwrap();
    assert_eq!(stats.get("node.stuck_cores"), Some(0), "they make progress again");
}

#[test]
fn a_stopping_node_finishes_what_it_began_and_refuses_the_rest() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    conn.send(&conn.head(), &Request::Put(Put { key: b"k", context: b"", value: b"v" }));
    conn.core().drain();
    conn.send(&conn.head(), &Request::Get { key: b"k" });
    assert_eq!(conn.core().in_flight(), 1);
    node.settle();
    let statuses: Vec<_> = conn.replies().iter().map(Reply::status).collect();
    assert_eq!(statuses, [error(ErrorCode::ShuttingDown), Status::Ok]);
    let shard = conn.core().shard().unwrap().clone();
    node.sim.block_on(async move { shard.close().await }).unwrap();
}
