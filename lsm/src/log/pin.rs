//! Holding the log still for a checkpoint: which segments hold data, and how much of them.
//!
//! What was written to a segment stays as it is until the segment is given back and used again.
//! While the log is pinned none is.

use super::handle::Log;
use super::segments::Segment;
use crate::env::Env;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The active segment as others than the writer see it.
pub(super) struct Tail<F> {
    pub file: F,
    pub path: PathBuf,
    pub generation: u64,
    /// Bytes written, in whole batches; zero before the first.
    pub written: u64,
}

impl<F: Clone> Tail<F> {
    /// A segment that is about to be written.
    pub fn of(segment: &Segment<F>, generation: u64) -> Self {
        let (file, path) = (segment.file.clone(), segment.path.clone());
        Tail { file, path, generation, written: 0 }
    }
}

/// How many hold the log, and what it would have given back otherwise.
#[derive(Debug, Default)]
pub(super) struct Pins {
    count: usize,
    floor: u64,
}

impl Pins {
    /// Segments below `floor` are not needed any more: below what they may go now, if they may.
    pub fn release(&mut self, floor: u64) -> Option<u64> {
        self.floor = self.floor.max(floor);
        (self.count == 0).then_some(self.floor)
    }
}

/// A segment with data.
pub struct Pinned<F> {
    /// The open file.
    pub file: F,
    /// Its path.
    pub path: Rc<Path>,
    /// Its place in the log.
    pub generation: u64,
    /// Bytes from its beginning that hold data and do not change.
    pub bytes: u64,
}

impl<E: Env> Log<E> {
    /// The segments from generation `floor` on, oldest first. None of them is used again before
    /// [`Log::unpin`] was called as often as this.
    pub fn pin(&self, floor: u64) -> Vec<Pinned<E::File>> {
        let mut state = self.inner.state.borrow_mut();
        state.pins.count += 1;
        let full = state.full.iter().map(|full| Pinned {
            file: full.segment.file.clone(),
            path: full.segment.path.as_path().into(),
            generation: full.generation,
            bytes: full.end,
        });
        let active = state.active.iter().map(|active| Pinned {
            file: active.file.clone(),
            path: active.path.as_path().into(),
            generation: active.generation,
            bytes: active.written,
        });
        let all = full.chain(active);
        let mut pinned: Vec<_> =
            all.filter(|pinned| pinned.generation >= floor && pinned.bytes > 0).collect();
        pinned.sort_by_key(|pinned| pinned.generation);
        pinned
    }

    /// Undoes one [`Log::pin`]; returns files for removal like [`Log::release`].
    pub fn unpin(&self) -> Vec<PathBuf> {
        let floor = {
            let pins = &mut self.inner.state.borrow_mut().pins;
            pins.count -= 1;
            pins.floor
        };
        self.release(floor)
    }
}
