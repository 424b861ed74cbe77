//! Many cursors as one.

use super::tournament::Tournament;
use super::{Direction, Seek, Source};
use crate::env::Env;
use crate::{EntryRef, Result};
use coronet_probe::{Bug, seeded};
use std::cmp::Ordering;

/// Every version of all sources in order: keys ascending, versions of a key newest first. Equal
/// versions come in the order of the sources. Backwards all of it in reverse.
pub struct MergeCursor<E: Env> {
    sources: Vec<Source<E>>,
    direction: Direction,
    tournament: Tournament,
    needs_load: bool,
}

impl<E: Env> MergeCursor<E> {
    /// A cursor at the end; seek first.
    pub fn new(sources: Vec<Source<E>>) -> Self {
        let tournament = Tournament::new(sources.len());
        let direction = Direction::Forward;
        MergeCursor { sources, direction, tournament, needs_load: false }
    }

    /// Goes to a place. The sources read at the same time.
    pub async fn seek<'a>(&mut self, seek: impl Into<Seek<'a>>) -> Result<()> {
        let seek = seek.into();
        self.needs_load = false;
        self.direction = seek.direction();
        let seeks = self.sources.iter_mut().map(|source| source.seek(seek));
        futures_util::future::try_join_all(seeks).await?;
        self.tournament.rebuild(|a, b| before(&self.sources, self.direction, a, b));
        Ok(())
    }

    /// Whether a step waits for [`MergeCursor::load`].
    pub(super) fn needs_load(&self) -> bool {
        self.needs_load
    }

    /// The entry stood on.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        if self.needs_load {
            return None;
        }
        self.sources.get(self.tournament.winner())?.entry()
    }

    /// See [`super::TableCursor::is_warm`].
    pub fn is_warm(&self) -> bool {
        self.sources.get(self.tournament.winner()).is_some_and(Source::is_warm)
    }

    /// Steps to the next entry unless that needs I/O.
    pub fn try_advance(&mut self) -> Result<bool> {
        let first = self.tournament.winner();
        let Some(source) = self.sources.get_mut(first) else { return Ok(true) };
        if !source.try_advance()? {
            self.needs_load = true;
            return Ok(false);
        }
        self.tournament.replay(first, |a, b| before(&self.sources, self.direction, a, b));
        Ok(true)
    }

    /// Completes a step that needs I/O.
    pub async fn load(&mut self) -> Result<()> {
        if self.needs_load {
            let first = self.tournament.winner();
            self.sources[first].load().await?;
            self.needs_load = false;
            self.tournament.replay(first, |a, b| before(&self.sources, self.direction, a, b));
        }
        Ok(())
    }

    /// Steps to the next entry.
    pub async fn advance(&mut self) -> Result<()> {
        if !self.try_advance()? {
            self.load().await?;
        }
        Ok(())
    }
}

/// Whether source `a` comes before source `b`; sources at their end come last.
fn before<E: Env>(sources: &[Source<E>], direction: Direction, a: usize, b: usize) -> bool {
    let (left, right) = match (sources[a].entry(), sources[b].entry()) {
        (Some(left), Some(right)) => (left, right),
        (Some(_), None) => return true,
        (None, Some(_)) => return false,
        (None, None) => return a < b,
    };
    let order = match left.key.cmp(right.key) {
        Ordering::Equal if seeded(Bug::MergeKeepsOlder) => (left.seq, a).cmp(&(right.seq, b)),
        // No two are equal: forwards the newer version first, then the first source.
        Ordering::Equal => (right.seq, a).cmp(&(left.seq, b)),
        order => order,
    };
    order == if direction == Direction::Forward { Ordering::Less } else { Ordering::Greater }
}
