//! The client against a fake node on loopback.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)]

// Each test file uses its share of the fake.
#[allow(dead_code)]
mod fake;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coronet_net::client::{Client, ClientError, RequestOptions, blocking};
use coronet_net::codec::{Request, RouteReply, StatsReply};
use coronet_net::{Durability, ErrorCode, Limits, Op, Quorum, QuorumMode, RequestFlags, Status};
use coronet_ring::{CoreId, Epoch, Hlc, NodeId, PartitionMap};
use fake::{Asked, Conn, Fake, Says};

/// Answers every read with its key, every write with success.
async fn obliging(mut conn: Conn) {
    while let Some(asked) = conn.next().await {
        match asked.head.op {
            Op::Get => {
                let key = asked.key().to_vec();
                conn.found(&asked, &key).await;
            }
            Op::Put | Op::Delete => conn.written(&asked).await,
            Op::Ping => conn.reply(&asked, Status::Ok, |body| body.extend(&asked.body)).await,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn replies_in_reverse_order_reach_their_requests() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        let mut waiting = Vec::new();
        while let Some(asked) = conn.next().await {
            waiting.push(asked);
            if waiting.len() == 50 {
                while let Some(asked) = waiting.pop() {
                    let key = asked.key().to_vec();
                    conn.found(&asked, &key).await;
                }
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let client = client.clone();
        tasks.spawn(async move {
            let key = format!("key {n}");
            let found = client.get(key.as_bytes()).await.unwrap();
            assert_eq!(found.value(), Some(key.as_bytes()));
            assert_eq!(found.context, b"context");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(fake.accepted(), 1, "the connection that brought the layout serves its core");
}

#[tokio::test]
async fn requests_of_one_turn_travel_in_one_write() {
    let reads = Arc::new(AtomicUsize::new(usize::MAX));
    let seen = Arc::clone(&reads);
    let fake = Fake::start(Says::default(), move |mut conn| {
        let seen = Arc::clone(&seen);
        async move {
            let mut all = Vec::new();
            while all.len() < 20 {
                let Some(asked) = conn.next().await else { return };
                if asked.head.op == Op::Ping {
                    conn.reply(&asked, Status::Ok, |_| {}).await;
                    conn.reads = 0;
                } else {
                    all.push(asked);
                }
            }
            seen.store(conn.reads, Ordering::SeqCst);
            for asked in &all {
                conn.found(asked, b"v").await;
            }
            conn.next().await;
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    client.ping(CoreId(0), b"").await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        tasks.spawn(async move { client.get(b"k").await.unwrap() });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn each_key_goes_to_its_core() {
    let says = Says { cores: 4, ..Says::default() };
    let map = PartitionMap::new(says.partitions, says.cores).unwrap();
    let fake = Fake::start(says, move |mut conn| async move {
        while let Some(asked) = conn.next().await {
            let key = asked.key().to_vec();
            assert_eq!(map.core_of_key(&key), conn.core);
            assert_eq!(map.partition_of(&key), asked.head.partition);
            assert_eq!(asked.head.epoch, Epoch(1));
            conn.found(&asked, &key).await;
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    assert_eq!((client.layout().cores(), client.layout().partitions()), (4, 64));
    assert_eq!(client.layout().node_id(), NodeId(42));
    for n in 0..100_u32 {
        let key = n.to_le_bytes();
        assert_eq!(client.get(&key).await.unwrap().value(), Some(&key[..]));
    }
    assert_eq!(fake.accepted(), 4);
}

#[tokio::test]
async fn busy_is_retried_when_the_node_says() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let fake = Fake::start(Says::default(), move |mut conn| {
        let count = Arc::clone(&count);
        async move {
            while let Some(asked) = conn.next().await {
                assert!(!asked.head.flags.contains(RequestFlags::RETRY), "never applied");
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 | 1 => conn.refuse(&asked, ErrorCode::Busy, 1).await,
                    _ => conn.written(&asked).await,
                }
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    assert_eq!(client.put(b"k", b"v").await.unwrap().hlc, Hlc(7));
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn busy_beyond_the_deadline_is_told_at_once() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        while let Some(asked) = conn.next().await {
            conn.refuse(&asked, ErrorCode::Busy, 60_000).await;
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let error = client.put(b"k", b"v").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Busy));
    assert!(error.retryable() && !error.possibly_applied());
    assert_eq!(error.to_string(), "busy, not applied: as scripted");
}

#[tokio::test]
async fn final_errors_are_not_retried() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let fake = Fake::start(Says::default(), move |mut conn| {
        let count = Arc::clone(&count);
        async move {
            while let Some(asked) = conn.next().await {
                count.fetch_add(1, Ordering::SeqCst);
                conn.refuse(&asked, ErrorCode::BadContext, 0).await;
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let options = RequestOptions::new().context(*b"nonsense");
    let error = client.put_with(b"k", b"v", &options).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BadContext));
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

/// Reads one request and closes, on the first connection; obliges afterwards.
async fn break_once(mut conn: Conn, seen: Arc<Mutex<Vec<Asked>>>) {
    let first = conn.number == 0;
    while let Some(asked) = conn.next().await {
        seen.lock().unwrap().push(asked.clone());
        if first {
            return;
        }
        match asked.head.op {
            Op::Get => conn.found(&asked, b"v").await,
            _ => conn.written(&asked).await,
        }
    }
}

async fn fake_that_breaks_once() -> (Fake, Arc<Mutex<Vec<Asked>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&seen);
    let serve = move |conn| break_once(conn, Arc::clone(&shared));
    (Fake::start(Says::default(), serve).await, seen)
}

#[tokio::test]
async fn a_lost_write_is_repeated_under_its_token() {
    let (fake, seen) = fake_that_breaks_once().await;
    let client = Client::connect(&fake.address).await.unwrap();
    client.put(b"k", b"v").await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].token.is_some());
    assert_eq!(seen[0].token, seen[1].token);
    assert!(!seen[0].head.flags.contains(RequestFlags::RETRY));
    assert!(seen[1].head.flags.contains(RequestFlags::RETRY));
    assert_eq!(fake.accepted(), 2);
}

#[tokio::test]
async fn a_lost_write_without_token_is_not_repeated() {
    let (fake, seen) = fake_that_breaks_once().await;
    let client = Client::connect(&fake.address).await.unwrap();
    let options = RequestOptions::new().without_token();
    let error = client.put_with(b"k", b"v", &options).await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error}");
    assert!(error.possibly_applied() && error.retryable());
    assert_eq!(seen.lock().unwrap().len(), 1);
    // The client itself goes on.
    client.put(b"k", b"v").await.unwrap();
}

#[tokio::test]
async fn a_lost_read_is_repeated() {
    let (fake, seen) = fake_that_breaks_once().await;
    let client = Client::connect(&fake.address).await.unwrap();
    assert_eq!(client.get(b"k").await.unwrap().into_value(), Some(b"v".to_vec()));
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn in_doubt_is_repeated_only_with_a_token() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&seen);
    let fake = Fake::start(Says::default(), move |mut conn| {
        let seen = Arc::clone(&shared);
        async move {
            while let Some(asked) = conn.next().await {
                let retry = asked.head.flags.contains(RequestFlags::RETRY);
                seen.lock().unwrap().push((asked.token.is_some(), retry));
                match retry {
                    true => conn.written(&asked).await,
                    false => conn.refuse(&asked, ErrorCode::InDoubt, 0).await,
                }
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let bare = RequestOptions::new().without_token();
    let error = client.delete_with(b"k", &bare).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InDoubt));
    assert!(error.possibly_applied());
    client.delete(b"k").await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(false, false), (true, false), (true, true)]);
}

#[tokio::test]
async fn an_earlier_attempt_in_doubt_is_not_forgotten() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        while let Some(asked) = conn.next().await {
            if asked.head.flags.contains(RequestFlags::RETRY) {
                conn.refuse(&asked, ErrorCode::DiskFull, 0).await;
            } else {
                conn.refuse(&asked, ErrorCode::InDoubt, 0).await;
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let error = client.put(b"k", b"v").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::DiskFull));
    assert!(error.possibly_applied(), "the first attempt may have been");
}

#[tokio::test]
async fn deadlines_travel_and_end_the_wait() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        while let Some(asked) = conn.next().await {
            assert!((1..=40_000).contains(&asked.head.deadline_us), "{}", asked.head.deadline_us);
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let options = RequestOptions::new().deadline(Duration::from_millis(40));
    let read = client.get_with(b"k", &options).await.unwrap_err();
    assert!(matches!(read, ClientError::Timeout { possibly_applied: false }), "{read}");
    let write = client.put_with(b"k", b"v", &options).await.unwrap_err();
    assert!(matches!(write, ClientError::Timeout { possibly_applied: true }), "{write}");
    assert_eq!(fake.accepted(), 1, "one slow answer is no reason to reconnect");
}

#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        while let Some(asked) = conn.next().await {
            if conn.number > 0 {
                conn.found(&asked, b"v").await;
            }
        }
    })
    .await;
    let silence = Duration::from_millis(10);
    let client = Client::builder().silence(silence).connect(&fake.address).await.unwrap();
    let options = RequestOptions::new().deadline(Duration::from_millis(30));
    client.get_with(b"k", &options).await.unwrap_err();
    assert_eq!(client.get(b"k").await.unwrap().value(), Some(&b"v"[..]));
}

#[tokio::test]
async fn no_more_in_flight_than_granted() {
    let says = Says { in_flight: 3, ..Says::default() };
    let fake = Fake::start(says, |mut conn| async move {
        let mut held = Vec::new();
        while let Some(asked) = conn.next().await {
            held.push(asked);
            // Whoever sends a fourth before an answer breaks the rule.
            assert!(held.len() <= 3);
            if held.len() == 3 {
                for asked in held.drain(..) {
                    conn.found(&asked, b"v").await;
                }
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let client = client.clone();
        tasks.spawn(async move { client.get(b"k").await.unwrap() });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_restart_with_other_cores_is_noticed() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        while let Some(asked) = conn.next().await {
            let key = asked.key().to_vec();
            conn.found(&asked, &key).await;
            if key == b"stop" {
                return;
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    client.get(b"a").await.unwrap();
    fake.says(Says { cores: 2, ..Says::default() });
    client.get(b"stop").await.unwrap();
    for n in 0..20_u8 {
        client.get(&[n]).await.unwrap();
    }
    assert_eq!(client.layout().cores(), 2);
}

#[tokio::test]
async fn sizes_are_checked_before_anything_is_sent() {
    let says = Says { limits: Limits::new(8, 16), ..Says::default() };
    let fake = Fake::start(says, obliging).await;
    let client = Client::connect(&fake.address).await.unwrap();
    let too_long = client.put(b"123456789", b"").await.unwrap_err();
    assert_eq!(too_long.to_string(), "key of 9 bytes: must be from 1 to 8");
    assert!(matches!(client.get(b"").await, Err(ClientError::Size { what: "key", .. })));
    let value = client.put(b"k", &[0; 17]).await.unwrap_err();
    assert!(matches!(value, ClientError::Size { what: "value", len: 17, limit: 16, .. }));
    assert!(!value.possibly_applied());
    client.put(b"12345678", &[0; 16]).await.unwrap();
    assert_eq!(fake.accepted(), 1);
}

#[tokio::test]
async fn options_travel() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        while let Some(asked) = conn.next().await {
            let head = asked.head;
            assert_eq!((head.r, head.w), (Quorum(2), Quorum::ALL));
            assert_eq!(head.consistency.durability, Durability::Buffered);
            assert_eq!(head.consistency.mode, QuorumMode::Strict);
            assert_eq!((head.consistency.lww, head.consistency.racks), (true, 2));
            assert!(head.consistency.monotonic);
            assert_eq!(asked.token, Some([9; 16]));
            let Request::Put(put) = asked.request() else { panic!() };
            assert_eq!((put.key, put.value, put.context), (&b"k"[..], &b"v"[..], &b"c"[..]));
            conn.written(&asked).await;
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let options = RequestOptions::new()
        .r(Quorum(2))
        .w(Quorum::ALL)
        .durability(Durability::Buffered)
        .quorum_mode(QuorumMode::Strict)
        .last_write_wins(true)
        .racks(2)
        .monotonic(true)
        .token([9; 16])
        .context(*b"c");
    client.put_with(b"k", b"v", &options).await.unwrap();
}

#[tokio::test]
async fn stats_and_route() {
    let says = Says { cores: 2, ..Says::default() };
    let fake = Fake::start(says, |mut conn| async move {
        while let Some(asked) = conn.next().await {
            let core = conn.core;
            let body = |body: &mut Vec<u8>| match asked.head.op {
                Op::Stats => StatsReply::write(body, [("core", u64::from(core.0)), ("two", 2)]),
                Op::Route => {
                    let (partition, epoch) = (asked.head.partition, Epoch(3));
                    RouteReply { partition, core, epoch, node_id: NodeId(42) }.write(body);
                }
                other => panic!("{other}"),
            };
            conn.reply(&asked, Status::Ok, body).await;
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let stats = client.stats().await.unwrap();
    assert_eq!((stats.get("core"), stats.get("two"), stats.get("three")), (Some(0), Some(2), None));
    let other = client.stats_of(CoreId(1)).await.unwrap();
    assert_eq!(other.get("core"), Some(1));
    let route = client.route(b"key").await.unwrap();
    assert_eq!((route.partition, route.core), client.layout().place(b"key"));
}

#[tokio::test]
async fn nonsense_from_the_node_ends_the_connection_not_the_client() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        while let Some(asked) = conn.next().await {
            if conn.number == 0 {
                conn.send(&[0xff; 100]).await;
                conn.next().await;
            } else {
                conn.found(&asked, b"v").await;
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    assert_eq!(client.get(b"k").await.unwrap().value(), Some(&b"v"[..]));
}

#[tokio::test]
async fn unknown_replies_are_ignored() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        while let Some(asked) = conn.next().await {
            let mut stranger = asked.clone();
            stranger.head.request_id = 999_999;
            conn.found(&stranger, b"not yours").await;
            conn.found(&asked, b"v").await;
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    assert_eq!(client.get(b"k").await.unwrap().value(), Some(&b"v"[..]));
}

#[tokio::test]
async fn nobody_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::connect(&address).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }));
    assert!(error.to_string().contains(&address), "{error}");
    assert!(matches!(Client::connect("a:b").await, Err(ClientError::Address(_))));
}

#[tokio::test]
async fn large_values_both_ways() {
    let fake = Fake::start(Says::default(), |mut conn| async move {
        let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        while let Some(asked) = conn.next().await {
            match asked.request() {
                Request::Put(put) => {
                    stored.insert(put.key.to_vec(), put.value.to_vec());
                    conn.written(&asked).await;
                }
                Request::Get { key } => conn.found(&asked, &stored[key]).await,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let value: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    for n in 0..4_u8 {
        client.put(&[n], &value).await.unwrap();
        assert!(client.get(&[n]).await.unwrap().value() == Some(&value[..]));
    }
}

#[test]
fn blocking_client_from_several_threads() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start(Says::default(), obliging));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let node = std::thread::spawn(move || runtime.block_on(stopped));
    let client = blocking::Client::connect(&fake.address).unwrap();
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                for n in 0..50 {
                    client.put(&[thread, n], b"v").unwrap();
                    let found = client.get(&[thread, n]).unwrap();
                    assert_eq!(found.value(), Some(&[thread, n][..]));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    client.ping(CoreId(0), b"x").unwrap();
    drop(client);
    stop.send(()).unwrap();
    node.join().unwrap().unwrap();
}
