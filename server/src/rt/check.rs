//! Whether this machine can run a node: looked at before anything is started.
//!
//! Every failure is one line with the cause and the exact fix, and has an exit code of its own:
//!
//! | code | cause |
//! |---|---|
//! | 70 | the kernel is older than 6.1 |
//! | 71 | `io_uring` is forbidden (sysctl, seccomp) or lacks what is needed |
//! | 72 | too little memory may be locked |
//! | 73 | too few files may be open |
//! | 74 | the data folder cannot be made or written |
//! | 75 | the data folder's file system has no direct I/O |
//! | 76 | too little space for the data folder |
//! | 77 | another process uses the data folder |
//! | 78 | the port is taken or not permitted |
//! | 79 | more cores are asked for than the process may use |

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode};

use super::executor::available_cpus;

/// The oldest kernel with `DEFER_TASKRUN`.
const KERNEL: (u32, u32) = (6, 1);
/// Memory an executor locks for its rings (glommio refuses less).
const LOCKED_PER_CORE: u64 = 512 * 1024;
/// Files a core's engine may have open, beside connections.
const FILES_PER_CORE: u64 = 1024;
/// Free space of a data folder below which a start makes no sense, bytes: the first log segments.
pub const FREE_BYTES: u64 = 256 << 20;
/// How long a port may take to become free.
const PORT_PATIENCE: Duration = Duration::from_secs(4);
/// The lock file in a data folder.
const LOCK_FILE: &str = "LOCK";

/// What a node needs from the machine.
#[derive(Debug, Clone)]
pub struct Requirements {
    /// Where the data lies; made when it does not exist.
    pub data_dir: PathBuf,
    /// Where clients connect; `None` when nothing is to be bound.
    pub listen: Option<SocketAddr>,
    /// Where other nodes connect; `None` for a node on its own.
    pub peers: Option<SocketAddr>,
    /// Executors, one per core.
    pub cores: usize,
    /// Files and sockets open at once.
    pub open_files: u64,
    /// Free bytes below which a start makes no sense.
    pub free_bytes: u64,
}

/// Files and sockets that a node with so many data cores has open when it serves as many
/// `connections` as it may.
pub fn open_files(connections: u64, data_cores: usize) -> u64 {
    connections.saturating_add(FILES_PER_CORE.saturating_mul(data_cores as u64))
}

/// Why a node cannot start here.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Exit code 70.
    #[error("Linux {found} is too old; fix: boot a kernel of version 6.1 or later")]
    Kernel {
        /// The running version.
        found: String,
    },
    /// Exit code 71.
    #[error("io_uring cannot be used ({cause}); fix: {fix}")]
    IoUring {
        /// What the kernel says.
        cause: String,
        /// What to do.
        fix: &'static str,
    },
    /// Exit code 72.
    #[error(
        "only {have} bytes of memory may be locked, {cores} cores need {need}; fix: \
         LimitMEMLOCK=infinity in the systemd unit, or `ulimit -l unlimited`"
    )]
    LockedMemory {
        /// The limit.
        have: u64,
        /// What the cores need.
        need: u64,
        /// Number of cores.
        cores: usize,
    },
    /// Exit code 73.
    #[error(
        "only {have} files may be open, {need} are needed; fix: LimitNOFILE={need} in the systemd \
         unit, or `ulimit -n {need}`"
    )]
    OpenFiles {
        /// The hard limit.
        have: u64,
        /// What is needed.
        need: u64,
    },
    /// Exit code 74.
    #[error("data folder {}: {cause}; fix: create it and give it to this user", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Exit code 75.
    #[error(
        "data folder {}: its file system has no direct I/O ({cause}); fix: put it on ext4 or xfs",
        path.display()
    )]
    DirectIo {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Exit code 76.
    #[error(
        "data folder {}: only {have} bytes are free, {need} are needed; fix: free space there or \
         choose another folder", path.display()
    )]
    Space {
        /// The folder.
        path: PathBuf,
        /// Bytes free for this user.
        have: u64,
        /// Bytes wanted.
        need: u64,
    },
    /// Exit code 77.
    #[error(
        "data folder {}: another process uses it; fix: stop that process (`fuser {}/LOCK` names \
         it) or choose another folder", path.display(), path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Exit code 78.
    #[error("cannot listen on {address} ({cause}); fix: {fix}")]
    Port {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// Exit code 79.
    #[error(
        "{asked} cores are asked for, this process may use {have}; fix: ask for at most {have}, or \
         widen its CPU set"
    )]
    Cores {
        /// What was asked for.
        asked: usize,
        /// CPUs in the process's set.
        have: usize,
    },
}

impl StartError {
    /// The process's exit code for this failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Kernel { .. } => 70,
            StartError::IoUring { .. } => 71,
            StartError::LockedMemory { .. } => 72,
            StartError::OpenFiles { .. } => 73,
            StartError::DataDir { .. } => 74,
            StartError::DirectIo { .. } => 75,
            StartError::Space { .. } => 76,
            StartError::InUse { .. } => 77,
            StartError::Port { .. } => 78,
            StartError::Cores { .. } => 79,
        }
    }
}

