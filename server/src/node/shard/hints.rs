//! Hints: what this node keeps for replicas that were away when it was written.
//!
//! A stand-in stores the object as any replica does, under its own key, and a hint that says for
//! whom. The hint goes once the replica has the object; the object stays, because the dots this
//! node issued for the key must never be forgotten (a stand-in that dropped them and named another
//! write would seem to have seen, and replaced, the first one).
//!
//! Hints are a keyspace of the engine, so that they are written in one batch with their objects
//! and follow a change of cores. A hint's key is partition, replica, keyspace, key; its value is one
//! byte, the format. Hints of the first format have no value and no keyspace: it is the default one.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{
    Durability, Engine, KeyspaceId as EngineId, KeyspaceOptions, Millis, Result, ScanRange,
    WriteBatch,
};
use coronet_probe::{Bug, Mark, mark, seeded};
use coronet_ring::{KeyspaceId, NodeId, PartitionId};

use super::Inner;
use crate::node::{ControlMessage, Handoff, NodeEnv};

/// The keyspace of hints.
const HINTS: EngineId = EngineId(1);
/// Hints on their way to one replica at once, from one core.
const AT_ONCE: usize = 128;

/// The partitions in which something may be kept for a replica.
pub(super) type Hinted = BTreeMap<NodeId, BTreeSet<PartitionId>>;

/// The value of a hint: format 2.
const FORMAT: &[u8] = &[2];

/// What the keys of hints for `target` in a partition begin with.
fn hints_of(target: NodeId, partition: PartitionId) -> Vec<u8> {
    [&partition.0.to_be_bytes()[..], &target.0.to_be_bytes()].concat()
}

/// The key of the hint that `target` lacks what a keyspace stores under `engine_key`.
fn hint(target: NodeId, keyspace: KeyspaceId, engine_key: &[u8]) -> Vec<u8> {
    let (partition, key) = engine_key.split_at(engine_key.len().min(2));
    [partition, &target.0.to_be_bytes(), &keyspace.0.to_be_bytes(), key].concat()
}

/// Partition and replica of a hint's key, and the rest.
fn parts(hint: &[u8]) -> Option<(PartitionId, NodeId, &[u8])> {
    let (partition, rest) = hint.split_first_chunk::<2>()?;
    let (target, rest) = rest.split_first_chunk::<16>()?;
    let partition = PartitionId(u16::from_be_bytes(*partition));
    Some((partition, NodeId(u128::from_be_bytes(*target)), rest))
}

/// Keyspace and key of a hint.
fn about<'a>(hint: &'a [u8], value: &[u8]) -> Option<(KeyspaceId, &'a [u8])> {
    let (_, _, rest) = parts(hint)?;
    if value.is_empty() {
        return Some((KeyspaceId::DEFAULT, rest));
    }
    let (id, key) = rest.split_first_chunk::<4>()?;
    Some((KeyspaceId(u32::from_be_bytes(*id)), key))
}

/// Makes the keyspace of hints unless it is there, and finds out for whom there are any.
pub(super) async fn open<E: NodeEnv>(engine: &Engine<E>) -> Result<Hinted> {
    let known = engine.keyspaces().await.iter().any(|(id, _)| *id == HINTS);
    if !known {
        let options = KeyspaceOptions { memtable_percent: Some(25), ..KeyspaceOptions::default() };
        engine.create_keyspace(HINTS, options).await?;
        return Ok(Hinted::new());
    }
    let mut hinted = Hinted::new();
    if seeded(Bug::HintsForgottenAtStart) {
        return Ok(hinted);
    }
    let all = ScanRange { start: Vec::new(), end: None };
    let mut scan = engine.keyspace(HINTS)?.scan(all).await?;
    while let Some((hint, _)) = scan.next().await? {
        let Some((partition, target, _)) = parts(&hint) else { continue };
        mark(Mark::HintsFound);
        hinted.entry(target).or_default().insert(partition);
        // On to the next partition or replica: one hint of each is enough to know.
        let mut next = hint[..18].to_vec();
        if !increment(&mut next) {
            break;
        }
        scan.seek(&next).await?;
    }
    Ok(hinted)
}

/// The next byte string of the same length; `false` when there is none.
fn increment(bytes: &mut [u8]) -> bool {
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return true;
        }
    }
    false
}

impl<E: NodeEnv> Inner<E> {
    /// Adds to a batch that `target` lacks what the batch stores under `engine_key`, for as long
    /// as that lives. Says what to [note again](Self::note_again) once the batch is committed.
    pub(super) fn note_hint(
        &self,
        batch: &mut WriteBatch,
        target: NodeId,
        keyspace: KeyspaceId,
        engine_key: &[u8],
        expiry: Option<Millis>,
    ) -> Option<(NodeId, PartitionId)> {
        if seeded(Bug::HintNotNoted) {
            return None;
        }
        mark(Mark::HintNoted);
        let hint = hint(target, keyspace, engine_key);
        batch.in_keyspace(HINTS);
        match expiry {
            Some(at) => batch.put_until(&hint, FORMAT, at),
            None => batch.put(&hint, FORMAT),
        }
        let (partition, ..) = parts(&hint)?;
        self.note_again(target, partition);
        Some((target, partition))
    }

