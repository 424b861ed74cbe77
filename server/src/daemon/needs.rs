//! What a node with certain settings needs from the machine. Its start and a doctor ask for the same.

use std::path::PathBuf;

use crate::config::{Config, ControlCore};
use crate::rt::check::{FREE_BYTES, Requirements, open_files};
use crate::rt::executor::available_cpus;

/// What a node with these settings needs whose data lies in `data_dir`.
pub fn requirements(config: &Config, data_dir: PathBuf) -> Requirements {
    let chosen = config.data_cores.choose(&available_cpus(), config.control_core).len();
    let data_cores = chosen.max(config.data_cores.at_least());
    Requirements {
        data_dir,
        listen: Some(config.clients),
        peers: config.cluster.is_clustered().then_some(config.peers),
        cores: data_cores + usize::from(config.control_core != ControlCore::Shared),
        open_files: open_files(config.max_connections, data_cores),
        free_bytes: FREE_BYTES,
    }
}
