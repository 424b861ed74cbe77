//! Reading the log back after a restart.
//!
//! Tells three things apart: the end of the log, a torn tail (a batch that nobody was promised),
//! and damage to batches that were acknowledged, which is reported and never skipped.

use super::format::{BATCH_HEADER, BatchHeader, SegmentHeader};
use super::segments::{Full, MAX_SPARE, Segment, segment_id};
use crate::env::{AlignedBuf, Env, File, OpenMode, PAGE};
use crate::stats::Counters;
use crate::write::{Record, Records};
use crate::{Error, Options, Result, Seq};
use coronet_probe::{Bug, Mark, mark, seeded};
use std::path::{Path, PathBuf};

/// Bytes read ahead while replaying.
const WINDOW: usize = 1 << 20;

/// What the replay found.
pub struct Replayed<F> {
    /// Segments that hold data which may not be in tables, oldest first.
    pub full: Vec<Full<F>>,
    /// Segments ready for reuse.
    pub spare: Vec<Segment<F>>,
    /// Newest entry of the log; of the tables, when there is no log.
    pub last: Seq,
    /// Generation of the next segment.
    pub next_generation: u64,
    /// Number of the next segment file.
    pub next_id: u64,
    /// Segment files of no use (half-made, of another size, too many).
    pub removable: Vec<PathBuf>,
}

