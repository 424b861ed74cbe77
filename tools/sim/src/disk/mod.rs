//! A simulated disk: files and folders that remember what was synced.
//!
//! Owns bytes, names, faults and what a crash leaves. Owns no time: the environment asks for a
//! latency and calls back when it has passed.

mod faults;
mod inode;
mod names;

pub(crate) use faults::Op;
pub use faults::{Faults, Latency};
pub use inode::SECTOR;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coronet_lsm::env::{AlignedBuf, PAGE};
use xxhash_rust::xxh3::xxh3_64;

use crate::rng::Rng;
use crate::trace::Tag;
use inode::Inode;
use names::{Names, Node};

/// Counters of a disk since its creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Completed reads.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Most reads that were under way at one moment since [`Disk::watch_reads`].
    pub most_reads_at_once: u64,
    /// Completed writes.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Completed syncs of files.
    pub syncs: u64,
    /// Completed syncs of folders.
    pub dir_syncs: u64,
    /// Injected faults, and refusals because the disk was full.
    pub faults: u64,
}

/// A copy of everything on a disk, to be restored any number of times.
#[derive(Clone)]
pub struct DiskImage {
    names: Names,
    inodes: BTreeMap<u64, Inode>,
}

struct Inflight {
    ino: u64,
    offset: u64,
    buf: AlignedBuf,
}

/// Where a sync of a folder stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirSyncPoint {
    dir: u64,
    upto: u64,
}

struct State {
    names: Names,
    inodes: BTreeMap<u64, Inode>,
    inflight: BTreeMap<u64, Inflight>,
    next: u64,
    rng: Rng,
    faults: Faults,
    latency: Latency,
    stats: DiskStats,
    /// Reads under way.
    reading: u64,
    notes: Vec<(Tag, u64, u64)>,
}

/// One node's disk. Survives the node's crashes.
pub struct Disk {
    state: RefCell<State>,
    read_unit: usize,
}

