//! From a request to its answer: which node, deadlines, retries.

use std::sync::Arc;
use std::time::Duration;

use coronet_ring::gossip::keyspace::DEFAULT_NAME;
use coronet_ring::{CoreId, KeyspaceId, NodeId, PartitionId};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ClientError;
use super::address::Addresses;
use super::builder::Builder;
use super::cluster::{Cluster, View};
use super::layout::Layout;
use super::link::{LinkLost, Replies};
use super::node::Node;
use super::options::{RequestOptions, TokenChoice};
use super::token::Tokens;
use crate::codec::{ErrorReply, Request};
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
    /// A node that holds the key, there the core that owns it.
    Key(&'a [u8]),
    /// A node that holds the partition, there the core that owns it.
    Partition(PartitionId),
    /// This core of the node the client came to first.
    Core(CoreId),
}

/// What all clones of a client share.
#[derive(Debug)]
pub(super) struct Inner {
    cluster: Arc<Cluster>,
    tokens: Tokens,
    keyspace: KeyspaceId,
    /// The keyspace's name, for people.
    name: Arc<str>,
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

/// When another attempt makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Never,
    /// No sooner than this.
    After(Duration),
    /// At once if another node can take it.
    Elsewhere,
    /// At once if another node can take it, which may reach or know more; else only if the
    /// caller asked for retries. The node that refused is as good as ever.
    Refused,
}

/// Why an attempt failed.
struct Failure {
    error: ClientError,
    again: Again,
}

impl Inner {
    pub async fn connect(settings: Builder, seeds: &Addresses) -> Result<Self, ClientError> {
        let cluster = Cluster::connect(settings, seeds.parse()?).await?;
        Ok(Self::new(Arc::new(cluster), DEFAULT_NAME))
    }

    fn new(cluster: Arc<Cluster>, name: &str) -> Self {
        let keyspace = KeyspaceId::of(name);
        Self { cluster, tokens: Tokens::new(), keyspace, name: name.into() }
    }

    /// The same cluster and connections, another keyspace.
    pub fn in_keyspace(&self, name: &str) -> Self {
        Self::new(Arc::clone(&self.cluster), name)
    }

    pub fn keyspace(&self) -> KeyspaceId {
        self.keyspace
    }

