//! Table files: dump, verify, stats.

use std::path::Path;

use coronet_lsm::inspect::{TableReport, check_table};
use coronet_lsm::{Codec, EntryKind};
use serde::Serialize;

use super::{SstCommand, each_file};
use crate::cli::exit::{CliError, Exit};
use crate::cli::render::Encoded;

/// Runs `coronet sst`.
pub fn run(command: &SstCommand) -> Result<Exit, CliError> {
    match command {
        SstCommand::Dump(args) => each_file(args, |_, bytes, out| {
            let report = check_table(bytes, |block, entry| {
                let item = EntryJson {
                    key: Encoded::of(entry.key),
                    seq: entry.seq.0,
                    kind: kind(entry.kind),
                    value: (entry.kind != EntryKind::Delete).then(|| Encoded::of(entry.value)),
                    block,
                };
                out.item(&item, || {
                    let (key, value) = (entry.key.escape_ascii(), entry.value.escape_ascii());
                    format!("{key}\t{}\t{}\t{value}", entry.seq.0, item.kind)
                });
            });
            report.findings
        }),
        SstCommand::Verify(args) => each_file(args, |file, bytes, out| {
            let report = check_table(bytes, |_, _| {});
            let item = Verified::of(file, &report);
            if report.findings.is_empty() {
                out.item(&item, || {
                    format!("{}: ok, {} entries in {} blocks", item.file, item.entries, item.blocks)
                });
            }
            report.findings
        }),
        SstCommand::Stats(args) => each_file(args, |file, bytes, out| {
            let report = check_table(bytes, |_, _| {});
            if let Some(stats) = Stats::of(file, &report) {
                out.item(&stats, || stats.text());
            }
            report.findings
        }),
    }
}

/// The name of an entry's kind.
pub fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Put => "put",
        EntryKind::Delete => "delete",
        EntryKind::PutUntil => "put-until",
    }
}

#[derive(Serialize)]
struct EntryJson {
    key: Encoded,
    seq: u64,
    kind: &'static str,
    value: Option<Encoded>,
    block: u64,
}

#[derive(Serialize)]
struct Verified {
    file: String,
    ok: bool,
    entries: u64,
    blocks: usize,
}

impl Verified {
    fn of(file: &Path, report: &TableReport) -> Self {
        Verified {
            file: file.display().to_string(),
            ok: report.findings.is_empty(),
            entries: report.blocks.iter().map(|block| block.entries).sum(),
            blocks: report.blocks.len(),
        }
    }
}

#[derive(Serialize)]
struct Stats {
    file: String,
    version: u32,
    uid: String,
    file_bytes: u64,
    data_bytes: u64,
    raw_bytes: u64,
    index_bytes: u64,
    filter_bytes: u64,
    filter_prefix_bytes: u32,
    filter_prefixes: u64,
    blocks: usize,
    blocks_none: usize,
    blocks_lz4: usize,
    blocks_zstd: usize,
    entries: u64,
    deletes: u64,
    min_seq: u64,
    max_seq: u64,
    smallest: Encoded,
    largest: Encoded,
}

impl Stats {
    fn of(file: &Path, report: &TableReport) -> Option<Self> {
        let info = report.info.as_ref()?;
        let packed = |codec| report.blocks.iter().filter(|block| block.codec == codec).count();
        Some(Stats {
            file: file.display().to_string(),
            version: report.version,
            uid: format!("{:016x}", info.uid.0),
            file_bytes: info.file_bytes,
            data_bytes: info.data_bytes,
            raw_bytes: info.raw_bytes,
            index_bytes: report.index_bytes,
            filter_bytes: report.filter_bytes,
            filter_prefix_bytes: info.filter_prefix_bytes,
            filter_prefixes: info.filter_prefixes,
            blocks: report.blocks.len(),
            blocks_none: packed(Codec::None),
            blocks_lz4: packed(Codec::Lz4),
            blocks_zstd: packed(Codec::Zstd),
            entries: info.entries,
            deletes: info.deletes,
            min_seq: info.min_seq.0,
            max_seq: info.max_seq.0,
            smallest: Encoded::of(&info.smallest),
            largest: Encoded::of(&info.largest),
        })
    }

    fn text(&self) -> String {
        let per = |bytes: u64, n: u64| bytes as f64 / n.max(1) as f64;
        format!(
            "{}: format {}, table {}\n\
             \x20 {} bytes: data {}, index {}, filter {}\n\
             \x20 {} blocks: {} none, {} lz4, {} zstd; {} bytes unpacked, ratio {:.2}\n\
             \x20 {} entries, {} deletes, {:.1} bytes of file each, {:.1} filter bits each\n\
             \x20 {} prefixes of {} bytes in the filter\n\
             \x20 sequence numbers {} to {}\n\
             \x20 keys {} to {}",
            self.file,
            self.version,
            self.uid,
            self.file_bytes,
            self.data_bytes,
            self.index_bytes,
            self.filter_bytes,
            self.blocks,
            self.blocks_none,
            self.blocks_lz4,
            self.blocks_zstd,
            self.raw_bytes,
            per(self.raw_bytes, self.data_bytes),
            self.entries,
            self.deletes,
            per(self.file_bytes, self.entries),
            per(self.filter_bytes * 8, self.entries),
            self.filter_prefixes,
            self.filter_prefix_bytes,
            self.min_seq,
            self.max_seq,
            self.smallest.shown(),
            self.largest.shown(),
        )
    }
}
