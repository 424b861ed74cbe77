//! RocksDB: direct I/O, no compression, its own defaults where nothing is to be the same.

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, LogLevel, Options, WaitForCompactOptions,
};

use crate::Failure;
use crate::keys::KEY_BYTES;
use crate::peer::Peer;
use crate::spec::Job;

/// Bloom filter bits per key, as in the other engines.
const FILTER_BITS: f64 = 10.0;

/// An open database.
pub struct Rocks(DB);

impl Rocks {
    /// Opens or creates the database of `job`.
    ///
    /// # Errors
    /// RocksDB's.
    pub fn open(job: &Job) -> Result<Self, Failure> {
        Ok(Rocks(DB::open(&options(job), &job.dir)?))
    }

    fn number(&self, property: &str) -> u64 {
        self.0.property_int_value(property).ok().flatten().unwrap_or(0)
    }
}

fn options(job: &Job) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_hyper_clock_cache(job.cache_bytes(), 0));
    table.set_bloom_filter(FILTER_BITS, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_use_direct_reads(true);
    options.set_use_direct_io_for_flush_and_compaction(true);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(job.sizes.memtable_bytes);
    options.set_max_write_buffer_number(3);
    options.set_max_bytes_for_level_base(job.sizes.level1_bytes());
    options.set_target_file_size_base(job.sizes.memtable_bytes as u64);
    options.set_max_background_jobs(2);
    options.set_stats_dump_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options
}

impl Peer for Rocks {
    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<bool, Failure> {
        Ok(self.0.get_pinned(key)?.is_some())
    }

    fn put(&self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<(), Failure> {
        Ok(self.0.put(key, value)?)
    }

    fn scan(&self, from: &[u8; KEY_BYTES], steps: usize) -> Result<usize, Failure> {
        let mut entries = self.0.raw_iterator();
        entries.seek(from);
        let mut found = 0;
        while found < steps && entries.item().is_some() {
            found += 1;
            entries.next();
        }
        entries.status()?;
        Ok(found)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.0.flush_wal(true)?)
    }

    fn settle(&self) -> Result<(), Failure> {
        self.0.flush()?;
        Ok(self.0.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn notes(&self) -> Vec<String> {
        vec![format!(
            "index and filters outside the cache {:.1} MiB",
            self.number("rocksdb.estimate-table-readers-mem") as f64 / f64::from(1 << 20)
        )]
    }
}
