//! Hints: what this node keeps for replicas that were away when it was written.
//!
//! A stand-in stores the object as any replica does, under its own key, and beside it a marker
//! that says for whom. The marker goes once the replica has the object; the object stays, because
//! the dots this node issued for the key must never be forgotten (a stand-in that dropped them and
//! named another write would seem to have seen, and replaced, the first one).
//!
//! A marker's key sorts behind all partitions: `0xFFFF`, the replica's id, the engine key. Its
//! value is the digest of the object it was written for, so that a hint renewed while it was on
//! its way stays.

use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{Durability, ScanRange};
use coronet_ring::coordinate::message::digest;
use coronet_ring::{NodeId, PartitionId};

use super::Inner;
use crate::node::{ControlMessage, Handoff, NodeEnv};

/// What a marker's key begins with: no partition has this number.
const MARKERS: [u8; 2] = PartitionId::NONE.0.to_be_bytes();
/// Hints on their way to one replica at once, from one core.
pub(super) const AT_ONCE: usize = 128;

/// The key of the marker that says: `target` lacks what is stored under `engine_key`.
pub(super) fn marker(target: NodeId, engine_key: &[u8]) -> Vec<u8> {
    let mut key = MARKERS.to_vec();
    key.extend_from_slice(&target.0.to_be_bytes());
    key.extend_from_slice(engine_key);
    key
}

impl<E: NodeEnv> Inner<E> {
    /// Sends the control core what is kept for `target`, up to a bounded number; it asks again
    /// once those are delivered.
    pub(super) fn replay_hints(self: &Rc<Self>, target: NodeId) {
        let shard = Rc::clone(self);
        self.env.spawn(TaskClass::Background, async move {
            let found = match shard.hints_for(target).await {
                Ok(found) => found,
                Err(error) => {
                    shard.env.log(&format!("cannot read the hints for {target}: {error}"));
                    Vec::new()
                }
            };
            for handoff in found {
                shard.tell_control(ControlMessage::Handoff(handoff));
            }
        });
    }

    async fn hints_for(&self, target: NodeId) -> coronet_lsm::Result<Vec<Handoff>> {
        let start = marker(target, &[]);
        let mut scan = self.engine.scan(ScanRange::prefix(&start)).await?;
        let mut found = Vec::new();
        while found.len() < AT_ONCE {
            let Some((marker, noted)) = scan.next().await? else { break };
            let engine_key = &marker[start.len()..];
            let Some((partition, key)) = engine_key.split_first_chunk::<2>() else { continue };
            let Some(object) = self.engine.get(engine_key).await? else { continue };
            found.push(Handoff {
                target,
                core: self.me,
                partition: PartitionId(u16::from_be_bytes(*partition)),
                key: key.to_vec(),
                object,
                noted,
            });
        }
        Ok(found)
    }

    /// The replica has the object: forgets the hint unless it was renewed meanwhile.
    pub(super) fn handed_off(self: &Rc<Self>, handoff: Handoff) {
        let mut engine_key = Vec::new();
        Self::engine_key(handoff.partition, &handoff.key, &mut engine_key);
        let key = marker(handoff.target, &engine_key);
        let noted = handoff.noted;
        let turn = Box::new(move |shard: &Self, key: &[u8], stored: Result<Option<&[u8]>, &_>| {
            if stored.is_ok_and(|stored| stored == Some(noted.as_slice())) {
                let mut batch = coronet_lsm::WriteBatch::new();
                batch.delete(key);
                // Should this fail, the hint is sent once more: merging is idempotent.
                let _ = shard.engine.write(&batch, Durability::Buffered);
            }
            None
        });
        self.change(key, turn);
    }
}

/// What a marker notes of the object it was written for.
pub(super) fn note(object: &[u8]) -> [u8; 8] {
    digest(object).to_le_bytes()
}
