//! Starting and stopping a simulated node, in the order production does.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm as lsm;
use coronet_lsm::env::{Env, TaskClass};
use coronet_server::data_dir::{DataDir, DataDirError, Wanted};
use coronet_server::node::{BlindWrites, Control, CoreId, NodeCore, OpenError, Shard, ShardConfig};
use coronet_sim::{Rng, SimEnv};
use thiserror::Error;

use super::env::SimNodeEnv;
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
}

/// A running node. Dropping it leaves its tasks to the simulation's crash.
pub struct SimNode {
    network: Rc<Network>,
}

impl SimNode {
    /// Opens the data folder (changing the number of cores when asked to) and one shard per core.
    pub async fn start(
        env: SimEnv,
        rng: Rng,
        dir: &Path,
        wanted: Wanted,
    ) -> Result<Self, StartError> {
        let opened = DataDir::open(&env, dir, &wanted).await?;
        let identity = opened.identity();
        let network = Network::new(env.clone(), rng, wanted.cores);
        let node = SimNode { network: Rc::clone(&network) };
        let core_env = |core| SimNodeEnv::new(env.clone(), CoreId(core), Rc::clone(&network));
        let control = Control::new(core_env(wanted.cores), wanted.cores);
        let config = ShardConfig {
            secret: identity.secret,
            blind_writes: BlindWrites::Siblings,
            engine: wanted.engine.clone(),
            ..ShardConfig::new(
                wanted.cores,
                identity.partitions,
                identity.node_id,
                identity.incarnation,
            )
        };
        for core in 0..wanted.cores {
            let shard = Shard::open(core_env(core), &opened.core_dir(core), config.clone()).await?;
            let guest = (network.control_on() == CoreId(core)).then(|| control.clone());
            node.begin(CoreId(core), NodeCore::new(Some(shard), guest));
        }
        if network.control_on() == CoreId(wanted.cores) {
            node.begin(CoreId(wanted.cores), NodeCore::new(None, Some(control)));
        }
        Ok(node)
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

impl Drop for SimNode {
    fn drop(&mut self) {
        self.network.detach();
    }
}
