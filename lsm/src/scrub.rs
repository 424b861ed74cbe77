//! Finding damage before a reader does, and putting it into quarantine.
//!
//! Owns the task that reads every block of every live table at a paced rate, and that examines
//! tables in which somebody ran into damage. A block that is wrong twice in a row is marked: the
//! mark goes into the manifest ([`crate::version::lost`]), readers of its keys are told file and
//! offset, compactions carry on with the other blocks, and the operator gets one line. Where
//! index, filter or footer are damaged on disk, memory still has what they said: compaction
//! writes such a table anew before an opening could miss them. What the disk refuses to read is
//! told and not marked: an error may pass, and a mark stays. Only where a merge needs it is it
//! asked for again and in the end given up ([`crate::refused`]).

use crate::engine::{Core, Shared};
use crate::env::{Env, PAGE};
use crate::signal::Signal;
use crate::table::{BlockWalk, Run, Table};
use crate::version::LiveTable;
use crate::version::lost::{Lost, name};
use crate::{Error, Result, TableId};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// Bytes read at a time.
const RUN_BYTES: u64 = 256 << 10;
/// Incidents kept for a caller who does not ask; later ones are only counted in the stats.
const MAX_INCIDENTS: usize = 64;

/// Damage that was run into and not looked at yet, and lines for the operator.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    files: RefCell<Vec<PathBuf>>,
    incidents: RefCell<Vec<String>>,
    signal: Signal,
}

impl Suspects {
    /// Takes note of an error if it is damage.
    pub fn report(&self, error: &Error) {
        let Error::Corruption { path, .. } = error else { return };
        let mut files = self.files.borrow_mut();
        if !files.contains(path) {
            files.push(path.clone());
            self.signal.notify();
        }
    }

    /// A file to look at.
    fn next(&self) -> Option<PathBuf> {
        self.files.borrow_mut().pop()
    }

    /// A line for the operator.
    pub fn tell(&self, line: String) {
        let mut incidents = self.incidents.borrow_mut();
        if incidents.len() < MAX_INCIDENTS {
            incidents.push(line);
        }
    }

    /// The lines since the last call.
    pub fn take_incidents(&self) -> Vec<String> {
        std::mem::take(&mut *self.incidents.borrow_mut())
    }

    /// Wakes the task.
    pub fn wake(&self) {
        self.signal.notify();
    }
}

/// How all scrubs of an engine go: changed while they work.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes per second, all keyspaces together; zero is off.
    rate: Cell<u64>,
    /// New passes asked for so far.
    wanted: Cell<u64>,
}

impl Pace {
    /// The pace of an engine that opens.
    pub fn new(rate: u64) -> Self {
        Pace { rate: Cell::new(rate), wanted: Cell::new(0) }
    }

    /// New passes asked for so far.
    pub fn passes_wanted(&self) -> u64 {
        self.wanted.get()
    }
}

impl<E: Env> Core<E> {
    /// See [`crate::Engine::set_scrub_rate`].
    pub fn set_scrub_rate(&self, bytes_per_second: u64) {
        self.scrub.rate.set(bytes_per_second);
        self.all_trees().iter().for_each(|tree| tree.suspects.wake());
    }

    /// See [`crate::Engine::scrub_now`].
    pub fn scrub_now(&self) -> u64 {
        if self.scrub.rate.get() == 0 {
            return 0;
        }
        self.scrub.wanted.set(self.scrub.wanted.get() + 1);
        let trees = self.all_trees();
        trees.iter().for_each(|tree| tree.suspects.wake());
        trees.len() as u64
    }
}

/// How far a table was read.
pub(crate) struct Walk<E: Env> {
    live: Rc<LiveTable<E>>,
    /// Blocks that are left: those with keys that the table still has.
    left: Range<usize>,
    damaged: Vec<usize>,
    /// Blocks before this one are read one by one: together they could not be read.
    alone: usize,
    /// Blocks that the disk refuses to read, and what it said of the first.
    pub unreadable: Vec<usize>,
    pub refused: Option<Error>,
}

