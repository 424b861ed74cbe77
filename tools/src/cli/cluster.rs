//! `coronet status` and `coronet ring`: the cluster as one of its nodes sees it, drawn for a
//! terminal or as JSON.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use coronet_net::client::{Client, Topology};
use coronet_net::codec::TopologyNode;
use coronet_ring::placement::report::{Balance, NodeShare};
use coronet_ring::{NodeId, PartitionMap};
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::health::Health;
use super::options::{RingArgs, StatusArgs};
use super::render::Encoded;
use super::what_if::Change;
use super::{print, print_json};

/// Width of the longest bar, in characters.
const BAR: usize = 40;

#[derive(Serialize)]
struct StatusJson {
    epoch: u64,
    replicas: u8,
    replicas_asked: u8,
    partitions: u32,
    health: Health,
    nodes: Vec<NodeJson>,
}

#[derive(Serialize)]
struct NodeJson {
    id: String,
    alive: bool,
    cores: u16,
    address: String,
    rack: String,
}

impl NodeJson {
    fn new(node: &TopologyNode) -> Self {
        NodeJson {
            id: node.id.to_string(),
            alive: node.alive,
            cores: node.cores,
            address: node.address.clone(),
            rack: node.rack.clone(),
        }
    }
}

/// `status`: ends with code 5 when a node is out of reach or the nodes have not all met.
pub async fn status(client: &Client, args: &StatusArgs) -> Result<Exit, CliError> {
    let topology = described(client, client.topology().await?);
    let asked = replicas_asked(client, &topology).await;
    if args.json {
        print_json(&StatusJson {
            epoch: topology.epoch().0,
            replicas: topology.replicas,
            replicas_asked: asked,
            partitions: partitions(client, &topology),
            health: Health::of(&topology),
            nodes: topology.nodes.iter().map(NodeJson::new).collect(),
        })?;
    } else {
        let text = status_text(&topology, partitions(client, &topology));
        print((text + &shortfall(&topology, asked)).as_bytes())?;
    }
    let whole = topology.nodes.iter().all(|node| node.alive);
    Ok(if whole { Exit::Ok } else { Exit::Unavailable })
}

/// Replicas of a key as the node is configured. A node that does not tell has what it asked for.
async fn replicas_asked(client: &Client, topology: &Topology) -> u8 {
    let stats = client.stats().await.ok();
    let told = stats.and_then(|stats| {
        let mut counters = stats.counters.into_iter();
        counters.find(|(name, _)| name == "cluster.replicas_asked")
    });
    let told = told.and_then(|(_, asked)| u8::try_from(asked).ok());
    told.unwrap_or(topology.replicas)
}

/// A line for people when keys have fewer replicas than was asked for, else nothing.
fn shortfall(topology: &Topology, asked: u8) -> String {
    let has = topology.replicas;
    if asked <= has {
        return String::new();
    }
    format!(
        "replicas: N={asked} asked, {has} nodes: each key has {has}, requests for more are refused\n"
    )
}

/// The cluster, or a node alone as a cluster of one.
fn described(client: &Client, topology: Option<Topology>) -> Topology {
    let layout = client.layout();
    topology.unwrap_or_else(|| {
        let node = TopologyNode {
            id: layout.node_id(),
            alive: true,
            cores: layout.cores(),
            address: "-".to_owned(),
            rack: "-".to_owned(),
        };
        Topology { replicas: 1, nodes: vec![node], table: None }
    })
}

fn partitions(client: &Client, topology: &Topology) -> u32 {
    let table = topology.table.as_ref();
    table.map_or_else(|| client.layout().partitions(), |table| table.partitions())
}

fn status_text(topology: &Topology, partitions: u32) -> String {
    let alive = topology.nodes.iter().filter(|node| node.alive).count();
    let placement = match &topology.table {
        Some(table) => format!("placement of {}", table.epoch()),
        None if topology.nodes.len() > 1 => "no placement yet: the nodes have not all met".into(),
        None => "no placement: nothing is shared with other nodes".to_owned(),
    };
    let mut text = format!(
        "{alive} of {} nodes alive, {} replicas of each key, {partitions} partitions, {placement}\n",
        topology.nodes.len(),
        topology.replicas,
    );
    let width = |part: fn(&TopologyNode) -> &str, least: usize| {
        topology.nodes.iter().map(|node| part(node).chars().count()).max().unwrap_or(0).max(least)
    };
    let (address, rack) = (width(|node| &node.address, 7), width(|node| &node.rack, 4));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "state  {:<address$}  {:<rack$}  cores  node", "address", "rack");
    for node in by_address(&topology.nodes, |node| node.address.clone()) {
        let state = if node.alive { "alive" } else { "DOWN" };
        let _ = writeln!(
            text,
            "{state:<5}  {:<address$}  {:<rack$}  {:>5}  {}",
            node.address, node.rack, node.cores, node.id
        );
    }
    if topology.table.is_some() {
        text.push_str(&Health::of(topology).text());
    }
    text
}

