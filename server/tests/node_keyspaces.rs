//! Keyspaces on a node alone: separate keys, settings, restarts, policies changed under writes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use coronet_net::codec::{
    KeyListBuf, KeyspaceAction, KeyspaceInfo, KeyspaceReply, KeyspaceRequest, ListPage,
    ListRequest, Request, Settings, StatsReply,
};
use coronet_net::{ErrorCode, RequestHead, Status};
use coronet_ring::KeyspaceId;
use support::{Conn, Reply, TestNode, context, values};

fn ask(
    node: &TestNode,
    conn: &Conn<'_>,
    action: KeyspaceAction,
    name: &str,
    settings: &[(&str, &str)],
) -> Result<Vec<KeyspaceInfo>, ErrorCode> {
    let mut buffer = Vec::new();
    let settings = Settings::encode(settings.iter().copied(), &mut buffer);
    let request = Request::Keyspace(KeyspaceRequest { action, name, settings });
    conn.send(&conn.head(), &request);
    node.settle_and_tick();
    let reply = conn.replies().pop().expect("a reply");
    match reply.status() {
        Status::Error(code) => Err(code),
        _ => Ok(KeyspaceReply::decode(&reply.body).unwrap().keyspaces),
    }
}

fn create(node: &TestNode, name: &str, settings: &[(&str, &str)]) {
    let conn = node.client(0);
    let made = ask(node, &conn, KeyspaceAction::Create, name, settings).unwrap();
    assert_eq!((made.len(), made[0].name.as_str()), (1, name));
}

/// A request in a keyspace.
fn call(conn: &Conn<'_>, keyspace: &str, request: &Request<'_>) -> Reply {
    let head = RequestHead { keyspace: KeyspaceId::of(keyspace), ..conn.head() };
    conn.call_with(&head, request)
}

fn put(conn: &Conn<'_>, keyspace: &str, key: &[u8], value: &[u8]) -> Reply {
    put_after(conn, keyspace, key, value, b"")
}

fn put_after(conn: &Conn<'_>, keyspace: &str, key: &[u8], value: &[u8], context: &[u8]) -> Reply {
    let put = coronet_net::codec::Put { key, context, value };
    call(conn, keyspace, &Request::Put(put))
}

fn get(conn: &Conn<'_>, keyspace: &str, key: &[u8]) -> Reply {
    call(conn, keyspace, &Request::Get { key })
}

/// Every key of a keyspace, over all cores.
fn keys(conn: &Conn<'_>, keyspace: &str) -> Vec<Vec<u8>> {
    keys_with(conn, keyspace, b"", 7)
}

/// Every key of a keyspace with a prefix, in pages of so many.
fn keys_with(conn: &Conn<'_>, keyspace: &str, prefix: &[u8], page_limit: u32) -> Vec<Vec<u8>> {
    let (mut cursor, mut found) = (Vec::new(), Vec::new());
    loop {
        let list = ListRequest { page_limit, credit: 1, prefix, cursor: &cursor };
        let reply = call(conn, keyspace, &Request::List(list));
        assert_eq!(reply.status(), Status::Ok);
        let page = ListPage::decode(&reply.body).unwrap();
        found.extend(page.entries().map(|entry| entry.key.to_vec()));
        cursor = page.cursor().to_vec();
        if cursor.is_empty() {
            found.sort();
            return found;
        }
    }
}

#[test]
fn the_same_key_is_another_one_in_another_keyspace() {
    let node = TestNode::new(2);
    let conn = node.client(0);
    let unknown = put(&conn, "carts", b"k", b"v");
    assert_eq!(unknown.status(), Status::Error(ErrorCode::UnknownKeyspace));
    create(&node, "carts", &[]);
    create(&node, "users", &[("compaction", "tiered"), ("compression", "lz4")]);
    let spaces = ["default", "carts", "users"];
    for core in 0..2 {
        for keyspace in spaces {
            let key = node.key_of(core, 1);
            assert_eq!(put(&conn, keyspace, &key, keyspace.as_bytes()).status(), Status::Ok);
        }
    }
    for core in 0..2 {
        for keyspace in spaces {
            let reply = get(&conn, keyspace, &node.key_of(core, 1));
            assert_eq!(values(&reply), [keyspace.as_bytes()]);
        }
    }
    assert_eq!(put(&conn, "carts", b"only here", b"v").status(), Status::Ok);
    assert_eq!(get(&conn, "users", b"only here").status(), Status::NotFound);
    assert_eq!((keys(&conn, "carts").len(), keys(&conn, "users").len()), (3, 2));
    let delete = coronet_net::codec::Delete { key: b"only here", context: b"" };
    assert_eq!(call(&conn, "carts", &Request::Delete(delete)).status(), Status::Ok);
    assert_eq!(keys(&conn, "carts").len(), 2);
    let mut list = KeyListBuf::new();
    assert!(list.push(&node.key_of(0, 1)) && list.push(&node.key_of(1, 1)));
    let many = call(&conn, "users", &Request::MultiGet(list.as_list()));
    assert_eq!(many.status(), Status::Ok);
    let missing = call(&conn, "nobody", &Request::MultiGet(list.as_list()));
    assert_eq!(missing.status(), Status::Error(ErrorCode::UnknownKeyspace));
}

