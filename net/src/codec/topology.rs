//! TOPOLOGY: the nodes of a cluster and where partitions are, for clients that pick a node
//! themselves.

use coronet_ring::NodeId;
use coronet_ring::bytes::Reader;

use super::{DecodeError, finished, read_short, write_short};

/// A node as the answering one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyNode {
    /// Who.
    pub id: NodeId,
    /// Whether the answering node can reach it.
    pub alive: bool,
    /// Its data cores.
    pub cores: u16,
    /// Where clients connect, `host:port`.
    pub address: String,
    /// Its rack.
    pub rack: String,
}

/// The body of a TOPOLOGY reply: replicas u8; nodes u16, each id u128, alive u8, cores u16,
/// address and rack (u16 length, UTF-8); table (u32 length, the placement table's own format;
/// empty while the nodes have not all met).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopologyReply {
    /// Replicas of a key.
    pub replicas: u8,
    /// The nodes, ascending by id.
    pub nodes: Vec<TopologyNode>,
    /// The encoded placement table.
    pub table: Vec<u8>,
}

impl TopologyReply {
    /// Appends the body.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.push(self.replicas);
        body.extend_from_slice(&(self.nodes.len() as u16).to_le_bytes()); // far fewer
        for node in &self.nodes {
            body.extend_from_slice(&node.id.0.to_le_bytes());
            body.push(u8::from(node.alive));
            body.extend_from_slice(&node.cores.to_le_bytes());
            write_short(body, |body| body.extend_from_slice(node.address.as_bytes()));
            write_short(body, |body| body.extend_from_slice(node.rack.as_bytes()));
        }
        body.extend_from_slice(&(self.table.len() as u32).to_le_bytes());
        body.extend_from_slice(&self.table);
    }

    /// Decodes the body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let cut = DecodeError::Truncated;
        let mut reader = Reader::new(body);
        let replicas = reader.u8().ok_or(cut("replicas"))?;
        let count = reader.u16().ok_or(cut("number of nodes"))?;
        let mut nodes = Vec::new();
        for _ in 0..count {
            let id = NodeId(reader.u128().ok_or(cut("node"))?);
            let alive = reader.u8().ok_or(cut("node state"))? != 0;
            let cores = reader.u16().ok_or(cut("node cores"))?;
            let address = text(&mut reader, "node address")?;
            let rack = text(&mut reader, "rack")?;
            nodes.push(TopologyNode { id, alive, cores, address, rack });
        }
        let len = reader.u32().ok_or(cut("table length"))?;
        let table = reader.take(len as usize).ok_or(cut("table"))?.to_vec();
        finished(&reader)?;
        Ok(Self { replicas, nodes, table })
    }
}

fn text(reader: &mut Reader<'_>, field: &'static str) -> Result<String, DecodeError> {
    let bytes = read_short(reader, field)?;
    Ok(std::str::from_utf8(bytes).map_err(|_| DecodeError::Text(field))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_every_cut_is_noticed() {
        let node = |id, alive| TopologyNode {
            id: NodeId(id),
            alive,
            cores: 2,
            address: "127.0.0.1:4720".to_owned(),
            rack: "a".to_owned(),
        };
        let nodes = vec![node(1, true), node(2, false)];
        let reply = TopologyReply { replicas: 3, nodes, table: b"table".to_vec() };
        let mut body = Vec::new();
        reply.write(&mut body);
        assert_eq!(TopologyReply::decode(&body), Ok(reply));
        for len in 0..body.len() {
            assert!(TopologyReply::decode(&body[..len]).is_err(), "{len}");
        }
        body.push(0);
        assert!(TopologyReply::decode(&body).is_err());
    }
}
