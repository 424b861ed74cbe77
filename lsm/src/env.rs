//! The world as the engine sees it: clock, disk, randomness, tasks.
//!
//! The engine is generic over [`Env`]. In production the environment is the per-core
//! `io_uring` runtime (`server/src/rt`), in tests the deterministic simulator
//! (`tools/sim`). Nothing else in this crate may reach for time, files or randomness.
//!
//! Everything is single-threaded: futures are not `Send`, values are shared with `Rc`.

mod buffer;

pub use buffer::{AlignedBuf, PAGE};

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A monotonic point in time, in nanoseconds since an arbitrary origin of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Time elapsed since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This point moved forward by `by`, saturating.
    pub fn after(self, by: Duration) -> Nanos {
        Nanos(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The scheduling class of a task. Each class has its own queue and share of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskClass {
    /// Serves a client request or an acknowledgement somebody waits for (log writer).
    Foreground,
    /// Writes a memtable to a table.
    Flush,
    /// Merges tables.
    Compaction,
    /// Everything that may wait: preparing log segments, deleting files, statistics.
    Background,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file for reading only.
    Read,
    /// An existing file for reading and writing.
    ReadWrite,
    /// A new file for reading and writing; fails with `AlreadyExists` when the name is taken.
    CreateNew,
}

/// One open file. Clones share the same open file; it is closed when the last clone drops.
///
/// Direct I/O: offsets and lengths of reads are multiples of [`File::read_unit`], those of writes
/// are multiples of [`PAGE`].
#[allow(clippy::len_without_is_empty)] // asks the disk; nobody needs `is_empty`
pub trait File: Clone + 'static {
    /// Granularity of reads in bytes: a power of two, at most [`PAGE`]. The same as long as the file
    /// is open.
    fn read_unit(&self) -> usize;

    /// Reads `len` bytes at `offset`. The result is shorter than `len` only when the file ends
    /// before `offset + len`.
    fn read_at(&self, offset: u64, len: usize) -> impl Future<Output = io::Result<AlignedBuf>>;

    /// Writes the whole buffer at `offset`, growing the file when needed, and hands the buffer
    /// back for reuse. After an error any part of the range may have been written.
    fn write_at(
        &self,
        offset: u64,
        buf: AlignedBuf,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)>;

    /// Makes every completed write, and the file's length, durable (`fdatasync`).
    /// After an error nothing may be assumed about earlier un-synced writes.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// The file's length in bytes.
    fn len(&self) -> impl Future<Output = io::Result<u64>>;

    /// Sets the length in bytes (shrinks or extends with zeros). Used off the hot path only.
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>>;
}

/// The environment of one core. Clones are handles to the same environment.
pub trait Env: Clone + 'static {
    /// An open file of this environment.
    type File: File;

    /// Monotonic time.
    fn now(&self) -> Nanos;

    /// Wall-clock time in microseconds since the Unix epoch. May jump; never used for ordering
    /// without a logical part beside it.
    fn wall_micros(&self) -> u64;

    /// A random number (identities, jitter); the simulator draws it from its seed.
    fn random(&self) -> u64;

    /// Runs a task on this core, detached.
    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static);

    /// Completes after at least `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Cooperative yield: returns at once when nobody waits, otherwise lets foreground work run.
    /// Long loops call it every 20 to 50 microseconds of CPU time.
    fn coop(&self) -> impl Future<Output = ()>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<Self::File>>;

    /// Removes a file. Durable only after [`Env::sync_dir`] of its folder.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Renames a file or folder, replacing a file of the new name. Durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes a hard link. Durable after `sync_dir`.
    fn link(&self, existing: &Path, new: &Path) -> impl Future<Output = io::Result<()>>;

    /// Creates a folder and its parents; no error when it exists.
    fn create_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// The entries of a folder (files and folders), sorted by name. `NotFound` when it is absent.
    fn list(&self, dir: &Path) -> impl Future<Output = io::Result<Vec<PathBuf>>>;

    /// Makes creations, removals and renames inside a folder durable.
    fn sync_dir(&self, dir: &Path) -> impl Future<Output = io::Result<()>>;
}
