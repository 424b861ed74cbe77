//! Operators' commands against real servers: scrub, quarantine and its end, checkpoints that are
//! verified offline and started on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::{Server, coronet, run, run_ok};

/// Small memtables, so that a few keys make tables.
const SETTINGS: [(&str, &str); 1] = [("CORONET_MEMORY_MEMTABLE", "1 MiB")];

fn counter(addr: &str, name: &str) -> u64 {
    let stats: serde_json::Value =
        serde_json::from_slice(&run_ok(addr, &["stats", "--json"])).unwrap();
    stats[name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
}

/// Stores `count` keys of `bytes` each.
fn fill(addr: &str, scratch: &Path, count: usize, bytes: usize) {
    let tree = scratch.join("tree");
    fs::create_dir_all(&tree).unwrap();
    for n in 0..count {
        let value: Vec<u8> = (0..bytes).map(|at| (at * 31 + n * 7) as u8).collect();
        fs::write(tree.join(format!("{n:04}")), value).unwrap();
    }
    run_ok(addr, &["load", "--quiet", tree.to_str().unwrap()]);
}

fn verify(addr: &str, scratch: &Path) -> bool {
    let tree = scratch.join("tree");
    run(addr, &["verify", "--quiet", tree.to_str().unwrap()]).status.success()
}

/// Waits until the tables are no longer merged.
fn settle(addr: &str) {
    let busy = || {
        let names =
            ["engine.frozen_memtables", "engine.compaction_debt_bytes", "engine.trash_files"];
        names.iter().any(|name| counter(addr, name) > 0)
    };
    // Quiet twice in a row: a merge does not begin between two flushes.
    let mut quiet = 0;
    while quiet < 3 {
        quiet = if busy() { 0 } else { quiet + 1 };
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// All files below `dir` whose name ends so.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_checkpoint_holds_the_moment_is_sound_and_starts() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let server = Server::start_with(&dir, &SETTINGS);
    let addr = &server.addr;
    // Much more than the memtables hold, so that there are tables beside the logs.
    fill(addr, scratch.path(), 300, 64 << 10);
    run_ok(addr, &["keyspace", "create", "carts"]);
    run_ok(addr, &["put", "--keyspace", "carts", "mine", "full"]);
    run_ok(addr, &["checkpoint", "before"]);
    run_ok(addr, &["put", "later", "not in it"]);
    let again = run(addr, &["checkpoint", "before"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(2), "{said}");
    assert!(said.contains("it is whole"), "an answer may have got lost: {said}");
    assert_eq!(run(addr, &["checkpoint", "../x"]).status.code(), Some(2));

    let copy = dir.join("checkpoints/before");
    let tables = files(&copy, ".sst");
    assert!(!tables.is_empty(), "no tables in the checkpoint");
    for table in &tables {
        let verified = coronet(addr, &["sst", "verify", table.to_str().unwrap()]).output().unwrap();
        assert!(verified.status.success(), "{}: {verified:?}", table.display());
    }
    assert!(server.stop().success());

    // Restored elsewhere: the moment, and nothing later; the node goes on.
    let restored = scratch.path().join("restored");
    fs::rename(&copy, &restored).unwrap();
    let server = Server::start_with(&restored, &SETTINGS);
    assert!(verify(&server.addr, scratch.path()));
    assert_eq!(run(&server.addr, &["get", "later"]).status.code(), Some(3));
    let kept = run_ok(&server.addr, &["get", "--keyspace", "carts", "mine"]);
    assert_eq!(kept, b"full", "definitions of keyspaces are in the checkpoint");
    run_ok(&server.addr, &["put", "later", "again"]);
    assert!(server.stop().success());

    // The first folder is as it was.
    let server = Server::start_with(&dir, &SETTINGS);
    assert_eq!(run_ok(&server.addr, &["get", "later"]), b"not in it");
    assert!(verify(&server.addr, scratch.path()));
}

#[test]
fn an_unfinished_checkpoint_does_not_start() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let server = Server::start_with(&dir, &SETTINGS);
    run_ok(&server.addr, &["put", "a", "1"]);
    run_ok(&server.addr, &["checkpoint", "half"]);
    let copy = dir.join("checkpoints/half");
    fs::remove_file(copy.join("node")).unwrap();
    let again = run(&server.addr, &["checkpoint", "half"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("it is not whole"), "{said}");
    assert!(server.stop().success());
    let refused = std::process::Command::new(support::coronetd())
        .args(["dev", "--dir"])
        .arg(&copy)
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("identity file"), "{said}");
}

#[test]
fn the_scrub_finds_damage_on_demand_and_the_loss_can_be_accepted() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let server = Server::start_with(&dir, &SETTINGS);
    let addr = &server.addr;
    fill(addr, scratch.path(), 300, 64 << 10);
    assert_eq!(run(addr, &["scrub"]).status.code(), Some(2), "it needs to be told what");
    run_ok(addr, &["scrub", "--rate", "0"]);
    let off = run(addr, &["scrub", "--now"]);
    assert!(String::from_utf8_lossy(&off.stderr).contains("the scrub is off"), "{off:?}");
    assert_eq!(counter(addr, "engine.scrub_passes"), 0);

    // Whole tables pass.
    run_ok(addr, &["scrub", "--rate", "1GiB/s", "--now", "--wait"]);
    assert!(counter(addr, "engine.scrub_passes") >= 1);
    assert!(counter(addr, "engine.scrub_bytes") > 0);
    assert_eq!(counter(addr, "engine.lost_ranges"), 0);

    settle(addr);
    // A flipped byte in the middle of the newest table is found by the next pass.
    let table = files(&dir, ".sst").into_iter().max().unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(&table).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    file.sync_all().unwrap();
    let found = run(addr, &["scrub", "--now", "--wait"]);
    assert_eq!(found.status.code(), Some(8), "{found:?}");
    assert!(counter(addr, "engine.lost_ranges") > 0);
    assert!(!verify(addr, scratch.path()), "a lost key was answered as if nothing were");

    assert_eq!(run(addr, &["accept-loss"]).status.code(), Some(2), "it needs --yes");
    run_ok(addr, &["accept-loss", "--yes"]);
    assert_eq!(counter(addr, "engine.lost_ranges"), 0);
    // Writing everything again makes it whole.
    fill(addr, scratch.path(), 300, 64 << 10);
    assert!(verify(addr, scratch.path()));
    assert!(server.stop().success());
}