    /// Has the hints of a partition looked at: some may have become visible. A look between a
    /// hint's writing and its commit does not find it and forgets the partition.
    pub(super) fn note_again(&self, target: NodeId, partition: PartitionId) {
        self.hinted.borrow_mut().entry(target).or_default().insert(partition);
    }

    /// Sends the control core what is kept for `target`, up to a bounded number; it asks again
    /// once those are delivered.
    pub(super) fn replay_hints(self: &Rc<Self>, target: NodeId) {
        if !self.hinted.borrow().contains_key(&target) {
            return;
        }
        let shard = Rc::clone(self);
        self.env.spawn(TaskClass::Background, async move {
            match shard.hints_for(target).await {
                Ok(found) => found.into_iter().for_each(|handoff| {
                    shard.tell_control(ControlMessage::Handoff(handoff));
                }),
                Err(error) => {
                    shard.env.log(&format!("cannot read the hints for {target}: {error}"));
                }
            }
        });
    }

    async fn hints_for(&self, target: NodeId) -> Result<Vec<Handoff>> {
        let mut found = Vec::new();
        let mut after = None;
        while let Some(partition) = self.next_hinted(target, after)
            && found.len() < AT_ONCE
        {
            after = Some(partition);
            // What is noted from here on is noted again.
            self.forget_hinted(target, partition);
            let before = found.len();
            let read = self.hints_in(target, partition, &mut found).await;
            if read.is_err() || found.len() > before {
                self.note_again(target, partition);
            }
            read?;
        }
        Ok(found)
    }

    fn next_hinted(&self, target: NodeId, after: Option<PartitionId>) -> Option<PartitionId> {
        let hinted = self.hinted.borrow();
        let partitions = hinted.get(&target)?;
        partitions.iter().copied().find(|partition| after.is_none_or(|after| *partition > after))
    }

    fn forget_hinted(&self, target: NodeId, partition: PartitionId) {
        let mut hinted = self.hinted.borrow_mut();
        let Some(partitions) = hinted.get_mut(&target) else { return };
        partitions.remove(&partition);
        if partitions.is_empty() {
            hinted.remove(&target);
        }
    }

    async fn hints_in(
        &self,
        target: NodeId,
        partition: PartitionId,
        found: &mut Vec<Handoff>,
    ) -> Result<()> {
        let range = ScanRange::prefix(&hints_of(target, partition));
        let mut scan = self.engine.keyspace(HINTS)?.scan(range).await?;
        while found.len() < AT_ONCE {
            let Some((hint, value)) = scan.next().await? else { break };
            let Some((keyspace, key)) = about(&hint, &value) else { continue };
            let Some(space) = self.space(keyspace) else {
                // Its definition comes yet: the hint is looked at again.
                self.note_again(target, partition);
                continue;
            };
            let mut engine_key = Vec::new();
            Self::engine_key(partition, key, &mut engine_key);
            let Some(object) = space.tree.get(&engine_key).await? else { continue };
            let (core, key) = (self.me, key.to_vec());
            found.push(Handoff { target, core, keyspace, partition, key, object });
        }
        Ok(())
    }

    /// The replica has the object: forgets the hint, unless the object changed meanwhile.
    pub(super) fn handed_off(self: &Rc<Self>, handoff: Handoff) {
        let mut engine_key = Vec::new();
        Self::engine_key(handoff.partition, &handoff.key, &mut engine_key);
        let Some(space) = self.space(handoff.keyspace) else { return };
        // In the key's turn nobody writes it or its hints.
        self.change(
            &space,
            engine_key,
            Box::new(move |shard, key, stored| {
                if stored.is_ok_and(|stored| stored == Some(handoff.object.as_slice())) {
                    mark(Mark::HintArrived);
                    let mut batch = WriteBatch::new();
                    batch.in_keyspace(HINTS);
                    batch.delete(&hint(handoff.target, handoff.keyspace, key));
                    if handoff.keyspace == KeyspaceId::DEFAULT {
                        // As the first format has it.
                        let of_target = hints_of(handoff.target, handoff.partition);
                        batch.delete(&[&of_target[..], &handoff.key].concat());
                    }
                    // Should this fail, the hint is sent once more: merging is idempotent.
                    let _ = shard.engine.write(&batch, Durability::Buffered);
                } else {
                    mark(Mark::HintOutdated);
                }
                None
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_s_key_tells_partition_replica_and_key() {
        let key = hint(NodeId(7), KeyspaceId(99), b"\x01\x02key");
        let (partition, target, _) = parts(&key).unwrap();
        assert_eq!((partition, target), (PartitionId(0x0102), NodeId(7)));
        assert_eq!(about(&key, FORMAT), Some((KeyspaceId(99), &b"key"[..])));
        assert!(key.starts_with(b"\x01\x02"), "it stays with its partition");
        assert!(key.starts_with(&hints_of(NodeId(7), PartitionId(0x0102))));
        assert_eq!((parts(&key[..17]), about(&key[..19], FORMAT)), (None, None));
        let first_format = [&key[..18], b"key"].concat();
        assert_eq!(about(&first_format, b""), Some((KeyspaceId::DEFAULT, &b"key"[..])));
    }

    #[test]
    fn the_next_string_carries_over_and_ends() {
        let mut bytes = [1, 0xFF];
        assert!(increment(&mut bytes) && bytes == [2, 0]);
        assert!(!increment(&mut [0xFF, 0xFF]));
    }
}