impl<E: Env> Walk<E> {
    /// Nothing of the table was read yet.
    pub fn new(live: Rc<LiveTable<E>>) -> Self {
        let (left, damaged, unreadable) = (live.table.blocks(), Vec::new(), Vec::new());
        Walk { live, left, damaged, alone: 0, unreadable, refused: None }
    }
}

/// What is left of a pass.
struct Pass<E: Env> {
    tables: Vec<TableId>,
    current: Option<Walk<E>>,
}

/// Scrubs until the engine closes; `begun` is [`Pace::passes_wanted`] when the keyspace came, so
/// that a pass asked for before the task's first turn is not missed.
pub(crate) async fn scrub_task<E: Env>(shared: Rc<Shared<E>>, mut begun: u64) {
    let mut pass = None;
    let mut due = shared.env.now().after(shared.options().scrub_pause);
    let pace = &shared.core.scrub;
    while !shared.closing.get() {
        let epoch = shared.suspects.signal.epoch();
        if begun != pace.wanted.get() {
            (begun, pass, due) = (pace.wanted.get(), None, shared.env.now());
        }
        let (now, retry) = (shared.env.now(), shared.refusals.due());
        if let Some(path) = shared.suspects.next() {
            // The manifest is tried until it takes the marks or the engine closes.
            let _ = shared.examine(|live| live.table.table.path() == path).await;
        } else if retry.is_some_and(|at| at <= now) {
            shared.ask_again().await;
        } else if pace.rate.get() > 0 && due <= now {
            let pause = shared.scrub_step(&mut pass).await;
            due = shared.env.now().after(pause);
        } else {
            let pass_at = (pace.rate.get() > 0).then_some(due);
            match [pass_at, retry].into_iter().flatten().min() {
                None => shared.suspects.signal.changed(epoch).await,
                Some(at) => {
                    let wait = at.since(now);
                    shared.suspects.signal.changed_within(&shared.env, epoch, wait).await;
                }
            }
        }
    }
    shared.task_ended();
}

impl<E: Env> Shared<E> {
    /// Takes every mark back. Readers pass over the damaged blocks from now on, and after a
    /// restart, too.
    pub async fn accept_loss(&self) -> Result<()> {
        self.readable()?;
        self.versions.with(|v| v.tables().for_each(|(_, live)| live.table.table.give_up()));
        let retry = async |error| self.retry_manifest(&self.compaction_health, error).await;
        self.versions.mark(Vec::new(), self.log.last(), retry).await?;
        // What was lost must not come back from the cache and go again.
        self.forget_rows();
        Ok(())
    }

    /// The first live table that is wanted.
    pub fn live(&self, wanted: impl Fn(&LiveTable<E>) -> bool) -> Option<Rc<LiveTable<E>>> {
        let version = self.versions.current();
        version.tables().map(|(_, live)| live).find(|live| wanted(live)).cloned()
    }

    /// Reads one live table from its beginning to its end.
    async fn examine(&self, wanted: impl Fn(&LiveTable<E>) -> bool) -> Result<()> {
        let Some(live) = self.live(wanted) else { return Ok(()) };
        let mut walk = Walk::new(live);
        self.read_all(&mut walk).await;
        self.tell_unreadable(&walk);
        self.quarantine(walk).await
    }

    /// Reads a table to its end, or until the engine closes.
    pub async fn read_all(&self, walk: &mut Walk<E>) {
        while !self.closing.get() && self.read_on(walk).await.is_some() {
            self.env.coop().await;
        }
    }

    /// Reads some blocks of a table, one by one.
    pub async fn look_at(&self, walk: &mut Walk<E>, blocks: &[usize]) {
        for i in blocks {
            self.look_again(walk, *i).await;
            self.env.coop().await;
        }
    }

