//! The memtables of one keyspace: the active one, and frozen ones that wait for their flush.

use crate::memtable::ChunkPool;
use crate::version::Written;
use crate::write::Record;
use crate::{Memtable, Options, Seq, key_hash};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// A memtable that takes no more writes.
#[derive(Clone)]
pub(crate) struct Frozen {
    /// The memtable.
    pub table: Rc<RefCell<Memtable>>,
    /// Its oldest entry.
    pub first: Seq,
    /// Its newest entry.
    pub last: Seq,
    /// When its entries were written.
    pub written: Written,
}

/// What the active memtable holds.
#[derive(Clone, Copy)]
struct Span {
    /// Its oldest entry.
    first: Seq,
    /// Its newest entry.
    last: Seq,
    /// When its entries were written, as far as the log said it.
    written: Written,
    /// Something was written into it that was not replayed: just now, as far as this knows.
    is_live: bool,
}

/// All memtables of a keyspace.
pub(crate) struct Memory {
    active: Rc<RefCell<Memtable>>,
    /// What is in the active memtable, unless it is empty.
    active_span: Option<Span>,
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
    /// of its key, `wall_micros` reads the wall clock.
    pub fn insert(
        &mut self,
        seq: Seq,
        record: &Record<'_>,
        hash: u64,
        wall_micros: impl FnOnce() -> u64,
    ) {
        self.active.borrow_mut().insert(seq, record.kind, record.key, hash, record.value);
        let span = self.active_span.get_or_insert_with(|| {
            let now = wall_micros();
            let written = Written { oldest: now, newest: now };
            Span { first: seq, last: seq, written, is_live: true }
        });
        (span.last, span.is_live) = (seq, true);
    }

    /// Inserts a replayed record that was written at `written` (zero: nobody knows), freezing
    /// memtables on the way that are full, or whose entries would be further apart than
    /// `most_age`. Wall clock `now`, both in microseconds since the Unix epoch.
    pub fn replay(
        &mut self,
        seq: Seq,
        record: &Record<'_>,
        (written, now): (u64, u64),
        most_age: Option<Duration>,
        options: &Options,
    ) {
        // An entry of unknown age is as old as can be, and will be as young as can be.
        let written = Written { oldest: written, newest: if written == 0 { now } else { written } };
        let since = self.active_span.map_or(written.oldest, |span| span.written.oldest);
        let apart = Duration::from_micros(written.oldest.saturating_sub(since));
        if most_age.is_some_and(|most| apart >= most) && self.frozen.len() < options.max_frozen {
            self.freeze(now);
        }
        let hash = key_hash(record.key);
        self.active.borrow_mut().insert(seq, record.kind, record.key, hash, record.value);
        let span = Span { first: seq, last: seq, written, is_live: false };
        let span = self.active_span.map_or(span, |before| Span {
            first: before.first,
            written: before.written.cover(written),
            ..span
        });
        self.active_span = Some(span);
        if self.active_bytes() >= options.memtable_bytes {
            self.freeze(now);
        }
    }

    /// Freezes the active memtable unless it is empty; `now` is the wall clock, microseconds since
    /// the Unix epoch.
    pub fn freeze(&mut self, now: u64) {
        if let Some(Span { first, last, written, is_live }) = self.active_span.take() {
            let successor = self.active.borrow().successor();
            let table = std::mem::replace(&mut self.active, Rc::new(RefCell::new(successor)));
            let until = if is_live { written.newest.max(now) } else { written.newest };
            let written = Written { oldest: written.oldest, newest: until };
            self.frozen.push_back(Frozen { table, first, last, written });
        }
    }

    /// Freezes the active memtable if its oldest entry is at least so old.
    pub fn freeze_aged(&mut self, most_age: Option<Duration>, now: u64) {
        if most_age.is_some_and(|most| self.active_age(now).is_some_and(|age| age >= most)) {
            self.freeze(now);
        }
    }

