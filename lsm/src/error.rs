//! What can go wrong in the engine, and what the caller may conclude from it.

use crate::KeyspaceId;
use std::io;
use std::path::{Path, PathBuf};

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

/// An engine error. Cloneable, because one failed log write answers many writers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk refused an operation.
    #[error("{op} {path}: {message}", path = path.display())]
    Io {
        /// What was attempted, e.g. `read`, `sync`.
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error kind.
        kind: io::ErrorKind,
        /// The operating system's message.
        message: String,
    },
    /// Stored bytes do not match their checksum or their structure.
    #[error("corruption in {path} at offset {offset}: {what}", path = path.display())]
    Corruption {
        /// The damaged file.
        path: PathBuf,
        /// Byte offset of the damaged structure.
        offset: u64,
        /// What was wrong.
        what: String,
    },
    /// A file was written by a newer release.
    #[error("{path} has format version {found}, this release reads up to {supported}; upgrade before opening this folder", path = path.display())]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// The version it carries.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// The request breaks a limit and was not applied.
    #[error("{what} is {size} bytes, the limit is {limit}")]
    TooLarge {
        /// `key`, `value` or `batch`.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Too much work is waiting; nothing was applied; retry after the given milliseconds.
    #[error("engine is busy, not applied, retry after {retry_after_ms} ms")]
    Busy {
        /// Suggested pause in milliseconds.
        retry_after_ms: u32,
    },
    /// The disk is full: writes are refused, reads go on. Not applied.
    #[error("disk is full: writes are refused until space is freed")]
    DiskFull,
    /// A log write or sync failed: nothing more is acknowledged until the engine is reopened.
    /// Writes that were in flight may have been applied.
    #[error("the log failed and is closed for writing: {0}")]
    LogFailed(String),
    /// A compaction policy is out of bounds; nothing was changed.
    #[error("compaction policy: {0}")]
    Policy(String),
    /// The keyspace is not there, or is there already; nothing was applied.
    #[error("keyspace {id} {what}")]
    Keyspace {
        /// The keyspace.
        id: KeyspaceId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An option is out of bounds; nothing was applied.
    #[error("{0}")]
    BadOptions(String),
    /// The engine was closed.
    #[error("engine is closed")]
    Closed,
}

impl Error {
    /// Wraps an operating system error with what was attempted.
    pub fn io(op: &'static str, path: &Path, error: &io::Error) -> Self {
        Error::Io { op, path: path.to_owned(), kind: error.kind(), message: error.to_string() }
    }

    /// A corruption report.
    pub fn corruption(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Error::Corruption { path: path.to_owned(), offset, what: what.into() }
    }

    /// Whether the error is the disk being full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::DiskFull | Error::Io { kind: io::ErrorKind::StorageFull, .. })
    }
}
