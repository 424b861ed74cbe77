//! Where a listing goes on: opaque to clients, checked by nodes.
//!
//! Format 1, little endian: version u8, log2 of the number of partitions u8, partition u16, hash
//! of the prefix u64 (bound to the keyspace, see [`KeyspaceId::bind`]), last key (u32 length, bytes;
//! empty at the start of the partition), CRC-32C u32 of all bytes before. A forged cursor does no harm: it is a place to start, nothing more.

use coronet_ring::bytes::Reader;
use coronet_ring::{KeyspaceId, PartitionId, key_hash};
use thiserror::Error;

const VERSION: u8 = 1;

/// Why bytes are not a cursor of this listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CursorError {
    /// Cut off or damaged.
    #[error("cursor is damaged")]
    Damaged,
    /// Made by a later version.
    #[error("cursor has version {0}, this node reads version {VERSION}")]
    Version(u8),
    /// Made for another prefix or keyspace.
    #[error("cursor belongs to a listing of another prefix or keyspace")]
    OtherPrefix,
    /// Made for another number of partitions, or a partition beyond it.
    #[error("cursor does not fit {0} partitions")]
    Partitions(u32),
}

/// A place in a listing: after `last_key` of `partition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor<'a> {
    /// The partition to go on in.
    pub partition: PartitionId,
    /// The last key already listed there; empty for none.
    pub last_key: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Appends the cursor of a listing of `prefix` in a keyspace over `partitions` (a power of
    /// two).
    pub fn encode(&self, keyspace: KeyspaceId, prefix: &[u8], partitions: u32, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&[VERSION, partitions.trailing_zeros() as u8]); // at most 32
        into.extend_from_slice(&self.partition.0.to_le_bytes());
        into.extend_from_slice(&keyspace.bind(key_hash(prefix)).to_le_bytes());
        into.extend_from_slice(&(self.last_key.len() as u32).to_le_bytes()); // keys are limited
        into.extend_from_slice(self.last_key);
        let crc = crc32c::crc32c(&into[start..]);
        into.extend_from_slice(&crc.to_le_bytes());
    }

    /// Checks and borrows a cursor of a listing of `prefix` in a keyspace over `partitions`.
    pub fn decode(
        bytes: &'a [u8],
        keyspace: KeyspaceId,
        prefix: &[u8],
        partitions: u32,
    ) -> Result<Self, CursorError> {
        let (payload, crc) = bytes.split_last_chunk::<4>().ok_or(CursorError::Damaged)?;
        if crc32c::crc32c(payload) != u32::from_le_bytes(*crc) {
            return Err(CursorError::Damaged);
        }
        let mut reader = Reader::new(payload);
        let version = reader.u8().ok_or(CursorError::Damaged)?;
        if version != VERSION {
            return Err(CursorError::Version(version));
        }
        let (Some(bits), Some(partition), Some(hash), Some(len)) =
            (reader.u8(), reader.u16(), reader.u64(), reader.u32())
        else {
            return Err(CursorError::Damaged);
        };
        let last_key = reader.rest();
        if last_key.len() as u64 != u64::from(len) {
            return Err(CursorError::Damaged);
        }
        if hash != keyspace.bind(key_hash(prefix))
            || !(last_key.is_empty() || last_key.starts_with(prefix))
        {
            return Err(CursorError::OtherPrefix);
        }
        if u32::from(bits) != partitions.trailing_zeros() || u32::from(partition) >= partitions {
            return Err(CursorError::Partitions(partitions));
        }
        Ok(Self { partition: PartitionId(partition), last_key })
    }
}
