//! HELLO: versions, limits and the node's layout.
//!
//! Its frame always has the oldest version the client speaks. Later versions may append fields
//! to both bodies; readers ignore what they do not know.

use coronet_ring::bytes::Reader;
use coronet_ring::{CoreId, Epoch, Incarnation, NodeId};

use super::{DecodeError, read_short, write_short};
use crate::limits::{Limits, MAX_NAME};
use crate::{MIN_VERSION, VERSION};

/// A client's HELLO: min_version u8, max_version u8, wanted core u16, features u64, name
/// (u16 length, UTF-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Oldest version the client speaks.
    pub min_version: u8,
    /// Newest version the client speaks.
    pub max_version: u8,
    /// The core that shall serve the connection, or [`CoreId::ANY`].
    pub wanted_core: CoreId,
    /// Features the client has; none is defined yet.
    pub features: u64,
    /// What the client calls itself, for people.
    pub name: &'a str,
}

impl<'a> Hello<'a> {
    /// A HELLO with this crate's versions.
    pub fn new(wanted_core: CoreId, name: &'a str) -> Self {
        let (min_version, max_version) = (MIN_VERSION, VERSION);
        Self { min_version, max_version, wanted_core, features: 0, name }
    }

    /// Appends the body. A longer name than the limit is cut.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&[self.min_version, self.max_version]);
        body.extend_from_slice(&self.wanted_core.0.to_le_bytes());
        body.extend_from_slice(&self.features.to_le_bytes());
        let name = &self.name[..self.name.floor_char_boundary(MAX_NAME)];
        write_short(body, |body| body.extend_from_slice(name.as_bytes()));
    }

    /// Decodes the body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let (Some(min_version), Some(max_version), Some(core), Some(features)) =
            (reader.u8(), reader.u8(), reader.u16(), reader.u64())
        else {
            return Err(DecodeError::Truncated("HELLO"));
        };
        let name = read_short(&mut reader, "client name")?;
        if name.len() > MAX_NAME {
            return Err(DecodeError::OutOfBounds("length of the client name"));
        }
        let name = std::str::from_utf8(name).map_err(|_| DecodeError::Text("client name"))?;
        Ok(Self { min_version, max_version, wanted_core: CoreId(core), features, name })
    }
}

/// The newest version both sides speak.
pub fn negotiate(min_version: u8, max_version: u8) -> Option<u8> {
    let common = max_version.min(VERSION);
    (common >= min_version.max(MIN_VERSION)).then_some(common)
}

/// A node's answer: version u8, reserved u8, core u16, partitions u32, epoch u64, node id 16
/// bytes, incarnation u64, features u64, max_frame u32, max_reply u32, max_key u32, max_value
/// u32, in_flight u32, cores u16, one port u16 per core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloReply {
    /// The version of all later frames.
    pub version: u8,
    /// The core that serves this connection.
    pub core: CoreId,
    /// Number of partitions.
    pub partitions: u32,
    /// The placement's version.
    pub epoch: Epoch,
    /// The node.
    pub node_id: NodeId,
    /// The node's present life.
    pub incarnation: Incarnation,
    /// Features the node has; none is defined yet.
    pub features: u64,
    /// What the node accepts and sends.
    pub limits: Limits,
    /// Requests the connection may have in flight.
    pub in_flight: u32,
    /// The port of each data core, by core; they may all be the same.
    pub ports: Vec<u16>,
}

impl HelloReply {
    /// Appends the body.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&[self.version, 0]);
        body.extend_from_slice(&self.core.0.to_le_bytes());
        body.extend_from_slice(&self.partitions.to_le_bytes());
        body.extend_from_slice(&self.epoch.0.to_le_bytes());
        body.extend_from_slice(&self.node_id.0.to_le_bytes());
        body.extend_from_slice(&self.incarnation.0.to_le_bytes());
        body.extend_from_slice(&self.features.to_le_bytes());
        let Limits { max_frame, max_reply, max_key, max_value } = self.limits;
        for number in [max_frame, max_reply, max_key, max_value, self.in_flight] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        let ports = &self.ports[..self.ports.len().min(usize::from(u16::MAX))];
        body.extend_from_slice(&(ports.len() as u16).to_le_bytes()); // bounded above
        ports.iter().for_each(|port| body.extend_from_slice(&port.to_le_bytes()));
    }

    /// Decodes the body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(body)).ok_or(DecodeError::Truncated("HELLO reply"))
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let version = reader.u8()?;
        reader.u8()?;
        let core = CoreId(reader.u16()?);
        let partitions = reader.u32()?;
        let epoch = Epoch(reader.u64()?);
        let node_id = NodeId(reader.u128()?);
        let incarnation = Incarnation(reader.u64()?);
        let features = reader.u64()?;
        let limits = Limits {
            max_frame: reader.u32()?,
            max_reply: reader.u32()?,
            max_key: reader.u32()?,
            max_value: reader.u32()?,
        };
        let in_flight = reader.u32()?;
        let cores = usize::from(reader.u16()?);
        let ports = reader.take(cores * 2)?.chunks_exact(2);
        let ports = ports.map(|port| u16::from_le_bytes([port[0], port[1]])).collect();
        Some(Self {
            version,
            core,
            partitions,
            epoch,
            node_id,
            incarnation,
            features,
            limits,
            in_flight,
            ports,
        })
    }
}
