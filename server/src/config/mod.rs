//! The settings of `coronetd`: what can be set, its bounds, and where values come from.
//!
//! Precedence: flag, then environment (`CORONET_*`), then file, then default. Every setting has
//! one name, `group.name`; in the environment it is `CORONET_GROUP_NAME`. A name nobody knows is
//! an error that names the closest known one, never ignored.

mod cluster;
mod error;
pub(crate) mod memory;
mod settings;
mod value;

pub use cluster::ClusterSettings;
pub use error::ConfigError;
pub use value::{ControlCore, DataCores};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::node::BlindWrites;

/// Prefix of environment variables that are settings.
pub const ENV_PREFIX: &str = "CORONET_";

/// Variables with the prefix that are for other programs: the client tool's server address.
const FOREIGN_VARIABLES: &[&str] = &["CORONET_ADDR"];

/// Everything that can be set. See `docs` of each field for its name in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `data_dir`: where the node keeps everything. Must be set (or given by `coronetd dev`).
    pub data_dir: Option<PathBuf>,
    /// `insecure`: allows to listen on addresses other machines can reach, although nothing is
    /// encrypted or authenticated yet.
    pub insecure: bool,
    /// `partitions`: partitions of the hash space, a power of two; fixed when the data folder is
    /// created.
    pub partitions: u32,
    /// `listen.clients`: the binary protocol.
    pub clients: SocketAddr,
    /// `listen.peers`: the other nodes of the cluster.
    pub peers: SocketAddr,
    /// `listen.http`: reserved for HTTP.
    pub http: SocketAddr,
    /// `cores.data`: the CPUs that serve and store, one executor each.
    pub data_cores: DataCores,
    /// `cores.control`: the CPU of the control core.
    pub control_core: ControlCore,
    /// `memory.cache`: block cache of the whole node, bytes; an eighth of the memory that the
    /// process may use where it is not set.
    pub cache_bytes: Option<u64>,
    /// `memory.memtable`: size at which a memtable is flushed, per data core, bytes.
    pub memtable_bytes: u64,
    /// `cluster.*`: the nodes this one works with.
    pub cluster: ClusterSettings,
    /// `write.durability`: what a request gets that does not ask; `durable` or `buffered`.
    pub buffered_by_default: bool,
    /// `write.sync_interval`: how long a buffered write may stay un-synced.
    pub sync_interval: Duration,
    /// `write.blind`: whether a write without context replaces the versions there are
    /// (`replace`) or stands beside them (`siblings`).
    pub blind_writes: BlindWrites,
    /// `limits.key`: largest key, bytes (at most 64 KiB).
    pub max_key_bytes: u64,
    /// `limits.value`: largest value, bytes.
    pub max_value_bytes: u64,
    /// `limits.in_flight`: requests of one connection that may be in flight.
    pub max_in_flight: u64,
    /// `limits.output`: replies of one connection that may wait to be sent, bytes, before its
    /// requests wait too.
    pub max_output_bytes: u64,
    /// `limits.connections`: client connections of the whole node.
    pub max_connections: u64,
    /// `limits.idle`: a connection without any request is closed after this; zero means never.
    pub idle: Duration,
    /// `limits.commit_wait`: how long a write without deadline waits for the disk before its
    /// client is told that it is in doubt.
    pub commit_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Config {
            data_dir: None,
            insecure: false,
            partitions: 1024,
            clients: loopback(4720),
            peers: loopback(4721),
            http: loopback(4722),
            data_cores: DataCores::All,
            control_core: ControlCore::Shared,
            cache_bytes: None,
            memtable_bytes: 64 << 20,
            cluster: ClusterSettings::default(),
            buffered_by_default: false,
            sync_interval: Duration::from_millis(50),
            blind_writes: BlindWrites::Replace,
            max_key_bytes: 64 << 10,
            max_value_bytes: 16 << 20,
            max_in_flight: 1024,
            max_output_bytes: 8 << 20,
            max_connections: 12_000,
            idle: Duration::ZERO,
            commit_wait: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Defaults, then `file`, then the environment, then flags (as `(name, value)`), checked.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
                path: path.to_owned(),
                message: error.to_string(),
            })?;
            config.apply_file(&path.display().to_string(), &text)?;
        }
        config.apply_env(env)?;
        for (name, value) in flags {
            config.apply(name, &toml::Value::String(value)).map_err(|cause| cause.at("flag"))?;
        }
        config.check()?;
        Ok(config)
    }

    /// Applies the text of a settings file; `source` names it in errors.
    pub fn apply_file(&mut self, source: &str, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                text.get(..span.start).unwrap_or(text).bytes().filter(|b| *b == b'\n').count() + 1
            });
            ConfigError::Syntax {
                file: source.to_owned(),
                line,
                message: error.message().to_owned(),
            }
        })?;
        for (name, value) in settings::flatten(&table) {
            self.apply(&name, value).map_err(|cause| cause.at(source))?;
        }
        Ok(())
    }

    /// Applies the variables that start with [`ENV_PREFIX`].
    pub fn apply_env(
        &mut self,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let mut found: Vec<_> = env.into_iter().filter(|(name, _)| is_setting(name)).collect();
        found.sort();
        for (variable, value) in found {
            let name = settings::name_of_variable(&variable)?;
            self.apply(name, &toml::Value::String(value)).map_err(|cause| cause.at(&variable))?;
        }
        Ok(())
    }

    /// Checks what only the whole can tell.
    fn check(&self) -> Result<(), ConfigError> {
        for (name, address) in
            [("clients", self.clients), ("peers", self.peers), ("http", self.http)]
        {
            if !address.ip().is_loopback() && !self.insecure {
                return Err(ConfigError::Exposed { name, address });
            }
        }
        if let (DataCores::Cpus(data), ControlCore::Cpu(control)) =
            (&self.data_cores, self.control_core)
            && data.contains(&control)
        {
            return Err(ConfigError::ControlOnDataCore { cpu: control });
        }
        self.cluster.check(self)
    }
}

