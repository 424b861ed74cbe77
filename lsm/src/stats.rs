//! What the engine counts. Plain numbers, read without stopping anything.

use crate::histogram::Histogram;
use std::cell::RefCell;

/// Number of levels the tree may have, level 0 included.
pub const LEVELS: usize = 7;

/// Declares the counters once: the struct, and the list of names and values.
macro_rules! stats {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Numbers of one engine since it was opened; sizes and counts of tables are current.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct EngineStats {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// Tables per level, now.
            pub level_tables: [u64; LEVELS],
            /// Bytes of table files per level, now.
            pub level_bytes: [u64; LEVELS],
            /// Sorted runs per level, now.
            pub level_runs: [u64; LEVELS],
            /// From the first write of a log batch to its commit, one count per batch.
            pub commit_latency: Histogram,
            /// Point reads that went to the disk.
            pub read_latency: Histogram,
            /// Bytes written to tables of a level, by flushes (level 0) and compactions.
            pub level_written_bytes: [u64; LEVELS],
        }

        impl EngineStats {
            /// Every scalar counter with its name, in a fixed order.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Adds another engine's numbers to these, counter by counter.
            pub fn add(&mut self, other: &EngineStats) {
                $(self.$name += other.$name;)*
                self.commit_latency.add(&other.commit_latency);
                self.read_latency.add(&other.read_latency);
                for level in 0..LEVELS {
                    self.level_tables[level] += other.level_tables[level];
                    self.level_bytes[level] += other.level_bytes[level];
                    self.level_runs[level] += other.level_runs[level];
                    self.level_written_bytes[level] += other.level_written_bytes[level];
                }
            }
        }
    };
}

stats! {
    /// Write batches accepted.
    writes,
    /// Puts and deletes accepted.
    entries_written,
    /// Bytes of keys and values accepted.
    logical_bytes,
    /// Writes refused as busy.
    writes_busy,
    /// Writes refused because the disk was full.
    writes_disk_full,
    /// Log batches written.
    log_batches,
    /// Bytes written to the log, padding included.
    log_bytes,
    /// Log syncs.
    log_syncs,
    /// Log segments in use, now.
    log_segments,
    /// Time commits were delayed so that flush and compaction keep up, microseconds.
    delayed_micros,
    /// Time commits went at the slowest rate because memory or level 0 was full, microseconds.
    stalled_micros,
    /// Bytes of log replayed at opening.
    replayed_bytes,
    /// Entries replayed at opening.
    replayed_entries,
    /// Torn tails found at opening: unfinished batches that nobody was promised.
    torn_tails,
    /// Bytes of log after the last whole batch that looked like an unfinished batch.
    torn_tail_bytes,
    /// Memtables flushed.
    flushes,
    /// Bytes written by flushes.
    flush_bytes,
    /// Compactions finished, moves not counted.
    compactions,
    /// Steps of compactions: tables written, with the inputs' keys up to there let go.
    compaction_steps,
    /// Tables dropped whole by FIFO, for their age or for space.
    tables_dropped,
    /// Bytes that compactions still have to write until no level owes anything, estimated, now.
    compaction_debt_bytes,
    /// Tables moved down a level without rewriting.
    trivial_moves,
    /// Bytes of table files read by compactions.
    compaction_read_bytes,
    /// Bytes of table files written by compactions.
    compaction_write_bytes,
    /// Entries compactions dropped as shadowed, deleted or filtered.
    compaction_dropped,
    /// Flushes and compactions that failed and were tried again.
    background_errors,
    /// Manifest edits written.
    manifest_edits,
    /// Manifests written anew.
    manifest_rewrites,
    /// Bytes written to manifests, padding included.
    manifest_bytes,
    /// Time merges paused for the sake of foreground latency, microseconds.
    paced_micros,
    /// Rate that merges are held to for the sake of foreground latency, bytes per second, now;
    /// zero: they are not held back.
    paced_bytes_per_second,
    /// Bytes held by the active and the frozen memtables, now.
    memtable_bytes,
    /// Frozen memtables that wait for their flush, now.
    frozen_memtables,
    /// Bytes that flushed memtables left for the next ones of any keyspace, now.
    pooled_bytes,
    /// Point reads.
    gets,
    /// Point reads answered without I/O.
    gets_cached,
    /// Point reads answered from the cache's rows.
    gets_from_rows,
    /// Tables a point read skipped because of their filter.
    filter_skips,
    /// Tables a point read had to look into.
    table_probes,
    /// Scans started.
    scans,
    /// Blocks found in the cache.
    cache_hits,
    /// Blocks read from disk.
    cache_misses,
    /// Bytes held by the cache, blocks and rows, now.
    cache_bytes,
    /// Bytes of these held by rows, now.
    cache_row_bytes,
    /// Bytes that blocks and rows may take, now: what indexes and filters leave of the budget.
    cache_budget_bytes,
    /// Bytes held by indexes and filters of open tables, now.
    table_memory_bytes,
    /// Bytes of filters that are not held for want of room, now.
    filters_left_out_bytes,
    /// Complete passes of the scrub over all tables.
    scrub_passes,
    /// Tables the scrub has checked.
    scrub_tables,
    /// Bytes of data blocks the scrub has read.
    scrub_bytes,
    /// Bytes of data blocks the current pass has still to read, now.
    scrub_left_bytes,
    /// Damaged blocks found, by the scrub or by whoever ran into them.
    damaged_blocks,
    /// Tables found to be damaged as a whole, at opening.
    damaged_tables,
    /// Damaged blocks that were right when they were read again.
    damage_not_confirmed,
    /// Key ranges in quarantine, now: reads of them report the damage.
    lost_ranges,
    /// Bytes of all data blocks of live tables before compression, now.
    block_raw_bytes,
    /// Bytes of all data blocks of live tables on disk, padding included, now.
    block_disk_bytes,
    /// Table files waiting for their removal, now.
    trash_files,
}

