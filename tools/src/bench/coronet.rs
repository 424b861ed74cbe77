//! The Coronet protocol as a load generator's: PUT with idempotency token and GET, replies in any
//! order. Uses the codec directly, without the client library, to stay cheap.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use coronet_net::codec::{Hello, HelloReply, Put, Request, StatsReply, TopologyReply, Versions};
use coronet_net::frame::TOKEN_BYTES;
use coronet_net::{
    Consistency, ErrorCode, Op as WireOp, Parsed as Cut, Quorum, QuorumMode, ReplyFrame, ReplyHead,
    RequestHead, Status,
};
use coronet_ring::{CoreId, KeyspaceId, NodeId, PartitionId, PartitionMap, Table};

use super::driver::{BenchError, Driver, Outcome, Parsed};
use super::server_side::Counters;
use crate::cli::options::Durability;

/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(30);
/// What the generator calls itself.
const NAME: &str = "coronet bench";
/// The longest reply accepted before HELLO told the limits.
const FIRST_REPLY: u32 = 1 << 20;

/// A node as it is driven.
struct Target {
    addr: String,
    cores: u16,
    /// The number of its first core among those of all nodes.
    first: usize,
}

/// Speaks to a Coronet server, or to all live nodes of its cluster: the cores of all nodes are
/// numbered through, and a key belongs to the core that owns it at the first live node of its
/// partition's list.
pub struct CoronetDriver {
    targets: Vec<Target>,
    /// Per partition the core that owns it.
    owners: Vec<usize>,
    hash: PartitionMap,
    get: RequestHead,
    put: RequestHead,
    token: [u8; TOKEN_BYTES],
    written: u64,
    max_reply: u32,
    in_flight: u32,
    depth: u32,
}

/// What every request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When a write counts as done.
    pub durability: Durability,
    /// Replicas a read waits for.
    pub r: Quorum,
    /// Replicas a write waits for.
    pub w: Quorum,
    /// Whether only replicas count.
    pub strict: bool,
    /// The keyspace.
    pub keyspace: KeyspaceId,
}

impl CoronetDriver {
    /// A driver for the server at `addr`, one or several with commas between them, of which the
    /// first that answers is asked for the layout.
    pub fn new(addr: &str, asked: Asked, depth: u32) -> Result<Self, BenchError> {
        let mut reached = Err(BenchError::Refused("no address".to_owned()));
        for addr in addr.split(',') {
            reached = greet(addr, CoreId::ANY).map(|(stream, hello)| (addr, stream, hello));
            if reached.is_ok() {
                break;
            }
        }
        let (addr, mut stream, hello) = reached?;
        let protocol = |e: &dyn std::fmt::Display| BenchError::Protocol(e.to_string());
        let cores = u16::try_from(hello.ports.len()).unwrap_or(u16::MAX).max(1);
        let hash = PartitionMap::new(hello.partitions, cores).map_err(|e| protocol(&e))?;
        let (targets, owners) = match topology(&mut stream, hello.limits.max_reply)? {
            Some(topology) => cluster(&topology)?,
            None => {
                let owner = |p: u32| usize::from(hash.core_of(PartitionId(p as u16)).0);
                let alone = Target { addr: addr.to_owned(), cores, first: 0 };
                (vec![alone], (0..hello.partitions).map(owner).collect())
            }
        };
        if owners.len() != hash.partitions() as usize {
            return Err(BenchError::Protocol("HELLO and TOPOLOGY differ in partitions".into()));
        }
        let mode = if asked.strict { QuorumMode::Strict } else { QuorumMode::Default };
        let mut get = RequestHead::new(WireOp::Get, 0);
        get.r = asked.r;
        get.keyspace = asked.keyspace;
        get.consistency = Consistency { mode, ..Consistency::default() };
        let mut put = RequestHead::new(WireOp::Put, 0);
        put.w = asked.w;
        put.keyspace = asked.keyspace;
        let durability = asked.durability.into();
        put.consistency = Consistency { durability, mode, ..Consistency::default() };
        let mut token = [0; TOKEN_BYTES];
        token[..4].copy_from_slice(&std::process::id().to_le_bytes());
        Ok(CoronetDriver {
            targets,
            owners,
            hash,
            get,
            put,
            token,
            written: 0,
            max_reply: hello.limits.max_reply,
            in_flight: hello.in_flight,
            depth,
        })
    }
}

