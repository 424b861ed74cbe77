//! The verbs for single keys and the questions to the server.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use coronet_net::client::{Client, Stored};
use coronet_ring::CoreId;
use serde::Serialize;

use super::client::explain;
use super::exit::{CliError, Exit};
use super::options::{DeleteArgs, GetArgs, PutArgs, RouteArgs};
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
