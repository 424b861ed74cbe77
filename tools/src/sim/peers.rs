//! A node's side of the wires to other nodes, and a look at what one replica holds.

use std::net::SocketAddr;
use std::rc::Rc;

use coronet_lsm::env::Env;
use coronet_ring::coordinate::message::{Answer, Ask};
use coronet_ring::{KeyspaceId, PartitionId, PartitionMap};
use coronet_server::node::{ConnId, CoreMessage, Door, ShardAsk};

use super::internet::PipeEnd;
use super::network::{Far, Link, Network, PROBES};

impl Network {
    pub(super) fn dial(self: &Rc<Self>, ticket: u64, address: SocketAddr) {
        match &self.internet {
            Some((internet, host)) => internet.dial(*host, self, ticket, address),
            None => unreachable!("a node on its own dials nobody, not even {address}"),
        }
    }

    /// A connection between nodes has come to be; links live on the control core. `None` while
    /// the node is not up.
    pub(super) fn connect_node(self: &Rc<Self>, door: Door, pipe: PipeEnd) -> Option<ConnId> {
        let core = self.control_on();
        let node = self.node(core)?;
        let conn = self.new_conn();
        let link = Link::new(core, Far::Node(pipe), self.env().now());
        self.links.borrow_mut().insert(conn, link);
        node.connect(conn, door);
        self.schedule_pump(core);
        Some(conn)
    }

    pub(super) fn dial_failed(self: &Rc<Self>, ticket: u64) {
        let core = self.control_on();
        if let Some(node) = self.node(core) {
            node.dial_failed(ticket);
            self.schedule_pump(core);
        }
    }

    /// Bytes of another node arrived.
    pub(super) fn from_node(self: &Rc<Self>, conn: ConnId, bytes: Vec<u8>) {
        self.arrive_up(conn, bytes);
    }

    /// The process is gone: its clients notice.
    pub fn break_off(&self) {
        let links = std::mem::take(&mut *self.links.borrow_mut());
        for link in links.into_values() {
            if let Far::Client(client) = link.far
                && let Some(client) = client.upgrade()
            {
                client.hung_up();
            }
        }
    }

    /// What this node's own copy of a key is, read past the coordinator. The outer `None`: the
    /// node does not say.
    pub async fn probe(self: &Rc<Self>, partitions: u32, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let map = PartitionMap::new(partitions, self.cores()).ok()?;
        let partition = map.partition_of(key);
        match self.probe_with(map, partition, key, Ask::Read { inline: u32::MAX }).await? {
            Answer::Copy(copy) => Some(copy),
            _ => None,
        }
    }

    async fn probe_with(
        self: &Rc<Self>,
        map: PartitionMap,
        partition: PartitionId,
        key: &[u8],
        ask: Ask,
    ) -> Option<Answer> {
        let core = map.core_of(partition);
        let node = self.node(core)?;
        let ticket = PROBES + self.new_conn().0;
        let (sender, answer) = tokio::sync::oneshot::channel();
        self.probes.borrow_mut().insert(ticket, sender);
        let ask = ShardAsk {
            ticket,
            keyspace: KeyspaceId::DEFAULT,
            partition,
            key: key.to_vec(),
            ask,
            deadline: None,
        };
        node.core_message(CoreMessage::Ask(ask));
        self.schedule_pump(core);
        answer.await.ok()
    }
}
