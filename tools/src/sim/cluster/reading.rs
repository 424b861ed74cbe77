//! Requests of simulated clients with a limit on their patience, and answers taken apart.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_net::codec::{ListPage, ListRequest, Request, TopologyReply, Versions};
use coronet_net::{Consistency, Op, Quorum, QuorumMode, ReplyFlags, RequestHead, Status};

use coronet_ring::CoreId;
use coronet_sim::SimEnv;
use futures_util::future::{Either, select};

use crate::sim::{Client, Network, Reply};

/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// What a future gives within a time.
pub async fn within<T>(env: &SimEnv, time: Duration, future: impl Future<Output = T>) -> Option<T> {
    match select(pin!(future), pin!(env.sleep(time))).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

/// Only replicas count.
pub fn strict() -> Consistency {
    Consistency { mode: QuorumMode::Strict, ..Consistency::default() }
}

/// A greeted connection.
pub async fn connect(env: &SimEnv, network: &Rc<Network>) -> Option<Rc<Client>> {
    let client = Client::connect(network);
    within(env, PATIENCE, client.hello(CoreId::ANY)).await??;
    Some(client)
}

/// What a GET showed.
#[derive(Debug, Clone)]
pub struct Found {
    /// The values.
    pub values: Vec<Vec<u8>>,
    /// The context; empty when the key was never written.
    pub context: Vec<u8>,
    /// Replicas that answered.
    pub answers: u8,
    /// Whether stand-ins were among them.
    pub sloppy: bool,
    /// Whether more replicas were asked than needed, because one was slow.
    pub hedged: bool,
}

/// Reads a key. `None`: no answer, or a refusal.
pub async fn get(
    env: &SimEnv,
    client: &Client,
    key: &[u8],
    r: Quorum,
    consistency: Consistency,
) -> Option<Found> {
    let deadline_us = 2_000_000;
    let head = RequestHead { r, consistency, deadline_us, ..RequestHead::new(Op::Get, 0) };
    let reply = within(env, PATIENCE, client.call(&Request::Get { key }, &head, None)).await??;
    if let Status::Error(_) = reply.head.status {
        return None;
    }
    let versions = match Versions::decode(&reply.body) {
        Ok(versions) => versions,
        Err(error) => panic!("answer to a GET: {error}"),
    };
    Some(Found {
        values: versions.iter().map(|version| version.value.to_vec()).collect(),
        context: versions.context().to_vec(),
        answers: reply.head.acks,
        sloppy: is_sloppy(&reply),
        hedged: reply.head.flags.contains(ReplyFlags::HEDGED),
    })
}

/// Whether stand-ins are among those that answered.
pub fn is_sloppy(reply: &Reply) -> bool {
    reply.head.flags.contains(ReplyFlags::SLOPPY)
}

/// Lists everything with a prefix. `None`: no answer, or a refusal.
pub async fn list(env: &SimEnv, client: &Client, prefix: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut keys, mut cursor) = (Vec::new(), Vec::new());
    loop {
        let request = ListRequest { page_limit: 2, credit: 2, prefix, cursor: &cursor };
        let head = RequestHead::new(Op::List, 0);
        let mut replies = client.send(&Request::List(request), &head, None);
        let next = loop {
            let reply = within(env, PATIENCE, replies.recv()).await??;
            if let Status::Error(_) = reply.head.status {
                return None;
            }
            let page = match ListPage::decode(&reply.body) {
                Ok(page) => page,
                Err(error) => panic!("page of a listing: {error}"),
            };
            keys.extend(page.entries().map(|entry| entry.key.to_vec()));
            if !reply.head.more() {
                break page.cursor().to_vec();
            }
        };
        if next.is_empty() {
            return Some(keys);
        }
        cursor = next;
    }
}

/// What a node knows of the cluster. `None`: no answer, or a refusal.
pub async fn topology(env: &SimEnv, client: &Client) -> Option<TopologyReply> {
    let head = RequestHead::new(Op::Topology, 0);
    let reply = within(env, PATIENCE, client.call(&Request::Topology, &head, None)).await??;
    match reply.head.status {
        Status::Ok => TopologyReply::decode(&reply.body).ok(),
        _ => None,
    }
}
