//! Why `coronetd` does not start or ends early: one line, and an exit code of its own.

use crate::config::ConfigError;
use crate::data_dir::DataDirError;
use crate::node::OpenError;
use crate::rt::RtError;
use crate::rt::check::StartError;

/// Why the daemon ended. Exit codes 70 to 79 are those of [`StartError`].
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Exit code 64.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Exit code 64.
    #[error(
        "no data folder is set; write data_dir in the settings file, or give --data-dir DIR, or \
         start `coronetd dev` to try things out"
    )]
    NoDataDir,
    /// Exit codes 70 to 79.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Exit code 65.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Exit code 65.
    #[error("cannot read what is known of the cluster: {0}; remove the file to learn it anew")]
    ClusterView(std::io::Error),
    /// Exit code 65.
    #[error("cannot read the keyspaces: {0}")]
    Keyspaces(std::io::Error),
    /// Exit code 65.
    #[error(
        "{0}; check cluster.name and cluster.nodes, or remove the file `cluster` in the data \
         folder"
    )]
    OtherCluster(coronet_ring::gossip::snapshot::SnapshotError),
    /// Exit code 66.
    #[error("cannot open the engine of {core}: {cause}")]
    Engine {
        /// The core.
        core: coronet_ring::CoreId,
        /// The reason.
        cause: OpenError,
    },
    /// Exit code 67.
    #[error("closing the engine of {core}: {cause}; what was acknowledged as durable is safe")]
    Close {
        /// The core.
        core: coronet_ring::CoreId,
        /// The reason.
        cause: coronet_lsm::Error,
    },
    /// Exit code 68.
    #[error("cannot make a temporary folder: {0}; give --dir DIR")]
    TemporaryFolder(String),
    /// Exit code 69.
    #[error("cannot start node {node}: {cause}")]
    Node {
        /// Which one, from 1.
        node: u16,
        /// The reason.
        cause: std::io::Error,
    },
    /// Exit code 69.
    #[error(transparent)]
    Runtime(#[from] RtError),
    /// Exit code 69.
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
}

impl DaemonError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Config(_) | DaemonError::NoDataDir => 64,
            DaemonError::DataDir(_)
            | DaemonError::ClusterView(_)
            | DaemonError::Keyspaces(_)
            | DaemonError::OtherCluster(_) => 65,
            DaemonError::Engine { .. } => 66,
            DaemonError::Close { .. } => 67,
            DaemonError::TemporaryFolder(_) => 68,
            DaemonError::Runtime(_) | DaemonError::Signals(_) | DaemonError::Node { .. } => 69,
            DaemonError::Start(error) => error.exit_code(),
        }
    }
}
