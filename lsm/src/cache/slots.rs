//! Which blocks stay: two queues and a memory of what left (the S3-FIFO scheme of Yang et al.,
//! SOSP 2023).
//!
//! New blocks go into a small queue, a tenth of the budget. One that is asked for again before its
//! end moves to the main queue, the others leave: a scan pushes out only what nobody uses. The
//! main queue gives blocks that were used another round. A block that comes back soon after it
//! left goes to the main queue at once.
//!
//! Blocks that were written a moment ago and not read yet ("warm") are no scan: they go to the main
//! queue, as long as enough of them are asked for before they leave. Under a load that never
//! reads what it writes only samples are let in, into the small one: copying all of them would be
//! several percent of what such a write costs.
//!
//! Being found writes one byte and moves nothing. A reader notes where it found a block; the next
//! time one comparison tells whether it is still there.

use super::BlockKey;
use crate::prefetch::prefetch;
use ahash::RandomState;
use std::cell::Cell;
use std::collections::VecDeque;

/// Uses that are counted.
const MOST_USES: u8 = 3;
/// Uses that a block needs in the small queue to get into the main one.
const ENOUGH_USES: u8 = 1;
/// Share of the small queue in the budget: one of so many.
const SMALL_SHARE: u64 = 10;
/// Holes in the queues from which they are looked for, beyond half of what is there.
const SWEEP_AT: usize = 256;
/// Warm blocks go to the main queue while at least one of so many is used before it leaves.
const WARM_WASTE: u32 = 8;
/// While they do not, one of so many is let in, to see whether that has changed.
const WARM_SAMPLES: u32 = 16;
/// Warm blocks whose fate is remembered, more or less.
const WARM_MEMORY: u32 = 1024;
/// Cost of a slot beside what it holds: itself, its places in queue, map and memory of the gone.
const OVERHEAD: u64 = 192;

// Their seeds are fixed, and nobody walks through them.
#[allow(clippy::disallowed_types)]
type Map = std::collections::HashMap<BlockKey, u32, RandomState>;
#[allow(clippy::disallowed_types)]
type Set = std::collections::HashSet<BlockKey, RandomState>;

/// A block in memory; on one cache line when `B` is small enough.
#[derive(Debug)]
#[repr(align(64))]
struct Slot<B> {
    key: BlockKey,
    block: Option<B>,
    weight: u32,
    uses: Cell<u8>,
    /// It came warm, and whether it was used is not counted yet.
    warm: bool,
}

/// Blocks, or whatever stands for them, within a budget of bytes.
#[derive(Debug)]
pub(super) struct Slots<B> {
    slots: Vec<Slot<B>>,
    free: Vec<u32>,
    by_key: Map,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    small_bytes: u64,
    bytes: u64,
    budget: u64,
    /// Slots in the queues whose block was taken out.
    holes: usize,
    /// Blocks that left the small queue, oldest first, at most as many as the main queue has.
    gone: VecDeque<BlockKey>,
    gone_keys: Set,
    warm: WarmFates,
}

/// What became of warm blocks, the last ones counting most.
#[derive(Debug)]
struct WarmFates {
    used: u32,
    wasted: u32,
    /// Blocks that were not let in since the last one that was.
    refused: u32,
}

impl Default for WarmFates {
    /// The first few prove nothing.
    fn default() -> Self {
        WarmFates { used: WARM_MEMORY / 64, wasted: 0, refused: 0 }
    }
}

impl WarmFates {
    fn count(&mut self, used: bool) {
        let fate = if used { &mut self.used } else { &mut self.wasted };
        *fate += 1;
        if self.used + self.wasted >= WARM_MEMORY {
            (self.used, self.wasted) = (self.used / 2, self.wasted / 2);
        }
    }

    fn worth_keeping(&self) -> bool {
        self.used * WARM_WASTE >= self.wasted
    }

    /// Whether the next one is let in: all while they are of use, otherwise samples.
    fn admits(&mut self) -> bool {
        let admits = self.worth_keeping() || self.refused + 1 >= WARM_SAMPLES;
        self.refused = if admits { 0 } else { self.refused + 1 };
        admits
    }
}

