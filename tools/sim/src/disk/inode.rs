//! The bytes of one file: what reads see, what is durable, and the changes between the two.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::rng::Rng;

/// Unit in which a write can be torn, bytes.
pub const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

/// One file's bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last sync, with the number of each.
    pending: Vec<(u64, Change)>,
    changes: u64,
    /// Sectors that cannot be read.
    bad: BTreeSet<usize>,
    /// Open handles.
    pub(crate) open: u32,
}

/// How much of the un-synced changes of a file a power failure keeps.
enum Keep {
    /// Each sector by itself, with this chance per million.
    Sectors(u32),
    /// The first so many changes; the next one is torn.
    Prefix(usize),
}

impl Keep {
    fn draw(rng: &mut Rng, changes: usize) -> Self {
        match rng.below(8) {
            0 | 1 => Keep::Sectors(0),
            2 => Keep::Sectors(1_000_000),
            3 | 4 => Keep::Prefix(rng.index(changes + 1)),
            5 => Keep::Sectors(100_000),
            6 => Keep::Sectors(500_000),
            _ => Keep::Sectors(900_000),
        }
    }

    fn sector_chance(&self, position: usize) -> u32 {
        match self {
            Keep::Sectors(chance) => *chance,
            Keep::Prefix(kept) => match position.cmp(kept) {
                std::cmp::Ordering::Less => 1_000_000,
                std::cmp::Ordering::Equal => 500_000,
                std::cmp::Ordering::Greater => 0,
            },
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl Inode {
    pub(crate) fn len(&self) -> usize {
        self.content.len()
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    /// Number of the newest change: what a sync that starts now covers.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    fn change(&mut self, change: Change) {
        self.changes += 1;
        self.pending.push((self.changes, change));
    }

    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return; // a torn write of which nothing arrived must not grow the file
        }
        put(&mut self.content, offset, data);
        // The device puts what is written on another sector.
        self.bad.retain(|at| !(offset..offset + data.len()).contains(&(at * SECTOR)));
        self.change(Change::Write { offset, data: data.to_vec() });
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        self.content.resize(len, 0);
        self.change(Change::SetLen(len));
    }

    /// Replaces the bytes on the device behind everybody's back: durable at once.
    pub(crate) fn overwrite(&mut self, bytes: Vec<u8>) {
        self.pending.clear();
        self.durable.clone_from(&bytes);
        self.content = bytes;
    }

    /// The sector with this byte cannot be read from now on, until it is written again.
    pub(crate) fn break_sector(&mut self, offset: usize) {
        self.bad.insert(offset / SECTOR);
    }

    /// Every sector can be read again.
    pub(crate) fn mend(&mut self) {
        self.bad.clear();
    }

    /// Whether a sector that these bytes touch cannot be read.
    pub(crate) fn is_bad(&self, bytes: Range<usize>) -> bool {
        self.bad.range(bytes.start / SECTOR..bytes.end.div_ceil(SECTOR)).next().is_some()
    }

    /// Changes one byte on the device behind everybody's back.
    pub(crate) fn flip(&mut self, offset: usize, mask: u8) {
        for bytes in [&mut self.content, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
            }
        }
        for (_, change) in &mut self.pending {
            if let Change::Write { offset: start, data } = change
                && let Some(byte) = offset.checked_sub(*start).and_then(|at| data.get_mut(at))
            {
                *byte ^= mask;
            }
        }
    }

    /// Makes the changes up to number `upto` durable.
    pub(crate) fn sync(&mut self, upto: u64) {
        let split = self.pending.partition_point(|(number, _)| *number <= upto);
        for (_, change) in self.pending.drain(..split) {
            match change {
                Change::Write { offset, data } => put(&mut self.durable, offset, &data),
                Change::SetLen(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// A failed sync: some of the covered changes are dropped for good although reads still show
    /// them (the kernel marks the pages clean).
    pub(crate) fn sync_failed(&mut self, upto: u64, rng: &mut Rng) {
        self.pending.retain(|(number, _)| *number > upto || rng.chance(500_000));
    }

    /// Power failure: the un-synced changes survive in part, torn at sectors.
    pub(crate) fn power_failure(&mut self, rng: &mut Rng) {
        let keep = Keep::draw(rng, self.pending.len());
        for (position, (_, change)) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let chance = keep.sector_chance(position);
            match change {
                Change::Write { offset, data } => {
                    for (at, sector) in data.chunks(SECTOR).enumerate() {
                        if rng.chance(chance) {
                            put(&mut self.durable, offset + at * SECTOR, sector);
                        }
                    }
                }
                Change::SetLen(len) => {
                    if rng.chance(chance) {
                        self.durable.resize(len, 0);
                    }
                }
            }
        }
        // The length may have reached the device although the data did not.
        if self.content.len() > self.durable.len() && rng.chance(250_000) {
            self.durable.resize(self.content.len(), 0);
        }
        self.content.clone_from(&self.durable);
        self.open = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sync_covers_what_was_written_before_it_started() {
        let mut inode = Inode::default();
        inode.write(0, &[1; 512]);
        let point = inode.changes();
        inode.write(512, &[2; 512]);
        inode.sync(point);
        assert_eq!(inode.durable, vec![1; 512]);
        assert_eq!(inode.len(), 1024);
    }

    #[test]
    fn a_bad_sector_stays_until_it_is_written_or_mended() {
        let mut inode = Inode::default();
        inode.write(0, &[1; 2048]);
        for offset in [600, 1500] {
            inode.break_sector(offset);
        }
        assert!(inode.is_bad(0..513) && !inode.is_bad(0..512) && !inode.is_bad(1536..2048));
        inode.write(512, &[2; 512]);
        assert!(!inode.is_bad(0..1024) && inode.is_bad(1024..1536));
        inode.mend();
        assert!(!inode.is_bad(0..2048));
    }

    #[test]
    fn power_failure_tears_at_sectors_and_keeps_synced_bytes() {
        let (mut torn, mut lost, mut kept) = (false, false, false);
        for seed in 0..200 {
            let mut inode = Inode::default();
            inode.write(0, &[1; 4096]);
            inode.sync(inode.changes());
            inode.write(0, &[2; 4096]);
            inode.power_failure(&mut Rng::new(seed));
            let sectors: Vec<u8> = inode.content().chunks(SECTOR).map(|s| s[0]).collect();
            assert!(inode.content().chunks(SECTOR).all(|s| s.iter().all(|b| *b == s[0])));
            assert!(sectors.iter().all(|b| *b == 1 || *b == 2));
            torn |= sectors.contains(&1) && sectors.contains(&2);
            lost |= !sectors.contains(&2);
            kept |= !sectors.contains(&1);
        }
        assert!(torn && lost && kept);
    }

    #[test]
    fn failed_sync_may_forget_writes_that_a_later_sync_would_cover() {
        let mut forgotten = false;
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let mut inode = Inode::default();
            inode.write(0, &[1; 512]);
            inode.sync_failed(inode.changes(), &mut rng);
            inode.sync(inode.changes());
            assert_eq!(inode.content(), [1; 512]);
            forgotten |= inode.durable.is_empty();
        }
        assert!(forgotten);
    }
}
