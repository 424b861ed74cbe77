//! How much merges write, on a model of the tree that knows only which keys a table holds: the
//! same for every run, so that a change of the picker shows in numbers.

use super::picker::{Action, Job, Situation, WIDEST_MERGE, pick};
use super::policy::CompactionPolicy;
use super::shape::{RunShape, Shape, TableShape};
use crate::stats::LEVELS;
use crate::version::Expiry;
use crate::{Millis, TableId};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Model bytes of one entry.
const ENTRY: u64 = 10;
/// No table is refused.
const NONE: &BTreeSet<TableId> = &BTreeSet::new();
/// Entries of a flush.
const FLUSH: usize = 64;

/// A table: its number and its sorted keys.
type Table = (u64, Vec<u32>);

/// Tables by (level, run).
#[derive(Default)]
struct Tree {
    runs: BTreeMap<(usize, u64), Vec<Table>>,
    positions: [Vec<u8>; LEVELS],
    next: u64,
    flushed: u64,
    written: u64,
}

impl Tree {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn shape(&self) -> Shape {
        let mut levels = vec![Vec::new(); LEVELS];
        for ((level, number), tables) in self.runs.iter().rev() {
            let tables = tables.iter().map(|(id, keys)| TableShape {
                id: TableId(*id),
                first: Rc::from(&keys[0].to_be_bytes()[..]),
                last: Rc::from(&keys[keys.len() - 1].to_be_bytes()[..]),
                bytes: keys.len() as u64 * ENTRY,
                has_deletes: false,
                mostly_deletes: false,
                newest_entry: 0,
                expiry: Expiry::default(),
            });
            levels[*level].push(RunShape { number: *number, tables: tables.collect() });
        }
        Shape { levels }
    }

    fn flush(&mut self, mut keys: Vec<u32>) {
        keys.sort_unstable();
        keys.dedup();
        self.flushed += keys.len() as u64;
        let id = self.number();
        self.runs.insert((0, id), vec![(id, keys)]);
    }

    /// Does all that is owed when level 0 may wait for `level0_runs`.
    fn compact(&mut self, policy: &CompactionPolicy, level0_runs: u32) {
        loop {
            let positions = &self.positions;
            let now = Situation {
                positions,
                has_filter: false,
                level0_runs,
                wall_micros: 0,
                refused: NONE,
                now: Millis(0),
            };
            let Some(job) = pick(&self.shape(), policy, &now) else { return };
            self.run(&job, policy);
        }
    }

    fn take(&mut self, run: (usize, u64), ids: &[TableId]) -> Vec<Table> {
        let all = self.runs.remove(&run).unwrap_or_default();
        let (taken, kept): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(id, _)| ids.contains(&TableId(*id)));
        if !kept.is_empty() {
            self.runs.insert(run, kept);
        }
        taken
    }

    fn run(&mut self, job: &Job, policy: &CompactionPolicy) {
        let mut inputs = Vec::new();
        for (run, ids) in &job.upper {
            inputs.extend(self.take((job.level, *run), ids));
        }
        let last = inputs.iter().filter_map(|(_, keys)| keys.last()).max().copied();
        self.positions[job.level] = last.unwrap_or_default().to_be_bytes().to_vec();
        if let Some((run, ids)) = &job.between {
            inputs.extend(self.take((job.level + 1, *run), ids));
        }
        if let Some(run) = job.target_run {
            inputs.extend(self.take((job.target_level, run), &job.lower));
        }
        let number = self.number();
        let target = (job.target_level, job.target_run.unwrap_or(number));
        let outputs = match job.action {
            Action::Move => inputs,
            _ => {
                let mut keys: Vec<u32> = inputs.into_iter().flat_map(|(_, keys)| keys).collect();
                keys.sort_unstable();
                keys.dedup();
                self.written += keys.len() as u64;
                let per_table = policy.tree().map_or(FLUSH, |t| (t.table_bytes / ENTRY) as usize);
                keys.chunks(per_table).map(|keys| (self.number(), keys.to_vec())).collect()
            }
        };
        let tables = self.runs.entry(target).or_default();
        tables.extend(outputs);
        tables.sort_by_key(|(_, keys)| keys[0]);
    }
}

