//! Keys to partitions, partitions to the cores of one node.
//!
//! Owns the arithmetic only. Which nodes hold a partition is not decided here.

use std::ops::Range;

use thiserror::Error;

use crate::hash::key_hash;
use crate::ids::{CoreId, PartitionId};

/// The number of partitions of a new cluster unless told otherwise.
pub const DEFAULT_PARTITIONS: u32 = 1024;

/// The largest number of partitions.
pub const MAX_PARTITIONS: u32 = 1 << 15;

/// A partition map that cannot exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// The number of partitions is no power of two, or out of bounds.
    #[error("{0} partitions: must be a power of two from 1 to {MAX_PARTITIONS}")]
    Partitions(u32),
    /// No core, or cores that would own nothing.
    #[error("{cores} cores for {partitions} partitions: must be from 1 to {partitions}")]
    Cores {
        /// Cores asked for.
        cores: u16,
        /// Partitions there are.
        partitions: u32,
    },
}

/// How one node's cores share the partitions: core `c` of `n` owns `c*P/n .. (c+1)*P/n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMap {
    bits: u32,
    cores: u16,
}

impl PartitionMap {
    /// A map of `partitions` (a power of two) over `cores`.
    pub fn new(partitions: u32, cores: u16) -> Result<Self, PlacementError> {
        if !partitions.is_power_of_two() || partitions > MAX_PARTITIONS {
            return Err(PlacementError::Partitions(partitions));
        }
        if cores == 0 || u32::from(cores) > partitions {
            return Err(PlacementError::Cores { cores, partitions });
        }
        Ok(Self { bits: partitions.trailing_zeros(), cores })
    }

    /// Number of partitions.
    #[inline]
    pub fn partitions(&self) -> u32 {
        1 << self.bits
    }

    /// Number of data cores.
    #[inline]
    pub fn cores(&self) -> u16 {
        self.cores
    }

    /// The partition of a key hash: its top bits.
    #[inline]
    pub fn partition_of_hash(&self, hash: u64) -> PartitionId {
        // Two shifts, because a shift by 64 (one partition) is none.
        let top = (hash >> 1) >> (63 - self.bits);
        PartitionId(top as u16) // at most 15 bits
    }

    /// The partition of a key.
    #[inline]
    pub fn partition_of(&self, key: &[u8]) -> PartitionId {
        self.partition_of_hash(key_hash(key))
    }

    /// The core that owns a partition. A partition that does not exist belongs to the last core.
    #[inline]
    pub fn core_of(&self, partition: PartitionId) -> CoreId {
        // The inverse of the range formula: the largest c with c*P/n <= partition.
        let core = ((u32::from(partition.0) + 1) * u32::from(self.cores) - 1) >> self.bits;
        CoreId((core as u16).min(self.cores - 1)) // below 2^16 * 2^15 / 2^bits, then bounded
    }

    /// The core that owns a key.
    #[inline]
    pub fn core_of_key(&self, key: &[u8]) -> CoreId {
        self.core_of(self.partition_of(key))
    }

    /// The partitions a core owns; empty for a core that does not exist.
    pub fn range_of(&self, core: CoreId) -> Range<u16> {
        if core.0 >= self.cores {
            return 0..0;
        }
        let bound = |c: u32| ((c << self.bits) / u32::from(self.cores)) as u16; // at most 2^15
        bound(u32::from(core.0))..bound(u32::from(core.0) + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_impossible_maps() {
        assert_eq!(PartitionMap::new(0, 1), Err(PlacementError::Partitions(0)));
        assert_eq!(PartitionMap::new(1000, 1), Err(PlacementError::Partitions(1000)));
        assert_eq!(PartitionMap::new(1 << 16, 1), Err(PlacementError::Partitions(1 << 16)));
        assert_eq!(PartitionMap::new(8, 0), Err(PlacementError::Cores { cores: 0, partitions: 8 }));
        assert!(PartitionMap::new(8, 9).is_err());
    }

    #[test]
    fn one_partition_holds_everything() {
        let map = PartitionMap::new(1, 1).unwrap();
        assert_eq!(map.partition_of_hash(u64::MAX), PartitionId(0));
        assert_eq!(map.core_of(PartitionId(0)), CoreId(0));
        assert_eq!(map.range_of(CoreId(0)), 0..1);
        assert_eq!(map.range_of(CoreId(1)), 0..0);
    }

    #[test]
    fn nonexistent_partition_still_has_a_core() {
        let map = PartitionMap::new(16, 3).unwrap();
        assert_eq!(map.core_of(PartitionId::NONE), CoreId(2));
        let widest = PartitionMap::new(MAX_PARTITIONS, 1 << 15).unwrap();
        assert_eq!(widest.core_of(PartitionId::NONE), CoreId((1 << 15) - 1));
    }

    proptest! {
        #[test]
        fn ranges_tile_and_agree_with_core_of(bits in 0_u32..=15, cores in 1_u16..300) {
            let partitions = 1_u32 << bits;
            let Ok(map) = PartitionMap::new(partitions, cores) else {
                prop_assert!(u32::from(cores) > partitions);
                return Ok(());
            };
            let mut next = 0;
            let share = partitions / u32::from(cores);
            for core in 0..cores {
                let range = map.range_of(CoreId(core));
                prop_assert_eq!(range.start, next);
                prop_assert!((share..=share + 1).contains(&(range.len() as u32)));
                for partition in range.clone() {
                    prop_assert_eq!(map.core_of(PartitionId(partition)), CoreId(core));
                }
                next = range.end;
            }
            prop_assert_eq!(u32::from(next), partitions);
        }

        #[test]
        fn partition_is_the_top_bits(hash: u64, bits in 1_u32..=15) {
            let map = PartitionMap::new(1 << bits, 1).unwrap();
            prop_assert_eq!(u64::from(map.partition_of_hash(hash).0), hash >> (64 - bits));
        }
    }
}
