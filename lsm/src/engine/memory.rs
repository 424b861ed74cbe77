//! The memtables of one keyspace: the active one, and frozen ones that wait for their flush.

use crate::memtable::ChunkPool;
use crate::write::Record;
use crate::{Memtable, Options, Seq, key_hash};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// A memtable that takes no more writes.
#[derive(Clone)]
pub(crate) struct Frozen {
    /// The memtable.
    pub table: Rc<RefCell<Memtable>>,
    /// Its oldest entry.
    pub first: Seq,
    /// Its newest entry.
    pub last: Seq,
}

/// All memtables of a keyspace.
pub(crate) struct Memory {
    active: Rc<RefCell<Memtable>>,
    /// Oldest and newest entry of the active memtable, unless it is empty.
    active_span: Option<(Seq, Seq)>,
    /// Oldest first.
    frozen: VecDeque<Frozen>,
}

impl Memory {
    /// One empty memtable, which takes memory from a pool and leaves it there, like those that
    /// follow it.
    pub fn new(pool: Rc<ChunkPool>) -> Self {
        let active = Memtable::pooled(pool);
        let active = Rc::new(RefCell::new(active));
        Memory { active, active_span: None, frozen: VecDeque::new() }
    }

    /// Inserts a record of a checked batch, whose sequence numbers rise; `hash` is [`key_hash`]
    /// of its key.
    pub fn insert(&mut self, seq: Seq, record: &Record<'_>, hash: u64) {
        self.active.borrow_mut().insert(seq, record.kind, record.key, hash, record.value);
        let (first, _) = self.active_span.unwrap_or((seq, seq));
        self.active_span = Some((first, seq));
    }

    /// Inserts a replayed record, freezing full memtables on the way.
    pub fn replay(&mut self, seq: Seq, record: &Record<'_>, options: &Options) {
        self.insert(seq, record, key_hash(record.key));
        if self.active_bytes() >= options.memtable_bytes {
            self.freeze();
        }
    }

    /// Freezes the active memtable unless it is empty.
    pub fn freeze(&mut self) {
        if let Some((first, last)) = self.active_span.take() {
            let successor = self.active.borrow().successor();
            let table = std::mem::replace(&mut self.active, Rc::new(RefCell::new(successor)));
            self.frozen.push_back(Frozen { table, first, last });
        }
    }

    /// The oldest entry that will be in no table once the oldest frozen memtable is in one; with
    /// `flushing` false, that is in no table now.
    pub fn oldest_entry(&self, flushing: bool) -> Option<Seq> {
        let frozen = self.frozen.iter().skip(usize::from(flushing)).map(|frozen| frozen.first);
        frozen.chain(self.active_span.map(|(first, _)| first)).next()
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