impl EngineStats {
    /// Bytes written to the device by log, flush, compaction and manifest.
    pub fn device_bytes(&self) -> u64 {
        self.log_bytes + self.flush_bytes + self.compaction_write_bytes + self.manifest_bytes
    }

    /// Bytes written to the device per byte of keys and values accepted; 0 without any.
    pub fn write_amplification(&self) -> f64 {
        ratio(self.device_bytes(), self.logical_bytes)
    }

    /// Tables looked into per point read.
    pub fn read_amplification(&self) -> f64 {
        ratio(self.table_probes, self.gets)
    }

    /// Bytes of all tables per byte of the deepest level that has any: an estimate, since what
    /// is above may be new keys or newer versions.
    pub fn space_amplification(&self) -> f64 {
        let deepest = self.level_bytes.iter().rev().find(|bytes| **bytes > 0);
        ratio(self.level_bytes.iter().sum(), deepest.copied().unwrap_or(0))
    }

    /// Block lookups that found their block in the cache, as a share of all.
    pub fn cache_hit_rate(&self) -> f64 {
        ratio(self.cache_hits, self.cache_hits + self.cache_misses)
    }

    /// Tables that point reads did not look into thanks to the filter, as a share of those
    /// whose range held the key.
    pub fn filter_skip_rate(&self) -> f64 {
        ratio(self.filter_skips, self.filter_skips + self.table_probes)
    }

    /// Size of the live data blocks before compression relative to their size on disk; 1 without
    /// any. Below 1 where padding costs more than compression saves.
    pub fn compression_ratio(&self) -> f64 {
        match self.block_disk_bytes {
            0 => 1.0,
            disk => self.block_raw_bytes as f64 / disk as f64,
        }
    }
}

fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// The counters as the engine's parts share them.
#[derive(Debug, Default)]
pub(crate) struct Counters(RefCell<EngineStats>);

impl Counters {
    /// Changes counters; `change` must not count anything itself.
    pub fn update(&self, change: impl FnOnce(&mut EngineStats)) {
        change(&mut self.0.borrow_mut());
    }

    /// A copy of all counters.
    pub fn snapshot(&self) -> EngineStats {
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amplifications_are_ratios_of_the_counters() {
        let mut stats = EngineStats { logical_bytes: 100, log_bytes: 110, ..Default::default() };
        assert_eq!(EngineStats::default().write_amplification(), 0.0);
        (stats.flush_bytes, stats.compaction_write_bytes, stats.manifest_bytes) = (100, 280, 10);
        (stats.gets, stats.table_probes, stats.filter_skips) = (10, 15, 45);
        stats.level_bytes = [10, 0, 50, 300, 0, 0, 0];
        assert_eq!(stats.write_amplification(), 5.0);
        assert_eq!(stats.read_amplification(), 1.5);
        assert_eq!(stats.space_amplification(), 1.2);
        assert_eq!(stats.filter_skip_rate(), 0.75);
    }

    #[test]
    fn fields_and_sums_cover_every_counter() {
        let mut total = EngineStats { writes: 1, trash_files: 5, ..EngineStats::default() };
        total.level_bytes[2] = 7;
        let copy = total;
        total.add(&copy);
        assert_eq!(total.fields().find(|(name, _)| *name == "writes"), Some(("writes", 2)));
        assert_eq!(total.fields().last(), Some(("trash_files", 10)));
        assert_eq!(total.level_bytes[2], 14);
    }
}
