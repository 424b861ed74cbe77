//! From a request to its answer: connections per core, deadlines, retries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use coronet_ring::{CoreId, PartitionId};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::builder::Builder;
use super::layout::{Address, Layout};
use super::link::{Link, LinkLost, Replies};
use super::options::{RequestOptions, TokenChoice};
use super::token::Tokens;
use super::{ClientError, lock};
use crate::codec::{ErrorReply, Hello, Request};
use crate::error::{ErrorCode, Status};
use crate::frame::{RequestFlags, RequestHead, TOKEN_BYTES};

/// First pause before a retry; doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What is kept back of the time left, so that the node's answer still arrives in time.
const LONGEST_RESERVE: Duration = Duration::from_millis(50);

/// Whom a request goes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// The core that owns the key.
    Key(&'a [u8]),
    /// The core that owns the partition.
    Partition(PartitionId),
    /// This core.
    Core(CoreId),
}

/// The connection to one core, if any, and who may open it.
#[derive(Debug, Default)]
struct Slot {
    link: Mutex<Option<Arc<Link>>>,
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    fn open_link(&self) -> Option<Arc<Link>> {
        lock(&self.link).as_ref().filter(|link| link.is_open()).cloned()
    }
}

/// What all clones of a client share.
#[derive(Debug)]
pub(super) struct Inner {
    settings: Builder,
    address: Address,
    layout: RwLock<Arc<Layout>>,
    slots: Mutex<HashMap<CoreId, Arc<Slot>>>,
    tokens: Tokens,
}

/// One request on its way, over all its attempts.
struct Attempts<'a> {
    target: Target<'a>,
    request: &'a Request<'a>,
    options: &'a RequestOptions,
    token: Option<[u8; TOKEN_BYTES]>,
    deadline: Instant,
    /// An attempt may have been applied.
    in_doubt: bool,
}

/// Why an attempt failed, and when another makes sense (`None`: never).
struct Failure {
    error: ClientError,
    retry_after: Option<Duration>,
}

impl Inner {
    pub async fn connect(settings: Builder, address: String) -> Result<Self, ClientError> {
        let address = Address::parse(&address)?;
        let deadline = Instant::now() + settings.connect_timeout;
        let (link, layout, core) =
            open_link(&settings, &address, address.port, CoreId::ANY, deadline).await?;
        // Whichever core it came to: that core needs no other connection.
        let slot = Slot { link: Mutex::new(Some(Arc::new(link))), ..Slot::default() };
        let slots = Mutex::new(HashMap::from([(core, Arc::new(slot))]));
        let layout = RwLock::new(Arc::new(layout));
        Ok(Self { settings, address, layout, slots, tokens: Tokens::new() })
    }

    pub fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub fn check_key(&self, key: &[u8]) -> Result<(), ClientError> {
        check_size("key", key.len(), 1, self.layout().limits().max_key)
    }

    pub fn check_value(&self, value: &[u8]) -> Result<(), ClientError> {
        check_size("value", value.len(), 0, self.layout().limits().max_value)
    }

