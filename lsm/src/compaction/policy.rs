//! What a tree may look like: one description that yields leveled, tiered, lazy-leveled and
//! everything between, and FIFO.
//!
//! A level has a capacity in bytes and may hold some number of sorted runs (the `T`, `K` and `Z`
//! of Dayan and Idreos, "Dostoevsky", SIGMOD 2018). One run per level is leveling, `T - 1` runs
//! are tiering. The picker judges whatever shape it finds, so another policy takes effect with
//! the next pick and nothing is rewritten for its own sake.

use super::policy_text::{print_fifo, print_tree};
use std::fmt;
use std::time::Duration;

/// Size of one run that merges of level 0 bring to level 1, in the presets, bytes.
const FIRST_RUN: u64 = 256 << 20;
/// Fan-out of the leveled preset.
const LEVELED_FANOUT: u32 = 10;
/// Fan-out of the tiered and the lazy-leveled preset.
const TIERED_FANOUT: u32 = 4;

/// How old entries may get in memory under FIFO, at least.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// Which tables are merged when, and what is thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompactionPolicy {
    /// A tree of levels.
    Tree(TreePolicy),
    /// Nothing is merged; the oldest tables are dropped.
    Fifo(FifoPolicy),
}

/// Shape of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelShape {
    /// How many times larger the next level is, 2 to 100.
    pub fanout: u32,
    /// Sorted runs the level may hold while it is not the last one, 1 to 99.
    pub runs: u32,
}

/// A tree of levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePolicy {
    /// Runs in level 0 (one per flush) that start a merge, 1 to 64.
    pub level0_runs: u32,
    /// Capacity of level 1, bytes, at least 1.
    pub level1_bytes: u64,
    /// Target size of a table file that a merge writes, bytes, at least 1.
    pub table_bytes: u64,
    /// Shapes of level 1, 2 and so on; the last one holds for all deeper levels. 1 to 6.
    pub levels: Vec<LevelShape>,
    /// Sorted runs the last level (the deepest that has tables) may hold, 1 to 99.
    pub last_runs: u32,
}

/// Tables stay as flushed until they are too old or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FifoPolicy {
    /// A table goes this long after its newest entry was written; `None`: never for its age.
    pub ttl: Option<Duration>,
    /// The oldest tables go while all tables together are larger; `None`: never for size.
    pub max_bytes: Option<u64>,
}

impl CompactionPolicy {
    /// One run per level, fan-out 10: cheap reads, little dead space.
    pub fn leveled() -> Self {
        CompactionPolicy::Tree(TreePolicy::uniform(LEVELED_FANOUT, 1, 1))
    }

    /// Up to three runs per level, fan-out 4 (size-tiered): cheap writes.
    pub fn tiered() -> Self {
        CompactionPolicy::Tree(TreePolicy::uniform(
            TIERED_FANOUT,
            TIERED_FANOUT - 1,
            TIERED_FANOUT - 1,
        ))
    }

    /// Tiered above, one run on the last level: writes near tiered, point reads and space near
    /// leveled.
    pub fn lazy_leveled() -> Self {
        CompactionPolicy::Tree(TreePolicy::uniform(TIERED_FANOUT, TIERED_FANOUT - 1, 1))
    }

    /// Drops tables by age, by total size, or both.
    pub fn fifo(ttl: Option<Duration>, max_bytes: Option<u64>) -> Self {
        CompactionPolicy::Fifo(FifoPolicy { ttl, max_bytes })
    }

    /// The same policy with other sizes: `first_run` is what one merge of level 0 is expected
    /// to bring to level 1, `table` the target size of a table file, both in bytes.
    pub fn sized(mut self, first_run: u64, table: u64) -> Self {
        if let CompactionPolicy::Tree(tree) = &mut self {
            tree.level1_bytes = first_run.saturating_mul(u64::from(tree.shape(1).runs));
            tree.table_bytes = table;
        }
        self
    }