    /// How old the oldest entry of the active memtable is, by the wall clock `now` in microseconds
    /// since the Unix epoch; `None` when it is empty.
    pub fn active_age(&self, now: u64) -> Option<Duration> {
        let span = self.active_span.as_ref()?;
        Some(Duration::from_micros(now.saturating_sub(span.written.oldest)))
    }

    /// The oldest entry that will be in no table once the oldest frozen memtable is in one; with
    /// `flushing` false, that is in no table now.
    pub fn oldest_entry(&self, flushing: bool) -> Option<Seq> {
        let frozen = self.frozen.iter().skip(usize::from(flushing)).map(|frozen| frozen.first);
        frozen.chain(self.active_span.map(|span| span.first)).next()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntryKind, KeyspaceId};

    const MOST: Option<Duration> = Some(Duration::from_secs(10));
    const SECOND: u64 = 1_000_000;
    /// When the engine opened.
    const NOW: u64 = 1000 * SECOND;

    fn record() -> Record<'static> {
        let (key, value) = (&b"key"[..], &b"value"[..]);
        Record { keyspace: KeyspaceId::DEFAULT, kind: EntryKind::Put, key, value }
    }

    fn replayed(seconds: &[u64], most_age: Option<Duration>) -> Memory {
        let options = Options::tiny();
        let mut memory = Memory::new(ChunkPool::new(options.memtable_bytes));
        for (n, second) in seconds.iter().enumerate() {
            memory.replay(Seq(n as u64 + 1), &record(), (second * SECOND, NOW), most_age, &options);
        }
        memory
    }

    fn frozen(memory: &Memory) -> Vec<(u64, u64)> {
        let seconds = |frozen: &Frozen| {
            let Written { oldest, newest } = frozen.written;
            (oldest / SECOND, newest / SECOND)
        };
        memory.frozen.iter().map(seconds).collect()
    }

    #[test]
    fn replayed_entries_keep_their_age_and_share_a_memtable_only_with_their_like() {
        let mut memory = replayed(&[900, 905, 909, 910, 919, 990, 995], MOST);
        assert_eq!(frozen(&memory), [(900, 909), (910, 919)]);
        assert_eq!(memory.active_age(NOW), MOST);
        memory.freeze_aged(MOST, NOW - 1);
        assert_eq!(frozen(&memory).len(), 2);
        memory.freeze_aged(MOST, NOW);
        assert_eq!(frozen(&memory)[2..], [(990, 995)]);
        assert_eq!(memory.active_age(NOW), None);
        // Under another policy all ages go together.
        let mut memory = replayed(&[900, 950, 990], None);
        memory.freeze_aged(None, NOW);
        assert_eq!(frozen(&memory), []);
        memory.freeze(NOW);
        assert_eq!(frozen(&memory), [(900, 990)]);
    }

    /// What an older release left in the log.
    #[test]
    fn entries_of_unknown_age_are_old_enough_to_flush_and_not_to_go() {
        let mut memory = replayed(&[0, 0], MOST);
        memory.freeze_aged(MOST, NOW);
        assert_eq!(frozen(&memory), [(0, NOW / SECOND)]);
        let memory = replayed(&[0, 995], MOST);
        assert_eq!(frozen(&memory), [(0, NOW / SECOND)]);
        assert_eq!(memory.active_age(NOW), Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_is_written_is_dated_by_the_clock_even_where_it_goes_back() {
        let mut memory = replayed(&[995], MOST);
        memory.insert(Seq(2), &record(), key_hash(b"key"), || {
            unreachable!("the memtable has an oldest entry")
        });
        memory.freeze(NOW + 3 * SECOND);
        memory.insert(Seq(3), &record(), key_hash(b"key"), || NOW + 4 * SECOND);
        assert_eq!(memory.active_age(NOW), Some(Duration::ZERO));
        memory.freeze(NOW);
        assert_eq!(frozen(&memory), [(995, 1003), (1004, 1004)]);
    }
}
