//! A node for client tests: real sockets on loopback, answers by script.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use coronet_net::codec::{
    ErrorReply, Hello, HelloReply, Request, TopologyReply, VersionRef, VersionsWriter, Written,
};
use coronet_net::{
    ErrorCode, FrameWriter, Limits, Op, Parsed, ReplyFlags, ReplyHead, RequestFrame, RequestHead,
    Status,
};
use coronet_ring::{CoreId, Epoch, Hlc, Incarnation, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A request, owned.
#[derive(Debug, Clone)]
pub struct Asked {
    pub head: RequestHead,
    pub token: Option<[u8; 16]>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn request(&self) -> Request<'_> {
        let frame = RequestFrame { head: self.head, token: self.token.as_ref(), body: &self.body };
        Request::decode(&frame, &Limits::default()).unwrap()
    }

    pub fn key(&self) -> &[u8] {
        match self.request() {
            Request::Get { key } | Request::Route { key } => key,
            Request::Put(put) => put.key,
            Request::Delete(delete) => delete.key,
            other => panic!("{other:?} has no key"),
        }
    }
}

/// What the node says of itself in HELLO.
#[derive(Debug, Clone)]
pub struct Says {
    pub cores: u16,
    pub partitions: u32,
    pub in_flight: u32,
    pub limits: Limits,
    pub node_id: NodeId,
    pub epoch: Epoch,
    /// The answer to TOPOLOGY; a node alone has none.
    pub topology: Option<TopologyReply>,
}

impl Default for Says {
    fn default() -> Self {
        Self {
            cores: 1,
            partitions: 64,
            in_flight: 1024,
            limits: Limits::default(),
            node_id: NodeId(42),
            epoch: Epoch(1),
            topology: None,
        }
    }
}

/// One accepted connection.
pub struct Conn {
    stream: TcpStream,
    input: Vec<u8>,
    now: Arc<Mutex<Says>>,
    says: Says,
    /// How many connections came before this one.
    pub number: usize,
    /// Core asked for in HELLO; 0 when any would do.
    pub core: CoreId,
    /// Requests that came in together with the last one read.
    pub reads: usize,
}

impl Conn {
    /// The next request other than TOPOLOGY, which is answered here; `None` when the client closed.
    pub async fn next(&mut self) -> Option<Asked> {
        loop {
            let asked = self.any_next().await?;
            if asked.head.op != Op::Topology {
                return Some(asked);
            }
            let topology = self.now.lock().unwrap().topology.clone();
            match topology {
                Some(topology) => self.reply(&asked, Status::Ok, |body| topology.write(body)).await,
                None => self.refuse(&asked, ErrorCode::Unsupported, 0).await,
            }
            self.reads = 0;
        }
    }

    async fn any_next(&mut self) -> Option<Asked> {
        loop {
            let parsed = RequestFrame::parse(&self.input, self.says.limits.max_frame).unwrap();
            if let Parsed::Frame { frame, consumed } = parsed {
                let asked = Asked {
                    head: frame.head,
                    token: frame.token.copied(),
                    body: frame.body.to_vec(),
                };
                self.input.drain(..consumed);
                return Some(asked);
            }
            self.reads += 1;
            self.input.reserve(64 << 10);
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // A client that went away is part of some tests.
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn reply(&mut self, asked: &Asked, status: Status, body: impl FnOnce(&mut Vec<u8>)) {
        self.reply_with(asked, status, ReplyFlags::NONE, body).await;
    }

    pub async fn reply_with(
        &mut self,
        asked: &Asked,
        status: Status,
        flags: ReplyFlags,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut head = ReplyHead::new(asked.head.op.to_u8(), asked.head.request_id, status);
        head.flags = flags;
        head.epoch = self.now.lock().unwrap().epoch;
        let bytes = frame(&head, body);
        self.send(&bytes).await;
    }

    pub async fn found(&mut self, asked: &Asked, value: &[u8]) {
        self.reply(asked, Status::Ok, |body| {
            let mut versions = VersionsWriter::new(body);
            versions.push(VersionRef { hlc: Hlc(1), tombstone: false, value });
            versions.finish(|context| context.extend_from_slice(b"context"));
        })
        .await;
    }

    pub async fn written(&mut self, asked: &Asked) {
        self.reply(asked, Status::Ok, |body| Written::write(body, Hlc(7), |_| {})).await;
    }

    pub async fn refuse(&mut self, asked: &Asked, code: ErrorCode, retry_after_ms: u32) {
        self.reply(asked, code.into(), |body| {
            ErrorReply { retry_after_ms, text: "as scripted" }.write(body);
        })
        .await;
    }

    async fn hello(&mut self) -> bool {
        let Some(asked) = self.next().await else { return false };
        assert_eq!(asked.head.op, Op::Hello);
        let hello = Hello::decode(&asked.body).unwrap();
        self.core = match hello.wanted_core {
            CoreId::ANY => CoreId(0),
            wanted => wanted,
        };
        let reply = HelloReply {
            version: 1,
            core: self.core,
            partitions: self.says.partitions,
            epoch: self.says.epoch,
            node_id: self.says.node_id,
            incarnation: Incarnation(1),
            features: 0,
            limits: self.says.limits,
            in_flight: self.says.in_flight,
            ports: vec![4720; usize::from(self.says.cores)],
        };
        self.reply(&asked, Status::Ok, |body| reply.write(body)).await;
        true
    }
}

pub fn frame(head: &ReplyHead, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::reply(&mut out, head);
    body(frame.body());
    frame.finish();
    out
}

/// A running fake node.
pub struct Fake {
    pub address: String,
    accepted: Arc<AtomicUsize>,
    says: Arc<Mutex<Says>>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Fake {
    /// Starts a node; `serve` runs for every connection after its HELLO was answered.
    pub async fn start<F, S>(says: Says, serve: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Conn) -> F + Send + Sync + 'static,
    {
        Self::start_at("127.0.0.1:0", says, serve).await
    }

    /// The same at an address.
    pub async fn start_at<F, S>(address: &str, says: Says, serve: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Conn) -> F + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = Arc::new(AtomicUsize::new(0));
        let says = Arc::new(Mutex::new(says));
        let (count, now) = (Arc::clone(&accepted), Arc::clone(&says));
        let serve = Arc::new(serve);
        let tasks: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let conns = Arc::clone(&tasks);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let says = now.lock().unwrap().clone();
                let (input, core) = (Vec::new(), CoreId::ANY);
                let now = Arc::clone(&now);
                let mut conn = Conn { stream, input, now, says, number, core, reads: 0 };
                let serve = Arc::clone(&serve);
                let serving = tokio::spawn(async move {
                    if conn.hello().await {
                        conn.reads = 0;
                        serve(conn).await;
                    }
                });
                conns.lock().unwrap().push(serving.abort_handle());
            }
        });
        tasks.lock().unwrap().push(listening.abort_handle());
        Self { address, accepted, says, tasks }
    }

    /// The node is gone, and its connections with it.
    pub async fn stop(&self) {
        self.tasks.lock().unwrap().iter().for_each(AbortHandle::abort);
        while TcpStream::connect(&self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// What it says of itself.
    pub fn said(&self) -> Says {
        self.says.lock().unwrap().clone()
    }

    /// What connections from now on are told.
    pub fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}
