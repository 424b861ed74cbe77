//! An open table: index and filter in memory, data blocks through the cache.

use super::TableInfo;
use super::block::{Block, Damage, FrameHeader, FrameKind, Hints, Search, check};
use super::filter::Filter;
use super::footer::{BadFooter, Footer, VERSION};
use super::index::{Handle, Index};
use crate::cache::{BlockKey, Depth, Reserved, Step};
use crate::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use crate::prefetch::prefetch;
use crate::types::prefix_hash;
use crate::{BlockCache, EntryKind, EntryRef, Error, Millis, Result, Seq, TableUid};
use coronet_probe::{Bug, seeded};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

/// What a look without I/O found.
#[derive(Debug)]
pub enum Lookup {
    /// The newest version that may be seen, put or delete.
    Found(Hit),
    /// The table has no such version.
    Absent,
    /// The answer is in this block or behind it, and the block is not in the cache.
    NeedsBlock(usize),
}

/// A version that a point read found. Keeps its block in memory.
#[derive(Debug, Clone)]
pub struct Hit {
    block: Block,
    value: (u32, u32),
    seq: Seq,
    kind: EntryKind,
}

impl Hit {
    /// When it was written.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Put or delete.
    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    /// The version as an entry of `key`, which was asked for.
    pub(crate) fn entry<'a>(&'a self, key: &'a [u8]) -> EntryRef<'a> {
        EntryRef { key, seq: self.seq, kind: self.kind, value: self.value() }
    }

    /// The value as it is stored, see [`crate::EntryRef::value`].
    pub fn value(&self) -> &[u8] {
        self.block.slice(self.value)
    }

    /// The value for a reader at `now`; `None` when deleted or expired.
    pub fn visible(&self, now: Millis) -> Option<&[u8]> {
        self.visible_at(|| now)
    }

    /// [`Hit::visible`] that looks at the clock only where the time matters.
    pub fn visible_at(&self, now: impl FnOnce() -> Millis) -> Option<&[u8]> {
        self.kind.visible_at(self.value(), now)
    }
}

/// Data blocks that were read together, unchecked.
#[derive(Debug)]
pub(crate) struct Run {
    buf: Rc<AlignedBuf>,
    /// File offset of the first byte of `buf`: not after that of the first block.
    offset: u64,
    /// Numbers of the blocks.
    blocks: Range<usize>,
}

impl Run {
    /// Whether block `i` is among them.
    pub fn has(&self, i: usize) -> bool {
        self.blocks.contains(&i)
    }

    /// Bytes that were read.
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }
}

/// An open, immutable table. Clones of the `Rc` around it keep the file open.
pub struct Table<E: Env> {
    file: E::File,
    path: Rc<Path>,
    info: TableInfo,
    index: Index,
    /// Empty while there is no room for it.
    filter: OnceCell<Filter>,
    /// What index and filter take of the cache's budget.
    reserved: Option<Reserved>,
    /// Blocks known to be damaged.
    lost: RefCell<BTreeSet<usize>>,
    /// Those of them that readers pass over, because their loss is accepted.
    given_up: RefCell<BTreeSet<usize>>,
}

impl<E: Env> std::fmt::Debug for Table<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("path", &self.path).field("info", &self.info).finish()
    }
}

impl<E: Env> Table<E> {
    /// Opens a table and checks footer, index and filter; `uid` is what the manifest says.
    pub async fn open(env: &E, path: &Path, uid: TableUid) -> Result<Table<E>> {
        let file = env.open(path, OpenMode::Read).await;
        let file = file.map_err(|e| Error::io("open", path, &e))?;
        let bytes = file.len().await.map_err(|e| Error::io("read length of", path, &e))?;
        let page = PAGE as u64;
        if bytes < 2 * page || !bytes.is_multiple_of(page) {
            return Err(Error::corruption(path, 0, format!("{bytes} bytes are no table")));
        }
        let tail = read(&file, path, bytes - page..bytes).await?.0;
        let footer = Footer::decode(&tail, bytes).map_err(|bad| match bad {
            BadFooter::Damaged(what) => Error::corruption(path, bytes - page, what),
            BadFooter::Version(found) => {
                Error::UnknownVersion { path: path.to_owned(), found, supported: VERSION }
            }
        })?;
        if footer.uid != uid {
            let what = format!("this is table {:016x}, not {:016x}", footer.uid.0, uid.0);
            return Err(Error::corruption(path, footer.offset(), what));
        }
        // The footer was checked: both lie inside the file, one after the other.
        let (meta, at) = read(&file, path, footer.index_offset..footer.offset()).await?;
        let (index, filter) = decode_meta(&meta[at..], &footer, path)?;
        let info = footer.info(&index);
        let (lost, given_up) = (RefCell::default(), RefCell::default());
        let (path, reserved, filter) = (path.into(), None, OnceCell::from(filter));
        Ok(Table { file, path, info, index, filter, reserved, lost, given_up })
    }

