//! Writes a table file as a stream: data blocks as they fill, then index, filter and footer.

use super::TableInfo;
use super::block::builder::BlockBuilder;
use super::block::{Block, FrameKind, HEADER, seal};
use super::codec::{Codec, Packer};
use super::filter::{Filter, Hashes};
use super::footer::{Footer, VERSION};
use super::index::{IndexBuilder, separator};
use crate::cache::{BlockCache, BlockKey};
use crate::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use crate::{EntryKind, EntryRef, Error, Options, Result, Seq, TableUid};
use coronet_probe::{Bug, seeded};
use std::path::PathBuf;
use std::rc::Rc;

/// Bytes collected before they are written, unless [`TableWriter::in_pieces`] says otherwise.
const CHUNK: usize = 512 << 10;
/// Room in a chunk beyond that, for the block that fills it.
const CHUNK_SLACK: usize = 64 << 10;
/// Work between two yields, bytes of keys and values.
const COOP_BYTES: usize = 16 << 10;
/// Hashes entered into the filter between two yields.
const COOP_HASHES: usize = 4 << 10;
/// A block on disk unpacks to at most about this many times the block size.
const MAX_EXPANSION: usize = 8;
/// Largest key plus value; keeps every length of the format within 32 bits.
const MAX_ENTRY: usize = 1 << 30;

/// Writes one table. Entries come in ascending order of key, versions of a key newest first.
/// A writer that is dropped, or that returned an error, leaves a file without a footer: remove
/// it.
pub struct TableWriter<E: Env> {
    env: E,
    file: E::File,
    path: PathBuf,
    uid: TableUid,
    block_bytes: usize,
    bits_per_key: u32,
    block: BlockBuilder,
    packer: Packer,
    /// Payload of a block, bytes, that is expected to fill `block_bytes` on disk.
    block_target: usize,
    raw_bytes: u64,
    index: IndexBuilder,
    hashes: Hashes,
    /// Finished blocks that are not written yet; they belong at `written`.
    chunk: AlignedBuf,
    /// Bytes that are written at once.
    piece_bytes: usize,
    /// Where blocks go, too, whose entries came from memory.
    warms: Option<Rc<BlockCache>>,
    /// Bytes of the current block that came from memory.
    warm_bytes: usize,
    written: u64,
    since_coop: usize,
    smallest: Option<Box<[u8]>>,
    last: Vec<u8>,
    last_seq: Seq,
    entries: u64,
    deletes: u64,
    min_seq: Seq,
    max_seq: Seq,
}

impl<E: Env> TableWriter<E> {
    /// Creates the file; fails when the name is taken.
    pub async fn create(env: E, path: PathBuf, uid: TableUid, options: &Options) -> Result<Self> {
        let file = env.open(&path, OpenMode::CreateNew).await;
        let file = file.map_err(|e| Error::io("create", &path, &e))?;
        Ok(TableWriter {
            env,
            file,
            path,
            uid,
            block_bytes: options.block_bytes,
            bits_per_key: options.filter_bits_per_key,
            block: BlockBuilder::new(),
            packer: Packer::new(options.compression[0]),
            block_target: first_target(options.compression[0], options.block_bytes),
            raw_bytes: 0,
            index: IndexBuilder::default(),
            hashes: Hashes::new(options.filter_prefix_bytes),
            chunk: AlignedBuf::default(),
            piece_bytes: CHUNK,
            warms: None,
            warm_bytes: 0,
            written: 0,
            since_coop: 0,
            smallest: None,
            last: Vec::new(),
            last_seq: Seq(0),
            entries: 0,
            deletes: 0,
            min_seq: Seq(u64::MAX),
            max_seq: Seq(0),
        })
    }

