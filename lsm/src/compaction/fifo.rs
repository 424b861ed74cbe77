//! FIFO: which tables are thrown away.
//!
//! A table may go only when nothing older shares its range of keys: an older version would come
//! back to light. So the oldest go first, whatever policy built the tree.

use super::picker::{Action, Job};
use super::policy::FifoPolicy;
use super::shape::{Shape, TableShape};
use std::time::Duration;

/// Drops every table that may go; `None` when all may stay.
pub(super) fn pick(shape: &Shape, policy: &FifoPolicy, wall_micros: u64) -> Option<Job> {
    let mut dropped = expired(shape, policy, wall_micros);
    if let Some(max) = policy.max_bytes {
        shrink(shape, max, &mut dropped);
    }
    let level = dropped.first()?.level;
    let run = dropped.first()?.run;
    // One run per job; the next pick finds the others.
    let same = dropped.iter().filter(|place| place.level == level && place.run == run);
    let tables = same.map(|place| place.table.id).collect();
    Some(Job {
        action: Action::Drop,
        level,
        upper: vec![(run, tables)],
        between: None,
        lower: Vec::new(),
        target_level: level,
        target_run: Some(run),
    })
}

struct Place<'a> {
    level: usize,
    run: u64,
    table: &'a TableShape,
}

/// All tables, oldest run first; within a run the one written longest ago first.
fn oldest_first(shape: &Shape) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for (level, runs) in shape.levels.iter().enumerate().rev() {
        for run in runs.iter().rev() {
            let mut tables: Vec<_> = run.tables.iter().collect();
            tables.sort_by_key(|table| (table.newest_entry, table.id));
            places.extend(tables.into_iter().map(|table| Place { level, run: run.number, table }));
        }
    }
    places
}

/// When a table may go: wall clock, microseconds since the Unix epoch.
pub(super) fn due(newest_entry: u64, ttl: Duration) -> u64 {
    newest_entry.saturating_add(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX))
}

fn expired<'a>(shape: &'a Shape, policy: &FifoPolicy, wall_micros: u64) -> Vec<Place<'a>> {
    let Some(ttl) = policy.ttl else { return Vec::new() };
    let mut kept: Vec<&TableShape> = Vec::new();
    let mut gone = Vec::new();
    for place in oldest_first(shape) {
        let old = due(place.table.newest_entry, ttl) <= wall_micros;
        if old && kept.iter().all(|older| !older.span().meets(&place.table.span())) {
            gone.push(place);
        } else {
            kept.push(place.table);
        }
    }
    gone
}

/// Adds the oldest tables until the rest fits.
fn shrink<'a>(shape: &'a Shape, max: u64, gone: &mut Vec<Place<'a>>) {
    let all = oldest_first(shape);
    let mut bytes: u64 = all.iter().map(|place| place.table.bytes).sum();
    bytes -= gone.iter().map(|place| place.table.bytes).sum::<u64>();
    for place in all {
        if bytes <= max {
            return;
        }
        if gone.iter().all(|other| other.table.id != place.table.id) {
            bytes -= place.table.bytes;
            gone.push(place);
        }
    }
}
