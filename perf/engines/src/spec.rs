//! What is measured: engines, workloads, sizes.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// An engine, or one of its settings, as a column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Coronet's engine, leveled.
    Coronet,
    /// RocksDB, leveled.
    Rocksdb,
    /// fjall, leveled.
    Fjall,
    /// Coronet's engine, tiered with the same fan-out; only where tiered and leveled are compared.
    CoronetTiered,
}

impl Subject {
    /// Its name in tables and folders.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Coronet => "coronet",
            Subject::Rocksdb => "rocksdb",
            Subject::Fjall => "fjall",
            Subject::CoronetTiered => "coronet-tiered",
        }
    }
}

/// One workload, in the order in which they run on a data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Workload {
    /// All keys in order, into a folder of its own.
    FillSeq,
    /// All keys, shuffled, into an empty folder: the data of everything below.
    FillRandom,
    /// As many random keys again.
    Overwrite,
    /// Seek to a random key, then 10 steps.
    ShortScan,
    /// Random point reads, 32 in flight, with a cache for little more than indexes and filters:
    /// nearly every read goes to the disk.
    ColdRead32,
    /// The same, one at a time.
    ColdRead1,
    /// Random point reads, one at a time.
    ReadRandom1,
    /// Random point reads, 32 in flight.
    ReadRandom32,
    /// One reader beside a writer of a fixed rate.
    ReadWhileWriting,
    /// The same beside a writer of four times that rate.
    ReadBesideBusy,
    /// Seek to a random key, then 50 steps.
    SeekRandom,
    /// Reads only, Zipf.
    YcsbC,
    /// 95 % reads, 5 % updates, Zipf.
    YcsbB,
    /// Half reads, half updates, Zipf.
    YcsbA,
    /// Half reads, half read-modify-writes, Zipf.
    YcsbF,
    /// 95 % reads of what is new, 5 % inserts.
    YcsbD,
    /// 95 % scans of up to 100 entries, 5 % inserts, Zipf.
    YcsbE,
    /// Random point reads in calls of 32 keys, where the engine has such a call.
    MultiGet32,
    /// `FillRandom` with memtables small enough for a tree of three or four levels, where tiered
    /// and leveled are compared; in a folder of its own, as the two that follow.
    DeepFill,
    /// `Overwrite` in that tree.
    DeepOverwrite,
    /// `ShortScan` in that tree.
    DeepScan,
}

