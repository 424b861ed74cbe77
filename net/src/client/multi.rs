//! Reads of many keys at once. At a node alone MULTI_GET over all cores: split by owner, asked in
//! parallel, put together again. In a cluster each key has replicas of its own: one GET for each,
//! so that each goes to one of them and is retried by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use coronet_ring::CoreId;
use tokio::task::JoinSet;

use super::call::{Inner, Target, server_error};
use super::link::Replies;
use super::options::RequestOptions;
use super::types::{Found, ReplyInfo};
use super::{Client, ClientError};
use crate::codec::{KeyListBuf, MultiResults, Request};
use crate::limits::MAX_KEYS;

/// Bytes of keys in one request: enough to amortise its costs, far below any frame limit.
const CHUNK_BYTES: usize = 64 << 10;

/// Keys of one call that are read at a time in a cluster.
const GETS_AT_ONCE: usize = 256;

/// Keys for one core in one request, and where their results belong.
struct Chunk {
    core: CoreId,
    keys: KeyListBuf,
    places: Vec<usize>,
}

pub(super) async fn multi_get<K: AsRef<[u8]>>(
    inner: &Arc<Inner>,
    keys: &[K],
    options: &RequestOptions,
) -> Vec<Result<Found, ClientError>> {
    // What no reply fills in, no reply answered.
    let mut results: Vec<Result<Found, ClientError>> = keys
        .iter()
        .map(|_| Err(ClientError::Protocol("MULTI_GET left a key out".to_owned())))
        .collect();
    if inner.cluster().view().topology.is_some() {
        one_by_one(inner, keys, options, &mut results).await;
        return results;
    }
    let mut tasks = JoinSet::new();
    for chunk in split(inner, keys, &mut results) {
        let (inner, options) = (Arc::clone(inner), options.clone());
        tasks.spawn(async move {
            let request = Request::MultiGet(chunk.keys.as_list());
            let replies = inner.call(Target::Core(chunk.core), &request, &options).await;
            (chunk.places, replies)
        });
    }
    while let Some(joined) = tasks.join_next().await {
        // A task that panicked or was cancelled with its runtime leaves its keys unanswered.
        let Ok((places, replies)) = joined else { continue };
        match replies.and_then(|replies| fill(&replies, &places, &mut results)) {
            Ok(()) => {}
            Err(error) => places.iter().for_each(|place| results[*place] = Err(error.clone())),
        }
    }
    results
}

/// Reads each key by itself, many at a time.
async fn one_by_one<K: AsRef<[u8]>>(
    inner: &Arc<Inner>,
    keys: &[K],
    options: &RequestOptions,
    results: &mut [Result<Found, ClientError>],
) {
    let mut tasks = JoinSet::new();
    for (place, key) in keys.iter().map(AsRef::as_ref).enumerate() {
        if tasks.len() >= GETS_AT_ONCE
            && let Some(Ok((place, found))) = tasks.join_next().await
        {
            results[place] = found;
        }
        let (client, options) = (Client { inner: Arc::clone(inner) }, options.clone());
        let key = key.to_vec();
        tasks.spawn(async move { (place, client.get_with(&key, &options).await) });
    }
    while let Some(joined) = tasks.join_next().await {
        // A task that panicked or was cancelled with its runtime leaves its key unanswered.
        if let Ok((place, found)) = joined {
            results[place] = found;
        }
    }
}

/// Cuts the keys into requests, each for one core. Keys that cannot be asked for get their error.
fn split<K: AsRef<[u8]>>(
    inner: &Inner,
    keys: &[K],
    results: &mut [Result<Found, ClientError>],
) -> Vec<Chunk> {
    let layout = inner.layout();
    let mut full = Vec::new();
    let mut open: BTreeMap<CoreId, Chunk> = BTreeMap::new();
    for (place, key) in keys.iter().map(AsRef::as_ref).enumerate() {
        if let Err(error) = inner.check_key(key) {
            results[place] = Err(error);
            continue;
        }
        let (_, core) = layout.place(key);
        let chunk = open.entry(core).or_insert_with(|| Chunk::new(core));
        if chunk.keys.len() >= usize::from(MAX_KEYS)
            || (!chunk.keys.is_empty() && chunk.keys.bytes() + key.len() > CHUNK_BYTES)
        {
            full.push(std::mem::replace(chunk, Chunk::new(core)));
        }
        if chunk.keys.push(key) {
            chunk.places.push(place);
        }
    }
    full.extend(open.into_values());
    full
}

impl Chunk {
    fn new(core: CoreId) -> Self {
        Self { core, keys: KeyListBuf::new(), places: Vec::new() }
    }
}

fn fill(
    replies: &Replies,
    places: &[usize],
    results: &mut [Result<Found, ClientError>],
) -> Result<(), ClientError> {
    for frame in replies.frames() {
        let info = ReplyInfo::new(replies.node, &frame.head);
        for entry in MultiResults::decode(&frame.body)? {
            let entry = entry?;
            let place = places.get(usize::from(entry.index)).ok_or_else(|| {
                ClientError::Protocol("MULTI_GET answered a key nobody asked for".to_owned())
            })?;
            results[*place] = match entry.result {
                Ok(versions) => Ok(Found::new(&versions, info)),
                Err(code) => Err(server_error(code)),
            };
        }
    }
    Ok(())
}