/// Reads all segments of `dir` from generation `floor` on and gives every record newer than
/// `flushed` to `apply`, in order, together with the time its batch was written (wall clock,
/// microseconds since the Unix epoch; zero where the log does not say).
pub async fn replay<E: Env>(
    env: &E,
    dir: &Path,
    options: &Options,
    floor: u64,
    flushed: Seq,
    stats: &Counters,
    mut apply: impl FnMut(Seq, Record<'_>, u64),
) -> Result<Replayed<E::File>> {
    let mut found = find_segments(env, dir).await?;
    let mut replayed = Replayed {
        full: Vec::new(),
        spare: Vec::new(),
        last: flushed,
        next_generation: floor,
        next_id: found.iter().map(|(segment, _)| segment.id + 1).max().unwrap_or(1),
        removable: Vec::new(),
    };
    let unused = found.extract_if(.., |(_, header)| header.is_none_or(|h| h.generation < floor));
    for (segment, header) in unused.collect::<Vec<_>>() {
        if header.is_none() {
            check_lost_header(env, &segment, floor, stats).await?;
        }
        keep_spare(&mut replayed, segment, options);
    }
    found.sort_by_key(|(_, header)| header.map(|h| h.generation));
    let segments: Vec<_> = found.into_iter().filter_map(|(s, h)| h.map(|h| (s, h))).collect();
    let count = segments.len();
    let mut before = None::<(PathBuf, End)>;
    for (at, (segment, header)) in segments.into_iter().enumerate() {
        check_order(&segment, &header, floor + at as u64, before.as_ref())?;
        let mut reader = Reader::new(&segment, at + 1 == count);
        let end = reader.replay(env, &header, flushed, stats, &mut apply).await?;
        let (last, written) = (end.last, end.offset);
        if reader.is_last {
            reader.write_again(env, end.synced_to, end.offset).await?;
        }
        before = Some((segment.path.clone(), end));
        // A killed process may have left batches that were written and not synced. From now on
        // readers see them and the next segment counts on them.
        segment.file.sync().await.map_err(|e| Error::io("sync", &segment.path, &e))?;
        // Where the log ends, not what is flushed: a table may hold more than a power failure left
        // of the log, and the next segment must follow this one.
        replayed.last = last;
        replayed.next_generation = header.generation + 1;
        let generation = header.generation;
        replayed.full.push(Full { segment, generation, last, end: written });
    }
    Ok(replayed)
}

/// Opens every segment file and reads its header.
async fn find_segments<E: Env>(
    env: &E,
    dir: &Path,
) -> Result<Vec<(Segment<E::File>, Option<SegmentHeader>)>> {
    let mut found = Vec::new();
    for path in env.list(dir).await.map_err(|e| Error::io("list", dir, &e))? {
        let Some(id) = segment_id(&path) else { continue };
        let failed = |op| {
            let path = path.clone();
            move |e: std::io::Error| Error::io(op, &path, &e)
        };
        let file = env.open(&path, OpenMode::ReadWrite).await.map_err(failed("open"))?;
        // A crash while the segment was prepared may leave any length.
        let len = file.len().await.map_err(failed("length"))? / PAGE as u64 * PAGE as u64;
        let page = file.read_at(0, PAGE).await.map_err(failed("read"))?;
        let header = SegmentHeader::decode(&page, &path)?;
        found.push((Segment { id, path, file, len }, header));
    }
    Ok(found)
}

fn keep_spare<F>(replayed: &mut Replayed<F>, segment: Segment<F>, options: &Options) {
    if segment.len == options.log_segment_bytes && replayed.spare.len() < MAX_SPARE {
        replayed.spare.push(segment);
    } else {
        replayed.removable.push(segment.path);
    }
}

/// A segment without a readable header is free, unless whole batches of a needed generation
/// follow: then the header was torn together with the first batch, or, when a batch says that
/// the header had been on the device, it is damaged.
async fn check_lost_header<E: Env>(
    env: &E,
    segment: &Segment<E::File>,
    floor: u64,
    stats: &Counters,
) -> Result<()> {
    let mut reader = Reader::new(segment, true);
    let mut at = PAGE as u64;
    let mut lost = 0;
    while at + PAGE as u64 <= segment.len {
        let identity = BatchHeader::identity(reader.bytes(at, BATCH_HEADER).await?);
        let Some((uid, generation)) = identity.filter(|(_, generation)| *generation >= floor)
        else {
            break;
        };
        let claimed = SegmentHeader { uid, generation, before: Seq(0) };
        let Some(batch) = reader.batch_at(at, &claimed).await? else { break };
        if batch.synced_to > 0 {
            return Err(Error::corruption(&segment.path, 0, "log segment lost its header"));
        }
        lost += batch.disk_len();
        at += batch.disk_len();
        env.coop().await;
    }
    count_torn(stats, lost);
    Ok(())
}

fn count_torn(stats: &Counters, bytes: u64) {
    if bytes > 0 {
        mark(Mark::TornTail);
        stats.update(|stats| {
            stats.torn_tails += 1;
            stats.torn_tail_bytes += bytes;
        });
    }
}

/// Segments follow each other without a gap, and each begins where the one before ended.
fn check_order<F>(
    segment: &Segment<F>,
    header: &SegmentHeader,
    generation: u64,
    before: Option<&(PathBuf, End)>,
) -> Result<()> {
    if let Some(what) = gap(generation, header.generation) {
        return Err(Error::corruption(&segment.path, 0, what));
    }
    let cut =
        before.and_then(|(path, end)| Some((path, end, ends_early(end.last, header.before)?)));
    match cut {
        Some((path, end, what)) => Err(Error::corruption(path, end.offset, what)),
        None => Ok(()),
    }
}

/// What is wrong when the next segment of the log is of generation `found`.
pub(crate) fn gap(wanted: u64, found: u64) -> Option<String> {
    (found != wanted).then(|| format!("log generation {wanted} is missing, found {found}"))
}

/// What is wrong when a segment ends with `last` and its successor follows `before`.
pub(crate) fn ends_early(last: Seq, before: Seq) -> Option<String> {
    let (last, before) = (last.0, before.0);
    (last != before).then(|| {
        format!("log segment ends with entry {last}, its successor follows entry {before}")
    })
}

/// Where the whole batches of a segment end.
struct End {
    last: Seq,
    offset: u64,
    /// Bytes that were on the device when the last of them was written.
    synced_to: u64,
}

/// Reads one segment through a window.
struct Reader<'a, F> {
    segment: &'a Segment<F>,
    is_last: bool,
    window: AlignedBuf,
    start: u64,
}

impl<'a, F: File> Reader<'a, F> {
    fn new(segment: &'a Segment<F>, is_last: bool) -> Self {
        Reader { segment, is_last, window: AlignedBuf::default(), start: 0 }
    }

    /// `len` bytes at `at` (a page boundary), inside the segment.
    async fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let end = at + len as u64;
        if at < self.start || end > self.start + self.window.len() as u64 {
            let rest = self.segment.len.saturating_sub(at);
            let want = (len.next_multiple_of(PAGE).max(WINDOW) as u64).min(rest);
            self.window = (self.segment.file.read_at(at, want as usize).await)
                .map_err(|e| Error::io("read", &self.segment.path, &e))?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        self.window.get(from..from + len).ok_or_else(|| {
            Error::corruption(&self.segment.path, at, "log segment is shorter than its length")
        })
    }

