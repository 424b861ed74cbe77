//! Where the node is and how its cores share the partitions.

use coronet_ring::{CoreId, Epoch, NodeId, PartitionId, PartitionMap};

use crate::codec::HelloReply;
use crate::limits::Limits;
use crate::{DEFAULT_PORT, VERSION};

use super::ClientError;

/// The node's layout, as HELLO told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    map: PartitionMap,
    epoch: Epoch,
    node_id: NodeId,
    limits: Limits,
    ports: Vec<u16>,
}

impl Layout {
    pub(super) fn new(hello: &HelloReply) -> Result<Self, ClientError> {
        if hello.version != VERSION {
            let text = format!("HELLO chose version {}, not {VERSION}", hello.version);
            return Err(ClientError::Protocol(text));
        }
        let cores = u16::try_from(hello.ports.len()).unwrap_or(u16::MAX);
        let map = PartitionMap::new(hello.partitions, cores)
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        Ok(Self {
            map,
            epoch: hello.epoch,
            node_id: hello.node_id,
            limits: hello.limits,
            ports: hello.ports.clone(),
        })
    }

    /// Number of data cores.
    pub fn cores(&self) -> u16 {
        self.map.cores()
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u32 {
        self.map.partitions()
    }

    /// The placement's version.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The node.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// What the node accepts and sends.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The partition of a key and the core that owns it.
    pub fn place(&self, key: &[u8]) -> (PartitionId, CoreId) {
        let partition = self.map.partition_of(key);
        (partition, self.map.core_of(partition))
    }

    /// The core that owns a partition.
    pub fn core_of(&self, partition: PartitionId) -> CoreId {
        self.map.core_of(partition)
    }

    /// The port to reach a core at. While all cores share one port, that is the one the caller
    /// named, so that a forwarded port works.
    pub(super) fn port_of(&self, core: CoreId, named: u16) -> u16 {
        match self.ports.first() {
            Some(first) if self.ports.iter().any(|port| port != first) => {
                self.ports.get(core.index()).copied().unwrap_or(named)
            }
            _ => named,
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads `host`, `host:port`, `[v6]`, `[v6]:port` or a bare `v6` address.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::Address(text.to_owned());
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| bad()))?;
        if host.is_empty() || port == 0 {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, host, port) in [
            ("localhost", "localhost", 4720),
            ("10.0.0.1:99", "10.0.0.1", 99),
            ("[::1]:99", "::1", 99),
            ("[::1]", "::1", 4720),
            ("::1", "::1", 4720),
        ] {
            let parsed = Address::parse(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{text}");
        }
        for text in ["", ":1", "h:", "h:0", "h:70000", "h:x", "[::1]x"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
