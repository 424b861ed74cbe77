//! `coronetd`: the command line, start-up and shut-down of a node.

mod cli;

pub use cli::{Cli, Command, DevArgs, ServeArgs};
