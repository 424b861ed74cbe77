//! The `coronet` verbs against a real server: output, exit codes, the first five minutes of the
//! README.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::process::Stdio;

use support::{Random, Server, coronet, free_addresses, run, run_ok};

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn put_from_stdin(addr: &str, key: &str, value: &[u8]) {
    let mut child = coronet(addr, &["put", key]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn values_go_in_and_come_out_and_the_exit_codes_tell() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(&scratch.path().join("data"));
    let addr = &server.addr;

    run_ok(addr, &["put", "greeting", "hello world"]);
    assert_eq!(run_ok(addr, &["get", "greeting"]), b"hello world");

    // Raw bytes of any kind through standard input, the empty value too.
    let binary = Random(3).bytes(100_000);
    put_from_stdin(addr, "binary", &binary);
    assert_eq!(run_ok(addr, &["get", "binary"]), binary);
    put_from_stdin(addr, "empty", b"");
    assert_eq!(run_ok(addr, &["get", "empty"]), b"");

    let versions = json(&run_ok(addr, &["get", "--json", "greeting"]));
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1);
    assert_eq!(versions["versions"][0]["value"], "hello world");
    assert_eq!(versions["versions"][0]["encoding"], "utf-8");

    // The context of a read goes with the next write; a forged one is refused.
    let context = versions["context"].as_str().unwrap();
    run_ok(addr, &["put", "greeting", "second", "--context", context]);
    assert_eq!(run_ok(addr, &["get", "greeting"]), b"second");
    let forged = run(addr, &["put", "greeting", "third", "--context", "AAAAAAAAAAAAAAAAAAAA"]);
    assert!(!forged.status.success());
    let foreign = run(addr, &["put", "other", "x", "--context", context]);
    assert!(!foreign.status.success(), "a context is bound to its key");
    assert_eq!(run_ok(addr, &["get", "greeting"]), b"second");

    run_ok(addr, &["delete", "greeting"]);
    let gone = run(addr, &["get", "greeting"]);
    assert_eq!((gone.status.code(), gone.stdout.len()), (Some(3), 0));
    let gone = run(addr, &["get", "--json", "greeting"]);
    assert_eq!(gone.status.code(), Some(3));
    assert_eq!(json(&gone.stdout)["versions"].as_array().unwrap().len(), 0);

    run_ok(addr, &["put", "buffered", "x", "--durability", "buffered"]);
    assert_eq!(run_ok(addr, &["get", "buffered"]), b"x");
    assert!(server.stop().success());
}

#[test]
fn listing_is_complete_and_resumable() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(&scratch.path().join("data"));
    let addr = &server.addr;
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let mut expected: Vec<String> = (0..500).map(|number| format!("list/{number:04}")).collect();
    for number in 0..500 {
        std::fs::write(tree.join(format!("{number:04}")), format!("value {number}")).unwrap();
    }
    run_ok(addr, &["put", "lisp", "not listed"]);
    run_ok(addr, &["load", "--quiet", "--prefix", "list/", tree.to_str().unwrap()]);
    let verified =
        run_ok(addr, &["verify", "--quiet", "--json", "--prefix", "list/", tree.to_str().unwrap()]);
    assert_eq!(json(&verified)["files"], 500);

    let listed = String::from_utf8(run_ok(addr, &["ls", "list/"])).unwrap();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(run_ok(addr, &["ls", "nothing/"]), b"");

    // Page by page with the cursor of the page before: everything once.
    let mut paged = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut arguments = vec!["ls", "list/", "--json", "--limit", "77"];
        if let Some(cursor) = &cursor {
            arguments.extend(["--cursor", cursor]);
        }
        let page = String::from_utf8(run_ok(addr, &arguments)).unwrap();
        let mut next = None;
        for line in page.lines() {
            let line = json(line.as_bytes());
            match line["key"].as_str() {
                Some(key) => paged.push(key.to_owned()),
                None => next = line["cursor"].as_str().map(str::to_owned),
            }
        }
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    paged.sort_unstable();
    assert_eq!(paged, expected);

    // A difference is found and has its own code.
    run_ok(addr, &["put", "list/0007", "value 8"]);
    run_ok(addr, &["delete", "list/0008"]);
    let found =
        run(addr, &["verify", "--quiet", "--json", "--prefix", "list/", tree.to_str().unwrap()]);
    assert_eq!(found.status.code(), Some(8));
    let found = json(&found.stdout);
    assert_eq!((&found["missing"], &found["different"]), (&1.into(), &1.into()));
    assert!(server.stop().success());
}