    pub fn layout(&self) -> Arc<Layout> {
        self.cluster.layout()
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
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
        let settings = self.cluster.settings();
        let token = match options.token {
            _ if !request.op().is_write() => None,
            TokenChoice::Automatic => Some(self.tokens.next()),
            TokenChoice::Given(token) => Some(token),
            TokenChoice::None => None,
        };
        let deadline = Instant::now() + options.deadline.unwrap_or(settings.timeout);
        let mut attempts = Attempts { target, request, options, token, deadline, in_doubt: false };
        let mut left = options.retries.unwrap_or(settings.retries);
        let mut pause = FIRST_PAUSE;
        let mut tried: Vec<NodeId> = Vec::new();
        // What a node answered says more than that another one cannot be reached.
        let mut told = None;
        loop {
            let view = self.cluster.view();
            let node = view.pick(target, &tried);
            tried.push(node.id);
            let others = view.has_other(target, &tried);
            let Failure { error, again } = match self.attempt(&attempts, &view, &node, others).await
            {
                Ok(replies) => {
                    let newer = view.epoch().is_some_and(|known| known < replies.last.head.epoch);
                    self.cluster.keep_fresh(&view, Some(&node), newer);
                    return Ok(replies);
                }
                Err(failure) => failure,
            };
            attempts.in_doubt |= error.possibly_applied();
            let after = match again {
                Again::Never => None,
                Again::Elsewhere => {
                    node.shun();
                    self.cluster.keep_fresh(&view, None, true);
                    Some(if others { Duration::ZERO } else { self.spread(pause) })
                }
                Again::Refused if others => Some(Duration::ZERO),
                Again::Refused => options.retries.map(|_| self.spread(pause)),
                Again::After(after) => Some(self.spread(after.max(pause))),
            };
            match after.map(|after| Instant::now() + after) {
                Some(next) if left > 0 && next < deadline => sleep_until(next).await,
                _ => {
                    let unreachable = matches!(error, ClientError::Connect { .. });
                    let error = if unreachable { told.unwrap_or(error) } else { error };
                    return Err(self
                        .name_keyspace(error, request)
                        .after_attempt_in_doubt(attempts.in_doubt));
                }
            }
            if error.code().is_some() {
                told = Some(error);
            }
            left -= 1;
            if after != Some(Duration::ZERO) {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// One attempt, at one node. While there are `others`, this one may not use up all the time of
    /// a request that can be repeated.
    async fn attempt(
        &self,
        attempts: &Attempts<'_>,
        view: &View,
        node: &Node,
        others: bool,
    ) -> Result<Replies, Failure> {
        let settings = self.cluster.settings();
        let write = attempts.request.op().is_write();
        // A write that may have been applied is repeated only under its token.
        let repeatable = !write || attempts.token.is_some();
        let deadline = match others && repeatable {
            true => attempts.deadline.min(Instant::now() + settings.patience),
            false => attempts.deadline,
        };
        let elsewhere_if = |yes: bool| if yes { Again::Elsewhere } else { Again::Never };
        let (partition, core) = node.place(attempts.target, view.partitions());
        let link = node.link(settings, core, deadline).await.map_err(|error| {
            let again = elsewhere_if(error.retryable());
            Failure { error, again }
        })?;
        let epoch = view.epoch().or_else(|| Some(node.layout()?.epoch())).unwrap_or_default();
        let mut queued = false;
        let sending = link.call(&mut queued, |id, out| {
            let mut head = attempts.head(id, deadline);
            (head.partition, head.epoch) = (partition, epoch);
            head.keyspace = self.keyspace;
            attempts.request.encode(&head, attempts.token.as_ref(), out);
        });
        match timeout_at(deadline, sending).await {
            Ok(Ok(replies)) => outcome(replies, repeatable, write),
            Ok(Err(LinkLost { sent })) => {
                let error = ClientError::Lost { possibly_applied: sent && write };
                Err(Failure { error, again: elsewhere_if(!sent || repeatable) })
            }
            Err(_) => {
                link.close_if_silent(settings.silence);
                let error = ClientError::Timeout { possibly_applied: queued && write };
                Err(Failure { error, again: elsewhere_if(deadline < attempts.deadline) })
            }
        }
    }

    /// Nodes know a keyspace they do not know by its number only. A request about a keyspace names
    /// that one, wherever the client works.
    fn name_keyspace(&self, mut error: ClientError, request: &Request<'_>) -> ClientError {
        if let ClientError::Server { code: ErrorCode::UnknownKeyspace, text, .. } = &mut error {
            let name = match request {
                Request::Keyspace(request) => request.name,
                _ => &self.name,
            };
            *text = format!("no node that was asked serves a keyspace {name:?}");
        }
        error
    }

    /// A pause between three quarters and all of itself and a quarter more.
    pub fn spread(&self, pause: Duration) -> Duration {
        let parts = self.tokens.jitter() % 512;
        pause * 3 / 4 + pause / 1024 * parts as u32 // below 512
    }
}

impl Attempts<'_> {
    fn head(&self, id: u64, deadline: Instant) -> RequestHead {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left - (left / 8).min(LONGEST_RESERVE);
        let mut head = RequestHead::new(self.request.op(), id);
        head.deadline_us = u32::try_from(left.as_micros()).unwrap_or(u32::MAX).max(1);
        head.r = self.options.r;
        head.w = self.options.w;
        head.consistency = self.options.consistency;
        if self.in_doubt {
            head.flags = RequestFlags::RETRY;
        }
        head
    }
}

/// Sorts a whole answer into success and failure.
fn outcome(replies: Replies, repeatable: bool, write: bool) -> Result<Replies, Failure> {
    let Status::Error(code) = replies.last.head.status else { return Ok(replies) };
    let reply = ErrorReply::decode(&replies.last.body).unwrap_or_default();
    let after = Again::After(Duration::from_millis(u64::from(reply.retry_after_ms)));
    let again = match code {
        ErrorCode::ShuttingDown => Again::Elsewhere,
        // A node that was away when the keyspace was created may not know it yet.
        ErrorCode::NotEnoughReplicas | ErrorCode::UnknownKeyspace => Again::Refused,
        ErrorCode::InDoubt if repeatable => after,
        // The time is over here, too.
        ErrorCode::DeadlineExceeded => Again::Never,
        _ if code.retryable() => after,
        _ => Again::Never,
    };
    let possibly_applied = write && code.possibly_applied();
    let error = ClientError::Server { code, text: reply.text.to_owned(), possibly_applied };
    Err(Failure { error, again })
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
