//! The daemon sets its allocator up. A process of its own: options belong to the process.
#![allow(clippy::unwrap_used)]

use clap::Parser;
use coronet_server::daemon::{self, Cli};
use libmimalloc_sys::mi_option_get;

/// `mi_option_purge_delay`: below zero unused memory is kept.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

#[allow(unsafe_code)]
fn purge_delay() -> std::ffi::c_long {
    // SAFETY: reads an option that exists; the only test of this program.
    unsafe { mi_option_get(PURGE_DELAY) }
}

#[test]
fn the_daemon_keeps_the_memory_it_has() {
    assert!(purge_delay() >= 0, "kept before the daemon asked: MIMALLOC_PURGE_DELAY is set?");
    let ended = daemon::main(Cli::parse_from(["coronetd", "check-config", "/does/not/exist"]));
    assert_eq!(format!("{ended:?}"), format!("{:?}", std::process::ExitCode::from(64)));
    assert_eq!(purge_delay(), -1);
}
