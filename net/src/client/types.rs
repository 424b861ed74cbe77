//! What the client hands out.

use std::time::Duration;

use coronet_ring::{CoreId, Epoch, Hlc, NodeId};

use crate::codec::{Entry, Versions, Written};
use crate::frame::{ReplyFlags, ReplyHead};

use super::ClientError;
use super::link::Replies;

/// What a reply told beside its content.
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// let info = client.get(b"key").await?.info;
/// println!("{} replicas on {} racks in {:?}", info.acks, info.racks, info.server_time);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyInfo {
    /// Flags: forwarded, sloppy, repaired and so on.
    pub flags: ReplyFlags,
    /// Replicas that answered.
    pub acks: u8,
    /// Racks they are on.
    pub racks: u8,
    /// Time from arrival to answer inside the node.
    pub server_time: Duration,
    /// The node that answered: in a cluster the one that coordinated the request.
    pub node: NodeId,
    /// The core of it that owns the key, if the node said.
    pub owner: Option<CoreId>,
    /// The version of the placement that node knows.
    pub epoch: Epoch,
}

impl ReplyInfo {
    pub(super) fn new(node: NodeId, head: &ReplyHead) -> Self {
        Self {
            flags: head.flags,
            acks: head.acks,
            racks: head.racks,
            server_time: Duration::from_micros(u64::from(head.server_us)),
            node,
            epoch: head.epoch,
            owner: (head.owner != CoreId::ANY).then_some(head.owner),
        }
    }
}

/// One version of a value.
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// for version in client.get(b"key").await?.versions {
///     println!("{} bytes, written at {}", version.value.len(), version.hlc);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// When it was written.
    pub hlc: Hlc,
    /// Whether it is a deletion that conflicts with the other versions.
    pub tombstone: bool,
    /// The value.
    pub value: Vec<u8>,
}

/// What a read found.
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// let found = client.get(b"key").await?;
/// if found.versions.len() > 1 {
///     println!("written by several clients at the same time");
/// }
/// println!("{}", found.exists());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Every version nobody has superseded; empty when the key has no value.
    pub versions: Vec<Version>,
    /// To be handed back with the next write of the key: see
    /// [`RequestOptions::context`](super::RequestOptions::context).
    pub context: Vec<u8>,
    /// What the reply told beside.
    pub info: ReplyInfo,
}

impl Found {
    pub(super) fn new(versions: &Versions<'_>, info: ReplyInfo) -> Self {
        let context = versions.context().to_vec();
        let versions = versions
            .iter()
            .map(|v| Version { hlc: v.hlc, tombstone: v.tombstone, value: v.value.to_vec() })
            .collect();
        Self { versions, context, info }
    }

    /// The latest value, if there is any.
    pub fn value(&self) -> Option<&[u8]> {
        self.latest().map(|version| version.value.as_slice())
    }

    /// The latest value, if there is any.
    pub fn into_value(mut self) -> Option<Vec<u8>> {
        self.versions.retain(|version| !version.tombstone);
        self.versions.into_iter().max_by_key(|version| version.hlc).map(|version| version.value)
    }

    /// Whether the key has a value.
    pub fn exists(&self) -> bool {
        self.latest().is_some()
    }

    fn latest(&self) -> Option<&Version> {
        self.versions.iter().filter(|v| !v.tombstone).max_by_key(|v| v.hlc)
    }
}

/// What a write did.
///
/// ```no_run
/// use coronet_net::client::RequestOptions;
///
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// let first = client.put(b"key", b"1").await?;
/// let after = RequestOptions::new().context(first.context);
/// client.put_with(b"key", b"2", &after).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The new version's timestamp.
    pub hlc: Hlc,
    /// To be handed back with the next write of the key.
    pub context: Vec<u8>,
    /// What the reply told beside.
    pub info: ReplyInfo,
}

impl Stored {
    pub(super) fn from_replies(replies: &Replies) -> Result<Self, ClientError> {
        let written = Written::decode(&replies.last.body)?;
        let info = ReplyInfo::new(replies.node, &replies.last.head);
        Ok(Self { hlc: written.hlc, context: written.context.to_vec(), info })
    }
}

/// One listed key.
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// if let Some(listed) = client.list(b"docs/").next().await? {
///     println!("{:?}: {} bytes in {} versions", listed.key, listed.bytes, listed.versions);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// The key.
    pub key: Vec<u8>,
    /// Number of versions with a value.
    pub versions: u16,
    /// Bytes of all values together.
    pub bytes: u64,
    /// When the latest version was written.
    pub hlc: Hlc,
}

impl From<Entry<'_>> for ListedKey {
    fn from(entry: Entry<'_>) -> Self {
        let Entry { key, versions, bytes, hlc } = entry;
        Self { key: key.to_vec(), versions, bytes, hlc }
    }
}
