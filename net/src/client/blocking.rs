//! The client without `async`.
//!
//! A thread of its own drives the sockets; calls wait on the caller's thread. Must not be used
//! from inside an async runtime.
//!
//! ```no_run
//! use coronet_net::client::blocking::Client;
//!
//! # fn main() -> Result<(), coronet_net::client::ClientError> {
//! let client = Client::connect("127.0.0.1:4720")?;
//! client.put(b"key", b"value")?;
//! assert_eq!(client.get(b"key")?.value(), Some(&b"value"[..]));
//! for listed in client.list(b"") {
//!     println!("{:?}", listed?.key);
//! }
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use coronet_ring::CoreId;
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

use super::{
    Addresses, Builder, ClientError, Found, Layout, ListOptions, ListedKey, Position,
    RequestOptions, Stored, Topology, Version,
};
use crate::codec::{KeyspaceInfo, RouteReply, StatsReply};

/// The thread that drives the sockets of a blocking client.
#[derive(Debug)]
struct Driver {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    fn start() -> Result<Self, ClientError> {
        let failed = |source: std::io::Error| ClientError::Connect {
            address: "the client's own runtime".to_owned(),
            source: Arc::new(source),
            possibly_applied: false,
        };
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("coronet-client".to_owned())
            .spawn(move || {
                // Sent or dropped, both mean the client is gone.
                let _ = runtime.block_on(stopped);
            })
            .map_err(failed)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panics only if the runtime does, and then there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

/// A connected client whose calls block. Clones share connections and may be used from several
/// threads at once.
///
/// ```no_run
/// use coronet_net::client::blocking::Client;
///
/// # fn main() -> Result<(), coronet_net::client::ClientError> {
/// let client = Client::connect("127.0.0.1:4720")?;
/// let other = client.clone();
/// std::thread::spawn(move || other.put(b"key", b"value"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    // Dropped before the driver, so that connections end while their runtime still runs.
    client: super::Client,
    driver: Arc<Driver>,
}

impl Client {
    /// Connects with default settings: see [`super::Client::connect`].
    pub fn connect(addresses: impl Into<Addresses>) -> Result<Self, ClientError> {
        Self::connect_with(super::Client::builder(), addresses)
    }

    /// Connects with settings.
    ///
    /// ```no_run
    /// use coronet_net::client::{Client, blocking};
    ///
    /// # fn main() -> Result<(), coronet_net::client::ClientError> {
    /// let settings = Client::builder().name("importer");
    /// let client = blocking::Client::connect_with(settings, "127.0.0.1:4720")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_with(
        settings: Builder,
        addresses: impl Into<Addresses>,
    ) -> Result<Self, ClientError> {
        let driver = Arc::new(Driver::start()?);
        let client = driver.handle.block_on(settings.connect(addresses))?;
        Ok(Self { client, driver })
    }

    /// The layout of the node the client came to first, as last heard.
    pub fn layout(&self) -> Arc<Layout> {
        self.client.layout()
    }

    /// Asks for the cluster's nodes and placement; `None` for a node in no cluster.
    pub fn topology(&self) -> Result<Option<Topology>, ClientError> {
        self.wait(self.client.topology())
    }

    /// Reads, merges and writes: see [`super::Client::update`].
    pub fn update(
        &self,
        key: &[u8],
        merge: impl FnMut(&[Version]) -> Option<Vec<u8>>,
    ) -> Result<Found, ClientError> {
        self.wait(self.client.update(key, merge))
    }

