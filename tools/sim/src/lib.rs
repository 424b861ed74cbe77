//! Deterministic simulation: one seed replays one history.
//!
//! Owns a single-threaded executor with virtual time ([`Sim`]), an environment for the engine on
//! top of it ([`SimEnv`]) and a disk that keeps un-synced writes apart, crashes, tears, flips and
//! fails ([`Disk`]). Knows nothing of nodes, networks or what an engine stores.
//!
//! ```
//! use coronet_lsm::env::{AlignedBuf, Env, File, OpenMode};
//! use coronet_sim::Sim;
//! use std::path::Path;
//!
//! let sim = Sim::new(7);
//! let env = sim.node_env("a");
//! sim.block_on(async {
//!     let file = env.open(Path::new("/f"), OpenMode::CreateNew).await.unwrap();
//!     let (done, _) = file.write_at(0, AlignedBuf::zeroed(4096)).await;
//!     done.unwrap();
//!     file.sync().await.unwrap();
//!     env.sync_dir(Path::new("/")).await.unwrap();
//! });
//! let env = sim.crash(&env); // power failure: what was synced is still there
//! assert_eq!(env.disk().files().len(), 1);
//! ```
//!
//! Because `coronet-lsm` is a dependency of this crate, the engine's tests that use the simulator
//! live in `lsm/tests`, not in its unit tests.

mod delegate;
mod disk;
mod env;
mod exec;
mod rng;
mod seeds;
mod sim;
mod trace;

pub use disk::{Disk, DiskImage, DiskStats, Faults, Latency, SECTOR};
pub use env::{SimEnv, SimFile};
pub use rng::Rng;
pub use seeds::for_each_seed;
pub use sim::Sim;
