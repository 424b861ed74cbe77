//! Space of entries that have expired where nobody writes: tables that go as a whole, and tables
//! that are written anew without what expired.
//!
//! An expired entry goes on hiding older versions of its key. So a table goes only when nothing
//! older shares its range of keys; where something does, merging the table alone leaves deletes
//! in place of the values.

use super::picker::{Action, Job, Situation};
use super::shape::{RunShape, Shape, TableShape};
use crate::{Millis, TableId};

/// Drops tables of one run in which nothing is visible any more; the oldest such run goes first.
pub(super) fn drop_dead(shape: &Shape, now: Millis) -> Option<Job> {
    let dead = |table: &TableShape| table.expiry.all <= now;
    oldest_first(shape).find_map(|(level, at, run)| {
        let bare = |table: &&TableShape| dead(table) && !has_older(shape, level, at, table);
        let tables: Vec<TableId> = run.tables.iter().filter(bare).map(|table| table.id).collect();
        (!tables.is_empty()).then(|| job(Action::Drop, level, run, tables))
    })
}

/// Writes a table anew in its place, at least half of which has expired; the oldest goes first.
/// What comes of it has less than that, so that every value is written at most once more for each
/// time that half of its company goes.
pub(super) fn rewrite(shape: &Shape, now: &Situation<'_>) -> Option<Job> {
    let is_due =
        |table: &&TableShape| table.expiry.half <= now.now && !now.refused.contains(&table.id);
    oldest_first(shape).find_map(|(level, _, run)| {
        let worth = run.tables.iter().find(is_due)?;
        Some(job(Action::Merge, level, run, vec![worth.id]))
    })
}

/// Every run with its level and its place there.
fn oldest_first(shape: &Shape) -> impl Iterator<Item = (usize, usize, &RunShape)> {
    let levels = shape.levels.iter().enumerate().rev();
    levels.flat_map(|(level, runs)| {
        runs.iter().enumerate().rev().map(move |(at, run)| (level, at, run))
    })
}

/// Whether an older run has a table in the table's range of keys.
fn has_older(shape: &Shape, level: usize, at: usize, table: &TableShape) -> bool {
    let deeper = shape.levels[level + 1..].iter().flatten();
    let mut older = shape.levels[level][at + 1..].iter().chain(deeper);
    older.any(|run| run.overlapping(table.span()).next().is_some())
}

fn job(action: Action, level: usize, run: &RunShape, tables: Vec<TableId>) -> Job {
    Job {
        action,
        level,
        upper: vec![(run.number, tables)],
        between: None,
        lower: Vec::new(),
        target_level: level,
        target_run: Some(run.number),
    }
}
