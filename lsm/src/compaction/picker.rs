//! Which tables to merge next: a pure function of the tree's shape and the policy.
//!
//! Ages stay in order by construction: a merge takes the oldest runs of a level, or a part of
//! its only run, and brings them to the newest run of the level below, to a new run above that
//! one, or (merging in place) to the next newer run of their own level. What lies between
//! source and target in age is always part of the merge.

use super::policy::{CompactionPolicy, TreePolicy};
use super::shape::{RunShape, Shape, Span, TableShape, span_of};
use super::{expired, fifo};
use crate::stats::LEVELS;
use crate::{Millis, TableId};
use std::collections::BTreeSet;

/// Runs merged at a time; what is left over waits for the next merge.
pub(super) const WIDEST_MERGE: usize = 32;

/// What to do with a job's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write their entries anew.
    Merge,
    /// Nothing overlaps: only the manifest changes.
    Move,
    /// Throw them away.
    Drop,
}

/// One piece of compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// What to do.
    pub action: Action,
    /// Where the upper inputs come from.
    pub level: usize,
    /// Upper inputs: run number and tables by key; newest run first.
    pub upper: Vec<(u64, Vec<TableId>)>,
    /// All of the only run of the level between `level` and `target_level`, where the merge
    /// passes one over.
    pub between: Option<(u64, Vec<TableId>)>,
    /// Tables of the target run that overlap the upper inputs, by key.
    pub lower: Vec<TableId>,
    /// Where the outputs go: `level`, the level below, or the one below that.
    pub target_level: usize,
    /// The run there that they join; `None`: a new one, newer than all of that level.
    pub target_run: Option<u64>,
}

/// What the picker looks at beside shape and policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    /// Largest key of each level's last partial merge; the next one goes on behind it.
    pub positions: &'a [Vec<u8>; LEVELS],
    /// Entries of the last level may be dropped by a filter, so moves there keep garbage.
    pub has_filter: bool,
    /// Runs of level 0 that start a merge now: those of the policy, or more while flushes keep
    /// coming.
    pub level0_runs: u32,
    /// Wall clock, microseconds since the Unix epoch.
    pub wall_micros: u64,
    /// The moment by which entries expire.
    pub now: Millis,
    /// Tables that cannot be read for the moment: they may be moved and dropped, not merged.
    pub refused: &'a BTreeSet<TableId>,
}

impl Situation<'_> {
    fn allows(&self, job: &Job) -> bool {
        let tables = job.upper.iter().chain(&job.between).flat_map(|(_, tables)| tables);
        let refused = tables.chain(&job.lower).any(|id| self.refused.contains(id));
        job.action != Action::Merge || !refused
    }

    fn can_read(&self, run: &RunShape, span: Span<'_>) -> bool {
        self.refused.is_empty() || !run.overlapping(span).any(|t| self.refused.contains(&t.id))
    }
}

/// The most urgent job, if anything is owed.
pub(crate) fn pick(shape: &Shape, policy: &CompactionPolicy, now: &Situation<'_>) -> Option<Job> {
    // What costs nothing but an edit goes first, whatever the policy.
    let dead = expired::drop_dead(shape, now.now);
    dead.or_else(|| match policy {
        CompactionPolicy::Tree(tree) => pick_tree(shape, tree, now),
        CompactionPolicy::Fifo(policy) => fifo::pick(shape, policy, now.wall_micros),
    })
}

fn pick_tree(shape: &Shape, policy: &TreePolicy, now: &Situation<'_>) -> Option<Job> {
    let score = |level| match level {
        0 => shape.levels[0].len() as f64 / f64::from(now.level0_runs.max(policy.level0_runs)),
        _ => shape.score(level, policy),
    };
    let owing = (0..LEVELS).map(|level| (level, score(level))).filter(|(_, score)| *score >= 1.0);
    let mut owing: Vec<(usize, f64)> = owing.collect();
    // Of equal scores the upper level goes first.
    owing.sort_by(|a, b| b.1.total_cmp(&a.1));
    let job = owing.into_iter().find_map(|(level, _)| {
        let job = match level {
            0 => from_level0(shape, policy, now),
            _ if shape.merges_in_place(policy, level) => in_place(shape, level, now),
            _ => downwards(shape, policy, level, now),
        };
        job.filter(|job| now.allows(job))
    });
    let job = job.or_else(|| mostly_deletes(shape, policy, now));
    job.or_else(|| expired::rewrite(shape, now))
}

