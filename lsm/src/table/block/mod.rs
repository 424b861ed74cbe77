//! The frame around every piece of a table (data, index, filter) and the data block inside it.
//!
//! Owns the frame's header and checksum, and [`Block`], a checked data block in memory.
//! Encoding of entries is in `builder` and `entry`, point search in `search`, forward reading in
//! `walk`, backward reading in `back`. Where blocks lie in a file, and file names in errors, are
//! the table's business.

mod back;
pub(super) mod builder;
mod entry;
mod hints;
mod search;
mod walk;

pub(crate) use back::BackWalk;
pub(crate) use hints::Hints;
pub(crate) use search::Search;
pub(crate) use walk::BlockWalk;

use super::codec::{Codec, unpack};
use crate::TableUid;
use crate::env::{AlignedBuf, PAGE};
use crate::prefetch::prefetch;
use std::rc::Rc;

/// Bytes of a frame before its payload.
pub(crate) const HEADER: usize = 20;

/// Why bytes are not what they should be; the table adds file and offset.
pub(crate) type Damage = &'static str;
/// One of so many bytes that a block's memory holds without need are worth a copy of the block.
const WORTH_COPYING: usize = 8;
const SHORT: Damage = "block is shorter than its header";

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Data = 1,
    Index = 2,
    Filter = 3,
}

/// The numbers of a checked frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub payload: usize,
    pub count: u32,
    pub restarts: u32,
    /// How the payload is packed.
    pub codec: Codec,
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// The checksum covers content, table and place, so that a block that landed elsewhere is seen.
pub(super) fn checksum(uid: TableUid, offset: u64, parts: &[&[u8]]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&uid.0.to_le_bytes()), &offset.to_le_bytes());
    parts.iter().fold(seed, |crc, part| crc32c::crc32c_append(crc, part))
}

