//! The verbs for single keys and the questions to the server.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use coronet_net::client::{Client, Stored};
use coronet_net::codec::StatsReply;
use coronet_ring::CoreId;
use serde::Serialize;

use super::client::explain;
use super::exit::{CliError, Exit};
use super::options::{DeleteArgs, GetArgs, PutArgs, RouteArgs, StatsArgs};
use super::render::{Encoded, token};
use super::{print, print_json};

/// `put`.
pub async fn put(client: &Client, args: &PutArgs) -> Result<Exit, CliError> {
    let options = args.write.options();
    let value = match &args.value {
        Some(value) => value.as_bytes().to_vec(),
        None => standard_input(u64::from(client.layout().limits().max_value))?,
    };
    let stored = client.put_with(args.key.as_bytes(), &value, &options).await?;
    explain(args.write.verbose, &stored.info);
    written(&args.key, &stored, args.json)
}

/// Standard input to its end. More than a value may have is refused before it is all in memory.
fn standard_input(limit: u64) -> Result<Vec<u8>, CliError> {
    let mut value = Vec::new();
    let input = std::io::stdin().lock().take(limit + 1);
    let mut input = std::io::BufReader::new(input);
    input.read_to_end(&mut value).map_err(|e| CliError::local("reading standard input", &e))?;
    if value.len() as u64 > limit {
        return Err(CliError::new(Exit::Usage, format!("the value is over {limit} bytes")));
    }
    Ok(value)
}

/// `delete`.
pub async fn delete(client: &Client, args: &DeleteArgs) -> Result<Exit, CliError> {
    let stored = client.delete_with(args.key.as_bytes(), &args.write.options()).await?;
    explain(args.write.verbose, &stored.info);
    written(&args.key, &stored, args.json)
}

#[derive(Serialize)]
struct WrittenJson {
    key: Encoded,
    hlc: u64,
    context: String,
}

fn written(key: &OsStr, stored: &Stored, json: bool) -> Result<Exit, CliError> {
    if json {
        print_json(&WrittenJson {
            key: Encoded::of(key.as_bytes()),
            hlc: stored.hlc.0,
            context: token(&stored.context),
        })?;
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct FoundJson {
    key: Encoded,
    versions: Vec<VersionJson>,
    context: String,
}

#[derive(Serialize)]
struct VersionJson {
    #[serde(flatten)]
    value: Encoded,
    hlc: u64,
    deleted: bool,
}

/// `get`.
pub async fn get(client: &Client, args: &GetArgs) -> Result<Exit, CliError> {
    let options = args.read.options();
    let mut found = client.get_with(args.key.as_bytes(), &options).await?;
    explain(args.verbose, &found.info);
    // The latest first: it is the one that is printed raw.
    found.versions.sort_by_key(|version| std::cmp::Reverse((!version.tombstone, version.hlc)));
    let exit = match found.versions.len() {
        _ if !found.exists() => Exit::NotFound,
        2.. if args.fail_on_siblings => Exit::Siblings,
        _ => Exit::Ok,
    };
    if args.json {
        let versions = found.versions.iter().map(|version| VersionJson {
            value: Encoded::of(&version.value),
            hlc: version.hlc.0,
            deleted: version.tombstone,
        });
        print_json(&FoundJson {
            key: Encoded::of(args.key.as_bytes()),
            versions: versions.collect(),
            context: token(&found.context),
        })?;
    } else if exit == Exit::Ok {
        print(found.value().unwrap_or_default())?;
    }
    Ok(exit)
}

/// `stats`: any core answers for the whole node.
pub async fn stats(client: &Client, args: &StatsArgs) -> Result<Exit, CliError> {
    let stats = client.stats().await?;
    if args.json {
        let counters: BTreeMap<_, _> =
            stats.counters.iter().map(|(name, value)| (name, value)).collect();
        print_json(&counters)?;
    } else {
        print(stats_table(&stats).as_bytes())?;
    }
    Ok(Exit::Ok)
}

/// A line for each counter, in the server's order.
fn stats_table(stats: &StatsReply) -> String {
    let width = stats.counters.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for (name, value) in &stats.counters {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{name:<width$} {value:>20}");
    }
    table
}

#[derive(Serialize)]
struct RouteJson {
    key: Encoded,
    partition: u16,
    core: u16,
    epoch: u64,
    node: String,
}

/// `route`.
pub async fn route(client: &Client, args: &RouteArgs) -> Result<Exit, CliError> {
    let route = client.route(args.key.as_bytes()).await?;
    let node = format!("{:032x}", route.node_id.0);
    let (partition, core, epoch) = (route.partition.0, route.core.0, route.epoch.0);
    if args.json {
        let key = Encoded::of(args.key.as_bytes());
        print_json(&RouteJson { key, partition, core, epoch, node })?;
    } else {
        let line = format!("partition {partition}, core {core} of node {node}, epoch {epoch}\n");
        print(line.as_bytes())?;
    }
    Ok(Exit::Ok)
}

/// `ping`.
pub async fn ping(client: &Client) -> Result<Exit, CliError> {
    for core in 0..client.layout().cores() {
        let time = client.ping(CoreId(core), b"coronet").await?;
        print(format!("core {core}: {:.1} us\n", time.as_secs_f64() * 1e6).as_bytes())?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_counter() {
        let counters = [("a", 1), ("long.name", u64::MAX)];
        let counters = counters.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let table = stats_table(&StatsReply { counters });
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["a", "1"], vec!["long.name", "18446744073709551615"]]);
    }
}
