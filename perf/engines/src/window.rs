//! When a workload's operations are counted.

use std::time::{Duration, Instant};

use crate::spec::Job;

/// The time from the first operation over the warm-up to the end.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    counted: Instant,
    end: Instant,
}

impl Window {
    /// Starts now. Fills are counted from their first operation to their last, or to where their
    /// time is up.
    pub fn start(job: &Job) -> Self {
        let now = Instant::now();
        let warm_up = if job.workload.is_fill() { 0.0 } else { job.sizes.warm_up };
        let counted = now + Duration::from_secs_f64(warm_up);
        Window { counted, end: counted + job.seconds() }
    }

    /// What is left of the warm-up.
    pub fn until_counted(&self) -> Duration {
        self.counted.saturating_duration_since(Instant::now())
    }

    /// Whether an operation that starts at `at` counts.
    pub fn counts(&self, at: Instant) -> bool {
        at >= self.counted
    }

    /// Whether no operation starts any more.
    pub fn is_over(&self, at: Instant) -> bool {
        at >= self.end
    }
}
