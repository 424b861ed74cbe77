//! The picker against a tree of maps: whatever is flushed, merged in whole or in part, and
//! however often the policy changes, the newest version wins, ages stay in order, and the debt
//! ends.

use super::picker::{Action, Job, Situation, pick};
use super::policy::{CompactionPolicy, LevelShape, TreePolicy};
use super::shape::{RunShape, Shape, TableShape};
use crate::stats::LEVELS;
use crate::version::Expiry;
use crate::{Millis, TableId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Model bytes of one entry.
const ENTRY: u64 = 10;
/// No table is refused.
const NONE: &BTreeSet<TableId> = &BTreeSet::new();

/// What a key holds: when it was written, and the moment from which it is not visible.
type Entry = (u64, u64);

/// A delete is never visible.
const DELETE: u64 = 0;
/// An entry that does not expire.
const FOR_EVER: u64 = u64::MAX;

#[derive(Debug, Clone)]
struct Table {
    id: TableId,
    /// The file's content; keys before `from` are cut off.
    file: BTreeMap<u16, Entry>,
    from: Option<u16>,
    flushed: u64,
}

impl Table {
    fn live(&self) -> impl Iterator<Item = (u16, Entry)> + '_ {
        let from = self.from.unwrap_or(0);
        self.file.range(from..).map(|(key, entry)| (*key, *entry))
    }

    fn shape(&self) -> TableShape {
        let deletes = self.file.values().filter(|(_, until)| *until == DELETE).count();
        let mut moments: Vec<u64> = self.file.values().map(|(_, until)| *until).collect();
        moments.sort_unstable();
        let half = moments.get(deletes + self.file.len().div_ceil(2) - 1);
        let expiry = Expiry {
            all: Millis(*moments.last().unwrap()),
            half: half.map_or(Expiry::NEVER, |until| Millis(*until)),
        };
        let (first, _) = self.file.first_key_value().unwrap();
        let (last, _) = self.file.last_key_value().unwrap();
        let mut bound = self.from.map_or(*first, |from| from - 1).to_be_bytes().to_vec();
        bound.extend(self.from.map(|_| 0));
        TableShape {
            id: self.id,
            first: bound.into(),
            last: Rc::from(&last.to_be_bytes()[..]),
            bytes: self.file.len() as u64 * ENTRY,
            has_deletes: deletes > 0,
            mostly_deletes: deletes * 2 >= self.file.len(),
            newest_entry: self.flushed,
            expiry,
        }
    }
}

/// Runs by (level, number), the order of ages reversed.
#[derive(Debug, Default)]
struct Tree {
    runs: BTreeMap<(usize, u64), Vec<Table>>,
    expected: BTreeMap<u16, Entry>,
    next: u64,
    clock: u64,
    /// The moment by which entries expire.
    now: u64,
}

impl Tree {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Keys that are deleted or put for ever.
    fn flush(&mut self, keys: &[(u16, bool)]) {
        let until = |delete| if delete { DELETE } else { FOR_EVER };
        let keys: Vec<_> = keys.iter().map(|(key, delete)| (*key, until(*delete))).collect();
        self.flush_until(&keys);
    }

    fn flush_until(&mut self, keys: &[(u16, u64)]) {
        let id = TableId(self.number());
        self.clock += 1;
        let mut file = BTreeMap::new();
        for (key, until) in keys {
            let seq = self.number();
            file.insert(*key, (seq, *until));
            self.expected.insert(*key, (seq, *until));
        }
        let table = Table { id, file, from: None, flushed: self.clock };
        self.runs.insert((0, id.0), vec![table]);
    }

    fn shape(&self) -> Shape {
        let mut levels = vec![Vec::new(); LEVELS];
        for ((level, number), tables) in self.runs.iter().rev() {
            let tables = tables.iter().map(Table::shape).collect();
            levels[*level].push(RunShape { number: *number, tables });
        }
        Shape { levels }
    }

    fn take(&mut self, run: (usize, u64), ids: &[TableId]) -> Vec<Table> {
        let all = self.runs.remove(&run).unwrap_or_default();
        let (taken, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|t| ids.contains(&t.id));
        assert_eq!(taken.len(), ids.len(), "the job names tables that are not in run {run:?}");
        if !kept.is_empty() {
            self.runs.insert(run, kept);
        }
        taken
    }

    fn put(&mut self, run: (usize, u64), table: Table) {
        let tables = self.runs.entry(run).or_default();
        tables.push(table);
        tables.sort_by_key(|t| t.shape().first);
    }

