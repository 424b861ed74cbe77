//! A node of a Coronet cluster. Everything it does is in `coronet_server::daemon`.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: coronet_server::daemon::Allocator = coronet_server::daemon::Allocator;

fn main() -> ExitCode {
    coronet_server::daemon::main(coronet_server::daemon::Cli::parse())
}
