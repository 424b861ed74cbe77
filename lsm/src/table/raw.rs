//! A table file as bytes in memory, for offline inspection.

use super::TableInfo;
use super::block::{
    BackWalk, Block, BlockWalk, Damage, FrameKind, HEADER, Search, check, checksum, seal,
};
use super::codec::Codec;
use super::filter::Filter;
use super::footer::{BadFooter, Footer, VERSION};
use super::index::{Handle, Index};
use super::reader::decode_meta;
use crate::env::{AlignedBuf, PAGE};
use crate::{Error, Seq, TableUid};
use std::ops::Bound;
use std::path::Path;
use std::rc::Rc;

/// What is around the data blocks.
pub(crate) struct Meta {
    pub info: TableInfo,
    pub index: Index,
    pub version: u32,
    pub index_bytes: u64,
    pub filter_bytes: u64,
    filter: Filter,
    uid: TableUid,
}

impl Meta {
    /// Whether the filter knows the hash of a key or prefix.
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// The prefix of a key that the filter knows; `None`: it knows none of this key.
    pub fn prefix_of<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.get(..self.info.filter_prefix_bytes as usize).filter(|prefix| !prefix.is_empty())
    }

    /// Checks the block whose frame is all of `buf`.
    pub fn open_block(&self, buf: Rc<AlignedBuf>, at: Handle) -> Result<(Block, Codec), Damage> {
        let codec = check(&buf, FrameKind::Data, self.uid, at.offset)?.codec;
        let len = buf.len();
        Block::open(buf, 0, len, self.uid, at.offset).map(|block| (block, codec))
    }
}

/// Reads footer, index and filter of a table file; the error has the offset of what is wrong.
pub(crate) fn open_meta(bytes: &[u8]) -> Result<Meta, (u64, String)> {
    let len = bytes.len() as u64;
    if bytes.len() < 2 * PAGE || !bytes.len().is_multiple_of(PAGE) {
        return Err((0, format!("{len} bytes are no table: cut off, or another kind of file")));
    }
    let page = &bytes[bytes.len() - PAGE..];
    let footer = Footer::decode(page, len).map_err(|bad| match bad {
        BadFooter::Damaged(what) => (len - PAGE as u64, what.to_owned()),
        BadFooter::Version(found) => {
            (len - PAGE as u64 + 8, format!("format version {found}, newest known is {VERSION}"))
        }
    })?;
    // The footer was checked: index and filter lie inside the file.
    let meta = &bytes[footer.index_offset as usize..footer.offset() as usize];
    let (index, filter) = decode_meta(meta, &footer, Path::new("")).map_err(|e| match e {
        Error::Corruption { offset, what, .. } => (offset, what),
        other => (footer.index_offset, other.to_string()),
    })?;
    // A node opens the table all the same: nothing is lost with these bytes.
    let padding = &meta[(footer.filter_end() - footer.index_offset) as usize..];
    if footer.align() == 1 && padding.iter().any(|byte| *byte != 0) {
        return Err((footer.filter_end(), "padding before the footer is not zero".to_owned()));
    }
    let (index_bytes, filter_bytes) = (footer.index_len.into(), footer.filter_len.into());
    let info = footer.info(&index);
    let version = footer.version;
    Ok(Meta { info, index, version, index_bytes, filter_bytes, filter, uid: footer.uid })
}

/// Fills in magic and checksum of a footer, and what must agree with the file's length.
pub(crate) fn seal_footer(file: &mut [u8]) {
    let len = file.len() as u64;
    let page = file.len() - PAGE;
    file[page..page + 8].copy_from_slice(&super::footer::MAGIC);
    file[page + 24..page + 32].copy_from_slice(&len.to_le_bytes());
    let uid = TableUid(super::block::u64_at(file, page + 16).unwrap_or(0));
    let crc = checksum(uid, page as u64, &[&file[page..page + 12], &file[page + 16..]]);
    file[page + 12..page + 16].copy_from_slice(&crc.to_le_bytes());
}

/// The bytes as a data block whose checksum is right: two bytes choose the compression and the
/// number of restarts, the rest is the payload.
pub(crate) fn fuzz_block(bytes: &[u8]) {
    let Some((&[codec, restarts], payload)) = bytes.split_first_chunk() else { return };
    let uid = TableUid(1);
    let codec = Codec::from_byte(codec % 3).unwrap_or_default();
    let mut frame = vec![0; HEADER];
    frame.extend_from_slice(payload);
    let restarts = u32::from(restarts % 8);
    seal(&mut frame, FrameKind::Data, codec, (restarts + 3, restarts), uid, 0);
    let mut buf = AlignedBuf::default();
    buf.extend_from_slice(&frame);
    let len = buf.len();
    let Ok(block) = Block::open(Rc::new(buf), 0, len, uid, 0) else { return };
    let key = &payload[..payload.len().min(4)];
    if let Ok(Search::Found { value, .. }) = block.search(key, Seq(u64::MAX / 2)) {
        assert!(block.slice(value).len() <= block.payload_len());
    }
    let mut walk = BlockWalk::default();
    let mut more = walk.first(block.clone());
    while more == Ok(true) {
        more = walk.advance();
    }
    let _ = walk.seek(block.clone(), key);
    let mut walk = BackWalk::default();
    let mut more = walk.seek(block.clone(), Bound::Unbounded);
    while more == Ok(true) {
        more = walk.advance();
    }
    let _ = walk.seek(block, Bound::Included(key));
}

/// The bytes as an index: two bytes choose how many blocks and pages the footer claims, of a table
/// with padded frames and then of one without.
pub(crate) fn fuzz_index(bytes: &[u8]) {
    let Some((&[count, pages], payload)) = bytes.split_first_chunk() else { return };
    let lens = payload.get(4..).unwrap_or_default().as_chunks::<8>().0;
    let lens = lens.iter().take(count.into()).filter_map(|block| super::block::u32_at(block, 0));
    let packed = lens.map(u64::from).sum();
    for (end, align) in [(u64::from(pages) * PAGE as u64, PAGE as u64), (packed, 1)] {
        if let Ok(index) = Index::decode(payload, count.into(), end, align) {
            let at = index.find(&payload[..payload.len().min(6)]);
            assert!(at <= index.len());
            assert!((0..index.len()).all(|i| index.handle(i).end() <= end));
        }
    }
}

/// The bytes as a filter: one byte chooses how many lines its frame claims.
pub(crate) fn fuzz_filter(bytes: &[u8]) {
    let Some((lines, payload)) = bytes.split_first() else { return };
    if let Ok(filter) = Filter::decode(payload, u32::from(*lines)) {
        let mut again = Vec::new();
        filter.encode(&mut again);
        assert_eq!(again, payload);
        let _ = filter.may_contain(u64::MAX / 3);
    }
}
