//! `coronet sst`, `coronet log`, `coronet manifest`, `coronet folder`: the files of an engine, and
//! of a data folder, read offline.
//!
//! The files are only read, so a copy taken from a running node will do. Every file is read to
//! its end whatever is wrong in it; findings go to standard error with file and offset, and the
//! program ends with the code for wrong data.

pub mod folder;
pub mod log;
pub mod manifest;
pub mod sst;

use std::ffi::OsString;
use std::io::{BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use coronet_lsm::inspect::Finding;
use serde::Serialize;

use crate::cli::exit::{CliError, Exit};

/// Files to read, and how to say what is in them.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<OsString>,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// What to do with table files.
#[derive(Debug, Subcommand)]
pub enum SstCommand {
    /// Print every entry that can be read.
    Dump(FilesArgs),
    /// Read everything and say what is wrong.
    Verify(FilesArgs),
    /// Print sizes, counts and ratios.
    Stats(FilesArgs),
}

/// What to do with log segments and manifests.
#[derive(Debug, Subcommand)]
pub enum DumpCommand {
    /// Print what can be read, and say what is wrong.
    Dump(FilesArgs),
}

/// Standard output in large pieces.
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    failed: Option<std::io::Error>,
}

impl Output {
    fn new(json: bool) -> Self {
        Output { out: BufWriter::new(std::io::stdout().lock()), json, failed: None }
    }

    /// Prints one item: its text, or itself as JSON.
    pub fn item(&mut self, item: &impl Serialize, text: impl FnOnce() -> String) {
        if self.failed.is_some() {
            return;
        }
        let written = if self.json {
            serde_json::to_writer(&mut self.out, item).map_err(Into::into)
        } else {
            self.out.write_all(text().as_bytes())
        };
        self.failed = written.and_then(|()| self.out.write_all(b"\n")).err();
    }

    /// Hands on what was printed so far.
    pub fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
    }

    fn finish(mut self) -> Result<(), CliError> {
        let flushed = self.out.flush();
        match self.failed.map_or(flushed, Err) {
            // A reader that left (`| head`) ends the program quietly.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.map_err(|e| CliError::local("writing to standard output", &e)),
        }
    }
}

#[derive(Serialize)]
struct FindingJson<'a> {
    file: &'a str,
    offset: u64,
    damage: &'a str,
}

/// Reads every file with `read`, which prints what it finds and returns what is wrong.
pub fn each_file(
    args: &FilesArgs,
    mut read: impl FnMut(&Path, &[u8], &mut Output) -> Vec<Finding>,
) -> Result<Exit, CliError> {
    let mut exit = Exit::Ok;
    let mut out = Output::new(args.json);
    for file in args.files.iter().map(PathBuf::from) {
        let name = file.display().to_string();
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                eprintln!("coronet: {name}: {error}");
                exit = Exit::Data;
                continue;
            }
        };
        for Finding { offset, what } in read(&file, &bytes, &mut out) {
            exit = Exit::Data;
            if args.json {
                out.item(&FindingJson { file: &name, offset, damage: &what }, String::new);
            } else {
                eprintln!("coronet: {name} at offset {offset}: {what}");
            }
        }
    }
    out.finish()?;
    Ok(exit)
}
