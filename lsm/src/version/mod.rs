//! Which tables make up the tree: immutable versions, and the manifest that makes them durable.
//!
//! * [`edit`]: one atomic change, its bytes (`docs/FORMATS.md`, "Manifest").
//! * [`lost`]: marks of damage.
//! * [`manifest`]: the file of edits: load, append, rewrite.
//! * [`set`]: the current version and the one way to change it.

pub(crate) mod edit;
pub(crate) mod lost;
pub(crate) mod manifest;
pub(crate) mod set;
mod tree;

pub(crate) use set::VersionSet;
pub(crate) use tree::{Flushed, LiveTable, Older, Place, Version, table_id, table_path};
