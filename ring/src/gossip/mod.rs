//! What nodes tell each other about themselves, without asking anybody's leave.
//!
//! Push-pull gossip: once per interval a node sends a digest of what it knows to another, which
//! answers with what it knows better and asks for what it knows worse. Everything spread this way
//! has one order in which the newer wins, so it does not matter who hears what when:
//!
//! * [`member`]: each node speaks for itself, and only for itself; it counts its heartbeats.
//! * [`keyspace`]: definitions of keyspaces, versioned documents.
//! * the placement table: the higher epoch wins. The first is computed by every founder alone from
//!   the same founding set; later ones will come from the topology log through
//!   [`Gossip::adopt_table`](state::Gossip::adopt_table).
//!
//! Gossip never decides that a node is gone: [`detector`] is one node's own opinion, and removal is
//! an operator's act.

pub mod codec;
pub mod detector;
pub mod keyspace;
pub mod member;
pub mod message;
pub mod snapshot;
pub mod state;
