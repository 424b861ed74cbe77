//! Ordered scans over one moment of the engine.

use super::{
    CursorOptions, Direction, MemtableCursor, MergeCursor, RunCursor, Seek, Source, TableCursor,
    Visible,
};
use crate::engine::Shared;
use crate::env::Env;
use crate::prefix::common_prefix;
use crate::scrub::Suspects;
use crate::table::{Table, TableRef};
use crate::version::Version;
use crate::{Millis, Result, Seq};
use std::ops::{Bound, Range};
use std::path::Path;
use std::rc::Rc;

/// Keys from `start` (inclusive) to `end` (exclusive; `None` is unbounded).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanRange {
    /// First key.
    pub start: Vec<u8>,
    /// First key beyond the range.
    pub end: Option<Vec<u8>>,
}

impl ScanRange {
    /// Every key that starts with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return ScanRange { start: prefix.to_vec(), end: Some(end) };
            }
        }
        ScanRange { start: prefix.to_vec(), end: None }
    }

    /// Which of these tables, ascending by key, may have keys of the range.
    fn tables<E: Env>(&self, tables: &[TableRef<E>]) -> Range<usize> {
        let from = tables.partition_point(|table| *table.largest() < *self.start);
        let end = self.end.as_deref();
        from..tables.partition_point(|table| end.is_none_or(|end| table.smallest() < end)).max(from)
    }

    /// The longest prefix of `start` that all keys of the range begin with.
    fn shared_prefix(&self) -> &[u8] {
        let full = |bytes: &[u8]| bytes.iter().take_while(|byte| **byte == 0xff).count();
        let Some(end) = &self.end else { return &self.start[..full(&self.start)] };
        let same = common_prefix(&self.start, end);
        // Keys that begin with `ab` end before `ac`, those that begin with `ab\xff` do, too.
        let adjoins = match (self.start.get(same), &end[same..]) {
            (Some(ours), [theirs]) => ours.checked_add(1) == Some(*theirs),
            _ => false,
        };
        let beyond = if adjoins { 1 + full(&self.start[same + 1..]) } else { 0 };
        &self.start[..same + beyond]
    }

    /// Whether a scan that began inside and goes this way still is.
    fn goes_on(&self, direction: Direction, key: &[u8]) -> bool {
        match direction {
            Direction::Forward => self.end.as_ref().is_none_or(|end| key < &end[..]),
            Direction::Backward => *self.start <= *key,
        }
    }

    /// Where the range ends.
    fn end_bound(&self) -> Bound<&[u8]> {
        self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
    }
}

/// What a scan is to show: which keys, in which order, how many at most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanOptions {
    /// The keys.
    pub range: ScanRange,
    /// Which way it begins to go: from the first key of the range up, or from the last one down.
    pub direction: Direction,
    /// It ends after so many entries; `None` is unbounded.
    pub limit: Option<u64>,
}

impl ScanOptions {
    /// From the last key of the range down.
    pub fn backward(range: ScanRange) -> Self {
        ScanOptions { range, direction: Direction::Backward, limit: None }
    }

    /// The same with a limit.
    pub fn limit(self, entries: u64) -> Self {
        ScanOptions { limit: Some(entries), ..self }
    }
}

impl From<ScanRange> for ScanOptions {
    /// The whole range in ascending order.
    fn from(range: ScanRange) -> Self {
        ScanOptions { range, ..ScanOptions::default() }
    }
}

/// An ordered scan: a consistent view of the moment it was created.
///
/// It holds the memtables and the version of that moment, so nothing it can see goes away while
/// it is alive; drop it when done.
pub struct Scan<E: Env> {
    cursor: Visible<E>,
    range: ScanRange,
    direction: Direction,
    /// Entries that may still be shown.
    left: u64,
    /// What has expired by now is not shown.
    now: Millis,
    /// Keeps the files of the moment, and knows which keys are lost.
    version: Rc<Version<E>>,
    dir: Rc<Path>,
    suspects: Rc<Suspects>,
}

