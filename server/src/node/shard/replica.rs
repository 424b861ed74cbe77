//! What the control core asks of this core's data: the replica's side of quorum requests.
//!
//! A replica names writes, merges objects and hands out copies. It waits for nobody: what other
//! replicas do is the coordinator's business, which runs on the control core.

use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{CachedRead, Durability, ScanRange};
use coronet_probe::{Bug, seeded};
use coronet_ring::causality::object::ObjectRef;
use coronet_ring::causality::resolve::outline;
use coronet_ring::causality::update::{self, Change, ChangeError};
use coronet_ring::coordinate::message::{
    self as message, Answer, Ask, ListedKey, NewWrite, Refusal, digest,
};
use coronet_ring::{Context, Merged, NodeId, PartitionId, key_hash, merge};

use super::Inner;
use super::reply::Failure;
use super::spaces::Space;
use super::write::Waiter;
use crate::node::{ControlMessage, NodeEnv, ShardAsk};

/// Bytes of listed keys and outlines from which an answer is ended.
const LIST_BYTES: usize = 256 << 10;
/// Entries between two chances for others to run.
const COOP_ENTRIES: u32 = 32;

/// An ask whose write is on its way to the disk.
#[derive(Debug)]
pub(super) struct ReplicaWrite {
    ticket: u64,
    /// For whom, and where, the write left a hint.
    pub(super) hinted: Option<(NodeId, PartitionId)>,
}

/// Where and how an ask's object is stored.
struct Store<'a, E: NodeEnv> {
    ticket: u64,
    space: &'a Space<E>,
    durability: message::Durability,
    hint_for: Option<NodeId>,
}

impl<E: NodeEnv> Inner<E> {
    /// Executes an ask; its answers go to the control core.
    pub(super) fn ask(self: &Rc<Self>, asked: ShardAsk) {
        let ShardAsk { ticket, keyspace, partition, key, deadline, ask } = asked;
        if deadline.is_some_and(|deadline| deadline <= self.env.now()) {
            return self.tell_control(ControlMessage::Dropped { ticket });
        }
        if self.draining.get() {
            return self.tell(ticket, Answer::Refused(Refusal::ShuttingDown));
        }
        if self.map.core_of(partition) != self.me {
            return self.tell(ticket, Answer::Refused(Refusal::NotReplica));
        }
        let Some(space) = self.space(keyspace) else {
            return self.tell(ticket, Answer::Refused(Refusal::UnknownKeyspace));
        };
        let mut engine_key = Vec::with_capacity(key.len() + 2);
        Self::engine_key(partition, &key, &mut engine_key);
        match ask {
            Ask::Name { write, durability, hint_for } => self.change(
                &Rc::clone(&space),
                engine_key,
                Box::new(move |shard, key, stored| {
                    let stored = stored.map_err(|error| refusal(&Failure::of_engine(error)));
                    let to = Store { ticket, space: &space, durability, hint_for };
                    let named = stored.and_then(|stored| shard.name(to, key, stored, &write));
                    named.map_err(|refusal| shard.tell(ticket, Answer::Refused(refusal))).ok()
                }),
            ),
            Ask::Merge { object, durability, hint_for } => self.change(
                &Rc::clone(&space),
                engine_key,
                Box::new(move |shard, key, stored| {
                    let stored = stored.map_err(|error| refusal(&Failure::of_engine(error)));
                    let to = Store { ticket, space: &space, durability, hint_for };
                    let merged = stored.and_then(|stored| shard.merge(to, key, stored, &object));
                    merged.map_err(|refusal| shard.tell(ticket, Answer::Refused(refusal))).ok()
                }),
            ),
            Ask::Read { inline } => self.copy(ticket, &space, engine_key, inline),
            Ask::List { prefix, after, limit } => {
                let shard = Rc::clone(self);
                self.env.spawn(TaskClass::Foreground, async move {
                    let keys =
                        shard.keys(&space, partition, &prefix, after.as_deref(), limit).await;
                    shard.tell(ticket, keys.unwrap_or_else(Answer::Refused));
                });
            }
        }
    }

