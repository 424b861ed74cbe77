//! A client of the simulated node that speaks real frames.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use coronet_net::codec::{Hello, HelloReply, Request};
use coronet_net::frame::TOKEN_BYTES;
use coronet_net::{Limits, Op, Parsed, ReplyFrame, ReplyHead, RequestHead, Status};
use coronet_ring::{CoreId, NodeId};
use coronet_server::node::ConnId;
use tokio::sync::mpsc;

use super::network::Network;

/// One frame of an answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The header.
    pub head: ReplyHead,
    /// The body.
    pub body: Vec<u8>,
}

/// The frames of one answer, as they come. `None` from its channel means the connection broke.
pub type Replies = mpsc::UnboundedReceiver<Reply>;

/// One connection to the simulated node.
pub struct Client {
    network: Rc<Network>,
    me: Weak<Client>,
    conn: Cell<Option<ConnId>>,
    input: RefCell<Vec<u8>>,
    waiting: RefCell<BTreeMap<u64, mpsc::UnboundedSender<Reply>>>,
    next_id: Cell<u64>,
    max_reply: Cell<u32>,
}

impl Client {
    /// Connects. Nothing is said yet; see [`Client::hello`].
    pub fn connect(network: &Rc<Network>) -> Rc<Self> {
        let client = Rc::new_cyclic(|me| Client {
            network: Rc::clone(network),
            me: Weak::clone(me),
            conn: Cell::new(None),
            input: RefCell::default(),
            waiting: RefCell::default(),
            next_id: Cell::new(1),
            max_reply: Cell::new(Limits::default().max_reply),
        });
        client.conn.set(network.connect(&client.me));
        client
    }

    /// The node it talks to; zero before that has a name.
    pub fn node_id(&self) -> NodeId {
        self.network.node_id().unwrap_or(NodeId(0))
    }

    /// Whether the connection still stands.
    pub fn is_open(&self) -> bool {
        self.conn.get().is_some()
    }

    /// Opens the protocol at a core of choice; `None` when the connection broke.
    ///
    /// # Panics
    /// When the node answers with anything but a well-formed HELLO reply.
    pub async fn hello(&self, wanted: CoreId) -> Option<HelloReply> {
        let hello = Request::Hello(Hello::new(wanted, "simulated"));
        let reply = self.call(&hello, &RequestHead::new(Op::Hello, 0), None).await?;
        assert_eq!(reply.head.status, Status::Ok, "HELLO refused");
        let hello = match HelloReply::decode(&reply.body) {
            Ok(hello) => hello,
            Err(error) => panic!("HELLO reply: {error}"),
        };
        if wanted != CoreId::ANY {
            assert_eq!(hello.core, wanted, "another core than asked for");
        }
        self.max_reply.set(hello.limits.max_reply);
        Some(hello)
    }

    /// Sends a request; its number is chosen here.
    pub fn send(
        &self,
        request: &Request<'_>,
        head: &RequestHead,
        token: Option<&[u8; TOKEN_BYTES]>,
    ) -> Replies {
        let (sender, replies) = mpsc::unbounded_channel();
        let request_id = self.next_id.replace(self.next_id.get() + 1);
        if let Some(conn) = self.conn.get() {
            let mut bytes = Vec::new();
            request.encode(&RequestHead { request_id, ..*head }, token, &mut bytes);
            self.waiting.borrow_mut().insert(request_id, sender);
            self.network.send_up(conn, bytes);
        }
        replies
    }

    /// Sends a request and waits for its first frame; `None` when the connection broke.
    pub async fn call(
        &self,
        request: &Request<'_>,
        head: &RequestHead,
        token: Option<&[u8; TOKEN_BYTES]>,
    ) -> Option<Reply> {
        self.send(request, head, token).recv().await
    }

    /// Sends bytes that are no request.
    pub fn send_garbage(&self, bytes: Vec<u8>) {
        if let Some(conn) = self.conn.get() {
            self.network.send_up(conn, bytes);
        }
    }

    /// Breaks the connection.
    pub fn hang_up(&self) {
        if let Some(conn) = self.conn.take() {
            self.network.hang_up(conn);
        }
        self.hung_up();
    }

    /// The other side broke the connection: nobody gets an answer any more.
    pub(super) fn hung_up(&self) {
        self.conn.set(None);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        drop(waiting);
    }

    /// Bytes came from the node.
    pub(super) fn arrived(&self, bytes: &[u8]) {
        if self.conn.get().is_none() && self.waiting.borrow().is_empty() {
            return;
        }
        let mut input = self.input.borrow_mut();
        input.extend_from_slice(bytes);
        let mut used = 0;
        loop {
            let (reply, consumed) = match ReplyFrame::parse(&input[used..], self.max_reply.get()) {
                Ok(Parsed::Incomplete { .. }) => break,
                Ok(Parsed::Frame { frame, consumed }) => {
                    (Reply { head: frame.head, body: frame.body.to_vec() }, consumed)
                }
                Err(error) => panic!("the node sent a bad frame: {error}"),
            };
            used += consumed;
            self.dispatch(reply);
        }
        input.drain(..used);
    }

    fn dispatch(&self, reply: Reply) {
        let mut waiting = self.waiting.borrow_mut();
        let id = reply.head.request_id;
        let more = reply.head.more();
        match waiting.get(&id) {
            // The waiter may have given up: its channel is closed then.
            Some(waiter) => drop(waiter.send(reply)),
            // An error about the connection itself carries no request's number.
            None => assert!(
                matches!(reply.head.status, Status::Error(_)),
                "an answer to request {id}, which was never asked or was answered before"
            ),
        }
        if !more {
            waiting.remove(&id);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.network.hang_up(conn);
        }
    }
}
