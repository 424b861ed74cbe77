//! Folders: the names as processes see them, the names as a power failure would leave them, and
//! the operations between the two.
//!
//! A power failure keeps, per folder, a prefix of the operations since its last sync; a rename
//! between two folders counts for both, so it happens whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::rng::Rng;

pub(crate) const ROOT: u64 = 0;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Dir(u64),
    File(u64),
}

type Folders = BTreeMap<u64, BTreeMap<OsString, Node>>;
type Place = (u64, OsString);

#[derive(Debug, Clone)]
enum NameOp {
    Add(Place, Node),
    Remove(Place),
    Rename(Place, Place),
}

impl NameOp {
    fn folders(&self) -> [u64; 2] {
        match self {
            NameOp::Add((dir, _), _) | NameOp::Remove((dir, _)) => [*dir, *dir],
            NameOp::Rename((from, _), (to, _)) => [*from, *to],
        }
    }

    fn apply(&self, folders: &mut Folders) {
        match self {
            NameOp::Add((dir, name), node) => {
                folders.entry(*dir).or_default().insert(name.clone(), *node);
            }
            NameOp::Remove((dir, name)) => {
                folders.entry(*dir).or_default().remove(name);
            }
            NameOp::Rename((from, old), (to, new)) => {
                if let Some(node) = folders.entry(*from).or_default().remove(old) {
                    folders.entry(*to).or_default().insert(new.clone(), node);
                }
            }
        }
    }
}

/// The names of one disk.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    current: Folders,
    durable: Folders,
    pending: Vec<(u64, NameOp)>,
    ops: u64,
}

impl Names {
    pub(crate) fn new() -> Self {
        let root = Folders::from([(ROOT, BTreeMap::new())]);
        Names { current: root.clone(), durable: root, pending: Vec::new(), ops: 0 }
    }

    fn record(&mut self, op: NameOp) {
        op.apply(&mut self.current);
        self.ops += 1;
        self.pending.push((self.ops, op));
    }

    fn child(&self, dir: u64, name: &OsStr) -> Option<Node> {
        self.current.get(&dir)?.get(name).copied()
    }

    pub(crate) fn resolve(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Dir(ROOT);
        for name in parts(path) {
            let Node::Dir(dir) = node else { return Err(io::ErrorKind::NotADirectory.into()) };
            node = self.child(dir, name).ok_or_else(|| not_found(path))?;
        }
        Ok(node)
    }