    /// Runs the job up to the key `cut` (to its end without one).
    fn run(&mut self, job: &Job, policy: &CompactionPolicy, cut: Option<u16>) {
        let target = (job.target_level, job.target_run.unwrap_or(self.next + 1));
        self.next += 1;
        let mut inputs = Vec::new();
        let lower = job.target_run.map(|run| (run, job.lower.clone()));
        let upper = job.upper.iter().map(|(run, ids)| ((job.level, *run), ids.clone()));
        let lower = lower.map(|(run, ids)| ((job.target_level, run), ids));
        let between = job.between.iter().map(|(run, ids)| ((job.level + 1, *run), ids.clone()));
        for (run, ids) in upper.chain(between).chain(lower).collect::<Vec<_>>() {
            inputs.extend(self.take(run, &ids).into_iter().map(|table| (run, table)));
        }
        match job.action {
            // A table may be dropped only if nothing comes back to light: `check` looks.
            Action::Drop => {}
            Action::Move => inputs.into_iter().for_each(|(_, table)| self.put(target, table)),
            Action::Merge => self.merge(inputs, target, policy, cut),
        }
    }

    fn merge(
        &mut self,
        inputs: Vec<((usize, u64), Table)>,
        target: (usize, u64),
        policy: &CompactionPolicy,
        cut: Option<u16>,
    ) {
        let mut merged: BTreeMap<u16, Entry> = BTreeMap::new();
        let flushed = inputs.iter().map(|(_, table)| table.flushed).max().unwrap();
        for (run, mut table) in inputs {
            for (key, entry) in table.live().filter(|(key, _)| cut.is_none_or(|cut| *key <= cut)) {
                let newest = merged.entry(key).or_insert(entry);
                *newest = (*newest).max(entry);
            }
            let last = *table.file.last_key_value().unwrap().0;
            if let Some(cut) = cut.filter(|cut| last > *cut) {
                if *table.shape().first <= cut.to_be_bytes()[..] {
                    table.from = Some(cut + 1);
                }
                self.put(run, table);
            }
        }
        let expired = merged.values_mut().filter(|(_, until)| *until <= self.now);
        expired.for_each(|(_, until)| *until = DELETE);
        merged.retain(|key, (_, until)| *until > DELETE || self.older_holds(target, *key));
        let per_table = policy.tree().map_or(8, |tree| (tree.table_bytes / ENTRY).max(1)) as usize;
        let entries: Vec<_> = merged.into_iter().collect();
        for chunk in entries.chunks(per_table) {
            let id = TableId(self.number());
            let file = chunk.iter().copied().collect();
            self.put(target, Table { id, file, from: None, flushed });
        }
    }

    fn older_holds(&self, (level, number): (usize, u64), key: u16) -> bool {
        let holds = |table: &Table| table.live().any(|(held, _)| held == key);
        self.runs.iter().any(|((l, n), tables)| {
            (*l > level || (*l == level && *n < number)) && tables.iter().any(holds)
        })
    }

    /// Ages are in order for every key, runs do not overlap, and reads find the newest version.
    fn check(&self) {
        let mut seen: BTreeMap<u16, Entry> = BTreeMap::new();
        let mut last: BTreeMap<u16, u64> = BTreeMap::new();
        let mut levels: Vec<_> = self.runs.iter().collect();
        levels.sort_by_key(|((level, number), _)| (*level, std::cmp::Reverse(*number)));
        for (place, tables) in levels {
            let spans: Vec<_> = tables.iter().map(Table::shape).collect();
            let disjoint = spans.windows(2).all(|pair| pair[0].last < pair[1].first);
            assert!(disjoint, "tables of run {place:?} overlap");
            for (key, entry) in tables.iter().flat_map(Table::live) {
                seen.entry(key).or_insert(entry);
                let newer = last.insert(key, entry.0);
                assert!(newer.is_none_or(|newer| newer > entry.0), "key {key}: ages are mixed up");
            }
        }
        let visible = |map: &BTreeMap<u16, Entry>| -> Vec<(u16, u64)> {
            let shown = map.iter().filter(|(_, (_, until))| *until > self.now);
            shown.map(|(key, (seq, _))| (*key, *seq)).collect()
        };
        assert_eq!(visible(&seen), visible(&self.expected));
    }
}

#[derive(Debug, Clone)]
enum Op {
    Flush(Vec<(u16, u64)>),
    /// Time goes by.
    Pass(u64),
    /// One job, cut off at a key; level 0 may wait for so many runs, and of every five tables in
    /// the order of their numbers one cannot be read.
    Compact(Option<u16>, u32, Option<u64>),
    Switch(CompactionPolicy),
    Settle,
}

