//! A histogram of latencies in fixed logarithmic buckets: recording is a shift and an addition,
//! and histograms of several cores add up.

/// Buckets per doubling.
const PARTS: u64 = 4;
/// Buckets of a histogram: up to 2^32 microseconds, more counts as the last.
pub const BUCKETS: usize = 31 * PARTS as usize;

/// Counts of latencies in microseconds; a bucket is at most a quarter wider than it is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, micros: u64) {
        self.record_many(micros, 1);
    }

    /// Counts `many` times the same latency.
    pub fn record_many(&mut self, micros: u64, many: u64) {
        self.counts[bucket(micros)] += many;
    }

    /// The buckets that counted something: the largest latency of each, in microseconds, and its
    /// count. Two histograms of one series, taken apart bucket by bucket, are one of the time
    /// between.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(bucket, count)| (last_of(bucket), *count))
    }

    /// Adds another histogram's counts.
    pub fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// Latencies counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// An upper bound, in microseconds, of the latency that `per_mille` of 1000 do not exceed;
    /// zero when nothing was counted.
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let wanted = (self.count() * per_mille.min(1000)).div_ceil(1000);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        match reached {
            Some(bucket) if wanted > 0 => last_of(bucket),
            _ => 0,
        }
    }
}

/// Below `PARTS` every number has its bucket; above, every doubling has `PARTS`.
fn bucket(micros: u64) -> usize {
    if micros < PARTS {
        return micros as usize;
    }
    let exponent = u64::from(micros.ilog2());
    let part = (micros >> (exponent - 2)) - PARTS;
    (((exponent - 1) * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The largest number of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let (exponent, part) = (bucket / PARTS + 1, bucket % PARTS);
    ((PARTS + part + 1) << (exponent - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_bounds_its_numbers_closely(micros in 0..1u64 << 32) {
            let last = last_of(bucket(micros));
            prop_assert!(micros <= last && last <= micros + micros / PARTS);
            prop_assert_eq!(bucket(last), bucket(micros));
            prop_assert!(last == u64::from(u32::MAX) || bucket(last + 1) == bucket(last) + 1);
        }
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), 0);
        for micros in 1..=1000 {
            histogram.record(micros);
        }
        let copy = histogram;
        histogram.add(&copy);
        assert_eq!(histogram.count(), 2000);
        for per_mille in [1, 500, 990, 999, 1000] {
            let bound = histogram.quantile(per_mille);
            assert!((per_mille..=per_mille * 5 / 4).contains(&bound), "{per_mille}: {bound}");
        }
        histogram.record(u64::MAX);
        assert_eq!(histogram.quantile(1000), u64::from(u32::MAX));
    }

    #[test]
    fn buckets_make_the_same_histogram_again() {
        let (mut histogram, mut again) = (Histogram::default(), Histogram::default());
        for micros in [0, 3, 4, 100, 100, 5000, u64::MAX] {
            histogram.record(micros);
        }
        histogram.record_many(7, 9);
        histogram.buckets().for_each(|(last, count)| again.record_many(last, count));
        assert_eq!(again, histogram);
        assert_eq!(histogram.count(), 16);
    }
}
