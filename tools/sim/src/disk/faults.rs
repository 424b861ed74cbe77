//! What may go wrong with a disk, and how long it takes.

use std::time::Duration;

use crate::rng::Rng;

/// Chances of faults, each in cases per million operations, and the disk's size.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// A read fails.
    pub read_error: u32,
    /// A read meets a sector that went bad: it fails, and so does every read of that sector until
    /// it is written again, also when faults are switched off.
    pub bad_sector: u32,
    /// A write fails; a random prefix of its sectors was written.
    pub write_error: u32,
    /// A sync fails; of the writes it covered some may never reach the device, even when a later
    /// sync succeeds.
    pub sync_error: u32,
    /// A write reports success and stores one bit wrong.
    pub bit_flip: u32,
    /// A write reports success and lands on another page, of the same file or of another one
    /// that faults may hit.
    pub misdirected: u32,
    /// A read reports success and returns one bit wrong; the stored bytes are right.
    pub read_flip: u32,
    /// A read reports success and returns another place of the same file.
    pub misdirected_read: u32,
    /// Bytes the disk holds; writes that would exceed it fail with `StorageFull`.
    pub capacity: Option<u64>,
    /// Faults hit only files whose path contains this text; all files when `None`.
    pub only: Option<String>,
}

impl Faults {
    /// No faults: latency only.
    pub fn none() -> Self {
        Faults::default()
    }

    /// A disk that lies about files whose path contains `only`: what is written or
    /// read goes wrong or astray without an error. Drawn from a seed.
    pub fn lies(rng: &mut Rng, only: &str) -> Self {
        let mut draw = |max: u64| u32::try_from(rng.below(max)).unwrap_or(0);
        Faults {
            bit_flip: draw(20_000),
            misdirected: draw(20_000),
            read_flip: draw(5_000),
            misdirected_read: draw(5_000),
            only: Some(only.to_owned()),
            ..Faults::default()
        }
    }

    /// Rare errors of all honest kinds (the disk says that it failed), drawn from a seed.
    pub fn honest(rng: &mut Rng) -> Self {
        let mut draw = |max: u64| u32::try_from(rng.below(max)).unwrap_or(0);
        Faults {
            read_error: draw(2_000),
            write_error: draw(2_000),
            sync_error: draw(2_000),
            ..Faults::default()
        }
    }
}

/// How long operations take: half to one and a half times the typical time, sometimes much more.
#[derive(Debug, Clone)]
pub struct Latency {
    /// Typical time of a read.
    pub read: Duration,
    /// Typical time of a write.
    pub write: Duration,
    /// Typical time of a sync of a file or a folder.
    pub sync: Duration,
    /// Typical time of opening, removing, renaming, listing.
    pub names: Duration,
    /// Chance, per million, that an operation is slow.
    pub slow: u32,
    /// How many times longer a slow operation takes.
    pub slow_factor: u32,
}

impl Default for Latency {
    fn default() -> Self {
        Latency {
            read: Duration::from_micros(80),
            write: Duration::from_micros(40),
            sync: Duration::from_micros(200),
            names: Duration::from_micros(20),
            slow: 5_000,
            slow_factor: 50,
        }
    }
}

/// Kind of an operation, for its latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Write,
    Sync,
    Names,
}

impl Latency {
    pub(crate) fn draw(&self, op: Op, rng: &mut Rng) -> Duration {
        let typical = match op {
            Op::Read => self.read,
            Op::Write => self.write,
            Op::Sync => self.sync,
            Op::Names => self.names,
        };
        let typical = u64::try_from(typical.as_nanos()).unwrap_or(u64::MAX / 1024);
        let nanos = typical / 2 + rng.below(typical + 1);
        let factor = if rng.chance(self.slow) { u64::from(self.slow_factor) } else { 1 };
        Duration::from_nanos(nanos.saturating_mul(factor))
    }
}
