//! `coronet doctor`: the server's own start-up checks, all of them, as a table.

use std::fmt::Write as _;
use std::process::ExitCode;

use coronet_server::config::Config;
use coronet_server::rt::check::{
    FREE_BYTES, Finding, Requirements, doctor as findings, open_files,
};

use super::exit::{CliError, Exit};
use super::options::DoctorArgs;

/// Runs the checks. The code is that of the first failure, the same that `coronetd` would end
/// with (70 to 79).
pub fn doctor(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    // Without a folder the checks of the disk are made where `coronetd dev` would put its own.
    let temporary =
        tempfile::tempdir().map_err(|e| CliError::local("making a temporary folder", &e))?;
    let needs = Requirements {
        data_dir: args.dir.clone().unwrap_or_else(|| temporary.path().to_owned()),
        listen: Some(args.listen),
        peers: None,
        cores: args.cores,
        open_files: open_files(Config::default().max_connections, args.cores),
        free_bytes: FREE_BYTES,
    };
    let findings = findings(&needs);
    super::print(table(&findings).as_bytes())?;
    Ok(first_failure(&findings).map_or(ExitCode::from(Exit::Ok), ExitCode::from))
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