/// The oldest runs of a level, as many as one merge takes; newest first.
fn oldest(runs: &[RunShape]) -> &[RunShape] {
    &runs[runs.len().saturating_sub(WIDEST_MERGE)..]
}

fn from_level0(shape: &Shape, policy: &TreePolicy, now: &Situation<'_>) -> Option<Job> {
    let runs = oldest(&shape.levels[0]);
    // What is newer than a table that cannot be read waits with it.
    let refused = |run: &RunShape| run.tables.iter().any(|table| now.refused.contains(&table.id));
    let runs = &runs[runs.iter().rposition(refused).map_or(0, |at| at + 1)..];
    let all = to_level_below(shape, policy, 0, whole(runs), now)?;
    if all.action == Action::Move {
        return Some(all);
    }
    // The oldest flush alone may have nothing in common with anybody.
    let (alone, newer) = shape.levels[0].split_last()?;
    let span = span_of(alone.tables.iter())?;
    let met = newer.iter().any(|run| run.overlapping(span).next().is_some());
    let single = (!met)
        .then(|| to_level_below(shape, policy, 0, whole(std::slice::from_ref(alone)), now))
        .flatten();
    let moved = single.filter(|job| job.action == Action::Move);
    let further = || past_level1(shape, policy, runs, now).filter(|job| now.allows(job));
    Some(moved.or_else(further).unwrap_or(all))
}

/// Level 0 and level 1 together to level 2, where that writes less than filling level 1 and then
/// bringing down what it has too much. So level 1 is passed over while level 2 is small, and when
/// a burst brings much at once.
fn past_level1(
    shape: &Shape,
    policy: &TreePolicy,
    runs: &[RunShape],
    now: &Situation<'_>,
) -> Option<Job> {
    let leveled = (1..=2).all(|level| policy.runs(level, shape.bottom()) == 1);
    let ([below], true) = (&shape.levels[2][..], leveled) else { return None };
    let between = match &shape.levels[1][..] {
        [] => None,
        [run] => Some(run),
        _ => return None,
    };
    let inputs = || runs.iter().chain(between).flat_map(|run| &run.tables);
    let span = span_of(inputs())?;
    let arriving: u64 = inputs().map(|table| table.bytes).sum();
    let met: u64 = below.overlapping(span).map(|table| table.bytes).sum();
    let over = arriving.saturating_sub(policy.capacity(1));
    let share = 1.0 + met as f64 / arriving.max(1) as f64;
    if met == 0 || met as f64 >= over as f64 * share {
        return None;
    }
    let mut all = whole(runs);
    let number = between.map(|run| run.number);
    all.extend(between.map(|run| (run.number, run.tables.iter().collect())));
    let mut job = job(shape, 0, all, (2, Some(below)), now)?;
    job.between = number.and_then(|_| job.upper.pop());
    Some(job)
}

/// Merges older runs of a level into the newest of them.
fn in_place(shape: &Shape, level: usize, now: &Situation<'_>) -> Option<Job> {
    let (newest, older) = oldest(&shape.levels[level]).split_first()?;
    job(shape, level, whole(older), (level, Some(newest)), now)
}

/// Brings a level nearer to its capacity: a part of its only run where both levels have one
/// run, otherwise all of its runs together.
fn downwards(shape: &Shape, policy: &TreePolicy, level: usize, now: &Situation<'_>) -> Option<Job> {
    let runs = oldest(&shape.levels[level]);
    let [run] = runs else { return to_level_below(shape, policy, level, whole(runs), now) };
    if shape.goes_down_whole(policy, level) {
        return to_level_below(shape, policy, level, whole(runs), now);
    }
    let position = &now.positions[level][..];
    let (before, behind) =
        run.tables.split_at(run.tables.partition_point(|table| *table.first <= *position));
    let mut jobs = behind.iter().chain(before).filter_map(|table| {
        to_level_below(shape, policy, level, vec![(run.number, vec![table])], now)
    });
    jobs.find(|job| now.allows(job))
}