#[test]
fn questions_to_the_server_are_answered() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(&scratch.path().join("data"));
    let addr = &server.addr;
    assert!(json(&run_ok(addr, &["stats", "--json"])).is_object());
    assert!(!run_ok(addr, &["stats"]).is_empty());
    let route = json(&run_ok(addr, &["route", "--json", "some key"]));
    assert!(route["partition"].is_u64() && route["core"].is_u64(), "{route}");
    let again = json(&run_ok(addr, &["route", "--json", "some key"]));
    assert_eq!(route["partition"], again["partition"]);
    let bench = run_ok(
        addr,
        &[
            "bench",
            "--quiet",
            "--json",
            "--load",
            "--check",
            "--keys",
            "500",
            "--requests",
            "3000",
            "--connections",
            "3",
            "--depth",
            "4",
            "--value-size",
            "100",
            "--distribution",
            "zipfian",
        ],
    );
    let bench = json(&bench);
    assert_eq!(bench["requests"], 3000);
    assert_eq!(bench["errors"].as_object().unwrap().len(), 0, "{bench}");
    assert_eq!(bench["get"]["missing"], 0, "{bench}");
    assert!(server.stop().success());
}

#[test]
fn without_a_server_the_code_is_5_and_bad_arguments_are_2() {
    let [nobody] = free_addresses();
    assert_eq!(run(&nobody, &["get", "x"]).status.code(), Some(5));
    assert_eq!(run(&nobody, &["ping"]).status.code(), Some(5));
    assert_eq!(run(&nobody, &["no-such-verb"]).status.code(), Some(2));
    assert_eq!(run(&nobody, &["put", "k", "v", "--context", "***"]).status.code(), Some(2));
    assert_eq!(run(&nobody, &["load", "/nonexistent/tree"]).status.code(), Some(8));
    let help = String::from_utf8(run_ok(&nobody, &["--help"])).unwrap();
    assert!(help.contains("3  the key has no value"), "{help}");
}

#[test]
fn the_doctor_checks_what_a_server_with_the_same_settings_would_use() {
    let scratch = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (peers, [clients]) = (taken.local_addr().unwrap(), free_addresses::<1>());
    let (file, data) = (scratch.path().join("node.toml"), scratch.path().join("data"));
    let settings = format!(
        "data_dir = {data:?}\n[listen]\nclients = '{clients}'\npeers = '{peers}'\n[cores]\ndata = 1\n\
         [limits]\nconnections = 50\n[cluster]\nnodes = ['{peers}']\naddress = '{peers}'\n"
    );
    std::fs::write(&file, settings).unwrap();
    let doctor = |file: &std::path::Path| {
        run("127.0.0.1:1", &["doctor", "--config", file.to_str().unwrap()])
    };
    let found = doctor(&file);
    let said = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(78), "{said}{:?}", String::from_utf8(found.stderr));
    let line = |of: &str| said.lines().find(|line| line.contains(of)).expect(of).to_owned();
    assert!(line("port for nodes").contains("fix:"), "{said}");
    assert!(line(&clients).contains("is free"), "{said}");
    assert!(line(data.to_str().unwrap()).contains("free to use") && !data.exists(), "{said}");
    drop(taken);
    assert_eq!(doctor(&file).status.code(), Some(0));

    std::fs::write(&file, "no_such_setting = 1\n").unwrap();
    let unknown = doctor(&file);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("no_such_setting"));
}
