//! Bounds on the extra work that requests cause: repairs and hedges.

use super::Micros;

/// A token bucket. Refills by time, by earning, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Millionths of a token.
    held: u64,
    burst: u64,
    per_second: u64,
    last: Micros,
}

const TOKEN: u64 = 1_000_000;

impl Budget {
    /// A full bucket of `burst` tokens that refills by `per_second`.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let burst = u64::from(burst) * TOKEN;
        Self { held: burst, burst, per_second: u64::from(per_second), last: 0 }
    }

    /// Takes one token; false when there is none, and then the work is left undone.
    pub fn take(&mut self, now: Micros) -> bool {
        let elapsed = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        // Tokens per second are millionths per microsecond.
        let refill = elapsed.saturating_mul(self.per_second);
        self.held = self.held.saturating_add(refill).min(self.burst);
        let enough = self.held >= TOKEN;
        self.held -= if enough { TOKEN } else { 0 };
        enough
    }

    /// Adds a share of a token, in thousandths: hedges earn 50 for each request that is served.
    pub fn earn(&mut self, thousandths: u32) {
        let more = u64::from(thousandths) * (TOKEN / 1_000);
        self.held = self.held.saturating_add(more).min(self.burst);
    }
}

/// What one node allows its requests to do beyond themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Repairs after the reply.
    pub repair: Budget,
    /// Asking another replica because one is slow.
    pub hedge: Budget,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spends_the_burst_then_the_rate() {
        let mut budget = Budget::new(10, 2);
        assert!(budget.take(0) && budget.take(0) && !budget.take(0));
        assert!(!budget.take(99_999));
        assert!(budget.take(100_000) && !budget.take(100_000));
        assert!(budget.take(u64::MAX) && budget.take(u64::MAX) && !budget.take(u64::MAX));
        // A clock that goes back earns nothing.
        assert!(!budget.take(0));
    }

    #[test]
    fn earns_by_use() {
        let mut budget = Budget::new(0, 1);
        assert!(budget.take(0));
        (0..19).for_each(|_| budget.earn(50));
        assert!(!budget.take(0));
        budget.earn(50);
        assert!(budget.take(0));
    }
}