    /// Names a client's write and applies it; the answer goes out before the disk has it, so that
    /// the other replicas need not wait for this one's disk.
    fn name(
        &self,
        to: Store<'_, E>,
        key: &[u8],
        stored: Option<&[u8]>,
        write: &NewWrite,
    ) -> Result<Vec<u8>, Refusal> {
        let hash = to.space.id.bind(key_hash(&key[2..])); // after the partition
        let context = match write.context.as_slice() {
            [] => None,
            bytes => {
                let context = Context::decode(bytes, hash, self.config.secret);
                Some(context.map_err(|_| Refusal::BadContext)?)
            }
        };
        if let Some(context) = &context {
            self.look_for_own(to.space, stored, context);
        }
        let change = Change {
            value: write.value.as_deref(),
            context: context.as_ref(),
            replace: write.replace,
            token: write.token.as_ref(),
        };
        let now = self.clock.borrow_mut().tick(self.env.wall_micros());
        let mut object = Vec::new();
        let applied = update::apply(stored, &change, self.issued.get(), now, &mut object)
            .map_err(|error| refusal_of_change(&error))?;
        let mut context = Vec::new();
        applied
            .context
            .encode(hash, self.config.secret, &mut context)
            .map_err(|_| Refusal::TooManyVersions)?;
        self.put(&to, key, &object)?;
        let versions = u16::try_from(applied.versions).unwrap_or(u16::MAX);
        let hlc = applied.hlc;
        self.tell(
            to.ticket,
            Answer::Named { object: object.clone(), context, hlc, versions, stored: false },
        );
        Ok(object)
    }

    /// Merges an object into this replica's copy. What is already here is written again: that the
    /// earlier write is durable is not known.
    fn merge(
        &self,
        to: Store<'_, E>,
        key: &[u8],
        stored: Option<&[u8]>,
        incoming: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let theirs = ObjectRef::decode(incoming).map_err(|_| Refusal::Invalid)?;
        // A stamp far ahead of this clock is stored, but does not drag the clock along.
        let _ = self.clock.borrow_mut().observe(theirs.latest(), self.env.wall_micros());
        let mut object = Vec::new();
        let merged = merge(stored, incoming, &mut object).map_err(|_| Refusal::Corrupt)?;
        if seeded(Bug::MergeOverwrites) {
            object.clear();
            object.extend_from_slice(incoming);
        } else if merged == Merged::Unchanged {
            object.extend_from_slice(stored.unwrap_or_default());
        } else {
            self.look_for_own(to.space, stored, &theirs.seen());
        }
        self.put(&to, key, &object)?;
        Ok(object)
    }

    fn put(&self, to: &Store<'_, E>, key: &[u8], object: &[u8]) -> Result<(), Refusal> {
        let durability = match to.durability {
            message::Durability::Durable => Durability::Durable,
            message::Durability::Buffered => Durability::Buffered,
        };
        let mut batch = coronet_lsm::WriteBatch::new();
        let expiry = to.space.put(&mut batch, key, object);
        let hinted = to
            .hint_for
            .and_then(|target| self.note_hint(&mut batch, target, to.space.id, key, expiry));
        let commit = to
            .space
            .tree
            .write(&batch, durability)
            .map_err(|error| refusal(&Failure::of_engine(&error)))?;
        let deadline = self.env.now().after(self.config.limits.commit_wait);
        let waiter = Waiter::Replica(ReplicaWrite { ticket: to.ticket, hinted });
        self.commits(durability).push(commit, deadline, waiter);
        Ok(())
    }

    /// An ask's log batch is committed, or failed, or takes too long. A failure is no answer: what
    /// became of the write is not known, and the coordinator's deadline says so.
    pub(super) fn replicated(&self, write: &ReplicaWrite, stored: bool) {
        let ticket = write.ticket;
        if let Some((target, partition)) = write.hinted {
            self.note_again(target, partition);
        }
        if stored {
            self.tell(ticket, Answer::Stored);
        } else {
            self.tell_control(ControlMessage::Dropped { ticket });
        }
    }