    /// One read of the pass, begun anew where it is over; returns the pause until the next.
    async fn scrub_step(&self, pass: &mut Option<Pass<E>>) -> Duration {
        let ids = || {
            let mut ids: Vec<_> =
                self.versions.with(|v| v.tables().map(|(_, live)| live.id).collect());
            ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
            ids
        };
        let now = pass.get_or_insert_with(|| Pass { tables: ids(), current: None });
        if now.current.is_none() {
            let Some(id) = now.tables.pop() else {
                *pass = None;
                self.stats.update(|stats| {
                    stats.scrub_passes += 1;
                    stats.scrub_left_bytes = 0;
                });
                return self.options().scrub_pause;
            };
            // Tables that were compacted away since are nobody's concern any more.
            now.current = self.live(|live| live.id == id).map(Walk::new);
            let left: u64 = now.tables.iter().chain([&id]).map(|id| self.data_bytes(*id)).sum();
            self.stats.update(|stats| stats.scrub_left_bytes = left);
        }
        let Some(walk) = &mut now.current else { return Duration::ZERO };
        let Some(read) = self.read_on(walk).await else {
            if let Some(walk) = now.current.take() {
                self.stats.update(|stats| stats.scrub_tables += 1);
                self.check_ends(&walk).await;
                self.tell_unreadable(&walk);
                let _ = self.quarantine(walk).await;
            }
            return Duration::ZERO;
        };
        self.stats.update(|stats| {
            stats.scrub_bytes += read;
            stats.scrub_left_bytes = stats.scrub_left_bytes.saturating_sub(read);
        });
        // All keyspaces share the rate.
        let keyspaces = self.core.trees.borrow().len().max(1) as f64;
        let rate = self.core.scrub.rate.get().max(1) as f64 / keyspaces;
        Duration::from_secs_f64(read as f64 / rate)
    }

    fn data_bytes(&self, id: TableId) -> u64 {
        self.live(|live| live.id == id).map_or(0, |live| live.table.table.info().data_bytes)
    }

    /// Reads and checks the next blocks; the number of bytes, or nothing at the end.
    async fn read_on(&self, walk: &mut Walk<E>) -> Option<u64> {
        let table = walk.live.table.table.clone();
        let index = table.index();
        if walk.left.is_empty() {
            return None;
        }
        let first = walk.left.start;
        let start = index.offset(first);
        let limit = start - start % PAGE as u64 + RUN_BYTES;
        let fits = |i: &usize| *i >= walk.alone && index.handle(*i).end() <= limit;
        let end = (first + 1..walk.left.end).take_while(fits).last().map_or(first + 1, |i| i + 1);
        match table.read_run(first..end).await {
            Ok(run) => {
                for i in first..end {
                    if !table.is_lost(i) && check_block(&table, &run, i).is_err() {
                        self.look_again(walk, i).await;
                    }
                    self.env.coop().await;
                }
            }
            Err(_) if end > first + 1 => {
                walk.alone = end;
                return Some(0);
            }
            Err(_) if table.is_lost(first) => {}
            Err(_) => self.look_again(walk, first).await,
        }
        walk.left.start = end;
        Some(index.handle(end - 1).end() - start)
    }

    /// A block was wrong or could not be read: only what is wrong again counts as damaged.
    async fn look_again(&self, walk: &mut Walk<E>, i: usize) {
        let table = walk.live.table.table.clone();
        let again = table.read_run(i..i + 1).await;
        match again.and_then(|run| check_block(&table, &run, i)) {
            Ok(()) => self.stats.update(|stats| stats.damage_not_confirmed += 1),
            Err(Error::Corruption { .. }) => walk.damaged.push(i),
            Err(error) => {
                walk.unreadable.push(i);
                walk.refused.get_or_insert(error);
            }
        }
    }

