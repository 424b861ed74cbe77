//! `coronetd`: the command line, start-up and shut-down of a node on this machine.
//!
//! Wires the parts: settings, checks of the machine, the data folder, one executor per core, the
//! node. Owns no logic of theirs.

mod allocator;
mod cli;
mod counted;
mod error;
mod handler;
mod local;
mod needs;
mod prefault;
mod run;

pub use cli::{Cli, Command, DevArgs, ServeArgs};
pub use counted::Allocator;
pub use error::DaemonError;
pub use needs::requirements;

use std::io::Write;
use std::process::ExitCode;

use crate::config::Config;

/// Runs `coronetd` with these arguments; the exit code says how it ended. To be called before other
/// threads start, because it sets up the allocator of the process.
pub fn main(cli: Cli) -> ExitCode {
    allocator::keep_memory();
    let done = match cli.command {
        None => serve(&cli.serve),
        Some(Command::Dev(args)) => dev(&args),
        Some(Command::CheckConfig { file }) => check_config(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coronetd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The variables of this process, as far as settings may be in them.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    })
}

fn serve(args: &ServeArgs) -> Result<(), DaemonError> {
    let config = Config::load(args.config.as_deref(), environment(), args.settings())?;
    if config.data_dir.is_none() {
        return Err(DaemonError::NoDataDir);
    }
    run::node(&config, |_| {})
}

fn check_config(file: &std::path::Path) -> Result<(), DaemonError> {
    let config = Config::load(Some(file), environment(), [])?;
    if config.data_dir.is_none() {
        return Err(DaemonError::NoDataDir);
    }
    say(&format!("{} is fine:\n{config:#?}", file.display()));
    Ok(())
}

/// A node to try things out. A temporary folder lives as long as this function.
fn dev(args: &DevArgs) -> Result<(), DaemonError> {
    if args.nodes > 1 {
        return match &args.dir {
            Some(dir) => local::cluster(args, dir),
            None => local::cluster(args, temporary_folder()?.path()),
        };
    }
    let mut flags =
        vec![("cores.data", args.cores.clone()), ("listen.clients", loopback(args.port))];
    if let Some(dir) = &args.dir {
        flags.push(("data_dir", dir.display().to_string()));
    }
    let mut config = Config::load(None, environment(), flags)?;
    let temporary = match config.data_dir {
        Some(_) => None,
        None => Some(temporary_folder()?),
    };
    if let Some(folder) = &temporary {
        config.data_dir = Some(folder.path().to_owned());
    }
    run::node(&config, |ready| say(&invitation(ready, temporary.is_some())))
}

fn temporary_folder() -> Result<tempfile::TempDir, DaemonError> {
    tempfile::Builder::new()
        .prefix("coronet-dev-")
        .tempdir()
        .map_err(|error| DaemonError::TemporaryFolder(error.to_string()))
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// How to talk to a node that just started.
fn invitation(ready: &run::Ready, temporary: bool) -> String {
    let kept = if temporary { "temporary, removed at exit" } else { "kept" };
    let addr = ready.clients;
    format!(
        "data folder {} ({kept})\ntry, in another terminal:\n  \
         coronet --addr {addr} put greeting 'hello world'\n  \
         coronet --addr {addr} get greeting\n  \
         coronet --addr {addr} ls",
        ready.data_dir.display()
    )
}

/// Prints for the person who started the program; a closed standard output is no failure.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
