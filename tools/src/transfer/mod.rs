//! Directory trees to keys and back: `coronet load` and `coronet verify`. A thread walks the tree
//! and reads files ahead within a byte budget; the async side keeps requests in flight.

pub mod budget;
pub mod feed;
pub mod journal;
pub mod load;
pub mod progress;
pub mod summary;
pub mod verify;
pub mod walk;

use std::path::PathBuf;

use crate::cli::exit::CliError;
use crate::cli::options::RequestArgs;

/// What `load` and `verify` have in common.
#[derive(Debug, clap::Args)]
pub struct TreeArgs {
    /// The root of the tree.
    pub dir: PathBuf,
    /// What every key begins with.
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Requests in flight.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub in_flight: u16,
    /// Largest value in bytes, when below the limit of the server; larger files are skipped.
    #[arg(long, value_name = "BYTES")]
    pub max_value: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub request: RequestArgs,
    /// No progress.
    #[arg(long)]
    pub quiet: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Where transferred files go: the client, or a map in tests.
pub trait Store {
    /// Stores a value; the future ends when it is acknowledged.
    fn put(&self, key: &[u8], value: Vec<u8>) -> impl Future<Output = Result<(), CliError>>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Vec<u8>>, CliError>>;
}
