//! What a caller may ask of a single request.

use std::time::Duration;

use crate::frame::{Consistency, Durability, Quorum, QuorumMode, TOKEN_BYTES};

use super::list::Position;

/// Which token a write carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TokenChoice {
    /// One of the client's own, made per write.
    #[default]
    Automatic,
    /// The caller's.
    Given([u8; TOKEN_BYTES]),
    /// None: the write is not repeated once it may have been applied.
    None,
}

/// Options of one request. What an operation has no use for is ignored.
///
/// ```
/// use std::time::Duration;
/// use coronet_net::Durability;
/// use coronet_net::client::RequestOptions;
///
/// let quick = RequestOptions::new()
///     .deadline(Duration::from_millis(50))
///     .durability(Durability::Buffered);
/// ```
#[derive(Debug, Clone, Default)]
pub struct RequestOptions {
    pub(super) r: Quorum,
    pub(super) w: Quorum,
    pub(super) consistency: Consistency,
    pub(super) deadline: Option<Duration>,
    pub(super) context: Vec<u8>,
    pub(super) token: TokenChoice,
    pub(super) retries: Option<u32>,
}

impl RequestOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replicas a read waits for.
    #[must_use]
    pub fn r(mut self, r: Quorum) -> Self {
        self.r = r;
        self
    }

    /// Replicas a write waits for.
    #[must_use]
    pub fn w(mut self, w: Quorum) -> Self {
        self.w = w;
        self
    }

    /// When a write counts as stored.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.consistency.durability = durability;
        self
    }

    /// Whether stand-ins may answer for unreachable replicas.
    #[must_use]
    pub fn quorum_mode(mut self, mode: QuorumMode) -> Self {
        self.consistency.mode = mode;
        self
    }

    /// Whether siblings are resolved by the latest timestamp.
    #[must_use]
    pub fn last_write_wins(mut self, on: bool) -> Self {
        self.consistency.lww = on;
        self
    }

    /// Whether a read is answered only once so many replicas hold what it returns that no later
    /// strict read with the same R can miss it: two reads in a row never go backwards.
    #[must_use]
    pub fn monotonic(mut self, on: bool) -> Self {
        self.consistency.monotonic = on;
        self
    }

    /// From how many racks the acknowledgements must come; up to 15.
    #[must_use]
    pub fn racks(mut self, racks: u8) -> Self {
        self.consistency.racks = racks.min(15);
        self
    }

    /// How long the request may take, retries included.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// What was seen of the key before this write: a `context` the node gave out.
    #[must_use]
    pub fn context(mut self, context: impl Into<Vec<u8>>) -> Self {
        self.context = context.into();
        self
    }

    /// The caller's own name for the write, for retries beyond the life of this client.
    #[must_use]
    pub fn token(mut self, token: [u8; TOKEN_BYTES]) -> Self {
        self.token = TokenChoice::Given(token);
        self
    }

    /// Sends the write without a token. It is then not repeated once it may have been applied.
    #[must_use]
    pub fn without_token(mut self) -> Self {
        self.token = TokenChoice::None;
        self
    }

    /// How often the request is retried at most, then also while too few replicas are reachable.
    /// Without this option such a refusal is told at once, when no other node is left to ask.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }

    /// The same for requests of an update, each of which has a context and a token of its own.
    pub(super) fn for_update(&self) -> Self {
        Self { context: Vec::new(), token: TokenChoice::Automatic, ..self.clone() }
    }

    pub(super) fn context_bytes(&self) -> &[u8] {
        &self.context
    }
}

/// Options of a listing.
///
/// ```
/// use coronet_net::client::ListOptions;
///
/// // Small pages, one at a time: for who wants few keys.
/// let options = ListOptions::new().page(10).pages(1);
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct ListOptions {
    pub(super) page: u32,
    pub(super) pages: u16,
    pub(super) start: Position,
    pub(super) request: RequestOptions,
}

impl Default for ListOptions {
    fn default() -> Self {
        let (start, request) = (Position::default(), RequestOptions::default());
        Self { page: 1000, pages: 4, start, request }
    }
}

impl ListOptions {
    /// The defaults: pages of 1000 keys, four of them asked for at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Most keys of a page.
    #[must_use]
    pub fn page(mut self, keys: u32) -> Self {
        self.page = keys;
        self
    }

    /// Most pages asked for at once; as many again are fetched ahead.
    #[must_use]
    pub fn pages(mut self, pages: u16) -> Self {
        self.pages = pages;
        self
    }

    /// Goes on where an earlier listing of the same prefix was.
    #[must_use]
    pub fn start(mut self, position: Position) -> Self {
        self.start = position;
        self
    }

    /// Options of each request the listing sends; a deadline counts per request.
    #[must_use]
    pub fn request(mut self, options: RequestOptions) -> Self {
        self.request = options;
        self
    }
}
