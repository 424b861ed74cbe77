//! Memory that is there before it is needed, in huge pages.
//!
//! A page that a core touches first is cleared by the kernel on that core while all its requests
//! wait: a huge page for 0.1 ms on bare metal and 6 ms on a virtual machine whose host has to find
//! the memory; but a large cache without huge pages is a third slower to read. So cores get small
//! pages when they touch memory first, and a thread that runs only when a processor is idle has the
//! kernel make huge ones of what the allocator hands out next (docs/decisions/0016).

use std::ops::Range;
use std::time::Duration;

use super::counted::in_use;

/// How often the reserve is looked at.
const PERIOD: Duration = Duration::from_millis(100);
/// Nothing is done for a process that uses less: a tool, a test, a node without data.
const FROM: usize = 32 << 20;
/// What is ready beyond what is in use, besides an eighth of it. The allocator begins a part of
/// 32 MiB for each of its size classes, and writes at full speed take 100 MiB a second.
const RESERVE: usize = 256 << 20;
/// Pages are made in steps of this size, a huge page.
const STEP: usize = 2 << 20;
/// The allocator takes its memory from the system in parts of 1 GiB and more; smaller mappings are
/// something else.
const ARENA: usize = 512 << 20;

/// Starts the thread. It never ends, and ends nothing when it cannot work.
pub(super) fn start() {
    let mut arenas = Vec::new();
    // Without the thread pages are made when they are touched, as in any other process.
    if look(&mut arenas).is_some() {
        let _ = std::thread::Builder::new().name("prefault".to_owned()).spawn(|| run(arenas));
    }
}

fn run(mut arenas: Vec<Arena>) -> Option<()> {
    run_only_when_idle();
    let mut looked_at = 0;
    loop {
        std::thread::sleep(PERIOD);
        let used = in_use();
        let mut missing = wanted(used);
        // A node that takes no more memory has what it needs.
        if missing == 0 || used.abs_diff(looked_at) < STEP {
            continue;
        }
        looked_at = used;
        look(&mut arenas)?;
        for arena in &mut arenas {
            missing = missing.saturating_sub(arena.ready);
            while missing > 0 && arena.ready < arena.memory.len() {
                missing = missing.saturating_sub(arena.advance()?);
            }
        }
    }
}

/// Looks for new arenas, and leaves them without huge pages for now.
fn look(arenas: &mut Vec<Arena>) -> Option<()> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let known = arenas.len();
    learn(arenas, &maps);
    // Refused by kernels that know no huge pages.
    arenas[known..].iter().for_each(|new| _ = advise(&new.memory, libc::MADV_NOHUGEPAGE));
    Some(())
}

/// How much memory should be ready when this much is in use.
fn wanted(in_use: usize) -> usize {
    if in_use < FROM { 0 } else { in_use + in_use / 8 + RESERVE }
}

/// One of the allocator's parts of memory. It fills them from the lowest address.
#[derive(Debug, PartialEq, Eq)]
struct Arena {
    memory: Range<usize>,
    /// Bytes from the start whose pages are there.
    ready: usize,
}

impl Arena {
    /// Makes the next pages, and says how many bytes; nothing where the kernel cannot.
    fn advance(&mut self) -> Option<usize> {
        let from = self.memory.start + self.ready;
        let to = ((from + STEP) / STEP * STEP).min(self.memory.end);
        // Refused by kernels that know no huge pages; small ones do, then.
        let _ = advise(&(from..to), libc::MADV_HUGEPAGE);
        self.ready += to - from;
        advise(&(from..to), libc::MADV_POPULATE_WRITE).then_some(to - from)
    }
}

/// Tells the kernel how to treat these pages, whoever uses them; whether it listened.
#[allow(unsafe_code)]
fn advise(memory: &Range<usize>, advice: libc::c_int) -> bool {
    // SAFETY: the advice given here chooses the size of pages and makes them present; no byte of
    // memory changes. A range that is not mapped is refused.
    unsafe { libc::madvise(memory.start as *mut libc::c_void, memory.len(), advice) == 0 }
}

