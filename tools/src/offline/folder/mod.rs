//! The small files of a data folder (dump), and whole data folders (verify).

mod dump;
mod engine;
mod time;
mod verify;
mod walk;

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::{FilesArgs, each_file};
use crate::cli::exit::{CliError, Exit};

/// What to do with a data folder.
#[derive(Debug, Subcommand)]
pub enum FolderCommand {
    /// Print what `node`, `clean`, `cluster` and `keyspaces` say, and what is wrong with them.
    ///
    /// What a file is follows from how it begins, then from its name. Ends with code 8 when one
    /// is damaged, of a later release or no such file.
    Dump(FilesArgs),
    /// Read every file of data folders and their checkpoints, and say whether all are whole.
    ///
    /// Says what is damaged, missing or no file of Coronet, and ends with code 8 then. What a
    /// crash left behind and the next start removes is `unused` and no damage. Not while a node
    /// uses the folder (code 1): a checkpoint can be verified then. The folder of a single engine
    /// will do, too.
    Verify(FoldersArgs),
}

/// Folders to read, and how to say what is in them.
#[derive(Debug, Args)]
pub struct FoldersArgs {
    /// The folders.
    #[arg(required = true, value_name = "DIR")]
    pub folders: Vec<OsString>,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// Runs `coronet folder`.
pub fn run(command: &FolderCommand) -> Result<Exit, CliError> {
    match command {
        FolderCommand::Dump(args) => each_file(args, dump::dump),
        FolderCommand::Verify(args) => verify::verify(args),
    }
}