    /// Applies every batch up to the end.
    async fn replay<E: Env>(
        &mut self,
        env: &E,
        header: &SegmentHeader,
        flushed: Seq,
        stats: &Counters,
        apply: &mut impl FnMut(Seq, Record<'_>, u64),
    ) -> Result<End> {
        let (mut at, mut chain, mut last) = (PAGE as u64, header.chain_seed(), header.before);
        let mut synced_to = 0;
        while let Some(batch) = self.batch_at(at, header).await? {
            let follows = if last == header.before {
                batch.first > last
            } else {
                batch.first.0 == last.0 + 1
            };
            if batch.chain != chain || !follows {
                break;
            }
            if batch.last() > flushed {
                self.apply(at, &batch, flushed, stats, apply).await?;
            }
            chain = batch.crc;
            last = batch.last();
            synced_to = batch.synced_to.min(at);
            at += batch.disk_len();
            env.coop().await;
        }
        if self.is_last {
            let expected = BatchHeader::following(header, chain, last);
            self.check_tail(env, header, at, &expected, stats).await?;
        }
        Ok(End { last, offset: at, synced_to })
    }

    /// Writes bytes back as they were read. After a sync that failed, reads may show what no
    /// later sync makes durable: only what is written again is.
    async fn write_again<E: Env>(&self, env: &E, from: u64, to: u64) -> Result<()> {
        let mut at = from / PAGE as u64 * PAGE as u64;
        let failed = |op| move |e: std::io::Error| Error::io(op, &self.segment.path, &e);
        while at < to {
            let len = usize::try_from(to - at).unwrap_or(WINDOW).min(WINDOW);
            let bytes = self.segment.file.read_at(at, len).await.map_err(failed("read"))?;
            let (written, _) = self.segment.file.write_at(at, bytes).await;
            written.map_err(failed("write"))?;
            at += len as u64;
            env.coop().await;
        }
        Ok(())
    }

    /// The whole and valid batch at `at`, if there is one.
    async fn batch_at(&mut self, at: u64, header: &SegmentHeader) -> Result<Option<BatchHeader>> {
        if at + PAGE as u64 > self.segment.len {
            return Ok(None);
        }
        let Some(batch) = BatchHeader::decode(self.bytes(at, BATCH_HEADER).await?, header) else {
            return Ok(None);
        };
        if at + batch.disk_len() > self.segment.len {
            return Ok(None);
        }
        let whole = self.bytes(at, BATCH_HEADER + batch.len as usize).await?;
        let whole = batch.verify(whole) || seeded(Bug::LogUnchecked);
        Ok(whole.then_some(batch))
    }

    async fn apply(
        &mut self,
        at: u64,
        batch: &BatchHeader,
        flushed: Seq,
        stats: &Counters,
        apply: &mut impl FnMut(Seq, Record<'_>, u64),
    ) -> Result<()> {
        let path = self.segment.path.clone();
        let whole = self.bytes(at, BATCH_HEADER + batch.len as usize).await?;
        let mut count = 0;
        for record in Records::new(&whole[BATCH_HEADER..]) {
            let record = record.map_err(|offset| {
                let offset = at + (BATCH_HEADER + offset) as u64;
                Error::corruption(&path, offset, "log record cannot be decoded")
            })?;
            let seq = Seq(batch.first.0 + count);
            count += 1;
            if seq > flushed {
                apply(seq, record, batch.written);
            }
        }
        if count != u64::from(batch.count) {
            let what = format!("log batch holds {count} records, its header says {}", batch.count);
            return Err(Error::corruption(&path, at, what));
        }
        stats.update(|stats| {
            stats.replayed_bytes += batch.disk_len();
            stats.replayed_entries += count;
        });
        Ok(())
    }

    /// Looks at what follows the last good batch, where `expected` would have come. A later
    /// batch that was written when the bad place had been synced proves that acknowledged data
    /// is damaged.
    async fn check_tail<E: Env>(
        &mut self,
        env: &E,
        header: &SegmentHeader,
        end: u64,
        expected: &BatchHeader,
        stats: &Counters,
    ) -> Result<()> {
        let mut torn_bytes = 0;
        let mut at = end;
        while at + PAGE as u64 <= self.segment.len {
            let page = self.bytes(at, BATCH_HEADER).await?;
            if at == end && expected.resembles(page) {
                torn_bytes += PAGE as u64;
            }
            if let Some(batch) = BatchHeader::decode(page, header) {
                torn_bytes += batch.disk_len().min(self.segment.len - at);
                if batch.synced_to > end && self.batch_at(at, header).await?.is_some() {
                    let what = "log batch is damaged, later batches are whole";
                    return Err(Error::corruption(&self.segment.path, end, what));
                }
            }
            at += PAGE as u64;
            if at.is_multiple_of(WINDOW as u64) {
                env.coop().await;
            }
        }
        count_torn(stats, torn_bytes);
        Ok(())
    }
}
