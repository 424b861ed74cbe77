//! Starting and stopping a simulated node, in the order production does.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm as lsm;
use coronet_lsm::env::{Env, TaskClass};
use coronet_net::Limits as WireLimits;
use coronet_ring::PartitionMap;
use coronet_ring::coordinate::message::Durability;
use coronet_ring::gossip::member::{Member, Newness, Standing};
use coronet_ring::gossip::snapshot::SnapshotError;
use coronet_server::config::ClusterSettings;
use coronet_server::data_dir::{DataDir, DataDirError, Identity, Wanted};
use coronet_server::node::{
    BlindWrites, Cluster, ClusterConfig, Control, CoreId, Limits, NodeCore, OpenError, Shard,
    ShardConfig, read_cluster_view,
};
use coronet_sim::{Rng, SimEnv};
use thiserror::Error;

use super::env::SimNodeEnv;
use super::internet::Internet;
use super::network::Network;

/// Why a simulated node does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data folder.
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    /// A core's shard.
    #[error("{0}")]
    Shard(#[from] OpenError),
    /// What is stored of the cluster cannot be read.
    #[error("{0}")]
    View(std::io::Error),
    /// What is stored of the cluster is not of this cluster.
    #[error("{0}")]
    OtherCluster(#[from] SnapshotError),
}

/// A running node. Dropping it leaves its tasks to the simulation's crash.
pub struct SimNode {
    network: Rc<Network>,
}

/// How a simulated node takes part in a cluster.
#[derive(Clone)]
pub struct Membership {
    /// The wires to the others, and which host this node is there.
    pub internet: Rc<Internet>,
    /// See [`Membership::internet`].
    pub host: usize,
    /// What nodes and N are configured as.
    pub settings: ClusterSettings,
    /// Where other nodes reach this one.
    pub peers: SocketAddr,
}

impl SimNode {
    /// Opens a member of a cluster, as [`SimNode::start`] does.
    pub async fn start_member(
        env: SimEnv,
        rng: Rng,
        dir: &Path,
        wanted: Wanted,
        membership: &Membership,
    ) -> Result<Self, StartError> {
        let opened = DataDir::open(&env, dir, &wanted).await?;
        let view = read_cluster_view(&env, dir).await.map_err(StartError::View)?;
        let (internet, host) = (&membership.internet, membership.host);
        let network = Network::among(env.clone(), rng, wanted.cores, internet, host);
        network.set_node_id(opened.identity().node_id);
        let node = SimNode { network: Rc::clone(&network) };
        let config = ShardConfig {
            secret: membership.settings.secret(),
            clustered: true,
            ..shard_config(opened.identity(), &wanted)
        };
        let map = PartitionMap::new(config.partitions, config.cores).map_err(OpenError::from)?;
        let cluster = membership.config(opened.identity(), dir, view, &env);
        let control_env = SimNodeEnv::new(env.clone(), CoreId(wanted.cores), Rc::clone(&network));
        let cluster = Cluster::new(control_env.clone(), cluster, map)?;
        let control = Control::new(control_env, wanted.cores).with_cluster(cluster);
        node.open_cores(&env, &opened, &config, &control).await?;
        internet.up(host, &env, &network);
        Ok(node)
    }

    /// Opens the data folder (changing the number of cores when asked to) and one shard per core.
    pub async fn start(
        env: SimEnv,
        rng: Rng,
        dir: &Path,
        wanted: Wanted,
    ) -> Result<Self, StartError> {
        let opened = DataDir::open(&env, dir, &wanted).await?;
        let network = Network::new(env.clone(), rng, wanted.cores);
        let node = SimNode { network: Rc::clone(&network) };
        let control_env = SimNodeEnv::new(env.clone(), CoreId(wanted.cores), Rc::clone(&network));
        let control = Control::new(control_env, wanted.cores);
        let config = shard_config(opened.identity(), &wanted);
        node.open_cores(&env, &opened, &config, &control).await?;
        Ok(node)
    }

    async fn open_cores(
        &self,
        env: &SimEnv,
        opened: &DataDir,
        config: &ShardConfig,
        control: &Control<SimNodeEnv>,
    ) -> Result<(), StartError> {
        let network = &self.network;
        for core in 0..config.cores {
            let core_env = SimNodeEnv::new(env.clone(), CoreId(core), Rc::clone(network));
            let shard = Shard::open(core_env, &opened.core_dir(core), config.clone()).await?;
            let guest = (network.control_on() == CoreId(core)).then(|| control.clone());
            self.begin(CoreId(core), NodeCore::new(Some(shard), guest));
        }
        if network.control_on() == CoreId(config.cores) {
            self.begin(CoreId(config.cores), NodeCore::new(None, Some(control.clone())));
        }
        Ok(())
    }

    /// The node's wires, for clients.
    pub fn network(&self) -> &Rc<Network> {
        &self.network
    }

    /// Stops in order: no new requests, what is in flight is finished, engines closed.
    pub async fn stop(&self) -> Result<(), lsm::Error> {
        let nodes = self.network.nodes();
        nodes.iter().for_each(NodeCore::drain);
        while nodes.iter().any(|node| node.in_flight() > 0) {
            self.network.env().sleep(Duration::from_millis(1)).await;
        }
        for shard in nodes.iter().filter_map(NodeCore::shard) {
            shard.close().await?;
        }
        Ok(())
    }

    /// Puts a core on the wires and its clock on it.
    fn begin(&self, core: CoreId, node: NodeCore<SimNodeEnv>) {
        self.network.attach(core, node.clone());
        let clock = self.network.env().clone();
        let network = Rc::downgrade(&self.network);
        self.network.env().spawn(TaskClass::Background, async move {
            loop {
                clock.sleep(Duration::from_millis(50)).await;
                node.tick();
                match network.upgrade() {
                    Some(network) => network.schedule_pump(core),
                    None => break,
                }
            }
        });
    }
}

fn shard_config(identity: &Identity, wanted: &Wanted) -> ShardConfig {
    ShardConfig {
        secret: identity.secret,
        blind_writes: BlindWrites::Siblings,
        engine: wanted.engine.clone(),
        ..ShardConfig::new(
            wanted.cores,
            identity.partitions,
            identity.node_id,
            identity.incarnation,
        )
    }
}

impl Membership {
    /// What production makes of its settings and data folder.
    fn config(
        &self,
        identity: &Identity,
        dir: &Path,
        stored: Option<Vec<u8>>,
        env: &SimEnv,
    ) -> ClusterConfig {
        let limits = Limits::default();
        let to_u32 = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let generation = (env.wall_micros() / 1_000_000).max(1);
        let me = Member {
            id: identity.node_id,
            newness: Newness { generation, ..Newness::default() },
            incarnation: identity.incarnation,
            standing: Standing::Up,
            client_address: self.peers.to_string(),
            peer_address: self.peers.to_string(),
            rack: self.settings.rack.clone(),
            weight: 1,
            cores: identity.cores,
        };
        ClusterConfig {
            founding: self.settings.founding(identity.partitions),
            me,
            stored,
            replicas: self.settings.n(),
            replicas_asked: self.settings.replicas,
            mode: self.settings.mode,
            durability: Durability::Durable,
            blind_replaces: false,
            dir: dir.to_owned(),
            secret: self.settings.secret(),
            limits: WireLimits::new(to_u32(limits.key_bytes), to_u32(limits.value_bytes)),
        }
    }
}

impl Drop for SimNode {
    fn drop(&mut self) {
        self.network.detach();
    }
}