/// Fills in the header of `frame`, whose payload is complete and packed with `codec`; `counts`
/// are its entries (blocks, lines) and restarts.
pub(crate) fn seal(
    frame: &mut [u8],
    kind: FrameKind,
    codec: Codec,
    counts: (u32, u32),
    uid: TableUid,
    offset: u64,
) {
    let payload = (frame.len() - HEADER) as u32;
    frame[4..8].copy_from_slice(&[kind as u8, codec as u8, 0, 0]);
    frame[8..12].copy_from_slice(&payload.to_le_bytes());
    frame[12..16].copy_from_slice(&counts.0.to_le_bytes());
    frame[16..20].copy_from_slice(&counts.1.to_le_bytes());
    let crc = checksum(uid, offset, &[&frame[4..]]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Checks that `frame` is, in full, the frame that was written for this table at this offset.
pub(crate) fn check(
    frame: &[u8],
    kind: FrameKind,
    uid: TableUid,
    offset: u64,
) -> Result<FrameHeader, Damage> {
    let word = |at| u32_at(frame, at).ok_or(SHORT);
    let (sum, payload) = (word(0)?, word(8)? as usize);
    if frame.len().checked_sub(HEADER).ok_or(SHORT)? != payload {
        return Err("block length differs from the index");
    }
    if sum != checksum(uid, offset, &[&frame[4..]]) {
        return Err("block checksum mismatch");
    }
    header(frame, kind)
}

/// Reads the header of a frame.
fn header(frame: &[u8], kind: FrameKind) -> Result<FrameHeader, Damage> {
    let field = |at| u32_at(frame, at).ok_or(SHORT);
    let (payload, count, restarts) = (field(8)? as usize, field(12)?, field(16)?);
    if frame[4] != kind as u8 || frame[6..8] != [0, 0] {
        return Err("block of an unexpected kind");
    }
    let codec = Codec::from_byte(frame[5]).ok_or("block of an unknown compression")?;
    if codec != Codec::None && kind != FrameKind::Data {
        return Err("index or filter is compressed");
    }
    Ok(FrameHeader { payload, count, restarts, codec })
}

/// A checked data block in memory. A clone shares the memory.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    buf: Rc<AlignedBuf>,
    /// First byte of the entries in `buf`.
    start: u32,
    /// Bytes of entries; the restart offsets follow.
    entries: u32,
    restarts: u32,
    /// Number of entries.
    count: u32,
}

impl Block {
    /// Checks the frame of `len` bytes at `at` in `buf`, which was read from file offset
    /// `offset` of table `uid`.
    pub fn open(
        buf: Rc<AlignedBuf>,
        at: usize,
        len: usize,
        uid: TableUid,
        offset: u64,
    ) -> Result<Block, Damage> {
        let frame = at.checked_add(len).and_then(|end| buf.get(at..end));
        let frame = frame.ok_or("block is cut off")?;
        let header = check(frame, FrameKind::Data, uid, offset)?;
        if header.codec == Codec::None {
            return Self::parse(buf, at + HEADER, header.payload, &header);
        }
        let unpacked = unpack(header.codec, &frame[HEADER..])?;
        let payload = unpacked.len();
        Self::parse(Rc::new(unpacked), 0, payload, &header)
    }

    /// The same block without memory that only what lay around it in the file needs, where that is
    /// a share worth copying the block for.
    pub fn compact(self) -> Block {
        let (start, len) = (self.start as usize, self.payload_len());
        let beside = self.buf.capacity().saturating_sub(len.next_multiple_of(PAGE));
        if beside <= self.buf.capacity() / WORTH_COPYING {
            return self;
        }
        let mut own = AlignedBuf::with_capacity(len);
        own.extend_from_slice(&self.buf[start..start + len]);
        Block { buf: Rc::new(own), start: 0, ..self }
    }

    /// The block of a frame that this process has just sealed: what it holds is not in doubt, and
    /// its checksum is not computed again.
    pub fn just_sealed(frame: &[u8]) -> Result<Block, Damage> {
        let header = header(frame, FrameKind::Data)?;
        if header.codec == Codec::None {
            let buf = Rc::new(AlignedBuf::copy_of(frame));
            return Self::parse(buf, HEADER, header.payload, &header);
        }
        let unpacked = unpack(header.codec, &frame[HEADER..])?;
        let payload = unpacked.len();
        Self::parse(Rc::new(unpacked), 0, payload, &header)
    }

    /// A block whose checked payload lies at `start`, `payload` bytes long.
    fn parse(
        buf: Rc<AlignedBuf>,
        start: usize,
        payload: usize,
        header: &FrameHeader,
    ) -> Result<Block, Damage> {
        let restarts = header.restarts as usize;
        let entries = restarts
            .checked_mul(4)
            .and_then(|bytes| payload.checked_sub(bytes))
            .ok_or("block has more restarts than bytes")?;
        if restarts == 0 || header.count < header.restarts {
            return Err("block has too few restarts or entries");
        }
        let within = "block lies beyond 4 GiB of its buffer";
        let block = Block {
            start: u32::try_from(start).map_err(|_| within)?,
            entries: u32::try_from(entries).map_err(|_| within)?,
            restarts: header.restarts,
            count: header.count,
            buf,
        };
        if !(0..restarts).all(|r| block.restart(r) < entries) || block.restart(0) != 0 {
            return Err("block has a restart outside its entries");
        }
        Ok(block)
    }

    /// The bytes from the first entry to the end of the last.
    fn entries(&self) -> &[u8] {
        let start = self.start as usize;
        &self.buf[start..start + self.entries as usize]
    }

    /// Offset of restart `r` in the entries.
    fn restart(&self, r: usize) -> usize {
        let restarts = self.start as usize + self.entries as usize;
        u32_at(&self.buf, restarts + r * 4).unwrap_or(u32::MAX) as usize
    }

    /// A part of the entries that [`Search`] named.
    pub fn slice(&self, range: (u32, u32)) -> &[u8] {
        &self.entries()[range.0 as usize..range.1 as usize]
    }

    /// Bytes of entries and restarts.
    pub fn payload_len(&self) -> usize {
        self.entries as usize + self.restarts as usize * 4
    }

    /// Asks for what leads to the block's memory.
    pub fn prefetch(&self) {
        prefetch(&*self.buf);
    }

    /// Memory held, if nobody else shares it.
    pub fn held(&self) -> usize {
        self.buf.capacity() + size_of::<AlignedBuf>() + 2 * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests;