    /// The same policy with another number of flushes that start a merge.
    pub fn level0(mut self, runs: u32) -> Self {
        if let CompactionPolicy::Tree(tree) = &mut self {
            tree.level0_runs = runs;
        }
        self
    }

    /// The tree, unless the policy is FIFO.
    pub fn tree(&self) -> Option<&TreePolicy> {
        match self {
            CompactionPolicy::Tree(tree) => Some(tree),
            CompactionPolicy::Fifo(_) => None,
        }
    }

    /// How old an entry may get in memory before it is flushed; `None`: any age. A tenth of FIFO's
    /// time to live, so that about ten tables are there at a time where little is written, and
    /// [`LEAST_AGE`] at least.
    pub(crate) fn most_age_in_memory(&self) -> Option<Duration> {
        self.ttl().map(|ttl| (ttl / 10).max(LEAST_AGE))
    }

    /// The time to live of FIFO's tables, if they have one.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        match self {
            CompactionPolicy::Fifo(fifo) => fifo.ttl,
            CompactionPolicy::Tree(_) => None,
        }
    }

    /// Checks bounds; the error names the parameter and the fix.
    pub fn validate(&self) -> Result<(), String> {
        match self {
            CompactionPolicy::Tree(tree) => tree.validate(),
            CompactionPolicy::Fifo(fifo) if fifo.ttl.is_none() && fifo.max_bytes.is_none() => {
                Err("fifo needs ttl, max or both, for example fifo(ttl=86400s)".into())
            }
            CompactionPolicy::Fifo(FifoPolicy { ttl: Some(ttl), .. })
                if !ttl.subsec_nanos().is_multiple_of(1_000_000) =>
            {
                Err(format!("ttl is {ttl:?}, use whole milliseconds"))
            }
            CompactionPolicy::Fifo(_) => Ok(()),
        }
    }
}

impl TreePolicy {
    /// The same shape on every level, with the presets' sizes.
    pub(super) fn uniform(fanout: u32, runs: u32, last_runs: u32) -> Self {
        TreePolicy {
            level0_runs: 4,
            level1_bytes: FIRST_RUN * u64::from(runs),
            table_bytes: 64 << 20,
            levels: vec![LevelShape { fanout, runs }],
            last_runs,
        }
    }

    /// Shape of a level from 1 on.
    pub fn shape(&self, level: usize) -> LevelShape {
        let at = level.saturating_sub(1).min(self.levels.len().saturating_sub(1));
        self.levels.get(at).copied().unwrap_or(LevelShape { fanout: LEVELED_FANOUT, runs: 1 })
    }

    /// Bytes a level from 1 on may hold.
    pub fn capacity(&self, level: usize) -> u64 {
        (1..level).fold(self.level1_bytes, |bytes, above| {
            bytes.saturating_mul(u64::from(self.shape(above).fanout))
        })
    }

    /// Runs a level from 1 on may hold, given which level is the last.
    pub fn runs(&self, level: usize, last: usize) -> usize {
        if level >= last { self.last_runs as usize } else { self.shape(level).runs as usize }
    }

    fn validate(&self) -> Result<(), String> {
        let within = |name: &str, value: u32, from: u32, to: u32| {
            let inside = (from..=to).contains(&value);
            if inside { Ok(()) } else { Err(format!("{name} is {value}, use {from} to {to}")) }
        };
        within("number of levels described", self.levels.len() as u32, 1, 6)?;
        for shape in &self.levels {
            within("fanout", shape.fanout, 2, 100)?;
            within("runs", shape.runs, 1, 99)?;
        }
        within("level0", self.level0_runs, 1, 64)?;
        within("last", self.last_runs, 1, 99)?;
        if self.level1_bytes == 0 || self.table_bytes == 0 {
            return Err("level1 and table must be at least 1 byte".into());
        }
        Ok(())
    }
}

impl fmt::Display for CompactionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompactionPolicy::Tree(tree) => print_tree(tree, f),
            CompactionPolicy::Fifo(fifo) => print_fifo(fifo, f),
        }
    }
}