/// Adds the arenas among these mappings of the process that are not known yet. The kernel makes
/// one mapping of neighbours, so what counts is what no known arena covers.
fn learn(arenas: &mut Vec<Arena>, maps: &str) {
    for mapping in maps.lines().filter_map(arena) {
        let mut from = mapping.start;
        let mut known: Vec<Range<usize>> =
            arenas.iter().map(|known| known.memory.clone()).collect();
        known.sort_unstable_by_key(|known| known.start);
        known.push(mapping.end..mapping.end);
        for known in known.iter().filter(|known| known.end > mapping.start) {
            if known.start.min(mapping.end).saturating_sub(from) >= ARENA {
                arenas.push(Arena { memory: from..known.start.min(mapping.end), ready: 0 });
            }
            from = from.max(known.end);
        }
    }
}

/// The mapping of a line of `/proc/self/maps`, when it is an arena: large, anonymous, private.
fn arena(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let (from, to) = (usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?);
    let private = fields.next()? == "rw-p";
    let anonymous = fields.nth(2)? == "0" && fields.next().is_none();
    (private && anonymous && to.checked_sub(from)? >= ARENA).then_some(from..to)
}

/// Leaves the processor to whoever else wants it.
#[allow(unsafe_code)]
fn run_only_when_idle() {
    // SAFETY: a struct of the libc that is valid with all bytes zero.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: changes this thread only; the parameters live through the call. Refused, the thread
    // runs like any other.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_for_a_small_process_and_an_eighth_more_for_a_large_one() {
        assert_eq!((wanted(0), wanted(FROM - 1)), (0, 0));
        assert_eq!(wanted(1 << 30), (1 << 30) + (1 << 27) + RESERVE);
    }

    const LINES: &str = "\
55a0c0000000-55a0c4000000 rw-p 00000000 00:00 0                          [heap]
20000000000-20040000000 rw-p 00000000 00:00 0
7f0000000000-7f0040000000 rw-p 00000000 08:01 77                         /a/file
7f1000000000-7f1040000000 ---p 00000000 00:00 0
7f2000000000-7f2001000000 rw-p 00000000 00:00 0
";

    #[test]
    fn arenas_are_the_large_anonymous_mappings() {
        let mut arenas = Vec::new();
        learn(&mut arenas, LINES);
        assert_eq!(arenas, [Arena { memory: 0x200_0000_0000..0x200_4000_0000, ready: 0 }]);
        arenas[0].ready = STEP;
        learn(&mut arenas, LINES);
        assert_eq!(arenas.len(), 1);
        // Two new arenas, one on either side, that the kernel shows as one mapping with the first.
        learn(&mut arenas, "1ffc0000000-20080000000 rw-p 00000000 00:00 0");
        let memory: Vec<_> =
            arenas.iter().map(|arena| (arena.memory.clone(), arena.ready)).collect();
        let known = (0x200_0000_0000..0x200_4000_0000, STEP);
        let below = (0x1ff_c000_0000..0x200_0000_0000, 0);
        assert_eq!(memory, [known, below, (0x200_4000_0000..0x200_8000_0000, 0)]);
    }

    #[test]
    #[allow(unsafe_code)]
    fn pages_are_there_before_they_are_touched() {
        let size = 4 * STEP;
        // SAFETY: a new mapping, unmapped below after its last use.
        let start = unsafe {
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), size, access, kind, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        let present = || {
            let mut pages = vec![0_u8; size / 4096];
            // SAFETY: the mapping is there, and a byte for each of its pages.
            assert_eq!(unsafe { libc::mincore(start, size, pages.as_mut_ptr()) }, 0);
            pages.iter().filter(|page| **page & 1 == 1).count() * 4096
        };
        assert_eq!(present(), 0);
        let mut arena = Arena { memory: start as usize..start as usize + size, ready: 0 };
        let made = arena.advance().unwrap();
        assert_eq!((arena.ready, made <= STEP && made > 0), (made, true));
        assert!(present() >= made && present() < size, "{}", present());
        while arena.ready < size {
            arena.advance().unwrap();
        }
        assert_eq!(present(), size);
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(start, size) };
        arena.ready = 0;
        assert_eq!(arena.advance(), None, "the kernel refuses what is not mapped");
    }
}
