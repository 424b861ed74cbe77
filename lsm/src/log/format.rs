//! Bytes of log segments and batches: encoding and checks, no I/O.

use crate::env::{AlignedBuf, PAGE};
use crate::{Error, Result, Seq};
use std::path::Path;

/// Format version of log segments that this release writes, and the newest it reads.
pub const VERSION: u32 = 3;
/// First bytes of a segment that was taken into use.
const SEGMENT_MAGIC: [u8; 8] = *b"CRNTLOG\0";
/// First bytes (after the checksum) of a batch.
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"CRLB");
/// Bytes of the header before a batch's records.
pub const BATCH_HEADER: usize = 64;

/// First page of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Random, new with every use of the file: what a previous use left is never replayed.
    pub uid: u64,
    /// Position of the segment in the log.
    pub generation: u64,
    /// Last sequence number before this segment: shows whether the one before it is complete.
    pub before: Seq,
}

impl SegmentHeader {
    /// The header page.
    pub fn encode(&self) -> AlignedBuf {
        let mut page = AlignedBuf::zeroed(PAGE);
        page[..8].copy_from_slice(&SEGMENT_MAGIC);
        put_u32(&mut page, 8, VERSION);
        put_u64(&mut page, 16, self.uid);
        put_u64(&mut page, 24, self.generation);
        put_u64(&mut page, 32, self.before.0);
        let crc = crc32c::crc32c(&page[16..]);
        put_u32(&mut page, 12, crc);
        page
    }

    /// Reads a header page; `None` when the page holds none (never used, or torn while written).
    pub fn decode(page: &[u8], path: &Path) -> Result<Option<Self>> {
        if page.len() < PAGE || page[..8] != SEGMENT_MAGIC {
            return Ok(None);
        }
        if crc32c::crc32c(&page[16..PAGE]) != get_u32(page, 12) {
            return Ok(None);
        }
        let found = get_u32(page, 8);
        if found == 0 || found > VERSION {
            return Err(Error::UnknownVersion { path: path.to_owned(), found, supported: VERSION });
        }
        Ok(Some(SegmentHeader {
            uid: get_u64(page, 16),
            generation: get_u64(page, 24),
            before: Seq(get_u64(page, 32)),
        }))
    }

    /// Start of the checksum chain of the batches in this segment.
    pub fn chain_seed(&self) -> u32 {
        crc32c::crc32c_append(
            crc32c::crc32c(&self.uid.to_le_bytes()),
            &self.generation.to_le_bytes(),
        )
    }
}

/// Header of one batch of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Bytes of records after the header.
    pub len: u32,
    /// Number of records.
    pub count: u32,
    /// Sequence number of the first record; the others follow one by one.
    pub first: Seq,
    /// Generation of the segment.
    pub generation: u64,
    /// Identity of the segment's use.
    pub uid: u64,
    /// Checksum of the batch before (or the segment's seed).
    pub chain: u32,
    /// Bytes of this segment that were synced when the batch was written: damage below is not
    /// a torn tail but loss of acknowledged data.
    pub synced_to: u64,
    /// When the batch was written: wall clock, microseconds since the Unix epoch. Zero in segments
    /// of versions 1 and 2, which did not say.
    pub written: u64,
    /// Checksum of everything above and of the records.
    pub crc: u32,
}

