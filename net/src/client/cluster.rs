//! Which nodes there are, which of them a request goes to, and how that is kept fresh.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use coronet_ring::{Epoch, NodeId, PartitionId, Table};
use tokio::time::Instant;

use super::address::Address;
use super::builder::Builder;
use super::call::Target;
use super::find::Known;
use super::layout::Layout;
use super::node::Node;
use super::topology::Topology;
use super::{ClientError, lock};

/// The topology is asked for at most this often, whatever gives reason to.
const LEAST_AGE: Duration = Duration::from_millis(100);
/// While a node is down or the placement is missing, it is asked for this often.
const TROUBLED_AGE: Duration = Duration::from_secs(1);
/// Members asked for the topology in one go before the caller's own addresses are tried again.
const ASKED_AT_ONCE: usize = 5;

/// What is known of the cluster at a time.
#[derive(Debug)]
pub(super) struct View {
    /// The cluster; `None` for a node alone.
    pub topology: Option<Topology>,
    /// The node the client came to first.
    pub home: Arc<Node>,
    nodes: HashMap<NodeId, (Arc<Node>, bool)>,
}

impl View {
    fn alone(home: Arc<Node>) -> Self {
        Self { topology: None, home, nodes: HashMap::new() }
    }

    fn new(home: Arc<Node>, topology: Topology, known: &View) -> Result<Self, ClientError> {
        home.member.store(true, Ordering::Relaxed);
        let mut nodes = HashMap::new();
        for told in &topology.nodes {
            let address = Address::parse(&told.address)?;
            let old = match known.nodes.get(&told.id) {
                Some((node, _)) => Some(node),
                None => Some(&home).filter(|home| home.id == told.id),
            };
            // The address by which the client came may be another than the node's own, because
            // ports are forwarded; it is kept for as long as it works.
            let node = match old {
                Some(node) if node.address == address || node.is_connected() => Arc::clone(node),
                _ => Arc::new(Node::member(told.id, address, told.cores)),
            };
            nodes.insert(told.id, (node, told.alive));
        }
        let home = match nodes.get(&home.id) {
            Some((moved, _)) if !home.is_connected() => Arc::clone(moved),
            _ => home,
        };
        Ok(Self { topology: Some(topology), home, nodes })
    }

    /// The version of the placement; `None` for a node alone.
    pub fn epoch(&self) -> Option<Epoch> {
        self.topology.as_ref().map(Topology::epoch)
    }

    /// Number of partitions, once there is a placement.
    pub fn partitions(&self) -> Option<u32> {
        self.topology.as_ref()?.table.as_ref().map(Table::partitions)
    }

    /// Whether a request can go to another node than those tried, one that seems alive.
    pub fn has_other(&self, target: Target<'_>, tried: &[NodeId]) -> bool {
        let other = |id: &NodeId| !tried.contains(id) && self.fit(*id).is_some();
        !matches!(target, Target::Core(_)) && self.nodes.keys().any(other)
    }

