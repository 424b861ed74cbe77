//! A whole node in one deterministic world: data folder, shards, connections, clients.
//!
//! Owns what stands in for the shell of `server/src/rt`: the wires between clients and cores
//! ([`network`]), the messages between cores ([`mod@env`]), and the order of starting and stopping
//! ([`node`]). The node's code is the one that runs in production. On top of it: a client that
//! speaks real frames ([`client`]), a model of what may be stored ([`model`]) and a workload that
//! checks every answer against it ([`workload`]).
//!
//! Executor, clock and disk are those of `coronet-sim`.

pub mod caption;
pub mod checkers;
pub mod client;
pub mod cluster;
pub mod env;
pub mod internet;
pub mod light;
pub mod model;
pub mod network;
pub mod node;
mod peers;
pub mod record;
pub mod timeline;
pub mod workload;

pub use client::{Client, Reply};
pub use env::SimNodeEnv;
pub use network::Network;
pub use node::{Membership, SimNode, StartError};
