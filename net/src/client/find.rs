//! Finding the cluster: its members are asked for the topology one after the other; when none
//! answers soon, all addresses are asked at once that the cluster was ever reached at.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::address::Address;
use super::builder::Builder;
use super::cluster::{Cluster, View};
use super::node::Node;
use super::topology::Topology;
use super::{ClientError, lock};

/// How long the members have before others are asked.
const HEAD_START: Duration = Duration::from_secs(1);
/// Learnt addresses that are kept; beyond that the oldest goes.
const MOST_LEARNT: usize = 64;

/// Addresses of the cluster: those the caller gave, for ever, and those learnt.
#[derive(Debug)]
pub(super) struct Known {
    seeds: Vec<Address>,
    learnt: Mutex<Vec<Address>>,
}

impl Known {
    pub(super) fn new(seeds: Vec<Address>) -> Self {
        Self { seeds, learnt: Mutex::default() }
    }

    /// Remembers where nodes are. A text that is no address is left out.
    pub(super) fn learn(&self, topology: &Topology) {
        let mut learnt = lock(&self.learnt);
        for told in &topology.nodes {
            let Ok(address) = Address::parse(&told.address) else { continue };
            if !self.seeds.contains(&address) && !learnt.contains(&address) {
                learnt.push(address);
            }
        }
        let excess = learnt.len().saturating_sub(MOST_LEARNT);
        learnt.drain(..excess);
    }

    fn all(&self) -> Vec<Address> {
        self.seeds.iter().cloned().chain(lock(&self.learnt).iter().cloned()).collect()
    }
}

impl Cluster {
    /// Asks the cluster for its topology, the node `first` before others, and keeps what comes.
    pub(super) async fn ask(&self, first: Option<Arc<Node>>) -> Result<Arc<View>, ClientError> {
        let view = self.view();
        match timeout(HEAD_START, self.ask_members(&view, first)).await {
            Ok(Some(found)) => Ok(found),
            _ => self.ask_everywhere(&view).await,
        }
    }

    async fn ask_members(&self, view: &View, first: Option<Arc<Node>>) -> Option<Arc<View>> {
        for node in view.sources(first) {
            // Whoever is alone now has left the cluster.
            if let Ok(Some(topology)) = node.topology(self.settings()).await {
                return self.adopt(&view.home, topology).ok();
            }
        }
        None
    }

    async fn ask_everywhere(&self, view: &View) -> Result<Arc<View>, ClientError> {
        let mut asked = JoinSet::new();
        for address in self.known.all() {
            asked.spawn(ask_at(self.settings().clone(), address));
        }
        let mut failed = ClientError::Lost { possibly_applied: false };
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok((node, Some(topology)))) if view.is_like(&topology) => {
                    return self.adopt(&node, topology);
                }
                // Another cluster took the address over: its data is not this client's.
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => failed = error,
            }
        }
        Err(failed)
    }
}

async fn ask_at(
    settings: Builder,
    address: Address,
) -> Result<(Arc<Node>, Option<Topology>), ClientError> {
    let (node, _) = Node::connect(&settings, address).await?;
    let topology = node.topology(&settings).await?;
    Ok((Arc::new(node), topology))
}