    /// The node a request goes to: a live replica of its key in order of preference, so that all
    /// clients have writes of a key named by the same replica; nodes not tried yet before others,
    /// replicas before the rest. What seems dead is tried once the others were twice.
    pub fn pick(&self, target: Target<'_>, tried: &[NodeId]) -> Arc<Node> {
        let partition = match target {
            Target::Core(_) => None,
            Target::Key(key) => self.topology.as_ref().and_then(|t| t.partition_of(key)),
            Target::Partition(partition) => Some(partition),
        };
        let (Some(topology), false) = (&self.topology, matches!(target, Target::Core(_))) else {
            return Arc::clone(&self.home);
        };
        let replicas = partition.map_or_else(Vec::new, |p| topology.replicas_of(p));
        let first = replicas.iter().filter(|id| !tried.contains(id)).find_map(|id| self.fit(*id));
        if let Some(node) = first {
            return Arc::clone(node);
        }
        let rank = |id: &NodeId| {
            let times = tried.iter().filter(|other| *other == id).count();
            let place = replicas.iter().position(|other| other == id).unwrap_or(usize::MAX);
            let shuffled = id.0 as u64 ^ u64::from(partition.unwrap_or(PartitionId::NONE).0);
            let unfit = if self.fit(*id).is_some() { 0 } else { 2 };
            (times + unfit, place, shuffled.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        };
        let best = self.nodes.iter().min_by_key(|(id, _)| (rank(id), **id));
        Arc::clone(best.map_or(&self.home, |(_, (node, _))| node))
    }

    /// The node, if it seems alive both to the cluster and to this client.
    fn fit(&self, id: NodeId) -> Option<&Arc<Node>> {
        let (node, alive) = self.nodes.get(&id)?;
        (*alive && !node.is_shunned()).then_some(node)
    }

    fn is_troubled(&self) -> bool {
        self.partitions().is_none() || self.nodes.values().any(|(_, alive)| !alive)
    }

    /// Whether a topology is of the same cluster: it has a node in common with what is known.
    pub(super) fn is_like(&self, topology: &Topology) -> bool {
        topology
            .nodes
            .iter()
            .any(|told| told.id == self.home.id || self.nodes.contains_key(&told.id))
    }

    /// Whom to ask for the topology, best first.
    pub(super) fn sources(&self, first: Option<Arc<Node>>) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = self.nodes.values().collect();
        nodes.sort_by_key(|(node, alive)| {
            (!node.is_connected(), !alive || node.is_shunned(), node.id)
        });
        let rest = nodes.into_iter().map(|(node, _)| Arc::clone(node));
        let home = Arc::clone(&self.home);
        first.into_iter().chain(rest.take(ASKED_AT_ONCE)).chain([home]).collect()
    }
}

#[derive(Debug)]
struct Freshness {
    asked: Instant,
    asking: bool,
}

/// The cluster as a client knows it.
#[derive(Debug)]
pub(super) struct Cluster {
    settings: Builder,
    /// Where the cluster was ever reached.
    pub(super) known: Known,
    /// Of the node the client came to first, when it came.
    layout: Arc<Layout>,
    view: RwLock<Arc<View>>,
    freshness: Mutex<Freshness>,
}

