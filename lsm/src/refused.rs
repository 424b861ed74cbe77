//! Blocks that a merge needs and that the disk refuses to read.
//!
//! Owns how long merges wait for such a block. They leave its table alone and go on with others,
//! while the block is asked for again, less and less often. Once it is read, everything is as it
//! was. When patience is over ([`crate::Options::unreadable_patience`]) its keys go into
//! quarantine like those of a damaged block, and the merge passes over it. Nothing of this is
//! stored but the quarantine: a restart begins to wait anew.

use crate::engine::Shared;
use crate::env::{Env, Nanos};
use crate::scrub::Walk;
use crate::version::LiveTable;
use crate::{Error, Result, TableId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// A block is asked for at least so many times before it is given up.
const LEAST_TRIES: u32 = 4;
/// Shares of the patience: the longest pause between two tries, and what is left of the patience
/// while level 0 is so full that writers are slowed.
const PAUSE_SHARE: u32 = 8;
const PRESSED_SHARE: u32 = 5;

/// A table with a block that a merge could not read.
#[derive(Debug)]
struct Refusal {
    /// What the disk said.
    error: Error,
    /// The first refusal that counts.
    since: Nanos,
    /// Refusals since then.
    tries: u32,
    /// Until the next try.
    pause: Duration,
    next: Nanos,
    /// The blocks, once they are known.
    blocks: Option<Vec<usize>>,
}

/// The tables of one keyspace that merges leave alone.
#[derive(Debug, Default)]
pub(crate) struct Refusals(RefCell<BTreeMap<TableId, Refusal>>);

impl Refusals {
    /// The tables.
    pub fn tables(&self) -> BTreeSet<TableId> {
        self.0.borrow().keys().copied().collect()
    }

    /// Number of tables.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// When a table is to be tried again.
    pub fn due(&self) -> Option<Nanos> {
        self.0.borrow().values().map(|refusal| refusal.next).min()
    }

    /// What the disk said, if merges leave any table alone.
    pub fn error(&self) -> Option<Error> {
        self.0.borrow().values().next().map(|refusal| refusal.error.clone())
    }

    fn insert(&self, id: TableId, error: Error, now: Nanos, pause: Duration) {
        let next = now.after(pause);
        let refusal = Refusal { error, since: now, tries: 0, pause, next, blocks: None };
        self.0.borrow_mut().insert(id, refusal);
    }

    fn remove(&self, id: TableId) {
        self.0.borrow_mut().remove(&id);
    }

    /// A table whose time has come, and its blocks as far as they are known.
    fn next(&self, now: Nanos) -> Option<(TableId, Option<Vec<usize>>)> {
        let refusals = self.0.borrow();
        let (id, refusal) = refusals.iter().find(|(_, refusal)| refusal.next <= now)?;
        Some((*id, refusal.blocks.clone()))
    }

    /// These blocks were refused again; tells how often and for how long by now.
    fn again(&self, id: TableId, blocks: &[usize], now: Nanos, most: Duration) -> (u32, Duration) {
        let mut refusals = self.0.borrow_mut();
        let Some(refusal) = refusals.get_mut(&id) else { return (0, Duration::ZERO) };
        refusal.blocks = Some(blocks.to_vec());
        refusal.tries += 1;
        refusal.pause = (refusal.pause * 2).min(most);
        refusal.next = now.after(refusal.pause);
        (refusal.tries, now.since(refusal.since))
    }

    /// The disk gives nothing of the file at all: that says nothing about single blocks.
    fn away(&self, id: TableId, now: Nanos) {
        if let Some(refusal) = self.0.borrow_mut().get_mut(&id) {
            (refusal.since, refusal.tries) = (now, 0);
            refusal.next = now.after(refusal.pause);
        }
    }
}

impl<E: Env> Shared<E> {
    /// Has merges leave the table alone that `error` is about, if it is one of these and the disk
    /// refused to read it. Returns whether that is so.
    pub fn leave_alone<'a>(
        &self,
        mut inputs: impl Iterator<Item = &'a Rc<LiveTable<E>>>,
        error: &Error,
    ) -> bool {
        let Error::Io { op: "read", path, .. } = error else { return false };
        let Some(live) = inputs.find(|live| live.table.table.path() == path) else { return false };
        let pause = self.options().full_probe_interval;
        self.refusals.insert(live.id, error.clone(), self.env.now(), pause);
        self.suspects.tell(format!("{error}; a merge leaves the table alone and tries again"));
        self.suspects.wake();
        true
    }

    /// Reads blocks again that were refused, of one table whose time has come.
    pub async fn ask_again(&self) {
        let Some((id, known)) = self.refusals.next(self.env.now()) else { return };
        let Some(live) = self.live(|live| live.id == id) else {
            return self.take_up(id);
        };
        let table = live.table.table.clone();
        let mut walk = Walk::new(live);
        match known {
            Some(blocks) => self.look_at(&mut walk, &blocks).await,
            None => self.read_all(&mut walk).await,
        }
        if self.closing.get() {
            return;
        }
        let refused = std::mem::take(&mut walk.unreadable);
        let Some(error) = walk.refused.take().filter(|_| !refused.is_empty()) else {
            if self.quarantine(walk).await.is_ok() {
                self.take_up(id);
            }
            return;
        };
        if table.answers().await.is_err() {
            return self.refusals.away(id, self.env.now());
        }
        let patience = self.options().unreadable_patience;
        let most = (patience / PAUSE_SHARE).max(self.options().full_probe_interval);
        let (tries, waited) = self.refusals.again(id, &refused, self.env.now(), most);
        let patience = if self.is_pressed() { patience / PRESSED_SHARE } else { patience };
        let gives_up = tries >= LEAST_TRIES && waited >= patience;
        let mut marked = self.quarantine(walk).await;
        if gives_up && marked.is_ok() {
            let said = format!("{error}; refused {tries} times in {} s", waited.as_secs());
            marked = self.give_up(id, refused, table.path(), &said).await;
            if marked.is_ok() {
                self.take_up(id);
            }
        }
    }

    /// Puts the keys of blocks into quarantine that the disk does not give.
    async fn give_up(
        &self,
        id: TableId,
        blocks: Vec<usize>,
        path: &Path,
        said: &str,
    ) -> Result<()> {
        let tell = |offset: u64| {
            let path = path.display();
            format!(
                "{said}: the keys of {path} at offset {offset} are in quarantine, the rest is served"
            )
        };
        let marked = self.mark(id, blocks, tell).await?;
        self.stats.update(|stats| stats.refused_blocks += marked);
        Ok(())
    }

    /// Merges may have the table again.
    fn take_up(&self, id: TableId) {
        self.refusals.remove(id);
        self.compaction_wanted.notify();
    }

    /// Whether writers are slowed by what merges owe.
    fn is_pressed(&self) -> bool {
        self.versions.with(|version| version.levels[0].len()) >= self.options().l0_slowdown
    }
}
