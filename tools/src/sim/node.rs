//! Starting and stopping a simulated node, in the order production does.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm as lsm;
use coronet_lsm::env::{Env, TaskClass};
use coronet_server::data_dir::{DataDir, DataDirError, Wanted};
use coronet_server::node::{CoreId, Shard, ShardConfig};
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
    /// A core's engine.
    #[error("{0}")]
    Engine(#[from] lsm::Error),
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
        for core in 0..wanted.cores {
            let config = ShardConfig {
                cores: wanted.cores,
                partitions: identity.partitions,
                node_id: identity.node_id,
                incarnation: identity.incarnation,
                secret: identity.secret,
                port: coronet_net::DEFAULT_PORT,
                engine: wanted.engine.clone(),
            };
            let core_env = SimNodeEnv::new(env.clone(), CoreId(core), Rc::clone(&network));
            let shard = Shard::open(core_env, &opened.core_dir(core), config).await?;
            start_ticking(&env, &network, CoreId(core), shard.clone());
            network.attach(CoreId(core), shard);
        }
        Ok(node)
    }

    /// The node's wires, for clients.
    pub fn network(&self) -> &Rc<Network> {
        &self.network
    }

    /// Stops in order: no new requests, what is in flight is finished, engines closed.
    pub async fn stop(&self) -> Result<(), lsm::Error> {
        let shards = self.network.shards();
        shards.iter().for_each(Shard::drain);
        while shards.iter().any(|shard| shard.in_flight() > 0) {
            self.network.env().sleep(Duration::from_millis(1)).await;
        }
        for shard in shards {
            shard.close().await?;
        }
        Ok(())
    }
}

impl Drop for SimNode {
    fn drop(&mut self) {
        self.network.detach();
    }
}

fn start_ticking(env: &SimEnv, network: &Rc<Network>, core: CoreId, shard: Shard<SimNodeEnv>) {
    let (clock, network) = (env.clone(), Rc::downgrade(network));
    env.spawn(TaskClass::Background, async move {
        loop {
            clock.sleep(Duration::from_millis(50)).await;
            shard.tick();
            match network.upgrade() {
                Some(network) => network.schedule_pump(core),
                None => break,
            }
        }
    });
}
