//! Real processes for tests: `coronetd` built, started on free loopback ports, stopped and killed;
//! `coronet` run with its output captured. Used by each process test as a module.
#![allow(dead_code, missing_docs)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

/// How long a server may take until it answers, and to end when asked. Generous: the machine may
/// be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server's binary, built in the profile of this test. `CORONETD` names another one.
pub fn coronetd() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("CORONETD") {
            return PathBuf::from(path);
        }
        let client = Path::new(env!("CARGO_BIN_EXE_coronet"));
        let folder = client.parent().expect("profile folder");
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(other) => other,
        };
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "-p", "coronet-server", "--bin", "coronetd"])
            .args(["--profile", profile, "--target-dir"])
            .arg(folder.parent().expect("target folder"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("run cargo");
        assert!(status.success(), "coronetd does not build");
        folder.join("coronetd")
    })
}

/// `coronet` with these arguments, ready to run.
pub fn coronet(addr: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coronet"));
    command.env("CORONET_ADDR", addr).args(args).stdin(Stdio::null());
    command
}

/// Runs `coronet` to its end.
pub fn run(addr: &str, args: &[&str]) -> Output {
    coronet(addr, args).output().expect("run coronet")
}

/// Runs `coronet`, which must succeed; returns its standard output.
pub fn run_ok(addr: &str, args: &[&str]) -> Vec<u8> {
    let output = run(addr, args);
    assert!(
        output.status.success(),
        "coronet {args:?} ended with {:?}: {}",
        output.status.code(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A running `coronetd`. Dropping it kills the process.
pub struct Server {
    child: Child,
    pub addr: String,
    log: NamedTempFile,
}

impl Server {
    /// Starts a server on this data folder and waits until it answers.
    pub fn start(dir: &Path) -> Server {
        Server::start_with(dir, &[])
    }

    /// The same with settings, named as the environment variables that carry them.
    pub fn start_with(dir: &Path, settings: &[(&str, &str)]) -> Server {
        let [clients] = free_addresses();
        Server::start_at(&clients, dir, settings)
    }

    /// The same, listening for clients on this address.
    pub fn start_at(clients: &str, dir: &Path, settings: &[(&str, &str)]) -> Server {
        let begun = Instant::now();
        // What the kernel still holds of a killed process it lets go in a moment.
        while TcpListener::bind(clients).is_err() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let [peers, http] = free_addresses();
        let log = NamedTempFile::new().expect("server log");
        let output = log.reopen().expect("log handle");
        let mut command = Command::new(coronetd());
        // The server refuses variables it does not know; those of the tests are not for it.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CORONET_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["dev", "--dir"])
            .arg(dir)
            .args(["--port", clients.rsplit(':').next().unwrap_or_default()])
            .env("CORONET_LISTEN_PEERS", &peers)
            .env("CORONET_LISTEN_HTTP", &http)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("log handle"))
            .stderr(output)
            .spawn()
            .expect("start coronetd");
        let mut server = Server { child, addr: clients.to_owned(), log };
        server.wait_until_it_answers();
        server
    }

    fn wait_until_it_answers(&mut self) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("coronetd ended with {status} at start:\n{}", self.log());
            }
            if TcpStream::connect(&self.addr).is_ok() && run(&self.addr, &["ping"]).status.success()
            {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "coronetd does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// SIGSTOP: the process stands still, its connections stay. Returns once all threads do.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
        let stands = |stat: String| stat.rsplit(')').next().is_some_and(|s| s.starts_with(" T"));
        let all_stand = || {
            let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("threads");
            let stats =
                threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")));
            stats.flatten().all(stands)
        };
        while !all_stand() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGCONT, after a pause.
    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill9(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("wait");
    }

    /// SIGTERM, and the end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "coronetd does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- coronetd printed ---\n{}", self.log());
        }
    }
}

/// Loopback addresses nobody listens on at the moment.
pub fn free_addresses<const N: usize>() -> [String; N] {
    // All are held before the first is let go, so that they differ.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("bind"));
    listeners.map(|listener| listener.local_addr().expect("address").to_string())
}

/// A small generator for test data and random moments; the seed is printed by whoever uses it.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