    /// The same table with its memory taken off the cache's budget as long as it is open. Where
    /// there is no room for its filter, the table goes without: every key may be in it.
    pub(crate) fn within(mut self, cache: &Rc<BlockCache>, depth: Depth) -> Self {
        let (index, filter) = (self.index.held(), self.filter_bytes());
        let reserved = Reserved::new(cache.clone(), index, filter, depth);
        if !reserved.has_filter() {
            self.filter.take();
        }
        self.reserved = Some(reserved);
        self
    }

    /// What the table holds.
    pub fn info(&self) -> &TableInfo {
        &self.info
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Memory that index and filter hold, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.index.held() + self.filter_bytes()
    }

    fn filter_bytes(&self) -> usize {
        self.filter.get().map_or(0, Filter::held)
    }

    /// Whether a key with this hash may be in the table. Without a filter every key may.
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.get().is_none_or(|filter| filter.may_contain(hash))
    }

    /// Whether the filter says that no key of the table begins with `prefix`; `None` where it
    /// cannot tell: it is not in memory or knows no prefixes, or only longer ones
    /// ([`TableInfo::filter_prefix_bytes`]).
    pub fn denies_prefix(&self, prefix: &[u8]) -> Option<bool> {
        let known = prefix.get(..self.info.filter_prefix_bytes as usize)?;
        let filter = self.filter.get().filter(|_| !known.is_empty())?;
        let wrongly = seeded(Bug::FilterDeniesPrefix);
        Some(wrongly || !filter.may_contain(prefix_hash(known)))
    }

    /// Reads the filter that [`Table::within`] left out, if there is room for it by now.
    pub(crate) async fn take_filter_in(&self, depth: Depth) -> Result<()> {
        let Some(reserved) = self.reserved.as_ref().filter(|r| r.take_filter_in(depth)) else {
            return Ok(());
        };
        let read = self.read_filter().await;
        let read = read.map(|filter| drop(self.filter.set(filter)));
        if read.is_err() {
            reserved.leave_filter_out();
        }
        read
    }

    async fn read_filter(&self) -> Result<Filter> {
        let (file, path, len) = (&self.file, &self.path, self.info.file_bytes);
        let at = len - PAGE as u64;
        let footer = Footer::decode(&read(file, path, at..len).await?.0, len);
        let footer = footer.map_err(|_| Error::corruption(path, at, "the footer is damaged"))?;
        if footer.uid != self.info.uid {
            return Err(Error::corruption(path, at, "the footer is another table's"));
        }
        let (bytes, at) = read(file, path, footer.filter_offset..footer.offset()).await?;
        decode_filter(&bytes[at..], &footer, path)
    }

    /// Whether `key` lies between the smallest and the largest key.
    pub fn covers(&self, key: &[u8]) -> bool {
        *self.info.smallest <= *key && *key <= *self.info.largest
    }

    /// Point read without I/O: the newest version of `key` with a sequence number of at most
    /// `at`. `hash` is [`crate::key_hash`] of the key; the filter is asked here.
    pub fn get_cached(&self, cache: &BlockCache, key: &[u8], hash: u64, at: Seq) -> Result<Lookup> {
        if self.covers(key) && self.may_contain(hash) {
            self.search_cached(cache, key, hash, at)
        } else {
            Ok(Lookup::Absent)
        }
    }

    /// [`Table::get_cached`] of a key that lies in the table's range and passed its filter.
    pub(crate) fn search_cached(
        &self,
        cache: &BlockCache,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Lookup> {
        let mut i = self.start(key, at);
        while i < self.index.len() {
            // What was given up must not come back from the cache, and go again with it.
            if self.is_given_up(i) {
                return Ok(Lookup::NeedsBlock(i));
            }
            let look = |block: &Block, hints: &Hints| {
                self.seen(i, block, hints.search(block, key, hash, at), key)
            };
            let note = self.index.slot(i);
            let Some(seen) = cache.look(self.block_key(i), note, look) else {
                return Ok(Lookup::NeedsBlock(i));
            };
            match seen? {
                Look::Hit(hit) => return Ok(Lookup::Found(hit)),
                Look::Absent => break,
                Look::Next => i += 1,
            }
        }
        Ok(Lookup::Absent)
    }

    /// Point read like [`Table::get_cached`]; reads blocks through the cache as needed.
    pub async fn get(
        &self,
        cache: &BlockCache,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Option<Hit>> {
        if !(self.covers(key) && self.may_contain(hash)) {
            return Ok(None);
        }
        self.search(cache, key, hash, at).await
    }

    /// [`Table::get`] of a key that lies in the table's range and passed its filter.
    pub(crate) async fn search(
        &self,
        cache: &BlockCache,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Option<Hit>> {
        match self.search_cached(cache, key, hash, at)? {
            Lookup::Found(hit) => Ok(Some(hit)),
            Lookup::Absent => Ok(None),
            Lookup::NeedsBlock(i) => self.search_from(cache, i, key, at).await,
        }
    }

    /// Goes on with a search for `key` that needs block `first` ([`Lookup::NeedsBlock`]).
    pub(crate) async fn search_from(
        &self,
        cache: &BlockCache,
        first: usize,
        key: &[u8],
        at: Seq,
    ) -> Result<Option<Hit>> {
        let mut i = first;
        while i < self.index.len() {
            if self.is_given_up(i) {
                // The versions of one key may go on in the next block.
                if self.index.separator(i) != key {
                    break;
                }
                i += 1;
                continue;
            }
            let cached = if i == first { None } else { self.cached(cache, i) };
            let block = match cached {
                Some(block) => block,
                None => self.block(cache, i).await?,
            };
            match self.seen(i, &block, block.search(key, at), key)? {
                Look::Hit(hit) => return Ok(Some(hit)),
                Look::Absent => break,
                Look::Next => i += 1,
            }
        }
        Ok(None)
    }

    /// The first block to look into; the number of blocks if none can have the key.
    fn start(&self, key: &[u8], at: Seq) -> usize {
        if at >= self.info.min_seq { self.index.find(key) } else { self.index.len() }
    }

    /// First step of looking ahead to a point read: asks for the filter.
    pub(crate) fn prefetch_filter(&self, hash: u64) {
        self.filter.get().iter().for_each(|filter| filter.prefetch(hash));
    }

    /// Second step, for keys that pass the filter: asks for the index.
    pub(crate) fn prefetch_index(&self, key: &[u8]) {
        self.index.prefetch(key);
    }

    /// Third step: asks for the cache's note on the block, which the next steps take.
    pub(crate) fn prefetch_note(&self, key: &[u8]) -> Option<usize> {
        let i = self.index.find(key);
        (i < self.index.len()).then(|| {
            prefetch(self.index.slot(i));
            i
        })
    }

    /// Fourth to sixth step: asks for what the cache has of block `i`, each time one thing
    /// further.
    pub(crate) fn prefetch_block(&self, cache: &BlockCache, step: Step, i: usize, hash: u64) {
        cache.prefetch(step, self.index.slot(i), || self.block_key(i), hash);
    }

    /// What a search in block `i` means for the search in the table.
    fn seen(
        &self,
        i: usize,
        block: &Block,
        found: std::result::Result<Search, Damage>,
        key: &[u8],
    ) -> Result<Look> {
        match found.map_err(|what| self.damage(i, what))? {
            Search::Found { seq, kind, value } => {
                Ok(Look::Hit(Hit { block: block.clone(), value, seq, kind }))
            }
            // The versions of one key may go on in the next block.
            Search::Beyond if self.index.separator(i) == key => Ok(Look::Next),
            Search::Beyond | Search::Absent => Ok(Look::Absent),
        }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn damage(&self, i: usize, what: Damage) -> Error {
        Error::corruption(&self.path, self.index.offset(i), what)
    }

    fn block_key(&self, i: usize) -> BlockKey {
        BlockKey { uid: self.info.uid, offset: self.index.offset(i) }
    }

    /// Block `i` if the cache has it.
    pub(crate) fn cached(&self, cache: &BlockCache, i: usize) -> Option<Block> {
        cache.get(self.block_key(i), self.index.slot(i))
    }

    /// Whether the cache has block `i`.
    pub(crate) fn is_cached(&self, cache: &BlockCache, i: usize) -> bool {
        cache.holds(self.block_key(i), self.index.slot(i))
    }

    /// Tells the cache that nobody will ask for blocks of this table any more.
    pub(crate) fn leave(&self, cache: &BlockCache) {
        cache.forget((0..self.index.len()).map(|i| self.block_key(i)));
    }

    /// Block `i`, which was just looked for in the cache in vain, through the cache.
    pub(crate) async fn block(&self, cache: &BlockCache, i: usize) -> Result<Block> {
        cache.get_or_load(self.block_key(i), self.index.slot(i), || self.load(cache, i)).await
    }

    async fn load(&self, cache: &BlockCache, i: usize) -> Result<Block> {
        let handle = self.index.handle(i);
        let units = units(&self.file, &(handle.offset..handle.end()));
        cache.count_loaded(units.end - units.start);
        let (buf, at) = read(&self.file, &self.path, handle.offset..handle.end()).await?;
        Block::open(Rc::new(buf), at, handle.len, self.info.uid, handle.offset)
            .map(Block::compact)
            .map_err(|what| self.damage(i, what))
    }

    /// Marks the blocks at these offsets as damaged: compactions pass over them.
    pub(crate) fn set_lost(&self, offsets: impl Iterator<Item = u64>) {
        let offsets: BTreeSet<u64> = offsets.collect();
        if !offsets.is_empty() {
            let blocks = 0..self.index.len();
            let lost = blocks.filter(|i| offsets.contains(&self.index.offset(*i)));
            self.lost.borrow_mut().extend(lost);
        }
    }

    /// Whether block `i` is known to be damaged.
    pub(crate) fn is_lost(&self, i: usize) -> bool {
        self.lost.borrow().contains(&i)
    }

    /// Readers pass over what is known to be damaged from now on: its loss is accepted.
    pub(crate) fn give_up(&self) {
        self.given_up.borrow_mut().extend(self.lost.borrow().iter());
    }

    /// Whether readers pass over block `i`.
    pub(crate) fn is_given_up(&self, i: usize) -> bool {
        self.given_up.borrow().contains(&i)
    }

    /// Whether any block is known to be damaged.
    pub(crate) fn has_lost(&self) -> bool {
        !self.lost.borrow().is_empty()
    }

    /// These blocks, at least one, in one read, unchecked.
    pub(crate) async fn read_run(&self, blocks: Range<usize>) -> Result<Run> {
        let start = self.index.offset(blocks.start);
        let end = self.index.handle(blocks.end - 1).end();
        let (buf, at) = read(&self.file, &self.path, start..end).await?;
        Ok(Run { buf: Rc::new(buf), offset: start - at as u64, blocks })
    }

    /// Reads the end of the file and looks at nothing: whether the disk gives anything of it.
    pub(crate) async fn answers(&self) -> Result<()> {
        let end = self.info.file_bytes;
        read(&self.file, &self.path, end - PAGE as u64..end).await.map(drop)
    }

    /// Checks block `i`, which was read with `run`.
    pub(crate) fn open_block(&self, run: &Run, i: usize) -> Result<Block> {
        let Handle { offset, len } = self.index.handle(i);
        let at = (offset - run.offset) as usize;
        Block::open(run.buf.clone(), at, len, self.info.uid, offset)
            .map_err(|what| self.damage(i, what))
    }
}

enum Look {
    Hit(Hit),
    Absent,
    Next,
}

pub(super) fn decode_meta(meta: &[u8], footer: &Footer, path: &Path) -> Result<(Index, Filter)> {
    let bad = |offset| move |what: Damage| Error::corruption(path, offset, what);
    let (index_at, filter_at) = (footer.index_offset, footer.filter_offset);

    let frame = &meta[..footer.index_len as usize];
    let header = check(frame, FrameKind::Index, footer.uid, index_at).map_err(bad(index_at))?;
    let payload = &frame[frame.len() - header.payload..];
    let index = Index::decode(payload, footer.blocks, index_at, footer.align());
    let index = index.map_err(bad(index_at))?;
    if header.count != footer.blocks {
        return Err(bad(index_at)("index and footer count different blocks"));
    }

    let filter = decode_filter(&meta[(filter_at - index_at) as usize..], footer, path)?;
    Ok((index, filter))
}

/// The filter whose frame `bytes` begin with.
fn decode_filter(bytes: &[u8], footer: &Footer, path: &Path) -> Result<Filter> {
    let at = footer.filter_offset;
    let bad = |what: Damage| Error::corruption(path, at, what);
    let frame = &bytes[..footer.filter_len as usize];
    let FrameHeader { payload, count, .. } =
        check(frame, FrameKind::Filter, footer.uid, at).map_err(bad)?;
    Filter::decode(&frame[frame.len() - payload..], count).map_err(bad)
}

/// The bytes of the file from `range`, and those around it that share their units of reading;
/// where the range begins in the buffer.
async fn read<F: File>(file: &F, path: &Path, range: Range<u64>) -> Result<(AlignedBuf, usize)> {
    let units = units(file, &range);
    let len = (units.end - units.start) as usize;
    let buf = file.read_at(units.start, len).await.map_err(|e| Error::io("read", path, &e))?;
    if buf.len() != len {
        return Err(Error::corruption(path, range.start, "the file ends too early"));
    }
    Ok((buf, (range.start - units.start) as usize))
}

/// The units of reading that a range of the file touches.
fn units<F: File>(file: &F, range: &Range<u64>) -> Range<u64> {
    let unit = file.read_unit() as u64;
    range.start - range.start % unit..range.end.next_multiple_of(unit)
}
