//! Settings of a client.

use std::sync::Arc;
use std::time::Duration;

use super::address::Addresses;
use super::call::Inner;
use super::{Client, ClientError};

/// Settings to connect with.
///
/// ```no_run
/// use std::time::Duration;
/// use coronet_net::client::Client;
///
/// # async fn example() -> Result<(), coronet_net::client::ClientError> {
/// let client = Client::builder()
///     .name("importer")
///     .timeout(Duration::from_secs(2))
///     .connect("127.0.0.1:4720")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) name: String,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) silence: Duration,
    pub(super) retries: u32,
    pub(super) in_flight: u32,
    pub(super) patience: Duration,
    pub(super) refresh: Duration,
    pub(super) pinned: bool,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            name: concat!("coronet-net/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            retries: 8,
            in_flight: 1024,
            patience: Duration::from_secs(2),
            refresh: Duration::from_secs(5),
            pinned: false,
        }
    }

    /// What the client calls itself towards the node.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The deadline of requests that name none; retries included. 10 seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long connecting to a core, HELLO included, may take. 5 seconds by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// A connection that brought nothing for this long while requests waited is given up when the
    /// next of them times out. 5 seconds by default.
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// How often a request is retried at most. 8 by default.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Requests in flight per connection, if the node grants as many. 1024 by default.
    #[must_use]
    pub fn in_flight(mut self, requests: u32) -> Self {
        self.in_flight = requests.max(1);
        self
    }

    /// How long one node of a cluster may take for a request before another is asked, if the
    /// request can be repeated. 2 seconds by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How old what is known of a cluster may become, in use. 5 seconds by default; sooner while
    /// nodes are down or fail.
    #[must_use]
    pub fn refresh(mut self, age: Duration) -> Self {
        self.refresh = age;
        self
    }

    /// Stays with the first node that answers, also in a cluster: that node coordinates every
    /// request. For tests and for looking at one node; there is no failing over.
    #[must_use]
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Connects to a node alone or to a cluster, by the first address that answers.
    pub async fn connect(self, addresses: impl Into<Addresses>) -> Result<Client, ClientError> {
        let inner = Inner::connect(self, &addresses.into()).await?;
        Ok(Client { inner: Arc::new(inner) })
    }
}
