//! Which tables make up the tree: immutable versions, and the manifest that makes them durable.
//!
//! * [`edit`]: one atomic change, its bytes (`docs/FORMATS.md`, "Manifest").
//! * [`expiry`]: when what a table holds expires.
//! * [`lost`]: marks of damage.
//! * [`manifest`]: the file of edits: load, append, rewrite.
//! * [`ledger`]: the manifest as all keyspaces share it.
//! * [`set`]: the current version of a keyspace and the one way to change it.

pub(crate) mod edit;
mod expiry;
pub(crate) mod ledger;
pub(crate) mod lost;
pub(crate) mod manifest;
pub(crate) mod set;
mod tree;

pub(crate) use expiry::{Expiries, Expiry};
pub(crate) use ledger::Ledger;
pub(crate) use set::VersionSet;
pub(crate) use tree::{LiveTable, Older, Place, Version, Written, table_id, table_path};
