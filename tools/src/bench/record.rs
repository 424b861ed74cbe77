//! What was measured: counts, latency histograms and the figures read off them.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::driver::Op;

/// Longer latencies are recorded as this.
const LONGEST: u64 = 600 * 1_000_000_000;
/// Significant digits kept by the histograms: an error below 0.1 %.
const DIGITS: u8 = 3;

fn histogram() -> Histogram<u64> {
    // The bounds are constants inside the crate's documented range.
    Histogram::new_with_bounds(1, LONGEST, DIGITS)
        .unwrap_or_else(|e| unreachable!("constant histogram bounds: {e}"))
}

/// Latencies of one kind of request.
#[derive(Debug)]
pub struct OpRecord {
    /// Replies that did what was asked, misses included.
    pub count: u64,
    /// Reads that found nothing.
    pub missing: u64,
    service: Histogram<u64>,
    response: Histogram<u64>,
    /// Responses since the last full second.
    second: Histogram<u64>,
    /// 99 % of the responses of each full second, microseconds.
    second_p99: Vec<f64>,
}

impl OpRecord {
    fn new() -> OpRecord {
        OpRecord {
            count: 0,
            missing: 0,
            service: histogram(),
            response: histogram(),
            second: histogram(),
            second_p99: Vec::new(),
        }
    }

    fn end_second(&mut self) {
        if !self.second.is_empty() {
            self.second_p99.push(self.second.value_at_quantile(0.99) as f64 / 1e3);
            self.second.reset();
        }
    }
}

/// Everything recorded in one phase of a run.
#[derive(Debug)]
pub struct Recorder {
    /// Reads.
    pub get: OpRecord,
    /// Writes.
    pub put: OpRecord,
    /// Refused or wrong replies by kind.
    pub errors: BTreeMap<String, u64>,
    paced: bool,
    interval: Histogram<u64>,
    interval_count: u64,
}

impl Recorder {
    /// An empty record; with `paced` requests have an intended start that differs from the real.
    pub fn new(paced: bool) -> Recorder {
        Recorder {
            get: OpRecord::new(),
            put: OpRecord::new(),
            errors: BTreeMap::new(),
            paced,
            interval: histogram(),
            interval_count: 0,
        }
    }

    /// A reply that did what was asked. `service` counts from sending, `response` from the
    /// intended start; both in nanoseconds.
    #[inline]
    pub fn done(&mut self, op: Op, missing: bool, service: u64, response: u64) {
        let record = match op {
            Op::Get => &mut self.get,
            Op::Put => &mut self.put,
        };
        record.count += 1;
        record.missing += u64::from(missing);
        record.service.saturating_record(service);
        if self.paced {
            record.response.saturating_record(response);
        }
        record.second.saturating_record(response);
        self.interval.saturating_record(response);
        self.interval_count += 1;
    }

    /// A second is over.
    pub fn end_second(&mut self) {
        self.get.end_second();
        self.put.end_second();
    }

    /// A reply that refused or was wrong.
    pub fn failed(&mut self, kind: &str) {
        match self.errors.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.errors.insert(kind.to_owned(), 1);
            }
        }
    }

    /// All replies so far, refusals included.
    pub fn replies(&self) -> u64 {
        self.get.count + self.put.count + self.error_count()
    }

    /// All refusals and wrong replies so far.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// One line on what happened since the last call.
    pub fn interval_line(&mut self, at: Duration, since: Duration) -> String {
        let rate = self.interval_count as f64 / since.as_secs_f64().max(1e-9);
        let line = format!(
            "{:>6.1}s {:>10.0}/s  p50 {:>9}  p99 {:>9}  max {:>9}  errors {}",
            at.as_secs_f64(),
            rate,
            human_nanos(self.interval.value_at_quantile(0.50)),
            human_nanos(self.interval.value_at_quantile(0.99)),
            human_nanos(self.interval.max()),
            self.error_count(),
        );
        self.interval.reset();
        self.interval_count = 0;
        line
    }

    /// The figures of one kind of request; `None` when there were none.
    pub fn figures(&self, op: Op) -> Option<OpFigures> {
        let record = match op {
            Op::Get => &self.get,
            Op::Put => &self.put,
        };
        (record.count > 0).then(|| OpFigures {
            count: record.count,
            missing: record.missing,
            service_us: Percentiles::of(&record.service),
            response_us: self.paced.then(|| Percentiles::of(&record.response)),
            median_second_p99_us: median(&record.second_p99),
        })
    }
}