impl Workload {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Workload::FillSeq => "fillseq",
            Workload::FillRandom => "fillrandom",
            Workload::Overwrite => "overwrite",
            Workload::ReadRandom1 => "readrandom, 1 in flight",
            Workload::ReadRandom32 => "readrandom, 32 in flight",
            Workload::MultiGet32 => "multiget of 32",
            Workload::ColdRead1 => "cold readrandom, 1 in flight",
            Workload::ColdRead32 => "cold readrandom, 32 in flight",
            Workload::SeekRandom => "seekrandom, 50 nexts",
            Workload::ShortScan => "seekrandom, 10 nexts",
            Workload::ReadWhileWriting => "readwhilewriting",
            Workload::ReadBesideBusy => "readwhilewriting, busy writer",
            Workload::YcsbA => "YCSB A",
            Workload::YcsbB => "YCSB B",
            Workload::YcsbC => "YCSB C",
            Workload::YcsbD => "YCSB D",
            Workload::YcsbE => "YCSB E",
            Workload::YcsbF => "YCSB F",
            Workload::DeepFill => "fillrandom, deep tree",
            Workload::DeepOverwrite => "overwrite, deep tree",
            Workload::DeepScan => "seekrandom, 10 nexts, deep tree",
        }
    }

    /// Runs in a deep tree.
    pub fn is_deep(self) -> bool {
        matches!(self, Workload::DeepFill | Workload::DeepOverwrite | Workload::DeepScan)
    }

    /// The same operations whatever the tree.
    pub fn operations(self) -> Workload {
        match self {
            Workload::DeepFill => Workload::FillRandom,
            Workload::DeepOverwrite => Workload::Overwrite,
            Workload::DeepScan => Workload::ShortScan,
            workload => workload,
        }
    }

    /// Runs a number of operations; the others run for a time.
    pub fn is_fill(self) -> bool {
        use Workload::{FillRandom, FillSeq, Overwrite};
        matches!(self.operations(), FillSeq | FillRandom | Overwrite)
    }

    /// Starts with an empty folder.
    pub fn is_fresh(self) -> bool {
        matches!(self.operations(), Workload::FillSeq | Workload::FillRandom)
    }

    /// Leaves something to compact.
    pub fn writes(self) -> bool {
        use Workload::{YcsbA, YcsbB, YcsbD, YcsbE, YcsbF};
        self.is_fill() || self.has_writer() || matches!(self, YcsbA | YcsbB | YcsbD | YcsbE | YcsbF)
    }

    /// Has a writer beside its reader.
    pub fn has_writer(self) -> bool {
        matches!(self, Workload::ReadWhileWriting | Workload::ReadBesideBusy)
    }

    /// How often it runs, engines in turn; the table has the run of the median. What depends on
    /// the disk's moods and has an aim runs more than once.
    pub fn rounds(self) -> usize {
        if self == Workload::ColdRead32 || self.has_writer() { 3 } else { 1 }
    }

    /// Reads with a cache too small for data.
    pub fn is_cold(self) -> bool {
        matches!(self, Workload::ColdRead1 | Workload::ColdRead32)
    }

    /// Whether `subject` takes part.
    pub fn suits(self, subject: Subject) -> bool {
        match subject {
            Subject::CoronetTiered => self.is_deep(),
            Subject::Fjall | Subject::Rocksdb if self.is_deep() => false,
            // fjall has no call for several keys, and RocksDB's never comes back in this version
            // (11.8, built with io_uring, direct I/O), with `async_io` or without.
            Subject::Fjall | Subject::Rocksdb => self != Workload::MultiGet32,
            _ => true,
        }
    }

    /// Operations in flight: tasks in Coronet's executor, threads in the others.
    fn clients(self, subject: Subject, value_bytes: usize) -> usize {
        use Workload::{ColdRead1, ColdRead32, MultiGet32, ReadRandom1, ReadRandom32};
        use Workload::{SeekRandom, ShortScan};
        match self.operations() {
            // A commit of Coronet's is a direct write that somebody waits for, one of the others'
            // a copy into the page cache: one thread is their best, writes in flight are ours.
            // How many was measured: with fewer the log is written in smaller pieces, with more
            // what is in flight leaves the processor's caches.
            Workload::FillSeq | Workload::FillRandom | Workload::Overwrite => match subject {
                Subject::Coronet | Subject::CoronetTiered if value_bytes < 512 => 256,
                Subject::Coronet | Subject::CoronetTiered => 128,
                Subject::Rocksdb | Subject::Fjall => 1,
            },
            ReadRandom1 | ColdRead1 | SeekRandom | ShortScan => 1,
            MultiGet32 => 1,
            workload if workload.has_writer() => 1,
            ReadRandom32 | ColdRead32 => 32,
            _ => 8,
        }
    }
}

/// Sizes of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sizes {
    /// Keys in the data set; a power of two.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Block cache, bytes.
    pub cache_bytes: usize,
    /// One memtable, bytes; up to three exist.
    pub memtable_bytes: usize,
    /// How long a read workload runs, seconds; those that show little in that time twice as long.
    pub seconds: f64,
    /// How long a fill runs at most, seconds; it is cut short then.
    pub fill_seconds: f64,
    /// How long a process may take to open the data before, and to settle after, seconds; it is
    /// ended then.
    pub grace: f64,
    /// How long it runs before that without being counted, seconds.
    pub warm_up: f64,
    /// Writes per second beside the reader of `ReadWhileWriting`.
    pub write_rate: u64,
}

