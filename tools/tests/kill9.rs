//! The promise at stake: an acknowledged write survives `kill -9`. Real processes: a server, a
//! `coronet load` with a journal of acknowledged keys, SIGKILL in the middle, a new server on the
//! same folder, and every journalled file compared byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{Random, Server, coronet, run};

/// Kills of one test.
const ROUNDS: usize = 20;
/// Files of the generated tree.
const FILES: u64 = 250;

/// A tree with empty, tiny, block-sized and large files and odd names.
fn generate(root: &Path, random: &mut Random) {
    for number in 0..FILES {
        let folder = root.join(format!("d{}/ü {}", number % 7, number % 3));
        fs::create_dir_all(&folder).unwrap();
        let size = match number % 10 {
            0 => 0,
            1..=6 => random.below(4 << 10),
            7 | 8 => random.below(40 << 10),
            _ => random.below(300 << 10),
        };
        fs::write(folder.join(format!("f{number}")), random.bytes(size as usize)).unwrap();
    }
}

fn lines(journal: &Path) -> u64 {
    let bytes = fs::read(journal).unwrap_or_default();
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

fn start_load(server: &Server, tree: &Path, prefix: &str, journal: &Path) -> Child {
    let arguments = ["load", "--quiet", "--in-flight", "16", "--prefix", prefix, "--acked"];
    coronet(&server.addr, &arguments)
        .arg(journal)
        .arg(tree)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the journal holds so many keys (the random moment) or the load has ended.
fn wait_for(journal: &Path, keys: u64, load: &mut Child) {
    let started = Instant::now();
    while lines(journal) < keys && load.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(120), "the load stands still");
        std::thread::sleep(Duration::from_micros(300));
    }
}

fn verify(server: &Server, tree: &Path, prefix: &str, journal: &Path) {
    let output = coronet(&server.addr, &["verify", "--quiet", "--prefix", prefix, "--acked"])
        .arg(journal)
        .arg(tree)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{prefix}: {:?}: {}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Loads, kills at a random moment and verifies, `rounds` times on one data folder; at the end the
/// journals of all rounds are verified once more. Returns how many kills fell into a running load.
fn rounds(tree: &Path, files: u64, rounds: usize, random: &mut Random) -> usize {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let journal = |round: usize| -> PathBuf { scratch.path().join(format!("acked-{round}")) };
    let mut in_the_middle = 0;
    let mut server = Server::start(&data);
    for round in 0..rounds {
        let prefix = format!("round{round}/");
        let moment = 1 + random.below(files * 9 / 10);
        let mut load = start_load(&server, tree, &prefix, &journal(round));
        wait_for(&journal(round), moment, &mut load);
        server.kill9();
        let ended = load.wait().unwrap();
        let acknowledged = lines(&journal(round));
        if acknowledged < files {
            in_the_middle += 1;
            assert!(!ended.success(), "a load that lost its server must say so");
        }
        server = Server::start(&data);
        verify(&server, tree, &prefix, &journal(round));
        eprintln!("round {round}: killed at {moment}, {acknowledged} acknowledged, all there");
    }
    for round in 0..rounds {
        verify(&server, tree, &format!("round{round}/"), &journal(round));
    }
    assert!(server.stop().success());
    in_the_middle
}

#[test]
fn every_acknowledged_file_survives_twenty_kills() {
    let seed = 0xC0_4E;
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let tree = tempfile::tempdir().unwrap();
    generate(tree.path(), &mut random);
    let in_the_middle = rounds(tree.path(), FILES, ROUNDS, &mut random);
    assert!(in_the_middle >= ROUNDS / 2, "only {in_the_middle} kills fell into a running load");
}

/// The same with a tree of the user's, `CORONET_LOAD_DIR=/usr/share` for example;
/// `CORONET_LOAD_ROUNDS` says how often (3).
#[test]
fn acknowledged_files_of_a_real_tree_survive_kills() {
    let Some(tree) = std::env::var_os("CORONET_LOAD_DIR").map(PathBuf::from) else {
        eprintln!("skipped: CORONET_LOAD_DIR is not set");
        return;
    };
    let times = std::env::var("CORONET_LOAD_ROUNDS").ok().and_then(|text| text.parse().ok());
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(&scratch.path().join("count"));
    let journal = scratch.path().join("all");
    assert!(start_load(&server, &tree, "", &journal).wait().unwrap().success());
    let output = coronet(&server.addr, &["verify", "--quiet"]).arg(&tree).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(run(&server.addr, &["ping"]).status.success());
    let files = lines(&journal);
    assert!(server.stop().success());
    eprintln!("{files} files loaded and verified without a kill");
    let mut random = Random(7);
    rounds(&tree, files, times.unwrap_or(3), &mut random);
}
