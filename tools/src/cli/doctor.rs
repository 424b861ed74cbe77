//! `coronet doctor`: the server's own start-up checks, all of them, as a table.

use std::fmt::Write as _;
use std::process::ExitCode;

use coronet_server::config::{Config, DataCores};
use coronet_server::daemon::{environment, requirements};
use coronet_server::rt::check::{Finding, doctor as findings};

use super::exit::{CliError, Exit};
use super::options::DoctorArgs;

/// Runs the checks. The code is that of the first failure, the same that `coronetd` would end
/// with (70 to 79).
pub fn doctor(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    // Without a folder the checks of the disk are made where `coronetd dev` would put its own.
    let temporary =
        tempfile::tempdir().map_err(|e| CliError::local("making a temporary folder", &e))?;
    let config = settings(args)?;
    let folder = config.data_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let findings = findings(&requirements(&config, folder));
    super::print(table(&findings).as_bytes())?;
    Ok(first_failure(&findings).map_or(ExitCode::from(Exit::Ok), ExitCode::from))
}

/// The settings of the server that would be started.
fn settings(args: &DoctorArgs) -> Result<Config, CliError> {
    if let Some(file) = &args.config {
        let loaded = Config::load(Some(file), environment(), []);
        return loaded.map_err(|error| CliError::new(Exit::Usage, error.to_string()));
    }
    let data_cores = DataCores::Count(args.cores);
    Ok(Config { data_dir: args.dir.clone(), clients: args.listen, data_cores, ..Config::default() })
}

fn table(findings: &[Finding]) -> String {
    let mut table = String::new();
    for finding in findings {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{finding}");
    }
    table
}

fn first_failure(findings: &[Finding]) -> Option<u8> {
    findings.iter().find_map(|found| found.outcome.as_ref().err()).map(|error| error.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coronet_server::rt::check::StartError;

    #[test]
    fn the_first_failure_decides() {
        let fine = || Finding { name: "kernel", outcome: Ok("Linux".into()) };
        let bad = |outcome| Finding { name: "x", outcome: Err(outcome) };
        assert_eq!(first_failure(&[fine(), fine()]), None);
        let findings = [
            fine(),
            bad(StartError::Cores { asked: 9, have: 1 }),
            bad(StartError::Kernel { found: "4.4".into() }),
        ];
        assert_eq!(first_failure(&findings), Some(79));
        let text = table(&findings);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("fix:"), "{text}");
    }
}