impl<E: Env> Scan<E> {
    /// The entry stood on, copied, before a step in the scan's direction; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some((key, value)) = self.entry() else { return Ok(None) };
        let entry = (key.to_vec(), value.to_vec());
        self.advance().await?;
        Ok(Some(entry))
    }

    /// The entry the scan stands on, borrowed; `None` at the end.
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        if self.left > 0 { self.stands_on() } else { None }
    }

    /// The cursor's entry if it is inside the range, whatever the limit.
    fn stands_on(&self) -> Option<(&[u8], &[u8])> {
        let entry = self.cursor.entry()?;
        let value = entry.visible(self.now)?;
        self.range.goes_on(self.direction, entry.key).then_some((entry.key, value))
    }

    /// Steps to the next entry in the scan's direction.
    pub async fn advance(&mut self) -> Result<()> {
        let Some((key, _)) = self.entry() else { return Ok(()) };
        if self.left == 1 {
            self.left = 0;
            return Ok(());
        }
        let from = (self.version.lost.len() > 0).then(|| key.to_vec());
        self.cursor.advance().await.inspect_err(|error| self.suspects.report(error))?;
        self.left -= 1;
        match (from, self.direction) {
            (None, _) => Ok(()),
            (Some(mut key), Direction::Forward) => {
                key.push(0);
                self.check_passed(Seek::Forward(&key))
            }
            (Some(key), Direction::Backward) => {
                self.check_passed(Seek::Backward(Bound::Excluded(&key)))
            }
        }
    }

    /// Continues forwards at the first key at or after `key` (never before the range).
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        let from = key.max(&self.range.start[..]).to_vec();
        self.go(Seek::Forward(&from)).await
    }

    /// Continues backwards at the last key at or before `key` (never behind the range).
    pub async fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        let end = self.range.end.clone();
        match end.as_deref() {
            Some(end) if end <= key => self.go(Seek::Backward(Bound::Excluded(end))).await,
            _ => self.go(Seek::Backward(Bound::Included(key))).await,
        }
    }

    /// Turns round: continues with the neighbour of the entry stood on, or at the end with the
    /// entry that was shown last. Costs as much as a seek.
    pub async fn turn(&mut self) -> Result<()> {
        let key = self.stands_on().map(|(key, _)| key.to_vec());
        match (self.direction, key) {
            (Direction::Forward, Some(key)) => self.go(Seek::Backward(Bound::Excluded(&key))).await,
            (Direction::Backward, Some(key)) => self.seek(&[&key[..], &[0]].concat()).await,
            (Direction::Forward, None) => self.begin(Direction::Backward).await,
            (Direction::Backward, None) => self.begin(Direction::Forward).await,
        }
    }

    /// Goes to the beginning of the range, as seen in a direction.
    async fn begin(&mut self, direction: Direction) -> Result<()> {
        match direction {
            Direction::Forward => self.seek(&[]).await,
            Direction::Backward => {
                let range = self.range.clone();
                self.go(Seek::Backward(range.end_bound())).await
            }
        }
    }

    async fn go(&mut self, seek: Seek<'_>) -> Result<()> {
        self.direction = seek.direction();
        self.cursor.seek(seek).await.inspect_err(|error| self.suspects.report(error))?;
        self.check_passed(seek)
    }

    /// Refuses to pass over keys that are lost: from the place gone to up to the entry stood on.
    fn check_passed(&self, from: Seek<'_>) -> Result<()> {
        let found = self.stands_on().map(|(key, _)| key);
        let (from, to) = match from {
            Seek::Forward(from) => (from, found.map_or(self.range.end_bound(), Bound::Included)),
            Seek::Backward(to) => (found.unwrap_or(&self.range.start), to),
        };
        self.version.lost.check_span(&self.dir, from, to)
    }
}

impl<E: Env> Shared<E> {
    /// A scan as of `at`.
    pub async fn scan(&self, options: ScanOptions, at: Seq) -> Result<Scan<E>> {
        self.readable()?;
        let started = self.env.now();
        let version = self.versions.current();
        let sources = self.sources(&version, &options.range);
        let now = self.core.now();
        let cursor = Visible::new(self.env.clone(), MergeCursor::new(sources), at, now);
        let mut scan = Scan {
            cursor,
            range: options.range,
            direction: options.direction,
            left: options.limit.unwrap_or(u64::MAX),
            now,
            version,
            dir: self.dir.as_path().into(),
            suspects: self.suspects.clone(),
        };
        scan.begin(options.direction).await?;
        let waited = self.env.now().since(started).as_micros();
        self.stats.update(|stats| {
            stats.scans += 1;
            stats.scan_latency.record(u64::try_from(waited).unwrap_or(u64::MAX));
        });
        Ok(scan)
    }

