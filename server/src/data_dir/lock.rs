//! `LOCK`: one process per data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::DataDirError;

/// Holds the folder's lock until it is dropped or the process ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Creates the folder when absent and locks it.
    pub fn acquire(dir: &Path) -> Result<Self, DataDirError> {
        std::fs::create_dir_all(dir).map_err(|error| DataDirError::io("create", dir, &error))?;
        let path = dir.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| DataDirError::io("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(DataDirError::io("lock", &path, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::acquire(dir.path()).unwrap();
        assert!(matches!(DirLock::acquire(dir.path()), Err(DataDirError::InUse { .. })));
        drop(held);
        assert!(DirLock::acquire(dir.path()).is_ok());
    }
}
