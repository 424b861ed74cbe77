//! `coronet load`: every file of a tree under its path, many writes in flight.

use std::path::{Path, PathBuf};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::feed::{Feed, Item, Source};
use super::journal::Journal;
use super::progress::{Expected, Progress};
use super::summary::Summary;
use super::{Store, TreeArgs};
use crate::cli::exit::CliError;
use crate::cli::options::Durability;

/// Stores every file of a tree under PREFIX and its relative path. Links and special files are
/// not stored; files over the limit of a value are reported and skipped.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tree: TreeArgs,
    /// Append each acknowledged key to this file, a line each, percent-encoded.
    #[arg(long, value_name = "FILE")]
    pub acked: Option<PathBuf>,
    /// When a write counts as done.
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,
}

/// Loads the tree; files above `max_value` bytes are skipped. On the first refused write no further
/// ones are sent; those in flight are still waited for and journalled.
pub async fn load<S: Store>(
    store: &S,
    args: &LoadArgs,
    max_value: u64,
) -> Result<Summary, CliError> {
    let mut journal = match &args.acked {
        None => None,
        Some(path) => Some(
            Journal::append_to(path)
                .map_err(|e| CliError::local(format_args!("opening {}", path.display()), &e))?,
        ),
    };
    check_root(&args.tree.dir)?;
    let mut progress = Progress::new("stored", args.tree.quiet, Expected::Tree(&args.tree.dir));
    let mut summary = Summary::default();
    let mut feed = Feed::start(&args.tree.dir, Source::Tree, max_value);
    let mut writes = FuturesUnordered::new();
    let mut failure = None;
    let mut more = true;
    while more || !writes.is_empty() {
        let may_read = more && writes.len() < usize::from(args.tree.in_flight);
        tokio::select! {
            biased;
            Some(done) = writes.next(), if !writes.is_empty() => {
                let settled = settle(done, journal.as_mut(), &mut summary, &mut progress);
                if let Err(error) = settled {
                    failure.get_or_insert(error);
                    more = false;
                }
            }
            fed = feed.next(), if may_read => match fed {
                Some(Ok(item)) => writes.push(write(store, &args.tree.prefix, item)),
                Some(Err(skip)) => summary.skipped.count(&skip, &progress),
                None => more = false,
            },
        }
    }
    summary.seconds = progress.finish();
    failure.map_or(Ok(summary), Err)
}

/// A tree that cannot be walked at all is an error, not an empty tree.
pub fn check_root(dir: &Path) -> Result<(), CliError> {
    let listed = std::fs::read_dir(dir);
    listed.map(drop).map_err(|e| CliError::local(format_args!("reading {}", dir.display()), &e))
}

/// A finished write: its key, the bytes stored and what the server said.
struct Written {
    key: Vec<u8>,
    bytes: u64,
    result: Result<(), CliError>,
}

async fn write<S: Store>(store: &S, prefix: &str, item: Item) -> Written {
    let key = [prefix.as_bytes(), &item.relative].concat();
    let bytes = item.content.len() as u64;
    let result = store.put(&key, item.content).await;
    drop(item.held);
    Written { key, bytes, result }
}

fn settle(
    done: Written,
    journal: Option<&mut Journal>,
    summary: &mut Summary,
    progress: &mut Progress,
) -> Result<(), CliError> {
    done.result.map_err(|e| {
        CliError::new(e.exit, format!("{}: {}", super::summary::shown(&done.key), e.message))
    })?;
    if let Some(journal) = journal {
        journal.record(&done.key).map_err(|e| CliError::local("writing the journal", &e))?;
    }
    summary.files += 1;
    summary.bytes += done.bytes;
    progress.file(done.bytes);
    Ok(())
}
