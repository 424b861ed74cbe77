//! `coronet keyspace`: creating, changing and listing keyspaces.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, Subcommand};
use coronet_net::client::Client;
use coronet_net::codec::KeyspaceInfo;
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::{print, print_json};

/// What to do with keyspaces.
#[derive(Debug, Subcommand)]
pub enum KeyspaceCommand {
    /// Create a keyspace. To do it again with the same settings is no error.
    Create(CreateArgs),
    /// Change settings of a keyspace, of the one named `default`, too, while it is in use.
    Set(SetArgs),
    /// List the keyspaces and their settings.
    Ls(ListArgs),
}

/// `keyspace create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The name.
    pub name: String,
    /// Replicas of each key; fixed for ever. The cluster's number when absent.
    #[arg(long, value_name = "NUMBER")]
    pub n: Option<u8>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingArgs,
}

/// `keyspace set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The name.
    pub name: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingArgs,
}

/// `keyspace ls`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Settings that can be changed.
#[derive(Debug, Args)]
pub struct SettingArgs {
    /// Replicas a read waits for that does not say: a number, one, quorum or all.
    #[arg(long, value_name = "N|quorum|all")]
    pub r: Option<String>,
    /// Replicas a write waits for that does not say, as --r.
    #[arg(long, value_name = "N|quorum|all")]
    pub w: Option<String>,
    /// Let the last write win: no siblings are shown.
    #[arg(long, conflicts_with = "siblings")]
    pub lww: bool,
    /// Show concurrent versions as siblings.
    #[arg(long)]
    pub siblings: bool,
    /// How tables are merged: leveled, tiered, lazy_leveled, tree or fifo, with parameters as in
    /// `tiered(fanout=6)`. Takes effect at once, in pieces.
    #[arg(long, value_name = "POLICY")]
    pub compaction: Option<String>,
    /// Compression of new tables: none, lz4 or zstd, or one for each level as in
    /// `none/lz4/zstd`; empty for the server's.
    #[arg(long, value_name = "CODECS")]
    pub compression: Option<String>,
    /// How many first bytes of keys filters know beside whole keys, 0 (off) to 256, so that
    /// listings with a prefix of at least so many bytes skip tables; for new tables. Empty for
    /// the server's.
    #[arg(long, value_name = "BYTES")]
    pub filter_prefix: Option<String>,
    /// How long a key lives after its last write, such as 90s, 12h or 30d; empty for ever.
    #[arg(long, value_name = "TIME")]
    pub ttl: Option<String>,
    /// Print the keyspace as JSON.
    #[arg(long)]
    pub json: bool,
}

impl SettingArgs {
    fn settings(&self) -> Vec<(&str, &str)> {
        let conflicts = match (self.lww, self.siblings) {
            (true, _) => Some("lww"),
            (_, true) => Some("siblings"),
            _ => None,
        };
        let named = [
            ("r", self.r.as_deref()),
            ("w", self.w.as_deref()),
            ("conflicts", conflicts),
            ("compaction", self.compaction.as_deref()),
            ("compression", self.compression.as_deref()),
            ("filter_prefix", self.filter_prefix.as_deref()),
            ("ttl", self.ttl.as_deref()),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// `keyspace`.
pub async fn run(client: &Client, command: &KeyspaceCommand) -> Result<Exit, CliError> {
    let (made, json) = match command {
        KeyspaceCommand::Create(args) => {
            let n = args.n.map(|n| n.to_string());
            let mut settings = args.settings.settings();
            settings.extend(n.as_deref().map(|n| ("n", n)));
            let made = client.create_keyspace(&args.name, &settings).await?;
            (vec![made], args.settings.json)
        }
        KeyspaceCommand::Set(args) => {
            let settings = args.settings.settings();
            if settings.is_empty() {
                return Err(CliError::new(Exit::Usage, "name a setting to change"));
            }
            (vec![client.alter_keyspace(&args.name, &settings).await?], args.settings.json)
        }
        KeyspaceCommand::Ls(args) => (client.keyspaces().await?, args.json),
    };
    if json {
        made.iter().try_for_each(|keyspace| print_json(&KeyspaceJson::of(keyspace)))?;
    } else {
        print(table(&made).as_bytes())?;
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct KeyspaceJson<'a> {
    name: &'a str,
    id: String,
    version: u64,
    settings: BTreeMap<&'a str, &'a str>,
}

impl<'a> KeyspaceJson<'a> {
    fn of(keyspace: &'a KeyspaceInfo) -> Self {
        let settings = keyspace.settings.iter();
        KeyspaceJson {
            name: &keyspace.name,
            id: keyspace.id.to_string(),
            version: keyspace.version,
            settings: settings.map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }
    }
}

/// A line for each keyspace.
fn table(keyspaces: &[KeyspaceInfo]) -> String {
    let width = keyspaces.iter().map(|keyspace| keyspace.name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for keyspace in keyspaces {
        // Writing to a String cannot fail.
        let _ = write!(table, "{:<width$}", keyspace.name);
        for (name, value) in &keyspace.settings {
            let _ = write!(table, "  {name}={value}");
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use coronet_ring::KeyspaceId;

    use super::*;

    #[test]
    fn a_line_shows_name_and_settings() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let keyspace = |name: &str| KeyspaceInfo {
            id: KeyspaceId::of(name),
            version: 1,
            name: name.to_owned(),
            settings: vec![pair("n", "3"), pair("compaction", "tiered(fanout=6)")],
        };
        let table = table(&[keyspace("default"), keyspace("x")]);
        let rest = "  n=3  compaction=tiered(fanout=6)\n";
        assert_eq!(table, format!("default{rest}x      {rest}"));
    }
}
