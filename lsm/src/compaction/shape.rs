//! The tree as the picker sees it: plain data, so that picking can be tested without files.

use super::policy::TreePolicy;
use crate::TableId;
use crate::stats::LEVELS;
use crate::version::Expiry;
use std::rc::Rc;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableShape {
    /// Its number.
    pub id: TableId,
    /// No visible key is smaller.
    pub first: Rc<[u8]>,
    /// The largest visible key.
    pub last: Rc<[u8]>,
    /// Size of its file, bytes.
    pub bytes: u64,
    /// It holds delete markers.
    pub has_deletes: bool,
    /// At least half of its entries are delete markers.
    pub mostly_deletes: bool,
    /// Wall clock when its newest entry was written at the latest, microseconds since the Unix
    /// epoch.
    pub newest_entry: u64,
    /// When its entries expire.
    pub expiry: Expiry,
}

/// One sorted run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunShape {
    /// Higher is newer, within a level.
    pub number: u64,
    /// By key, without overlap.
    pub tables: Vec<TableShape>,
}

/// A whole tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// [`LEVELS`] levels, each with its runs, newest first.
    pub levels: Vec<Vec<RunShape>>,
}

/// A closed range of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span<'a> {
    /// First key.
    pub first: &'a [u8],
    /// Last key.
    pub last: &'a [u8],
}

impl TableShape {
    /// Its range of keys.
    pub fn span(&self) -> Span<'_> {
        Span { first: &self.first, last: &self.last }
    }
}

impl Span<'_> {
    /// Whether both ranges have a key in common.
    pub fn meets(&self, other: &Span<'_>) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl RunShape {
    /// Bytes of its tables.
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }

    /// Its tables that meet the range.
    pub fn overlapping<'a>(&'a self, span: Span<'a>) -> impl Iterator<Item = &'a TableShape> {
        let from = self.tables.partition_point(|table| *table.last < *span.first);
        self.tables[from..].iter().take_while(move |table| *table.first <= *span.last)
    }
}

/// The range that covers all of `tables`; `None` without tables.
pub(crate) fn span_of<'a>(
    tables: impl Iterator<Item = &'a TableShape> + Clone,
) -> Option<Span<'a>> {
    let first = tables.clone().map(|table| &*table.first).min()?;
    let last = tables.map(|table| &*table.last).max()?;
    Some(Span { first, last })
}

impl Shape {
    /// Bytes of a level.
    pub fn bytes(&self, level: usize) -> u64 {
        self.levels[level].iter().map(RunShape::bytes).sum()
    }

    /// The deepest level that has tables.
    pub fn bottom(&self) -> usize {
        self.levels.iter().rposition(|runs| !runs.is_empty()).unwrap_or(0)
    }

    /// How far a level is over what it may hold: at 1 and above it owes a merge.
    pub fn score(&self, level: usize, policy: &TreePolicy) -> f64 {
        let runs = self.levels[level].len() as f64;
        if level == 0 {
            return runs / f64::from(policy.level0_runs);
        }
        let allowed = policy.runs(level, self.bottom());
        let by_runs = runs / (allowed + 1) as f64;
        if level + 1 == LEVELS {
            return by_runs;
        }
        // A tiered level is judged by its runs; its bytes only tell that it does not belong so
        // far up, as after a change of the policy.
        let slack = if allowed == 1 { 1.0 } else { 2.0 };
        by_runs.max(self.bytes(level) as f64 / (policy.capacity(level) as f64 * slack))
    }

    /// Whether all of a level fits one run of it, so that merging it where it is settles it.
    pub fn merges_in_place(&self, policy: &TreePolicy, level: usize) -> bool {
        let allowed = policy.runs(level, self.bottom()) as u64;
        let fits = self.bytes(level) <= policy.capacity(level) / allowed;
        self.levels[level].len() > 1 && (fits || level + 1 == LEVELS)
    }

    /// Whether a level that owes a merge goes down with all of its runs, not table by table.
    pub fn goes_down_whole(&self, policy: &TreePolicy, level: usize) -> bool {
        let leveled = policy.shape(level).runs == 1 && policy.runs(level + 1, self.bottom()) == 1;
        !leveled || self.levels[level].len() != 1
    }

    /// Bytes that merges still have to write until no level owes one, estimated.
    pub fn debt(&self, policy: &TreePolicy) -> u64 {
        let bottom = self.bottom();
        let mut debt = 0u64;
        let mut arriving = 0u64;
        for level in 0..LEVELS {
            if self.levels[level].is_empty() && arriving == 0 {
                continue;
            }
            let owes = self.score(level, policy) >= 1.0;
            if level > 0 && owes && self.merges_in_place(policy, level) {
                debt = debt.saturating_add(self.bytes(level));
                arriving = 0;
                continue;
            }
            if level + 1 == LEVELS {
                break;
            }
            let bytes = self.bytes(level).saturating_add(arriving);
            let over = match level {
                _ if arriving == 0 && !owes => 0,
                0 => bytes,
                _ if owes && self.goes_down_whole(policy, level) => bytes,
                _ => bytes.saturating_sub(policy.capacity(level)),
            };
            if over == 0 {
                arriving = 0;
                continue;
            }
            let below = self.bytes(level + 1);
            // Leveling rewrites what it meets below, tiering only writes what comes down.
            let met = match policy.runs(level + 1, bottom) {
                1 => (over as f64 * below as f64 / bytes.max(1) as f64) as u64,
                _ => 0,
            };
            debt = debt.saturating_add(over).saturating_add(met.min(below));
            arriving = over;
        }
        debt
    }
}
