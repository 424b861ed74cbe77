//! Debt that nobody's writes brought about: what another policy, or an opening, finds in the tree.
//!
//! A policy that wants fewer runs than its predecessor makes everything that is there a debt in one
//! step. Writers are not slowed for that: they are slowed for what comes on top. Half of what merges
//! take away from the debt is room for writers, the other half brings the tree down to where the
//! policy wants it, so that writers go on at half the pace of the merges at least and reads
//! get cheaper all the time. Nothing of it is stored: an opening finds what it finds.

use super::throttle::{DEBT_START, TreeDebt, level0_slowdown};

/// What the throttle leaves out of account.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Inherited {
    /// Runs in level 0.
    level0_runs: usize,
    /// Of the largest ratio of a deeper level to what it may hold.
    level_ratio: f64,
    /// The debt when it was last looked at.
    seen: TreeDebt,
}

impl Inherited {
    /// Another policy makes `debt` of the tree as it is. What slowed writers by the old policy goes
    /// on slowing them, the rest is inherited. `l0_slowdown`: [`crate::Options::l0_slowdown`].
    pub fn switch(&mut self, debt: &TreeDebt, l0_slowdown: usize) {
        let before = self.beyond(&self.seen);
        let old = before.level0_runs.saturating_sub(level0_slowdown(&before, l0_slowdown));
        let kept = self.beyond(debt).level0_runs;
        let new = kept.saturating_sub(level0_slowdown(debt, l0_slowdown));
        if new > old {
            self.level0_runs +=
                if old == 0 { kept.saturating_sub(debt.level0_trigger) } else { new - old };
        }
        let kept = self.beyond(debt).level_ratio;
        if kept > DEBT_START && kept > before.level_ratio {
            let slowed = before.level_ratio > DEBT_START;
            self.level_ratio += kept - if slowed { before.level_ratio } else { 1.0 };
        }
        self.seen = *debt;
    }

    /// Merges and flushes made `debt` of what it was.
    pub fn follow(&mut self, debt: &TreeDebt) {
        let rose = debt.level_ratio - self.seen.level_ratio;
        if rose > 0.0 && self.level0_runs > 0 {
            // Merges take the oldest runs of level 0 first: what comes down is inherited, too.
            self.level_ratio += rose;
        }
        let most = (debt.level_ratio - 1.0).max(0.0);
        self.level_ratio = (self.level_ratio - (-rose).max(0.0) / 2.0).clamp(0.0, most);
        let merged = self.seen.level0_runs.saturating_sub(debt.level0_runs);
        let most = debt.level0_runs.saturating_sub(debt.level0_trigger);
        self.level0_runs = self.level0_runs.saturating_sub(merged.div_ceil(2)).min(most);
        self.seen = *debt;
    }

    /// What of a debt counts for the throttle.
    pub fn beyond(&self, debt: &TreeDebt) -> TreeDebt {
        TreeDebt {
            level0_runs: debt.level0_runs.saturating_sub(self.level0_runs),
            level_ratio: (debt.level_ratio - self.level_ratio).max(0.0),
            ..*debt
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOWDOWN: usize = 20;

    fn debt(level0_runs: usize, level_ratio: f64) -> TreeDebt {
        TreeDebt { level0_runs, level0_trigger: 4, level_ratio, bytes: 0 }
    }

    /// Runs and ratio that count.
    fn counted(inherited: &Inherited, debt: &TreeDebt) -> (usize, f64) {
        let counted = inherited.beyond(debt);
        (counted.level0_runs, counted.level_ratio)
    }

    #[test]
    fn a_switch_slows_nobody_and_growth_beyond_it_does() {
        let mut inherited = Inherited::default();
        inherited.switch(&debt(300, 50.0), SLOWDOWN);
        assert_eq!(counted(&inherited, &debt(300, 50.0)), (4, 1.0));
        inherited.follow(&debt(330, 50.0));
        assert_eq!(counted(&inherited, &debt(330, 50.0)), (34, 1.0));
    }

    #[test]
    fn half_of_what_merges_take_is_room_for_writers() {
        let mut inherited = Inherited::default();
        inherited.switch(&debt(300, 0.0), SLOWDOWN);
        inherited.follow(&debt(320, 0.0));
        inherited.follow(&debt(288, 0.0));
        assert_eq!(counted(&inherited, &debt(288, 0.0)).0, 8, "24 - 32 / 2");
        let mut runs = 288;
        // Writers that keep as many runs counted as they may still see an end of it.
        for _ in 0..20 {
            runs -= 32.min(runs);
            inherited.follow(&debt(runs, 0.0));
            while counted(&inherited, &debt(runs, 0.0)).0 < SLOWDOWN {
                runs += 1;
                inherited.follow(&debt(runs, 0.0));
            }
        }
        assert_eq!((runs, inherited.level0_runs), (SLOWDOWN, 0));
    }

    #[test]
    fn what_comes_down_of_inherited_runs_is_inherited_in_deeper_levels() {
        let mut inherited = Inherited::default();
        inherited.switch(&debt(100, 0.0), SLOWDOWN);
        inherited.follow(&debt(68, 9.0));
        assert_eq!(counted(&inherited, &debt(68, 9.0)).1, 1.0);
        inherited.follow(&debt(0, 30.0));
        assert_eq!(counted(&inherited, &debt(0, 30.0)).1, 1.0);
        inherited.follow(&debt(0, 40.0));
        assert_eq!(counted(&inherited, &debt(0, 40.0)).1, 11.0, "nothing is inherited any more");
        inherited.follow(&debt(0, 20.0));
        assert_eq!(counted(&inherited, &debt(0, 20.0)).1, 1.0);
        inherited.follow(&debt(0, 0.5));
        assert_eq!(counted(&inherited, &debt(0, 0.5)), (0, 0.5));
        assert_eq!(inherited, Inherited { seen: debt(0, 0.5), ..Inherited::default() });
    }

    #[test]
    fn what_slowed_before_a_switch_slows_after_it() {
        let mut inherited = Inherited::default();
        inherited.follow(&debt(30, 6.0));
        let wide = TreeDebt { level0_trigger: 12, ..debt(30, 6.0) };
        inherited.switch(&wide, SLOWDOWN);
        assert_eq!(inherited.beyond(&wide), wide, "it owes less than before");
        inherited.switch(&debt(30, 11.0), SLOWDOWN);
        assert_eq!(counted(&inherited, &debt(30, 11.0)), (26, 6.0));
    }
}
