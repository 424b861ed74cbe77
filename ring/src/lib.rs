//! Pure logic of a Coronet ring: identities, hashing, placement, causality.
//!
//! Everything here is a function of its arguments: no sockets, clocks, threads, files or
//! randomness. Bytes in formats are little endian and versioned.
//!
//! * [`ids`]: the numbers that name things.
//! * [`hash`]: the one hash of keys.
//! * [`placement`]: which partition a key belongs to, which nodes hold it, which core owns it.
//! * [`causality`]: dots, version vectors, contexts, stored objects, the hybrid clock.
//! * [`coordinate`]: a client's request over the replicas of a key, as state machines.
//! * [`gossip`]: membership, keyspaces and the placement table from node to node; the failure
//!   detector.
//! * [`bytes`]: the checked reader all formats are decoded with.

pub mod bytes;
pub mod causality;
pub mod coordinate;
pub mod gossip;
pub mod hash;
pub mod ids;
pub mod placement;

pub use causality::context::{Context, ContextError};
pub use causality::dot::Dot;
pub use causality::hlc::{Hlc, HybridClock};
pub use causality::merge::{Merged, merge, merge_all};
pub use causality::object::{Object, ObjectError, ObjectRef, Sibling, SiblingRef, Token};
pub use causality::own::Amnesia;
pub use causality::resolve::{Conflicts, visible};
pub use causality::vector::VersionVector;
pub use gossip::keyspace::KeyspaceId;
pub use hash::key_hash;
pub use ids::{Actor, CoreId, Epoch, Incarnation, NodeId, PartitionId};
pub use placement::partition::{PartitionMap, PlacementError};
pub use placement::table::{PlacedNode, Table, TableError};