    /// Reads index, filter and footer of a table from the disk. Where they are damaged, or the disk
    /// refuses to read them, twice in a row, the table is written anew: the next opening would lose
    /// all of it, or fail.
    async fn check_ends(&self, walk: &Walk<E>) {
        let table = &walk.live.table.table;
        // A disk that gives nothing of the file at all says nothing about its ends.
        let is_away = walk.unreadable.len() == table.index().len();
        for last_look in [false, true] {
            let error = match Table::open(&self.env, table.path(), table.info().uid).await {
                Err(error @ (Error::Corruption { .. } | Error::UnknownVersion { .. })) => error,
                Err(error @ Error::Io { op: "read", .. }) if !is_away => error,
                // Neither damage nor the disk's fault: no files left to open, for instance.
                _ => return,
            };
            if last_look && self.ailing.borrow_mut().insert(walk.live.id) {
                self.suspects.tell(format!(
                    "{error}; nothing is lost, the table is written anew with what memory has"
                ));
                self.compaction_wanted.notify();
            }
        }
    }

    /// Tells and counts the blocks that the disk refuses to read.
    fn tell_unreadable(&self, walk: &Walk<E>) {
        if let Some(error) = &walk.refused {
            let blocks = walk.unreadable.len();
            self.suspects.tell(format!("{error}; {blocks} blocks of the table cannot be read"));
            self.stats.update(|stats| stats.unreadable_blocks += blocks as u64);
        }
    }

    /// Marks the damaged blocks of a table, durably.
    pub async fn quarantine(&self, walk: Walk<E>) -> Result<()> {
        let path = walk.live.table.table.path().to_owned();
        let what = "the block is damaged and its keys are quarantined";
        let tell = |at| format!("{}; the rest is served", Error::corruption(&path, at, what));
        let marked = self.mark(walk.live.id, walk.damaged, tell).await?;
        self.stats.update(|stats| stats.damaged_blocks += marked);
        Ok(())
    }

    /// Marks blocks of a table, durably, apart from those that are marked or of which the table
    /// has no keys any more; `tell` gives the operator's line for one at an offset. Returns how
    /// many it marked.
    pub async fn mark(
        &self,
        id: TableId,
        blocks: Vec<usize>,
        tell: impl Fn(u64) -> String,
    ) -> Result<u64> {
        // What a merge has read meanwhile is not lost.
        let Some(live) = self.live(|live| live.id == id) else { return Ok(0) };
        let table = &live.table.table;
        let within = live.table.blocks();
        let new = blocks.into_iter().filter(|i| within.contains(i) && !table.is_lost(*i));
        let lost: Vec<Lost> = new.map(|i| self.lost(&live, i)).collect();
        if lost.is_empty() {
            return Ok(0);
        }
        let offsets: Vec<u64> = lost.iter().map(|lost| lost.offset).collect();
        for offset in &offsets {
            self.suspects.tell(tell(*offset));
        }
        let retry = async |error| self.retry_manifest(&self.compaction_health, error).await;
        self.versions.mark(lost, self.log.last(), retry).await?;
        let marked = offsets.len() as u64;
        // Only now: a compaction that passes over a block relies on the mark.
        table.set_lost(offsets.into_iter());
        self.compaction_wanted.notify();
        Ok(marked)
    }

    /// What is lost with block `i` of a table.
    fn lost(&self, live: &LiveTable<E>, i: usize) -> Lost {
        let (table, bounds) = (&live.table.table, &live.table.bounds);
        let index = table.index();
        // A key that equals the separator before has its newest version before this block.
        let first = match i.checked_sub(1) {
            None => index.smallest().to_vec(),
            Some(before) => [index.separator(before), &[0]].concat(),
        };
        Lost {
            keyspace: self.keyspace,
            uid: table.info().uid,
            offset: index.offset(i),
            through: table.info().max_seq,
            file: name(table.path()),
            first: first.max(bounds.first.to_vec()).into(),
            last: index.separator(i).min(&*bounds.last).into(),
        }
    }
}

/// Checks one block that was read with `run`, entry by entry.
fn check_block<E: Env>(table: &Table<E>, run: &Run, i: usize) -> Result<()> {
    let block = table.open_block(run, i)?;
    let mut walk = BlockWalk::default();
    let bad = |what| table.damage(i, what);
    let mut more = walk.first(block).map_err(bad)?;
    while more {
        more = walk.advance().map_err(bad)?;
    }
    Ok(())
}
