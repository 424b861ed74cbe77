//! When what a table holds expires, so that the space can be had back without anybody writing.
//!
//! Known from the moment the table is written: two moments are kept in the manifest, none is
//! looked up in the table.

use crate::{EntryKind, EntryRef, Millis};
use std::collections::BTreeMap;

/// Moments that are told apart while a table is written; finer ones are rounded up together.
const MOST_MOMENTS: usize = 64;

/// Moments of a table, wall clock in milliseconds since the Unix epoch; [`Expiry::NEVER`] where
/// there is none, or where the manifest is of a release that did not keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// No entry of the table is visible from then on: deletes, and entries that have expired.
    pub all: Millis,
    /// At least half of the bytes of all entries are in entries that have expired by then.
    pub half: Millis,
}

impl Expiry {
    /// The moment that does not come.
    pub const NEVER: Millis = Millis(u64::MAX);

    /// The first of the two moments that is still to come.
    pub fn next(&self, now: Millis) -> Option<Millis> {
        let moments = [self.all, self.half].into_iter();
        moments.filter(|moment| *moment > now && *moment < Expiry::NEVER).min()
    }
}

impl Default for Expiry {
    fn default() -> Self {
        Expiry { all: Expiry::NEVER, half: Expiry::NEVER }
    }
}

/// Sums up the entries of a table while it is written.
#[derive(Debug, Default)]
pub struct Expiries {
    latest: u64,
    /// Bytes of keys and values of all entries.
    bytes: u64,
    /// Bytes of entries by expiry in units of `1 << shift` milliseconds, rounded up.
    moments: BTreeMap<u64, u64>,
    shift: u32,
}

impl Expiries {
    /// Takes in an entry of the table.
    pub fn see(&mut self, entry: &EntryRef<'_>) {
        let bytes = (entry.key.len() + entry.value.len()) as u64;
        self.bytes += bytes;
        match entry.kind {
            EntryKind::Delete => {}
            EntryKind::Put => self.latest = u64::MAX,
            EntryKind::PutUntil => {
                let expiry = entry.expires().unwrap_or(Expiry::NEVER).0;
                self.latest = self.latest.max(expiry);
                *self.moments.entry(expiry.div_ceil(1 << self.shift)).or_default() += bytes;
                while self.moments.len() > MOST_MOMENTS {
                    self.coarsen();
                }
            }
        }
    }

    fn coarsen(&mut self) {
        self.shift += 1;
        for (moment, bytes) in std::mem::take(&mut self.moments) {
            *self.moments.entry(moment.div_ceil(2)).or_default() += bytes;
        }
    }

    /// The moments of the table.
    pub fn expiry(&self) -> Expiry {
        let mut expired = 0;
        let half = self.moments.iter().find(|(_, bytes)| {
            expired += *bytes;
            expired * 2 >= self.bytes
        });
        // Rounded up it may lie behind the last one.
        let half = half.map(|(moment, _)| moment.saturating_mul(1 << self.shift).min(self.latest));
        Expiry { all: Millis(self.latest), half: half.map_or(Expiry::NEVER, Millis) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seq;
    use proptest::prelude::*;

    fn see(expiries: &mut Expiries, kind: EntryKind, expiry: u64, len: usize) {
        let mut value = vec![0; len];
        if kind == EntryKind::PutUntil {
            value = [&expiry.to_le_bytes()[..], &value].concat();
        }
        expiries.see(&EntryRef { key: b"k", seq: Seq(1), kind, value: &value });
    }

    #[test]
    fn one_entry_for_ever_keeps_the_table() {
        let mut expiries = Expiries::default();
        see(&mut expiries, EntryKind::Delete, 0, 0);
        assert_eq!(expiries.expiry(), Expiry { all: Millis(0), half: Expiry::NEVER });
        see(&mut expiries, EntryKind::PutUntil, 500, 100);
        assert_eq!(expiries.expiry(), Expiry { all: Millis(500), half: Millis(500) });
        see(&mut expiries, EntryKind::PutUntil, 700, 300);
        assert_eq!(expiries.expiry(), Expiry { all: Millis(700), half: Millis(700) });
        see(&mut expiries, EntryKind::Put, 0, 10);
        assert_eq!(expiries.expiry(), Expiry { all: Expiry::NEVER, half: Millis(700) });
        see(&mut expiries, EntryKind::Put, 0, 1000);
        assert_eq!(expiries.expiry(), Expiry::default());
    }

    #[test]
    fn the_next_moment_is_one_to_come() {
        let expiry = Expiry { all: Millis(900), half: Millis(500) };
        assert_eq!(expiry.next(Millis(499)), Some(Millis(500)));
        assert_eq!(expiry.next(Millis(500)), Some(Millis(900)));
        assert_eq!(expiry.next(Millis(900)), None);
        assert_eq!(Expiry::default().next(Millis(0)), None);
    }

    proptest! {
        #[test]
        fn moments_are_never_too_early_and_little_too_late(
            entries in proptest::collection::vec((0..3u8, any::<u32>(), 0..200usize), 1..400),
        ) {
            let mut expiries = Expiries::default();
            let kinds = [EntryKind::Delete, EntryKind::PutUntil, EntryKind::PutUntil];
            let mut total = 0;
            let mut timed: Vec<(u64, u64)> = Vec::new();
            for (kind, expiry, len) in entries {
                let (kind, expiry) = (kinds[usize::from(kind)], u64::from(expiry));
                see(&mut expiries, kind, expiry, len);
                let timed_bytes = len as u64 + 9;
                match kind {
                    EntryKind::PutUntil => timed.push((expiry, timed_bytes)),
                    _ => total += 1 + len as u64,
                }
            }
            total += timed.iter().map(|(_, bytes)| bytes).sum::<u64>();
            timed.sort_unstable();
            let found = expiries.expiry();
            prop_assert_eq!(found.all.0, timed.last().map_or(0, |(expiry, _)| *expiry));
            let mut expired = 0;
            let exact = timed.iter().find(|(_, bytes)| {
                expired += bytes;
                expired * 2 >= total
            });
            let spread = timed.last().map_or(0, |last| last.0);
            match exact {
                None => prop_assert_eq!(found.half, Expiry::NEVER),
                Some((exact, _)) => {
                    prop_assert!(found.half.0 >= *exact && found.half.0 <= found.all.0);
                    prop_assert!(found.half.0 - exact <= spread / 16, "{:?} {}", found, exact);
                }
            }
        }
    }
}
