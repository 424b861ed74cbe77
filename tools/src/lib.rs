//! Everything around a Coronet server that is not the server: the `coronet` command with its
//! client verbs, directory transfer, load generator and checks.

pub mod bench;
pub mod cli;
pub mod transfer;
