//! What must hold once everything works again: the nodes serve, the replicas of every key become
//! equal, and hold every acknowledged write that nothing covers.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use coronet_lsm::env::Env;
use coronet_net::Quorum;
use coronet_ring::{Conflicts, NodeId, ObjectRef, PartitionMap, Table, visible};
use coronet_sim::SimEnv;

use super::clients::PREFIX;
use super::history::Style;
use super::reading::{self, PATIENCE, connect, within};
use super::world::{PARTITIONS, World};
use super::{holders, promise};
use crate::sim::{Client, Network};

/// Virtual time after which a healed cluster that does not serve has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node of the healed cluster.
struct Member {
    id: NodeId,
    network: Rc<Network>,
    client: Rc<Client>,
    table: Vec<u8>,
}

/// Checks a world that is quiet. What is wrong goes into its history.
pub fn check(world: &mut World) {
    let env = world.sim.node_env("clients");
    let networks: Vec<_> = world.directory.borrow().iter().flatten().map(Rc::clone).collect();
    let mut failed = Vec::new();
    if networks.len() < world.hosts.len() {
        failed.push(format!("liveness: {} nodes serve", networks.len()));
    }
    let (history, delays) = (Rc::clone(&world.history), world.internet.delays());
    world.sim.block_on(async {
        let mut members: Vec<Member> = Vec::new();
        for (at, network) in networks.iter().enumerate() {
            match meet(&env, network).await {
                Some(member) => members.push(member),
                None => failed.push(format!("liveness: node {} does not know the cluster", at + 1)),
            }
        }
        let Some(table) = agreed(&members, &mut failed) else { return };
        let keys = history.borrow().keys();
        let replicas = history.borrow().replicas;
        if let Ok(map) = PartitionMap::new(PARTITIONS, 1) {
            let homes = |key: &[u8]| table.preference(map.partition_of(key), replicas);
            history.borrow_mut().judge_staleness(homes, &delays);
        }
        // Before anything is read: nothing is repaired yet.
        let end = env.now().after(DEADLINE);
        for key in &keys {
            let lacking = loop {
                let copies = copies(&env, &members, &table, replicas, key).await;
                let copies: Vec<_> = copies.iter().map(|copy| shown(copy.as_deref())).collect();
                let lacking = holders::lacking(&mut history.borrow_mut(), key, &copies);
                if lacking.is_empty() || env.now() >= end {
                    break lacking;
                }
                env.sleep(Duration::from_secs(1)).await;
            };
            lacking.iter().for_each(|what| history.borrow_mut().violation(key, what));
        }
        // Twice: the first read repairs, in the background, what it finds.
        for round in 0..2 {
            for (at, key) in keys.iter().enumerate() {
                let member = &members[(at + round) % members.len()];
                if read_all(&env, &member.client, key).await.is_none() {
                    let name = String::from_utf8_lossy(key).into_owned();
                    failed.push(format!("liveness: {name} cannot be read from all replicas"));
                }
            }
            env.sleep(Duration::from_secs(2)).await;
        }
        let mut live = BTreeSet::new();
        for key in &keys {
            let copies = copies(&env, &members, &table, replicas, key).await;
            let mut history = history.borrow_mut();
            for copy in copies.iter().flatten() {
                history.check_dots(key, copy);
            }
            if copies.windows(2).any(|pair| pair[0] != pair[1]) {
                let lens: Vec<_> = copies.iter().map(|c| c.as_ref().map(Vec::len)).collect();
                history.violation(key, &format!("replicas differ in the end: {lens:?} bytes"));
            }
            let values = copies.first().map(|copy| shown(copy.as_deref())).unwrap_or_default();
            let ids = history.identify(key, &values);
            history.check_final(key, &ids);
            match history.style(key) {
                Style::Cart => history.check_cart(key, &values),
                Style::Register => history.check_register(key),
                Style::Versions | Style::Replace => {}
            }
            if !ids.is_empty() {
                live.insert(key.clone());
            }
        }
        let foreign = promise::foreign_contexts(&env, &members[0].client, &keys).await;
        failed.extend(foreign);
        for member in &members {
            let listed = list_all(&env, &member.client).await;
            let listed: Option<BTreeSet<_>> = listed.map(|keys| keys.into_iter().collect());
            if listed.as_ref() != Some(&live) {
                let (id, count) = (member.id, live.len());
                failed.push(format!("node {id} lists {listed:?} where {count} keys live"));
            }
        }
    });
    history.borrow_mut().violations.extend(failed);
}

async fn meet(env: &SimEnv, network: &Rc<Network>) -> Option<Member> {
    let end = env.now().after(DEADLINE);
    while env.now() < end {
        if let Some(client) = connect(env, network).await
            && let Some(topology) = reading::topology(env, &client).await
            && !topology.table.is_empty()
        {
            let id = network.node_id()?;
            return Some(Member { id, network: Rc::clone(network), client, table: topology.table });
        }
        env.sleep(Duration::from_millis(200)).await;
    }
    None
}

/// The placement that all nodes have.
fn agreed(members: &[Member], failed: &mut Vec<String>) -> Option<Table> {
    let first = members.first()?;
    if members.iter().any(|member| member.table != first.table) {
        failed.push("nodes disagree about the placement".to_owned());
    }
    Table::decode(&first.table).ok()
}

/// Reads a key from all replicas, as soon as that is possible.
async fn read_all(env: &SimEnv, client: &Client, key: &[u8]) -> Option<()> {
    let end = env.now().after(DEADLINE);
    while env.now() < end {
        if reading::get(env, client, key, Quorum::ALL, reading::strict()).await.is_some() {
            return Some(());
        }
        env.sleep(Duration::from_millis(100)).await;
    }
    None
}

/// Lists all keys, as soon as that is possible: a node may be taken for dead for a moment.
async fn list_all(env: &SimEnv, client: &Client) -> Option<Vec<Vec<u8>>> {
    let end = env.now().after(DEADLINE);
    loop {
        let listed = reading::list(env, client, PREFIX).await;
        if listed.is_some() || env.now() >= end {
            return listed;
        }
        env.sleep(Duration::from_millis(100)).await;
    }
}

/// What each replica of a key holds.
async fn copies(
    env: &SimEnv,
    members: &[Member],
    table: &Table,
    replicas: u8,
    key: &[u8],
) -> Vec<Option<Vec<u8>>> {
    let Ok(map) = PartitionMap::new(PARTITIONS, 1) else { return Vec::new() };
    let mut copies = Vec::new();
    for home in table.preference(map.partition_of(key), replicas) {
        if let Some(member) = members.iter().find(|member| member.id == home) {
            let probe = member.network.probe(PARTITIONS, key);
            copies.push(within(env, PATIENCE, probe).await.flatten().flatten());
        }
    }
    copies
}

fn shown(copy: Option<&[u8]>) -> Vec<Vec<u8>> {
    let Some(Ok(object)) = copy.map(ObjectRef::decode) else { return Vec::new() };
    visible(&object, Conflicts::Siblings).iter().map(|sibling| sibling.value.to_vec()).collect()
}