fn is_setting(variable: &str) -> bool {
    variable.starts_with(ENV_PREFIX) && !FOREIGN_VARIABLES.contains(&variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        text: &str,
        env: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        config.apply_file("test.toml", text)?;
        config.apply_env(env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))?;
        for (name, value) in flags {
            config
                .apply(name, &toml::Value::String((*value).to_owned()))
                .map_err(|cause| cause.at("flag"))?;
        }
        config.check()?;
        Ok(config)
    }

    #[test]
    fn every_source_overrides_the_one_before() {
        let text = "data_dir = '/a'\n[memory]\ncache = '1 GiB'\nmemtable = 33554432\n\
                    [cores]\ndata = [0, 1]\ncontrol = 2\n[write]\ndurability = 'buffered'\n";
        let env = [
            ("CORONET_DATA_DIR", "/b"),
            ("CORONET_MEMORY_CACHE", "2MiB"),
            ("PATH", "/x"),
            ("CORONET_ADDR", "y"),
        ];
        let config = load(text, &env, &[("data_dir", "/c")]).unwrap();
        assert_eq!(config.data_dir, Some(PathBuf::from("/c")));
        assert_eq!(config.cache_bytes, Some(2 << 20));
        assert_eq!(config.memtable_bytes, 32 << 20);
        assert_eq!(config.data_cores, DataCores::Cpus(vec![0, 1]));
        assert_eq!(config.control_core, ControlCore::Cpu(2));
        assert!(config.buffered_by_default);
    }

    #[test]
    fn unknown_names_point_to_the_closest_known_one() {
        let file = load("[memory]\ncahce = 1\n", &[], &[]).unwrap_err().to_string();
        assert!(file.contains("memory.cahce") && file.contains("memory.cache"), "{file}");
        let top = load("dta_dir = '/x'\n", &[], &[]).unwrap_err().to_string();
        assert!(top.contains("data_dir"), "{top}");
        let env = load("", &[("CORONET_LISTEN_CLIENT", "x")], &[]).unwrap_err().to_string();
        assert!(env.contains("CORONET_LISTEN_CLIENTS"), "{env}");
        let table = load("[cores.data]\nx = 1\n", &[], &[]).unwrap_err().to_string();
        assert!(table.contains("cores.data.x"), "{table}");
    }

    #[test]
    fn syntax_errors_name_the_line() {
        let error = load("data_dir = '/x'\nlisten = = 3\n", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("test.toml:2"), "{error}");
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_the_bound() {
        for (text, word) in [
            ("partitions = 1000", "power of two"),
            ("partitions = 1", "16"),
            ("[limits]\nkey = '1 MiB'", "64 KiB"),
            ("[limits]\nvalue = '1 GiB'", "64 MiB"),
            ("[limits]\nin_flight = 0", "1"),
            ("[cores]\ndata = []", "at least one"),
            ("[cores]\ndata = [1, 1]", "twice"),
            ("[write]\ndurability = 'maybe'", "durable"),
            ("[write]\nsync_interval = '2 weeks'", "duration"),
            ("insecure = 'perhaps'", "true or false"),
            ("[listen]\nclients = 'localhost'", "address"),
        ] {
            let error = load(text, &[], &[]).unwrap_err().to_string();
            assert!(error.contains(word), "`{text}` gave: {error}");
        }
    }

    #[test]
    fn addresses_others_can_reach_need_the_word_insecure() {
        let text = "[listen]\nclients = '0.0.0.0:4720'\n";
        let error = load(text, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("insecure"), "{error}");
        assert!(load(text, &[], &[("insecure", "true")]).is_ok());
        assert!(load("[listen]\nclients = '[::1]:1'\n", &[], &[]).is_ok());
    }

    #[test]
    fn control_core_must_not_be_a_data_core() {
        let error = load("[cores]\ndata = '0-2'\ncontrol = 1\n", &[], &[]).unwrap_err();
        assert!(error.to_string().contains("CPU 1"), "{error}");
    }
}