/// Asks for the cluster; `None` when the server is in none.
fn topology(stream: &mut TcpStream, max_reply: u32) -> Result<Option<TopologyReply>, BenchError> {
    ask(stream, &Request::Topology, max_reply, |head, body| {
        if head.status == Status::Error(ErrorCode::Unsupported) {
            return Ok(None);
        }
        refused(head)?;
        TopologyReply::decode(body).map(Some).map_err(|e| BenchError::Protocol(e.to_string()))
    })
}

/// The live nodes, and for each partition the core that is driven for it.
fn cluster(topology: &TopologyReply) -> Result<(Vec<Target>, Vec<usize>), BenchError> {
    let table = Table::decode(&topology.table)
        .map_err(|_| BenchError::Refused("the cluster's nodes have not all met yet".to_owned()))?;
    let mut targets: BTreeMap<NodeId, Target> = BTreeMap::new();
    let mut first = 0;
    for node in topology.nodes.iter().filter(|node| node.alive) {
        let (addr, cores) = (node.address.clone(), node.cores.max(1));
        targets.insert(node.id, Target { addr, cores, first });
        first += usize::from(cores);
    }
    let owner = |partition| {
        let list = table.preference(partition, topology.replicas);
        let target = list.iter().find_map(|id| targets.get(id)).or(targets.values().next());
        let target = target.ok_or_else(|| BenchError::Refused("no node is alive".to_owned()))?;
        let map = PartitionMap::new(table.partitions(), target.cores)
            .map_err(|e| BenchError::Protocol(e.to_string()))?;
        Ok(target.first + usize::from(map.core_of(partition).0))
    };
    let partitions = (0..table.partitions()).map(|partition| PartitionId(partition as u16));
    let owners = partitions.map(owner).collect::<Result<Vec<_>, BenchError>>()?;
    let mut targets: Vec<_> = targets.into_values().collect();
    targets.sort_by_key(|target| target.first);
    Ok((targets, owners))
}

/// Connects and says HELLO, asking for a core.
fn greet(addr: &str, core: CoreId) -> Result<(TcpStream, HelloReply), BenchError> {
    let mut stream =
        TcpStream::connect(addr).map_err(|e| BenchError::io(format!("connecting to {addr}"), e))?;
    stream
        .set_read_timeout(Some(GREETING))
        .map_err(|e| BenchError::io("preparing a connection", e))?;
    let hello = Request::Hello(Hello::new(core, NAME));
    let reply = ask(&mut stream, &hello, FIRST_REPLY, |head, body| {
        refused(head)?;
        HelloReply::decode(body).map_err(|e| BenchError::Protocol(e.to_string()))
    })?;
    Ok((stream, reply))
}

/// One request and its reply on a blocking socket.
fn ask<R>(
    stream: &mut TcpStream,
    request: &Request<'_>,
    max_reply: u32,
    read: impl FnOnce(&ReplyHead, &[u8]) -> Result<R, BenchError>,
) -> Result<R, BenchError> {
    let mut frame = Vec::new();
    request.encode(&RequestHead::new(request.op(), 1), None, &mut frame);
    stream.write_all(&frame).map_err(|e| BenchError::io("asking the server", e))?;
    let mut input = Vec::new();
    loop {
        let need = match cut(&input, max_reply)? {
            Cut::Frame { frame, .. } => return read(&frame.head, frame.body),
            Cut::Incomplete { need } => need,
        };
        let start = input.len();
        // `need` is bounded by `max_reply`, which the cut has checked.
        input.resize(need.max(start + 1), 0);
        let read = stream
            .read(&mut input[start..])
            .map_err(|e| BenchError::io("waiting for the server's answer", e))?;
        if read == 0 {
            let cause = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(BenchError::io("the server closed the connection", cause));
        }
        input.truncate(start + read);
    }
}

fn cut(input: &[u8], max_reply: u32) -> Result<Cut<ReplyFrame<'_>>, BenchError> {
    ReplyFrame::parse(input, max_reply).map_err(|e| BenchError::Protocol(e.to_string()))
}

fn refused(head: &ReplyHead) -> Result<(), BenchError> {
    match head.status {
        Status::Error(code) => Err(BenchError::Refused(format!("the server refuses: {code}"))),
        _ => Ok(()),
    }
}