    pub(crate) fn folder(&self, path: &Path) -> io::Result<u64> {
        match self.resolve(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The folder a name is in, and the name.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.folder(parent)?, name.to_owned()))
    }

    /// Adds a file's name.
    pub(crate) fn add_file(&mut self, path: &Path, ino: u64) -> io::Result<()> {
        let place = self.place(path)?;
        if self.child(place.0, &place.1).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.record(NameOp::Add(place, Node::File(ino)));
        Ok(())
    }

    /// Creates a folder and its parents; `next` issues their numbers.
    pub(crate) fn create_dir_all(
        &mut self,
        path: &Path,
        mut next: impl FnMut() -> u64,
    ) -> io::Result<()> {
        let mut dir = ROOT;
        for name in parts(path) {
            dir = match self.child(dir, name) {
                Some(Node::Dir(found)) => found,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let ino = next();
                    self.current.insert(ino, BTreeMap::new());
                    self.record(NameOp::Add((dir, name.to_owned()), Node::Dir(ino)));
                    ino
                }
            };
        }
        Ok(())
    }

    pub(crate) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        match self.resolve(path)? {
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
            Node::File(_) => {
                let place = self.place(path)?;
                self.record(NameOp::Remove(place));
                Ok(())
            }
        }
    }

    pub(crate) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.folder(path)?;
        if self.current.get(&dir).is_some_and(|names| !names.is_empty()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let place = self.place(path)?;
        self.record(NameOp::Remove(place));
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.resolve(from)?;
        let (old, new) = (self.place(from)?, self.place(to)?);
        if old == new {
            return Ok(());
        }
        match (node, self.child(new.0, &new.1)) {
            (Node::File(_), Some(Node::Dir(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::Dir(_), Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (Node::Dir(_), Some(Node::Dir(target)))
                if self.current.get(&target).is_some_and(|names| !names.is_empty()) =>
            {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        self.record(NameOp::Rename(old, new));
        Ok(())
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = self.folder(path)?;
        let names = self.current.get(&dir).into_iter().flat_map(BTreeMap::keys);
        Ok(names.map(|name| path.join(name)).collect())
    }

    /// Number of the newest operation: what a sync that starts now covers.
    pub(crate) fn ops(&self) -> u64 {
        self.ops
    }

    /// Makes the operations of folder `dir` up to number `upto` durable, and with them what the
    /// other folder of a rename needs to come first.
    pub(crate) fn sync(&mut self, dir: u64, upto: u64) {
        let mut folders = BTreeSet::from([dir]);
        let mut covered = BTreeSet::new();
        for (number, op) in self.pending.iter().rev().filter(|(number, _)| *number <= upto) {
            if op.folders().iter().any(|folder| folders.contains(folder)) {
                folders.extend(op.folders());
                covered.insert(*number);
            }
        }
        let durable = &mut self.durable;
        self.pending.retain(|(number, op)| {
            let synced = covered.contains(number);
            if synced {
                op.apply(durable);
            }
            !synced
        });
    }

    /// Power failure: per folder, a prefix of the un-synced operations survives.
    pub(crate) fn power_failure(&mut self, rng: &mut Rng) {
        let lose = [0, 50_000, 300_000, 1_000_000][rng.index(4)];
        let mut cut = BTreeSet::new();
        for (_, op) in std::mem::take(&mut self.pending) {
            let folders = op.folders();
            if folders.iter().any(|folder| cut.contains(folder)) || rng.chance(lose) {
                cut.extend(folders);
            } else {
                op.apply(&mut self.durable);
            }
        }
        self.current.clone_from(&self.durable);
    }

    /// Files that have a name now.
    pub(crate) fn named(&self) -> BTreeSet<u64> {
        file_numbers(&self.current)
    }

    /// Files that have a name now or may have one after a power failure.
    pub(crate) fn reachable(&self) -> BTreeSet<u64> {
        let mut files = file_numbers(&self.current);
        files.extend(file_numbers(&self.durable));
        files.extend(self.pending.iter().filter_map(|(_, op)| match op {
            NameOp::Add(_, Node::File(ino)) => Some(*ino),
            _ => None,
        }));
        files
    }

    /// Every file with its path, sorted by path.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        self.walk(ROOT, Path::new("/"), &mut found);
        found.sort();
        found
    }

    fn walk(&self, dir: u64, path: &Path, into: &mut Vec<(PathBuf, u64)>) {
        for (name, node) in self.current.get(&dir).into_iter().flatten() {
            match node {
                Node::Dir(ino) => self.walk(*ino, &path.join(name), into),
                Node::File(ino) => into.push((path.join(name), *ino)),
            }
        }
    }
}

fn file_numbers(folders: &Folders) -> BTreeSet<u64> {
    let nodes = folders.values().flat_map(BTreeMap::values);
    nodes.filter_map(|node| if let Node::File(ino) = node { Some(*ino) } else { None }).collect()
}

fn parts(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_folders() -> Names {
        let mut names = Names::new();
        let mut next = 10..;
        names.create_dir_all(Path::new("/a"), || next.next().unwrap_or(0)).unwrap();
        names.create_dir_all(Path::new("/b"), || next.next().unwrap_or(0)).unwrap();
        names.sync(ROOT, names.ops());
        names
    }

    fn paths(names: &Names) -> Vec<String> {
        names.files().into_iter().map(|(path, _)| path.display().to_string()).collect()
    }

    #[test]
    fn power_failure_keeps_a_prefix_per_folder() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut names = with_folders();
            for (ino, name) in ["/a/1", "/a/2", "/a/3"].iter().enumerate() {
                names.add_file(Path::new(name), 100 + ino as u64).unwrap();
            }
            names.power_failure(&mut Rng::new(seed));
            let left = paths(&names);
            assert!(
                ["/a/1", "/a/2", "/a/3"]
                    .starts_with(&left.iter().map(String::as_str).collect::<Vec<_>>())
            );
            seen.insert(left.len());
        }
        assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]));
    }

    #[test]
    fn rename_between_folders_is_atomic_and_synced_through_either() {
        for seed in 0..100 {
            let mut names = with_folders();
            names.add_file(Path::new("/a/x"), 7).unwrap();
            names.sync(names.folder(Path::new("/a")).unwrap(), names.ops());
            names.rename(Path::new("/a/x"), Path::new("/b/y")).unwrap();
            let mut synced = names.clone();
            names.power_failure(&mut Rng::new(seed));
            assert!(
                [vec!["/a/x"], vec!["/b/y"]]
                    .contains(&paths(&names).iter().map(String::as_str).collect())
            );
            synced.sync(synced.folder(Path::new("/b")).unwrap(), synced.ops());
            synced.power_failure(&mut Rng::new(seed));
            assert_eq!(paths(&synced), ["/b/y"]);
        }
    }

    #[test]
    fn children_of_a_lost_folder_are_gone() {
        let mut names = Names::new();
        names.create_dir_all(Path::new("/d"), || 5).unwrap();
        names.add_file(Path::new("/d/f"), 9).unwrap();
        names.sync(5, names.ops());
        let lost = (0..100).any(|seed| {
            let mut copy = names.clone();
            copy.power_failure(&mut Rng::new(seed));
            copy.files().is_empty()
        });
        assert!(lost);
    }

    #[test]
    fn errors_are_those_of_the_system() {
        let mut names = with_folders();
        names.add_file(Path::new("/a/x"), 7).unwrap();
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(names.add_file(Path::new("/a/x"), 8)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(names.remove_dir(Path::new("/a"))), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(kind(names.remove_file(Path::new("/a"))), io::ErrorKind::IsADirectory);
        assert_eq!(kind(names.remove_file(Path::new("/q"))), io::ErrorKind::NotFound);
        assert_eq!(
            names.resolve(Path::new("/a/x/y")).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
    }
}