#[test]
fn a_context_or_cursor_of_another_keyspace_is_refused() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    create(&node, "carts", &[]);
    for keyspace in ["default", "carts"] {
        for n in 0..20_u8 {
            put(&conn, keyspace, &[b'k', n], b"v");
        }
    }
    let seen = context(&get(&conn, "carts", b"k\x01"));
    let foreign = put_after(&conn, "default", b"k\x01", b"w", &seen);
    assert_eq!(foreign.status(), Status::Error(ErrorCode::BadContext));
    assert_eq!(put_after(&conn, "carts", b"k\x01", b"w", &seen).status(), Status::Ok);
    let list = ListRequest { page_limit: 3, credit: 1, prefix: b"", cursor: b"" };
    let page = call(&conn, "carts", &Request::List(list));
    let cursor = ListPage::decode(&page.body).unwrap().cursor().to_vec();
    let list = ListRequest { cursor: &cursor, ..list };
    let foreign = call(&conn, "default", &Request::List(list));
    assert_eq!(foreign.status(), Status::Error(ErrorCode::BadCursor));
    assert_eq!(call(&conn, "carts", &Request::List(list)).status(), Status::Ok);
}

#[test]
fn a_restart_keeps_keyspaces_and_what_is_in_them() {
    let node = TestNode::new(2);
    create(&node, "lasting", &[("conflicts", "lww"), ("ttl", "365d")]);
    put(&node.client(0), "lasting", b"k", b"v");
    let node = node.restart();
    node.settle_and_tick();
    let conn = node.client(0);
    assert_eq!(values(&get(&conn, "lasting", b"k")), [b"v"]);
    let listed = ask(&node, &conn, KeyspaceAction::List, "", &[]).unwrap();
    let names: Vec<_> = listed.iter().map(|keyspace| keyspace.name.as_str()).collect();
    assert_eq!(names, ["default", "lasting"]);
    assert!(listed[1].settings.contains(&("ttl".to_owned(), "365d".to_owned())));
    let again = ask(&node, &conn, KeyspaceAction::Create, "lasting", &[]);
    assert_eq!(again, Err(ErrorCode::InvalidArgument), "with other settings");
    create(&node, "lasting", &[("conflicts", "lww"), ("ttl", "365d")]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    let create = |name, settings: &[_]| ask(&node, &conn, KeyspaceAction::Create, name, settings);
    assert_eq!(create("three", &[("n", "3")]), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("", &[]), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("x", &[("compaction", "best")]), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("x", &[("filter_prefix", "257")]), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("x", &[("colour", "red")]), Err(ErrorCode::InvalidArgument));
    let altered = ask(&node, &conn, KeyspaceAction::Alter, "x", &[("r", "1")]);
    assert_eq!(altered, Err(ErrorCode::UnknownKeyspace));
    assert_eq!(ask(&node, &conn, KeyspaceAction::List, "", &[]).unwrap().len(), 1);
}

#[test]
fn last_write_wins_shows_one_version_where_siblings_show_all() {
    let mut config = support::config(1);
    config.blind_writes = coronet_server::node::BlindWrites::Siblings;
    let node = TestNode::with(config);
    let conn = node.client(0);
    create(&node, "latest", &[("conflicts", "lww")]);
    for keyspace in ["default", "latest"] {
        put(&conn, keyspace, b"k", b"1");
        put(&conn, keyspace, b"k", b"2");
    }
    assert_eq!(values(&get(&conn, "default", b"k")).len(), 2);
    assert_eq!(values(&get(&conn, "latest", b"k")), [b"2"]);
}

/// A counter of a keyspace, of all cores together.
fn counter(conn: &Conn<'_>, keyspace: &str, name: &str) -> u64 {
    let stats = conn.call(&Request::Stats);
    let name = format!("keyspace.{}.{name}", KeyspaceId::of(keyspace).0);
    StatsReply::decode(&stats.body).unwrap().get(&name).expect("the counter is there")
}

#[test]
fn listings_skip_tables_whose_filter_knows_no_key_with_the_prefix() {
    let node = TestNode::new(2);
    let conn = node.client(0);
    create(&node, "users", &[("filter_prefix", "9"), ("compaction", "tiered(fanout=6)")]);
    create(&node, "plain", &[]);
    let key = |user: u32, n: u32| format!("user/{user:03}/{n}").into_bytes();
    for n in 0..4 {
        for user in (0..80).step_by(2) {
            for keyspace in ["users", "plain"] {
                assert_eq!(put(&conn, keyspace, &key(user, n), &[7; 900]).status(), Status::Ok);
            }
        }
        node.settle_and_tick();
    }
    let check = |keyspace, page_limit| {
        for user in 0..80 {
            let prefix = format!("user/{user:03}/");
            let found = keys_with(&conn, keyspace, prefix.as_bytes(), page_limit);
            let wanted: Vec<_> = (0..4).filter(|_| user % 2 == 0).map(|n| key(user, n)).collect();
            assert_eq!(found, wanted, "{keyspace} {user}");
        }
        // Shorter than what filters know.
        assert_eq!(keys_with(&conn, keyspace, b"user/01", 5).len(), 20);
        let asked = |name| counter(&conn, keyspace, name);
        (asked("scan_filter_skips"), asked("scan_filter_probes"))
    };
    assert_eq!(check("plain", 3), (0, 0));
    let (skips, probes) = check("users", 3);
    assert!(probes > 0 && skips > probes * 10, "{skips} skipped, {probes} asked in vain");
    check("users", 1);
    check("users", 100);

    // Without the setting tables keep what they know, and listings stay right.
    let off = [("filter_prefix", "")];
    let now = ask(&node, &conn, KeyspaceAction::Alter, "users", &off).unwrap();
    assert!(now[0].settings.iter().all(|(name, _)| name != "filter_prefix"));
    check("users", 3);
    let on = [("filter_prefix", "3")];
    let now = ask(&node, &conn, KeyspaceAction::Alter, "users", &on).unwrap();
    assert!(now[0].settings.contains(&("filter_prefix".into(), "3".into())));
    check("users", 3);
}

#[test]
fn policies_are_switched_under_writes() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    create(&node, "busy", &[("compaction", "leveled")]);
    let policies = ["tiered(fanout=6)", "lazy_leveled", "leveled(fanout=4)"];
    for round in 0..6_usize {
        for keyspace in ["default", "busy"] {
            let policy = policies[round % policies.len()];
            let settings = [("compaction", policy)];
            let now = ask(&node, &conn, KeyspaceAction::Alter, keyspace, &settings).unwrap();
            let pair = ("compaction".to_owned(), policy.to_owned());
            assert!(now[0].settings.contains(&pair));
            for n in 0..60_u8 {
                let value = [round as u8; 900];
                assert_eq!(put(&conn, keyspace, &[n], &value).status(), Status::Ok);
            }
        }
    }
    for keyspace in ["default", "busy"] {
        for n in 0..60_u8 {
            assert_eq!(values(&get(&conn, keyspace, &[n])), [[5_u8; 900]]);
        }
    }
    let node = node.restart();
    node.settle_and_tick();
    let conn = node.client(0);
    let listed = ask(&node, &conn, KeyspaceAction::List, "busy", &[]).unwrap();
    assert!(listed[0].settings.contains(&("compaction".into(), "leveled(fanout=4)".into())));
    assert_eq!(values(&get(&conn, "busy", &[3])), [[5_u8; 900]]);
}

#[test]
fn keys_of_a_keyspace_with_ttl_are_gone_after_it() {
    let node = TestNode::new(1);
    let conn = node.client(0);
    create(&node, "short", &[("ttl", "1m")]);
    put(&conn, "short", b"k", b"v");
    put(&conn, "default", b"k", b"v");
    node.advance(Duration::from_secs(50));
    assert_eq!(get(&conn, "short", b"k").status(), Status::Ok);
    node.advance(Duration::from_secs(20));
    assert_eq!(get(&conn, "short", b"k").status(), Status::NotFound);
    assert!(keys(&conn, "short").is_empty());
    assert_eq!(get(&conn, "default", b"k").status(), Status::Ok);
}