#[derive(Serialize)]
struct RingJson {
    epoch: u64,
    replicas: u8,
    replicas_asked: u8,
    partitions: u32,
    off_quota: usize,
    short: usize,
    racks_shared: usize,
    racks_violated: usize,
    nodes: Vec<ShareJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
}

#[derive(Serialize)]
struct ShareJson {
    id: String,
    address: String,
    rack: String,
    weight: u32,
    held: usize,
    quota: usize,
    first: usize,
}

#[derive(Serialize)]
struct KeyJson {
    key: Encoded,
    partition: u16,
    replicas: Vec<ReplicaJson>,
}

#[derive(Serialize)]
struct ReplicaJson {
    #[serde(flatten)]
    node: NodeJson,
    core: u16,
}

/// `ring`.
pub async fn ring(client: &Client, args: &RingArgs) -> Result<Exit, CliError> {
    let Some(topology) = client.topology().await? else {
        return Err(CliError::new(Exit::Failed, "this node is in no cluster: it holds everything"));
    };
    let Some(table) = &topology.table else {
        return Err(CliError::new(Exit::Unavailable, "the nodes have not all met yet"));
    };
    let balance = table.balance();
    let asked = replicas_asked(client, &topology).await;
    let change = Change::asked(&topology, table, args)?;
    let key = args.key.as_ref().map(|key| place(&topology, key.as_bytes()));
    if args.json {
        let share = |share: &NodeShare| ShareJson {
            id: share.id.to_string(),
            address: address(&topology, share.id).to_owned(),
            rack: share.rack.clone(),
            weight: share.weight,
            held: share.held,
            quota: share.quota,
            first: share.first,
        };
        print_json(&RingJson {
            epoch: table.epoch().0,
            replicas: topology.replicas,
            replicas_asked: asked,
            partitions: table.partitions(),
            off_quota: balance.off_quota,
            short: balance.short,
            racks_shared: balance.racks_shared,
            racks_violated: balance.racks_violated,
            nodes: balance.nodes.iter().map(share).collect(),
            key,
            change,
        })?;
    } else {
        let mut text = ring_text(&topology, table.partitions(), &balance);
        text.push_str(&shortfall(&topology, asked));
        if let Some(key) = &key {
            text.push_str(&key_text(key));
        }
        if let Some(change) = &change {
            text.push_str(&change.text());
        }
        print(text.as_bytes())?;
    }
    Ok(if balance.racks_violated > 0 { Exit::Data } else { Exit::Ok })
}

/// As people look for them: nodes are known by random ids.
fn by_address<T>(items: &[T], address: impl Fn(&T) -> String) -> Vec<&T> {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_by_cached_key(|item| address(item));
    sorted
}

fn address(topology: &Topology, id: NodeId) -> &str {
    topology.node(id).map_or("-", |node| node.address.as_str())
}

/// Where a key lives.
fn place(topology: &Topology, key: &[u8]) -> KeyJson {
    let partition = topology.partition_of(key).unwrap_or_default();
    let partitions = topology.table.as_ref().map_or(1, |table| table.partitions());
    let replicas = topology.replicas_of(partition);
    let known = replicas.iter().filter_map(|id| topology.node(*id));
    let replicas = known.map(|node| {
        let map = PartitionMap::new(partitions, node.cores.max(1));
        let core = map.map_or(0, |map| map.core_of(partition).0);
        ReplicaJson { node: NodeJson::new(node), core }
    });
    KeyJson { key: Encoded::of(key), partition: partition.0, replicas: replicas.collect() }
}

