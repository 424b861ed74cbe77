//! What a walk through folders has seen so far, told line by line.

use std::path::{Path, PathBuf};

use coronet_lsm::inspect::Finding;
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::offline::Output;

/// Tells what is found, and counts it.
pub struct Walk {
    out: Output,
    json: bool,
    totals: Totals,
}

/// What was found under one folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Totals {
    /// Files that were looked at.
    files: u64,
    /// Their bytes.
    bytes: u64,
    /// Those that are whole.
    ok: u64,
    /// Those that nothing reads: left over, or set aside.
    unused: u64,
    /// Those with something wrong.
    damaged: u64,
    /// Things that should be there and are not.
    missing: u64,
    /// Files and folders that are none of ours.
    unknown: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    File { file: String, state: &'static str, what: &'a str, bytes: u64 },
    Damage { file: String, offset: Option<u64>, damage: &'a str },
    Folder { folder: String, ok: bool, totals: Totals },
}

impl Walk {
    /// Nothing seen yet.
    pub fn new(json: bool) -> Self {
        Walk { out: Output::new(json), json, totals: Totals::default() }
    }

    /// A file that was read: whole, or with findings.
    pub fn read(&mut self, file: &Path, bytes: usize, what: &str, findings: &[Finding]) {
        self.count(bytes as u64);
        if findings.is_empty() {
            self.totals.ok += 1;
            return self.line(file, "ok", what, bytes as u64);
        }
        self.totals.damaged += 1;
        findings.iter().for_each(|Finding { offset, what }| self.wrong(file, Some(*offset), what));
    }

    /// A file that nothing reads; it was not read here, either.
    pub fn unused(&mut self, file: &Path, why: &str) {
        let bytes = std::fs::metadata(file).map_or(0, |found| found.len());
        self.count(bytes);
        self.totals.unused += 1;
        self.line(file, "unused", why, bytes);
    }

    /// A file or folder that cannot be read.
    pub fn unreadable(&mut self, file: &Path, error: &std::io::Error) {
        self.count(0);
        self.totals.damaged += 1;
        self.wrong(file, None, &error.to_string());
    }

    /// Something that should be there and is not.
    pub fn missing(&mut self, path: &Path, why: &str) {
        self.totals.missing += 1;
        self.wrong(path, None, why);
    }

    /// A file or folder that Coronet does not make.
    pub fn unknown(&mut self, path: &Path) {
        self.totals.unknown += 1;
        self.wrong(path, None, "is nothing that Coronet writes here");
    }

    /// The sum of everything under `folder`; begins anew.
    pub fn end_folder(&mut self, folder: &Path) -> Exit {
        let totals = std::mem::take(&mut self.totals);
        let ok = totals.damaged + totals.missing + totals.unknown == 0;
        let folder = folder.display().to_string();
        let line = Line::Folder { folder: folder.clone(), ok, totals };
        self.out.item(&line, || format!("{folder}: {}", totals.text(ok)));
        if ok { Exit::Ok } else { Exit::Data }
    }

    /// Hands the output back, to be finished.
    pub fn into_output(self) -> Output {
        self.out
    }

    fn count(&mut self, bytes: u64) {
        self.totals.files += 1;
        self.totals.bytes += bytes;
    }

    fn line(&mut self, file: &Path, state: &'static str, what: &str, bytes: u64) {
        let file = file.display().to_string();
        let text = format!("{file}: {state}, {what}");
        self.out.item(&Line::File { file, state, what, bytes }, || text);
        self.out.flush(); // a large folder takes long: what is done is seen at once
    }

    fn wrong(&mut self, file: &Path, offset: Option<u64>, what: &str) {
        let name = file.display();
        if self.json {
            let line = Line::Damage { file: name.to_string(), offset, damage: what };
            self.out.item(&line, String::new);
        } else if let Some(offset) = offset {
            eprintln!("coronet: {name} at offset {offset}: {what}");
        } else {
            eprintln!("coronet: {name}: {what}");
        }
    }
}

impl Totals {
    fn text(&self, ok: bool) -> String {
        let Totals { files, bytes, ok: whole, unused, damaged, missing, unknown } = self;
        format!(
            "{}: {files} files, {bytes} bytes: {whole} whole, {unused} unused, {damaged} damaged, \
             {missing} missing, {unknown} unknown",
            if ok { "ok" } else { "NOT ok" }
        )
    }
}

/// What is in a folder, in ascending order of names.
pub fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}
