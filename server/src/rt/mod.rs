//! The runtime seam: the only place that names glommio and `io_uring`.
//!
//! One pinned executor per core ([`executor`]), on each a ring of our own that carries sockets and
//! files (`ring`, `socket`, `file`), single-producer queues between the cores ([`xcore`]), and the
//! environment that the engine and the node run in ([`RtEnv`]). [`check`] finds out before the
//! start whether this machine can run a node at all.
//!
//! Owns how bytes move and when tasks run; owns no meaning: that is [`crate::node`]'s.
//! Why a ring of our own: `docs/decisions/0001-own-ring-beside-glommio.md`.

pub mod check;
pub mod executor;
pub mod xcore;

mod buffers;
mod connection;
mod coop;
mod core;
mod dial;
mod driver;
mod env;
mod file;
mod heartbeat;
mod listener;
mod op;
mod ring;
mod serve;
mod signal;
mod socket;
mod timers;

pub use env::RtEnv;
pub use executor::{CoreContext, Cores, CoresConfig, RtError, Stopper};
pub use file::RtFile;
pub use serve::{ConnectionHandler, NetStats, ServeOptions};
