//! Several real nodes that form a cluster on loopback. Used by process tests as a module.
#![allow(dead_code)]

use std::path::Path;
use std::time::{Duration, Instant};

use coronet_net::client::RequestOptions;
use coronet_net::client::blocking::Client;
use coronet_net::{Quorum, QuorumMode};
use tempfile::TempDir;

use super::support::{Server, free_addresses};
use super::wires::Wires;

/// How long something that the cluster does by itself may take. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// The nodes; `None` where one is down.
pub struct Cluster {
    dir: TempDir,
    peers: Vec<String>,
    /// Where each listens for clients; the same after a restart.
    clients: Vec<String>,
    replicas: u8,
    /// What nodes dial each other through, where the network can be cut.
    pub wires: Option<Wires>,
    pub nodes: Vec<Option<Server>>,
}

impl Cluster {
    /// Starts `N` nodes and waits until they have met.
    pub fn start<const N: usize>(replicas: u8) -> Cluster {
        Cluster::launch_all(replicas, free_addresses::<N>().to_vec(), None)
    }

    /// The same on a network that can be cut.
    pub fn start_on_wires<const N: usize>(replicas: u8) -> Cluster {
        let peers = free_addresses::<N>().to_vec();
        let wires = Wires::to(&peers);
        let cluster = Cluster::launch_all(replicas, peers, Some(wires));
        let node = |index| cluster.client(index).get(b"who").expect("an answer").info.node;
        if let Some(wires) = &cluster.wires {
            wires.name((0..N).map(node));
        }
        cluster
    }

    fn launch_all(replicas: u8, peers: Vec<String>, wires: Option<Wires>) -> Cluster {
        let dir = tempfile::tempdir().expect("folder");
        let count = peers.len();
        let (clients, nodes) = (Vec::new(), Vec::new());
        let mut cluster = Cluster { dir, peers, clients, replicas, wires, nodes };
        for index in 0..count {
            // Drawn only now: links between nodes take ports of the same range meanwhile.
            cluster.clients.push(free_addresses::<1>().concat());
            let node = cluster.launch(index);
            cluster.nodes.push(Some(node));
        }
        for index in 0..count {
            cluster.wait_until_met(index);
        }
        cluster
    }

    fn launch(&self, index: usize) -> Server {
        let dialed = self.wires.as_ref().map_or(&self.peers[..], Wires::addresses);
        let nodes = dialed.join(",");
        let (replicas, rack) = (self.replicas.to_string(), format!("rack-{index}"));
        Server::start_at(
            &self.clients[index],
            &self.folder(index),
            &[
                ("CORONET_LISTEN_PEERS", &self.peers[index]),
                ("CORONET_CLUSTER_ADDRESS", &dialed[index]),
                ("CORONET_CLUSTER_NODES", &nodes),
                ("CORONET_CLUSTER_REPLICAS", &replicas),
                ("CORONET_CLUSTER_RACK", &rack),
            ],
        )
    }

    /// A node's data folder.
    pub fn folder(&self, index: usize) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(format!("node-{index}"))
    }

    /// What a node has logged.
    pub fn log(&self, index: usize) -> String {
        self.nodes[index].as_ref().expect("the node runs").log()
    }

    /// A client that has one node coordinate everything.
    pub fn client(&self, index: usize) -> Client {
        let node = self.nodes[index].as_ref().expect("the node runs");
        let pinned = coronet_net::client::Client::builder().pinned();
        Client::connect_with(pinned, node.addr.as_str()).expect("connect")
    }

    /// The addresses of the nodes that run.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().flatten().map(|node| node.addr.clone()).collect()
    }

    /// Waits until a node can read from all others, which takes links and a placement.
    pub fn wait_until_met(&self, index: usize) {
        let alive = self.nodes.iter().flatten().count() as u8;
        let client = self.client(index);
        let all = strict().r(Quorum(alive.min(self.replicas)));
        wait("the nodes meet", || {
            // Keys of many partitions: the placement need not put all nodes into each.
            (0..64_u32).all(|n| client.get_with(&n.to_le_bytes(), &all).is_ok())
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].take().expect("the node runs").kill9();
    }

    /// SIGTERM; the node must end well.
    pub fn stop(&mut self, index: usize) {
        assert!(self.nodes[index].take().expect("the node runs").stop().success());
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, index: usize) {
        self.nodes[index] = Some(self.launch(index));
    }
}

/// Options that count replicas only.
pub fn strict() -> RequestOptions {
    RequestOptions::new().quorum_mode(QuorumMode::Strict)
}

/// Waits until `done`, for longer than it can take.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
