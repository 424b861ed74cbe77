//! How a node's cores share the partitions, and what the node accepts.

use coronet_ring::{CoreId, Epoch, NodeId, PartitionId, PartitionMap};

use crate::VERSION;
use crate::codec::HelloReply;
use crate::limits::Limits;

use super::ClientError;

/// The node's layout, as HELLO told it.
///
/// ```no_run
/// # async fn example(client: coronet_net::client::Client)
/// # -> Result<(), coronet_net::client::ClientError> {
/// let layout = client.layout();
/// let (partition, core) = layout.place(b"key");
/// println!("{partition} of {}, {core} of {}", layout.partitions(), layout.cores());
/// # Ok(())
/// # }
/// ```
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

    /// How partitions belong to cores.
    pub(super) fn map(&self) -> PartitionMap {
        self.map
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
