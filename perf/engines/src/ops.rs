//! The operations of a workload, one stream per client, the same for every engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::keys::{Random, Zipf, shuffled};
use crate::spec::{Job, Workload};

/// Keys that YCSB E inserts start this far behind those of YCSB D.
const E_INSERTS: u64 = 1 << 32;
/// Longest scan of YCSB E.
const E_STEPS: u64 = 100;
/// A client that inserts nothing at the moment.
const NO_INSERT: u64 = u64::MAX;
/// Keys of one call of `MultiGet32`.
const GROUP: usize = 32;

/// One operation; keys by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Write a key.
    Put(u64),
    /// Read a key.
    Get(u64),
    /// Read several keys in one call.
    GetMany(Vec<u64>),
    /// Read a key, then write it.
    Modify(u64),
    /// Seek and step so often.
    Scan(u64, usize),
}

/// What the clients of a workload share.
pub struct Shared {
    zipf: Option<Zipf>,
    /// The next key of `FillSeq`: clients that are together must not write the keys out of order.
    next_place: AtomicU64,
    /// Number of the next key to insert.
    next_insert: AtomicU64,
    /// Per client a number that its insert in flight is not below; `NO_INSERT` without one.
    inserting: Vec<AtomicU64>,
}

impl Shared {
    /// For all clients of `job`.
    pub fn new(job: &Job) -> Arc<Self> {
        use Workload::{YcsbA, YcsbB, YcsbC, YcsbD, YcsbE, YcsbF};
        let is_zipf = matches!(job.workload, YcsbA | YcsbB | YcsbC | YcsbD | YcsbE | YcsbF);
        let behind = if job.workload == YcsbE { E_INSERTS } else { 0 };
        Arc::new(Shared {
            zipf: is_zipf.then(|| Zipf::new(job.sizes.keys)),
            next_place: AtomicU64::new(0),
            next_insert: AtomicU64::new(job.sizes.keys + behind),
            inserting: (0..job.clients()).map(|_| AtomicU64::new(NO_INSERT)).collect(),
        })
    }

    /// A key for `client` to insert.
    fn insert(&self, client: usize) -> u64 {
        // The bound first: whoever sees the new number sees that it is in flight, too.
        self.inserting[client].store(self.next_insert.load(Ordering::SeqCst), Ordering::SeqCst);
        self.next_insert.fetch_add(1, Ordering::SeqCst)
    }

    /// The first key that may not be there yet.
    fn end_of_inserted(&self) -> u64 {
        let next = self.next_insert.load(Ordering::SeqCst);
        let in_flight = self.inserting.iter().map(|number| number.load(Ordering::SeqCst));
        in_flight.fold(next, u64::min)
    }
}

/// One client's operations.
pub struct Stream {
    workload: Workload,
    keys: u64,
    random: Random,
    shared: Arc<Shared>,
    client: usize,
    /// Next place of a fill, and the distance to the one after.
    place: u64,
    step: u64,
}

impl Stream {
    /// Client `client` of `clients`.
    pub fn new(job: &Job, shared: &Arc<Shared>, client: usize, clients: usize) -> Self {
        Stream {
            workload: job.workload.operations(),
            keys: job.sizes.keys,
            random: Random::new(0x5eed_0000 + job.workload as u64 * 1000 + client as u64),
            shared: Arc::clone(shared),
            client,
            place: client as u64,
            step: clients as u64,
        }
    }