fn injected(what: &str, path: &Path) -> io::Error {
    io::Error::other(format!("injected {what} error in {}", path.display()))
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl State {
    fn inode(&mut self, ino: u64) -> &mut Inode {
        self.inodes.entry(ino).or_default()
    }

    fn issue(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Draws whether a fault hits an operation on `path`.
    fn fault(&mut self, path: &Path, pick: impl Fn(&Faults) -> u32, kind: u64) -> bool {
        let hits = match &self.faults.only {
            Some(part) => path.to_string_lossy().contains(part.as_str()),
            None => true,
        };
        let hit = hits && self.rng.chance(pick(&self.faults));
        if hit {
            self.stats.faults += 1;
            self.notes.push((Tag::Fault, kind, 0));
        }
        hit
    }

    fn used(&self) -> u64 {
        let named = self.names.named();
        let live = self.inodes.iter().filter(|(ino, file)| file.open > 0 || named.contains(ino));
        live.map(|(_, file)| file.len() as u64).sum()
    }

    /// Whether the file may grow to `len`.
    fn check_space(&mut self, ino: u64, len: u64) -> io::Result<()> {
        let Some(capacity) = self.faults.capacity else { return Ok(()) };
        let growth = len.saturating_sub(self.inode(ino).len() as u64);
        if growth > 0 && self.used() + growth > capacity {
            self.stats.faults += 1;
            self.notes.push((Tag::Fault, 9, ino));
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Frees files that no name, handle or write under way can reach any more.
    fn collect(&mut self) {
        let reachable = self.names.reachable();
        let State { inodes, inflight, .. } = self;
        inodes.retain(|ino, file| {
            file.open > 0
                || reachable.contains(ino)
                || inflight.values().any(|write| write.ino == *ino)
        });
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.resolve(path)? {
            Node::File(ino) => Ok(ino),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
}

/// What tests do with a disk.
impl Disk {
    pub(crate) fn new(rng: Rng, read_unit: usize) -> Self {
        Disk {
            read_unit,
            state: RefCell::new(State {
                names: Names::new(),
                inodes: BTreeMap::new(),
                inflight: BTreeMap::new(),
                next: names::ROOT,
                rng,
                faults: Faults::none(),
                latency: Latency::default(),
                stats: DiskStats::default(),
                reading: 0,
                notes: Vec::new(),
            }),
        }
    }

    /// Switches faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }

    /// The faults that are switched on.
    pub fn faults(&self) -> Faults {
        self.state.borrow().faults.clone()
    }

    /// Sets how long operations take from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.state.borrow_mut().latency = latency;
    }

    /// Counters since the creation of the disk.
    pub fn stats(&self) -> DiskStats {
        self.state.borrow().stats
    }

    /// Forgets how many reads were under way at one moment in the past.
    pub fn watch_reads(&self) {
        let state = &mut *self.state.borrow_mut();
        state.stats.most_reads_at_once = state.reading;
    }

    /// Bytes that files with a name or a handle occupy.
    pub fn used(&self) -> u64 {
        self.state.borrow().used()
    }

    /// Every file, sorted by path.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.borrow().names.files().into_iter().map(|(path, _)| path).collect()
    }

    /// The bytes of a file as a reader would see them.
    pub fn read_raw(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.borrow();
        let ino = state.file(path)?;
        Ok(state.inodes.get(&ino).map(|file| file.content().to_vec()).unwrap_or_default())
    }

    /// Replaces the bytes of an existing file, durably and unseen by the node.
    pub fn write_raw(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let ino = state.file(path)?;
        state.inode(ino).overwrite(bytes);
        Ok(())
    }

    /// Inverts the bits of `mask` in one stored byte; no effect beyond the file's end.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let ino = state.file(path)?;
        state.inode(ino).flip(to_usize(offset), mask);
        Ok(())
    }

    /// Makes the sector with this byte unreadable, until it is written again or mended; crashes
    /// change nothing about it.
    pub fn break_sector(&self, path: &Path, offset: u64) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let ino = state.file(path)?;
        state.inode(ino).break_sector(to_usize(offset));
        Ok(())
    }

    /// Lets every sector be read again.
    pub fn mend(&self) {
        self.state.borrow_mut().inodes.values_mut().for_each(Inode::mend);
    }

    /// Removes every file but these, durably: a fresh disk that was given a few files of the old
    /// one. The node must not be running.
    pub fn keep_only(&self, kept: &[&Path]) {
        let state = &mut *self.state.borrow_mut();
        for (path, _) in state.names.files() {
            let folder = path.parent().and_then(|parent| state.names.folder(parent).ok());
            if !kept.contains(&path.as_path()) && state.names.remove_file(&path).is_ok() {
                let upto = state.names.ops();
                folder.into_iter().for_each(|folder| state.names.sync(folder, upto));
            }
        }
        state.collect();
    }

    /// A copy of everything on the disk.
    pub fn image(&self) -> DiskImage {
        let state = self.state.borrow();
        DiskImage { names: state.names.clone(), inodes: state.inodes.clone() }
    }

    /// Puts an image back. The node must not be running: its open files are gone.
    pub fn restore(&self, image: &DiskImage) {
        let mut state = self.state.borrow_mut();
        state.names = image.names.clone();
        state.inodes = image.inodes.clone();
        state.inflight.clear();
        state.inodes.values_mut().for_each(|file| file.open = 0);
        state.collect();
    }
}

/// What the environment does with a disk.
impl Disk {
    /// What offsets and lengths of reads are multiples of, bytes.
    pub(crate) fn read_unit(&self) -> usize {
        self.read_unit
    }

    pub(crate) fn draw_latency(&self, op: Op) -> Duration {
        let state = &mut *self.state.borrow_mut();
        state.latency.draw(op, &mut state.rng)
    }

    pub(crate) fn drain_notes(&self) -> Vec<(Tag, u64, u64)> {
        std::mem::take(&mut self.state.borrow_mut().notes)
    }

    pub(crate) fn open(&self, path: &Path, create: bool) -> io::Result<u64> {
        let mut state = self.state.borrow_mut();
        let ino = if create {
            let ino = state.issue();
            state.names.add_file(path, ino)?;
            ino
        } else {
            state.file(path)?
        };
        state.inode(ino).open += 1;
        Ok(ino)
    }

    pub(crate) fn close(&self, ino: u64) {
        let mut state = self.state.borrow_mut();
        let file = state.inode(ino);
        file.open = file.open.saturating_sub(1);
        if file.open == 0 {
            state.collect();
        }
    }

    pub(crate) fn len(&self, ino: u64) -> u64 {
        self.state.borrow_mut().inode(ino).len() as u64
    }

    pub(crate) fn set_len(&self, ino: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.check_space(ino, len)?;
        state.inode(ino).set_len(to_usize(len));
        Ok(())
    }

    pub(crate) fn begin_read(&self) {
        let state = &mut *self.state.borrow_mut();
        state.reading += 1;
        state.stats.most_reads_at_once = state.stats.most_reads_at_once.max(state.reading);
    }

    pub(crate) fn read(
        &self,
        ino: u64,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> io::Result<AlignedBuf> {
        let mut state = self.state.borrow_mut();
        state.reading -= 1;
        if state.fault(path, |faults| faults.read_error, 1) {
            return Err(injected("read", path));
        }
        let mut offset = to_usize(offset);
        let end = offset.saturating_add(len).min(state.inode(ino).len());
        if offset < end && state.fault(path, |faults| faults.bad_sector, 10) {
            let at = offset + state.rng.index(end - offset);
            state.inode(ino).break_sector(at);
        }
        if state.inode(ino).is_bad(offset..end) {
            state.stats.faults += 1;
            state.notes.push((Tag::Fault, 11, ino));
            return Err(injected("read", path));
        }
        if state.fault(path, |faults| faults.misdirected_read, 7) {
            let pages = (state.inode(ino).len() / PAGE).max(1);
            offset = state.rng.index(pages) * PAGE;
        }
        let content = state.inode(ino).content();
        let start = offset.min(content.len());
        let end = start.saturating_add(len).min(content.len());
        let mut buf = AlignedBuf::with_capacity(len);
        buf.extend_from_slice(&content[start..end]);
        if !buf.is_empty() && state.fault(path, |faults| faults.read_flip, 8) {
            let at = state.rng.index(buf.len());
            buf[at] ^= 1 << state.rng.index(8);
        }
        state.stats.reads += 1;
        state.stats.read_bytes += buf.len() as u64;
        state.notes.push((Tag::Read, ino, offset as u64));
        Ok(buf)
    }

    pub(crate) fn begin_write(&self, ino: u64, offset: u64, buf: AlignedBuf) -> u64 {
        let mut state = self.state.borrow_mut();
        let id = state.issue();
        state.inflight.insert(id, Inflight { ino, offset, buf });
        id
    }

    pub(crate) fn finish_write(&self, id: u64, path: &Path) -> (io::Result<()>, AlignedBuf) {
        let mut state = self.state.borrow_mut();
        let Some(Inflight { ino, offset, buf }) = state.inflight.remove(&id) else {
            return (Err(io::Error::other("no such write")), AlignedBuf::default());
        };
        let end = offset + buf.len() as u64;
        if let Err(error) = state.check_space(ino, end) {
            return (Err(error), buf);
        }
        if state.fault(path, |faults| faults.write_error, 2) {
            let sectors = state.rng.index(buf.len() / SECTOR + 1);
            state.inode(ino).write(to_usize(offset), &buf[..sectors * SECTOR]);
            return (Err(injected("write", path)), buf);
        }
        state.store(ino, path, offset, &buf);
        state.stats.writes += 1;
        state.stats.written_bytes += buf.len() as u64;
        state.notes.push((Tag::Write, ino ^ offset.rotate_left(32), xxh3_64(&buf)));
        (Ok(()), buf)
    }

    pub(crate) fn begin_sync(&self, ino: u64) -> u64 {
        self.state.borrow_mut().inode(ino).changes()
    }

    pub(crate) fn finish_sync(&self, ino: u64, path: &Path, point: u64) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        if state.fault(path, |faults| faults.sync_error, 3) {
            let file = state.inodes.entry(ino).or_default();
            file.sync_failed(point, &mut state.rng);
            return Err(injected("sync", path));
        }
        state.inode(ino).sync(point);
        state.stats.syncs += 1;
        state.notes.push((Tag::Sync, ino, point));
        Ok(())
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.names.remove_file(path)?;
        state.collect();
        Ok(())
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.names.rename(from, to)?;
        state.collect();
        Ok(())
    }

    pub(crate) fn link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let ino = state.file(existing)?;
        state.names.add_file(new, ino)
    }

    pub(crate) fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let State { names, next, .. } = &mut *self.state.borrow_mut();
        names.create_dir_all(path, || {
            *next += 1;
            *next
        })
    }

    pub(crate) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.state.borrow_mut().names.remove_dir(path)
    }

    pub(crate) fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.state.borrow().names.list(dir)
    }

    pub(crate) fn begin_sync_dir(&self, dir: &Path) -> io::Result<DirSyncPoint> {
        let state = self.state.borrow();
        Ok(DirSyncPoint { dir: state.names.folder(dir)?, upto: state.names.ops() })
    }

    pub(crate) fn finish_sync_dir(&self, point: DirSyncPoint) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        if state.fault(Path::new("folder"), |faults| faults.sync_error, 4) {
            return Err(injected("sync", Path::new("folder")));
        }
        state.names.sync(point.dir, point.upto);
        state.stats.dir_syncs += 1;
        state.notes.push((Tag::Sync, point.dir, point.upto));
        state.collect();
        Ok(())
    }

    /// The power is gone: un-synced changes and writes under way survive in part.
    pub(crate) fn power_failure(&self) {
        let state = &mut *self.state.borrow_mut();
        state.reading = 0;
        for (_, write) in std::mem::take(&mut state.inflight) {
            state.inode(write.ino).write(to_usize(write.offset), &write.buf);
        }
        for file in state.inodes.values_mut() {
            file.power_failure(&mut state.rng);
        }
        state.names.power_failure(&mut state.rng);
        state.collect();
    }

    /// The process is gone, the system is not: writes under way end complete, partial or absent.
    pub(crate) fn process_killed(&self) {
        let state = &mut *self.state.borrow_mut();
        state.reading = 0;
        for (_, write) in std::mem::take(&mut state.inflight) {
            let sectors = write.buf.len() / SECTOR;
            let written = match state.rng.below(3) {
                0 => 0,
                1 => sectors,
                _ => state.rng.index(sectors + 1),
            };
            let data = &write.buf[..written * SECTOR];
            state.inodes.entry(write.ino).or_default().write(to_usize(write.offset), data);
        }
        state.inodes.values_mut().for_each(|file| file.open = 0);
        state.collect();
    }
}

