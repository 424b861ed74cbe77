//! Many cursors as one, and the view of one point in time over them.

use super::Source;
use super::tournament::Tournament;
use crate::env::Env;
use crate::{EntryRef, Millis, Result, Seq};
use coronet_probe::{Bug, seeded};
use std::cmp::Ordering;

/// Every version of all sources in order: keys ascending, versions of a key newest first. Equal
/// versions come in the order of the sources.
pub struct MergeCursor<E: Env> {
    sources: Vec<Source<E>>,
    tournament: Tournament,
    needs_load: bool,
}

impl<E: Env> MergeCursor<E> {
    /// A cursor at the end; seek first.
    pub fn new(sources: Vec<Source<E>>) -> Self {
        let tournament = Tournament::new(sources.len());
        MergeCursor { sources, tournament, needs_load: false }
    }

    /// Goes to the first entry with a key not before `key`. The sources read at the same time.
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.needs_load = false;
        let seeks = self.sources.iter_mut().map(|source| source.seek(key));
        futures_util::future::try_join_all(seeks).await?;
        self.tournament.rebuild(|a, b| before(&self.sources, a, b));
        Ok(())
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
        self.tournament.replay(first, |a, b| before(&self.sources, a, b));
        Ok(true)
    }

    /// Completes a step that needs I/O.
    pub async fn load(&mut self) -> Result<()> {
        if self.needs_load {
            let first = self.tournament.winner();
            self.sources[first].load().await?;
            self.needs_load = false;
            self.tournament.replay(first, |a, b| before(&self.sources, a, b));
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
fn before<E: Env>(sources: &[Source<E>], a: usize, b: usize) -> bool {
    let (left, right) = match (sources[a].entry(), sources[b].entry()) {
        (Some(left), Some(right)) => (left, right),
        (Some(_), None) => return true,
        (None, Some(_)) => return false,
        (None, None) => return a < b,
    };
    match left.key.cmp(right.key) {
        Ordering::Equal if seeded(Bug::MergeKeepsOlder) => (left.seq, a) < (right.seq, b),
        Ordering::Equal => (right.seq, a) < (left.seq, b),
        order => order == Ordering::Less,
    }
}

/// Steps without a yield.
const STEPS: usize = 256;

/// What a key's newest version with a sequence number of at most `at` says, for every key that
/// has a value then and at the moment `now`.
pub struct Visible<E: Env> {
    env: E,
    merge: MergeCursor<E>,
    at: Seq,
    now: Millis,
    /// The key that is dealt with: its further versions are passed over.
    done: Vec<u8>,
    has_done: bool,
    /// Whether the merge stands on an entry to show.
    settled: bool,
}

/// How far a bounded number of steps came.
enum Progress {
    Settled,
    NeedsLoad,
    Unfinished,
}

impl<E: Env> Visible<E> {
    /// A cursor at the end; seek first.
    pub fn new(env: E, merge: MergeCursor<E>, at: Seq, now: Millis) -> Self {
        Visible { env, merge, at, now, done: Vec::new(), has_done: false, settled: true }
    }

    /// Goes to the first key not before `key` that has a value.
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.has_done = false;
        self.settled = false;
        self.merge.seek(key).await?;
        self.load().await
    }

    /// The entry stood on: always one with a value.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        if self.settled { self.merge.entry() } else { None }
    }

    /// Steps to the next key, unless that needs I/O or a long passage over what is not shown.
    pub fn try_advance(&mut self) -> Result<bool> {
        if self.settled {
            let Some(entry) = self.merge.entry() else { return Ok(true) };
            pass(&mut self.done, &mut self.has_done, entry.key);
            self.settled = false;
        }
        Ok(matches!(self.settle()?, Progress::Settled))
    }

    /// Completes a step.
    pub async fn load(&mut self) -> Result<()> {
        loop {
            match self.settle()? {
                Progress::Settled => return Ok(()),
                Progress::NeedsLoad => self.merge.load().await?,
                Progress::Unfinished => self.env.coop().await,
            }
        }
    }

    /// Steps to the next key.
    pub async fn advance(&mut self) -> Result<()> {
        if !self.try_advance()? {
            self.load().await?;
        }
        Ok(())
    }

    /// Passes over what is not to be shown.
    fn settle(&mut self) -> Result<Progress> {
        if self.settled {
            return Ok(Progress::Settled);
        }
        if self.merge.needs_load {
            return Ok(Progress::NeedsLoad);
        }
        for _ in 0..STEPS {
            let Some(entry) = self.merge.entry() else {
                self.settled = true;
                return Ok(Progress::Settled);
            };
            let hidden = entry.seq > self.at || (self.has_done && *self.done == *entry.key);
            if !hidden && entry.visible(self.now).is_some() {
                self.settled = true;
                return Ok(Progress::Settled);
            }
            if !hidden {
                pass(&mut self.done, &mut self.has_done, entry.key);
            }
            if !self.merge.try_advance()? {
                return Ok(Progress::NeedsLoad);
            }
        }
        Ok(Progress::Unfinished)
    }
}

fn pass(done: &mut Vec<u8>, has_done: &mut bool, key: &[u8]) {
    done.clear();
    done.extend_from_slice(key);
    *has_done = true;
}