    /// The same writer with another compression than that of level 0.
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.block_target = first_target(codec, self.block_bytes);
        self.packer = Packer::new(codec);
        self
    }

    /// The same writer, which puts blocks into the cache most of whose entries came from memory
    /// ([`TableWriter::came_from_memory`]): what was at hand stays at hand.
    pub fn warming(mut self, cache: Rc<BlockCache>) -> Self {
        self.warms = Some(cache);
        self
    }

    /// The same writer, which writes when so many bytes have come together.
    pub fn in_pieces(mut self, bytes: usize) -> Self {
        self.piece_bytes = bytes;
        self
    }

    /// So many bytes of what was just pushed were in memory before.
    pub fn came_from_memory(&mut self, bytes: usize) {
        self.warm_bytes += bytes;
    }

    /// Adds an entry; writes and yields when due.
    ///
    /// # Panics
    /// When the entry does not sort after the one before.
    pub async fn add(&mut self, entry: EntryRef<'_>) -> Result<()> {
        if self.push(entry)? {
            self.drain().await?;
        }
        Ok(())
    }

    /// The part of [`TableWriter::add`] that needs no waiting, so that `entry` may be borrowed
    /// from something that must not stay borrowed. When it returns true, call
    /// [`TableWriter::drain`] before the next entry.
    ///
    /// # Panics
    /// When the entry does not sort after the one before.
    pub fn push(&mut self, entry: EntryRef<'_>) -> Result<bool> {
        let size = entry.key.len().saturating_add(entry.value.len());
        if size > MAX_ENTRY {
            return Err(Error::TooLarge { what: "entry", size, limit: MAX_ENTRY });
        }
        let new_key = self.smallest.is_none() || self.last != entry.key;
        if new_key {
            assert!(self.smallest.is_none() || *self.last < *entry.key, "keys out of order");
        } else {
            assert!(entry.seq < self.last_seq, "versions of a key out of order");
        }
        if !self.block.is_empty() && self.block.size_with(entry) > self.block_target {
            self.close_block(Some(entry.key))?;
        }
        self.block.add(entry);
        if new_key {
            self.hashes.add(&self.last, entry.key);
            self.last.clear();
            self.last.extend_from_slice(entry.key);
            self.smallest.get_or_insert_with(|| entry.key.into());
        }
        self.last_seq = entry.seq;
        self.entries += 1;
        self.deletes += u64::from(entry.kind == EntryKind::Delete);
        self.min_seq = self.min_seq.min(entry.seq);
        self.max_seq = self.max_seq.max(entry.seq);
        self.since_coop += size + size_of::<EntryRef<'_>>();
        Ok(self.since_coop >= COOP_BYTES || self.chunk.len() >= self.piece_bytes)
    }

    /// Writes what has come together and lets others run.
    pub async fn drain(&mut self) -> Result<()> {
        self.since_coop = 0;
        if self.chunk.len() >= self.piece_bytes {
            self.write_chunk().await?;
        }
        self.env.coop().await;
        Ok(())
    }

    /// Size of the file if it were finished now, up to a few pages.
    pub fn bytes(&self) -> u64 {
        let filter = self.hashes.all().len() as u64 * u64::from(self.bits_per_key) / 8;
        let rest = self.block.bytes() + self.index.bytes() + PAGE;
        self.offset() + rest as u64 + filter
    }

    /// Number of entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Where the next block will lie.
    fn offset(&self) -> u64 {
        self.written + self.chunk.len() as u64
    }

    fn close_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let offset = self.offset();
        let (raw, packs) = (self.block.bytes(), self.packer.codec() != Codec::None);
        let frame = self.block.finish(&mut self.packer, self.uid, offset);
        self.raw_bytes += raw as u64;
        if packs {
            self.block_target = next_target(self.block_target, self.block_bytes, raw, frame.len());
        }
        let end = next.map_or(&*self.last, |next| separator(&self.last, next));
        let index_bytes = self.index.bytes() + end.len();
        if index_bytes > MAX_ENTRY {
            return Err(Error::TooLarge { what: "index", size: index_bytes, limit: MAX_ENTRY });
        }
        self.index.add(end, frame.len());
        let warm_bytes = std::mem::take(&mut self.warm_bytes);
        let warms = self.warms.as_ref().filter(|_| warm_bytes * 2 > raw);
        if let Some(cache) = warms.filter(|cache| cache.admits_warm()) {
            let block = Block::just_sealed(frame);
            let block = block.map_err(|what| Error::corruption(&self.path, offset, what))?;
            cache.warm(BlockKey { uid: self.uid, offset }, &block);
        }
        append(&mut self.chunk, self.piece_bytes, frame);
        self.block.clear();
        Ok(())
    }

    /// Writes the whole pages of the chunk; what is left begins the next one.
    async fn write_chunk(&mut self) -> Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let whole = chunk.len() / PAGE * PAGE;
        let rest = chunk[whole..].to_vec();
        chunk.truncate(whole);
        let (result, mut chunk) = self.file.write_at(self.written, chunk).await;
        result.map_err(|e| Error::io("write", &self.path, &e))?;
        self.written += whole as u64;
        if chunk.capacity() <= 4 * self.piece_bytes {
            chunk.clear();
            self.chunk = chunk;
        }
        append(&mut self.chunk, self.piece_bytes, &rest);
        Ok(())
    }

    /// Writes the rest and syncs the file. The folder is not synced.
    ///
    /// # Panics
    /// When there is no entry.
    pub async fn finish(mut self) -> Result<TableInfo> {
        assert!(self.entries > 0, "a table has at least one entry");
        self.close_block(None)?;
        let smallest = self.smallest.take().unwrap_or_default();

        let index_offset = self.offset();
        let mut frame = vec![0; HEADER];
        self.index.encode(&smallest, &mut frame);
        let blocks = (self.index.blocks(), 0);
        seal(&mut frame, FrameKind::Index, Codec::None, blocks, self.uid, index_offset);
        append(&mut self.chunk, self.piece_bytes, &frame);
        let index_len = frame.len() as u32;
        self.write_chunk().await?;

        let filter = self.build_filter().await;
        let filter_offset = self.offset();
        frame.truncate(HEADER);
        filter.encode(&mut frame);
        let lines = (filter.lines(), 0);
        seal(&mut frame, FrameKind::Filter, Codec::None, lines, self.uid, filter_offset);
        append(&mut self.chunk, self.piece_bytes, &frame);
        self.chunk.pad_to_page();

        let footer = Footer {
            version: VERSION,
            uid: self.uid,
            file_bytes: self.offset() + PAGE as u64,
            index_offset,
            index_len,
            filter_offset,
            filter_len: frame.len() as u32,
            blocks: self.index.blocks(),
            entries: self.entries,
            deletes: self.deletes,
            min_seq: self.min_seq,
            max_seq: self.max_seq,
            raw_bytes: self.raw_bytes,
            prefix_bytes: self.hashes.prefix_bytes(),
            prefixes: self.hashes.prefixes(),
        };
        self.chunk.extend_from_slice(&footer.encode());
        self.write_chunk().await?;
        if !seeded(Bug::TableNotSynced) {
            self.file.sync().await.map_err(|e| Error::io("sync", &self.path, &e))?;
        }
        Ok(TableInfo {
            uid: self.uid,
            file_bytes: footer.file_bytes,
            smallest,
            largest: self.last.into(),
            entries: self.entries,
            deletes: self.deletes,
            min_seq: self.min_seq,
            max_seq: self.max_seq,
            data_bytes: index_offset,
            raw_bytes: self.raw_bytes,
            filter_prefix_bytes: footer.prefix_bytes,
            filter_prefixes: footer.prefixes,
        })
    }

    async fn build_filter(&self) -> Filter {
        let hashes = self.hashes.all();
        let mut filter = Filter::with_capacity(hashes.len(), self.bits_per_key);
        for hashes in hashes.chunks(COOP_HASHES) {
            hashes.iter().for_each(|hash| filter.insert(*hash));
            self.env.coop().await;
        }
        filter
    }
}

/// How much to put into the first block: what is packed is expected to shrink to half.
fn first_target(codec: Codec, disk: usize) -> usize {
    if codec == Codec::None { disk } else { disk * 2 }
}

/// How much to put into the next block, so that packed it fills `disk` bytes.
fn next_target(target: usize, disk: usize, raw: usize, packed: usize) -> usize {
    let wanted = disk * raw / packed.max(1);
    let smoothed = (target * 3 + wanted) / 4;
    smoothed.clamp(disk, disk * MAX_EXPANSION)
}

/// Adds to a chunk that is to be written from `piece_bytes` on.
fn append(chunk: &mut AlignedBuf, piece_bytes: usize, frame: &[u8]) {
    if chunk.capacity() == 0 {
        chunk.reserve(piece_bytes + CHUNK_SLACK);
    }
    chunk.extend_from_slice(frame);
}
