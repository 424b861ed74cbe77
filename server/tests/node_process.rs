//! The real `coronetd` on loopback: start, serve, stop, be killed, change its cores, refuse.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use coronet_net::Quorum;
use coronet_net::client::RequestOptions;
use coronet_net::client::blocking::Client;

const PATIENCE: Duration = Duration::from_secs(60);

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coronetd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CORONET_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A node in a process of its own; killed when dropped.
struct Node {
    child: Child,
    addr: SocketAddr,
    invitation: Vec<String>,
}

impl Node {
    fn start(dir: &Path, cores: &str) -> Node {
        Node::start_dev(&["--dir", dir.to_str().unwrap(), "--cores", cores])
    }

    fn start_dev(args: &[&str]) -> Node {
        Node::start_on(free_port(), args)
    }

    fn start_on(port: u16, args: &[&str]) -> Node {
        let mut child = command()
            .arg("dev")
            .args(args)
            .args(["--port", &port.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The invitation is printed when the node serves.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let invitation: Vec<String> = lines.take(5).map(Result::unwrap).collect();
        assert_eq!(invitation.len(), 5, "the node did not start: {invitation:?}");
        Node { child, addr: SocketAddr::from(([127, 0, 0, 1], port)), invitation }
    }

    fn client(&self) -> Client {
        Client::connect(self.addr.to_string()).unwrap()
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the node does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.wait().code(), Some(0));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with direct I/O: beside the build, which is on a real disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn key(n: u32) -> Vec<u8> {
    format!("key/{n}").into_bytes()
}

fn value(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(1 + n as usize % 300)
}

fn put(client: &Client, keys: std::ops::Range<u32>) {
    for n in keys {
        client.put(&key(n), &value(n)).unwrap();
    }
}

fn check(client: &Client, keys: std::ops::Range<u32>) {
    for n in keys {
        let found = client.get(&key(n)).unwrap();
        assert_eq!(found.value(), Some(&value(n)[..]), "key {n}");
    }
}

/// CPUs this process may use: a node cannot have more cores.
fn cpus() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn other_numbers_of_cores_keep_everything() {
    let dir = folder();
    let mut total = 0;
    for cores in [1, 2, 1, cpus().min(4)] {
        if cores > cpus() {
            continue; // one CPU: nothing to change to
        }
        let node = Node::start(dir.path(), &cores.to_string());
        let client = node.client();
        check(&client, 0..total);
        put(&client, total..total + 150);
        total += 150;
        check(&client, 0..total);
        node.stop();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = folder();
    // The same port each time: a restart must not trip over what the kernel has not cleared yet.
    let (port, args) = (free_port(), ["--dir", dir.path().to_str().unwrap(), "--cores", "1"]);
    for round in 0..5_u32 {
        let mut node = Node::start_on(port, &args);
        let client = node.client();
        check(&client, 0..round * 100);
        put(&client, round * 100..(round + 1) * 100);
        node.signal("-KILL");
        assert_eq!(node.wait().code(), None);
    }
    let node = Node::start(dir.path(), "1");
    check(&node.client(), 0..500);
    node.stop();
}

#[test]
fn a_temporary_folder_is_printed_and_gone_after_a_clean_exit() {
    let mut node = Node::start_dev(&[]);
    let line = node.invitation[0].clone();
    let dir = line.strip_prefix("data folder ").unwrap().split(" (").next().unwrap().to_owned();
    assert!(Path::new(&dir).join("node").exists(), "{line}");
    assert!(node.invitation[2].contains(&node.addr.to_string()), "{:?}", node.invitation);
    put(&node.client(), 0..10);
    node.signal("-INT");
    assert_eq!(node.wait().code(), Some(0));
    assert!(!Path::new(&dir).exists());
}

/// A port for clients of the first of three nodes: theirs and their neighbours' are free.
fn free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all_free =
        |first: &u16| (0..3).all(|node| (0..3).all(|at| is_free(first + 10 * node + at)));
    std::iter::repeat_with(|| free_port() % 30_000 + 20_000).find(all_free).unwrap()
}

/// The processes that a process has started.
fn children(id: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    list.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_local_cluster_is_one_command_and_ends_with_it() {
    let dir = folder();
    let port = free_ports();
    let at = |node: u16| format!("127.0.0.1:{}", port + 10 * node);
    let args = ["--nodes", "3", "--dir", dir.path().to_str().unwrap()];
    let mut cluster = Node::start_on(port, &args);
    let said = cluster.invitation.join("\n");
    for wanted in ["3 nodes serve", &at(0), &at(2), dir.path().to_str().unwrap(), "coronet --addr"]
    {
        assert!(said.contains(wanted), "no {wanted:?} in: {said}");
    }
    let nodes = children(cluster.child.id());
    assert_eq!(nodes.len(), 3, "a process each");
    let all = RequestOptions::new().r(Quorum::ALL).w(Quorum::ALL);
    let started = Instant::now();
    while Client::connect(at(0)).unwrap().put_with(b"k", b"v", &all).is_err() {
        assert!(started.elapsed() < PATIENCE, "the nodes do not meet");
        std::thread::sleep(Duration::from_millis(20));
    }
    for node in 0..3 {
        let found = Client::connect(at(node)).unwrap().get_with(b"k", &all).unwrap();
        assert_eq!((found.value(), found.info.racks), (Some(&b"v"[..]), 3));
        assert!(dir.path().join(format!("node-{}", node + 1)).join("node").exists());
    }
    // As a terminal does it.
    cluster.signal("-INT");
    assert_eq!(cluster.wait().code(), Some(0));
    for node in nodes {
        let running = std::fs::read_to_string(format!("/proc/{node}/comm"));
        assert!(!running.is_ok_and(|name| name.starts_with("coronetd")), "node {node} goes on");
    }
}

/// Memory comes as small pages where a core touches it first, and as huge ones where it was made
/// ready.
#[test]
fn memory_is_made_ready_in_huge_pages_once_a_node_has_data() {
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        return; // this kernel has no huge pages
    }
    let dir = folder();
    let node = Node::start(dir.path(), "1");
    let maps = format!("/proc/{}/smaps", node.child.id());
    let has = |flag: &str| {
        let text = std::fs::read_to_string(&maps).unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("VmFlags:"));
        lines.any(|line| line.split_ascii_whitespace().any(|word| word == flag))
    };
    assert!(has("nh"), "a core that touches memory first waits for a huge page to be cleared");
    assert!(!has("hg"), "memory was made ready for a node without data");
    let client = node.client();
    for n in 0..48 {
        client.put(&key(n), &vec![7; 1 << 20]).unwrap();
    }
    let started = Instant::now();
    while !has("hg") {
        assert!(started.elapsed() < PATIENCE, "no memory was made ready");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs `coronetd` to its end, which must come by itself.
fn refusal(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("{command:?} started");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn refused(args: &[&str]) -> Output {
    refusal(command().args(args))
}

/// One line with cause and fix, and this exit code.
fn assert_refused(args: &[&str], code: i32, words: &[&str]) {
    assert_refusal(&refused(args), code, words);
}

fn assert_refusal(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
}

#[test]
fn a_busy_port_and_a_busy_folder_have_exit_codes_of_their_own() {
    let dir = folder();
    let node = Node::start(dir.path(), "1");
    let in_use = dir.path().to_str().unwrap();
    let port = free_port().to_string();
    assert_refused(&["dev", "--dir", in_use, "--port", &port], 77, &[in_use, "stop"]);
    let other = folder();
    let (other, port) = (other.path().to_str().unwrap(), node.addr.port().to_string());
    assert_refused(&["dev", "--dir", other, "--port", &port], 78, &[&port]);
    put(&node.client(), 0..3);
    node.stop();
}

/// Each by what any user can do to a process of his own.
#[test]
fn what_the_machine_lacks_has_exit_codes_of_its_own() {
    let dir = folder();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let port = free_port().to_string();
    let start = ["dev", "--dir", data, "--port", &port];
    let many = (cpus() + 1).to_string();
    assert_refused(&[&start[..], &["--cores", &many]].concat(), 79, &["; fix: ", &many]);
    let limits = [("-n 500", 73, "ulimit -n "), ("-l 64", 72, "ulimit -l unlimited")];
    for (limit, code, fix) in limits {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]);
        let output = refusal(shell.arg(env!("CARGO_BIN_EXE_coronetd")).args(start));
        assert_refusal(&output, code, &["; fix: ", fix]);
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    assert_refused(&["dev", "--dir", file, "--port", &port], 74, &["; fix: ", file]);
    let mut lost = command();
    let output = refusal(lost.args(["dev", "--port", &port]).env("TMPDIR", file));
    assert_refusal(&output, 68, &["--dir DIR"]);
    assert_eq!(refused(&["--no-such-flag"]).status.code(), Some(2));
}

/// Damage in the data folder stops the start, and says where.
#[test]
fn a_damaged_data_folder_has_exit_codes_of_its_own() {
    let dir = folder();
    let data = dir.path().to_str().unwrap();
    let port = free_port().to_string();
    let start = ["dev", "--dir", data, "--port", &port];
    Node::start(dir.path(), "1").stop();
    let manifest = dir.path().join("gen-000001/core-000/MANIFEST-000001");
    let sound = std::fs::read(&manifest).unwrap();
    let mut changed = sound.clone();
    changed[20] ^= 0x10;
    std::fs::write(&manifest, changed).unwrap();
    assert_refused(&start, 66, &["core 0", manifest.to_str().unwrap(), "offset"]);
    std::fs::write(&manifest, sound).unwrap();
    let identity = dir.path().join("node");
    let mut changed = std::fs::read(&identity).unwrap();
    changed[20] ^= 0x10;
    std::fs::write(&identity, changed).unwrap();
    assert_refused(&start, 65, &[identity.to_str().unwrap(), "backup"]);
}

#[test]
fn settings_are_checked_before_anything_starts() {
    let dir = folder();
    let file = dir.path().join("coronet.toml");
    let path = file.to_str().unwrap();
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    assert_refused(&["--config", "/does/not/exist"], 64, &["/does/not/exist"]);
    assert_refused(&[], 64, &["data_dir"]);
    write("data_dri = '/x'\n");
    assert_refused(&["--config", path], 64, &["data_dri", "data_dir"]);
    write("data_dir = '/x'\n[listen]\nclients = '0.0.0.0:4720'\n");
    assert_refused(&["check-config", path], 64, &["insecure"]);
    write("data_dir = '/x'\n[memory]\ncache = '1 GiB'\n");
    let fine = refused(&["check-config", path]);
    assert!(fine.status.success());
    assert!(String::from_utf8_lossy(&fine.stdout).contains("1073741824"));
    let version = refused(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_configured_node_serves_on_its_address() {
    let dir = folder();
    let file = dir.path().join("coronet.toml");
    let (data, port) = (dir.path().join("data"), free_port());
    std::fs::write(
        &file,
        format!(
            "data_dir = '{}'\n[listen]\nclients = '127.0.0.1:{port}'\n[cores]\ndata = 1\n",
            data.display()
        ),
    )
    .unwrap();
    let log = dir.path().join("log");
    let child = command()
        .args(["--config", file.to_str().unwrap()])
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let node = Node { child, addr, invitation: Vec::new() };
    let started = Instant::now();
    while !std::fs::read_to_string(&log).unwrap().contains("ready") {
        assert!(started.elapsed() < PATIENCE, "not ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    put(&node.client(), 0..20);
    node.stop();
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains(&addr.to_string()) && log.contains("1 data cores"), "{log}");
}
