//! The settings of a cluster, and what follows from them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use coronet_ring::coordinate::quorum::Mode;
use coronet_ring::gossip::state::Founding;
use coronet_ring::key_hash;
use toml::Value;

use super::{Config, ConfigError};

/// Most places a partition's list has: the largest N.
const DEEPEST: usize = 7;

/// The settings named `cluster.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `cluster.name`: nodes of other clusters are refused.
    pub name: String,
    /// `cluster.nodes`: peer addresses of all founding nodes, this one's included, the same on
    /// each of them. Empty: the node is on its own.
    pub nodes: Vec<SocketAddr>,
    /// `cluster.address`: where the other nodes reach this one, when that is not where it
    /// listens for them (ports are forwarded). As it stands in `cluster.nodes`.
    pub address: Option<SocketAddr>,
    /// `cluster.replicas`: N, the replicas of a key.
    pub replicas: u8,
    /// `cluster.rack`: what this node shares its fate with.
    pub rack: String,
    /// `cluster.quorum`: whether stand-ins count for requests that do not say; `sloppy` or
    /// `strict`.
    pub mode: Mode,
    /// `cluster.key`: secret that contexts are checked with, the same on all nodes. The name when
    /// absent, which keeps accidents away but no attacker.
    pub key: Option<String>,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings {
            name: "coronet".to_owned(),
            nodes: Vec::new(),
            address: None,
            replicas: 3,
            rack: "default".to_owned(),
            mode: Mode::Sloppy,
            key: None,
        }
    }
}

impl ClusterSettings {
    /// Whether the node is part of a cluster.
    pub fn is_clustered(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// N: never more than there are nodes.
    pub fn n(&self) -> u8 {
        self.replicas.min(u8::try_from(self.nodes.len()).unwrap_or(u8::MAX)).max(1)
    }

    /// What the operator should know when keys get fewer replicas than `cluster.replicas` says.
    pub fn shortfall(&self) -> Option<String> {
        let (asked, n) = (self.replicas, self.n());
        let short = self.is_clustered() && n < asked;
        short.then(|| {
            format!(
                "cluster.replicas is {asked}, but cluster.nodes has {n} of them: each key gets {n} \
                 replicas, and requests for more are refused; add nodes to cluster.nodes on all of \
                 them, or set cluster.replicas to {n}"
            )
        })
    }

    /// What all founding nodes have to agree on.
    pub fn founding(&self, partitions: u32) -> Founding {
        let addresses: BTreeSet<String> = self.nodes.iter().map(SocketAddr::to_string).collect();
        let depth = addresses.len().clamp(1, DEEPEST) as u8; // at most 7
        let half = |salt: &str| u128::from(key_hash(format!("{salt}{}", self.name).as_bytes()));
        let cluster = half("cluster ") << 64 | half("name ");
        Founding { cluster, partitions, depth, addresses }
    }

    /// What contexts are checked with.
    pub fn secret(&self) -> u64 {
        let key = self.key.as_ref().unwrap_or(&self.name);
        key_hash(format!("contexts of {key}").as_bytes())
    }

    /// Checks what only the whole can tell.
    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let peers = self.reached_at(config);
        if self.is_clustered() && !self.nodes.contains(&peers) {
            return Err(ConfigError::NotInCluster { peers });
        }
        Ok(())
    }

    /// The address that other nodes dial.
    pub fn reached_at(&self, config: &Config) -> SocketAddr {
        self.address.unwrap_or(config.peers)
    }
}

/// A list of addresses: an array, or text with commas between.
pub(super) fn nodes(value: &Value) -> Result<Vec<SocketAddr>, String> {
    let expected = || {
        "must be the peer addresses of all nodes, such as [\"10.0.0.1:4721\", \"10.0.0.2:4721\"]"
            .to_owned()
    };
    let texts: Vec<&str> = match value {
        Value::String(text) => {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
        }
        Value::Array(values) => {
            let texts: Option<Vec<_>> = values.iter().map(Value::as_str).collect();
            texts.ok_or_else(expected)?
        }
        _ => return Err(expected()),
    };
    let nodes: Result<Vec<SocketAddr>, _> = texts.iter().map(|text| text.parse()).collect();
    let mut nodes = nodes.map_err(|_| expected())?;
    nodes.sort_unstable();
    nodes.dedup();
    Ok(nodes)
}

/// `sloppy` or `strict`.
pub(super) fn mode(value: &Value) -> Result<Mode, String> {
    match value.as_str() {
        Some("sloppy") => Ok(Mode::Sloppy),
        Some("strict") => Ok(Mode::Strict),
        _ => Err("must be \"sloppy\" or \"strict\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_nodes_are_read_in_any_order() {
        let text = nodes(&Value::String("127.0.0.1:2, 127.0.0.1:1,".to_owned())).unwrap();
        let array = Value::Array(vec![
            Value::String("127.0.0.1:1".to_owned()),
            Value::String("127.0.0.1:2".to_owned()),
            Value::String("127.0.0.1:2".to_owned()),
        ]);
        assert_eq!(nodes(&array).unwrap(), text);
        assert!(nodes(&Value::Integer(1)).is_err());
        assert!(nodes(&Value::String("nowhere".to_owned())).is_err());
    }

    #[test]
    fn a_node_behind_forwarded_ports_stands_in_the_list_by_the_address_it_is_reached_at() {
        let (here, outside): (SocketAddr, SocketAddr) =
            (([127, 0, 0, 1], 4721).into(), ([10, 0, 0, 1], 7000).into());
        let mut config = Config { peers: here, ..Config::default() };
        config.cluster.nodes = vec![outside];
        let refused = config.cluster.check(&config).unwrap_err();
        assert_eq!(refused, ConfigError::NotInCluster { peers: here });
        config.cluster.address = Some(outside);
        assert_eq!(config.cluster.check(&config), Ok(()));
    }

    #[test]
    fn founding_depends_on_name_and_nodes_only() {
        let settings = |name: &str, nodes: &[u16]| ClusterSettings {
            name: name.to_owned(),
            nodes: nodes.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect(),
            ..ClusterSettings::default()
        };
        let one = settings("a", &[1, 2, 3]);
        let same = ClusterSettings { rack: "other".to_owned(), ..settings("a", &[3, 2, 1]) };
        assert_eq!(one.founding(64).name(), same.founding(64).name());
        assert_ne!(one.founding(64).name(), settings("b", &[1, 2, 3]).founding(64).name());
        assert_ne!(one.founding(64).name(), settings("a", &[1, 2]).founding(64).name());
        assert_eq!((one.n(), settings("a", &[1]).n()), (3, 1));
    }

    #[test]
    fn more_replicas_than_nodes_is_told() {
        let nodes = |count: u16| (1..=count).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let of = |replicas, count| {
            let nodes = nodes(count);
            ClusterSettings { replicas, nodes, ..ClusterSettings::default() }.shortfall()
        };
        assert_eq!((of(3, 3), of(1, 3), of(3, 0)), (None, None, None));
        let text = of(5, 2).unwrap();
        assert!(
            text.starts_with("cluster.replicas is 5, but cluster.nodes has 2 of them"),
            "{text}"
        );
        assert!(text.ends_with("or set cluster.replicas to 2"), "{text}");
    }
}