/// One line of a doctor's report.
#[derive(Debug)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// What was found, or why it will not do.
    pub outcome: Result<String, StartError>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(found) => write!(f, "ok    {:<14} {found}", self.name),
            Err(error) => write!(f, "FAIL  {:<14} {error}", self.name),
        }
    }
}

/// What a successful check holds on to for the node.
#[derive(Debug)]
pub struct Prepared {
    /// The clients' bound socket.
    pub listener: Option<TcpListener>,
    /// The other nodes' bound socket.
    pub peers: Option<TcpListener>,
    /// Holds the data folder's lock while it lives.
    pub lock: DirLock,
}

/// The lock of a data folder; given back when dropped or when the process dies.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Checks everything in order and stops at the first failure.
///
/// # Errors
/// The first thing that will not do.
pub fn prepare(needs: &Requirements) -> Result<Prepared, StartError> {
    check_kernel()?;
    check_cores(needs.cores)?;
    check_locked_memory(needs.cores)?;
    check_io_uring()?;
    check_open_files(needs.open_files)?;
    let lock = check_data_dir(&needs.data_dir)?;
    check_direct_io(&needs.data_dir)?;
    check_space(&needs.data_dir, needs.free_bytes)?;
    let listener = needs.listen.map(bind_soon).transpose()?;
    let peers = needs.peers.map(bind_soon).transpose()?;
    Ok(Prepared { listener, peers, lock })
}

/// Checks everything, whatever fails, holds on to nothing and leaves nothing behind.
pub fn doctor(needs: &Requirements) -> Vec<Finding> {
    let dir = &needs.data_dir;
    let mut findings = vec![
        Finding { name: "kernel", outcome: check_kernel() },
        Finding { name: "cores", outcome: check_cores(needs.cores) },
        Finding { name: "locked memory", outcome: check_locked_memory(needs.cores) },
        Finding { name: "io_uring", outcome: check_io_uring() },
        Finding { name: "open files", outcome: check_open_files(needs.open_files) },
    ];
    let made = Made::before(dir);
    let folder = check_data_dir(dir);
    let usable = !matches!(folder, Err(StartError::DataDir { .. }));
    let found = format!("{} is free to use", dir.display());
    let (lock, outcome) = match folder {
        Ok(lock) => (Some(lock), Ok(found)),
        Err(error) => (None, Err(error)),
    };
    findings.push(Finding { name: "data folder", outcome });
    if usable {
        findings.push(Finding { name: "direct I/O", outcome: check_direct_io(dir) });
        findings.push(Finding { name: "space", outcome: check_space(dir, needs.free_bytes) });
    }
    // While the lock is held, so that no node takes the files that go.
    made.remove();
    drop(lock);
    for (name, address) in [("port", needs.listen), ("port for nodes", needs.peers)] {
        if let Some(address) = address {
            let outcome = bind(address).map(|_| format!("{address} is free"));
            findings.push(Finding { name, outcome });
        }
    }
    findings
}

fn check_kernel() -> Result<String, StartError> {
    let found = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let found = found.trim().to_owned();
    if parse_version(&found).is_some_and(|version| version >= KERNEL) {
        Ok(format!("Linux {found}"))
    } else {
        Err(StartError::Kernel { found })
    }
}

/// Major and minor number of a kernel release.
fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn check_cores(asked: usize) -> Result<String, StartError> {
    let have = available_cpus().len();
    if (1..=have).contains(&asked) {
        Ok(format!("{asked} of {have}"))
    } else {
        Err(StartError::Cores { asked, have })
    }
}

fn check_locked_memory(cores: usize) -> Result<String, StartError> {
    let have = limit(libc::RLIMIT_MEMLOCK).0;
    let need = LOCKED_PER_CORE * cores as u64;
    if have == libc::RLIM_INFINITY {
        Ok("unlimited".to_owned())
    } else if have >= need {
        Ok(format!("{have} bytes, {need} needed"))
    } else {
        Err(StartError::LockedMemory { have, need, cores })
    }
}

