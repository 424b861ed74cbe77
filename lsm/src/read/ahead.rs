//! Looking ahead: what a group of point reads will need is on its way into the processor's caches
//! before the first of them is executed.
//!
//! A read goes to a row of the cache; or hash slot, record, value; or filter, index, block, entry.
//! Each step takes the whole group one place further, so that the waits for memory overlap. The
//! rows themselves come while others are executed: a processor has only so many lines on their way
//! at once, and waits when it asks for more. Nothing is answered here and nothing changes; a read
//! that was not looked ahead to, or no longer finds what was there, is slower and no less right.

use super::get::candidates;
use crate::cache::Step;
use crate::engine::Shared;
use crate::env::Env;
use crate::key_hash;
use crate::table::Table;
use crate::version::Version;

/// Reads looked ahead to at once: what they touch must fit the first-level cache.
const GROUP: usize = 16;
/// Rows that are on their way at once.
const ROWS: usize = 3;

/// What is still to be asked for while the reads of a group are executed:
/// [`Engine::prefetch_next`](crate::Engine::prefetch_next).
#[derive(Debug, Default)]
pub struct Ahead {
    /// The hash of each key that seems to have a row, zero for the others.
    rows: [u64; GROUP],
}

/// How far one read was followed.
struct Trail<'a, E: Env> {
    key: &'a [u8],
    hash: u64,
    /// The memtable, from the newest on, and the record there.
    record: Option<(usize, u32)>,
    /// The table that may have the key, and the block.
    table: Option<(&'a Table<E>, usize)>,
}

impl<E: Env> Shared<E> {
    /// Brings what point reads of these keys need closer. For keys that are read or written right
    /// afterwards; costs time when they are not.
    pub fn prefetch(&self, keys: &[&[u8]]) -> Ahead {
        let ahead = self.versions.with(|version| {
            let mut trails: [Option<Trail<'_, E>>; GROUP] = std::array::from_fn(|n| {
                let key = *keys.get(n).filter(|key| !key.is_empty())?;
                Some(Trail { key, hash: key_hash(key), record: None, table: None })
            });
            let mut ahead = Ahead::default();
            if self.leave_to_rows(&mut trails, &mut ahead) {
                self.follow(version, &mut trails);
            }
            ahead
        });
        for n in 0..ROWS {
            self.prefetch_row(&ahead, n);
        }
        ahead
    }

    /// Asks for what a read somewhat behind the `n`th of the group needs, which is executed next.
    pub fn prefetch_next(&self, ahead: &Ahead, n: usize) {
        self.prefetch_row(ahead, n + ROWS);
    }

    fn prefetch_row(&self, ahead: &Ahead, n: usize) {
        if let Some(hash) = ahead.rows.get(n).filter(|hash| **hash != 0) {
            self.cache.rows().prefetch_row(self.space.get(), *hash);
        }
    }

    /// Takes the keys away that seem to be in the cache as rows. Returns whether any are left.
    fn leave_to_rows(&self, trails: &mut [Option<Trail<'_, E>>; GROUP], ahead: &mut Ahead) -> bool {
        let (rows, space) = (self.cache.rows(), self.space.get());
        trails.iter().flatten().for_each(|trail| rows.prefetch_line(space, trail.hash));
        let mut left = false;
        for (trail, row) in trails.iter_mut().zip(&mut ahead.rows) {
            if let Some(found) = trail.take_if(|trail| rows.prefetch_head(space, trail.hash)) {
                *row = found.hash;
            }
            left |= trail.is_some();
        }
        left
    }

    fn follow<'a>(&self, version: &'a Version<E>, trails: &mut [Option<Trail<'a, E>>; GROUP]) {
        self.each_memtable(|_, memtable| {
            trails.iter().flatten().for_each(|trail| memtable.prefetch_slot(trail.hash));
        });
        for trail in trails.iter().flatten() {
            candidates(version, trail.key)
                .for_each(|(_, live)| live.table.table.prefetch_filter(trail.hash));
        }
        self.each_memtable(|n, memtable| {
            for trail in trails.iter_mut().flatten().filter(|trail| trail.record.is_none()) {
                trail.record = memtable.prefetch_key(trail.hash).map(|record| (n, record));
            }
        });
        for trail in trails.iter_mut().flatten().filter(|trail| trail.record.is_none()) {
            let mut live = candidates(version, trail.key);
            let table = live.find(|(_, live)| live.table.table.may_contain(trail.hash));
            trail.table = table.map(|(_, live)| (&*live.table.table, 0));
            trail.table.iter().for_each(|(table, _)| table.prefetch_index(trail.key));
        }
        self.each_record(trails, |memtable, record| memtable.prefetch_version(record));
        for trail in trails.iter_mut().flatten() {
            let found = trail.table.take();
            trail.table =
                found.and_then(|(table, _)| table.prefetch_note(trail.key).map(|i| (table, i)));
        }
        self.each_record(trails, |memtable, record| memtable.prefetch_value(record));
        for step in [Step::Slot, Step::Block, Step::Entry] {
            for trail in trails.iter().flatten() {
                if let Some((table, i)) = trail.table {
                    table.prefetch_block(&self.cache, step, i, trail.hash);
                }
            }
        }
    }

    /// Runs `f` on every memtable, newest first, with its place.
    fn each_memtable(&self, mut f: impl FnMut(usize, &crate::Memtable)) {
        let memory = self.memory.borrow();
        memory.newest_first().enumerate().for_each(|(n, memtable)| f(n, &memtable.borrow()));
    }

    /// Runs `f` on every record that was found.
    fn each_record(
        &self,
        trails: &[Option<Trail<'_, E>>; GROUP],
        mut f: impl FnMut(&crate::Memtable, u32),
    ) {
        self.each_memtable(|n, memtable| {
            let records = trails.iter().flatten().filter_map(|trail| trail.record);
            records.filter(|(m, _)| *m == n).for_each(|(_, record)| f(memtable, record));
        });
    }
}
