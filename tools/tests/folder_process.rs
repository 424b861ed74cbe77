//! `coronet folder` on the data folders of real servers: what the small files say, and what is
//! told of damaged, cut off, empty, zeroed, newer, foreign, missing and unknown files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Server, free_addresses, run, run_ok};

/// The small files of a data folder.
const SMALL: [&str; 4] = ["node", "clean", "cluster", "keyspaces"];
const NOBODY: &str = "127.0.0.1:1";
/// How long a node may take to found its cluster. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder(verb: &str, paths: &[&Path]) -> Output {
    let paths = paths.iter().map(|path| path.to_str().unwrap());
    run(NOBODY, &["folder", verb].into_iter().chain(paths).collect::<Vec<_>>())
}

fn json(verb: &str, path: &Path) -> Vec<Value> {
    let output = run(NOBODY, &["folder", verb, "--json", path.to_str().unwrap()]);
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Much more than a small memtable holds, so that there are tables.
fn fill(server: &Server) {
    let bench = ["bench", "--keys", "80", "--value-size", "65536", "--load-only", "--quiet"];
    run_ok(&server.addr, &bench);
}

/// A data folder with every file a node makes: it was alone first, then in a cluster of one, and
/// has tables, logs and a checkpoint.
fn data_folder(dir: &Path) {
    let small = ("CORONET_MEMORY_MEMTABLE", "1 MiB");
    let server = Server::start_with(dir, &[small]);
    run_ok(&server.addr, &["keyspace", "create", "docs", "--ttl", "300d"]);
    fill(&server);
    assert!(server.stop().success());
    let [peers] = free_addresses::<1>();
    let member = [
        small,
        ("CORONET_LISTEN_PEERS", peers.as_str()),
        ("CORONET_CLUSTER_NODES", peers.as_str()),
        ("CORONET_CLUSTER_REPLICAS", "1"),
        ("CORONET_CLUSTER_RACK", "attic"),
    ];
    let server = Server::start_with(dir, &member);
    // Until it has founded its cluster, and kept that.
    let put = || run(&server.addr, &["put", "from", "the cluster"]).status.success();
    let begun = Instant::now();
    while !(put() && dir.join("cluster").exists()) {
        assert!(begun.elapsed() < PATIENCE, "no cluster is founded: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    run_ok(&server.addr, &["checkpoint", "copy"]);

    // What a running node changes meanwhile would look like damage.
    let running = folder("verify", &[dir]);
    let (out, err) = said(&running);
    assert_eq!((running.status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("a node uses this folder") && err.contains("coronet checkpoint"), "{err}");
    let copy = folder("verify", &[&dir.join("checkpoints/copy")]);
    assert_eq!(copy.status.code(), Some(0), "{copy:?}");
    assert!(server.stop().success());
}

/// The manifest of an engine's folder.
fn manifest_of(core: &Path) -> PathBuf {
    let paths = fs::read_dir(core).unwrap().map(|entry| entry.unwrap().path());
    let is_manifest = |path: &PathBuf| path.to_string_lossy().contains("/MANIFEST-");
    let found: Vec<_> = paths.filter(is_manifest).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The tables that the manifests name. There may be others: merges that the end cut short.
fn live_tables(dir: &Path) -> Vec<PathBuf> {
    let lines = json("verify", dir);
    let live = lines.iter().filter(|line| line["state"] == "ok");
    let paths = live.filter_map(|line| line["file"].as_str()).map(PathBuf::from);
    paths.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect()
}

#[test]
fn every_small_file_is_told_and_a_whole_folder_is_verified() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    data_folder(&dir);
    let small = SMALL.map(|name| dir.join(name));
    let output = folder("dump", &small.each_ref().map(PathBuf::as_path));
    let (text, err) = said(&output);
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
    for words in [
        "node: identity of a data folder, format 1",
        "generation 1: the engines are in gen-000001",
        "clean: mark of a clean end, format 1",
        " UTC (",
        "cluster: view of the cluster, format 1",
        "rack \"attic\"",
        "keyspaces: keyspaces of a node alone, format 1",
        "  keyspace docs (",
        "ttl=300d",
        "  placement of epoch ",
        "    partition 0: ",
    ] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    let [identity, mark, view, keyspaces] = small.each_ref().map(|path| json("dump", path));
    assert_eq!(identity[0]["incarnation"], mark[0]["incarnation"], "it ended under its own name");
    assert_eq!(identity[0]["node"], view[0]["seen_by"]);
    assert!(identity[0].get("secret").is_none(), "{identity:?}");
    let member = view.iter().find(|item| !item["member"].is_null()).unwrap();
    assert_eq!((&member["member"], &member["standing"]), (&identity[0]["node"], &"up".into()));
    let partitions = view.iter().filter(|item| !item["partition"].is_null()).count();
    assert_eq!(identity[0]["partitions"], partitions);
    assert!(keyspaces.iter().any(|item| item["keyspace"] == "docs"), "{keyspaces:?}");

    let output = folder("verify", &[&dir]);
    let (text, err) = said(&output);
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{text}");
    let tables = live_tables(&dir).len();
    assert!(tables > 1, "tables, and those of the checkpoint");
    assert_eq!(text.matches("ok, table of ").count(), tables, "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with(&format!("{}: ok: ", dir.display())), "{last}");
    assert!(last.ends_with("0 damaged, 0 missing, 0 unknown"), "{last}");
    let lines = json("verify", &dir);
    let totals = &lines.last().unwrap()["totals"];
    assert_eq!(totals["files"], lines.len() - 1);
    assert_eq!((&totals["damaged"], &lines.last().unwrap()["ok"]), (&0.into(), &true.into()));
    // An engine's folder on its own, and both at once.
    let engine = dir.join("gen-000001/core-000");
    let output = folder("verify", &[&engine, &dir]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(folder("verify", &[&scratch.path().join("nowhere")]).status.code(), Some(8));
}

/// A file of a name, how it is changed, and what must be said of it at which offset.
type Change = (&'static str, fn(&mut Vec<u8>), &'static str);

#[test]
fn damage_of_every_kind_is_told_with_file_and_offset() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    data_folder(&dir);
    let changes: [Change; 6] = [
        ("cut", |bytes| bytes.truncate(bytes.len() - 1), "is cut off"),
        ("flip", |bytes| bytes[20] ^= 1, "does not match its checksum"),
        ("empty", |bytes| bytes.clear(), "is empty"),
        ("zeros", |bytes| bytes.fill(0), "holds nothing but zeros"),
        ("foreign", |bytes| bytes[..4].copy_from_slice(b"%PDF"), "of Coronet"),
        ("flip in the magic", |bytes| bytes[7] ^= 1, "of Coronet"),
    ];
    for name in SMALL {
        let path = dir.join(name);
        let sound = fs::read(&path).unwrap();
        let newer = |bytes: &mut Vec<u8>| bytes[8] = 2;
        let newer: Change = ("newer", newer, "has format version 2");
        let versioned = matches!(name, "node" | "clean");
        for (what, change, words) in changes.into_iter().chain(versioned.then_some(newer)) {
            let mut bytes = sound.clone();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let place = format!("coronet: {} at offset ", path.display());
            for (verb, given) in [("dump", &path), ("verify", &dir)] {
                let output = folder(verb, &[given]);
                let (_, err) = said(&output);
                assert_eq!(output.status.code(), Some(8), "{verb} {name} {what}: {err}");
                let told = err.starts_with(&place) && err.contains(words);
                assert!(told && err.lines().count() == 1, "{verb} {name} {what}: {err}");
            }
            let found = json("dump", &path);
            let text = found[0]["damage"].as_str().unwrap();
            assert!(text.contains(words) && found[0]["offset"].is_u64(), "{found:?}");
        }
        fs::write(&path, sound).unwrap();
    }
    assert_eq!(folder("verify", &[&dir]).status.code(), Some(0));

    let manifest = manifest_of(&dir.join("gen-000001/core-000"));
    let table = live_tables(&dir.join("gen-000001/core-000")).remove(0);
    for (path, at) in [(manifest, 4096 + 40), (table, 100)] {
        let sound = fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let output = folder("verify", &[&dir]);
        let (out, err) = said(&output);
        assert_eq!(output.status.code(), Some(8), "{err}");
        assert!(err.contains(&format!("{} at offset ", path.display())), "{err}");
        assert!(out.lines().last().unwrap().contains("NOT ok"), "{out}");
        fs::write(&path, sound).unwrap();
    }
}

#[test]
fn missing_unknown_and_unused_files_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    data_folder(&dir);
    let core = dir.join("gen-000001/core-000");
    let table = live_tables(&core).remove(0);
    let wrong = |path: &Path, words: &str| {
        let output = folder("verify", &[&dir]);
        let (_, err) = said(&output);
        assert_eq!(output.status.code(), Some(8), "{err}");
        let line = format!("coronet: {}: {words}", path.display());
        assert!(err.lines().any(|found| found.starts_with(&line)), "{line} is not in: {err}");
    };
    let aside = scratch.path().join("aside");
    let without = |path: &Path, words: &str| {
        fs::rename(path, &aside).unwrap();
        wrong(path, words);
        fs::rename(&aside, path).unwrap();
    };
    without(&table, "is missing: the manifest names it");
    without(&core, "is missing: the engine of a data core");
    without(&dir.join("gen-000001"), "is missing: the engines");
    without(&dir.join("node"), "is missing");
    without(&dir.join("checkpoints/copy/node"), "is missing");
    let manifest = manifest_of(&core);
    fs::rename(&manifest, &aside).unwrap();
    wrong(&core, "has no manifest");
    fs::rename(&aside, &manifest).unwrap();
    for path in [dir.join("notes.txt"), core.join("000001.sst.bak"), dir.join("gen-000001/x")] {
        fs::write(&path, "?").unwrap();
        wrong(&path, "is nothing that Coronet writes here");
        fs::remove_file(&path).unwrap();
    }
    // A table under the name of another one.
    let tables = live_tables(&core);
    if let [first, second, ..] = &tables[..] {
        let sound = fs::read(first).unwrap();
        fs::copy(second, first).unwrap();
        let output = folder("verify", &[&dir]);
        assert_eq!(output.status.code(), Some(8), "{output:?}");
        assert!(said(&output).1.contains("the manifest names table"), "{output:?}");
        fs::write(first, sound).unwrap();
    }

    // What a crash may leave behind, and the next start removes, is no damage.
    let unused = || json("verify", &dir).last().unwrap()["totals"]["unused"].as_u64().unwrap();
    let before = unused();
    fs::write(core.join("999999.sst"), "begun").unwrap();
    fs::write(core.join("MANIFEST-999999"), "").unwrap();
    fs::write(core.join("999999.log"), [0; 4096]).unwrap();
    fs::write(core.join("000001.sst.damaged"), "kept").unwrap();
    fs::write(dir.join("node.new"), "").unwrap();
    fs::create_dir_all(dir.join("gen-000007/core-000")).unwrap();
    let output = folder("verify", &[&dir]);
    let (text, err) = said(&output);
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{text}");
    assert_eq!(unused(), before + 5, "{text}");
    let server = Server::start_with(&dir, &[]);
    assert!(server.stop().success(), "a node thinks the same of them");
}

#[test]
fn a_killed_node_leaves_a_folder_that_is_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let server = Server::start_with(&dir, &[("CORONET_MEMORY_MEMTABLE", "1 MiB")]);
    fill(&server);
    server.kill9();
    let output = folder("verify", &[&dir]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
