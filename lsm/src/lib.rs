//! Coronet's storage engine: one log-structured merge tree per core.
//!
//! Single-threaded and asynchronous, generic over its environment ([`env::Env`]): the same code
//! runs on direct I/O through `io_uring` and on the simulator's faulty disk.
//!
//! See `docs/ARCHITECTURE.md` for the way of a write and a read, `docs/FORMATS.md` for every
//! byte on disk.

mod cache;
mod compaction;
mod engine;
pub mod env;
mod error;
mod flush;
pub mod fuzz;
pub mod histogram;
pub mod inspect;
mod keyspace;
mod log;
mod memtable;
mod options;
mod prefetch;
mod prefix;
pub mod read;
mod refused;
pub mod reshard;
mod scrub;
mod signal;
pub mod stats;
pub mod table;
mod trash;
mod types;
mod version;
mod write;

pub use cache::{BlockCache, CacheStats};
pub use compaction::{CompactionPolicy, FifoPolicy, LevelShape, TreePolicy};
pub use engine::{Checkpoint, CompactionFilter, Engine, FilterDecision, Keyspace};
pub use error::{Error, Result};
pub use keyspace::{KeyspaceId, KeyspaceOptions};
pub use memtable::{Memtable, Pos};
pub use options::{MAX_FILTER_PREFIX_BYTES, Options};
pub use read::{Ahead, CachedRead, Direction, Scan, ScanOptions, ScanRange};
pub use signal::Commit;
pub use stats::EngineStats;
pub use table::Codec;
pub use types::{
    Durability, EXPIRY_BYTES, EntryKind, EntryRef, Millis, Seq, TableId, TableUid, key_hash,
};
pub use write::WriteBatch;
