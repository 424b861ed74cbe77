//! What the real `coronetd` says, and ends with, where the kernel will not have it: too old a
//! release, a forbidden `io_uring`, no more files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// Starts `coronetd` through `sh -c SCRIPT`, which ends with `exec "$@"`.
fn through(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CORONET_") {
            command.env_remove(name);
        }
    }
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_coronetd")]).args(args);
    command
}

/// One line with cause and fix, and this exit code.
fn assert_refusal(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
}

/// The arguments of a node in this folder.
fn dev(dir: &Path) -> [&str; 5] {
    ["dev", "--port", "4999", "--dir", dir.to_str().unwrap()]
}

/// Another release is put over the kernel's own in a mount namespace of this process. Where
/// namespaces are not permitted the test says so and cannot look.
#[test]
fn too_old_a_kernel_is_named_with_what_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let release = dir.path().join("osrelease");
    std::fs::write(&release, "5.15.0-91-generic\n").unwrap();
    let over = format!("mount --bind '{}' /proc/sys/kernel/osrelease", release.display());
    let within = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["-r", "-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_coronetd")]);
        unshare.args(dev(dir.path())).output()
    };
    if !within(&over).is_ok_and(|made| made.status.success()) {
        eprintln!("SKIPPED: this machine permits no namespaces to its users");
        return;
    }
    let output = within(&format!("{over} && exec \"$@\"")).unwrap();
    assert_refusal(&output, 70, &["Linux 5.15.0-91-generic", "; fix: ", "6.1"]);
}

/// A filter of system calls, as a container may have one: `io_uring_setup` fails with `EPERM`.
#[allow(unsafe_code)]
fn forbid_io_uring() -> io::Result<()> {
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let ret = libc::BPF_RET | libc::BPF_K;
    let mut filter = [
        // The number of the system call lies at the beginning of what the filter is given.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        step(ret, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls take numbers and, in the second, a pointer to a program that lives until
    // it returns; the kernel copies it. Neither touches memory of this process.
    let made = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if made { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
#[allow(unsafe_code)]
fn a_forbidden_io_uring_is_named_with_the_ways_to_allow_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = through("exec \"$@\"", &dev(dir.path()));
    // SAFETY: between fork and exec only two system calls are made; nothing is allocated or locked.
    unsafe { command.pre_exec(forbid_io_uring) };
    let output = command.output().unwrap();
    assert_refusal(&output, 71, &["; fix: ", "kernel.io_uring_disabled", "seccomp"]);
}

/// Too few files for the pipes of the first node.
#[test]
fn a_local_cluster_that_cannot_be_started_ends_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = [&dev(dir.path())[..], &["--nodes", "9"]].concat();
    let output = through("ulimit -n 8; exec \"$@\"", &nodes).output().unwrap();
    assert_refusal(&output, 69, &["cannot start node 1", "open files"]);
}