impl<B> Slots<B> {
    /// No blocks, and room for `budget` bytes of them.
    pub fn new(budget: u64) -> Self {
        // Fixed seeds: the simulator replays a history byte for byte.
        let hasher = || RandomState::with_seeds(1, 2, 3, 4);
        Slots {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: Map::with_hasher(hasher()),
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_bytes: 0,
            bytes: 0,
            budget,
            holes: 0,
            gone: VecDeque::new(),
            gone_keys: Set::with_hasher(hasher()),
            warm: WarmFates::default(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes allowed.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Allows another number of bytes; blocks leave until they fit.
    pub fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
        while self.bytes > budget {
            self.evict();
        }
    }

    /// The block of this key, and whether it was used since it came or changed queues. `note` is
    /// the caller's note on where it was the last time.
    pub fn get(&self, key: BlockKey, note: &Cell<u32>) -> Option<(&B, bool)> {
        let slot = self.find(key, note)?;
        let uses = slot.uses.get();
        slot.uses.set((uses + 1).min(MOST_USES));
        Some((slot.block.as_ref()?, uses > 0))
    }

    /// [`Slots::get`] that does not count as use.
    pub fn peek(&self, key: BlockKey, note: &Cell<u32>) -> Option<&B> {
        self.find(key, note)?.block.as_ref()
    }

    /// Asks for the memory of the slot that `note` names.
    pub fn prefetch(&self, note: &Cell<u32>) {
        if let Some(slot) = self.slots.get(note.get() as usize) {
            prefetch(slot);
        }
    }

    fn find(&self, key: BlockKey, note: &Cell<u32>) -> Option<&Slot<B>> {
        let noted = self.slots.get(note.get() as usize);
        if let Some(slot) = noted.filter(|slot| slot.key == key && slot.block.is_some()) {
            return Some(slot);
        }
        let at = *self.by_key.get(&key)?;
        note.set(at);
        self.slots.get(at as usize)
    }

    /// Puts a block of so many bytes in that somebody asked for; others leave until it fits.
    pub fn insert(&mut self, key: BlockKey, block: B, bytes: usize) {
        self.put(key, block, bytes, false);
    }

    /// Whether a block that is about to be written should be copied for [`Slots::insert_warm`].
    pub fn admits_warm(&mut self) -> bool {
        self.warm.admits()
    }

    /// [`Slots::insert`] of a block that was just written, and that nobody asked for yet.
    pub fn insert_warm(&mut self, key: BlockKey, block: B, bytes: usize) {
        self.put(key, block, bytes, true);
    }

    fn put(&mut self, key: BlockKey, block: B, bytes: usize, warm: bool) {
        let weight = bytes as u64 + OVERHEAD;
        if weight > self.budget.min(u64::from(u32::MAX)) || self.by_key.contains_key(&key) {
            return;
        }
        // Asked before others leave and are remembered in its stead.
        let main = self.gone_keys.remove(&key) || (warm && self.warm.worth_keeping());
        while self.bytes + weight > self.budget {
            self.evict();
        }
        let slot =
            Slot { key, block: Some(block), weight: weight as u32, uses: Cell::new(0), warm };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.by_key.insert(key, at);
        self.bytes += weight;
        if main {
            self.main.push_back(at);
        } else {
            self.small.push_back(at);
            self.small_bytes += weight;
        }
    }

    /// Takes the block of this key out.
    pub fn remove(&mut self, key: BlockKey) {
        let Some(at) = self.by_key.get(&key).copied() else { return };
        self.empty(at);
        // Its place in a queue stays until it comes to the front, or there are many of them.
        self.holes += 1;
        if self.holes > SWEEP_AT + self.by_key.len() / 2 {
            self.sweep();
        }
    }

    /// Takes the places of what was taken out from the queues.
    fn sweep(&mut self) {
        let Slots { slots, free, small, main, small_bytes, .. } = self;
        let mut stays = |at: &u32, bytes: Option<&mut u64>| {
            let slot = &slots[*at as usize];
            if slot.block.is_none() {
                free.push(*at);
                bytes.into_iter().for_each(|bytes| *bytes -= u64::from(slot.weight));
            }
            slot.block.is_some()
        };
        small.retain(|at| stays(at, Some(small_bytes)));
        main.retain(|at| stays(at, None));
        self.holes = 0;
    }

    /// Lets one block go, or moves one from queue to queue.
    fn evict(&mut self) {
        if self.small_bytes > self.budget / SMALL_SHARE || self.main.is_empty() {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        let Some(at) = self.small.pop_front() else { return };
        let slot = &mut self.slots[at as usize];
        self.small_bytes -= u64::from(slot.weight);
        if slot.block.is_none() {
            return self.fill_hole(at);
        }
        if std::mem::take(&mut slot.warm) {
            self.warm.count(slot.uses.get() > 0);
        }
        if slot.uses.get() >= ENOUGH_USES {
            slot.uses.set(0);
            self.main.push_back(at);
            return;
        }
        let key = slot.key;
        self.let_go(at);
        self.gone.push_back(key);
        self.gone_keys.insert(key);
        while self.gone.len() > self.main.len().max(1) {
            if let Some(oldest) = self.gone.pop_front() {
                self.gone_keys.remove(&oldest);
            }
        }
    }

    fn evict_main(&mut self) {
        let Some(at) = self.main.pop_front() else { return };
        let slot = &mut self.slots[at as usize];
        if slot.block.is_none() {
            return self.fill_hole(at);
        }
        if std::mem::take(&mut slot.warm) {
            self.warm.count(slot.uses.get() > 0);
        }
        let uses = &slot.uses;
        match uses.get() {
            0 => self.let_go(at),
            used => {
                uses.set(used - 1);
                self.main.push_back(at);
            }
        }
    }

    /// Lets the block of a slot go that is in no queue any more.
    fn let_go(&mut self, at: u32) {
        self.empty(at);
        self.free.push(at);
    }

    fn empty(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        self.by_key.remove(&slot.key);
        self.bytes -= u64::from(slot.weight);
        slot.block = None;
    }

    /// The slot of a block that was taken out has left its queue.
    fn fill_hole(&mut self, at: u32) {
        self.holes -= 1;
        self.free.push(at);
    }
}

#[cfg(test)]
mod tests;