/// Counts and latencies of one kind of request, ready to print.
#[derive(Debug, Serialize)]
pub struct OpFigures {
    /// Replies that did what was asked.
    pub count: u64,
    /// Reads that found nothing.
    pub missing: u64,
    /// From sending to the reply.
    pub service_us: Percentiles,
    /// From the intended start to the reply; only with a fixed rate.
    pub response_us: Option<Percentiles>,
    /// Half of all full seconds had a 99 % response time of no more than this; on a machine whose
    /// host takes the processor away now and then it says more than the 99 % of the whole run.
    pub median_second_p99_us: Option<f64>,
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Percentiles in microseconds.
#[derive(Debug, Serialize)]
pub struct Percentiles {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            mean: (histogram.mean() / 10.0).round() / 100.0,
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// A duration with a unit that suits its size.
pub fn human_nanos(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.1} s", nanos as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_from_the_right_histogram() {
        let mut recorder = Recorder::new(true);
        for i in 1..=1000u64 {
            recorder.done(Op::Get, i % 10 == 0, i * 1000, i * 2000);
        }
        recorder.failed("busy");
        recorder.failed("busy");
        let get = recorder.figures(Op::Get).unwrap();
        assert_eq!((get.count, get.missing), (1000, 100));
        assert!((get.service_us.p50 - 500.0).abs() < 1.0, "{:?}", get.service_us);
        assert!((get.service_us.p99 - 990.0).abs() < 1.5);
        let response = get.response_us.unwrap();
        assert!((response.p50 - 1000.0).abs() < 2.0, "{response:?}");
        assert!((response.max - 2000.0).abs() < 3.0);
        assert!(recorder.figures(Op::Put).is_none());
        assert_eq!(recorder.replies(), 1002);
        assert_eq!(recorder.errors["busy"], 2);
    }

    #[test]
    fn an_interval_forgets_the_one_before() {
        let mut recorder = Recorder::new(false);
        recorder.done(Op::Put, false, 50_000_000_000, 50_000_000_000);
        let second = Duration::from_secs(1);
        assert!(recorder.interval_line(second, second).contains("50.0 s"));
        recorder.done(Op::Put, false, 1000, 1000);
        let line = recorder.interval_line(second * 2, second);
        assert!(line.contains("1/s") && !line.contains("ms") && !line.contains("50.0 s"), "{line}");
    }

    #[test]
    fn a_bad_second_does_not_hide_the_others() {
        let mut recorder = Recorder::new(true);
        assert_eq!(median(&[]), None);
        for millis in [3, 1, 900] {
            recorder.done(Op::Get, false, 1000, millis * 1_000_000);
            recorder.end_second();
        }
        // Seconds without a reply are none, and the last one is not over.
        recorder.end_second();
        recorder.done(Op::Get, false, 1000, 900_000_000);
        let median = recorder.figures(Op::Get).unwrap().median_second_p99_us.unwrap();
        assert!((median - 3000.0).abs() < 10.0, "{median}");
    }

    #[test]
    fn without_a_rate_there_is_no_response_time() {
        let mut recorder = Recorder::new(false);
        recorder.done(Op::Put, false, 1000, 1000);
        assert!(recorder.figures(Op::Put).unwrap().response_us.is_none());
    }

    #[test]
    fn units_suit_the_size() {
        assert_eq!(human_nanos(950), "950 ns");
        assert_eq!(human_nanos(95_000), "95.0 us");
        assert_eq!(human_nanos(95_000_000), "95.0 ms");
        assert_eq!(human_nanos(95_000_000_000), "95.0 s");
    }
}