impl State {
    /// The file a misdirected write lands in: half of the time the right one.
    fn astray(&mut self, ino: u64) -> u64 {
        let files = self.names.files();
        let hit = |path: &Path| match &self.faults.only {
            Some(part) => path.to_string_lossy().contains(part.as_str()),
            None => true,
        };
        let others: Vec<u64> =
            files.into_iter().filter(|(path, _)| hit(path)).map(|(_, ino)| ino).collect();
        if others.is_empty() || self.rng.chance(500_000) {
            return ino;
        }
        others[self.rng.index(others.len())]
    }

    /// Stores a write that reports success, honestly or not.
    fn store(&mut self, mut ino: u64, path: &Path, offset: u64, data: &[u8]) {
        let mut offset = to_usize(offset);
        if self.fault(path, |faults| faults.misdirected, 5) {
            ino = self.astray(ino);
            let pages = (self.inode(ino).len() / PAGE).max(2);
            offset = self.rng.index(pages) * PAGE;
        }
        if !data.is_empty() && self.fault(path, |faults| faults.bit_flip, 6) {
            let mut wrong = data.to_vec();
            let at = self.rng.index(wrong.len());
            wrong[at] ^= 1 << self.rng.index(8);
            self.inode(ino).write(offset, &wrong);
            return;
        }
        self.inode(ino).write(offset, data);
    }
}