fn policies() -> impl Strategy<Value = CompactionPolicy> {
    let shape = (2..6u32, 1..6u32).prop_map(|(fanout, runs)| LevelShape { fanout, runs });
    let levels = proptest::collection::vec(shape, 1..4);
    let custom = (1..6u32, 10..800u64, 10..200u64, levels, 1..6u32).prop_map(
        |(level0_runs, level1_bytes, table_bytes, levels, last_runs)| {
            let tree = TreePolicy { level0_runs, level1_bytes, table_bytes, levels, last_runs };
            CompactionPolicy::Tree(tree)
        },
    );
    let small = |policy: CompactionPolicy| policy.sized(120, 60);
    prop_oneof![
        Just(small(CompactionPolicy::leveled())),
        Just(small(CompactionPolicy::tiered())),
        Just(small(CompactionPolicy::lazy_leveled())),
        custom,
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || prop_oneof![0..400u16, 0..30u16];
    let until = prop_oneof![2 => Just(DELETE), 4 => Just(FOR_EVER), 4 => 1..500u64];
    let entry = (key(), until);
    let flush = proptest::collection::vec(entry, 1..40).prop_map(Op::Flush);
    let op = prop_oneof![
        6 => flush,
        1 => (1..60u64).prop_map(Op::Pass),
        6 => (proptest::option::of(key()), 0..12u32, proptest::option::of(0..5u64))
            .prop_map(|(cut, runs, refused)| Op::Compact(cut, runs, refused)),
        1 => policies().prop_map(Op::Switch),
        1 => Just(Op::Settle),
    ];
    proptest::collection::vec(op, 1..80)
}

fn situation(positions: &[Vec<u8>; LEVELS], has_filter: bool) -> Situation<'_> {
    Situation {
        positions,
        has_filter,
        level0_runs: 0,
        wall_micros: 0,
        now: Millis(0),
        refused: NONE,
    }
}

/// Runs jobs until nothing is owed.
fn settle(tree: &mut Tree, policy: &CompactionPolicy, positions: &mut [Vec<u8>; LEVELS]) {
    let mut jobs = 0;
    loop {
        let now = Situation { now: Millis(tree.now), ..situation(positions, false) };
        let Some(job) = pick(&tree.shape(), policy, &now) else { break };
        let ids: Vec<TableId> = job.upper.iter().flat_map(|(_, ids)| ids.clone()).collect();
        let shape = tree.shape();
        let alone = job.upper.len() == 1 && job.lower.is_empty();
        if job.action == Action::Merge
            && (job.level == job.target_level && !alone || job.upper.len() > 1)
        {
            assert!(shape.debt(policy.tree().unwrap()) > 0, "{policy}: no debt of {job:?}");
        }
        let tables = shape.levels[job.level].iter().flat_map(|run| &run.tables);
        let last = tables.filter(|table| ids.contains(&table.id)).map(|t| t.last.to_vec()).max();
        tree.run(&job, policy, None);
        positions[job.level] = last.unwrap();
        tree.check();
        jobs += 1;
        assert!(jobs < 2_000, "no end: {policy} {job:?}");
    }
    let shape = tree.shape();
    let scores = (0..LEVELS).map(|level| shape.score(level, policy.tree().unwrap()));
    assert!(scores.fold(0.0, f64::max) < 1.0, "{policy} leaves a debt");
    assert_eq!(shape.debt(policy.tree().unwrap()), 0, "{policy}");
    let mut tables = shape.levels.iter().flatten().flat_map(|run| &run.tables);
    assert!(tables.all(|table| table.expiry.half.0 > tree.now), "{policy} keeps what expired");
    let bottom = shape.levels.iter().flatten().last();
    let mut oldest = bottom.iter().flat_map(|run| &run.tables);
    assert!(oldest.all(|table| table.expiry.all.0 > tree.now), "{policy} keeps what expired");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn ages_stay_in_order_and_debts_end(first in policies(), ops in ops()) {
        let (mut tree, mut policy) = (Tree::default(), first);
        let mut positions = [const { Vec::new() }; LEVELS];
        for op in ops {
            match op {
                Op::Flush(keys) => tree.flush_until(&keys),
                Op::Pass(time) => tree.now += time,
                Op::Switch(next) => policy = next,
                Op::Settle => settle(&mut tree, &policy, &mut positions),
                Op::Compact(cut, level0_runs, refused) => {
                    let ids = tree.runs.values().flatten().map(|table| table.id);
                    let refused = ids.filter(|id| Some(id.0 % 5) == refused).collect();
                    let now = situation(&positions, false);
                    let now = Situation {
                        level0_runs,
                        now: Millis(tree.now),
                        refused: &refused,
                        ..now
                    };
                    if let Some(job) = pick(&tree.shape(), &policy, &now) {
                        let tables = job.upper.iter().chain(&job.between).flat_map(|(_, ids)| ids);
                        let mut inputs = tables.chain(&job.lower);
                        let reads = job.action == Action::Merge;
                        prop_assert!(!reads || !inputs.any(|id| refused.contains(id)), "{:?}", job);
                        tree.run(&job, &policy, cut);
                    }
                }
            }
            tree.check();
        }
        settle(&mut tree, &policy, &mut positions);
    }

    #[test]
    fn the_same_shape_gives_the_same_job(policy in policies(), flushes in 1..20u16) {
        let mut tree = Tree::default();
        for n in 0..flushes {
            tree.flush(&[(n * 3 % 17, false), (n + 20, n % 4 == 0)]);
        }
        let positions = [const { Vec::new() }; LEVELS];
        let (shape, now) = (tree.shape(), situation(&positions, false));
        prop_assert_eq!(pick(&shape, &policy, &now), pick(&shape, &policy, &now));
    }
}

