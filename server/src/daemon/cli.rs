//! The command line of `coronetd`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// What the exit code says.
const EXIT_CODES: &str = "\
Settings: flags win over the environment (CORONET_GROUP_NAME), that over the file.
Exit codes: 0 ended by SIGTERM or SIGINT after finishing; 2 command line; 64 settings;
65 what is in the data folder; 66 an engine does not open; 67 an engine does not close;
68 temporary folder; 69 runtime; 70 kernel; 71 io_uring; 72 locked memory; 73 open files;
74 data folder access; 75 direct I/O; 76 free space; 77 data folder in use; 78 port; 79 cores;
130 and 143 a second SIGINT or SIGTERM, which ends at once.";

/// A node of a Coronet cluster.
#[derive(Debug, Parser)]
#[command(
    name = "coronetd",
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = EXIT_CODES
)]
pub struct Cli {
    /// What to do instead of serving by a settings file.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of a configured node.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Commands of `coronetd`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node for trying things out: loopback, no file needed, a temporary folder unless
    /// --dir is given.
    Dev(DevArgs),
    /// Check a settings file (with the environment applied) and print what would be used.
    CheckConfig {
        /// The settings file.
        file: PathBuf,
    },
}

/// Flags of a configured node. A flag wins over the environment, that over the file.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Settings file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Address for clients, e.g. 127.0.0.1:4720.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Data cores: a number, or CPUs such as 0-3,6.
    #[arg(long, value_name = "N|LIST")]
    pub cores: Option<String>,
    /// CPU of the control core, or "shared".
    #[arg(long, value_name = "CPU|shared")]
    pub control_core: Option<String>,
    /// Allow listening on addresses other machines can reach.
    #[arg(long)]
    pub insecure: bool,
}

impl ServeArgs {
    /// The flags that were given, under the names of their settings.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("data_dir", &self.data_dir),
            ("listen.clients", &self.listen),
            ("cores.data", &self.cores),
            ("cores.control", &self.control_core),
        ];
        let mut settings: Vec<_> = given
            .into_iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| (name, value.clone())))
            .collect();
        if self.insecure {
            settings.push(("insecure", "true".to_owned()));
        }
        settings
    }
}

/// Flags of `coronetd dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Data folder that stays; without it a temporary one is printed and removed at a clean exit.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Data cores: a number, or CPUs such as 0-3,6.
    #[arg(long, value_name = "N|LIST", default_value = "1")]
    pub cores: String,
    /// Port for clients on 127.0.0.1. The peers' port is the next one; each further node is ten
    /// ports up.
    #[arg(long, default_value_t = 4720)]
    pub port: u16,
    /// Nodes of a local cluster, each a process of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Replicas of a key; at most as many as there are nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub replicas: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn only_given_flags_become_settings() {
        let cli = Cli::parse_from(["coronetd", "--config", "x.toml", "--cores", "0-1"]);
        assert_eq!(cli.serve.settings(), vec![("cores.data", "0-1".to_owned())]);
        assert!(cli.command.is_none());
    }
}
