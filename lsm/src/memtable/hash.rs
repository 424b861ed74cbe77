//! The memtable's hash index: key hash to record number, in one cache line most of the time.
//!
//! Open addressing with linear probing. The table is divided by the hash's top bits, so that
//! growing rehashes a small part and never stalls a write noticeably. A slot holds 32 bits of
//! the hash beside the number: probing touches no key that does not match.

use crate::prefetch::prefetch;

const PARTS: u32 = 64;
const FIRST_SLOTS: usize = 8;

#[derive(Debug, Default)]
struct Part {
    /// `hash low 32 bits << 32 | number + 1`; zero is empty. A power of two long.
    slots: Vec<u64>,
    used: usize,
}

#[derive(Debug)]
pub(super) struct HashIndex {
    parts: Vec<Part>,
    held: usize,
}

impl Default for HashIndex {
    fn default() -> Self {
        let parts: Vec<Part> = (0..PARTS).map(|_| Part::default()).collect();
        HashIndex { held: parts.capacity() * size_of::<Part>(), parts }
    }
}

fn part_of(hash: u64) -> usize {
    (hash >> (64 - PARTS.ilog2())) as usize
}

impl HashIndex {
    /// The number stored under `hash` for which `same` holds.
    pub fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let slots = &self.parts[part_of(hash)].slots;
        let mask = slots.len().checked_sub(1)?;
        let tag = hash as u32;
        let mut at = tag as usize & mask;
        loop {
            let slot = slots[at];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == tag && same(slot as u32 - 1) {
                return Some(slot as u32 - 1);
            }
            at = (at + 1) & mask;
        }
    }

    /// Asks for the memory that [`HashIndex::find`] looks at first.
    pub fn prefetch(&self, hash: u64) {
        let slots = &self.parts[part_of(hash)].slots;
        if let Some(mask) = slots.len().checked_sub(1) {
            prefetch(&slots[hash as u32 as usize & mask]);
        }
    }

    /// Adds a number that [`HashIndex::find`] did not find.
    pub fn insert(&mut self, hash: u64, number: u32) {
        let part = &mut self.parts[part_of(hash)];
        if (part.used + 1) * 4 > part.slots.len() * 3 {
            self.held += part.grow();
        }
        part.place((hash << 32) | u64::from(number + 1));
        part.used += 1;
    }

    pub fn held(&self) -> usize {
        self.held
    }
}

impl Part {
    fn place(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = (slot >> 32) as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Doubles the part; returns the additional bytes held.
    fn grow(&mut self) -> usize {
        let before = self.slots.len();
        let slots = vec![0; (before * 2).max(FIRST_SLOTS)];
        for slot in std::mem::replace(&mut self.slots, slots) {
            if slot != 0 {
                self.place(slot);
            }
        }
        (self.slots.len() - before) * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_inserted_even_when_hashes_collide() {
        let mut index = HashIndex::default();
        let hash = |n: u32| u64::from(n % 500).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 0..1000 {
            assert_eq!(index.find(hash(n), |m| m == n), None);
            index.insert(hash(n), n);
        }
        for n in 0..1000 {
            assert_eq!(index.find(hash(n), |m| m == n), Some(n));
        }
        let slots: usize = index.parts.iter().map(|p| p.slots.capacity()).sum();
        assert_eq!(index.held(), slots * 8 + PARTS as usize * size_of::<Part>());
    }
}
