//! The arguments of `coronet`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use coronet_net::Quorum;

use super::admin::{AcceptLossArgs, CheckpointArgs, ScrubArgs};
use super::exit;
use super::keyspace::KeyspaceCommand;
use super::render::Token;
use super::sim::SimArgs;
use crate::bench::BenchArgs;
use crate::offline::folder::FolderCommand;
use crate::offline::{DumpCommand, SstCommand};
use crate::transfer::load::LoadArgs;
use crate::transfer::verify::VerifyArgs;

/// Talks to a Coronet server: stores, reads and lists keys, moves directory trees, measures.
#[derive(Debug, Parser)]
#[command(name = "coronet", version, after_help = exit::HELP, max_term_width = 100)]
pub struct Options {
    /// The server; several nodes of a cluster with commas between them, in case one is down.
    #[arg(
        long,
        value_name = "HOST:PORT,..",
        env = "CORONET_ADDR",
        default_value = "127.0.0.1:4720",
        global = true
    )]
    pub addr: String,
    /// The keyspace of keys and listings.
    #[arg(
        long = "keyspace",
        id = "in_keyspace",
        value_name = "NAME",
        env = "CORONET_KEYSPACE",
        default_value = "default",
        global = true
    )]
    pub keyspace: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a value.
    Put(PutArgs),
    /// Print the value of a key, raw. Ends with code 3 when there is none.
    Get(GetArgs),
    /// Remove the value of a key.
    Delete(DeleteArgs),
    /// List keys in order within each core, those with a prefix if one is given.
    Ls(LsArgs),
    /// Show the nodes of the cluster. Ends with code 5 when one of them is down.
    Status(StatusArgs),
    /// Show how partitions are spread over the nodes. Ends with code 8 when replicas share a rack
    /// without need.
    Ring(RingArgs),
    /// Create, change and list keyspaces: keys of their own with settings of their own.
    #[command(subcommand)]
    Keyspace(KeyspaceCommand),
    /// Show what the server did and how fast: requests, latencies, bytes by cause, levels,
    /// keyspaces.
    Stats(StatsArgs),
    /// Read all tables for damage: how fast, and now.
    Scrub(ScrubArgs),
    /// Give up what is in quarantine: reads answer from what is left.
    AcceptLoss(AcceptLossArgs),
    /// Copy the node's data as it is now into a folder that a node can be started on.
    Checkpoint(CheckpointArgs),
    /// Show the partition and the core of a key.
    Route(RouteArgs),
    /// Ask whether the server answers, and how fast.
    Ping,
    /// Check whether this machine is fit for a server: the cause and the fix of each failure. Ends
    /// with the code of the first one, as `coronetd` would (70 to 79).
    Doctor(DoctorArgs),
    /// Read table files offline.
    #[command(subcommand)]
    Sst(SstCommand),
    /// Read log segments offline.
    #[command(subcommand)]
    Log(DumpCommand),
    /// Read manifests offline.
    #[command(subcommand)]
    Manifest(DumpCommand),
    /// Read the other files of a data folder offline, and verify whole folders.
    #[command(subcommand)]
    Folder(FolderCommand),
    /// Store every file of a directory tree.
    Load(LoadArgs),
    /// Read back what `load` stored and compare every byte.
    Verify(VerifyArgs),
    /// Run whole clusters in simulated worlds full of faults, and check what clients are told.
    /// Ends with code 8 when something must not have happened.
    Sim(SimArgs),
    /// Measure a server, this one or a RESP one.
    Bench(Box<BenchArgs>),
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// It is on the device.
    Durable,
    /// It is in the server's log buffer; written and synced within an interval.
    Buffered,
}

/// What every request may ask for.
#[derive(Debug, Default, Args)]
pub struct RequestArgs {
    /// Give up after this many milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub deadline_ms: u32,
    /// Count replicas of the key only: refuse at once when too few can be reached.
    #[arg(long, conflicts_with = "sloppy")]
    pub strict: bool,
    /// Count nodes that stand in for replicas out of reach, too.
    #[arg(long)]
    pub sloppy: bool,
    /// Let the last write win: no siblings are shown, or kept.
    #[arg(long)]
    pub lww: bool,
}

/// How many replicas a read waits for.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Replicas that must have answered: a number, quorum or all (0: the server's default).
    #[arg(long, value_name = "N|quorum|all", default_value = "0", value_parser = quorum)]
    pub r: Quorum,
    /// Answer only once no later read with the same R can miss what this one returns.
    #[arg(long)]
    pub monotonic: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub request: RequestArgs,
}

/// Reads a number of replicas.
pub fn quorum(text: &str) -> Result<Quorum, String> {
    match text {
        "quorum" | "majority" => Ok(Quorum::MAJORITY),
        "all" => Ok(Quorum::ALL),
        number => match number.parse() {
            Ok(number @ 0..=253) => Ok(Quorum(number)),
            _ => Err("a number up to 253, quorum or all is wanted".to_owned()),
        },
    }
}

/// What every write may ask for.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Replicas that must have stored it: a number, quorum or all (0: the server's default).
    #[arg(long, value_name = "N|quorum|all", default_value = "0", value_parser = quorum)]
    pub w: Quorum,
    /// The context of the versions this one replaces, as printed by `get --json`.
    #[arg(long, value_name = "BASE64URL")]
    pub context: Option<Token>,
    /// When the write counts as done.
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,
    /// Say on standard error which node answered, for how many replicas, and how.
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub request: RequestArgs,
}

/// `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The key.
    pub key: OsString,
    /// The value; read from standard input when absent.
    pub value: Option<OsString>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub write: WriteArgs,
    /// Print the new context as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The key.
    pub key: OsString,
    /// Print every version with its context as JSON.
    #[arg(long)]
    pub json: bool,
    /// End with code 4 when there are several versions.
    #[arg(long)]
    pub fail_on_siblings: bool,
    /// Say on standard error which node answered, for how many replicas, and how.
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub read: ReadArgs,
}

/// `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The key.
    pub key: OsString,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub write: WriteArgs,
    /// Print the new context as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Only keys that begin with this.
    #[arg(default_value = "")]
    pub prefix: OsString,
    /// Print at most this many keys.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Go on where a former listing with --limit ended.
    #[arg(long, value_name = "BASE64URL")]
    pub cursor: Option<Token>,
    /// Print a JSON object for each key and one with the cursor at the end.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub read: ReadArgs,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ring`.
#[derive(Debug, Args)]
pub struct RingArgs {
    /// Show where this key lives, too.
    #[arg(long)]
    pub key: Option<OsString>,
    /// Show what a further node on this rack would move; may be given more than once.
    #[arg(long, value_name = "RACK")]
    pub join: Vec<String>,
    /// Show what it would move if the node at this address left; may be given more than once.
    #[arg(long, value_name = "ADDRESS")]
    pub leave: Vec<String>,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Print every counter as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print every counter, one a line.
    #[arg(long, conflicts_with = "json")]
    pub all: bool,
}

/// `route`.
#[derive(Debug, Args)]
pub struct RouteArgs {
    /// The key.
    pub key: OsString,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The settings the server would be started with: checks what it would use. The variables
    /// `CORONET_*` count, as they do for the server.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "listen", "cores"])]
    pub config: Option<PathBuf>,
    /// The data folder the server would use; a temporary one when absent.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Where the server would listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4720")]
    pub listen: SocketAddr,
    /// Cores the server would use.
    #[arg(long, default_value_t = 1)]
    pub cores: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Options::command().debug_assert();
    }
}