impl BatchHeader {
    /// Sequence number of the last record.
    pub fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }

    /// Bytes the batch takes in the segment.
    pub fn disk_len(&self) -> u64 {
        (BATCH_HEADER as u64 + u64::from(self.len)).next_multiple_of(PAGE as u64)
    }

    /// Writes the header into the first bytes of `batch`, whose records are in place, pads it to
    /// whole pages and returns its checksum.
    pub fn seal(&self, batch: &mut AlignedBuf) -> u32 {
        debug_assert_eq!(batch.len(), BATCH_HEADER + self.len as usize);
        batch[..BATCH_HEADER].fill(0);
        put_u32(batch, 4, BATCH_MAGIC);
        put_u32(batch, 8, self.len);
        put_u32(batch, 12, self.count);
        put_u64(batch, 16, self.first.0);
        put_u64(batch, 24, self.generation);
        put_u64(batch, 32, self.uid);
        put_u32(batch, 40, self.chain);
        put_u64(batch, 48, self.synced_to);
        put_u64(batch, 56, self.written);
        let crc = crc32c::crc32c(&batch[4..]);
        put_u32(batch, 0, crc);
        batch.pad_to_page();
        crc
    }

    /// What is known of a batch that would follow `last`, the batch with checksum `chain`.
    pub fn following(segment: &SegmentHeader, chain: u32, last: Seq) -> Self {
        let SegmentHeader { uid, generation, .. } = *segment;
        let first = Seq(last.0 + 1);
        let (len, count, synced_to, written, crc) = (0, 1, 0, 0, 0);
        BatchHeader { len, count, first, generation, uid, chain, synced_to, written, crc }
    }

    /// Whether bytes that are no whole batch once were, or began to be, this one: any of the
    /// fields that only it has is there.
    pub fn resembles(&self, bytes: &[u8]) -> bool {
        bytes.len() >= BATCH_HEADER
            && (get_u64(bytes, 16) == self.first.0
                || get_u64(bytes, 24) == self.generation
                || get_u64(bytes, 32) == self.uid
                || get_u32(bytes, 40) == self.chain)
            && bytes[..BATCH_HEADER].iter().any(|byte| *byte != 0)
    }

    /// Identity and generation of the segment that bytes which look like a batch belong to.
    pub fn identity(bytes: &[u8]) -> Option<(u64, u64)> {
        let is_batch = bytes.len() >= BATCH_HEADER && get_u32(bytes, 4) == BATCH_MAGIC;
        is_batch.then(|| (get_u64(bytes, 32), get_u64(bytes, 24)))
    }

    /// Reads a header of the given segment; `None` when the bytes are not one.
    pub fn decode(bytes: &[u8], segment: &SegmentHeader) -> Option<Self> {
        if bytes.len() < BATCH_HEADER || get_u32(bytes, 4) != BATCH_MAGIC {
            return None;
        }
        let header = BatchHeader {
            crc: get_u32(bytes, 0),
            len: get_u32(bytes, 8),
            count: get_u32(bytes, 12),
            first: Seq(get_u64(bytes, 16)),
            generation: get_u64(bytes, 24),
            uid: get_u64(bytes, 32),
            chain: get_u32(bytes, 40),
            synced_to: get_u64(bytes, 48),
            written: get_u64(bytes, 56),
        };
        let ours = header.uid == segment.uid && header.generation == segment.generation;
        let sane =
            header.count > 0 && header.first.0.checked_add(u64::from(header.count)).is_some();
        (ours && sane).then_some(header)
    }

    /// Whether `batch` (header and records) has the checksum the header promises.
    pub fn verify(&self, batch: &[u8]) -> bool {
        batch.len() == BATCH_HEADER + self.len as usize && crc32c::crc32c(&batch[4..]) == self.crc
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment() -> SegmentHeader {
        SegmentHeader { uid: 77, generation: 5, before: Seq(9) }
    }

    fn sealed(records: &[u8], segment: &SegmentHeader) -> (BatchHeader, AlignedBuf) {
        let mut batch = AlignedBuf::with_capacity(0);
        batch.extend_from_slice(&[0xAA; BATCH_HEADER]);
        batch.extend_from_slice(records);
        let mut header = BatchHeader {
            len: records.len() as u32,
            count: 3,
            first: Seq(10),
            generation: segment.generation,
            uid: segment.uid,
            chain: segment.chain_seed(),
            synced_to: 4096,
            written: 1_234_567,
            crc: 0,
        };
        header.crc = header.seal(&mut batch);
        (header, batch)
    }

    #[test]
    fn segment_header_survives_and_refuses() {
        let path = Path::new("000001.log");
        let page = segment().encode();
        assert_eq!(SegmentHeader::decode(&page, path).unwrap(), Some(segment()));
        assert_eq!(SegmentHeader::decode(&[0; PAGE], path).unwrap(), None);
        let mut torn = page.clone();
        torn[30] ^= 1;
        assert_eq!(SegmentHeader::decode(&torn, path).unwrap(), None);
        let mut newer = page;
        put_u32(&mut newer, 8, VERSION + 1);
        assert!(matches!(
            SegmentHeader::decode(&newer, path),
            Err(Error::UnknownVersion { found: 4, .. })
        ));
    }

    #[test]
    fn a_batch_of_another_use_of_the_file_is_not_ours() {
        let (header, batch) = sealed(b"records", &segment());
        assert_eq!(BatchHeader::decode(&batch, &segment()), Some(header));
        assert_eq!(header.last(), Seq(12));
        for other in
            [SegmentHeader { uid: 78, ..segment() }, SegmentHeader { generation: 6, ..segment() }]
        {
            assert_eq!(BatchHeader::decode(&batch, &other), None);
        }
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_seen(
            records in proptest::collection::vec(any::<u8>(), 1..6000),
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
        ) {
            let (header, mut batch) = sealed(&records, &segment());
            let whole = BATCH_HEADER + records.len();
            prop_assert!(header.verify(&batch[..whole]));
            prop_assert_eq!(batch.len() as u64, header.disk_len());
            let at = at.index(whole);
            batch[at] ^= 1 << bit;
            let seen = BatchHeader::decode(&batch, &segment())
                .is_none_or(|h| h.len != header.len || !h.verify(&batch[..whole]));
            prop_assert!(seen, "flip of bit {} at {} went unseen", bit, at);
        }

        #[test]
        fn arbitrary_pages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert!(BatchHeader::decode(&bytes, &segment()).is_none());
            prop_assert!(SegmentHeader::decode(&bytes, Path::new("x")).unwrap().is_none());
        }
    }
}
