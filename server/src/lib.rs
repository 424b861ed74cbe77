//! A Coronet node: everything between the sockets and the storage engine.
//!
//! * [`node`]: what a node does, generic over its environment. Names no clock, socket, file or
//!   thread, so that the simulator runs the very same code.
//! * [`config`]: the settings of `coronetd` and where they come from.
//! * [`inspect`]: the small files of a data folder read offline.
//! * `rt`: the only place that names glommio and `io_uring`.

pub mod config;
pub mod daemon;
pub mod data_dir;
pub mod inspect;
pub mod node;
pub mod rt;