    /// Everything a scan of this moment reads.
    fn sources(&self, version: &Version<E>, range: &ScanRange) -> Vec<Source<E>> {
        let memory = self.memory.borrow();
        let memtables = memory
            .newest_first()
            .map(|memtable| Source::Memtable(MemtableCursor::new(memtable.clone())));
        let options = CursorOptions::scan(self.cache.clone());
        let mut asked = Asked::default();
        let sources =
            memtables.chain(table_sources(version, range, &options, &mut asked)).collect();
        self.stats.update(|stats| {
            stats.scan_filter_skips += asked.skips;
            stats.scan_filter_probes += asked.probes;
        });
        sources
    }
}

/// Tables that a scan left out, or did not, because of their filters.
#[derive(Debug, Default)]
struct Asked {
    skips: u64,
    probes: u64,
}

impl Asked {
    /// Leaves out of `within`, which are neighbours in a run, the outermost tables whose filters
    /// deny the prefix that all keys looked for begin with. Tables between others have such keys.
    fn narrow<E: Env>(
        &mut self,
        tables: &[TableRef<E>],
        mut within: Range<usize>,
        prefix: &[u8],
    ) -> Range<usize> {
        while within.start < within.end && self.denies(&tables[within.start].table, prefix) {
            within.start += 1;
        }
        while within.start + 1 < within.end && self.denies(&tables[within.end - 1].table, prefix) {
            within.end -= 1;
        }
        within
    }

    fn denies<E: Env>(&mut self, table: &Table<E>, prefix: &[u8]) -> bool {
        let denies = table.denies_prefix(prefix);
        self.skips += u64::from(denies == Some(true));
        self.probes += u64::from(denies == Some(false));
        denies == Some(true)
    }
}

/// One source per run that has tables with keys of the range; the other tables are not touched.
fn table_sources<E: Env>(
    version: &Version<E>,
    range: &ScanRange,
    options: &CursorOptions,
    asked: &mut Asked,
) -> Vec<Source<E>> {
    let prefix = range.shared_prefix();
    let sources = version.runs().filter_map(|run| {
        let within = asked.narrow(&run.refs, range.tables(&run.refs), prefix);
        match &*run.refs {
            _ if within.is_empty() => None,
            [table] => Some(Source::Table(TableCursor::new(table.clone(), options.clone()))),
            _ => {
                Some(Source::Run(RunCursor::new(run.refs.clone(), options.clone()).within(within)))
            }
        }
    });
    sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(ScanRange::prefix(b"ab").end, Some(b"ac".to_vec()));
        assert_eq!(ScanRange::prefix(b"a\xff").end, Some(b"b".to_vec()));
        assert_eq!(ScanRange::prefix(b"\xff\xff").end, None);
        assert_eq!(ScanRange::prefix(b"").end, None);
    }

    /// Few different bytes, the largest among them, so that bounds often share some.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xfe), Just(0xff)], 0..5)
    }

    proptest! {
        #[test]
        fn keys_of_a_range_share_exactly_the_shared_prefix(
            start in key(), end in prop::option::of(key()),
        ) {
            let inside = end.as_ref().is_none_or(|end| start < *end);
            prop_assume!(inside);
            let range = ScanRange { start: start.clone(), end };
            let shared = range.shared_prefix().len();
            prop_assert!(start.starts_with(range.shared_prefix()));
            for len in 0..=start.len() {
                // All keys have it if the range lies within those that have it.
                let (ours, theirs) = (range.end.clone(), ScanRange::prefix(&start[..len]).end);
                let within = theirs.is_none() || ours.is_some_and(|ours| Some(ours) <= theirs);
                prop_assert_eq!(within, len <= shared, "{:?} {}", range, len);
            }
        }
    }
}
