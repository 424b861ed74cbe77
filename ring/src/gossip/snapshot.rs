//! What a node knew when it stopped, as bytes to keep: a whole cluster may stop at once, and its
//! keyspaces and placement must be there when it starts again.
//!
//! Format: a gossip message (a delta with everything), then XXH3-64 of its bytes (8).

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::keyspace::Keyspace;
use super::member::Member;
use super::message::{Body, Delta, Message};
use super::state::{Founding, Gossip};

/// Why a snapshot is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// Cut off, changed, or of a later version.
    #[error("the stored view of the cluster is damaged or of an unknown version")]
    Damaged,
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
        let message = open(stored)?;
        let mut gossip = Gossip::unfounded(me, founding);
        if message.cluster != gossip.name {
            return Err(SnapshotError::OtherCluster);
        }
        let Body::Delta(delta) = message.body else { return Err(SnapshotError::Damaged) };
        gossip.learn(message.from, delta, &mut Vec::new());
        Ok(gossip)
    }
}

/// The keyspaces of a snapshot that are not dropped, whatever cluster it belongs to.
///
/// # Errors
/// When it is damaged.
pub fn keyspaces(stored: &[u8]) -> Result<Vec<Keyspace>, SnapshotError> {
    let Body::Delta(delta) = open(stored)?.body else { return Err(SnapshotError::Damaged) };
    Ok(delta.keyspaces.into_iter().filter(|keyspace| !keyspace.dropped).collect())
}

fn open(stored: &[u8]) -> Result<Message, SnapshotError> {
    let (payload, check) = stored.split_last_chunk::<8>().ok_or(SnapshotError::Damaged)?;
    if xxh3_64(payload) != u64::from_le_bytes(*check) {
        return Err(SnapshotError::Damaged);
    }
    Message::decode(payload).ok_or(SnapshotError::Damaged)
}
