//! The checks, each made to fail.

use super::*;

#[test]
fn kernel_releases_compare_as_numbers() {
    assert_eq!(parse_version("6.18.44-fc"), Some((6, 18)));
    assert!(parse_version("5.15.0").is_some_and(|version| version < KERNEL));
    assert!(parse_version("6.1").is_some_and(|version| version >= KERNEL));
    assert_eq!(parse_version("unknown"), None);
}

#[test]
fn a_folder_in_use_and_a_taken_port_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut needs = Requirements {
        data_dir: dir.path().join("node"),
        listen: None,
        peers: None,
        cores: 1,
        open_files: 64,
        free_bytes: 1,
    };
    let first = prepare(&needs).unwrap();
    let again = prepare(&needs).unwrap_err();
    assert_eq!(again.exit_code(), 77, "{again}");
    drop(first);
    needs.listen = Some(taken.local_addr().unwrap());
    let port = prepare(&needs).unwrap_err();
    assert_eq!(port.exit_code(), 78, "{port}");
}

#[test]
fn a_doctor_leaves_a_folder_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut needs = Requirements {
        data_dir: dir.path().join("not/yet"),
        listen: None,
        peers: None,
        cores: 1,
        open_files: 64,
        free_bytes: 1,
    };
    let fine = |findings: Vec<Finding>| findings.iter().all(|found| found.outcome.is_ok());
    assert!(fine(doctor(&needs)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::create_dir_all(&needs.data_dir).unwrap();
    drop(prepare(&needs).unwrap());
    assert!(fine(doctor(&needs)));
    assert!(needs.data_dir.join(LOCK_FILE).exists(), "the lock of a node that was there");
    // A relative path ends in the folder of the process, which stays.
    needs.data_dir = PathBuf::from("a-folder-of-doctors");
    assert!(fine(doctor(&needs)));
    assert!(!needs.data_dir.exists());
}

#[test]
fn a_node_needs_files_for_connections_and_cores() {
    assert_eq!(open_files(12_000, 2), 12_000 + 2 * FILES_PER_CORE);
    assert_eq!(open_files(u64::MAX, 1), u64::MAX);
}

#[test]
fn every_failure_is_one_line_with_a_fix() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let impossible = Requirements {
        data_dir: dir.path().join("file"),
        listen: Some("192.0.2.1:1".parse().unwrap()),
        peers: None,
        cores: usize::MAX >> 40,
        open_files: u64::MAX,
        free_bytes: u64::MAX,
    };
    let failed: Vec<_> =
        doctor(&impossible).into_iter().filter_map(|found| found.outcome.err()).collect();
    let codes: Vec<_> = failed.iter().map(StartError::exit_code).collect();
    assert!([79, 73, 74, 78].iter().all(|code| codes.contains(code)), "{codes:?}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let peers = Some(taken.local_addr().unwrap());
    let found = doctor(&Requirements { peers, ..impossible.clone() });
    let port = found.iter().find(|found| found.name == "port for nodes").unwrap();
    assert_eq!(port.outcome.as_ref().unwrap_err().exit_code(), 78);
    for error in &failed {
        let line = error.to_string();
        assert!(line.contains("; fix: ") && !line.contains('\n'), "{line}");
    }
    let full = check_space(dir.path(), u64::MAX).unwrap_err();
    assert_eq!(full.exit_code(), 76);
}