impl Sizes {
    /// The sizes for values of `value_bytes`.
    pub fn new(value_bytes: usize, quick: bool) -> Self {
        let large = value_bytes >= 512;
        let keys = match (large, quick) {
            (true, true) => 1 << 18,
            (true, false) => 1 << 22,
            (false, true) => 1 << 20,
            (false, false) => 1 << 24,
        };
        let data = keys as usize * (value_bytes + crate::keys::KEY_BYTES);
        Sizes {
            keys,
            value_bytes,
            // A sixteenth of the data, and memtables of a quarter of that, which leaves every
            // engine with the same several levels in quick and full runs.
            cache_bytes: data / 16,
            memtable_bytes: (data / 64).next_power_of_two().max(1 << 20),
            seconds: if quick { 2.0 } else { 20.0 },
            fill_seconds: if quick { 12.0 } else { 3600.0 },
            grace: if quick { 12.0 } else { 3600.0 },
            warm_up: if quick { 0.5 } else { 5.0 },
            write_rate: 5_000,
        }
    }

    /// The same data in a deep tree: the first level is an eighth of what it is otherwise.
    pub fn deep(self) -> Self {
        Sizes { memtable_bytes: (self.memtable_bytes / 8).max(512 << 10), ..self }
    }

    /// Bytes of all keys and values once.
    pub fn live_bytes(&self) -> u64 {
        self.keys * self.entry_bytes()
    }

    /// Bytes of one key and value.
    pub fn entry_bytes(&self) -> u64 {
        (self.value_bytes + crate::keys::KEY_BYTES) as u64
    }

    /// A cache with room for indexes and filters and next to nothing else: Coronet's take from it,
    /// and without its filters a read would ask every level. Filters of 10 bits per key, an index
    /// entry of about 40 bytes for 8 KiB of data, and half again for what overwriting leaves; the
    /// last level's filters may take half of the cache.
    pub fn cold_cache_bytes(&self) -> usize {
        let index = self.live_bytes() / (8 << 10) * 40;
        let tables = (self.keys * 10 / 8 + index) * 3 / 2;
        2 * tables as usize
    }

    /// Target of the first level, as all engines are told, bytes.
    pub fn level1_bytes(&self) -> u64 {
        4 * self.memtable_bytes as u64
    }
}

/// What one child process is to do; travels as JSON on its command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The engine.
    pub subject: Subject,
    /// The workload.
    pub workload: Workload,
    /// The sizes.
    pub sizes: Sizes,
    /// The engine's folder.
    pub dir: PathBuf,
    /// The processor that everything runs on.
    pub cpu: usize,
}

impl Job {
    /// The cache of this job, bytes.
    pub fn cache_bytes(&self) -> usize {
        match self.workload {
            workload if workload.is_cold() => self.sizes.cold_cache_bytes(),
            _ => self.sizes.cache_bytes,
        }
    }

    /// Operations in flight.
    pub fn clients(&self) -> usize {
        self.workload.clients(self.subject, self.sizes.value_bytes)
    }

    /// Writes per second of the writer beside the reader.
    pub fn write_rate(&self) -> u64 {
        match self.workload {
            Workload::ReadBesideBusy => 4 * self.sizes.write_rate,
            _ => self.sizes.write_rate,
        }
    }

    /// The counted time: of a fill the most, of everything else exactly.
    pub fn seconds(&self) -> Duration {
        use Workload::{ColdRead1, ReadRandom1, ReadRandom32, ShortScan};
        let seconds = match self.workload {
            workload if workload.is_fill() => self.sizes.fill_seconds,
            ReadRandom1 | ReadRandom32 | ColdRead1 | ShortScan => 2.0 * self.sizes.seconds,
            _ => self.sizes.seconds,
        };
        Duration::from_secs_f64(seconds)
    }

    /// How long the process may take in all.
    pub fn limit(&self) -> Duration {
        self.seconds() + Duration::from_secs_f64(self.sizes.warm_up + self.sizes.grace)
    }

    /// Operations after which it ends, of a workload that has such a number.
    pub fn planned(&self) -> Option<u64> {
        self.workload.is_fill().then_some(self.sizes.keys)
    }
}

/// The engines this program was built with.
pub fn subjects() -> Vec<Subject> {
    let built_in = |subject: &Subject| cfg!(feature = "rocksdb") || *subject != Subject::Rocksdb;
    Subject::value_variants().iter().copied().filter(built_in).collect()
}
