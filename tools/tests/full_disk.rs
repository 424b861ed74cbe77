//! A full disk: a clear error, no acknowledged write lost, reads go on, and writes resume when
//! space is freed. The data folder lies on a small ext4 image mounted through a loop device, which
//! needs root; without it the test says loudly that it was skipped.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::{Random, Server, coronet, run, run_ok};

/// Size of the file system.
const DISK: u64 = 768 << 20;
/// What fills part of it until it is removed.
const BALLAST: u64 = 384 << 20;

/// A mounted image; unmounted and removed when dropped, whatever happened.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `Err` says why there can be none on this machine.
    fn mount() -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting needs root".into());
        }
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = folder.path().join("image");
        let file = File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(DISK).map_err(|e| e.to_string())?;
        let at = folder.path().join("mnt");
        fs::create_dir(&at).map_err(|e| e.to_string())?;
        sh(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        sh(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Disk { folder })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server was killed just now; its last files may be held for a moment longer.
        for _ in 0..100 {
            if sh(Command::new("umount").arg(self.path())).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{} could not be unmounted", self.path().display());
    }
}

fn sh(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn load(server: &Server, tree: &Path, prefix: &str, journal: &Path) -> Output {
    coronet(&server.addr, &["load", "--quiet", "--in-flight", "8", "--prefix", prefix, "--acked"])
        .arg(journal)
        .arg(tree)
        .output()
        .unwrap()
}

fn verify(server: &Server, tree: &Path, prefix: &str, journal: &Path) {
    let output = coronet(&server.addr, &["verify", "--quiet", "--prefix", prefix, "--acked"])
        .arg(journal)
        .arg(tree)
        .output()
        .unwrap();
    assert!(output.status.success(), "{prefix}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Loads the tree under ever new prefixes until the server refuses; returns the journals.
fn fill(server: &Server, tree: &Path, scratch: &Path) -> (Vec<(String, PathBuf)>, Output) {
    let mut journals = Vec::new();
    for round in 0..200 {
        let prefix = format!("fill{round}/");
        let journal = scratch.join(format!("acked{round}"));
        let output = load(server, tree, &prefix, &journal);
        journals.push((prefix, journal));
        if !output.status.success() {
            return (journals, output);
        }
    }
    panic!("200 rounds did not fill the disk");
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_and_recovers() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("SKIPPED a_full_disk_refuses_writes_loses_nothing_and_recovers: {reason}");
            return;
        }
    };
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let mut random = Random(11);
    for number in 0..64 {
        fs::write(tree.join(format!("{number}")), random.bytes(256 << 10)).unwrap();
    }
    let ballast = disk.path().join("ballast");
    sh(Command::new("fallocate").args(["-l", &BALLAST.to_string()]).arg(&ballast)).unwrap();

    let data = disk.path().join("data");
    let mut server = Server::start_with(&data, &[("CORONET_MEMORY_MEMTABLE", "4 MiB")]);
    let (journals, refused) = fill(&server, &tree, scratch.path());
    let message = String::from_utf8_lossy(&refused.stderr).to_lowercase();
    assert!(message.contains("full") || message.contains("space"), "unclear error: {message}");
    assert_eq!(refused.status.code(), Some(5), "{message}");
    assert!(server.is_running(), "the server ended:\n{}", server.log());

    // Reads go on, and everything acknowledged is there.
    for (prefix, journal) in &journals {
        verify(&server, &tree, prefix, journal);
    }

    // Space is freed: writes resume without a restart.
    fs::remove_file(&ballast).unwrap();
    let started = Instant::now();
    while !run(&server.addr, &["put", "after", "space again"]).status.success() {
        assert!(started.elapsed() < Duration::from_secs(60), "writes do not resume");
        std::thread::sleep(Duration::from_millis(200));
    }
    let journal = scratch.path().join("acked-after");
    assert!(load(&server, &tree, "after/", &journal).status.success());
    assert!(server.is_running());

    // And nothing was left half done on disk.
    server.kill9();
    let server = Server::start(&data);
    for (prefix, journal) in &journals {
        verify(&server, &tree, prefix, journal);
    }
    verify(&server, &tree, "after/", &journal);
    assert_eq!(run_ok(&server.addr, &["get", "after"]), b"space again");
    assert!(server.stop().success());
}
