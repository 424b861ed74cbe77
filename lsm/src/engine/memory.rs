//! The active memtable and the frozen ones that wait for their flush.

use crate::memtable::ChunkPool;
use crate::write::{Record, Records};
use crate::{Memtable, Options, Seq, WriteBatch, key_hash};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// A memtable that takes no more writes.
#[derive(Clone)]
pub(crate) struct Frozen {
    /// The memtable.
    pub table: Rc<RefCell<Memtable>>,
    /// Its newest entry.
    pub last: Seq,
}

/// All memtables.
pub(crate) struct Memory {
    active: Rc<RefCell<Memtable>>,
    active_last: Seq,
    /// Oldest first.
    frozen: VecDeque<Frozen>,
}

impl Memory {
    /// One empty memtable. Beside what the memtables hold, up to one memtable's memory is kept for
    /// the next ones.
    pub fn new(options: &Options) -> Self {
        let active = Memtable::pooled(ChunkPool::new(options.memtable_bytes));
        let active = Rc::new(RefCell::new(active));
        Memory { active, active_last: Seq(0), frozen: VecDeque::new() }
    }

    /// Inserts a checked batch whose first entry has `first`.
    pub fn insert_batch(&mut self, first: Seq, batch: &WriteBatch) {
        let mut active = self.active.borrow_mut();
        let mut seq = first.0;
        // The batch encoded these records itself; there is nothing to be wrong in them.
        for record in Records::new(batch.encoded()).flatten() {
            active.insert(Seq(seq), record.kind, record.key, key_hash(record.key), record.value);
            seq += 1;
        }
        self.active_last = Seq(seq - 1);
    }

    /// Inserts a replayed record, freezing full memtables on the way.
    pub fn replay(&mut self, seq: Seq, record: Record<'_>, options: &Options) {
        let hash = key_hash(record.key);
        self.active.borrow_mut().insert(seq, record.kind, record.key, hash, record.value);
        self.active_last = seq;
        if self.active_bytes() >= options.memtable_bytes {
            self.freeze();
        }
    }

    /// Freezes the active memtable unless it is empty.
    pub fn freeze(&mut self) {
        if self.active.borrow().is_empty() {
            return;
        }
        let successor = self.active.borrow().successor();
        let table = std::mem::replace(&mut self.active, Rc::new(RefCell::new(successor)));
        self.frozen.push_back(Frozen { table, last: self.active_last });
    }

    /// The memtable to flush next.
    pub fn oldest_frozen(&self) -> Option<Frozen> {
        self.frozen.front().cloned()
    }

    /// Newest entry of all frozen memtables.
    pub fn frozen_through(&self) -> Option<Seq> {
        self.frozen.back().map(|frozen| frozen.last)
    }

    /// Number of frozen memtables.
    pub fn frozen_len(&self) -> usize {
        self.frozen.len()
    }

    /// The oldest frozen memtable is in a table now.
    pub fn drop_flushed(&mut self) {
        self.frozen.pop_front();
    }

    /// Memory of the active memtable.
    pub fn active_bytes(&self) -> usize {
        self.active.borrow().bytes()
    }

    /// Memory of all memtables.
    pub fn bytes(&self) -> usize {
        let frozen: usize = self.frozen.iter().map(|frozen| frozen.table.borrow().bytes()).sum();
        frozen + self.active_bytes()
    }

    /// Every memtable, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Rc<RefCell<Memtable>>> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev().map(|frozen| &frozen.table))
    }
}
