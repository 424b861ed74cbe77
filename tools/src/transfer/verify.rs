//! `coronet verify`: every file of a tree, or every acknowledged key of a journal, read back and
//! compared byte by byte.

use std::path::{Path, PathBuf};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::feed::{Feed, Item, Source};
use super::journal;
use super::load::check_root;
use super::progress::{Expected, Progress};
use super::summary::{Summary, shown};
use super::{Store, TreeArgs};
use crate::cli::exit::{CliError, Exit};

/// Reads back what `load` stored and compares every byte. Ends with code 8 when a key is missing
/// or different.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tree: TreeArgs,
    /// Compare only the keys in this journal of `load --acked`.
    #[arg(long, value_name = "FILE")]
    pub acked: Option<PathBuf>,
}

/// Compares; the summary says what was missing or different, each of which was also reported.
pub async fn verify<S: Store>(
    store: &S,
    args: &VerifyArgs,
    max_value: u64,
) -> Result<Summary, CliError> {
    check_root(&args.tree.dir)?;
    let source = match &args.acked {
        None => Source::Tree,
        Some(path) => Source::Paths(acknowledged(path, args.tree.prefix.as_bytes())?),
    };
    let expected = match &source {
        Source::Tree => Expected::Tree(&args.tree.dir),
        Source::Paths(paths) => Expected::Files(paths.len() as u64),
    };
    let mut progress = Progress::new("compared", args.tree.quiet, expected);
    let mut summary = Summary::default();
    let mut feed = Feed::start(&args.tree.dir, source, max_value);
    let mut reads = FuturesUnordered::new();
    let mut more = true;
    while more || !reads.is_empty() {
        let may_read = more && reads.len() < usize::from(args.tree.in_flight);
        tokio::select! {
            biased;
            Some(done) = reads.next(), if !reads.is_empty() => {
                let compared: Compared = done?;
                settle(&compared, &mut summary, &mut progress);
            }
            fed = feed.next(), if may_read => match fed {
                Some(Ok(item)) => reads.push(compare(store, &args.tree.prefix, item)),
                Some(Err(skip)) => summary.skipped.count(&skip, &progress),
                None => more = false,
            },
        }
    }
    summary.seconds = progress.finish();
    Ok(summary)
}

/// The relative paths of the journal's keys.
fn acknowledged(path: &Path, prefix: &[u8]) -> Result<Vec<Vec<u8>>, CliError> {
    let keys = journal::read(path)
        .map_err(|e| CliError::local(format_args!("reading {}", path.display()), &e))?;
    keys.into_iter()
        .map(|key| match key.strip_prefix(prefix) {
            Some(relative) => Ok(relative.to_vec()),
            None => {
                let message = format!("{} in the journal lacks the prefix", shown(&key));
                Err(CliError::new(Exit::Usage, message))
            }
        })
        .collect()
}

struct Compared {
    key: Vec<u8>,
    bytes: u64,
    verdict: Verdict,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Equal,
    Missing,
    /// The first differing byte and the length of the stored value.
    Different(usize, usize),
}

async fn compare<S: Store>(store: &S, prefix: &str, item: Item) -> Result<Compared, CliError> {
    let key = [prefix.as_bytes(), &item.relative].concat();
    let stored = store
        .get(&key)
        .await
        .map_err(|e| CliError::new(e.exit, format!("{}: {}", shown(&key), e.message)))?;
    let verdict = judge(&item.content, stored.as_deref());
    Ok(Compared { key, bytes: item.content.len() as u64, verdict })
}

fn judge(file: &[u8], stored: Option<&[u8]>) -> Verdict {
    match stored {
        None => Verdict::Missing,
        Some(stored) if stored == file => Verdict::Equal,
        Some(stored) => {
            let same = file.iter().zip(stored).take_while(|(a, b)| a == b).count();
            Verdict::Different(same, stored.len())
        }
    }
}