fn settled(policy: &CompactionPolicy, flushes: impl Iterator<Item = Vec<(u16, bool)>>) -> Tree {
    let mut tree = Tree::default();
    let mut positions = [const { Vec::new() }; LEVELS];
    for keys in flushes {
        tree.flush(&keys);
        settle(&mut tree, policy, &mut positions);
    }
    tree
}

/// Flushes of keys spread over the whole range.
fn spread(count: u16) -> impl Iterator<Item = Vec<(u16, bool)>> {
    (0..count).map(|n| (0..6).map(|k| ((n * 31 + k * 67) % 400, false)).collect())
}

#[test]
fn presets_have_their_shapes() {
    let sized = |policy: CompactionPolicy| policy.sized(240, 60);
    let runs = |policy: &CompactionPolicy| -> Vec<usize> {
        let shape = settled(policy, spread(200)).shape();
        shape.levels.iter().map(Vec::len).collect()
    };
    let leveled = runs(&sized(CompactionPolicy::leveled()));
    assert!(leveled[1..].iter().all(|runs| *runs <= 1), "{leveled:?}");
    let tiered = runs(&sized(CompactionPolicy::tiered()));
    assert!(tiered[1..].iter().any(|runs| *runs > 1), "{tiered:?}");
    assert!(tiered[1..].iter().all(|runs| *runs <= 3), "{tiered:?}");
    let lazy = sized(CompactionPolicy::lazy_leveled());
    let shape = settled(&lazy, spread(200)).shape();
    assert!(shape.bottom() > 1);
    assert_eq!(shape.levels[shape.bottom()].len(), 1);
}

#[test]
fn rising_keys_are_only_moved() {
    for policy in [CompactionPolicy::leveled(), CompactionPolicy::tiered()] {
        let policy = policy.sized(240, 60);
        let mut tree = Tree::default();
        let positions = [const { Vec::new() }; LEVELS];
        for n in 0..60u16 {
            tree.flush(&(0..6).map(|k| (n * 6 + k, false)).collect::<Vec<_>>());
            while let Some(job) = pick(&tree.shape(), &policy, &situation(&positions, false)) {
                assert_eq!(job.action, Action::Move, "{policy}: {job:?}");
                tree.run(&job, &policy, None);
            }
        }
    }
}

#[test]
fn fifo_drops_the_oldest_and_nothing_that_hides_older() {
    let mut tree = Tree::default();
    tree.flush(&[(1, false), (9, false)]);
    tree.flush(&[(1, false)]);
    tree.flush(&[(50, false)]);
    // The oldest data is dated newer than what hides it, as after a merge.
    tree.runs.get_mut(&(0, 1)).unwrap()[0].flushed = 1_000_000_000;
    let positions = [const { Vec::new() }; LEVELS];
    let at = |wall_micros| Situation {
        positions: &positions,
        has_filter: false,
        level0_runs: 0,
        wall_micros,
        refused: NONE,
        now: Millis(0),
    };
    let day = CompactionPolicy::fifo(Some(std::time::Duration::from_secs(100)), None);
    assert_eq!(pick(&tree.shape(), &day, &at(5)), None);
    let expired = pick(&tree.shape(), &day, &at(200_000_000)).unwrap();
    assert_eq!(expired.action, Action::Drop);
    let third = tree.runs.keys().next_back().unwrap().1;
    assert_eq!(expired.upper, [(third, vec![TableId(third)])]);
    let small = CompactionPolicy::fifo(None, Some(3 * ENTRY));
    let first = pick(&tree.shape(), &small, &at(0)).unwrap();
    assert_eq!(first.upper, [(1, vec![TableId(1)])]);
    tree.run(&first, &small, None);
    assert_eq!(pick(&tree.shape(), &small, &at(0)), None);
}
