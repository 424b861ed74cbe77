//! A node, generic over its environment.
//!
//! Owns the meaning of requests: connections, operations, what is stored where, what one core
//! tells another. Owns no socket, file, clock or thread: those come from [`NodeEnv`] and from the
//! shell around the shard (`server/src/rt`, or the simulator), which moves bytes only.

mod admin;
mod cluster;
mod control;
mod core;
mod env;
pub(crate) mod kept;
mod keyspaces;
mod message;
pub mod shard;
mod stats;

pub use self::core::NodeCore;
pub use admin::{AdminTask, CoreDone, Outcome};
pub use cluster::{Cluster, ClusterConfig, read_cluster_view};
pub use control::Control;
pub use coronet_ring::CoreId;
pub use env::{ConnId, Door, NodeEnv};
pub use keyspaces::{Alone, read_keyspaces};
pub use message::{ControlMessage, Coordinate, CoreMessage, Handoff, ShardAsk, Timed};
pub use shard::{BlindWrites, Limits, OpenError, OutputState, Shard, ShardConfig};
pub use stats::{CoreStats, NodeStats, OpLatencies};