/// The policy with tables of a flush and a first level of four.
fn sized(policy: CompactionPolicy) -> CompactionPolicy {
    let flush = FLUSH as u64 * ENTRY;
    policy.sized(4 * flush, flush)
}

/// Entries that merges write per entry flushed, first while `keys` keys are filled in random
/// order, then while as many random ones are overwritten `rounds` times. Level 0 is drained at
/// the end of both.
fn merged(policy: &CompactionPolicy, keys: u32, rounds: u32, level0_runs: u32) -> [f64; 2] {
    let mut tree = Tree::default();
    // A fixed sequence of numbers (the constants of Numerical Recipes).
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    // An odd factor makes a permutation of a power of two.
    let fill: Vec<u32> = (0..keys).map(|n| n.wrapping_mul(2_654_435_761) % keys).collect();
    let over: Vec<u32> = (0..keys * rounds).map(|_| random() % keys).collect();
    [fill, over].map(|written| {
        let (flushed, merged) = (tree.flushed, tree.written);
        for keys in written.chunks(FLUSH) {
            tree.flush(keys.to_vec());
            tree.compact(policy, level0_runs);
        }
        tree.compact(policy, 0);
        (tree.written - merged) as f64 / (tree.flushed - flushed) as f64
    })
}

/// Two levels below level 0, as in a quick run of `perf/engines`: 32 flushes of data.
#[test]
fn a_burst_that_is_merged_together_writes_less() {
    let policy = sized(CompactionPolicy::leveled());
    let [calm_fill, calm_over] = merged(&policy, 2048, 4, 0);
    let [fill, over] = merged(&policy, 2048, 4, 16);
    assert!(calm_fill < 4.5 && calm_over < 6.8, "{calm_fill:.2} {calm_over:.2}");
    assert!(fill < 1.8 && over < 2.8, "{fill:.2} {over:.2}");
}

/// Three levels below level 0: 512 flushes of data.
#[test]
fn tiering_writes_less_than_half_of_leveling_where_leveling_has_its_levels() {
    let leveled = merged(&sized(CompactionPolicy::leveled()), 32 << 10, 1, 0);
    let tiered = merged(&sized(CompactionPolicy::tiered()), 32 << 10, 1, 0);
    println!("leveled {leveled:.2?}, tiered {tiered:.2?}");
    assert!(tiered[0] < leveled[0] / 2.0 && tiered[1] < leveled[1] / 2.0);
}

/// What FIFO left is brought to levels in pieces: every job is of bounded width, and what is owed
/// shrinks with each of them.
#[test]
fn hundreds_of_inherited_runs_are_merged_in_bounded_steps() {
    for policy in [CompactionPolicy::leveled(), CompactionPolicy::tiered()].map(sized) {
        let mut tree = Tree::default();
        for n in 0..300u32 {
            tree.flush((0..FLUSH as u32).map(|at| at * 1_000 + n % 250).collect());
        }
        let shape = policy.tree().unwrap();
        let first = tree.shape().debt(shape);
        let (mut jobs, mut last) = (0, first);
        loop {
            let positions = &tree.positions;
            let now = Situation {
                positions,
                has_filter: false,
                level0_runs: 0,
                wall_micros: 0,
                refused: NONE,
                now: Millis(0),
            };
            let Some(job) = pick(&tree.shape(), &policy, &now) else { break };
            let runs = job.upper.len() + usize::from(job.between.is_some());
            assert!(runs <= WIDEST_MERGE + 1, "{runs} runs in one merge");
            tree.run(&job, &policy);
            let debt = tree.shape().debt(shape);
            // A merge may find that the level below has to give way to more than was estimated.
            assert!(debt < last + first / 4, "{debt} owed after job {jobs}, {last} before");
            last = debt;
            jobs += 1;
        }
        assert!(jobs >= 9 && last == 0, "{jobs} jobs, {last} bytes owed at the end");
        assert!(tree.shape().levels[0].len() < 4);
    }
}