/// A table above the bottom that holds mainly deletes: they cost every scan, and go only by
/// moving down. Only between levels of one run, where such a table can go alone.
fn mostly_deletes(shape: &Shape, policy: &TreePolicy, now: &Situation<'_>) -> Option<Job> {
    (1..shape.bottom()).find_map(|level| {
        let [run] = &shape.levels[level][..] else { return None };
        let single = shape.levels[level + 1].len() <= 1;
        let mut heavy = run.tables.iter().filter(|table| table.mostly_deletes && single);
        heavy.find_map(|table| {
            let job = to_level_below(shape, policy, level, vec![(run.number, vec![table])], now);
            job.filter(|job| now.allows(job))
        })
    })
}

type Upper<'a> = Vec<(u64, Vec<&'a TableShape>)>;

fn whole(runs: &[RunShape]) -> Upper<'_> {
    runs.iter().map(|run| (run.number, run.tables.iter().collect())).collect()
}

/// Finds the run below that the inputs join, or lets them become a new one.
fn to_level_below(
    shape: &Shape,
    policy: &TreePolicy,
    level: usize,
    upper: Upper<'_>,
    now: &Situation<'_>,
) -> Option<Job> {
    let target = level + 1;
    let span = span_of(upper.iter().flat_map(|(_, tables)| tables.iter().copied()))?;
    let bytes: u64 = upper.iter().flat_map(|(_, tables)| tables).map(|table| table.bytes).sum();
    let allowed = policy.runs(target, shape.bottom());
    let joined = shape.levels[target].first().filter(|newest| {
        let fits = newest.bytes().saturating_add(bytes) <= policy.capacity(target) / allowed as u64;
        allowed == 1
            || fits && now.can_read(newest, span)
            || newest.overlapping(span).next().is_none()
    });
    job(shape, level, upper, (target, joined), now)
}

fn job(
    shape: &Shape,
    level: usize,
    upper: Upper<'_>,
    (target_level, target): (usize, Option<&RunShape>),
    now: &Situation<'_>,
) -> Option<Job> {
    let tables: Vec<&TableShape> = upper.iter().flat_map(|(_, t)| t.iter().copied()).collect();
    let span = span_of(tables.iter().copied())?;
    let lower: Vec<TableId> =
        target.iter().flat_map(|run| run.overlapping(span)).map(|table| table.id).collect();
    // A move to where nothing is older would keep deletes, and what the filter drops, for ever.
    let deletes = tables.iter().any(|table| table.has_deletes);
    let newest = target.map_or(u64::MAX, |run| run.number);
    let older = |run: &RunShape| run.number < newest && upper.iter().all(|(n, _)| *n != run.number);
    let is_oldest = target_level >= shape.bottom() && !shape.levels[target_level].iter().any(older);
    let keeps_garbage = is_oldest && (deletes || now.has_filter);
    let moves = lower.is_empty() && are_disjoint(tables) && !keeps_garbage;
    Some(Job {
        action: if moves { Action::Move } else { Action::Merge },
        level,
        upper: upper
            .into_iter()
            .map(|(run, tables)| (run, tables.into_iter().map(|table| table.id).collect()))
            .collect(),
        between: None,
        lower,
        target_level,
        target_run: target.map(|run| run.number),
    })
}

/// Whether no two tables have a key in common.
fn are_disjoint(mut tables: Vec<&TableShape>) -> bool {
    tables.sort_by(|a, b| a.first.cmp(&b.first));
    let spans: Vec<Span<'_>> = tables.into_iter().map(TableShape::span).collect();
    spans.windows(2).all(|pair| !pair[0].meets(&pair[1]))
}
