//! What happened before what: dots, version vectors, client contexts, stored objects.

pub mod context;
pub mod dot;
pub mod hlc;
pub mod object;
pub mod vector;
