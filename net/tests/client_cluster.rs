//! The client in a cluster of fake nodes: which node gets a request, and what happens when one of
//! them is gone, slow, or knows more.
#![allow(missing_docs, clippy::unwrap_used)]

// Each test file uses its share of the fake.
#[allow(dead_code)]
mod fake;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coronet_net::client::{Client, ClientError, RequestOptions};
use coronet_net::codec::{
    Request, TopologyNode, TopologyReply, VersionRef, VersionsWriter, Written,
};
use coronet_net::{ErrorCode, Op, RequestFlags, Status};
use coronet_ring::{Epoch, Hlc, NodeId, PlacedNode, Table};
use fake::{Asked, Conn, Fake, Says};

const PARTITIONS: u32 = 64;

/// What each node was asked, in the order of arrival.
type Log = Arc<Mutex<Vec<(usize, Asked)>>>;

struct Cluster {
    nodes: Vec<Fake>,
    log: Log,
}

fn table(epoch: u64, count: usize) -> Table {
    let placed = (0..count).map(|at| PlacedNode {
        id: NodeId(at as u128),
        rack: format!("rack {at}"),
        weight: 1,
    });
    Table::create(Epoch(epoch), PARTITIONS, 2, placed.collect()).unwrap()
}

impl Cluster {
    /// Nodes with two replicas of each key; `serve` answers at node `.0` the request `.2`.
    async fn start<F, S>(count: usize, serve: S) -> Self
    where
        F: Future<Output = (Conn, bool)> + Send + 'static,
        S: Fn(usize, Conn, Asked) -> F + Send + Sync + 'static,
    {
        Self::start_at(&vec!["127.0.0.1:0".to_owned(); count], serve).await
    }

    /// The same at these addresses.
    async fn start_at<F, S>(addresses: &[String], serve: S) -> Self
    where
        F: Future<Output = (Conn, bool)> + Send + 'static,
        S: Fn(usize, Conn, Asked) -> F + Send + Sync + 'static,
    {
        let log = Log::default();
        let serve = Arc::new(serve);
        let mut nodes = Vec::new();
        for (at, address) in addresses.iter().enumerate() {
            let (log, serve) = (Arc::clone(&log), Arc::clone(&serve));
            let answer = move |mut conn: Conn| {
                let (log, serve) = (Arc::clone(&log), Arc::clone(&serve));
                async move {
                    while let Some(asked) = conn.next().await {
                        log.lock().unwrap().push((at, asked.clone()));
                        let (back, goes_on) = serve(at, conn, asked).await;
                        conn = back;
                        if !goes_on {
                            return;
                        }
                    }
                }
            };
            nodes.push(Fake::start_at(address, Says::default(), answer).await);
        }
        let cluster = Self { nodes, log };
        cluster.tell(1, &[]);
        cluster
    }

    /// From now on all nodes tell this placement and these nodes as dead.
    fn tell(&self, epoch: u64, dead: &[usize]) {
        let mut encoded = Vec::new();
        table(epoch, self.nodes.len()).encode(&mut encoded);
        let nodes = self.nodes.iter().enumerate().map(|(at, fake)| TopologyNode {
            id: NodeId(at as u128),
            alive: !dead.contains(&at),
            cores: 1,
            address: fake.address.clone(),
            rack: format!("rack {at}"),
        });
        let topology = TopologyReply { replicas: 2, nodes: nodes.collect(), table: encoded };
        for (at, fake) in self.nodes.iter().enumerate() {
            fake.says(Says {
                node_id: NodeId(at as u128),
                epoch: Epoch(epoch),
                topology: Some(topology.clone()),
                ..Says::default()
            });
        }
    }

    /// Ends all nodes; where they were.
    async fn stop(self) -> Vec<String> {
        let mut addresses = Vec::new();
        for node in self.nodes {
            node.stop().await;
            addresses.push(node.address);
        }
        addresses
    }

    fn asked(&self) -> Vec<usize> {
        self.log.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }
}

/// The replicas of a key by the number of their node.
fn replicas(key: &[u8], count: usize) -> Vec<usize> {
    let table = table(1, count);
    table.preference(table.partition_of(key), 2).iter().map(|id| id.0 as usize).collect()
}

/// A key whose first replicas are these.
fn key_at(wanted: &[usize], count: usize) -> Vec<u8> {
    let keys = (0..100_000_u32).map(|n| n.to_le_bytes().to_vec());
    keys.into_iter().find(|key| replicas(key, count).starts_with(wanted)).unwrap()
}

