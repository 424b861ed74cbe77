//! The client library: plain tokio, no `io_uring`.
//!
//! A [`Client`] learns the cluster's topology and the nodes' layouts when it connects, keeps one
//! connection per core it talks to, sends every request to a live replica of its key and there to
//! the core that owns it, pipelines, and retries what is safe to retry, in a cluster at another
//! node. A node alone is served by the same means. Clones share connections. [`blocking::Client`]
//! is the same without `async`.
//!
//! ```no_run
//! use coronet_net::client::Client;
//!
//! # async fn example() -> Result<(), coronet_net::client::ClientError> {
//! let client = Client::connect("127.0.0.1:4720").await?;
//! client.put(b"greeting", b"hello").await?;
//! let found = client.get(b"greeting").await?;
//! assert_eq!(found.value(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # What is retried
//!
//! * A request the node refused before doing anything (busy, shutting down), or that was never
//!   sent: always, as long as its deadline allows.
//! * A read whose connection broke: yes.
//! * A write whose connection broke after it was sent, or that the node calls in doubt: only when
//!   it carries an idempotency token, and flagged as a retry. Every write gets a token unless
//!   [`RequestOptions::without_token`] asks otherwise. The token lets the cluster recognise the
//!   write even when another node coordinates the retry.
//! * A request a node of a cluster has kept for [`Builder::patience`], when it could be repeated
//!   after a broken connection: at another node.
//!
//! A client whose nodes do not answer goes back to the addresses it was given and to all it has
//! learnt since; whoever answers there must belong to the same cluster.
//!
//! When retries end without success, [`ClientError::possibly_applied`] says whether any attempt of
//! a write may have been, or may still be, applied.

// A client lives in an ordinary process: it owns sockets, timers and a source of tokens, and the
// order of its maps reaches nobody. The pure rooms of this crate keep these bans.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod address;
pub mod blocking;
mod builder;
mod call;
mod cluster;
mod error;
mod find;
mod keyspace;
mod layout;
mod link;
mod list;
mod multi;
mod node;
mod options;
mod token;
mod topology;
mod types;
mod update;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coronet_ring::CoreId;
use tokio::time::Instant;

use crate::codec::{Admin, Delete, Put, Request, RouteReply, StatsReply, Versions};

pub use address::Addresses;
pub use builder::Builder;
pub use error::ClientError;
pub use layout::Layout;
pub use list::{Listing, Position};
pub use options::{ListOptions, RequestOptions};
pub use topology::Topology;
pub use types::{Found, ListedKey, ReplyInfo, Stored, Version};

use call::{Inner, Target};

