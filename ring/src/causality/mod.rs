//! What happened before what: dots, version vectors, client contexts, stored objects.
//!
//! A key's object is a dotted version vector set: every sibling carries the [`Dot`](dot::Dot) of
//! its write, the object carries what was seen. [`update`] makes the next version, [`merge`] joins
//! what two replicas hold, [`resolve`] is what a reader is shown, [`own`] notices that a replica
//! forgot its own writes.

pub mod context;
pub mod dot;
pub mod hlc;
pub mod merge;
pub mod object;
pub mod own;
pub mod resolve;
pub mod update;
pub mod vector;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod kv679;
