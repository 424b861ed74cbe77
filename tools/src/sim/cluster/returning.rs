//! How soon a node that was killed serves again once it is back, and the others with it.

use std::time::Duration;

use coronet_net::Quorum;

use super::Options;
use super::reading::{self, connect};
use super::world::World;

/// The node that goes and comes back.
const AWAY: usize = 0;
/// Until a read that was refused is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// What happened after a node was back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return {
    /// Replicas of a key.
    pub replicas: u8,
    /// From when its process served until it had answered a strict read of all replicas.
    pub itself: Duration,
    /// Until another node had.
    pub other: Duration,
}

/// Three nodes without any fault but this: one is killed and started again after a while.
///
/// # Panics
/// When it does not start.
pub fn after(seed: u64, away: Duration) -> Return {
    let options = Options {
        nodes: Some(3),
        faults: Some(Vec::new()),
        millis: Some(1_000),
        ..Options::default()
    };
    let mut world = World::new(seed, &options);
    world.found();
    world.end(AWAY, false);
    world.pass(away);
    world.start(AWAY);
    while world.directory.borrow()[AWAY].is_none() {
        world.pass(Duration::from_millis(1));
    }
    let back = world.sim.elapsed();
    let itself = first_answer(&world, AWAY).saturating_sub(back);
    let other = first_answer(&world, AWAY + 1).saturating_sub(back);
    let replicas = world.history.borrow().replicas;
    Return { replicas, itself, other }
}

/// When a node first answers a strict read of all replicas of each of some keys.
fn first_answer(world: &World, host: usize) -> Duration {
    let network = world.directory.borrow()[host].clone();
    let Some(network) = network else { panic!("node {} is gone", host + 1) };
    let env = world.sim.node_env("reader");
    world.sim.block_on(async {
        let Some(client) = connect(&env, &network).await else { panic!("no connection") };
        for key in 0_u8..8 {
            let key = [b'k', key];
            while reading::get(&env, &client, &key, Quorum::ALL, reading::strict()).await.is_none()
            {
                coronet_lsm::env::Env::sleep(&env, AGAIN).await;
            }
        }
    });
    world.sim.elapsed()
}
