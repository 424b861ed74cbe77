//! `coronet sst`, `log` and `manifest` on good, truncated and flipped files: what is printed, and
//! the exit code.
#![allow(clippy::unwrap_used)] // a failed step fails the test

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn coronet(args: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coronet")).args(args).arg(file).output().unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lsm/tests/golden/2").join(name)
}

/// A copy of a golden file after `change`.
fn changed(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = std::fs::read(golden(name)).unwrap();
    change(&mut bytes);
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const EACH: [(&[&str], &str); 5] = [
    (&["sst", "dump"], "000001.sst"),
    (&["sst", "verify"], "000001.sst"),
    (&["sst", "stats"], "000001.sst"),
    (&["log", "dump"], "000001.log"),
    (&["manifest", "dump"], "MANIFEST-000001"),
];

#[test]
fn good_files_end_with_zero_and_list_as_text_and_json() {
    for (args, name) in EACH {
        let text = coronet(args, &golden(name));
        assert_eq!(text.status.code(), Some(0), "{args:?}: {text:?}");
        assert!(!text.stdout.is_empty() && text.stderr.is_empty(), "{args:?}: {text:?}");
        let json = coronet(&[args, &["--json"]].concat(), &golden(name));
        assert_eq!(json.status.code(), Some(0));
        assert!(!lines(&json).is_empty());
    }
    let stats = &lines(&coronet(&["sst", "stats", "--json"], &golden("000001.sst")))[0];
    let dump = lines(&coronet(&["sst", "dump", "--json"], &golden("000001.sst")));
    assert_eq!(stats["entries"], dump.len());
    assert!(dump.iter().any(|e| e["kind"] == "delete") && stats["blocks_lz4"] == 1);
    assert_eq!(dump[0]["key"]["value"], stats["smallest"]["value"]);
}

#[test]
fn damage_ends_with_eight_and_is_named_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    for (args, name) in EACH {
        for (what, change) in [
            ("cut", (|bytes: &mut Vec<u8>| bytes.truncate(3000)) as fn(&mut Vec<u8>)),
            ("flip", |bytes| bytes[40] ^= 1),
            ("empty", |bytes| bytes.clear()),
        ] {
            let path = changed(dir.path(), name, change);
            let output = coronet(args, &path);
            assert_eq!(output.status.code(), Some(8), "{args:?} {what}: {output:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            let place = format!("{} at offset ", path.display());
            assert!(said.contains(&place), "{args:?} {what}: {said}");
        }
        assert_eq!(coronet(args, Path::new("/nowhere/at.all")).status.code(), Some(8));
    }
    let path = changed(dir.path(), "000001.sst", |bytes| bytes[40] ^= 1);
    let found = lines(&coronet(&["sst", "verify", "--json"], &path));
    assert_eq!(
        (&found[0]["offset"], &found[0]["damage"]),
        (&0.into(), &"block checksum mismatch".into())
    );
}

/// A record of the manifest with this edit: see Manifest in docs/FORMATS.md.
fn record(uid: &[u8], index: u64, edit: &[u8]) -> Vec<u8> {
    let rest =
        [b"CRME", &(edit.len() as u64).to_le_bytes()[..], uid, &index.to_le_bytes(), edit].concat();
    let mut page = [&crc32c::crc32c(&rest).to_le_bytes()[..], &rest].concat();
    page.resize(4096, 0);
    page
}

#[test]
fn a_manifest_names_the_loss_that_was_accepted_and_the_blocks_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("MANIFEST-000001");
    let mut bytes = std::fs::read(golden("../5/MANIFEST-000001")).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let before = lines(&coronet(&["manifest", "dump", "--json"], &path));
    let first = before.iter().find(|item| item["added"] == 1).unwrap();
    let number = |field: &str| before.last().unwrap()[field].as_u64().unwrap();
    let table = u64::from_str_radix(first["uid"].as_str().unwrap(), 16).unwrap();
    let mut edit = vec![5, 13];
    edit.extend([table, 8192].map(u64::to_le_bytes).concat());
    edit.push(12);
    edit.extend([99_u64, 400, 200].map(u64::to_le_bytes).concat());
    let uid = bytes[16..24].to_vec();
    bytes.truncate(number("end") as usize);
    bytes.extend(record(&uid, number("records"), &edit));
    std::fs::write(&path, &bytes).unwrap();
    let output = coronet(&["manifest", "dump", "--json"], &path);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let items = lines(&output);
    assert!(items.iter().any(|item| item["loss_accepted_in"] == 0), "{items:?}");
    let given_up = items.iter().find(|item| !item["given_up"].is_null()).unwrap();
    assert_eq!((&given_up["given_up"], &given_up["offset"]), (&first["uid"], &8192.into()));
    let text = String::from_utf8(coronet(&["manifest", "dump"], &path).stdout).unwrap();
    assert!(text.contains("block at 8192 of table") && text.contains("given up"), "{text}");
}
