//! The Coronet protocol as a load generator's: PUT with idempotency token and GET, replies in any
//! order. Uses the codec directly, without the client library, to stay cheap.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use coronet_net::codec::{Hello, HelloReply, Put, Request, StatsReply, Versions};
use coronet_net::frame::TOKEN_BYTES;
use coronet_net::{
    Consistency, Op as WireOp, Parsed as Cut, ReplyFrame, ReplyHead, RequestHead, Status,
};
use coronet_ring::{CoreId, PartitionMap};

use super::driver::{BenchError, Driver, Outcome, Parsed, StorageCounters};
use crate::cli::options::Durability;

/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(30);
/// What the generator calls itself.
const NAME: &str = "coronet bench";
/// The longest reply accepted before HELLO told the limits.
const FIRST_REPLY: u32 = 1 << 20;

/// Speaks to a Coronet server.
pub struct CoronetDriver {
    addr: String,
    get: RequestHead,
    put: RequestHead,
    token: [u8; TOKEN_BYTES],
    written: u64,
    map: PartitionMap,
    max_reply: u32,
    in_flight: u32,
    depth: u32,
}

impl CoronetDriver {
    /// A driver for the server at `addr`; asks it for its layout.
    pub fn new(addr: &str, durability: Durability, depth: u32) -> Result<Self, BenchError> {
        let (_, hello) = greet(addr, CoreId::ANY)?;
        let cores = u16::try_from(hello.ports.len()).unwrap_or(u16::MAX);
        let map = PartitionMap::new(hello.partitions, cores.max(1))
            .map_err(|e| BenchError::Protocol(e.to_string()))?;
        let mut put = RequestHead::new(WireOp::Put, 0);
        put.consistency = Consistency { durability: durability.into(), ..Consistency::default() };
        let mut token = [0; TOKEN_BYTES];
        token[..4].copy_from_slice(&std::process::id().to_le_bytes());
        Ok(CoronetDriver {
            addr: addr.to_owned(),
            get: RequestHead::new(WireOp::Get, 0),
            put,
            token,
            written: 0,
            map,
            max_reply: hello.limits.max_reply,
            in_flight: hello.in_flight,
            depth,
        })
    }
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
        let wanted = CoreId((index % usize::from(self.map.cores())) as u16);
        let (stream, hello) = greet(&self.addr, wanted)?;
        Ok((stream, usize::from(hello.core.0)))
    }

    fn cores(&self) -> usize {
        usize::from(self.map.cores())
    }

    fn owner(&self, key: &[u8]) -> usize {
        usize::from(self.map.core_of_key(key).0)
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

    fn storage(&mut self) -> Result<Option<StorageCounters>, BenchError> {
        // Any core answers for the whole node.
        let (mut stream, hello) = greet(&self.addr, CoreId::ANY)?;
        let stats = ask(&mut stream, &Request::Stats, hello.limits.max_reply, |head, body| {
            refused(head)?;
            StatsReply::decode(body).map_err(|e| BenchError::Protocol(e.to_string()))
        })?;
        Ok(counters(&stats))
    }
}

/// The storage counters among all the server has; `None` when it has other names for them.
fn counters(stats: &StatsReply) -> Option<StorageCounters> {
    Some(StorageCounters {
        user_bytes: stats.get("engine.user_bytes")?,
        log_bytes: stats.get("engine.log_bytes")?,
        flush_bytes: stats.get("engine.flush_bytes")?,
        compaction_bytes: stats.get("engine.compaction_bytes")?,
    })
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
    use coronet_net::codec::{VersionRef, VersionsWriter, Written};
    use coronet_net::{ErrorCode, FrameWriter, Limits, RequestFrame};
    use coronet_ring::Hlc;

    fn driver() -> CoronetDriver {
        CoronetDriver {
            addr: "unused".into(),
            get: RequestHead::new(WireOp::Get, 0),
            put: RequestHead::new(WireOp::Put, 0),
            token: [7; TOKEN_BYTES],
            written: 0,
            map: PartitionMap::new(64, 4).unwrap(),
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
    fn damaged_replies_end_the_run() {
        let mut driver = driver();
        let mut damaged = reply(WireOp::Get, Status::NotFound, |_| {});
        *damaged.last_mut().unwrap() ^= 1;
        assert!(driver.parse(&damaged).is_err());
    }
}
