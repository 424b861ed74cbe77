//! The exit codes of `coronet` and the error that carries one. Scripts rely on the numbers; they
//! never change meaning.

use std::process::ExitCode;

/// Why the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Ok = 0,
    /// Any failure without a code of its own.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// The key has no value.
    NotFound = 3,
    /// The key has several versions and `--fail-on-siblings` was given.
    Siblings = 4,
    /// The server cannot be reached or refuses for now; nothing was applied. So it does where it
    /// knows no such keyspace: one that was just created may not have reached it yet.
    Unavailable = 5,
    /// No answer in time: a write may or may not have been applied.
    InDoubt = 6,
    /// Reserved: not allowed.
    Denied = 7,
    /// A local file or folder failed, or data differs from what it should be.
    Data = 8,
}

/// The table shown by `--help`.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed for a reason without a code of its own
  2  the arguments make no sense
  3  the key has no value
  4  the key has several versions (get --fail-on-siblings)
  5  the server cannot be reached, refuses for now or knows no such keyspace (yet); nothing was
     applied
  6  no answer in time: a write may or may not have been applied
  7  not allowed (reserved)
  8  a local file or folder failed, or data differs from what it should be
  70 to 79  doctor: the code coronetd would end with";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A failure with the exit code it ends the program with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// The code.
    pub exit: Exit,
    /// One line for the user.
    pub message: String,
}

impl CliError {
    /// A failure with this code.
    pub fn new(exit: Exit, message: impl Into<String>) -> CliError {
        CliError { exit, message: message.into() }
    }

    /// A local file, folder or stream failed.
    pub fn local(what: impl std::fmt::Display, source: &std::io::Error) -> CliError {
        CliError::new(Exit::Data, format!("{what}: {source}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_code() {
        let codes = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Siblings,
            Exit::Unavailable,
            Exit::InDoubt,
            Exit::Denied,
            Exit::Data,
        ];
        for (number, code) in codes.into_iter().enumerate() {
            assert_eq!(code as usize, number);
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(&format!("{number}  "))));
        }
    }
}
