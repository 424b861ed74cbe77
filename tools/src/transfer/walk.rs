//! The files of a tree in a fixed order, with what was left out and why.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A regular file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Its path relative to the root, as bytes, `/` between the parts.
    pub relative: Vec<u8>,
}

/// Why something in the tree is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// A symbolic link; links are not followed.
    Link,
    /// Neither file, folder nor link.
    Special(PathBuf),
    /// It could not be read.
    Unreadable(PathBuf, String),
    /// More bytes than a value may have.
    TooLarge(PathBuf, u64),
}

/// Walks the tree under `root` depth first, names in byte order, and hands on each regular file or
/// what was skipped. Stops when `visit` returns false.
pub fn walk(root: &Path, visit: &mut dyn FnMut(Result<Found, Skip>) -> bool) {
    folder(root, &mut Vec::new(), visit);
}

fn folder(
    path: &Path,
    relative: &mut Vec<u8>,
    visit: &mut dyn FnMut(Result<Found, Skip>) -> bool,
) -> bool {
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(e) => return visit(Err(Skip::Unreadable(path.to_owned(), e.to_string()))),
    };
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let before = relative.len();
        if before > 0 {
            relative.push(b'/');
        }
        relative.extend_from_slice(entry.file_name().as_bytes());
        let go_on = match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder(&entry.path(), relative, visit),
            Ok(kind) if kind.is_file() => {
                visit(Ok(Found { path: entry.path(), relative: relative.clone() }))
            }
            Ok(kind) if kind.is_symlink() => visit(Err(Skip::Link)),
            Ok(_) => visit(Err(Skip::Special(entry.path()))),
            Err(e) => visit(Err(Skip::Unreadable(entry.path(), e.to_string()))),
        };
        relative.truncate(before);
        if !go_on {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_order_and_the_rest_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("b/deep/file"), "1").unwrap();
        fs::write(at("b/a"), "").unwrap();
        fs::write(at("a"), "2").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let (mut found, mut skipped) = (Vec::new(), Vec::new());
        walk(root.path(), &mut |item| {
            match item {
                Ok(file) => found.push(String::from_utf8(file.relative).unwrap()),
                Err(skip) => skipped.push(skip),
            }
            true
        });
        assert_eq!(found, ["a", "b/a", "b/deep/file"]);
        assert_eq!(skipped, [Skip::Link, Skip::Special(at("socket"))]);
    }

    #[test]
    fn a_missing_root_is_reported_and_stopping_works() {
        let mut skipped = 0;
        walk(Path::new("/nonexistent/tree"), &mut |item| {
            skipped += usize::from(matches!(item, Err(Skip::Unreadable(..))));
            true
        });
        assert_eq!(skipped, 1);
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        let mut seen = 0;
        walk(root.path(), &mut |_| {
            seen += 1;
            seen < 2
        });
        assert_eq!(seen, 2);
    }
}
