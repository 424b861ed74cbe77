//! `coronetd dev --nodes N`: a cluster on this machine, one process per node.
//!
//! This process only starts the nodes, prints what they say behind a prefix, passes the wish to
//! end on, and waits for them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{DaemonError, DevArgs, say};
use crate::rt::executor::available_cpus;

/// Ports between two nodes.
const STRIDE: u16 = 10;

/// Starts the nodes and waits for their end. `dir` gets a folder for each.
pub(super) fn cluster(args: &DevArgs, dir: &Path) -> Result<(), DaemonError> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(DaemonError::Signals)?;
    let (told, news) = mpsc::channel();
    let mut children = Vec::new();
    for index in 0..args.nodes {
        match start(args, dir, index) {
            Ok(mut child) => {
                let streams: [Option<Box<dyn Read + Send>>; 2] = [
                    child.stdout.take().map(|stream| Box::new(stream) as _),
                    child.stderr.take().map(|stream| Box::new(stream) as _),
                ];
                for stream in streams.into_iter().flatten() {
                    let told = told.clone();
                    thread::spawn(move || relay(index, stream, &told));
                }
                children.push(child);
            }
            Err(error) => {
                stop(&children);
                wait(children);
                return Err(DaemonError::Node { node: index + 1, cause: error });
            }
        }
    }
    drop(told);
    let handle = signals.handle();
    let pids: Vec<u32> = children.iter().map(Child::id).collect();
    let watcher = thread::spawn(move || {
        for _ in &mut signals {
            pids.iter().for_each(|pid| terminate(*pid));
        }
    });
    let mut ready = 0;
    for (node, line) in news {
        eprintln!("node {} | {line}", node + 1);
        if line.contains(" ready: ") {
            ready += 1;
            if ready == args.nodes {
                say(&invitation(args, dir));
            }
        }
    }
    wait(children);
    handle.close();
    // A watcher that panicked has nothing more to say.
    let _ = watcher.join();
    Ok(())
}

fn clients_port(args: &DevArgs, index: u16) -> u16 {
    args.port.saturating_add(index * STRIDE)
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn start(args: &DevArgs, dir: &Path, index: u16) -> std::io::Result<Child> {
    let port = clients_port(args, index);
    let peers: Vec<String> =
        (0..args.nodes).map(|other| address(clients_port(args, other) + 1)).collect();
    let node_dir = dir.join(format!("node-{}", index + 1));
    Command::new(std::env::current_exe()?)
        .arg("--data-dir")
        .arg(&node_dir)
        .args(["--listen", &address(port)])
        .args(["--cores", &cores_of(&args.cores, index, &available_cpus())])
        .env("CORONET_LISTEN_PEERS", address(port + 1))
        .env("CORONET_LISTEN_HTTP", address(port + 2))
        .env("CORONET_CLUSTER_NODES", peers.join(","))
        .env("CORONET_CLUSTER_REPLICAS", args.replicas.to_string())
        .env("CORONET_CLUSTER_RACK", format!("rack-{}", index + 1))
        // A ctrl-c at the terminal is for this process, which passes it on once.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The data cores of one node. A number means the next so many CPUs, round the machine, so that no
/// two nodes share a CPU while another has nothing to do; what names CPUs holds for every node.
fn cores_of(cores: &str, index: u16, cpus: &[usize]) -> String {
    let count = cores.trim().parse().ok().filter(|count| (1..=cpus.len()).contains(count));
    let Some(count) = count else { return cores.to_owned() };
    let first = usize::from(index) * count;
    let mut own: Vec<usize> = (first..first + count).map(|n| cpus[n % cpus.len()]).collect();
    own.sort_unstable();
    // A single number would be a count.
    own.iter().map(|cpu| format!("{cpu}-{cpu}")).collect::<Vec<_>>().join(",")
}

/// Passes a node's lines on.
fn relay(index: u16, stream: impl Read, told: &mpsc::Sender<(u16, String)>) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        if told.send((index, line)).is_err() {
            break;
        }
    }
}

fn stop(children: &[Child]) {
    children.iter().for_each(|child| terminate(child.id()));
}

/// Asks a process to end.
#[allow(unsafe_code)]
fn terminate(pid: u32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: no memory is passed. The child is not waited for before its streams ended, so
        // that the number is still its own.
        unsafe { libc::kill(pid, SIGTERM) };
    }
}

fn wait(children: Vec<Child>) {
    for (index, mut child) in children.into_iter().enumerate() {
        match child.wait() {
            Ok(status) if !status.success() => eprintln!("node {} ended: {status}", index + 1),
            _ => {}
        }
    }
}

fn invitation(args: &DevArgs, dir: &Path) -> String {
    let mut text = format!(
        "{} nodes serve, data folders under {}; node 1 is at {}\ntry, in another terminal:\n",
        args.nodes,
        dir.display(),
        address(args.port)
    );
    let last = address(clients_port(args, args.nodes - 1));
    let first = address(args.port);
    text.push_str(&format!(
        "  coronet --addr {first} put greeting 'hello world'\n  \
         coronet --addr {last} get greeting\n  \
         coronet --addr {first} status"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::cores_of;

    #[test]
    fn nodes_go_round_the_processors() {
        let cpus = [2, 3, 5];
        let of = |cores, index| cores_of(cores, index, &cpus);
        assert_eq!([of("1", 0), of("1", 1), of("1", 2), of("1", 3)], ["2-2", "3-3", "5-5", "2-2"]);
        assert_eq!([of("2", 0), of("2", 1)], ["2-2,3-3", "2-2,5-5"]);
        // What is no number of CPUs there are is for the node to judge.
        assert_eq!([of("0-1", 1), of("all", 1), of("9", 1)], ["0-1", "all", "9"]);
        assert_eq!(cores_of("1", 0, &[]), "1");
    }
}