impl Cluster {
    /// Connects to the first of the addresses that answers.
    pub async fn connect(settings: Builder, seeds: Vec<Address>) -> Result<Self, ClientError> {
        let mut failed = ClientError::Address(String::new());
        let mut silent = Vec::new();
        for seed in &seeds {
            match first_view(&settings, seed.clone()).await {
                Ok((view, layout)) => {
                    let freshness = Freshness { asked: Instant::now(), asking: false };
                    let known = Known::new(seeds.clone());
                    view.topology.iter().for_each(|topology| known.learn(topology));
                    let (view, freshness) = (RwLock::new(Arc::new(view)), Mutex::new(freshness));
                    return Ok(Self { settings, known, layout, view, freshness });
                }
                Err(ClientError::Connect { address, source, possibly_applied }) => {
                    // All of them are named, with the reason of the last.
                    silent.push(address);
                    let address = silent.join(", ");
                    failed = ClientError::Connect { address, source, possibly_applied };
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    pub fn settings(&self) -> &Builder {
        &self.settings
    }

    /// The layout of the node the client came to first, as last heard.
    pub fn layout(&self) -> Arc<Layout> {
        self.view().home.layout().unwrap_or_else(|| Arc::clone(&self.layout))
    }

    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The topology, asked for now; `None` for a node in no cluster.
    pub async fn topology(&self) -> Result<Option<Topology>, ClientError> {
        let view = self.view();
        match view.topology {
            None => view.home.topology(&self.settings).await,
            Some(_) => Ok(self.ask(None).await?.topology.clone()),
        }
    }

    /// Keeps a topology unless a newer one is known.
    pub(super) fn adopt(
        &self,
        home: &Arc<Node>,
        topology: Topology,
    ) -> Result<Arc<View>, ClientError> {
        self.known.learn(&topology);
        let mut kept = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if kept.epoch().is_some_and(|known| topology.epoch() < known) {
            return Ok(Arc::clone(&kept));
        }
        let view = Arc::new(View::new(Arc::clone(home), topology, &kept)?);
        *kept = Arc::clone(&view);
        Ok(view)
    }

    /// Asks for the topology in the background when there is reason to: a request failed or met a
    /// newer placement (`now`), or what is known has become old. A node alone is left alone.
    pub fn keep_fresh(self: &Arc<Self>, view: &View, first: Option<&Arc<Node>>, now: bool) {
        if view.topology.is_none() {
            return;
        }
        let age = match now {
            true => LEAST_AGE,
            false if view.is_troubled() => TROUBLED_AGE.min(self.settings.refresh),
            false => self.settings.refresh,
        };
        {
            let mut freshness = lock(&self.freshness);
            if freshness.asking || freshness.asked.elapsed() < age {
                return;
            }
            *freshness = Freshness { asked: Instant::now(), asking: true };
        }
        let (cluster, first) = (Arc::clone(self), first.cloned());
        tokio::spawn(async move {
            // Should nobody answer, requests say so, and the next one gives reason to ask again.
            let _ = cluster.ask(first).await;
            *lock(&cluster.freshness) = Freshness { asked: Instant::now(), asking: false };
        });
    }
}

async fn first_view(settings: &Builder, seed: Address) -> Result<(View, Arc<Layout>), ClientError> {
    let (home, layout) = Node::connect(settings, seed).await?;
    let home = Arc::new(home);
    let alone = View::alone(Arc::clone(&home));
    let view = match home.topology(settings).await? {
        _ if settings.pinned => alone,
        Some(topology) => View::new(home, topology, &alone)?,
        None => alone,
    };
    Ok((view, layout))
}

#[cfg(test)]
mod tests {
    use coronet_ring::PlacedNode;

    use super::*;
    use crate::codec::TopologyNode;

    fn node(id: u128) -> Arc<Node> {
        let address = Address { host: "host".to_owned(), port: 4720 };
        Arc::new(Node::member(NodeId(id), address, 1))
    }

    /// Five nodes, the fifth of which is dead; three replicas of each key.
    fn view() -> View {
        let told = |id| TopologyNode {
            id: NodeId(id),
            alive: id != 5,
            cores: 1,
            address: format!("host-{id}:4720"),
            rack: format!("rack {id}"),
        };
        let nodes: Vec<_> = (1..=5).map(told).collect();
        let placed =
            nodes.iter().map(|node| PlacedNode { id: node.id, rack: node.rack.clone(), weight: 1 });
        let table = Table::create(Epoch(1), 64, 3, placed.collect()).unwrap();
        let topology = Topology { replicas: 3, nodes, table: Some(table) };
        let home = node(1);
        View::new(Arc::clone(&home), topology, &View::alone(home)).unwrap()
    }

    #[test]
    fn replicas_that_fail_are_passed_over_and_dead_nodes_come_last() {
        let view = view();
        for partition in (0..64).map(PartitionId) {
            let target = Target::Partition(partition);
            let replicas = view.topology.as_ref().unwrap().replicas_of(partition);
            let live: Vec<_> = replicas.iter().copied().filter(|id| *id != NodeId(5)).collect();
            let pick = |tried: &[NodeId]| view.pick(target, tried).id;
            assert_eq!(pick(&[]), live[0]);
            assert_eq!(pick(&live[..1]), live[1]);
            let mut order = Vec::new();
            for _ in 0..13 {
                order.push(pick(&order));
            }
            assert_eq!(order[..live.len()], live, "replicas first");
            assert_eq!(order[4], live[0], "then from the beginning");
            let dead = order.iter().position(|id| *id == NodeId(5)).unwrap();
            assert!((8..13).contains(&dead), "{order:?}");
        }
        let target = Target::Partition(PartitionId(0));
        let replicas = view.topology.as_ref().unwrap().replicas_of(PartitionId(0));
        let first = view.pick(target, &[]);
        first.shun();
        let second = view.pick(target, &[]);
        assert!(second.id != first.id && replicas.contains(&second.id));
        assert_eq!(view.pick(Target::Core(coronet_ring::CoreId(0)), &[]).id, view.home.id);
    }
}
