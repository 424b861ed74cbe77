//! Where things live: keys in partitions, partitions on nodes and on the cores of one node.
//!
//! [`partition`] is arithmetic, [`table`] says which nodes hold a partition, [`plan`] makes tables
//! and changes them with few moves, [`report`] says what a table is worth and what
//! a change costs.

mod codec;
mod order;
pub mod partition;
pub mod plan;
mod quota;
pub mod report;
pub mod table;