fn check_io_uring() -> Result<String, StartError> {
    let built: io::Result<IoUring> = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(8);
    let ring = built.map_err(|error| StartError::IoUring {
        fix: match error.raw_os_error() {
            Some(libc::ENOMEM) => "LimitMEMLOCK=infinity in the systemd unit",
            Some(libc::ENOSYS) => {
                "allow io_uring in the seccomp profile, or enable it in the kernel"
            }
            _ => {
                "`sysctl kernel.io_uring_disabled=0`; in a container also a seccomp profile that \
                 allows io_uring_setup, io_uring_enter and io_uring_register"
            }
        },
        cause: error.to_string(),
    })?;
    let mut probe = io_uring::Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    let needed = [
        ("openat", opcode::OpenAt::CODE),
        ("unlinkat", opcode::UnlinkAt::CODE),
        ("renameat", opcode::RenameAt::CODE),
        ("mkdirat", opcode::MkDirAt::CODE),
        ("linkat", opcode::LinkAt::CODE),
        ("fallocate", opcode::Fallocate::CODE),
        ("send", opcode::Send::CODE),
        ("recv", opcode::Recv::CODE),
    ];
    let missing = needed.iter().find(|(_, code)| !probe.is_supported(*code));
    match (probed, missing) {
        (Ok(()), None) => Ok("permitted, with all operations needed".to_owned()),
        (Ok(()), Some((name, _))) => Err(StartError::IoUring {
            cause: format!("the operation {name} is missing"),
            fix: "boot a kernel of version 6.1 or later",
        }),
        (Err(error), _) => Err(StartError::IoUring {
            cause: error.to_string(),
            fix: "allow io_uring_register in the seccomp profile",
        }),
    }
}

fn check_open_files(need: u64) -> Result<String, StartError> {
    let (soft, hard) = limit(libc::RLIMIT_NOFILE);
    if hard < need {
        return Err(StartError::OpenFiles { have: hard, need });
    }
    if soft < need && !raise_open_files(hard) {
        return Err(StartError::OpenFiles { have: soft, need });
    }
    Ok(format!("{}, {need} needed", limit(libc::RLIMIT_NOFILE).0))
}

/// Makes the folder and takes its lock.
fn check_data_dir(path: &Path) -> Result<DirLock, StartError> {
    let broken = |cause| StartError::DataDir { path: path.to_owned(), cause };
    fs::create_dir_all(path).map_err(broken)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_FILE))
        .map_err(broken)?;
    let is_there = || {
        let (held, found) = (file.metadata()?, fs::metadata(path.join(LOCK_FILE))?);
        io::Result::Ok(held.ino() == found.ino())
    };
    match file.try_lock() {
        Ok(()) if is_there().map_err(broken)? => Ok(DirLock { _file: file }),
        // A doctor has just removed what it made.
        Ok(()) => Err(StartError::InUse { path: path.to_owned() }),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(broken(cause)),
    }
}

/// What the check of a data folder makes that was not there before.
struct Made {
    /// The innermost first.
    folders: Vec<PathBuf>,
    lock: Option<PathBuf>,
}

impl Made {
    fn before(dir: &Path) -> Made {
        let is_new = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let folders = dir.ancestors().take_while(is_new).map(Path::to_owned).collect();
        let lock = dir.join(LOCK_FILE);
        Made { folders, lock: (!lock.exists()).then_some(lock) }
    }

    /// A folder that somebody uses by now is not empty, and stays.
    fn remove(self) {
        if let Some(lock) = self.lock {
            let _ = fs::remove_file(lock);
        }
        for folder in self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn check_direct_io(path: &Path) -> Result<String, StartError> {
    let probe = path.join(".direct-io-probe");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&probe);
    // It may not exist: the open just failed.
    let _ = fs::remove_file(&probe);
    match opened {
        Ok(_) => Ok("supported".to_owned()),
        Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => {
            Err(StartError::DirectIo { path: path.to_owned(), cause })
        }
        Err(cause) => Err(StartError::DataDir { path: path.to_owned(), cause }),
    }
}

fn check_space(path: &Path, need: u64) -> Result<String, StartError> {
    let have =
        free_bytes(path).map_err(|cause| StartError::DataDir { path: path.to_owned(), cause })?;
    if have >= need {
        Ok(format!("{have} bytes free, {need} needed"))
    } else {
        Err(StartError::Space { path: path.to_owned(), have, need })
    }
}

/// Binds, with patience for a node that was just killed: the kernel takes its ring, and the
/// listening socket in it, apart a little after the process is gone.
fn bind_soon(address: SocketAddr) -> Result<TcpListener, StartError> {
    let give_up = Instant::now() + PORT_PATIENCE;
    loop {
        match bind(address) {
            Err(StartError::Port { cause, .. })
                if cause.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            bound => return bound,
        }
    }
}

/// Binds without sharing the port: a second server must not go unnoticed.
fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|cause| StartError::Port {
        address,
        fix: match cause.kind() {
            io::ErrorKind::AddrInUse => "stop the process that listens there, or use another port",
            io::ErrorKind::PermissionDenied => {
                "use a port above 1023, or grant CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrNotAvailable => "use an address of this machine",
            _ => "use another address or port",
        },
        cause,
    })
}

/// Soft and hard value of a resource limit.
#[allow(unsafe_code)]
fn limit(resource: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one writable rlimit. It cannot fail for a known resource; zeros would be reported.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

#[allow(unsafe_code)]
fn raise_open_files(to: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: to, rlim_max: to };
    // SAFETY: one readable rlimit.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0 }
}

#[allow(unsafe_code)]
fn free_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid statvfs.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated path and one writable statvfs.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests;
