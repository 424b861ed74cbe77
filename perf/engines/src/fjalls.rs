//! fjall: it knows no direct I/O, so the page cache serves it beyond its own cache.

use std::sync::Arc;
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::Failure;
use crate::keys::KEY_BYTES;
use crate::peer::Peer;
use crate::spec::Job;

/// How often, and how many times in a row, nothing may be going on before it counts as settled.
const QUIET_BEAT: Duration = Duration::from_millis(20);
const QUIET_BEATS: u32 = 10;

/// An open database.
pub struct Fjall {
    database: Database,
    keys: Keyspace,
}

impl Fjall {
    /// Opens or creates the database of `job`.
    ///
    /// # Errors
    /// fjall's.
    pub fn open(job: &Job) -> Result<Self, Failure> {
        let sizes = &job.sizes;
        let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0));
        let tables = Leveled::default()
            .with_table_target_size(sizes.memtable_bytes as u64)
            .with_l0_threshold(4)
            .with_level_ratio_policy(vec![10.0]);
        let options = KeyspaceCreateOptions::default()
            .max_memtable_size(sizes.memtable_bytes as u64)
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
            .filter_policy(FilterPolicy::all(filter))
            .compaction_strategy(Arc::new(tables));
        let database = Database::builder(&job.dir)
            .cache_size(job.cache_bytes() as u64)
            .journal_compression(CompressionType::None)
            .worker_threads(2)
            .open()?;
        let keys = database.keyspace("keys", || options)?;
        Ok(Fjall { database, keys })
    }
}

impl Peer for Fjall {
    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<bool, Failure> {
        Ok(self.keys.get(key)?.is_some())
    }

    fn put(&self, key: &[u8; KEY_BYTES], value: &[u8]) -> Result<(), Failure> {
        Ok(self.keys.insert(key, value)?)
    }

    fn scan(&self, from: &[u8; KEY_BYTES], steps: usize) -> Result<usize, Failure> {
        let mut found = 0;
        for entry in self.keys.range(from.as_slice()..).take(steps) {
            entry.into_inner()?;
            found += 1;
        }
        Ok(found)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn settle(&self) -> Result<(), Failure> {
        self.keys.rotate_memtable_and_wait()?;
        let mut quiet = 0;
        while quiet < QUIET_BEATS {
            let busy =
                self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0;
            quiet = if busy { 0 } else { quiet + 1 };
            std::thread::sleep(QUIET_BEAT);
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        vec![format!(
            "{} tables, {} of them in level 0",
            self.keys.table_count(),
            self.keys.l0_table_count()
        )]
    }
}
