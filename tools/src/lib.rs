//! Everything around a Coronet server that is not the server: the `coronet` command with its
//! client verbs, directory transfer, load generator and checks; and the simulation of
//! a whole node.

pub mod bench;
pub mod cli;
pub mod fuzz;
pub mod offline;
pub mod sim;
pub mod transfer;
