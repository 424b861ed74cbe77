//! A table file as bytes in memory, for offline inspection.

use super::TableInfo;
use super::block::{Block, Damage, FrameKind, check};
use super::codec::Codec;
use super::filter::Filter;
use super::footer::{BadFooter, Footer, VERSION};
use super::index::{Handle, Index};
use super::reader::decode_meta;
use crate::env::{AlignedBuf, PAGE};
use crate::{Error, TableUid};
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
    /// Whether the filter knows the hash of a key.
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
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
    let version = super::block::u32_at(page, 8).unwrap_or(VERSION);
    let (index_bytes, filter_bytes) = (footer.index_len.into(), footer.filter_len.into());
    let info = footer.info(&index);
    Ok(Meta { info, index, version, index_bytes, filter_bytes, filter, uid: footer.uid })
}
