//! One connection: pipelined requests out, replies in any order back.
//!
//! Requests of all tasks are encoded into one shared buffer; the connection's task sends what has
//! gathered in one write. Replies are matched by request number. Knows nothing of keys, cores or
//! retries.

mod io;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coronet_ring::NodeId;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::codec::{Hello, HelloReply};
use crate::frame::ReplyHead;

use super::{ClientError, lock};

/// Unsent bytes beyond which further requests wait.
const MAX_UNSENT: usize = 8 << 20;

/// One reply frame, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub head: ReplyHead,
    pub body: Vec<u8>,
}

/// All frames that answer one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replies {
    /// The node that answered.
    pub node: NodeId,
    /// Frames flagged MORE, in order.
    pub earlier: Vec<Reply>,
    /// The frame that ends the answer.
    pub last: Reply,
}

impl Replies {
    /// All frames in order.
    pub fn frames(&self) -> impl Iterator<Item = &Reply> {
        self.earlier.iter().chain(std::iter::once(&self.last))
    }
}

/// The connection is gone. `sent` says whether the request may have reached the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkLost {
    pub sent: bool,
}

type Answer = Result<Replies, LinkLost>;

/// A request that waits for its answer.
#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Answer>,
    earlier: Vec<Reply>,
    /// Where its frame begins in the stream of all bytes ever queued.
    begins: u64,
    since: Instant,
    /// Held until the answer came, even when nobody waits for it any more: the node counts it.
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct State {
    /// Encoded requests not yet given to the socket.
    unsent: Vec<u8>,
    /// Bytes given to the socket so far.
    given: u64,
    pending: HashMap<u64, Pending>,
    next_id: u64,
    closed: bool,
    heard: Option<Instant>,
}

/// What the handle and the connection's task share.
#[derive(Debug)]
struct Shared {
    node: NodeId,
    state: Mutex<State>,
    /// There is something to send, or the link was closed.
    work: Notify,
    /// There is room for more unsent bytes, or the link was closed.
    room: Notify,
    slots: Arc<Semaphore>,
    max_reply: u32,
}

/// A handle to a connection; dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Link {
    /// Says HELLO on a fresh socket and starts the connection's task.
    pub async fn open(
        mut stream: TcpStream,
        hello: &Hello<'_>,
        in_flight: u32,
    ) -> Result<(Self, HelloReply), ClientError> {
        let (reply, rest) = io::say_hello(&mut stream, hello).await?;
        let slots = in_flight.min(reply.in_flight).max(1);
        let shared = Arc::new(Shared {
            node: reply.node_id,
            state: Mutex::new(State { next_id: 1, ..State::default() }),
            work: Notify::new(),
            room: Notify::new(),
            slots: Arc::new(Semaphore::new(slots as usize)),
            max_reply: reply.limits.max_reply,
        });
        let task = tokio::spawn(io::run(stream, rest, Arc::clone(&shared))).abort_handle();
        Ok((Self { shared, task }, reply))
    }

    /// Whether requests can still be sent.
    pub fn is_open(&self) -> bool {
        !lock(&self.shared.state).closed
    }

    /// Sends the request that `encode` appends for the number it is given, and waits for the whole
    /// answer. `queued` is set as soon as the request can no longer be taken back.
    pub async fn call(&self, queued: &mut bool, encode: impl FnOnce(u64, &mut Vec<u8>)) -> Answer {
        let slots = Arc::clone(&self.shared.slots);
        let slot = slots.acquire_owned().await.map_err(|_| LinkLost { sent: false })?;
        self.wait_for_room().await;
        let answer = self.shared.queue(slot, encode)?;
        *queued = true;
        answer.await.unwrap_or(Err(LinkLost { sent: true }))
    }

    /// Gives the connection up when it has brought nothing for `silence` although a request has
    /// been waiting as long.
    pub fn close_if_silent(&self, silence: Duration) {
        let silent = {
            let state = lock(&self.shared.state);
            let now = Instant::now();
            let long_ago = |then: Instant| now.duration_since(then) >= silence;
            state.heard.is_none_or(long_ago)
                && state.pending.values().any(|pending| long_ago(pending.since))
        };
        if silent {
            self.task.abort();
            self.shared.close();
        }
    }

    async fn wait_for_room(&self) {
        loop {
            let mut room = std::pin::pin!(self.shared.room.notified());
            room.as_mut().enable();
            {
                let state = lock(&self.shared.state);
                if state.closed || state.unsent.len() < MAX_UNSENT {
                    return;
                }
            }
            room.await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.close();
    }
}

impl Shared {
    fn queue(
        &self,
        slot: OwnedSemaphorePermit,
        encode: impl FnOnce(u64, &mut Vec<u8>),
    ) -> Result<oneshot::Receiver<Answer>, LinkLost> {
        let (answer, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.closed {
            return Err(LinkLost { sent: false });
        }
        let id = state.next_id;
        state.next_id += 1;
        let begins = state.given + state.unsent.len() as u64;
        encode(id, &mut state.unsent);
        let pending =
            Pending { answer, earlier: Vec::new(), begins, since: Instant::now(), _slot: slot };
        state.pending.insert(id, pending);
        drop(state);
        self.work.notify_one();
        Ok(receiver)
    }

    /// Moves everything unsent into `into`; `false` once the link is closed.
    fn take_unsent(&self, into: &mut Vec<u8>) -> bool {
        let mut state = lock(&self.state);
        into.clear();
        std::mem::swap(&mut state.unsent, into);
        state.given += into.len() as u64;
        let open = !state.closed;
        drop(state);
        if !into.is_empty() {
            self.room.notify_waiters();
        }
        open
    }

    /// Hands a reply to whom it belongs. Replies nobody waits for any more are dropped.
    fn deliver(&self, reply: Reply) {
        let mut state = lock(&self.state);
        let id = reply.head.request_id;
        if reply.head.more() {
            if let Some(pending) = state.pending.get_mut(&id) {
                pending.earlier.push(reply);
            }
            return;
        }
        let Some(pending) = state.pending.remove(&id) else { return };
        drop(state);
        // The receiver is gone when its caller gave up: then nobody is to be told.
        let _ = pending.answer.send(Ok(Replies {
            node: self.node,
            earlier: pending.earlier,
            last: reply,
        }));
    }

    fn heard(&self) {
        lock(&self.state).heard = Some(Instant::now());
    }

    /// Ends the link: everything that waits is told whether it may have been sent.
    fn close(&self) {
        let (given, pending) = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.unsent = Vec::new();
            (state.given, std::mem::take(&mut state.pending))
        };
        self.slots.close();
        self.work.notify_one();
        self.room.notify_waiters();
        for (_, waiting) in pending {
            let _ = waiting.answer.send(Err(LinkLost { sent: waiting.begins < given }));
        }
    }
}
