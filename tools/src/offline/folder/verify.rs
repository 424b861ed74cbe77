//! Whole data folders: the small files, the engines of the valid generation, checkpoints.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use coronet_lsm::inspect::EngineFile;
use coronet_server::data_dir::{Identity, core_dir, generation_dir};
use coronet_server::inspect::{Content, FileKind};

use super::FoldersArgs;
use super::dump::content;
use super::engine::verify_engine;
use super::walk::{Walk, entries};
use crate::cli::exit::{CliError, Exit};

/// Runs `coronet folder verify`.
pub fn verify(args: &FoldersArgs) -> Result<Exit, CliError> {
    let mut exit = Exit::Ok;
    let mut walk = Walk::new(args.json);
    for folder in args.folders.iter().map(PathBuf::from) {
        let _lock = lock(&folder)?;
        let inside = entries(&folder)
            .map_err(|error| CliError::local(format!("reading {}", folder.display()), &error))?;
        let is_engine = |path: &PathBuf| EngineFile::of(path).is_some();
        if inside.iter().any(is_engine) && !folder.join(FileKind::Identity.name()).exists() {
            verify_engine(&folder, &mut walk);
        } else {
            verify_data(&folder, &inside, &mut walk);
        }
        if walk.end_folder(&folder) != Exit::Ok {
            exit = Exit::Data;
        }
    }
    walk.into_output().finish()?;
    Ok(exit)
}

/// Keeps nodes out while the folder is read: what a node changes meanwhile looks like damage.
fn lock(folder: &Path) -> Result<Option<File>, CliError> {
    // There is no lock file before the first start, and a copy may be anybody's.
    let Ok(file) = File::open(folder.join(LOCK)) else { return Ok(None) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(CliError::new(
            Exit::Failed,
            format!(
                "{}: a node uses this folder; stop it, or verify a checkpoint (`coronet \
                 checkpoint` makes one), or have the node read its tables (`coronet scrub --now`)",
                folder.display()
            ),
        )),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Held by a node while it runs.
const LOCK: &str = "LOCK";

fn verify_data(dir: &Path, inside: &[PathBuf], walk: &mut Walk) {
    let mut generations = Vec::new();
    let mut identity = None;
    for path in inside {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        match (path.is_dir(), name) {
            (true, "checkpoints") => verify_checkpoints(path, walk),
            // Every fresh file system has one.
            (true, "lost+found") => {}
            (true, _) if name.starts_with("gen-") => generations.push(path),
            (false, LOCK) => walk.read(path, 0, "lock of a running node", &[]),
            (false, ".direct-io-probe") => {
                walk.unused(path, "left over from a check of the disk");
            }
            (false, _) => match FileKind::of_name(path) {
                Some(_) if name.ends_with(".new") => {
                    walk.unused(path, "left over: it was to replace the file without `.new`");
                }
                Some(kind) => identity = verify_small(path, kind, walk).or(identity),
                None => walk.unknown(path),
            },
            (true, _) => walk.unknown(path),
        }
    }
    let node = dir.join(FileKind::Identity.name());
    if !inside.contains(&node) {
        walk.missing(&node, "is missing: no data folder, or one that is not whole");
    }
    verify_generations(dir, &generations, identity.as_ref(), walk);
}

/// Reads one of the small files; gives the identity if it is that.
fn verify_small(path: &Path, kind: FileKind, walk: &mut Walk) -> Option<Identity> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            walk.unreadable(path, &error);
            return None;
        }
    };
    let read = content(kind, &bytes);
    let findings: Vec<_> = read.as_ref().err().cloned().into_iter().collect();
    walk.read(path, bytes.len(), kind.what(), &findings);
    match read {
        Ok(Content::Identity(identity)) => Some(identity),
        _ => None,
    }
}

/// Reads the engines of the valid generation; without an identity, those of every generation.
fn verify_generations(
    dir: &Path,
    generations: &[&PathBuf],
    identity: Option<&Identity>,
    walk: &mut Walk,
) {
    let Some(identity) = identity else {
        for generation in generations {
            verify_cores(generation, &[], walk);
        }
        return;
    };
    let valid = generation_dir(dir, identity.generation);
    for other in generations.iter().filter(|path| **path != &valid) {
        walk.unused(other, "a generation of engines that is not the valid one");
    }
    let cores: Vec<PathBuf> =
        (0..identity.cores).map(|core| core_dir(dir, identity.generation, core)).collect();
    if valid.is_dir() {
        verify_cores(&valid, &cores, walk);
    } else {
        walk.missing(&valid, "is missing: the engines of the valid generation");
    }
}

/// Reads the engines in a generation; `wanted` must be there and, unless it is empty, no other.
fn verify_cores(generation: &Path, wanted: &[PathBuf], walk: &mut Walk) {
    let found = match entries(generation) {
        Ok(found) => found,
        Err(error) => return walk.unreadable(generation, &error),
    };
    for path in &found {
        let is_core = path.is_dir() && (wanted.is_empty() || wanted.contains(path));
        match path.extension().and_then(OsStr::to_str) {
            Some("partial") => walk.unused(path, "left over from a checkpoint that did not end"),
            _ if is_core => verify_engine(path, walk),
            _ => walk.unknown(path),
        }
    }
    for core in wanted.iter().filter(|core| !found.contains(core)) {
        walk.missing(core, "is missing: the engine of a data core");
    }
}

fn verify_checkpoints(dir: &Path, walk: &mut Walk) {
    let found = match entries(dir) {
        Ok(found) => found,
        Err(error) => return walk.unreadable(dir, &error),
    };
    for path in found {
        match entries(&path) {
            Ok(inside) => verify_data(&path, &inside, walk),
            Err(_) if path.is_file() => walk.unknown(&path),
            Err(error) => walk.unreadable(&path, &error),
        }
    }
}