    /// Sends a request until it is answered with something else than an error, retries make no
    /// sense, or its deadline passes.
    pub async fn call(
        &self,
        target: Target<'_>,
        request: &Request<'_>,
        options: &RequestOptions,
    ) -> Result<Replies, ClientError> {
        let token = match options.token {
            _ if !request.op().is_write() => None,
            TokenChoice::Automatic => Some(self.tokens.next()),
            TokenChoice::Given(token) => Some(token),
            TokenChoice::None => None,
        };
        let deadline = Instant::now() + options.deadline.unwrap_or(self.settings.timeout);
        let mut attempts = Attempts { target, request, options, token, deadline, in_doubt: false };
        let mut left = options.retries.unwrap_or(self.settings.retries);
        let mut pause = FIRST_PAUSE;
        loop {
            let Failure { error, retry_after } = match self.attempt(&attempts).await {
                Ok(replies) => return Ok(replies),
                Err(failure) => failure,
            };
            attempts.in_doubt |= error.possibly_applied();
            let again = retry_after.map(|after| Instant::now() + self.spread(after.max(pause)));
            match again {
                Some(again) if left > 0 && again < deadline => sleep_until(again).await,
                _ => return Err(error.after_attempt_in_doubt(attempts.in_doubt)),
            }
            left -= 1;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, attempts: &Attempts<'_>) -> Result<Replies, Failure> {
        let write = attempts.request.op().is_write();
        // A write that may have been applied is repeated only under its token.
        let repeatable = !write || attempts.token.is_some();
        let again_if = |yes: bool| yes.then_some(Duration::ZERO);
        let layout = self.layout();
        let (partition, core) = match attempts.target {
            Target::Key(key) => layout.place(key),
            Target::Partition(partition) => (partition, layout.core_of(partition)),
            Target::Core(core) => (PartitionId::NONE, core),
        };
        let link = self.link(core, attempts.deadline).await.map_err(|error| {
            let retry_after = again_if(error.retryable());
            Failure { error, retry_after }
        })?;
        let mut queued = false;
        let sending = link.call(&mut queued, |id, out| {
            let head = self.head(attempts, id, partition, &layout);
            attempts.request.encode(&head, attempts.token.as_ref(), out);
        });
        match timeout_at(attempts.deadline, sending).await {
            Ok(Ok(replies)) => outcome(replies, repeatable, write),
            Ok(Err(LinkLost { sent })) => {
                let error = ClientError::Lost { possibly_applied: sent && write };
                Err(Failure { error, retry_after: again_if(!sent || repeatable) })
            }
            Err(_) => {
                link.close_if_silent(self.settings.silence);
                let error = ClientError::Timeout { possibly_applied: queued && write };
                Err(Failure { error, retry_after: None })
            }
        }
    }

    fn head(
        &self,
        attempts: &Attempts<'_>,
        id: u64,
        partition: PartitionId,
        layout: &Layout,
    ) -> RequestHead {
        let left = attempts.deadline.saturating_duration_since(Instant::now());
        let left = left - (left / 8).min(LONGEST_RESERVE);
        let mut head = RequestHead::new(attempts.request.op(), id);
        head.deadline_us = u32::try_from(left.as_micros()).unwrap_or(u32::MAX).max(1);
        head.partition = partition;
        head.epoch = layout.epoch();
        head.r = attempts.options.r;
        head.w = attempts.options.w;
        head.consistency = attempts.options.consistency;
        if attempts.in_doubt {
            head.flags = RequestFlags::RETRY;
        }
        head
    }

    /// The open connection to a core; opens one when there is none. Whoever comes while it is
    /// being opened waits for the same one.
    async fn link(&self, core: CoreId, deadline: Instant) -> Result<Arc<Link>, ClientError> {
        let slot = Arc::clone(lock(&self.slots).entry(core).or_default());
        if let Some(link) = slot.open_link() {
            return Ok(link);
        }
        let timed_out = |_| ClientError::Timeout { possibly_applied: false };
        let _opening = timeout_at(deadline, slot.opening.lock()).await.map_err(timed_out)?;
        if let Some(link) = slot.open_link() {
            return Ok(link);
        }
        let deadline = deadline.min(Instant::now() + self.settings.connect_timeout);
        let port = self.layout().port_of(core, self.address.port);
        let (link, layout, _) =
            open_link(&self.settings, &self.address, port, core, deadline).await?;
        self.learn(layout);
        let link = Arc::new(link);
        *lock(&slot.link) = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Keeps the newest layout; requests not yet routed use it.
    fn learn(&self, layout: Layout) {
        let mut known = self.layout.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if **known != layout {
            *known = Arc::new(layout);
        }
    }

    /// A pause between three quarters and all of itself and a quarter more.
    fn spread(&self, pause: Duration) -> Duration {
        let parts = self.tokens.jitter() % 512;
        pause * 3 / 4 + pause / 1024 * parts as u32 // below 512
    }
}

/// Sorts a whole answer into success and failure.
fn outcome(replies: Replies, repeatable: bool, write: bool) -> Result<Replies, Failure> {
    let Status::Error(code) = replies.last.head.status else { return Ok(replies) };
    let reply = ErrorReply::decode(&replies.last.body).unwrap_or_default();
    let after = Duration::from_millis(u64::from(reply.retry_after_ms));
    let again = match code {
        ErrorCode::InDoubt => repeatable,
        // The time is over here, too.
        ErrorCode::DeadlineExceeded => false,
        _ => code.retryable(),
    };
    let possibly_applied = write && code.possibly_applied();
    let error = ClientError::Server { code, text: reply.text.to_owned(), possibly_applied };
    Err(Failure { error, retry_after: again.then_some(after) })
}

/// Opens a connection, asking for a core; returns the layout and the core that serves it.
async fn open_link(
    settings: &Builder,
    address: &Address,
    port: u16,
    core: CoreId,
    deadline: Instant,
) -> Result<(Link, Layout, CoreId), ClientError> {
    let failed = |source: std::io::Error| ClientError::Connect {
        address: format!("{}:{port}", address.host),
        source: Arc::new(source),
        possibly_applied: false,
    };
    let opening = async {
        let stream = TcpStream::connect((address.host.as_str(), port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let hello = Hello::new(core, &settings.name);
        let (link, reply) = Link::open(stream, &hello, settings.in_flight).await?;
        Ok((link, Layout::new(&reply)?, reply.core))
    };
    match timeout_at(deadline, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}

fn check_size(what: &'static str, len: usize, least: usize, limit: u32) -> Result<(), ClientError> {
    let limit = limit as usize;
    if (least..=limit).contains(&len) {
        return Ok(());
    }
    Err(ClientError::Size { what, len, least, limit })
}

/// Turns a per-key error of a MULTI_GET into the client's error.
pub(super) fn server_error(code: ErrorCode) -> ClientError {
    ClientError::Server { code, text: String::new(), possibly_applied: false }
}
