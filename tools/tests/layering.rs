//! The walls of the house: who may depend on whom, and which words stay in which room.
#![allow(clippy::expect_used)] // a test helper that cannot read the tree has nothing to test

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("workspace root")
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("read folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with("target") && !name.starts_with('.') {
            rust_files(&path, into);
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
}

/// Names of the `coronet-*` packages in the tables of dependencies of a manifest, those of single
/// platforms and of build scripts too. Tests may use what they like.
fn own_dependencies(manifest: &str) -> Vec<String> {
    let mut in_table = false;
    let mut found = Vec::new();
    let package = |text: &str| {
        let rest = text.trim_matches('"').strip_prefix("coronet-")?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '-').unwrap_or(rest.len());
        Some(rest[..end].to_owned())
    };
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            // `[dependencies.coronet-x]` is the other way to write an entry.
            let of_table = table.rsplit_once("dependencies.");
            let name = of_table.and_then(|(_, name)| package(name));
            in_table = table.ends_with("dependencies") && !table.ends_with("dev-dependencies");
            if !table.contains("dev-dependencies") {
                found.extend(name);
            }
        } else if in_table {
            found.extend(package(line));
            // An entry under another name says which package it means.
            let renamed = line.split_once("package").and_then(|(_, rest)| rest.split_once('"'));
            found.extend(renamed.and_then(|(_, name)| package(name)));
        }
    }
    found
}

#[test]
fn crates_depend_only_on_the_layers_below() {
    let allowed: BTreeMap<&str, (&str, &[&str])> = BTreeMap::from([
        ("probe", ("tools/probe", &[] as &[&str])),
        ("ring", ("ring", &["probe"])),
        ("lsm", ("lsm", &["probe"])),
        ("net", ("net", &["ring"])),
        ("server", ("server", &["probe", "ring", "lsm", "net"])),
        ("sim", ("tools/sim", &["lsm"])),
        ("tools", ("tools", &["probe", "ring", "lsm", "net", "server", "sim"])),
        ("benches", ("benches", &["ring", "lsm", "net", "server", "sim"])),
    ]);
    for (name, (folder, may_use)) in allowed {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect(folder);
        for used in own_dependencies(&manifest) {
            assert!(may_use.contains(&used.as_str()), "{name} must not depend on coronet-{used}");
        }
    }
}

#[test]
fn dependency_reader_sees_a_forbidden_line() {
    let lines = [
        "[package]\nname=\"x\"\n[dependencies]\ncoronet-server.workspace = true\n",
        "[dependencies.coronet-server]\nworkspace = true\n",
        "[target.'cfg(unix)'.dependencies]\ncoronet-server = { path = \"../server\" }\n",
        "[build-dependencies]\ncoronet-server.workspace = true\n",
        "[dependencies]\nother = { package = \"coronet-server\", path = \"../server\" }\n",
    ];
    for manifest in lines {
        assert_eq!(own_dependencies(manifest), vec!["server"], "{manifest}");
    }
    let of_tests = "[dev-dependencies]\ncoronet-sim.workspace = true\n";
    assert_eq!(own_dependencies(of_tests), Vec::<String>::new());
}

#[test]
fn runtime_is_named_only_in_its_room() {
    let allowed = ["server/src/rt", "server/examples", "tools/tests/layering.rs"];
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 20, "the walk found only {} files", files.len());
    for file in files {
        let place = file.strip_prefix(root()).expect("under root").to_string_lossy().into_owned();
        if allowed.iter().any(|room| place.starts_with(room)) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("read source");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in ["glommio::", "io_uring::", "use glommio", "use io_uring"] {
                assert!(
                    !code.contains(word),
                    "{place}:{}: `{word}` outside server/src/rt",
                    number + 1
                );
            }
        }
    }
}

#[test]
fn async_sockets_are_named_only_by_clients() {
    let mut files = Vec::new();
    for pure in ["ring/src", "lsm/src", "tools/sim/src", "server/src/node", "net/src"] {
        rust_files(&root().join(pure), &mut files);
    }
    for file in files {
        let place = file.strip_prefix(root()).expect("under root").to_string_lossy().into_owned();
        if place.starts_with("net/src/client") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("read source");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in ["tokio::", "std::net::Tcp", "std::os::fd"] {
                assert!(!code.contains(word), "{place}:{}: `{word}` in a pure room", number + 1);
            }
        }
    }
}

/// The lints of the pure crates forbid this; a node shares its crate with the shell, so that they
/// cannot watch over it.
#[test]
fn a_node_names_no_clock_thread_or_file_of_the_machine() {
    let mut files = Vec::new();
    for pure in ["server/src/node", "server/src/data_dir"] {
        rust_files(&root().join(pure), &mut files);
    }
    assert!(files.len() > 20, "the walk found only {} files", files.len());
    let words = ["Instant::now", "SystemTime", "std::thread", "thread_rng", "std::fs", "libc::"];
    for file in files {
        let place = file.strip_prefix(root()).expect("under root").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("read source");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in words {
                assert!(!code.contains(word), "{place}:{}: `{word}` in a node", number + 1);
            }
        }
    }
}
