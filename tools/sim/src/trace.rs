//! The running hash over everything that happened in a simulation.

use xxhash_rust::xxh3::Xxh3;

/// What is folded into the trace. The numbers are part of what makes two hashes comparable.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tag {
    Spawn = 1,
    Poll = 2,
    Timer = 3,
    Crash = 4,
    Read = 5,
    Write = 6,
    Sync = 7,
    Names = 8,
    Fault = 9,
    Note = 10,
    Pause = 11,
}

/// Hash and count of the events so far.
pub(crate) struct Trace {
    hash: Xxh3,
    events: u64,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Trace { hash: Xxh3::new(), events: 0 }
    }

    pub(crate) fn note(&mut self, tag: Tag, a: u64, b: u64) {
        let mut record = [0u8; 17];
        record[0] = tag as u8;
        record[1..9].copy_from_slice(&a.to_le_bytes());
        record[9..].copy_from_slice(&b.to_le_bytes());
        self.hash.update(&record);
        self.events += 1;
    }

    pub(crate) fn digest(&self) -> u64 {
        self.hash.digest()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