async fn oblige(_at: usize, mut conn: Conn, asked: Asked) -> (Conn, bool) {
    match asked.head.op {
        Op::Get => conn.found(&asked, b"v").await,
        _ => conn.written(&asked).await,
    }
    (conn, true)
}

#[tokio::test]
async fn each_key_goes_to_its_first_replica() {
    let cluster = Cluster::start(4, oblige).await;
    let client = Client::connect(&cluster.nodes[2].address).await.unwrap();
    let topology = client.topology().await.unwrap().unwrap();
    assert_eq!((topology.replicas, topology.nodes.len(), topology.epoch()), (2, 4, Epoch(1)));
    for n in 0..60_u32 {
        let key = n.to_le_bytes();
        let found = client.get(&key).await.unwrap();
        let first = replicas(&key, 4)[0];
        assert_eq!(found.info.node, NodeId(first as u128));
        let (at, asked) = cluster.log.lock().unwrap().pop().unwrap();
        assert_eq!(at, first);
        assert_eq!(Some(asked.head.partition), topology.partition_of(&key));
        assert_eq!(asked.head.epoch, Epoch(1));
    }
}

#[tokio::test]
async fn a_pinned_client_stays_with_its_node() {
    let cluster = Cluster::start(4, oblige).await;
    let pinned = Client::builder().pinned();
    let client = pinned.connect(&cluster.nodes[2].address).await.unwrap();
    for n in 0..60_u32 {
        client.get(&n.to_le_bytes()).await.unwrap();
    }
    assert_eq!(cluster.asked(), [2; 60]);
    assert_eq!(client.topology().await.unwrap().unwrap().nodes.len(), 4);
}

#[tokio::test]
async fn dead_nodes_are_not_asked() {
    let cluster = Cluster::start(3, oblige).await;
    cluster.tell(1, &[1]);
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
    for n in 0..60_u32 {
        client.put(&n.to_le_bytes(), b"v").await.unwrap();
    }
    assert!(!cluster.asked().contains(&1));
    assert_eq!(cluster.nodes[1].accepted(), 0);
}

#[tokio::test]
async fn the_first_address_that_answers_is_enough() {
    let cluster = Cluster::start(2, oblige).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap().to_string();
    drop(closed);
    let client = Client::connect([&nobody, &cluster.nodes[1].address]).await.unwrap();
    client.put(b"k", b"v").await.unwrap();
    let error = Client::connect(vec![nobody.clone(), nobody]).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn addresses_that_all_lead_nowhere_are_all_named() {
    let cluster = Cluster::start(2, oblige).await;
    let gone = cluster.stop().await;
    let refused = Client::connect(gone.clone()).await.unwrap_err().to_string();
    assert!(gone.iter().all(|address| refused.contains(address.as_str())), "{refused}");
}

#[tokio::test]
async fn a_lost_write_goes_to_the_next_replica_under_its_token() {
    let breaks = |at, mut conn: Conn, asked: Asked| async move {
        if at == 0 {
            return (conn, false);
        }
        conn.written(&asked).await;
        (conn, true)
    };
    let cluster = Cluster::start(3, breaks).await;
    let key = key_at(&[0, 2], 3);
    let client = Client::connect(&cluster.nodes[1].address).await.unwrap();
    let stored = client.put(&key, b"v").await.unwrap();
    assert_eq!(stored.info.node, NodeId(2));
    let log = cluster.log.lock().unwrap();
    let [(0, first), (2, second)] = log.as_slice() else { panic!("{log:?}") };
    assert!(first.token.is_some());
    assert_eq!(first.token, second.token);
    assert!(!first.head.flags.contains(RequestFlags::RETRY));
    assert!(second.head.flags.contains(RequestFlags::RETRY));
}

#[tokio::test]
async fn without_a_token_a_lost_write_stays_in_doubt() {
    let breaks = |_, conn, _| async move { (conn, false) };
    let cluster = Cluster::start(3, breaks).await;
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
    let options = RequestOptions::new().without_token();
    let error = client.put_with(b"k", b"v", &options).await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { possibly_applied: true }), "{error}");
    assert_eq!(cluster.asked().len(), 1);
}

#[tokio::test]
async fn refusals_of_one_node_are_no_refusals_of_the_cluster() {
    for code in [ErrorCode::NotEnoughReplicas, ErrorCode::Busy, ErrorCode::ShuttingDown] {
        let refuses = move |at, mut conn: Conn, asked: Asked| async move {
            match at {
                2 => conn.written(&asked).await,
                _ => conn.refuse(&asked, code, 0).await,
            }
            (conn, true)
        };
        let cluster = Cluster::start(3, refuses).await;
        let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
        client.put(&key_at(&[0, 1], 3), b"v").await.unwrap();
        assert_eq!(cluster.asked(), [0, 1, 2], "{code}: the replicas, then whoever is left");
    }
}