/// A connected client. Clones are cheap and share connections.
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// let second = client.clone();
/// tokio::join!(client.get(b"a"), second.get(b"b"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    /// Connects with default settings to a node alone or to a cluster: one `host:port` or several,
    /// see [`Addresses`]; the port may be left out.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), coronet_net::client::ClientError> {
    /// let client = coronet_net::client::Client::connect("localhost").await?;
    /// println!("{} cores", client.layout().cores());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(addresses: impl Into<Addresses>) -> Result<Self, ClientError> {
        Self::builder().connect(addresses).await
    }

    /// Settings to connect with.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use coronet_net::client::Client;
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let hasty = Client::builder().timeout(Duration::from_millis(200)).connect("db1,db2").await?;
    /// hasty.put(b"key", b"value").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The layout of the node the client came to first, as last heard.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// println!("values of up to {} bytes", client.layout().limits().max_value);
    /// # Ok(())
    /// # }
    /// ```
    pub fn layout(&self) -> Arc<Layout> {
        self.inner.layout()
    }

    /// The cluster as last heard; `None` for a node alone and for a client that stays with one.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let nodes = client.known_topology().map_or(1, |topology| topology.nodes.len());
    /// println!("{nodes} nodes");
    /// # Ok(())
    /// # }
    /// ```
    pub fn known_topology(&self) -> Option<Topology> {
        self.inner.cluster().view().topology.clone()
    }

    /// Asks for the cluster's nodes and placement; `None` for a node in no cluster.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// if let Some(topology) = client.topology().await? {
    ///     for node in &topology.nodes {
    ///         println!("{} {} alive: {}", node.id, node.address, node.alive);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn topology(&self) -> Result<Option<Topology>, ClientError> {
        self.inner.cluster().topology().await
    }

    /// Stores a value.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let stored = client.put(b"key", b"value").await?;
    /// println!("written at {}", stored.hlc);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<Stored, ClientError> {
        self.put_with(key, value, &RequestOptions::default()).await
    }

    /// Stores a value with options.
    ///
    /// ```no_run
    /// use coronet_net::client::RequestOptions;
    /// use coronet_net::{Durability, Quorum};
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let seen = client.get(b"key").await?;
    /// let options = RequestOptions::new()
    ///     .w(Quorum::ALL)
    ///     .durability(Durability::Durable)
    ///     .context(seen.context.clone());
    /// client.put_with(b"key", b"value", &options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_with(
        &self,
        key: &[u8],
        value: &[u8],
        options: &RequestOptions,
    ) -> Result<Stored, ClientError> {
        self.inner.check_key(key)?;
        self.inner.check_value(value)?;
        let request = Request::Put(Put { key, context: options.context_bytes(), value });
        Stored::from_replies(&self.inner.call(Target::Key(key), &request, options).await?)
    }

    /// Reads a key. A key without a value is no error: see [`Found::value`].
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// match client.get(b"key").await?.into_value() {
    ///     Some(value) => println!("{} bytes", value.len()),
    ///     None => println!("nothing there"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, key: &[u8]) -> Result<Found, ClientError> {
        self.get_with(key, &RequestOptions::default()).await
    }

    /// Reads a key with options.
    ///
    /// ```no_run
    /// use coronet_net::Quorum;
    /// use coronet_net::client::RequestOptions;
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let all = RequestOptions::new().r(Quorum::ALL);
    /// let found = client.get_with(b"key", &all).await?;
    /// println!("{} replicas answered", found.info.acks);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_with(
        &self,
        key: &[u8],
        options: &RequestOptions,
    ) -> Result<Found, ClientError> {
        self.inner.check_key(key)?;
        let request = Request::Get { key };
        let replies = self.inner.call(Target::Key(key), &request, options).await?;
        let versions = Versions::decode(&replies.last.body)?;
        Ok(Found::new(&versions, ReplyInfo::new(replies.node, &replies.last.head)))
    }

    /// Deletes a key.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// client.delete(b"key").await?;
    /// assert!(client.get(b"key").await?.value().is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete(&self, key: &[u8]) -> Result<Stored, ClientError> {
        self.delete_with(key, &RequestOptions::default()).await
    }

    /// Deletes a key with options.
    ///
    /// ```no_run
    /// use coronet_net::client::RequestOptions;
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let seen = client.get(b"key").await?;
    /// let options = RequestOptions::new().context(seen.context);
    /// client.delete_with(b"key", &options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_with(
        &self,
        key: &[u8],
        options: &RequestOptions,
    ) -> Result<Stored, ClientError> {
        self.inner.check_key(key)?;
        let request = Request::Delete(Delete { key, context: options.context_bytes() });
        Stored::from_replies(&self.inner.call(Target::Key(key), &request, options).await?)
    }

    /// Reads many keys at once, each from the core that owns it. Results are in the order of the
    /// keys; one key's failure does not fail the others.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// for found in client.multi_get(&[b"a", b"b"]).await {
    ///     println!("{:?}", found?.value());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Found, ClientError>> {
        self.multi_get_with(keys, &RequestOptions::default()).await
    }

    /// Reads many keys at once with options.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use coronet_net::client::RequestOptions;
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let options = RequestOptions::new().deadline(Duration::from_millis(50));
    /// for found in client.multi_get_with(&[b"a", b"b"], &options).await {
    ///     println!("{}", found.is_ok_and(|found| found.exists()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_get_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        options: &RequestOptions,
    ) -> Vec<Result<Found, ClientError>> {
        multi::multi_get(&self.inner, keys, options).await
    }

    /// Lists the keys that begin with `prefix`, partition by partition (so not in key order
    /// overall). The next pages are fetched while earlier ones are consumed.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let mut listing = client.list(b"docs/");
    /// while let Some(listed) = listing.next().await? {
    ///     println!("{} {}", String::from_utf8_lossy(&listed.key), listed.bytes);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, prefix: &[u8]) -> Listing {
        self.list_with(prefix, ListOptions::default())
    }

    /// Lists with options; among them where an earlier listing stopped.
    ///
    /// ```no_run
    /// use coronet_net::client::ListOptions;
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let mut listing = client.list_with(b"docs/", ListOptions::new().page(100));
    /// if let Some(first) = listing.next().await? {
    ///     println!("{} bytes", first.bytes);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list_with(&self, prefix: &[u8], options: ListOptions) -> Listing {
        Listing::new(Arc::clone(&self.inner), prefix, options)
    }

    /// The counters of the node the client came to first, all its cores together.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// for (name, value) in client.stats().await?.counters {
    ///     println!("{name} {value}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stats(&self) -> Result<StatsReply, ClientError> {
        self.stats_of(CoreId(0)).await
    }

    /// The node's counters, asked of one core. Each answers for all; a stuck one does not answer.
    ///
    /// ```no_run
    /// use coronet_ring::CoreId;
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// for core in 0..client.layout().cores() {
    ///     println!("{} counters", client.stats_of(CoreId(core)).await?.counters.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stats_of(&self, core: CoreId) -> Result<StatsReply, ClientError> {
        let options = RequestOptions::default();
        let replies = self.inner.call(Target::Core(core), &Request::Stats, &options).await?;
        Ok(StatsReply::decode(&replies.last.body)?)
    }

    /// Has the node the client came to first do what its operator wants; a client that is to
    /// reach one node of a cluster is [`Builder::pinned`]. Returns what the node says of it, in
    /// numbers. Options carry the deadline.
    ///
    /// ```no_run
    /// use coronet_net::client::RequestOptions;
    /// use coronet_net::codec::Admin;
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let options = RequestOptions::new();
    /// let told = client.admin(Admin::ScrubNow, &options).await?;
    /// println!("{:?}", told.counters);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn admin(
        &self,
        action: Admin<'_>,
        options: &RequestOptions,
    ) -> Result<StatsReply, ClientError> {
        let request = Request::Admin(action);
        let replies = self.inner.call(Target::Core(CoreId(0)), &request, options).await?;
        Ok(StatsReply::decode(&replies.last.body)?)
    }

    /// Sends some bytes to a core and back, and returns how long that took.
    ///
    /// ```no_run
    /// use coronet_ring::CoreId;
    ///
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// println!("{:?}", client.ping(CoreId(0), b"").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ping(&self, core: CoreId, bytes: &[u8]) -> Result<Duration, ClientError> {
        let started = Instant::now();
        let options = RequestOptions::default();
        let replies = self.inner.call(Target::Core(core), &Request::Ping(bytes), &options).await?;
        if replies.last.body != bytes {
            return Err(ClientError::Protocol("PING came back with other bytes".to_owned()));
        }
        Ok(started.elapsed())
    }

    /// Asks the node where a key lives.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let route = client.route(b"key").await?;
    /// println!("{} on {}", route.partition, route.core);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn route(&self, key: &[u8]) -> Result<RouteReply, ClientError> {
        self.inner.check_key(key)?;
        let options = RequestOptions::default();
        let request = Request::Route { key };
        let replies = self.inner.call(Target::Key(key), &request, &options).await?;
        Ok(RouteReply::decode(&replies.last.body)?)
    }
}

/// Locks; a panic elsewhere while the lock was held leaves the data as it is, which every holder
/// keeps consistent at each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
