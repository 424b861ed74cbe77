//! Ordered scans over one moment of the engine.

use super::{CursorOptions, MemtableCursor, MergeCursor, RunCursor, Source, TableCursor, Visible};
use crate::engine::Shared;
use crate::env::Env;
use crate::scrub::Suspects;
use crate::version::Version;
use crate::{Millis, Result, Seq};
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

    fn is_before_end(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// An ordered scan: a consistent view of the moment it was created.
///
/// It holds the memtables and the version of that moment, so nothing it can see goes away while
/// it is alive; drop it when done.
pub struct Scan<E: Env> {
    cursor: Visible<E>,
    range: ScanRange,
    /// What has expired by now is not shown.
    now: Millis,
    /// Keeps the files of the moment, and knows which keys are lost.
    version: Rc<Version<E>>,
    dir: Rc<Path>,
    suspects: Rc<Suspects>,
}

impl<E: Env> Scan<E> {
    /// The next entry, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some((key, value)) = self.entry() else { return Ok(None) };
        let entry = (key.to_vec(), value.to_vec());
        self.advance().await?;
        Ok(Some(entry))
    }

    /// The entry the scan stands on, borrowed; `None` at the end.
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        let entry = self.cursor.entry()?;
        let value = entry.visible(self.now)?;
        self.range.is_before_end(entry.key).then_some((entry.key, value))
    }

    /// Steps to the next entry.
    pub async fn advance(&mut self) -> Result<()> {
        if self.version.lost.len() == 0 {
            let advanced = self.cursor.advance().await;
            return advanced.inspect_err(|error| self.suspects.report(error));
        }
        let Some((key, _)) = self.entry() else { return Ok(()) };
        let from = [key, &[0]].concat();
        self.cursor.advance().await.inspect_err(|error| self.suspects.report(error))?;
        self.check_span(&from)
    }

    /// Continues at the first key at or after `key` (never before the range).
    pub async fn seek(&mut self, key: &[u8]) -> Result<()> {
        let from = key.max(&self.range.start[..]);
        self.cursor.seek(from).await.inspect_err(|error| self.suspects.report(error))?;
        self.check_span(from)
    }

    /// Refuses to pass over keys that are lost.
    fn check_span(&self, from: &[u8]) -> Result<()> {
        let to = self.entry().map(|(key, _)| key).or(self.range.end.as_deref());
        self.version.lost.check_span(&self.dir, from, to)
    }
}

impl<E: Env> Shared<E> {
    /// A scan over `range` as of `at`.
    pub async fn scan(&self, range: ScanRange, at: Seq) -> Result<Scan<E>> {
        self.readable()?;
        let started = self.env.now();
        let version = self.versions.current();
        let sources = self.sources(&version);
        let now = self.core.now();
        let cursor = Visible::new(self.env.clone(), MergeCursor::new(sources), at, now);
        let mut scan = Scan {
            cursor,
            range,
            now,
            version,
            dir: self.dir.as_path().into(),
            suspects: self.suspects.clone(),
        };
        scan.seek(&[]).await?;
        let waited = self.env.now().since(started).as_micros();
        self.stats.update(|stats| {
            stats.scans += 1;
            stats.scan_latency.record(u64::try_from(waited).unwrap_or(u64::MAX));
        });
        Ok(scan)
    }

    /// Everything a scan of this moment reads.
    fn sources(&self, version: &Version<E>) -> Vec<Source<E>> {
        let memory = self.memory.borrow();
        let memtables = memory
            .newest_first()
            .map(|memtable| Source::Memtable(MemtableCursor::new(memtable.clone())));
        let options = CursorOptions::scan(self.cache.clone());
        memtables.chain(table_sources(version, &options)).collect()
    }
}

/// One source per run.
fn table_sources<E: Env>(version: &Version<E>, options: &CursorOptions) -> Vec<Source<E>> {
    let sources = version.runs().map(|run| match &*run.refs {
        [table] => Source::Table(TableCursor::new(table.clone(), options.clone())),
        _ => Source::Run(RunCursor::new(run.refs.clone(), options.clone())),
    });
    sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(ScanRange::prefix(b"ab").end, Some(b"ac".to_vec()));
        assert_eq!(ScanRange::prefix(b"a\xff").end, Some(b"b".to_vec()));
        assert_eq!(ScanRange::prefix(b"\xff\xff").end, None);
        assert_eq!(ScanRange::prefix(b"").end, None);
    }
}
