//! Counters that are never issued twice, at the price of one durable write in ten thousand.
//!
//! Pure policy: a counter may be issued only below a bound that is already durable, and a restart
//! goes on at the bound. The caller persists what [`DotLease::wanted`] asks for.

use thiserror::Error;

/// How many counters one durable write reserves.
pub const LEASE: u64 = 10_000;

/// The durable bound is reached; wait until the next one is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no write counter left below the durable bound {bound}")]
pub struct LeaseSpent {
    /// The bound that is durable.
    pub bound: u64,
}

/// The counters of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DotLease {
    /// The highest counter issued, or that may have been before a restart.
    issued: u64,
    /// Counters up to this one may be issued: it is durable.
    bound: u64,
}

impl DotLease {
    /// Goes on after a restart from the bound that was durable; zero for a new incarnation.
    pub fn recover(bound: u64) -> Self {
        Self { issued: bound, bound }
    }

    /// The next counter. Never the same twice, not even across restarts.
    pub fn issue(&mut self) -> Result<u64, LeaseSpent> {
        if self.issued >= self.bound {
            return Err(LeaseSpent { bound: self.bound });
        }
        self.issued += 1;
        Ok(self.issued)
    }

    /// The bound to persist next, once a fifth or less of the lease is left; `None` before.
    pub fn wanted(&self) -> Option<u64> {
        (self.bound - self.issued <= LEASE / 5).then(|| self.bound.saturating_add(LEASE))
    }

    /// Records that a bound is durable. A lower one than is known changes nothing.
    pub fn granted(&mut self, bound: u64) {
        self.bound = self.bound.max(bound);
    }

    /// The highest counter that may ever have been issued: what [`own::check`](super::own::check)
    /// measures others' knowledge against.
    pub fn bound(&self) -> u64 {
        self.bound
    }

    /// The highest counter issued.
    pub fn issued(&self) -> u64 {
        self.issued
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn issues_nothing_before_a_bound_is_durable() {
        let mut lease = DotLease::recover(0);
        assert_eq!(lease.issue(), Err(LeaseSpent { bound: 0 }));
        let wanted = lease.wanted().unwrap();
        lease.granted(wanted);
        assert_eq!((lease.issue(), lease.wanted()), (Ok(1), None));
        lease.granted(1);
        assert_eq!(lease.bound(), wanted);
    }

    proptest! {
        /// Crashes at any point, with grants that did or did not reach the disk.
        #[test]
        fn never_issues_twice(steps in prop::collection::vec((0_u64..5_000, any::<bool>()), 1..40)) {
            let (mut lease, mut durable, mut last) = (DotLease::recover(0), 0, 0);
            for (writes, crash) in steps {
                for _ in 0..writes {
                    if let Some(bound) = lease.wanted() {
                        durable = bound;
                        lease.granted(bound);
                    }
                    let counter = lease.issue().unwrap();
                    prop_assert!(counter > last && counter <= durable);
                    last = counter;
                }
                if crash {
                    lease = DotLease::recover(durable);
                }
            }
        }
    }
}