impl Driver for CoronetDriver {
    fn connect(&mut self, index: usize) -> Result<(TcpStream, usize), BenchError> {
        if self.depth > self.in_flight {
            return Err(BenchError::Refused(format!(
                "the server allows {} requests in flight on a connection, --depth is {}",
                self.in_flight, self.depth
            )));
        }
        let core = index % self.cores();
        let target = self.targets.iter().rev().find(|target| target.first <= core);
        let Some(target) = target else {
            return Err(BenchError::Refused("no node is alive".to_owned()));
        };
        let wanted = CoreId((core - target.first) as u16); // below the node's number of cores
        let (stream, hello) = greet(&target.addr, wanted)?;
        Ok((stream, target.first + usize::from(hello.core.0)))
    }

    fn cores(&self) -> usize {
        self.targets.last().map_or(1, |last| last.first + usize::from(last.cores))
    }

    fn owner(&self, key: &[u8]) -> usize {
        self.owners[self.hash.partition_of(key).index()]
    }

    fn get(&mut self, out: &mut Vec<u8>, id: u64, key: &[u8]) {
        self.get.request_id = id;
        Request::Get { key }.encode(&self.get, None, out);
    }

    fn put(&mut self, out: &mut Vec<u8>, id: u64, key: &[u8], value: &[u8]) {
        self.put.request_id = id;
        self.written += 1;
        self.token[8..].copy_from_slice(&self.written.to_le_bytes());
        Request::Put(Put { key, context: &[], value }).encode(&self.put, Some(&self.token), out);
    }

    fn parse<'a>(&mut self, input: &'a [u8]) -> Result<Parsed<'a>, BenchError> {
        let (frame, consumed) = match cut(input, self.max_reply)? {
            Cut::Incomplete { need } => return Ok(Parsed::Incomplete(need)),
            Cut::Frame { frame, consumed } => (frame, consumed),
        };
        let outcome = match frame.head.status {
            Status::Error(code) => Outcome::Failed(code.text().into()),
            Status::NotFound => Outcome::Missing,
            Status::Ok if frame.head.op == WireOp::Put.to_u8() => Outcome::Stored,
            Status::Ok => {
                let versions = Versions::decode(frame.body)
                    .map_err(|e| BenchError::Protocol(e.to_string()))?;
                match versions.iter().find(|version| !version.tombstone) {
                    Some(version) => Outcome::Value(version.value),
                    None => Outcome::Missing,
                }
            }
        };
        Ok(Parsed::Reply { consumed, id: Some(frame.head.request_id), outcome })
    }

    fn counters(&mut self) -> Result<Option<Counters>, BenchError> {
        let mut all = Counters::default();
        for target in &self.targets {
            // Any core answers for the whole node.
            let (mut stream, hello) = greet(&target.addr, CoreId::ANY)?;
            let stats = ask(&mut stream, &Request::Stats, hello.limits.max_reply, |head, body| {
                refused(head)?;
                StatsReply::decode(body).map_err(|e| BenchError::Protocol(e.to_string()))
            })?;
            all.add(&Counters::new(stats.counters));
        }
        Ok(Some(all))
    }
}

