//! Which tables to merge next: the level that is furthest over its size, a table of it in
//! round-robin order, and what it overlaps below.

use crate::Options;
use crate::env::Env;
use crate::stats::LEVELS;
use crate::version::{LiveTable, Version};
use std::rc::Rc;

/// One compaction from `level` into the level below.
pub(super) struct Job<E: Env> {
    /// Where the upper inputs come from.
    pub level: usize,
    /// Inputs from `level`; newest first in level 0, by key below.
    pub upper: Vec<Rc<LiveTable<E>>>,
    /// Inputs from `level + 1`, by key.
    pub lower: Vec<Rc<LiveTable<E>>>,
    /// The version the inputs are from.
    pub version: Rc<Version<E>>,
    /// Nothing overlaps: the tables only change their level.
    pub is_move: bool,
}

/// The most urgent compaction, if any level owes one. `positions` holds for each level the key
/// where its last compaction ended.
pub(super) fn pick<E: Env>(
    version: &Rc<Version<E>>,
    options: &Options,
    positions: &[Vec<u8>; LEVELS],
    has_filter: bool,
) -> Option<Job<E>> {
    let scores = (0..LEVELS - 1).map(|level| (level, version.score(level, options)));
    // Rises before falling: of equal scores the upper level goes first.
    let (level, score) = scores.reduce(|best, next| if next.1 > best.1 { next } else { best })?;
    let (level, upper) = match level {
        _ if score < 1.0 => mostly_deletes(version)?,
        0 => (0, upper_of_level0(version)),
        _ => (level, next_table(version, level, &positions[level])),
    };
    let first = upper.iter().map(|live| live.table.smallest()).min()?;
    let last = upper.iter().map(|live| live.table.largest()).max()?;
    let lower = version.levels[level + 1].overlapping(first, last);
    // A move to the bottom would keep deletes, and what the filter drops, for ever.
    let deletes = upper.iter().any(|live| live.table.table.info().deletes > 0);
    let keeps_garbage = level + 1 >= version.bottom() && (deletes || has_filter);
    let is_move = lower.is_empty() && upper.len() == 1 && !keeps_garbage;
    Some(Job { level, upper, lower, version: version.clone(), is_move })
}

/// All of level 0, or only its oldest table when that can move down alone.
fn upper_of_level0<E: Env>(version: &Version<E>) -> Vec<Rc<LiveTable<E>>> {
    let tables = &version.levels[0].tables;
    let alone = tables.split_last().filter(|(oldest, newer)| {
        let (first, last) = (oldest.table.smallest(), oldest.table.largest());
        newer.iter().all(|live| !live.overlaps(first, last))
            && version.levels[1].overlapping(first, last).is_empty()
    });
    match alone {
        Some((oldest, _)) => vec![oldest.clone()],
        None => tables.clone(),
    }
}

/// A table above the bottom that holds mainly deletes: they cost every scan, and go only by
/// moving down.
fn mostly_deletes<E: Env>(version: &Version<E>) -> Option<(usize, Vec<Rc<LiveTable<E>>>)> {
    let heavy = |live: &LiveTable<E>| {
        let info = live.table.table.info();
        info.deletes * 2 >= info.entries
    };
    let mut deeper = version.tables().filter(|(level, _)| (1..version.bottom()).contains(level));
    deeper.find(|(_, live)| heavy(live)).map(|(level, live)| (level, vec![live.clone()]))
}

/// The first table beyond the position, round-robin.
fn next_table<E: Env>(
    version: &Version<E>,
    level: usize,
    position: &[u8],
) -> Vec<Rc<LiveTable<E>>> {
    let tables = &version.levels[level].tables;
    let next = tables.iter().find(|live| live.table.smallest() > position);
    next.or(tables.first()).cloned().into_iter().collect()
}