#[tokio::test]
async fn refused_by_all_ends_after_the_retries() {
    let refuses = |_, mut conn: Conn, asked: Asked| async move {
        conn.refuse(&asked, ErrorCode::NotEnoughReplicas, 0).await;
        (conn, true)
    };
    let cluster = Cluster::start(3, refuses).await;
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
    let options = RequestOptions::new().retries(5);
    let error = client.put_with(b"k", b"v", &options).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotEnoughReplicas));
    assert!(error.retryable() && !error.possibly_applied());
    assert_eq!(cluster.asked().len(), 6);
    // Who asks for no retries is told once every node has refused.
    let error = client.put(&key_at(&[0, 1], 3), b"v").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotEnoughReplicas));
    assert_eq!(cluster.asked()[6..], [0, 1, 2]);
    let pinned = Client::builder().pinned().connect(&cluster.nodes[0].address).await.unwrap();
    assert!(pinned.put(b"k", b"v").await.is_err());
    assert_eq!(cluster.asked()[9..], [0]);
}

#[tokio::test]
async fn a_keyspace_that_no_node_knows_is_told_once_all_were_asked() {
    let refuses = |_, mut conn: Conn, asked: Asked| async move {
        conn.refuse(&asked, ErrorCode::UnknownKeyspace, 0).await;
        (conn, true)
    };
    let cluster = Cluster::start(3, refuses).await;
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap().keyspace("crats");
    let error = client.put(&key_at(&[0, 1], 3), b"v").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownKeyspace));
    assert!(error.to_string().contains("\"crats\""), "{error}");
    assert!(!error.possibly_applied());
    assert_eq!(cluster.asked(), [0, 1, 2], "each node once");
}

#[tokio::test]
async fn an_answer_says_more_than_a_node_out_of_reach() {
    let refuses = |_, mut conn: Conn, asked: Asked| async move {
        conn.refuse(&asked, ErrorCode::NotEnoughReplicas, 0).await;
        (conn, true)
    };
    let cluster = Cluster::start(2, refuses).await;
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
    // Somebody else is at the address of the second replica.
    cluster.nodes[1].says(Says { node_id: NodeId(99), ..Says::default() });
    let key = key_at(&[0, 1], 2);
    let error = client.put_with(&key, b"v", &RequestOptions::new().retries(1)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotEnoughReplicas));
    assert!(!error.possibly_applied());
}

#[tokio::test]
async fn in_doubt_at_one_node_and_refused_at_the_next_stays_in_doubt() {
    let doubts = |at, mut conn: Conn, asked: Asked| async move {
        let code = if at == 0 { ErrorCode::InDoubt } else { ErrorCode::DiskFull };
        conn.refuse(&asked, code, 0).await;
        (conn, true)
    };
    let cluster = Cluster::start(2, doubts).await;
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
    let error = client.put(&key_at(&[0], 2), b"v").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::DiskFull));
    assert!(error.possibly_applied());
    assert_eq!(cluster.asked(), [0, 1]);
}

#[tokio::test]
async fn a_node_that_hangs_does_not_use_up_the_time() {
    let hangs = |at, mut conn: Conn, asked: Asked| async move {
        if at != 0 {
            conn.written(&asked).await;
        }
        (conn, true)
    };
    let cluster = Cluster::start(2, hangs).await;
    let patient = Client::builder().patience(Duration::from_millis(50));
    let client = patient.connect(&cluster.nodes[1].address).await.unwrap();
    let key = key_at(&[0], 2);
    assert_eq!(client.put(&key, b"v").await.unwrap().info.node, NodeId(1));
    let log = cluster.log.lock().unwrap();
    assert_eq!(log[0].1.token, log[1].1.token);
    assert!(log[1].1.head.flags.contains(RequestFlags::RETRY));
}

