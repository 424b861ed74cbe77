//! When a workload's operations are counted.

use std::time::{Duration, Instant};

use crate::spec::Job;

/// The time from the first operation over the warm-up to the end.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    counted: Instant,
    end: Option<Instant>,
}

impl Window {
    /// Starts now. Fills are counted from their first operation to their last.
    pub fn start(job: &Job) -> Self {
        let now = Instant::now();
        if job.workload.is_fill() {
            return Window { counted: now, end: None };
        }
        let counted = now + Duration::from_secs_f64(job.sizes.warm_up);
        Window { counted, end: Some(counted + job.seconds()) }
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
        self.end.is_some_and(|end| at >= end)
    }
}
