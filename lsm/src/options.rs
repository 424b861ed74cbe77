//! Settings of one engine. Every field has a unit in its documentation and a bound that
//! [`Options::validate`] checks.

use crate::stats::LEVELS;
use crate::table::Codec;
use crate::{CompactionPolicy, Durability};
use std::time::Duration;

/// Most bytes of a key that [`Options::filter_prefix_bytes`] may count.
pub const MAX_FILTER_PREFIX_BYTES: u32 = 512;

/// Settings of one engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memtable size at which it is frozen and flushed, bytes.
    pub memtable_bytes: usize,
    /// Frozen memtables that may wait for their flush; with so many, commits slow down while the
    /// active one fills, and writes are refused as busy when it is far over its size.
    pub max_frozen: usize,
    /// Size of one log segment, bytes, a multiple of 4096.
    pub log_segment_bytes: u64,
    /// How long a buffered write may stay un-synced.
    pub sync_interval: Duration,
    /// Target size of a data block on disk (after compression), bytes.
    pub block_bytes: usize,
    /// Compression of new tables by level; tables that exist stay as they are. A block that does
    /// not become smaller by an eighth is stored as it is.
    pub compression: [Codec; LEVELS],
    /// Bloom filter bits per key.
    pub filter_bits_per_key: u32,
    /// New tables enter this many first bytes of their keys into their filters, too, so that
    /// scans of keys that share them skip tables; zero switches that off, at most
    /// [`MAX_FILTER_PREFIX_BYTES`]. Counts all bytes of the key as the engine sees it: an owner
    /// who puts something in front of the application's keys adds the length of that. Tables
    /// that exist keep what they were written with. Costs the bits of a key per prefix.
    pub filter_prefix_bytes: u32,
    /// How tables are merged in a new engine; one that was told otherwise
    /// ([`crate::Engine::set_policy`]) keeps to that.
    pub compaction: CompactionPolicy,
    /// Latency of commits and of reads from disk, on average, above which merges are slowed as
    /// far as their debt allows.
    pub latency_target: Duration,
    /// Number of level-0 tables from which commits are slowed smoothly.
    pub l0_slowdown: usize,
    /// Number of level-0 tables from which commits go at the slowest rate.
    pub l0_stop: usize,
    /// Block cache budget, bytes.
    pub cache_bytes: usize,
    /// Largest key accepted, bytes.
    pub max_key_bytes: usize,
    /// Largest value accepted, bytes.
    pub max_value_bytes: usize,
    /// How fast the scrub reads all tables to find damage, bytes per second; zero switches it
    /// off. Damage that reads or compactions run into is dealt with in any case.
    pub scrub_bytes_per_second: u64,
    /// Pause before the first pass of the scrub and between two passes.
    pub scrub_pause: Duration,
    /// How long merges wait for a block that the disk refuses to read, before its keys go into
    /// quarantine. A fifth of it while level 0 is so full that commits are slowed.
    pub unreadable_patience: Duration,
    /// Free space below which writes are refused so that compaction can still run is not known
    /// to the engine; it refuses writes after the first `StorageFull` and probes again after
    /// this pause.
    pub full_probe_interval: Duration,
    /// Bytes of log segments that may be in use before the keyspace that holds the oldest of them
    /// back is flushed; at least four segments.
    pub log_bytes: u64,
    /// How long an entry lives that was written without an expiry of its own; `None` is for
    /// ever. Applies to what is written from then on.
    pub default_ttl: Option<Duration>,
    /// How a write is made durable whose caller does not say.
    pub durability: Durability,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            memtable_bytes: 64 << 20,
            max_frozen: 2,
            log_segment_bytes: 32 << 20,
            sync_interval: Duration::from_millis(50),
            block_bytes: 8 << 10,
            compression: [Codec::None; LEVELS],
            filter_bits_per_key: 10,
            filter_prefix_bytes: 0,
            compaction: CompactionPolicy::leveled(),
            latency_target: Duration::from_millis(5),
            l0_slowdown: 20,
            l0_stop: 36,
            cache_bytes: 256 << 20,
            max_key_bytes: (64 << 10) + 16,
            max_value_bytes: (16 << 20) + 4096,
            scrub_bytes_per_second: 2 << 20,
            scrub_pause: Duration::from_secs(3600),
            unreadable_patience: Duration::from_secs(600),
            full_probe_interval: Duration::from_secs(1),
            log_bytes: 512 << 20,
            default_ttl: None,
            durability: Durability::Durable,
        }
    }
}

impl Options {
    /// Small sizes, so that a test sees flushes, compactions and segment changes quickly.
    pub fn tiny() -> Self {
        Options {
            memtable_bytes: 32 << 10,
            log_segment_bytes: 64 << 10,
            block_bytes: 4 << 10,
            compaction: Self::tiny_policy("leveled(fanout=4)"),
            cache_bytes: 128 << 10,
            max_key_bytes: 4 << 10,
            max_value_bytes: 16 << 10,
            log_bytes: 512 << 10,
            ..Options::default()
        }
    }

    /// A policy with the sizes of [`Options::tiny`]; for tests, panics on text that is no policy.
    pub fn tiny_policy(text: &str) -> CompactionPolicy {
        match text.parse::<CompactionPolicy>() {
            Ok(policy) => policy.sized(128 << 10, 32 << 10),
            Err(what) => panic!("{text}: {what}"),
        }
    }

    /// Largest encoded write batch: room for a few entries of the largest size.
    pub fn max_batch_bytes(&self) -> usize {
        (self.max_key_bytes + self.max_value_bytes) * 4
    }

    /// Checks bounds; the error names the field and the fix.
    pub fn validate(&self) -> Result<(), String> {
        if !self.log_segment_bytes.is_multiple_of(4096) || self.log_segment_bytes < 16 << 10 {
            return Err(format!(
                "log_segment_bytes is {}, use a multiple of 4096 of at least 16384",
                self.log_segment_bytes
            ));
        }
        self.compaction.validate()?;
        if self.l0_slowdown == 0 || self.l0_stop <= self.l0_slowdown {
            return Err("l0_slowdown and l0_stop must be at least 1 and rise".into());
        }
        if self.log_bytes / 4 < self.log_segment_bytes {
            return Err(format!(
                "log_bytes is {}, use at least four times log_segment_bytes",
                self.log_bytes
            ));
        }
        if self.block_bytes < 512 || self.block_bytes > 1 << 20 {
            return Err(format!("block_bytes is {}, use 512 to 1048576", self.block_bytes));
        }
        if self.filter_prefix_bytes > MAX_FILTER_PREFIX_BYTES {
            return Err(format!(
                "filter_prefix_bytes is {}, use 0 (off) to {MAX_FILTER_PREFIX_BYTES}",
                self.filter_prefix_bytes
            ));
        }
        if self.memtable_bytes == 0 || self.max_frozen == 0 {
            return Err("memtable_bytes and max_frozen must be at least 1".into());
        }
        Ok(())
    }
}
