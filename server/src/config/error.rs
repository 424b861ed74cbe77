//! What can be wrong with a setting: each error names the place, the cause and the fix.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {message}; check the path and its permissions", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's message.
        message: String,
    },
    /// The file is not TOML.
    #[error("{file}:{line}: {message}; correct the TOML syntax there")]
    Syntax {
        /// The file.
        file: String,
        /// Line, from one.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// Nobody knows this name.
    #[error("{place}: unknown setting `{name}`; did you mean `{closest}`?")]
    Unknown {
        /// File, variable or flag.
        place: String,
        /// The name as written.
        name: String,
        /// The closest name that exists.
        closest: String,
    },
    /// The value does not fit.
    #[error("{place}: `{name}` {expected}; it is {found}")]
    Invalid {
        /// File, variable or flag.
        place: String,
        /// The setting.
        name: String,
        /// What it must be.
        expected: String,
        /// What was written.
        found: String,
    },
    /// Other machines could reach an unprotected port.
    #[error(
        "listen.{name} is {address}, which other machines can reach, and nothing is encrypted or \
         authenticated yet; listen on 127.0.0.1, or write `insecure = true` (flag --insecure)"
    )]
    Exposed {
        /// The listener.
        name: &'static str,
        /// Its address.
        address: SocketAddr,
    },
    /// The control core would share its CPU by accident.
    #[error(
        "CPU {cpu} is in cores.data and is cores.control; give the control core another CPU, or \
         write cores.control = \"shared\""
    )]
    ControlOnDataCore {
        /// The CPU.
        cpu: usize,
    },
    /// The node is not among the nodes of its cluster.
    #[error(
        "cluster.nodes does not name this node; add {peers} (cluster.address, or listen.peers \
         without it), the same list on all nodes"
    )]
    NotInCluster {
        /// Where the others reach this node.
        peers: SocketAddr,
    },
}

impl ConfigError {
    /// The same error with the place where the value was written.
    pub(super) fn at(self, written: &str) -> Self {
        match self {
            ConfigError::Unknown { name, closest, .. } => {
                ConfigError::Unknown { place: written.to_owned(), name, closest }
            }
            ConfigError::Invalid { name, expected, found, .. } => {
                ConfigError::Invalid { place: written.to_owned(), name, expected, found }
            }
            other => other,
        }
    }
}
