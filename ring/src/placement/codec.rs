//! The table as bytes. Format 1, little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `CRPT` |
//! | 1 | version, 1 |
//! | 1 | log2 of the number of partitions |
//! | 1 | places per partition |
//! | 1 | 0 |
//! | 8 | epoch |
//! | 2 | `n`, nodes |
//! | `n` times | id (16), weight (4), length of the rack's name (1), name (UTF-8); ascending by id |
//! | 2 per place | index of a node, 65535 for none (only at the end of a list) |
//! | 8 | XXH3-64 of all bytes before |

use xxhash_rust::xxh3::xxh3_64;

use super::partition::MAX_PARTITIONS;
use super::table::{EMPTY, MAX_DEPTH, MAX_NODES, MAX_RACK, PlacedNode, Table, TableError};
use crate::bytes::Reader;
use crate::ids::{Epoch, NodeId};

const MAGIC: &[u8; 4] = b"CRPT";
const VERSION: u8 = 1;

impl Table {
    /// Appends the encoded table.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(MAGIC);
        let bits = self.partitions().trailing_zeros() as u8; // at most 15
        into.extend_from_slice(&[VERSION, bits, self.depth, 0]);
        into.extend_from_slice(&self.epoch.0.to_le_bytes());
        into.extend_from_slice(&(self.nodes.len() as u16).to_le_bytes()); // at most MAX_NODES
        for node in &self.nodes {
            into.extend_from_slice(&node.id.0.to_le_bytes());
            into.extend_from_slice(&node.weight.to_le_bytes());
            into.push(node.rack.len() as u8); // at most MAX_RACK
            into.extend_from_slice(node.rack.as_bytes());
        }
        self.places.iter().for_each(|place| into.extend_from_slice(&place.to_le_bytes()));
        let check = xxh3_64(&into[start..]);
        into.extend_from_slice(&check.to_le_bytes());
    }

    /// Decodes and checks a table.
    pub fn decode(bytes: &[u8]) -> Result<Table, TableError> {
        let (payload, check) = bytes.split_last_chunk::<8>().ok_or(TableError::Damaged)?;
        if xxh3_64(payload) != u64::from_le_bytes(*check) {
            return Err(TableError::Damaged);
        }
        read(&mut Reader::new(payload)).ok_or(TableError::Damaged)
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Table> {
    let known = reader.array::<4>()? == *MAGIC && reader.u8()? == VERSION;
    let (bits, depth, zero) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let partitions = 1_u32.checked_shl(u32::from(bits)).filter(|p| *p <= MAX_PARTITIONS)?;
    if !known || zero != 0 || depth == 0 || depth > MAX_DEPTH {
        return None;
    }
    let epoch = Epoch(reader.u64()?);
    let count = usize::from(reader.u16()?);
    if count > MAX_NODES {
        return None;
    }
    let mut nodes: Vec<PlacedNode> = Vec::new();
    for _ in 0..count {
        let (id, weight) = (NodeId(reader.u128()?), reader.u32()?);
        let len = usize::from(reader.u8()?);
        let rack = std::str::from_utf8(reader.take(len)?).ok()?.to_owned();
        if len > MAX_RACK || nodes.last().is_some_and(|last| last.id >= id) {
            return None;
        }
        nodes.push(PlacedNode { id, rack, weight });
    }
    let wanted = partitions as usize * usize::from(depth);
    if reader.len() != wanted * 2 {
        return None;
    }
    let mut places = Vec::with_capacity(wanted);
    while let Some(place) = reader.u16() {
        places.push(place);
    }
    places.chunks(usize::from(depth)).all(|list| sound(list, count)).then_some(())?;
    Some(Table { epoch, depth, nodes, places })
}

/// Distinct nodes that exist, then empty places.
fn sound(list: &[u16], nodes: usize) -> bool {
    let filled = list.iter().position(|place| *place == EMPTY).unwrap_or(list.len());
    let (some, none) = list.split_at(filled);
    none.iter().all(|place| *place == EMPTY)
        && some
            .iter()
            .enumerate()
            .all(|(at, place)| usize::from(*place) < nodes && !some[..at].contains(place))
}
