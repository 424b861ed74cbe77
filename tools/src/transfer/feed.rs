//! The reading side: a thread that walks the tree, or follows a list, and reads files ahead of the
//! requests, bounded in number and bytes.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::budget::{Budget, Held};
use super::walk::{Found, Skip, walk};

/// Files waiting between the reader and the requests.
const QUEUE: usize = 64;
/// Bytes read ahead and in flight.
const BYTES: usize = 64 << 20;

/// A file with its content.
#[derive(Debug)]
pub struct Item {
    /// Its path relative to the root.
    pub relative: Vec<u8>,
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its share of the budget; dropped when the bytes are no longer needed.
    pub held: Held,
}

/// What the reader hands on.
pub type Fed = Result<Item, Skip>;

/// The receiving end of the reader.
pub struct Feed {
    receiver: mpsc::Receiver<Fed>,
    budget: Budget,
}

/// What to read.
#[derive(Debug)]
pub enum Source {
    /// Every file of the tree.
    Tree,
    /// These relative paths.
    Paths(Vec<Vec<u8>>),
}

impl Feed {
    /// Starts reading under `root`; files above `max_bytes` are skipped.
    pub fn start(root: &Path, source: Source, max_bytes: u64) -> Feed {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let budget = Budget::new(BYTES);
        let (root, share) = (root.to_owned(), budget.clone());
        std::thread::spawn(move || {
            let mut hand_on = |found: Result<Found, Skip>| {
                let fed = match found.and_then(|found| read(found, max_bytes, &share)) {
                    Ok(None) => return false,
                    Ok(Some(item)) => Ok(item),
                    Err(skip) => Err(skip),
                };
                sender.blocking_send(fed).is_ok()
            };
            match source {
                Source::Tree => walk(&root, &mut hand_on),
                Source::Paths(paths) => {
                    for relative in paths {
                        let path = root.join(Path::new(std::ffi::OsStr::from_bytes(&relative)));
                        if !hand_on(Ok(Found { path, relative })) {
                            return;
                        }
                    }
                }
            }
        });
        Feed { receiver, budget }
    }

    /// The next file; `None` at the end.
    pub async fn next(&mut self) -> Option<Fed> {
        self.receiver.recv().await
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.receiver.close();
        self.budget.close();
    }
}

/// Reads a file within the budget; `None` when the budget was closed.
fn read(found: Found, max_bytes: u64, budget: &Budget) -> Result<Option<Item>, Skip> {
    let unreadable =
        |path: &PathBuf, e: &std::io::Error| Skip::Unreadable(path.clone(), e.to_string());
    let file = File::open(&found.path).map_err(|e| unreadable(&found.path, &e))?;
    let length = file.metadata().map_err(|e| unreadable(&found.path, &e))?.len();
    if length > max_bytes {
        return Err(Skip::TooLarge(found.path, length));
    }
    let Some(held) = budget.take(length as usize) else { return Ok(None) };
    // The file may grow while it is read; the limit holds all the same.
    let mut content = Vec::with_capacity(length as usize);
    let read = file.take(max_bytes + 1).read_to_end(&mut content);
    read.map_err(|e| unreadable(&found.path, &e))?;
    if content.len() as u64 > max_bytes {
        return Err(Skip::TooLarge(found.path, content.len() as u64));
    }
    Ok(Some(Item { relative: found.relative, content, held }))
}

/// A runtime for one thread, the only kind the tools use.
#[cfg(test)]
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_arrive_whole_and_large_ones_are_skipped() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), b"hello").unwrap();
        std::fs::write(root.path().join("b"), vec![7; 101]).unwrap();
        std::fs::write(root.path().join("c"), b"").unwrap();
        block_on(async {
            let mut feed = Feed::start(root.path(), Source::Tree, 100);
            let first = feed.next().await.unwrap().unwrap();
            assert_eq!((&first.relative[..], &first.content[..]), (&b"a"[..], &b"hello"[..]));
            let second = feed.next().await.unwrap().unwrap_err();
            assert_eq!(second, Skip::TooLarge(root.path().join("b"), 101));
            assert!(feed.next().await.unwrap().unwrap().content.is_empty());
            assert!(feed.next().await.is_none());
        });
    }

    #[test]
    fn listed_paths_are_followed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), b"1").unwrap();
        block_on(async {
            let paths = Source::Paths(vec![b"gone".to_vec(), b"a".to_vec()]);
            let mut feed = Feed::start(root.path(), paths, 100);
            assert!(matches!(feed.next().await, Some(Err(Skip::Unreadable(..)))));
            assert_eq!(feed.next().await.unwrap().unwrap().content, b"1");
            assert!(feed.next().await.is_none());
        });
    }

    #[test]
    fn more_than_the_budget_flows_through() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..48 {
            std::fs::write(root.path().join(format!("{number:03}")), vec![1; 1 << 20]).unwrap();
        }
        block_on(async {
            let mut feed = Feed::start(root.path(), Source::Tree, 1 << 20);
            let mut bytes = 0;
            while let Some(item) = feed.next().await {
                bytes += item.unwrap().content.len();
            }
            assert_eq!(bytes, 48 << 20);
        });
    }
}
