//! The smaller replies: STATS and ROUTE.

use coronet_ring::bytes::Reader;
use coronet_ring::{CoreId, Epoch, NodeId, PartitionId};

use super::{DecodeError, finished, read_short, write_short};

/// The body of a STATS reply: count u32; per counter name (u16 length, UTF-8), value u64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatsReply {
    /// Counters by name, in the node's order.
    pub counters: Vec<(String, u64)>,
}

impl StatsReply {
    /// Appends a body of these counters.
    pub fn write<'n>(body: &mut Vec<u8>, counters: impl IntoIterator<Item = (&'n str, u64)>) {
        let at = body.len();
        body.extend_from_slice(&[0; 4]);
        let mut count = 0_u32;
        for (name, value) in counters {
            write_short(body, |body| body.extend_from_slice(name.as_bytes()));
            body.extend_from_slice(&value.to_le_bytes());
            count += 1;
        }
        body[at..at + 4].copy_from_slice(&count.to_le_bytes());
    }

    /// Decodes the body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let count = reader.u32().ok_or(DecodeError::Truncated("number of counters"))?;
        let mut counters = Vec::new();
        for _ in 0..count {
            let name = read_short(&mut reader, "counter name")?;
            let name = std::str::from_utf8(name).map_err(|_| DecodeError::Text("counter name"))?;
            let value = reader.u64().ok_or(DecodeError::Truncated("counter"))?;
            counters.push((name.to_owned(), value));
        }
        finished(&reader)?;
        Ok(Self { counters })
    }

    /// A counter's value.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.counters.iter().find(|(listed, _)| listed == name).map(|(_, value)| *value)
    }
}

/// The body of a ROUTE reply: partition u16, core u16, epoch u64, node id 16 bytes. Later
/// versions may append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteReply {
    /// The key's partition.
    pub partition: PartitionId,
    /// The core that owns it.
    pub core: CoreId,
    /// The placement's version.
    pub epoch: Epoch,
    /// The node the core is of.
    pub node_id: NodeId,
}

impl RouteReply {
    /// Appends the body.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.partition.0.to_le_bytes());
        body.extend_from_slice(&self.core.0.to_le_bytes());
        body.extend_from_slice(&self.epoch.0.to_le_bytes());
        body.extend_from_slice(&self.node_id.0.to_le_bytes());
    }

    /// Decodes the body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let (Some(partition), Some(core), Some(epoch), Some(node_id)) =
            (reader.u16(), reader.u16(), reader.u64(), reader.u128())
        else {
            return Err(DecodeError::Truncated("ROUTE reply"));
        };
        Ok(Self {
            partition: PartitionId(partition),
            core: CoreId(core),
            epoch: Epoch(epoch),
            node_id: NodeId(node_id),
        })
    }
}
