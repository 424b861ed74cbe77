//! The `coronet` command: arguments in, exit code out. Each verb is a function from its arguments
//! and a client to a code; what a code means is in [`exit`].

pub mod admin;
pub mod client;
pub mod cluster;
pub mod doctor;
pub mod exit;
mod health;
pub mod keyspace;
pub mod listing;
pub mod options;
pub mod render;
pub mod sim;
pub mod stats;
pub mod verbs;
mod what_if;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use crate::bench;
use crate::bench::driver::BenchError;
use crate::offline;
use crate::transfer::load::{check_root, load};
use crate::transfer::summary::Summary;
use crate::transfer::verify::verify;
use client::Connected;
use exit::{CliError, Exit};
use options::{Command, Options};

/// Runs `coronet` with the arguments of the process.
pub fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coronet: {error}");
            error.exit.into()
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, CliError> {
    match &options.command {
        Command::Doctor(args) => doctor::doctor(args),
        Command::Sim(args) => sim::run(args).map(ExitCode::from),
        Command::Sst(command) => offline::sst::run(command).map(ExitCode::from),
        Command::Log(command) => offline::log::run(command).map(ExitCode::from),
        Command::Manifest(command) => offline::manifest::run(command).map(ExitCode::from),
        Command::Folder(command) => offline::folder::run(command).map(ExitCode::from),
        Command::Bench(args) => {
            let report = bench::run(&options.addr, &options.keyspace, args).map_err(bench_error)?;
            let wrong = report.wrong() > 0;
            if args.json {
                print_json(&report)?
            } else {
                print(report.text().as_bytes())?
            }
            Ok(if wrong { Exit::Data } else { Exit::Ok }.into())
        }
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CliError::new(Exit::Failed, format!("starting the runtime: {e}")))?
            .block_on(run_client(options))
            .map(ExitCode::from),
    }
}

/// The verbs that talk to a server through the client library.
async fn run_client(options: &Options) -> Result<Exit, CliError> {
    let addr = &options.addr;
    let in_keyspace =
        async || Ok::<_, CliError>(client::connect(addr).await?.keyspace(&options.keyspace));
    match &options.command {
        Command::Put(args) => verbs::put(&in_keyspace().await?, args).await,
        Command::Get(args) => verbs::get(&in_keyspace().await?, args).await,
        Command::Delete(args) => verbs::delete(&in_keyspace().await?, args).await,
        Command::Ls(args) => listing::ls(&in_keyspace().await?, args).await,
        Command::Status(args) => cluster::status(&client::pinned(addr).await?, args).await,
        Command::Ring(args) => cluster::ring(&client::connect(addr).await?, args).await,
        Command::Stats(args) => stats::stats(&client::connect(addr).await?, args).await,
        Command::Scrub(args) => admin::scrub(&client::pinned(addr).await?, args).await,
        Command::AcceptLoss(args) => admin::accept_loss(&client::pinned(addr).await?, args).await,
        Command::Checkpoint(args) => admin::checkpoint(&client::pinned(addr).await?, args).await,
        Command::Route(args) => verbs::route(&client::connect(addr).await?, args).await,
        Command::Keyspace(command) => keyspace::run(&client::connect(addr).await?, command).await,
        Command::Ping => verbs::ping(&client::connect(addr).await?).await,
        Command::Load(args) => {
            check_root(&args.tree.dir)?;
            let store = Connected::new(in_keyspace().await?, &args.tree.request, args.durability);
            let summary = load(&store, args, store.max_value(args.tree.max_value)).await?;
            finish(&summary, "stored", args.tree.json)
        }
        Command::Verify(args) => {
            check_root(&args.tree.dir)?;
            let store = Connected::new(
                in_keyspace().await?,
                &args.tree.request,
                options::Durability::Durable,
            );
            let summary = verify(&store, args, store.max_value(args.tree.max_value)).await?;
            finish(&summary, "found equal", args.tree.json)
        }
        Command::Bench(_)
        | Command::Doctor(_)
        | Command::Sim(_)
        | Command::Sst(_)
        | Command::Log(_)
        | Command::Manifest(_)
        | Command::Folder(_) => unreachable!("they need no client"),
    }
}

fn finish(summary: &Summary, verb: &str, json: bool) -> Result<Exit, CliError> {
    if json {
        print_json(summary)?;
    } else {
        print(format!("{}\n", summary.text(verb)).as_bytes())?;
    }
    Ok(if summary.is_clean() { Exit::Ok } else { Exit::Data })
}

fn bench_error(error: BenchError) -> CliError {
    let exit = match &error {
        BenchError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Exit::Data
        }
        BenchError::Io { .. } => Exit::Unavailable,
        BenchError::Stalled(_) => Exit::InDoubt,
        BenchError::Refused(_) | BenchError::Protocol(_) => Exit::Failed,
    };
    CliError::new(exit, error.to_string())
}

/// Writes to standard output. A reader that left (`coronet ls | head`) ends the program quietly.
fn print(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(|e| CliError::local("writing to standard output", &e)),
    }
}

/// Prints one JSON value and a line end.
fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_vec(value)
        .map_err(|e| CliError::new(Exit::Failed, format!("making JSON: {e}")))?;
    text.push(b'\n');
    print(&text)
}
