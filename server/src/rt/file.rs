//! Files on the core's ring: direct I/O with buffers that the operation owns.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use coronet_lsm::env::{AlignedBuf, File, PAGE};
use io_uring::{opcode, types};

use super::op::{Op, Owned};
use super::ring::Ring;

/// The most one operation moves; the kernel's own limit is just below 2 GiB.
const CHUNK: usize = 1 << 30;
/// The least unit of any disk, bytes.
const SECTOR: usize = 512;

/// An open file. Clones share it; it closes when the last clone and the last operation are gone.
#[derive(Clone)]
pub struct RtFile {
    ring: Rc<Ring>,
    fd: Rc<OwnedFd>,
    read_unit: usize,
}

/// What direct reads of an open file must be aligned to, on disk and in memory: a power of two up
/// to a page; a page where the kernel does not say (before Linux 6.1).
#[allow(unsafe_code)]
fn direct_unit(fd: &OwnedFd) -> usize {
    // SAFETY: all zeros is a valid value of this plain struct.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the descriptor is open, the path is an empty C string, `stat` outlives the call.
    let status = unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut stat) };
    if status != 0 || stat.stx_mask & mask == 0 {
        return PAGE;
    }
    unit_of(stat.stx_dio_offset_align, stat.stx_dio_mem_align)
}

/// The unit for a file system's alignments; both are zero where it has no direct I/O.
fn unit_of(on_disk: u32, in_memory: u32) -> usize {
    let unit = on_disk.max(in_memory) as usize;
    if unit.is_power_of_two() && (SECTOR..PAGE).contains(&unit) { unit } else { PAGE }
}

impl RtFile {
    /// A file that was opened for direct I/O, or a folder.
    pub(super) fn new(ring: Rc<Ring>, fd: OwnedFd, direct: bool) -> Self {
        let read_unit = if direct { direct_unit(&fd) } else { PAGE };
        Self { ring, fd: Rc::new(fd), read_unit }
    }

    fn target(&self) -> types::Fd {
        types::Fd(self.fd.as_raw_fd())
    }

    /// A std handle for the calls that do not wait for the disk.
    fn std(&self) -> io::Result<fs::File> {
        Ok(fs::File::from(self.fd.try_clone()?))
    }

    /// One read of at most `len` bytes into `buf` at `at`. Returns the count.
    #[allow(unsafe_code)]
    async fn read_once(
        &self,
        offset: u64,
        mut buf: AlignedBuf,
        at: usize,
        len: usize,
    ) -> (io::Result<usize>, AlignedBuf) {
        let memory = &mut buf.spare_mut()[at..at + len];
        let entry = opcode::Read::new(self.target(), memory.as_mut_ptr(), len as u32)
            .offset(offset)
            .build();
        let owned =
            Owned { buffer: Some(buf), _file: Some(Rc::clone(&self.fd)), ..Owned::default() };
        // SAFETY: the pointer is into the buffer that `owned` keeps.
        let (result, owned) = unsafe { Op::start(&self.ring, entry, owned) }.await;
        (result.map(|n| n as usize), owned.buffer.unwrap_or_default())
    }

    /// One write of `buf[at..at + len]`. Returns the count.
    #[allow(unsafe_code)]
    async fn write_once(
        &self,
        offset: u64,
        buf: AlignedBuf,
        at: usize,
        len: usize,
    ) -> (io::Result<usize>, AlignedBuf) {
        let memory = &buf[at..at + len];
        let entry =
            opcode::Write::new(self.target(), memory.as_ptr(), len as u32).offset(offset).build();
        let owned =
            Owned { buffer: Some(buf), _file: Some(Rc::clone(&self.fd)), ..Owned::default() };
        // SAFETY: the pointer is into the buffer that `owned` keeps.
        let (result, owned) = unsafe { Op::start(&self.ring, entry, owned) }.await;
        (result.map(|n| n as usize), owned.buffer.unwrap_or_default())
    }

    #[allow(unsafe_code)]
    async fn fsync(&self, flags: types::FsyncFlags) -> io::Result<()> {
        let entry = opcode::Fsync::new(self.target()).flags(flags).build();
        let owned = Owned { _file: Some(Rc::clone(&self.fd)), ..Owned::default() };
        // SAFETY: the operation has no pointers.
        unsafe { Op::start(&self.ring, entry, owned) }.await.0.map(drop)
    }

    /// Makes data and all metadata durable; for folders.
    pub(super) async fn sync_all(&self) -> io::Result<()> {
        self.fsync(types::FsyncFlags::empty()).await
    }

    /// Reserves the blocks up to `len`, so that a full disk shows now and not in a later write.
    #[allow(unsafe_code)]
    async fn allocate(&self, len: u64) -> io::Result<()> {
        let entry = opcode::Fallocate::new(self.target(), len).build();
        let owned = Owned { _file: Some(Rc::clone(&self.fd)), ..Owned::default() };
        // SAFETY: the operation has no pointers.
        unsafe { Op::start(&self.ring, entry, owned) }.await.0.map(drop)
    }
}

/// Whether the operation has to be repeated as if nothing had happened.
fn again(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

impl File for RtFile {
    fn read_unit(&self) -> usize {
        self.read_unit
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        let mut buf = AlignedBuf::with_capacity(len);
        let mut done = 0;
        while done < len {
            let part = (len - done).min(CHUNK);
            let (result, back) = self.read_once(offset + done as u64, buf, done, part).await;
            buf = back;
            match result {
                Ok(count) => {
                    done += count;
                    // Direct reads end inside a unit only where the file ends.
                    if count == 0 || count % self.read_unit != 0 {
                        break;
                    }
                }
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        buf.set_len(done.min(len));
        Ok(buf)
    }

    async fn write_at(&self, offset: u64, buf: AlignedBuf) -> (io::Result<()>, AlignedBuf) {
        let (len, mut buf, mut done) = (buf.len(), buf, 0);
        while done < len {
            let part = (len - done).min(CHUNK);
            let (result, back) = self.write_once(offset + done as u64, buf, done, part).await;
            buf = back;
            match result {
                // What is left must start on a page again.
                Ok(count) if done + count < len => match count / PAGE * PAGE {
                    0 => return (Err(io::ErrorKind::WriteZero.into()), buf),
                    whole => done += whole,
                },
                Ok(count) => done += count,
                Err(error) if again(&error) => {}
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    async fn sync(&self) -> io::Result<()> {
        self.fsync(types::FsyncFlags::DATASYNC).await
    }

    async fn len(&self) -> io::Result<u64> {
        // `fstat` of an open file never waits for the disk, unlike the ring's statx, which always
        // takes a worker thread.
        Ok(self.std()?.metadata()?.len())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let file = self.std()?;
        if len > file.metadata()?.len() {
            match self.allocate(len).await {
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                other => return other,
            }
        }
        file.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_suits_disk_and_memory_and_is_at_most_a_page() {
        assert_eq!(unit_of(512, 4), 512);
        assert_eq!(unit_of(512, 512), 512);
        assert_eq!(unit_of(512, 1024), 1024);
        assert_eq!(unit_of(4096, 512), PAGE);
        for odd in [(0, 0), (8, 4), (768, 4), (8192, 512)] {
            assert_eq!(unit_of(odd.0, odd.1), PAGE, "{odd:?}");
        }
    }
}
