//! A table file, block by block.

use super::Finding;
use crate::env::AlignedBuf;
use crate::table::raw::{Meta, open_meta};
use crate::table::{BlockWalk, Codec, TableInfo};
use crate::types::prefix_hash;
use crate::{EntryKind, EntryRef, Seq, key_hash};
use std::rc::Rc;

/// One data block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockReport {
    /// File offset.
    pub offset: u64,
    /// Length on disk, bytes.
    pub disk_bytes: usize,
    /// Length of its content, unpacked, bytes.
    pub raw_bytes: usize,
    /// How it is packed.
    pub codec: Codec,
    /// Entries in it.
    pub entries: u64,
}

/// What a table file holds.
#[derive(Debug, Clone, Default)]
pub struct TableReport {
    /// What footer and index say; `None` when they cannot be read.
    pub info: Option<TableInfo>,
    /// Format version of the footer.
    pub version: u32,
    /// Bytes of index and filter.
    pub index_bytes: u64,
    /// Bytes of the filter.
    pub filter_bytes: u64,
    /// Every block that can be read.
    pub blocks: Vec<BlockReport>,
    /// Everything wrong.
    pub findings: Vec<Finding>,
}

/// Sums over the entries, to compare with the footer.
#[derive(Default)]
struct Sums {
    entries: u64,
    deletes: u64,
    /// Different prefixes that the filter knows.
    prefixes: u64,
    last: Option<(Vec<u8>, Seq)>,
}

/// Reads a whole table file; gives every readable entry, with the offset of its block, to
/// `visit`. Damage in one block does not hide the others.
pub fn check_table(bytes: &[u8], mut visit: impl FnMut(u64, EntryRef<'_>)) -> TableReport {
    let mut report = TableReport::default();
    let meta = match open_meta(bytes) {
        Ok(meta) => meta,
        Err((offset, what)) => {
            report.findings.push(Finding::new(offset, what));
            return report;
        }
    };
    report.info = Some(meta.info.clone());
    report.version = meta.version;
    (report.index_bytes, report.filter_bytes) = (meta.index_bytes, meta.filter_bytes);
    let mut sums = Sums::default();
    for i in 0..meta.index.len() {
        let offset = meta.index.offset(i);
        match check_block(bytes, &meta, i, &mut sums, &mut |entry| visit(offset, entry)) {
            Ok(block) => report.blocks.push(block),
            Err(what) => report.findings.push(Finding::new(offset, what)),
        }
    }
    let counted = (sums.entries, sums.deletes);
    if report.findings.is_empty() && counted != (meta.info.entries, meta.info.deletes) {
        let what = format!(
            "footer counts {} entries and {} deletes, the blocks hold {} and {}",
            meta.info.entries, meta.info.deletes, sums.entries, sums.deletes
        );
        report.findings.push(Finding::new(meta.info.file_bytes, what));
    }
    if report.findings.is_empty() && sums.prefixes != meta.info.filter_prefixes {
        let what = format!(
            "footer counts {} prefixes of keys, the blocks hold {}",
            meta.info.filter_prefixes, sums.prefixes
        );
        report.findings.push(Finding::new(meta.info.file_bytes, what));
    }
    report
}

fn check_block(
    bytes: &[u8],
    meta: &Meta,
    i: usize,
    sums: &mut Sums,
    visit: &mut impl FnMut(EntryRef<'_>),
) -> Result<BlockReport, String> {
    let handle = meta.index.handle(i);
    let start = handle.offset as usize;
    let frame = bytes.get(start..start + handle.len).ok_or("the file ends inside the block")?;
    let mut buf = AlignedBuf::default();
    buf.extend_from_slice(frame);
    let (block, codec) = meta.open_block(Rc::new(buf), handle)?;
    let raw_bytes = block.payload_len();
    let mut walk = BlockWalk::default();
    let mut entries = 0;
    let mut more = walk.first(block)?;
    while more {
        if let Some(entry) = walk.entry() {
            check_entry(meta, i, &entry, sums)?;
            visit(entry);
            entries += 1;
        }
        more = walk.advance()?;
    }
    Ok(BlockReport { offset: handle.offset, disk_bytes: handle.len, raw_bytes, codec, entries })
}

fn check_entry(meta: &Meta, i: usize, entry: &EntryRef<'_>, sums: &mut Sums) -> Result<(), String> {
    let key = entry.key.escape_ascii();
    if let Some((last, seq)) = &sums.last
        && (last.as_slice(), std::cmp::Reverse(*seq)) >= (entry.key, std::cmp::Reverse(entry.seq))
    {
        return Err(format!("key {key} is out of order"));
    }
    let before = i.checked_sub(1).map_or(meta.index.smallest(), |i| meta.index.separator(i));
    if entry.key < before || entry.key > meta.index.separator(i) {
        return Err(format!("key {key} is outside what the index says of its block"));
    }
    if !meta.may_contain(key_hash(entry.key)) {
        return Err(format!("the filter denies key {key}"));
    }
    let prefix = meta.prefix_of(entry.key);
    if !prefix.is_none_or(|prefix| meta.may_contain(prefix_hash(prefix))) {
        return Err(format!("the filter denies the prefix of key {key}"));
    }
    if entry.seq < meta.info.min_seq || entry.seq > meta.info.max_seq {
        return Err(format!("key {key} has a sequence number outside what the footer says"));
    }
    let before = sums.last.as_ref().and_then(|(last, _)| meta.prefix_of(last));
    sums.prefixes += u64::from(prefix.is_some() && prefix != before);
    sums.entries += 1;
    sums.deletes += u64::from(entry.kind == EntryKind::Delete);
    sums.last = Some((entry.key.to_vec(), entry.seq));
    Ok(())
}