    /// Hands out this replica's copy of a key.
    fn copy(self: &Rc<Self>, ticket: u64, space: &Space<E>, key: Vec<u8>, inline: u32) {
        let answer = move |stored: Option<&[u8]>| match stored {
            Some(object) if object.len() > inline as usize => Answer::Digest(digest(object)),
            stored => Answer::Copy(stored.map(<[u8]>::to_vec)),
        };
        match space.tree.get_cached(&key, answer) {
            Ok(CachedRead::Done(answer)) => self.tell(ticket, answer),
            Ok(CachedRead::NeedsIo(answer)) => {
                let (shard, tree) = (Rc::clone(self), space.tree.clone());
                self.env.spawn(TaskClass::Foreground, async move {
                    match tree.get(&key).await {
                        Ok(stored) => shard.tell(ticket, answer(stored.as_deref())),
                        Err(error) => {
                            let refusal = refusal(&Failure::of_engine(&error));
                            shard.tell(ticket, Answer::Refused(refusal));
                        }
                    }
                });
            }
            Err(error) => {
                let refusal = refusal(&Failure::of_engine(&error));
                self.tell(ticket, Answer::Refused(refusal));
            }
        }
    }

    /// Lists a stretch of a partition's keys.
    async fn keys(
        &self,
        space: &Space<E>,
        partition: PartitionId,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Answer, Refusal> {
        let failed = |error: &coronet_lsm::Error| refusal(&Failure::of_engine(error));
        let mut start = partition.0.to_be_bytes().to_vec();
        start.extend_from_slice(after.unwrap_or(prefix));
        if after.is_some() {
            start.push(0); // the next key there can be
        }
        // Not beyond the prefix: filters can tell only of keys that all begin with it.
        let mut all = Vec::new();
        Self::engine_key(partition, prefix, &mut all);
        let range = ScanRange { start, ..ScanRange::prefix(&all) };
        let mut scan = space.tree.scan(range).await.map_err(|error| failed(&error))?;
        let (mut entries, mut bytes, mut seen) = (Vec::new(), 0, 0_u32);
        let complete = loop {
            if entries.len() >= limit as usize || bytes >= LIST_BYTES {
                break false;
            }
            seen = seen.wrapping_add(1);
            if seen.is_multiple_of(COOP_ENTRIES) {
                self.env.coop().await;
            }
            let next = scan.next().await.map_err(|error| failed(&error))?;
            let Some((engine_key, stored)) = next else { break true };
            let key = &engine_key[2..];
            if !key.starts_with(prefix) {
                break true;
            }
            let object = ObjectRef::decode(&stored).map_err(|_| Refusal::Corrupt)?;
            let outline = outline(&object).map_err(|_| Refusal::Corrupt)?;
            bytes += key.len() + outline.len();
            entries.push(ListedKey { key: key.to_vec(), outline });
        };
        Ok(Answer::Keys { entries, complete })
    }

    fn tell(&self, ticket: u64, answer: Answer) {
        self.tell_control(ControlMessage::Answer { ticket, answer });
    }
}

fn refusal_of_change(error: &ChangeError) -> Refusal {
    match error {
        ChangeError::TooManyVersions => Refusal::TooManyVersions,
        ChangeError::Exhausted => Refusal::Fenced,
        ChangeError::Stored(_) => Refusal::Corrupt,
    }
}

/// A failure in the words of replicas.
fn refusal(failure: &Failure) -> Refusal {
    use coronet_net::ErrorCode;
    match failure.code {
        ErrorCode::Busy => Refusal::Busy,
        ErrorCode::DiskFull => Refusal::DiskFull,
        ErrorCode::ShuttingDown => Refusal::ShuttingDown,
        ErrorCode::KeyTooLarge | ErrorCode::ValueTooLarge => Refusal::Invalid,
        _ => Refusal::Corrupt,
    }
}
