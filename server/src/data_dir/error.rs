//! What can be wrong with a data folder; each error names the path, the cause and the fix.

use std::io;
use std::path::{Path, PathBuf};

use coronet_lsm as lsm;
use coronet_ring::PlacementError;

use super::flaw::{Flaw, Wrong};

/// Why a data folder cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refused.
    #[error("cannot {op} {path}: {message}; check the path, its permissions and the disk", path = path.display())]
    Io {
        /// What was attempted.
        op: &'static str,
        /// Where.
        path: PathBuf,
        /// The kind of error.
        kind: io::ErrorKind,
        /// The operating system's message.
        message: String,
    },
    /// The identity file is damaged.
    #[error("{path} {what}; restore it from a backup of this folder", path = path.display())]
    Identity {
        /// The identity file.
        path: PathBuf,
        /// What is wrong.
        what: Wrong,
    },
    /// The identity file is from a newer release.
    #[error("{path} has format version {found}, this release reads version {supported}; upgrade coronetd", path = path.display())]
    Version {
        /// The identity file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this release reads.
        supported: u32,
    },
    /// Engine folders without identity.
    #[error("{path} holds data but the folder's identity file `node` is missing; restore it, or give an empty folder", path = path.display())]
    Orphaned {
        /// The engine folder.
        path: PathBuf,
    },
    /// Partitions and cores that do not fit.
    #[error("{0}; change cores.data or partitions")]
    Placement(#[from] PlacementError),
    /// An engine could not be opened, flushed or linked.
    #[error("{0}")]
    Engine(#[from] lsm::Error),
}

impl DataDirError {
    pub(super) fn identity(path: &Path, flaw: Flaw) -> Self {
        let path = path.to_owned();
        match flaw.what {
            Wrong::Version { found, supported } => DataDirError::Version { path, found, supported },
            what => DataDirError::Identity { path, what },
        }
    }

    pub(super) fn io(op: &'static str, path: &Path, error: &io::Error) -> Self {
        DataDirError::Io {
            op,
            path: path.to_owned(),
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}
