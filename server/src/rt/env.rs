//! The environment of one core: clock, randomness, tasks, files, messages.

use std::ffi::CString;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coronet_lsm::env::{Env, Nanos, OpenMode, TaskClass};
use io_uring::{opcode, squeue, types};

use super::coop::{coop, counted};
use super::core::{Core, Envelope};
use super::dial::dial;
use super::file::RtFile;
use super::op::{Op, Owned};
use super::timers::Sleep;
use crate::node::{CoreId, CoreMessage, NodeEnv};

/// Paths are absolute or relative to the working folder.
const HERE: types::Fd = types::Fd(libc::AT_FDCWD);
/// Permissions of new files and folders, before the process's mask.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// One core's environment; clones are handles to the same core.
#[derive(Clone)]
pub struct RtEnv {
    pub(super) core: Rc<Core>,
}

impl RtEnv {
    /// Runs an operation on one or two paths. Returns its result.
    #[allow(unsafe_code)]
    async fn on_paths(
        &self,
        paths: [Option<&Path>; 2],
        opens: bool,
        entry: impl FnOnce([*const libc::c_char; 2]) -> squeue::Entry,
    ) -> io::Result<u32> {
        let mut owned = Owned { opens, ..Owned::default() };
        for (slot, path) in owned.paths.iter_mut().zip(paths) {
            *slot = path.map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        }
        let pointers = [0, 1]
            .map(|at| owned.paths[at].as_ref().map_or(std::ptr::null(), |path| path.as_ptr()));
        // SAFETY: the pointers are into the strings that `owned` keeps.
        let op = unsafe { Op::start(&self.core.ring, entry(pointers), owned) };
        op.await.0
    }

    #[allow(unsafe_code)]
    async fn open_with(&self, path: &Path, flags: i32) -> io::Result<RtFile> {
        let fd = self
            .on_paths([Some(path), None], true, |[path, _]| {
                opcode::OpenAt::new(HERE, path)
                    .flags(flags | libc::O_CLOEXEC)
                    .mode(FILE_MODE)
                    .build()
            })
            .await?;
        // SAFETY: a fresh descriptor of the kernel's that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(RtFile::new(Rc::clone(&self.core.ring), fd, flags & libc::O_DIRECT != 0))
    }

    async fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.on_paths([Some(path), None], false, |[path, _]| {
            opcode::MkDirAt::new(HERE, path).mode(FOLDER_MODE).build()
        })
        .await
        .map(drop)
    }

    async fn unlink(&self, path: &Path, flags: i32) -> io::Result<()> {
        self.on_paths([Some(path), None], false, |[path, _]| {
            opcode::UnlinkAt::new(HERE, path).flags(flags).build()
        })
        .await
        .map(drop)
    }
}

impl Env for RtEnv {
    type File = RtFile;

    fn now(&self) -> Nanos {
        self.core.now()
    }

    fn wall_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        self.core.random()
    }

    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        let task = counted(&self.core, task);
        let queue = self.core.queues.of(class);
        match glommio::spawn_local_into(task, queue) {
            Ok(task) => drop(task.detach()),
            // Queues live as long as the executor; without them there is nothing to run on.
            Err(error) => unreachable!("a task queue of this executor is gone: {error}"),
        }
    }

    async fn sleep(&self, duration: Duration) {
        Sleep::new(&self.core, duration).await;
    }

    async fn coop(&self) {
        coop(&self.core).await;
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<RtFile> {
        let flags = match mode {
            OpenMode::Read => libc::O_RDONLY,
            OpenMode::ReadWrite => libc::O_RDWR,
            OpenMode::CreateNew => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        };
        self.open_with(path, flags | libc::O_DIRECT).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.unlink(path, 0).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on_paths([Some(from), Some(to)], false, |[from, to]| {
            opcode::RenameAt::new(HERE, from, HERE, to).build()
        })
        .await
        .map(drop)
    }

    async fn link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        self.on_paths([Some(existing), Some(new)], false, |[existing, new]| {
            opcode::LinkAt::new(HERE, existing, HERE, new).build()
        })
        .await
        .map(drop)
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // Up to the first ancestor that exists, then down again.
        let mut missing = vec![path];
        while let Some(folder) = missing.last().copied() {
            match self.make_dir(folder).await {
                Ok(()) => drop(missing.pop()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => match folder.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => missing.push(parent),
                    _ => return Err(error),
                },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !fs::metadata(folder)?.is_dir() {
                        return Err(error);
                    }
                    missing.pop();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.unlink(path, libc::AT_REMOVEDIR).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        // The ring cannot list; engines list at start only, so blocking the core is no loss.
        let mut entries = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.open_with(dir, libc::O_RDONLY | libc::O_DIRECTORY).await?.sync_all().await
    }
}

impl NodeEnv for RtEnv {
    fn core(&self) -> CoreId {
        self.core.id
    }

    fn send(&self, to: CoreId, message: CoreMessage) {
        self.core.send(to, Envelope::Message(message));
    }

    fn output_ready(&self) {
        self.core.signal.kick();
    }

    fn dial(&self, ticket: u64, address: SocketAddr) {
        self.spawn(TaskClass::Foreground, dial(Rc::clone(&self.core), ticket, address));
    }

    fn log(&self, line: &str) {
        eprintln!("{line}");
    }
}
