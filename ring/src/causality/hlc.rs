//! The hybrid logical clock: close to wall time, never backwards, never the same twice.
//!
//! Owns no clock: the caller passes the wall time in.

use std::fmt;

use thiserror::Error;

/// Low bits that count events within one microsecond.
const LOGICAL_BITS: u32 = 12;

/// How far ahead of our wall clock a timestamp from elsewhere may be: one minute.
pub const MAX_AHEAD_MICROS: u64 = 60_000_000;

/// A point of hybrid time: microseconds since the Unix epoch in the upper 52 bits, a counter in
/// the lower 12. Comparing the numbers compares the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The earliest point within a microsecond. Saturates in the year 2112.
    pub fn from_micros(micros: u64) -> Self {
        Hlc(micros.min(u64::MAX >> LOGICAL_BITS) << LOGICAL_BITS)
    }

    /// Microseconds since the Unix epoch.
    pub fn micros(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:06}+{}",
            self.micros() / 1_000_000,
            self.micros() % 1_000_000,
            self.0 & 0xfff
        )
    }
}

/// A timestamp from elsewhere that is too far in the future to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "timestamp {stamp} is more than {MAX_AHEAD_MICROS} microseconds ahead of this node's clock"
)]
pub struct TooFarAhead {
    /// The timestamp that was refused.
    pub stamp: Hlc,
}

/// Issues hybrid timestamps. Each is later than all issued and observed before.
#[derive(Debug, Clone, Copy, Default)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// A clock that continues after `last` (zero for a fresh one).
    pub fn new(last: Hlc) -> Self {
        Self { last }
    }

    /// The next timestamp, at or after the wall time when that has advanced.
    pub fn tick(&mut self, wall_micros: u64) -> Hlc {
        // A full counter carries into the microseconds: still later, still close.
        self.last = Hlc(self.last.0.saturating_add(1)).max(Hlc::from_micros(wall_micros));
        self.last
    }

    /// Moves past a timestamp from elsewhere, unless it is absurdly ahead: one bad clock must not
    /// drag every node into the future.
    pub fn observe(&mut self, stamp: Hlc, wall_micros: u64) -> Result<(), TooFarAhead> {
        if stamp.micros() > wall_micros.saturating_add(MAX_AHEAD_MICROS) {
            return Err(TooFarAhead { stamp });
        }
        self.last = self.last.max(stamp);
        Ok(())
    }

    /// The latest timestamp issued or observed.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn always_advances_and_stays_close(
            walls in prop::collection::vec(1_000_000_u64..2_000_000, 1..50),
            observed in 0_u64..2_000_000,
        ) {
            let mut clock = HybridClock::default();
            let mut last = Hlc::default();
            let mut highest = observed;
            clock.observe(Hlc::from_micros(observed), 1_000_000).unwrap();
            for wall in walls {
                highest = highest.max(wall);
                let stamp = clock.tick(wall);
                prop_assert!(stamp > last && stamp > Hlc::from_micros(observed));
                prop_assert!(stamp.micros() >= wall);
                prop_assert!(stamp.micros() <= highest + 1);
                last = stamp;
            }
        }
    }

    #[test]
    fn refuses_the_far_future() {
        let mut clock = HybridClock::default();
        let stamp = Hlc::from_micros(MAX_AHEAD_MICROS + 11);
        assert_eq!(clock.observe(stamp, 10), Err(TooFarAhead { stamp }));
        assert_eq!(clock.last(), Hlc::default());
        assert_eq!(clock.observe(Hlc::from_micros(MAX_AHEAD_MICROS + 10), 10), Ok(()));
    }

    #[test]
    fn end_of_time_saturates() {
        let mut clock = HybridClock::new(Hlc(u64::MAX));
        assert_eq!(clock.tick(u64::MAX), Hlc(u64::MAX));
    }
}