#[tokio::test]
async fn a_newer_placement_is_fetched_when_a_reply_tells_of_it() {
    let cluster = Cluster::start(3, oblige).await;
    let settings = Client::builder().refresh(Duration::from_secs(3600));
    let client = settings.connect(&cluster.nodes[0].address).await.unwrap();
    let epoch = |client: &Client| client.known_topology().unwrap().epoch();
    client.get(b"k").await.unwrap();
    assert_eq!(epoch(&client), Epoch(1));
    cluster.tell(2, &[]);
    while epoch(&client) != Epoch(2) {
        client.get(b"k").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.get(b"k").await.unwrap();
    assert_eq!(cluster.log.lock().unwrap().last().unwrap().1.head.epoch, Epoch(2));
    // An older one is not taken for the newest.
    cluster.tell(1, &[]);
    client.topology().await.unwrap();
    assert_eq!(epoch(&client), Epoch(2));
}

#[tokio::test]
async fn what_is_known_grows_old() {
    let cluster = Cluster::start(2, oblige).await;
    let settings = Client::builder().refresh(Duration::from_millis(20));
    let client = settings.connect(&cluster.nodes[0].address).await.unwrap();
    cluster.tell(1, &[1]);
    let dead = |client: &Client| client.known_topology().unwrap().nodes.iter().any(|n| !n.alive);
    while !dead(&client) {
        client.get(b"k").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Requests may fail until the client knows where the nodes are, which it need not be told.
async fn put_until_stored(client: &Client) {
    while client.put(b"k", b"v").await.is_err() {}
}

#[tokio::test]
async fn a_client_whose_nodes_all_moved_goes_back_to_where_it_was_sent_first() {
    let first = Cluster::start(3, oblige).await;
    // The client is sent to a forwarded port, which no node says of itself.
    let shut = |mut conn: Conn| async move {
        while let Some(asked) = conn.next().await {
            conn.refuse(&asked, ErrorCode::Busy, 0).await;
        }
    };
    let door = Fake::start(first.nodes[0].said(), shut).await;
    let client = Client::connect(&door.address).await.unwrap();
    door.stop().await;
    client.put(b"k", b"v").await.unwrap();
    let topology = client.topology().await.unwrap().unwrap();
    assert!(topology.nodes.iter().all(|node| node.address != door.address));
    first.stop().await;
    let second = Cluster::start(3, oblige).await;
    let _door = Fake::start_at(&door.address, second.nodes[0].said(), shut).await;
    put_until_stored(&client).await;
    assert!(!second.asked().is_empty());
}

#[tokio::test]
async fn a_client_goes_back_to_what_it_has_learnt() {
    let first = Cluster::start(3, oblige).await;
    let client = Client::connect(&first.nodes[0].address).await.unwrap();
    let second = Cluster::start(3, oblige).await;
    for (node, moved) in first.nodes.iter().zip(&second.nodes) {
        node.says(moved.said());
    }
    client.topology().await.unwrap();
    let old = first.stop().await;
    put_until_stored(&client).await;
    second.stop().await;
    // Not where it was sent first: there is nobody any more.
    let elsewhere = ["127.0.0.1:0".to_owned(), old[1].clone(), old[2].clone()];
    let third = Cluster::start_at(&elsewhere, oblige).await;
    put_until_stored(&client).await;
    assert!(!third.asked().is_empty());
}

#[tokio::test]
async fn another_cluster_at_the_first_address_is_not_trusted() {
    let cluster = Cluster::start(1, oblige).await;
    let client = Client::builder().retries(3).connect(&cluster.nodes[0].address).await.unwrap();
    let mut other = cluster.nodes[0].said();
    let address = cluster.stop().await.remove(0);
    other.node_id = NodeId(99);
    other.topology.as_mut().unwrap().nodes[0].id = NodeId(99);
    let _other = Fake::start_at(&address, other, |mut conn| async move {
        while let Some(asked) = conn.next().await {
            conn.written(&asked).await;
        }
    })
    .await;
    for _ in 0..3 {
        let refused = client.put(b"k", b"v").await.unwrap_err();
        assert!(matches!(refused, ClientError::Connect { .. }), "{refused}");
    }
    assert!(client.topology().await.is_err());
}

#[tokio::test]
async fn another_node_at_a_members_address_is_not_trusted() {
    let cluster = Cluster::start(2, oblige).await;
    let client = Client::connect(&cluster.nodes[1].address).await.unwrap();
    cluster.nodes[0].says(Says { node_id: NodeId(99), ..Says::default() });
    client.put(&key_at(&[0], 2), b"v").await.unwrap();
    assert_eq!(cluster.asked(), [1]);
}

#[tokio::test]
async fn many_keys_are_read_one_by_one() {
    let cluster = Cluster::start(3, oblige).await;
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
    let mut keys: Vec<Vec<u8>> = (0..600_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    keys.push(Vec::new());
    let results = client.multi_get(&keys).await;
    assert!(results[..600].iter().all(|found| found.as_ref().unwrap().value() == Some(b"v")));
    assert!(matches!(results[600], Err(ClientError::Size { .. })));
    for (at, asked) in cluster.log.lock().unwrap().iter() {
        assert_eq!(*at, replicas(asked.key(), 3)[0]);
    }
}

/// One key's versions, as a node keeps them that takes the context for the number of versions a
/// client has seen of all there ever were.
#[derive(Default)]
struct Register {
    versions: BTreeMap<u8, Vec<u8>>,
    written: u8,
}

impl Register {
    fn write(&mut self, seen: u8, value: &[u8]) {
        self.versions.retain(|number, _| *number > seen);
        self.written += 1;
        self.versions.insert(self.written, value.to_vec());
    }
}

async fn serve_register(register: Arc<Mutex<Register>>, mut conn: Conn, asked: Asked) -> Conn {
    if let Request::Put(put) = asked.request() {
        let seen = put.context.first().copied().unwrap_or(0);
        register.lock().unwrap().write(seen, put.value);
        conn.reply(&asked, Status::Ok, |body| Written::write(body, Hlc(1), |_| {})).await;
        return conn;
    }
    let (versions, written) = {
        let register = register.lock().unwrap();
        (register.versions.clone(), register.written)
    };
    conn.reply(&asked, Status::Ok, |body| {
        let mut writer = VersionsWriter::new(body);
        for (number, value) in &versions {
            let hlc = Hlc(u64::from(*number));
            writer.push(VersionRef { hlc, tombstone: false, value });
        }
        writer.finish(|context| context.push(written));
    })
    .await;
    conn
}

/// All bytes of all versions once, in order, and one more.
fn union_with(byte: u8) -> impl FnMut(&[coronet_net::client::Version]) -> Option<Vec<u8>> {
    move |versions| {
        let mut all: Vec<u8> = versions.iter().flat_map(|v| v.value.iter().copied()).collect();
        all.push(byte);
        all.sort_unstable();
        all.dedup();
        Some(all)
    }
}

#[tokio::test]
async fn updates_merge_siblings_and_lose_none() {
    let register = Arc::new(Mutex::new(Register::default()));
    let shared = Arc::clone(&register);
    let serve = move |_, conn, asked| {
        let register = Arc::clone(&shared);
        async move { (serve_register(register, conn, asked).await, true) }
    };
    let cluster = Cluster::start(2, serve).await;
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
    let found = client.update(b"k", union_with(1)).await.unwrap();
    assert_eq!(found.value(), Some(&[1][..]));
    // Two siblings come together.
    client.put(b"k", &[2]).await.unwrap();
    client.put(b"k", &[3]).await.unwrap();
    assert_eq!(client.get(b"k").await.unwrap().versions.len(), 3);
    let found = client.update(b"k", union_with(4)).await.unwrap();
    assert_eq!(found.versions.len(), 1);
    assert_eq!(found.value(), Some(&[1, 2, 3, 4][..]));
    // Nothing to write leaves the key as it is.
    let left = client.update(b"k", |_| None).await.unwrap();
    assert_eq!(left.value(), Some(&[1, 2, 3, 4][..]));
    // At the same time.
    let mut tasks = tokio::task::JoinSet::new();
    for byte in 10..18 {
        let client = client.clone();
        tasks.spawn(async move { client.update(b"k", union_with(byte)).await.unwrap() });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let found = client.update(b"k", union_with(20)).await.unwrap();
    let expected = [1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 20];
    assert_eq!(found.value(), Some(&expected[..]));
}

#[tokio::test]
async fn an_update_reads_again_when_its_context_is_refused() {
    let refuse_once = {
        let puts = Arc::new(Mutex::new(0));
        move |_, mut conn: Conn, asked: Asked| {
            let first = asked.head.op == Op::Put && {
                let mut puts = puts.lock().unwrap();
                *puts += 1;
                *puts == 1
            };
            async move {
                match asked.head.op {
                    _ if first => conn.refuse(&asked, ErrorCode::BadContext, 0).await,
                    Op::Get => conn.found(&asked, b"v").await,
                    _ => conn.written(&asked).await,
                }
                (conn, true)
            }
        }
    };
    let cluster = Cluster::start(2, refuse_once).await;
    let client = Client::connect(&cluster.nodes[0].address).await.unwrap();
    client.update(b"k", |_| Some(b"w".to_vec())).await.unwrap();
    let ops: Vec<Op> = cluster.log.lock().unwrap().iter().map(|(_, a)| a.head.op).collect();
    assert_eq!(ops, [Op::Get, Op::Put, Op::Get, Op::Put, Op::Get]);
}