    /// The next operation, when the one before is done; fills end, everything else goes on.
    pub fn next(&mut self) -> Option<Op> {
        if let Some(number) = self.shared.inserting.get(self.client) {
            number.store(NO_INSERT, Ordering::SeqCst);
        }
        if self.workload.is_fill() {
            let mut place = self.place;
            self.place += self.step;
            if self.workload == Workload::FillSeq {
                place = self.shared.next_place.fetch_add(1, Ordering::SeqCst);
            }
            return (place < self.keys).then(|| match self.workload {
                Workload::FillSeq => Op::Put(place),
                Workload::FillRandom => Op::Put(shuffled(place, self.keys)),
                _ => Op::Put(self.random.below(self.keys)),
            });
        }
        let (keys, percent) = (self.keys, self.random.below(100));
        Some(match self.workload {
            Workload::SeekRandom => Op::Scan(self.random.below(keys), 50),
            Workload::ShortScan => Op::Scan(self.random.below(keys), 10),
            Workload::MultiGet32 => {
                Op::GetMany((0..GROUP).map(|_| self.random.below(keys)).collect())
            }
            Workload::YcsbA if percent < 50 => Op::Put(self.popular()),
            Workload::YcsbB if percent < 5 => Op::Put(self.popular()),
            Workload::YcsbF if percent < 50 => Op::Modify(self.popular()),
            Workload::YcsbA | Workload::YcsbB | Workload::YcsbC | Workload::YcsbF => {
                Op::Get(self.popular())
            }
            Workload::YcsbD | Workload::YcsbE if percent < 5 => {
                Op::Put(self.shared.insert(self.client))
            }
            Workload::YcsbD => Op::Get(self.latest()),
            Workload::YcsbE => Op::Scan(self.popular(), 1 + self.random.below(E_STEPS) as usize),
            _ => Op::Get(self.random.below(keys)),
        })
    }

    /// A Zipf-distributed key, the frequent ones spread over all.
    fn popular(&mut self) -> u64 {
        shuffled(self.rank(), self.keys)
    }

    /// A key that was inserted lately.
    fn latest(&mut self) -> u64 {
        let newest = self.shared.end_of_inserted() - 1;
        newest - self.rank().min(newest)
    }

    fn rank(&mut self) -> u64 {
        match &self.shared.zipf {
            Some(zipf) => zipf.rank(&mut self.random),
            None => self.random.below(self.keys),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Sizes, Subject};

    fn job(workload: Workload) -> Job {
        let sizes = Sizes { keys: 1 << 10, ..Sizes::new(100, true) };
        Job { subject: Subject::Fjall, workload, sizes, dir: ".".into(), cpu: 0 }
    }

    #[test]
    fn the_clients_of_a_fill_write_every_key_once() {
        for workload in [Workload::FillSeq, Workload::FillRandom] {
            let job = job(workload);
            let shared = Shared::new(&job);
            let mut streams: Vec<_> =
                (0..7).map(|client| Stream::new(&job, &shared, client, 7)).collect();
            let mut written = Vec::new();
            loop {
                let before = written.len();
                for op in streams.iter_mut().filter_map(Stream::next) {
                    let Op::Put(key) = op else { panic!("{op:?} in a fill") };
                    written.push(key);
                }
                if written.len() == before {
                    break;
                }
            }
            let in_order = written.is_sorted();
            assert_eq!(in_order, workload == Workload::FillSeq, "{workload:?}");
            written.sort_unstable();
            assert!(written.into_iter().eq(0..1 << 10), "{workload:?}");
        }
    }

    #[test]
    fn inserts_in_flight_are_not_read() {
        let job = job(Workload::YcsbD);
        let shared = Shared::new(&job);
        let mut slow = Stream::new(&job, &shared, 0, 8);
        let pending = loop {
            if let Some(Op::Put(key)) = slow.next() {
                break key;
            }
        };
        let mut other = Stream::new(&job, &shared, 1, 8);
        let mut inserted = 0;
        for _ in 0..5_000 {
            match other.next() {
                Some(Op::Put(key)) => inserted = inserted.max(key),
                Some(Op::Get(key)) => assert!(key < pending, "{key} is not there yet"),
                op => panic!("{op:?} in YCSB D"),
            }
        }
        assert!(inserted > pending + 100);
        slow.next();
        let newest = (0..5_000).filter_map(|_| match other.next() {
            Some(Op::Get(key)) => Some(key),
            _ => None,
        });
        assert!(newest.max() > Some(pending));
    }

    #[test]
    fn shares_of_reads_and_writes_are_those_of_the_workload() {
        for (workload, writes) in [
            (Workload::YcsbA, 50),
            (Workload::YcsbB, 5),
            (Workload::YcsbC, 0),
            (Workload::YcsbD, 5),
        ] {
            let job = job(workload);
            let mut stream = Stream::new(&job, &Shared::new(&job), 0, 1);
            let ops = (0..20_000).filter_map(|_| stream.next());
            let share = ops.filter(|op| matches!(op, Op::Put(_))).count() / 200;
            assert!(share.abs_diff(writes) <= 1, "{workload:?}: {share} % writes");
        }
    }
}
