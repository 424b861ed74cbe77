//! Changes of one key, one after the other.
//!
//! Between reading and writing a key nobody else may write it. When its versions are in memory
//! both happen in one go; otherwise the key is locked, and changes of it queue, while they are
//! read from disk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use coronet_lsm::env::TaskClass;
use coronet_lsm::{CachedRead, Error};
use coronet_probe::{Mark, mark};
use coronet_ring::KeyspaceId;

use super::spaces::Space;
use super::{Inner, Map};
use crate::node::NodeEnv;

/// A change of a key: gets its engine key and its stored object, returns the object that is now
/// stored in its place, or `None` when it changed nothing.
pub(super) type Turn<E> =
    Box<dyn FnOnce(&Inner<E>, &[u8], Result<Option<&[u8]>, &Error>) -> Option<Vec<u8>>>;

/// A keyspace and an engine key.
type LockKey = (KeyspaceId, Vec<u8>);

/// Engine keys whose versions are being read from disk, with the changes that wait for them.
pub(super) struct KeyLocks<E: NodeEnv> {
    queues: RefCell<Map<LockKey, VecDeque<Turn<E>>>>,
}

impl<E: NodeEnv> Default for KeyLocks<E> {
    fn default() -> Self {
        KeyLocks { queues: RefCell::new(super::map()) }
    }
}

impl<E: NodeEnv> KeyLocks<E> {
    /// Whether changes of this key have to queue.
    pub(super) fn is_locked(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        let queues = self.queues.borrow();
        !queues.is_empty() && queues.contains_key(&(keyspace, key.to_vec()))
    }

    /// Queues a change of a locked key; gives it back when the key is not locked.
    pub(super) fn join(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        turn: Turn<E>,
    ) -> Result<(), Turn<E>> {
        let mut queues = self.queues.borrow_mut();
        if queues.is_empty() {
            return Err(turn);
        }
        match queues.get_mut(&(keyspace, key.to_vec())) {
            Some(queue) => {
                mark(Mark::KeyLocked);
                queue.push_back(turn);
                Ok(())
            }
            None => Err(turn),
        }
    }
}

impl<E: NodeEnv> Inner<E> {
    /// Runs a change now or, when its key is locked or its versions are on disk, later.
    pub(super) fn change(self: &Rc<Self>, space: &Space<E>, key: Vec<u8>, turn: Turn<E>) {
        let Err(turn) = self.locks.join(space.id, &key, turn) else { return };
        let read = space.tree.get_latest_cached(&key, |stored| stored.map(<[u8]>::to_vec));
        match read {
            Ok(CachedRead::Done(stored)) => {
                turn(self, &key, Ok(stored.as_deref()));
            }
            Ok(CachedRead::NeedsIo(_)) => self.lock_and_read(space, key, turn),
            Err(error) => {
                turn(self, &key, Err(&error));
            }
        }
    }

    /// Locks a key, reads its versions from disk and runs what queued meanwhile.
    pub(super) fn lock_and_read(self: &Rc<Self>, space: &Space<E>, key: Vec<u8>, first: Turn<E>) {
        let lock = (space.id, key);
        self.locks.queues.borrow_mut().insert(lock.clone(), VecDeque::from([first]));
        let (shard, tree) = (Rc::clone(self), space.tree.clone());
        self.env.spawn(TaskClass::Foreground, async move {
            let read = tree.get_latest(&lock.1).await;
            // From here to the end nothing waits: the key cannot change under the loop.
            let queue = shard.locks.queues.borrow_mut().remove(&lock).unwrap_or_default();
            let (_, key) = lock;
            match read {
                Ok(mut stored) => {
                    for turn in queue {
                        let now = turn(&shard, &key, Ok(stored.as_deref()));
                        stored = now.or(stored);
                    }
                }
                Err(error) => {
                    for turn in queue {
                        turn(&shard, &key, Err(&error));
                    }
                }
            }
        });
    }
}