    /// Stores a value.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Stored, ClientError> {
        self.wait(self.client.put(key, value))
    }

    /// Stores a value with options.
    pub fn put_with(
        &self,
        key: &[u8],
        value: &[u8],
        options: &RequestOptions,
    ) -> Result<Stored, ClientError> {
        self.wait(self.client.put_with(key, value, options))
    }

    /// Reads a key.
    pub fn get(&self, key: &[u8]) -> Result<Found, ClientError> {
        self.wait(self.client.get(key))
    }

    /// Reads a key with options.
    pub fn get_with(&self, key: &[u8], options: &RequestOptions) -> Result<Found, ClientError> {
        self.wait(self.client.get_with(key, options))
    }

    /// Deletes a key.
    pub fn delete(&self, key: &[u8]) -> Result<Stored, ClientError> {
        self.wait(self.client.delete(key))
    }

    /// Deletes a key with options.
    pub fn delete_with(&self, key: &[u8], options: &RequestOptions) -> Result<Stored, ClientError> {
        self.wait(self.client.delete_with(key, options))
    }

    /// Reads many keys at once; results are in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Found, ClientError>> {
        self.wait(self.client.multi_get(keys))
    }

    /// Reads many keys at once with options.
    pub fn multi_get_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        options: &RequestOptions,
    ) -> Vec<Result<Found, ClientError>> {
        self.wait(self.client.multi_get_with(keys, options))
    }

    /// Lists the keys that begin with `prefix`.
    pub fn list(&self, prefix: &[u8]) -> Listing {
        self.list_with(prefix, ListOptions::default())
    }

    /// Lists with options; among them where an earlier listing stopped.
    pub fn list_with(&self, prefix: &[u8], options: ListOptions) -> Listing {
        let listing = self.client.list_with(prefix, options);
        Listing { listing, failed: false, driver: Arc::clone(&self.driver) }
    }

    /// The counters of the node the client came to first, all its cores together.
    pub fn stats(&self) -> Result<StatsReply, ClientError> {
        self.wait(self.client.stats())
    }

    /// Sends some bytes to a core and back, and returns how long that took.
    pub fn ping(&self, core: CoreId, bytes: &[u8]) -> Result<Duration, ClientError> {
        self.wait(self.client.ping(core, bytes))
    }

    /// Asks the node where a key lives.
    pub fn route(&self, key: &[u8]) -> Result<RouteReply, ClientError> {
        self.wait(self.client.route(key))
    }

    /// A client of another keyspace: see [`super::Client::keyspace`].
    #[must_use]
    pub fn keyspace(&self, name: &str) -> Self {
        Self { client: self.client.keyspace(name), driver: Arc::clone(&self.driver) }
    }

    /// Creates a keyspace: see [`super::Client::create_keyspace`].
    pub fn create_keyspace(
        &self,
        name: &str,
        settings: &[(&str, &str)],
    ) -> Result<KeyspaceInfo, ClientError> {
        self.wait(self.client.create_keyspace(name, settings))
    }

    /// Changes a keyspace: see [`super::Client::alter_keyspace`].
    pub fn alter_keyspace(
        &self,
        name: &str,
        settings: &[(&str, &str)],
    ) -> Result<KeyspaceInfo, ClientError> {
        self.wait(self.client.alter_keyspace(name, settings))
    }

    /// Lists keyspaces: see [`super::Client::keyspaces`].
    pub fn keyspaces(&self) -> Result<Vec<KeyspaceInfo>, ClientError> {
        self.wait(self.client.keyspaces())
    }

    fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.driver.handle.block_on(call)
    }
}

/// A listing under way; ends after the first error.
///
/// ```no_run
/// use coronet_net::client::blocking::Client;
///
/// # fn main() -> Result<(), coronet_net::client::ClientError> {
/// let client = Client::connect("127.0.0.1:4720")?;
/// let keys: Result<Vec<_>, _> = client.list(b"docs/").collect();
/// println!("{} keys", keys?.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listing {
    listing: super::Listing,
    failed: bool,
    driver: Arc<Driver>,
}

impl Listing {
    /// Where a later listing can go on: see [`super::Listing::position`].
    pub fn position(&self) -> Option<&Position> {
        self.listing.position()
    }
}

impl Iterator for Listing {
    type Item = Result<ListedKey, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.driver.handle.block_on(self.listing.next());
        self.failed = next.is_err();
        next.transpose()
    }
}
