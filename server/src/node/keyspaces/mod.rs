//! Keyspaces as a node manages them: on the control core.
//!
//! * [`engine`]: a definition's options in the storage engine's terms.
//! * [`settings`]: definitions from and to the settings clients send and read.
//! * [`rollout`]: telling the data cores, and answering clients once all of them know.
//! * [`alone`]: the keyspaces of a node in no cluster, and what is kept of them when that changes.
//!   In a cluster they are gossip's.

mod alone;
mod engine;
mod rollout;
mod settings;

pub(super) use alone::copy_keyspaces;
pub use alone::{Alone, read_keyspaces};
pub(super) use engine::EngineSettings;
pub(super) use rollout::{Asker, Rollout, Saving};
pub(super) use settings::{altered, created, default_keyspace, in_cluster, info, same_settings};
