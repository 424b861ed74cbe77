//! What a node knew when it stopped, as bytes to keep: a whole cluster may stop at once, and its
//! keyspaces and placement must be there when it starts again.
//!
//! Format: a gossip message (a delta with everything), then XXH3-64 of its bytes (8).

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{Unreadable, check_version};
use super::keyspace::Keyspace;
use super::member::Member;
use super::message::{Body, ClusterName, Delta, Message};
use super::state::{Founding, Gossip};
use crate::ids::NodeId;

/// Why a snapshot is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// Cut off, changed, or of a later version.
    #[error("the stored view of the cluster {0}")]
    Unreadable(#[from] Unreadable),
    /// Of another cluster or of other founding settings.
    #[error("the stored view belongs to another cluster or to other founding settings")]
    OtherCluster,
}

impl Gossip {
    /// Appends everything this node knows. To be stored whenever
    /// [`on_message`](Gossip::on_message) reports a change other than a heartbeat, and after own
    /// changes.
    pub fn snapshot(&self, into: &mut Vec<u8>) {
        let table = self.table.as_ref().map(|table| {
            let mut bytes = Vec::new();
            table.encode(&mut bytes);
            bytes
        });
        let delta = Delta {
            members: self.members.values().cloned().collect(),
            keyspaces: self.keyspaces.values().cloned().collect(),
            table,
            ..Delta::default()
        };
        let start = into.len();
        Message { cluster: self.name, from: self.me, body: Body::Delta(delta) }.encode(into);
        let check = xxh3_64(&into[start..]);
        into.extend_from_slice(&check.to_le_bytes());
    }

    /// A node that starts again with what it had stored. What it says of itself is new; the rest is
    /// as if another node had told it.
    pub fn restore(me: Member, founding: Founding, stored: &[u8]) -> Result<Gossip, SnapshotError> {
        let Stored { cluster, from, delta } = decode(stored)?;
        let mut gossip = Gossip::unfounded(me, founding);
        if cluster != gossip.name {
            return Err(SnapshotError::OtherCluster);
        }
        gossip.learn(from, delta, &mut Vec::new());
        Ok(gossip)
    }
}

/// What a snapshot says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The cluster it is of.
    pub cluster: ClusterName,
    /// The node whose view it is.
    pub from: NodeId,
    /// Members, keyspaces and the encoded placement table.
    pub delta: Delta,
}

/// The keyspaces of a snapshot that are not dropped, whatever cluster it belongs to.
///
/// # Errors
/// When it is damaged or of a later version.
pub fn keyspaces(stored: &[u8]) -> Result<Vec<Keyspace>, Unreadable> {
    let keyspaces = decode(stored)?.delta.keyspaces;
    Ok(keyspaces.into_iter().filter(|keyspace| !keyspace.dropped).collect())
}

/// Reads a snapshot, whatever cluster it belongs to.
///
/// # Errors
/// When it is damaged or of a later version.
pub fn decode(stored: &[u8]) -> Result<Stored, Unreadable> {
    let (payload, check) = stored.split_last_chunk::<8>().ok_or(Unreadable::Damaged)?;
    if xxh3_64(payload) != u64::from_le_bytes(*check) {
        return Err(Unreadable::Damaged);
    }
    check_version(payload)?;
    match Message::decode(payload) {
        Some(Message { cluster, from, body: Body::Delta(delta) }) => {
            Ok(Stored { cluster, from, delta })
        }
        _ => Err(Unreadable::Damaged),
    }
}
