//! The client's reads over several cores: MULTI_GET and listings against a fake node.
#![allow(missing_docs, clippy::unwrap_used)]

// Each test file uses its share of the fake.
#[allow(dead_code)]
mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coronet_net::client::{Client, ClientError, ListOptions, Position};
use coronet_net::codec::{Entry, MultiWriter, PageWriter, Request, VersionRef};
use coronet_net::{ErrorCode, Op, ReplyFlags, ReplyHead, Status};
use coronet_ring::{Hlc, PartitionId, PartitionMap};
use fake::{Conn, Fake, Says, frame};

#[tokio::test]
async fn multi_get_is_split_by_core_and_put_together() {
    let says = Says { cores: 3, ..Says::default() };
    let map = PartitionMap::new(says.partitions, says.cores).unwrap();
    let fake = Fake::start(says, move |mut conn| async move {
        while let Some(asked) = conn.next().await {
            let Request::MultiGet(keys) = asked.request() else { panic!() };
            let keys: Vec<Vec<u8>> = keys.iter().map(<[u8]>::to_vec).collect();
            // One frame per key, last key first.
            for (index, key) in keys.iter().enumerate().rev() {
                assert_eq!(map.core_of_key(key), conn.core);
                let more = if index > 0 { ReplyFlags::MORE } else { ReplyFlags::NONE };
                conn.reply_with(&asked, Status::Ok, more, |body| {
                    let mut results = MultiWriter::new(body);
                    let index = index as u16;
                    match key[0] % 3 {
                        0 => results.not_found(index, |_| {}),
                        1 => results.failed(index, ErrorCode::Corruption),
                        _ => {
                            let mut found = results.found(index);
                            found.push(VersionRef { hlc: Hlc(1), tombstone: false, value: key });
                            found.finish(|_| {});
                        }
                    }
                    results.finish();
                })
                .await;
            }
        }
    })
    .await;
    let client = Client::connect(&fake.address).await.unwrap();
    let mut keys: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n, 1]).collect();
    keys.push(Vec::new());
    let results = client.multi_get(&keys).await;
    assert_eq!(results.len(), keys.len());
    for (key, result) in keys.iter().zip(&results) {
        match (key.first().map(|first| first % 3), result) {
            (None, Err(ClientError::Size { .. })) => {}
            (Some(0), Ok(found)) => assert!(!found.exists()),
            (Some(1), Err(error)) => assert_eq!(error.code(), Some(ErrorCode::Corruption)),
            (Some(2), Ok(found)) => assert_eq!(found.value(), Some(&key[..])),
            other => panic!("{other:?}"),
        }
    }
}

/// A node with one key per partition; lists the partitions of the core asked, two pages a time.
async fn listing_core(mut conn: Conn, map: PartitionMap, breaks: Arc<AtomicUsize>) {
    while let Some(asked) = conn.next().await {
        let Request::List(list) = asked.request() else { panic!() };
        let mut partition = match list.cursor {
            [] => 0,
            cursor => u16::from_le_bytes(cursor.try_into().unwrap()),
        };
        assert_eq!(map.core_of(PartitionId(partition)), conn.core);
        let end = map.range_of(conn.core).end;
        for page in 0..list.credit {
            let to = (partition + list.page_limit as u16).min(end);
            let last = page + 1 == list.credit || to == end;
            let mut head = ReplyHead::new(Op::List.to_u8(), asked.head.request_id, Status::Ok);
            head.partition = PartitionId(to);
            head.flags = if last { ReplyFlags::NONE } else { ReplyFlags::MORE };
            let bytes = frame(&head, |body| {
                let mut page = PageWriter::new(body);
                for partition in partition..to {
                    let mut key = list.prefix.to_vec();
                    key.extend_from_slice(&partition.to_le_bytes());
                    page.push(Entry { key: &key, versions: 1, bytes: 5, hlc: Hlc(1) });
                }
                let over = u32::from(to) == map.partitions();
                page.finish(|cursor| {
                    if !over {
                        cursor.extend_from_slice(&to.to_le_bytes());
                    }
                });
            });
            conn.send(&bytes).await;
            partition = to;
            if breaks.fetch_add(1, Ordering::SeqCst) == 3 {
                return;
            }
            if last {
                break;
            }
        }
    }
}

async fn listing_fake() -> Fake {
    let says = Says { cores: 3, ..Says::default() };
    let map = PartitionMap::new(says.partitions, says.cores).unwrap();
    let breaks = Arc::new(AtomicUsize::new(0));
    Fake::start(says, move |conn| listing_core(conn, map, Arc::clone(&breaks))).await
}

#[tokio::test]
async fn listings_cross_cores_and_survive_broken_connections() {
    let fake = listing_fake().await;
    let client = Client::connect(&fake.address).await.unwrap();
    let mut listing = client.list_with(b"p/", ListOptions::new().page(3).pages(2));
    let mut keys = Vec::new();
    while let Some(listed) = listing.next().await.unwrap() {
        assert_eq!((listed.bytes, listed.versions), (5, 1));
        keys.push(listed.key);
    }
    assert_eq!(listing.position(), None);
    let expected: Vec<Vec<u8>> =
        (0..64_u16).map(|n| [b"p/", &n.to_le_bytes()[..]].concat()).collect();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn listings_resume_from_a_position() {
    let fake = listing_fake().await;
    let client = Client::connect(&fake.address).await.unwrap();
    let options = ListOptions::new().page(5).pages(2);
    let mut first = client.list_with(b"", options.clone());
    for _ in 0..33 {
        first.next().await.unwrap().unwrap();
    }
    let bytes = first.position().unwrap().to_bytes();
    let options = options.start(Position::from_bytes(&bytes).unwrap());
    let mut second = client.list_with(b"", options);
    let next = second.next().await.unwrap().unwrap();
    let next = u16::from_le_bytes(next.key.try_into().unwrap());
    assert!((28..=33).contains(&next), "the page of key 33 comes again, began at {next}");
}
