//! Listings: pages fetched ahead, handed out key by key.

use std::collections::VecDeque;
use std::sync::Arc;

use coronet_ring::PartitionId;
use tokio::task::JoinHandle;

use super::ClientError;
use super::call::{Inner, Target};
use super::link::{Replies, Reply};
use super::options::ListOptions;
use super::types::ListedKey;
use crate::codec::{ListPage, ListRequest, Request};
use crate::limits::{MAX_CREDIT, MAX_PAGE};

/// A place in a listing, to go on from later: opaque bytes for the caller, valid for the same
/// prefix on the same cluster.
///
/// ```no_run
/// use coronet_net::client::ListOptions;
///
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// let mut listing = client.list(b"docs/");
/// listing.next().await?;
/// if let Some(position) = listing.position() {
///     let rest = ListOptions::new().start(position.clone());
///     client.list_with(b"docs/", rest).next().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    partition: PartitionId,
    cursor: Vec<u8>,
}

impl Position {
    /// The position as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.partition.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.cursor);
        bytes
    }

    /// A position from [`to_bytes`](Position::to_bytes). `None` when it cannot be one; damage
    /// beyond that is found by the node.
    ///
    /// ```
    /// use coronet_net::client::Position;
    ///
    /// let start = Position::default();
    /// assert_eq!(Position::from_bytes(&start.to_bytes()), Some(start));
    /// assert_eq!(Position::from_bytes(&[1]), None);
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (partition, cursor) = bytes.split_first_chunk::<2>()?;
        let partition = PartitionId(u16::from_le_bytes(*partition));
        Some(Self { partition, cursor: cursor.to_vec() })
    }
}

/// Several pages as they came.
type Batch = Result<Replies, ClientError>;

/// One page, decoded.
#[derive(Debug)]
struct Page {
    keys: VecDeque<ListedKey>,
    /// Where the listing goes on after this page; `None` at its end.
    next: Option<Position>,
}

/// A listing under way. See [`Client::list`](super::Client::list).
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// let mut listing = client.list(b"");
/// let mut bytes = 0;
/// while let Some(listed) = listing.next().await? {
///     bytes += listed.bytes;
/// }
/// println!("{bytes} bytes");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listing {
    inner: Arc<Inner>,
    prefix: Arc<[u8]>,
    options: ListOptions,
    /// Keys of the page being handed out.
    keys: VecDeque<ListedKey>,
    /// Pages fetched and not yet begun.
    pages: VecDeque<Page>,
    /// The place after all keys handed out so far, by whole pages.
    position: Option<Position>,
    /// The place after the page being handed out.
    after: Option<Position>,
    /// Pages being fetched.
    fetching: Option<JoinHandle<Batch>>,
}

impl Listing {
    pub(super) fn new(inner: Arc<Inner>, prefix: &[u8], mut options: ListOptions) -> Self {
        options.page = options.page.clamp(1, MAX_PAGE);
        options.pages = options.pages.clamp(1, MAX_CREDIT);
        let start = std::mem::take(&mut options.start);
        Self {
            inner,
            prefix: prefix.into(),
            options,
            keys: VecDeque::new(),
            pages: VecDeque::new(),
            position: Some(start.clone()),
            after: Some(start),
            fetching: None,
        }
    }

    /// The next key, or `None` at the end. After an error the listing goes on where it was when
    /// asked again.
    pub async fn next(&mut self) -> Result<Option<ListedKey>, ClientError> {
        loop {
            if let Some(key) = self.keys.pop_front() {
                return Ok(Some(key));
            }
            self.position.clone_from(&self.after);
            if let Some(page) = self.pages.pop_front() {
                self.keys = page.keys;
                self.after = page.next;
                continue;
            }
            let Some(from) = self.after.clone() else { return Ok(None) };
            self.fetch(from).await?;
        }
    }

    /// Where a later listing can go on: every key before it was handed out; keys of the page being
    /// handed out come again. `None` at the end.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Waits for the pages after `from` and begins to fetch those that follow them.
    async fn fetch(&mut self, from: Position) -> Result<(), ClientError> {
        if self.fetching.is_none() {
            self.fetching = Some(self.spawn(from.clone()));
        }
        // Awaited in place: when the caller drops this future, the pages are not lost.
        let Some(task) = &mut self.fetching else { return Ok(()) };
        let joined = task.await;
        self.fetching = None;
        // The task ends early only together with its runtime.
        let replies = joined.unwrap_or(Err(ClientError::Lost { possibly_applied: false }))?;
        self.pages = decode(&replies)?;
        let next = self.pages.back().and_then(|page| page.next.clone());
        if next.as_ref() == Some(&from) {
            self.pages.clear();
            return Err(ClientError::Protocol("LIST goes on where it began".to_owned()));
        }
        self.fetching = next.map(|next| self.spawn(next));
        Ok(())
    }

    fn spawn(&self, from: Position) -> JoinHandle<Batch> {
        let (inner, prefix) = (Arc::clone(&self.inner), Arc::clone(&self.prefix));
        let options = self.options.clone();
        tokio::spawn(async move {
            let request = Request::List(ListRequest {
                page_limit: options.page,
                credit: options.pages,
                prefix: &prefix,
                cursor: &from.cursor,
            });
            inner.call(Target::Partition(from.partition), &request, &options.request).await
        })
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        if let Some(task) = &self.fetching {
            task.abort();
        }
    }
}

fn decode(replies: &Replies) -> Result<VecDeque<Page>, ClientError> {
    let page = |reply: &Reply| -> Result<Page, ClientError> {
        let page = ListPage::decode(&reply.body)?;
        let next = Position { partition: reply.head.partition, cursor: page.cursor().to_vec() };
        let keys = page.entries().map(ListedKey::from).collect();
        Ok(Page { keys, next: (!next.cursor.is_empty()).then_some(next) })
    };
    replies.frames().map(page).collect()
}