fn settle(compared: &Compared, summary: &mut Summary, progress: &mut Progress) {
    match compared.verdict {
        Verdict::Equal => {
            summary.files += 1;
            summary.bytes += compared.bytes;
            progress.file(compared.bytes);
        }
        Verdict::Missing => {
            summary.missing += 1;
            progress.note(&format!("missing: {}", shown(&compared.key)));
        }
        Verdict::Different(at, stored) => {
            summary.different += 1;
            progress.note(&format!(
                "different: {} from byte {at} on ({} bytes in the file, {stored} stored)",
                shown(&compared.key),
                compared.bytes
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::options::RequestArgs;
    use crate::transfer::feed::block_on;
    use crate::transfer::load::{LoadArgs, load};
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::fs;

    /// Keys in memory; refuses every write after `accept` of them.
    #[derive(Default)]
    struct Memory {
        values: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
        accept: Cell<Option<usize>>,
    }

    impl Store for Memory {
        async fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), CliError> {
            tokio::task::yield_now().await;
            let mut values = self.values.borrow_mut();
            if self.accept.get().is_some_and(|accept| values.len() >= accept) {
                return Err(CliError::new(Exit::Unavailable, "gone"));
            }
            values.insert(key.to_vec(), value);
            Ok(())
        }

        async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CliError> {
            Ok(self.values.borrow().get(key).cloned())
        }
    }

    fn tree(files: usize) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        for number in 0..files {
            let content = vec![number as u8; number * 37];
            fs::write(root.path().join(format!("sub/{number:04}")), content).unwrap();
        }
        root
    }

    fn tree_args(root: &Path) -> TreeArgs {
        TreeArgs {
            dir: root.to_owned(),
            prefix: "p/".into(),
            in_flight: 8,
            max_value: None,
            request: RequestArgs { deadline_ms: 1000, ..RequestArgs::default() },
            quiet: true,
            json: false,
        }
    }

    fn load_args(root: &Path, acked: Option<PathBuf>) -> LoadArgs {
        let durability = crate::cli::options::Durability::Durable;
        LoadArgs { tree: tree_args(root), acked, durability }
    }

    fn verify_args(root: &Path, acked: Option<PathBuf>) -> VerifyArgs {
        VerifyArgs { tree: tree_args(root), acked }
    }

    #[test]
    fn what_was_loaded_verifies_and_damage_is_found() {
        let root = tree(100);
        let store = Memory::default();
        block_on(async {
            let loaded = load(&store, &load_args(root.path(), None), 1 << 20).await.unwrap();
            assert_eq!(loaded.files, 100);
            let clean = verify(&store, &verify_args(root.path(), None), 1 << 20).await.unwrap();
            assert_eq!((clean.files, clean.bytes), (100, loaded.bytes));
            assert!(clean.is_clean());
            store.values.borrow_mut().remove(&b"p/sub/0007"[..]);
            store.values.borrow_mut().get_mut(&b"p/sub/0050"[..]).unwrap()[99] ^= 1;
            let dirty = verify(&store, &verify_args(root.path(), None), 1 << 20).await.unwrap();
            assert_eq!((dirty.files, dirty.missing, dirty.different), (98, 1, 1));
        });
    }

    #[test]
    fn a_refused_write_ends_the_load_and_the_journal_holds_exactly_the_acknowledged() {
        let root = tree(60);
        let journal_folder = tempfile::tempdir().unwrap();
        let acked = journal_folder.path().join("acked");
        let store = Memory::default();
        store.accept.set(Some(25));
        block_on(async {
            let failed = load(&store, &load_args(root.path(), Some(acked.clone())), 1 << 20).await;
            assert_eq!(failed.unwrap_err().exit, Exit::Unavailable);
            let keys = journal::read(&acked).unwrap();
            assert_eq!(keys.len(), 25);
            assert!(keys.iter().all(|key| store.values.borrow().contains_key(key)));
            let checked =
                verify(&store, &verify_args(root.path(), Some(acked)), 1 << 20).await.unwrap();
            assert_eq!((checked.files, checked.is_clean()), (25, true));
        });
    }

    #[test]
    fn a_tree_that_is_not_there_is_an_error() {
        block_on(async {
            let store = Memory::default();
            let missing = Path::new("/nonexistent/tree");
            let error = load(&store, &load_args(missing, None), 1 << 20).await.unwrap_err();
            assert_eq!(error.exit, Exit::Data);
        });
    }

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(judge(b"abc", Some(b"abd")), Verdict::Different(2, 3));
        assert_eq!(judge(b"abc", Some(b"ab")), Verdict::Different(2, 2));
        assert_eq!(judge(b"", Some(b"")), Verdict::Equal);
        assert_eq!(judge(b"", None), Verdict::Missing);
    }
}