fn ring_text(topology: &Topology, partitions: u32, balance: &Balance) -> String {
    let mut text = format!(
        "{partitions} partitions on {} nodes, {} replicas of each key, {}\n",
        balance.nodes.len(),
        topology.replicas,
        topology.epoch(),
    );
    let most = balance.nodes.iter().map(|share| share.held).max().unwrap_or(0).max(1);
    let of = |share: &NodeShare| address(topology, share.id).len();
    let width = balance.nodes.iter().map(of).max().unwrap_or(0).max(7);
    let rack = balance.nodes.iter().map(|share| share.rack.len()).max().unwrap_or(0).max(4);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{:<width$}  {:<rack$}  held  first  share of partitions held",
        "address", "rack"
    );
    for share in by_address(&balance.nodes, |share| address(topology, share.id).to_owned()) {
        let bar = "#".repeat((share.held * BAR).div_ceil(most));
        let dead = topology.node(share.id).is_some_and(|node| !node.alive);
        let _ = writeln!(
            text,
            "{:<width$}  {:<rack$}  {:>4}  {:>5}  {bar}{}",
            address(topology, share.id),
            share.rack,
            share.held,
            share.first,
            if dead { "  DOWN" } else { "" }
        );
    }
    let _ =
        writeln!(text, "balance: at most {} partition(s) from the fair share", balance.off_quota);
    let _ = match (balance.racks_violated, balance.racks_shared) {
        (0, 0) => writeln!(text, "racks: all replicas of each partition are on different racks"),
        (0, shared) => writeln!(
            text,
            "racks: {shared} partitions have replicas on one rack, for want of racks"
        ),
        (violated, _) => writeln!(
            text,
            "racks: VIOLATED, {violated} partitions have replicas on one rack without need"
        ),
    };
    text.push_str(&Health::of(topology).text());
    if balance.short > 0 {
        let short = balance.short;
        let _ = writeln!(text, "replicas: {short} partitions have fewer, for want of nodes");
    }
    text
}

fn key_text(place: &KeyJson) -> String {
    let mut text = format!("key {}: partition {}\n", place.key.value, place.partition);
    for (at, replica) in place.replicas.iter().enumerate() {
        let ReplicaJson { node, core } = replica;
        let state = if node.alive { "" } else { "  DOWN" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  replica {}: {} core {core}, {}{state}",
            at + 1,
            node.address,
            node.rack
        );
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use coronet_ring::{Epoch, PlacedNode, Table};

    pub fn topology() -> Topology {
        let told = |id: u128| TopologyNode {
            id: NodeId(id),
            alive: id != 2,
            cores: 2,
            address: format!("10.0.0.{id}:4720"),
            rack: format!("rack-{id}"),
        };
        let nodes: Vec<_> = (1..=3).map(told).collect();
        let placed =
            nodes.iter().map(|node| PlacedNode { id: node.id, rack: node.rack.clone(), weight: 1 });
        let table = Table::create(Epoch(7), 64, 2, placed.collect()).unwrap();
        Topology { replicas: 2, nodes, table: Some(table) }
    }

    #[test]
    fn status_names_every_node_and_the_dead_one() {
        let text = status_text(&topology(), 64);
        assert!(text.starts_with("2 of 3 nodes alive, 2 replicas of each key, 64 partitions"));
        assert!(text.contains("placement of epoch 7"), "{text}");
        let down: Vec<_> = text.lines().filter(|line| line.starts_with("DOWN")).collect();
        assert_eq!(down.len(), 1);
        assert!(down[0].contains("10.0.0.2:4720") && down[0].contains("rack-2"));
        assert!(text.lines().last().is_some_and(|line| line.starts_with("partitions: ")), "{text}");
    }

    #[test]
    fn fewer_replicas_than_asked_are_told() {
        assert_eq!(shortfall(&topology(), 2), "");
        assert!(shortfall(&topology(), 3).starts_with("replicas: N=3 asked, 2 nodes: "));
    }

    #[test]
    fn the_ring_has_a_bar_for_every_node_and_the_place_of_a_key() {
        let topology = topology();
        let balance = topology.table.as_ref().unwrap().balance();
        let text = ring_text(&topology, 64, &balance);
        let bars: Vec<_> = text.lines().filter(|line| line.contains("###")).collect();
        assert_eq!(bars.len(), 3, "{text}");
        assert!(text.contains("all replicas of each partition are on different racks"));
        let place = place(&topology, b"some key");
        assert_eq!(place.replicas.len(), 2);
        let ids = topology.replicas_of(topology.partition_of(b"some key").unwrap());
        assert_eq!(place.replicas[0].node.id, ids[0].to_string());
        assert_eq!(key_text(&place).lines().count(), 3);
    }
}
