//! Where things live: keys in partitions, partitions on cores.

pub mod partition;