impl From<Durability> for coronet_net::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Durable => coronet_net::Durability::Durable,
            Durability::Buffered => coronet_net::Durability::Buffered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coronet_net::codec::{TopologyNode, VersionRef, VersionsWriter, Written};
    use coronet_net::{FrameWriter, Limits, RequestFrame};
    use coronet_ring::{Epoch, Hlc, PlacedNode};

    fn driver() -> CoronetDriver {
        CoronetDriver {
            targets: vec![Target { addr: "unused".into(), cores: 4, first: 0 }],
            owners: vec![0; 64],
            hash: PartitionMap::new(64, 4).unwrap(),
            get: RequestHead::new(WireOp::Get, 0),
            put: RequestHead::new(WireOp::Put, 0),
            token: [7; TOKEN_BYTES],
            written: 0,
            max_reply: 1 << 20,
            in_flight: 16,
            depth: 16,
        }
    }

    fn request(bytes: &[u8]) -> (RequestFrame<'_>, Request<'_>) {
        match RequestFrame::parse(bytes, 1 << 20).unwrap() {
            Cut::Frame { frame, .. } => {
                let request = Request::decode(&frame, &Limits::default()).unwrap();
                (frame, request)
            }
            Cut::Incomplete { .. } => panic!("not a whole frame"),
        }
    }

    #[test]
    fn requests_are_what_a_node_expects_and_every_write_has_its_own_token() {
        let mut driver = driver();
        let mut out = Vec::new();
        driver.get(&mut out, 5, b"key");
        let (frame, decoded) = request(&out);
        assert_eq!((frame.head.request_id, decoded), (5, Request::Get { key: b"key" }));
        let mut tokens = Vec::new();
        for _ in 0..2 {
            out.clear();
            driver.put(&mut out, 6, b"key", b"value");
            let (frame, decoded) = request(&out);
            tokens.push(*frame.token.unwrap());
            let put = Put { key: b"key", context: b"", value: b"value" };
            assert_eq!(decoded, Request::Put(put));
        }
        assert_ne!(tokens[0], tokens[1]);
    }

    fn reply(op: WireOp, status: Status, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut frame = FrameWriter::reply(&mut out, &ReplyHead::new(op.to_u8(), 3, status));
        body(frame.body());
        frame.finish();
        out
    }

    #[test]
    fn replies_are_recognised_and_every_cut_is_incomplete() {
        let mut driver = driver();
        let found = reply(WireOp::Get, Status::Ok, |body| {
            let mut versions = VersionsWriter::new(body);
            versions.push(VersionRef { hlc: Hlc(1), tombstone: false, value: b"value" });
            versions.finish(|_| {});
        });
        for end in 0..found.len() {
            assert!(
                matches!(driver.parse(&found[..end]).unwrap(), Parsed::Incomplete(n) if n > end)
            );
        }
        let whole = |outcome, consumed| Parsed::Reply { consumed, id: Some(3), outcome };
        assert_eq!(driver.parse(&found).unwrap(), whole(Outcome::Value(b"value"), found.len()));
        let stored = reply(WireOp::Put, Status::Ok, |body| Written::write(body, Hlc(1), |_| {}));
        assert_eq!(driver.parse(&stored).unwrap(), whole(Outcome::Stored, stored.len()));
        let missing = reply(WireOp::Get, Status::NotFound, |body| {
            VersionsWriter::new(body).finish(|_| {});
        });
        assert_eq!(driver.parse(&missing).unwrap(), whole(Outcome::Missing, missing.len()));
        let busy = reply(WireOp::Put, ErrorCode::Busy.into(), |_| {});
        let failed = Outcome::Failed(ErrorCode::Busy.text().into());
        assert_eq!(driver.parse(&busy).unwrap(), whole(failed, busy.len()));
    }

    #[test]
    fn a_key_is_driven_at_a_core_of_a_live_replica() {
        let node = |id: u128, alive| TopologyNode {
            id: NodeId(id),
            alive,
            cores: 2,
            address: format!("host-{id}"),
            rack: format!("rack-{id}"),
        };
        let nodes = vec![node(1, true), node(2, false), node(3, true)];
        let placed =
            nodes.iter().map(|node| PlacedNode { id: node.id, rack: node.rack.clone(), weight: 1 });
        let table = Table::create(Epoch(1), 64, 2, placed.collect()).unwrap();
        let mut topology = TopologyReply { replicas: 2, nodes, table: Vec::new() };
        assert!(matches!(cluster(&topology), Err(BenchError::Refused(_))), "not all have met");
        table.encode(&mut topology.table);
        let (targets, owners) = cluster(&topology).unwrap();
        let targets: Vec<_> = targets.iter().map(|t| (t.addr.as_str(), t.first)).collect();
        assert_eq!(targets, [("host-1", 0), ("host-3", 2)]);
        let map = PartitionMap::new(64, 2).unwrap();
        for (partition, owner) in owners.into_iter().enumerate() {
            let partition = PartitionId(partition as u16);
            let live = table.preference(partition, 2).into_iter().find(|id| *id != NodeId(2));
            let first = if live == Some(NodeId(1)) { 0 } else { 2 };
            assert_eq!(owner, first + map.core_of(partition).index());
        }
    }

    #[test]
    fn damaged_replies_end_the_run() {
        let mut driver = driver();
        let mut damaged = reply(WireOp::Get, Status::NotFound, |_| {});
        *damaged.last_mut().unwrap() ^= 1;
        assert!(driver.parse(&damaged).is_err());
    }
}
