//! What the engine counts. Plain numbers, read without stopping anything.

use crate::histogram::Histogram;
use std::cell::{Cell, RefCell};

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
            /// Reads of several keys that went to the disk.
            pub multi_get_latency: Histogram,
            /// From asking for a scan to its first entry.
            pub scan_latency: Histogram,
            /// Bytes written to tables of a level, by flushes (level 0) and compactions.
            pub level_written_bytes: [u64; LEVELS],
            /// Bytes of a level's tables that compactions have read.
            pub level_read_bytes: [u64; LEVELS],
            /// Tables of a level that point reads had to look into.
            pub level_probes: [u64; LEVELS],
            /// Tables of a level that point reads skipped because of their filter.
            pub level_filter_skips: [u64; LEVELS],
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
                self.multi_get_latency.add(&other.multi_get_latency);
                self.scan_latency.add(&other.scan_latency);
                for (ours, theirs) in [
                    (&mut self.level_tables, &other.level_tables),
                    (&mut self.level_bytes, &other.level_bytes),
                    (&mut self.level_runs, &other.level_runs),
                    (&mut self.level_written_bytes, &other.level_written_bytes),
                    (&mut self.level_read_bytes, &other.level_read_bytes),
                    (&mut self.level_probes, &other.level_probes),
                    (&mut self.level_filter_skips, &other.level_filter_skips),
                ] {
                    ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
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
    /// Bytes of zeros that new log segments were filled with, once for each.
    log_fill_bytes,
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
    /// Tables dropped whole: by FIFO, for their age or for space, or because all they held had
    /// expired.
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
    /// Tables a scan skipped because their filter knew that none of their keys has the prefix
    /// that all keys of the scan's range share.
    scan_filter_skips,
    /// Tables whose filter a scan asked for that prefix, in vain.
    scan_filter_probes,
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
    /// Bytes read from the device for point reads and for the first blocks of scans.
    block_read_bytes,
    /// Bytes read from the device by scans that read ahead.
    scan_read_bytes,
    /// Bytes of table files, now.
    table_bytes,
    /// Bytes of table files in the deepest level that has any, now: per keyspace and core.
    bottom_bytes,
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
    /// Blocks that were wrong or could not be read, and were right when they were read again.
    damage_not_confirmed,
    /// Blocks that the disk refused to read to the scrub, twice in a row; again in every pass.
    unreadable_blocks,
    /// Tables that merges leave alone because the disk refused to read a block of them, now.
    refused_tables,
    /// Blocks that were given up after the disk had refused to read them to a merge for as long as
    /// patience lasted: their keys are in quarantine.
    refused_blocks,
    /// Tables written anew because their index, filter or footer was damaged on disk, while
    /// memory still had what they said.
    rewritten_tables,
    /// Key ranges in quarantine, now: reads of them report the damage.
    lost_ranges,
    /// Bytes of all data blocks of live tables before compression, now.
    block_raw_bytes,
    /// Bytes of all data blocks of live tables on disk, now; with padding in tables of versions 1 to
    /// 3.
    block_disk_bytes,
    /// Table files waiting for their removal, now.
    trash_files,
}

impl EngineStats {
    /// Bytes written to the device by log, flush, compaction and manifest.
    pub fn device_bytes(&self) -> u64 {
        let log = self.log_bytes + self.log_fill_bytes;
        log + self.flush_bytes + self.compaction_write_bytes + self.manifest_bytes
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
        ratio(self.table_bytes, self.bottom_bytes)
    }

    /// Bytes read from the device by point reads, scans, compaction and scrub.
    pub fn device_read_bytes(&self) -> u64 {
        let foreground = self.block_read_bytes + self.scan_read_bytes;
        foreground + self.compaction_read_bytes + self.scrub_bytes
    }

    /// Bytes written to tables per byte of keys and values accepted; 0 without any. What a
    /// keyspace can say of itself: log and manifest are shared.
    pub fn table_write_amplification(&self) -> f64 {
        ratio(self.flush_bytes + self.compaction_write_bytes, self.logical_bytes)
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

    /// Tables that scans skipped thanks to the filter, as a share of those whose filter they
    /// asked.
    pub fn scan_filter_skip_rate(&self) -> f64 {
        ratio(self.scan_filter_skips, self.scan_filter_skips + self.scan_filter_probes)
    }

    /// Size of the live data blocks before compression relative to their size on disk; 1 without
    /// any. Below 1 in old tables whose padding costs more than compression saves.
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

/// Where point reads looked, per level. Cells of their own, so that a read touches little.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    probes: [Cell<u64>; LEVELS],
    skips: [Cell<u64>; LEVELS],
}

impl Looks {
    /// A point read looks into a table of this level.
    pub fn probe(&self, level: usize) {
        self.probes[level].set(self.probes[level].get() + 1);
    }

    /// A filter spared a point read a table of this level.
    pub fn skip(&self, level: usize) {
        self.skips[level].set(self.skips[level].get() + 1);
    }

    /// Writes the counters to `stats`.
    pub fn fill(&self, stats: &mut EngineStats) {
        stats.level_probes = self.probes.each_ref().map(Cell::get);
        stats.level_filter_skips = self.skips.each_ref().map(Cell::get);
        stats.table_probes = stats.level_probes.iter().sum();
        stats.filter_skips = stats.level_filter_skips.iter().sum();
    }
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
        (stats.table_bytes, stats.bottom_bytes) = (360, 300);
        assert_eq!(stats.write_amplification(), 5.0);
        assert_eq!(stats.table_write_amplification(), 3.8);
        assert_eq!(stats.read_amplification(), 1.5);
        assert_eq!(stats.space_amplification(), 1.2);
        assert_eq!(stats.filter_skip_rate(), 0.75);
        (stats.scan_filter_skips, stats.scan_filter_probes) = (3, 1);
        assert_eq!(stats.scan_filter_skip_rate(), 0.75);
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
