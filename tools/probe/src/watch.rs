//! The watch over one run. Two implementations with one face: one that works, for builds with
//! debug assertions, and one that is nothing.

use std::collections::BTreeMap;

use crate::{Bug, Mark};

/// Whether this build has seeded bugs and marks.
pub const AVAILABLE: bool = cfg!(debug_assertions);

/// Makes a bug, if any, and counts marks on this thread until it is dropped.
#[derive(Debug)]
pub struct Watch {
    /// It belongs to its thread.
    _here: std::marker::PhantomData<*const ()>,
}

#[cfg(debug_assertions)]
mod state {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use crate::{Bug, Mark};

    thread_local! {
        pub static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
        pub static MARKS: RefCell<Option<BTreeMap<Mark, u64>>> = const { RefCell::new(None) };
    }
}

impl Watch {
    /// Begins. A watch that was there before is over.
    pub fn start(bug: Option<Bug>) -> Watch {
        #[cfg(debug_assertions)]
        {
            state::BUG.set(bug);
            state::MARKS.set(Some(BTreeMap::new()));
        }
        let _ = bug;
        Watch { _here: std::marker::PhantomData }
    }

    /// How often each mark was passed so far.
    pub fn marks(&self) -> BTreeMap<Mark, u64> {
        #[cfg(debug_assertions)]
        return state::MARKS.with_borrow(|marks| marks.clone().unwrap_or_default());
        #[cfg(not(debug_assertions))]
        BTreeMap::new()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        {
            state::BUG.set(None);
            state::MARKS.set(None);
        }
    }
}

/// Whether this run shall make this mistake.
#[inline(always)]
pub fn seeded(bug: Bug) -> bool {
    #[cfg(debug_assertions)]
    return state::BUG.get() == Some(bug);
    #[cfg(not(debug_assertions))]
    {
        let _ = bug;
        false
    }
}

/// This branch was taken.
#[inline(always)]
pub fn mark(mark: Mark) {
    #[cfg(debug_assertions)]
    state::MARKS.with_borrow_mut(|marks| {
        if let Some(marks) = marks {
            *marks.entry(mark).or_default() += 1;
        }
    });
    #[cfg(not(debug_assertions))]
    let _ = mark;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_seeded_or_counted_unless_watched() {
        let bug = Bug::ALL[0];
        mark(Mark::Flush);
        assert!(!seeded(bug));
        let watch = Watch::start(Some(bug));
        assert_eq!(seeded(bug), AVAILABLE);
        assert!(!seeded(Bug::ALL[1]));
        mark(Mark::Flush);
        mark(Mark::Flush);
        let counted = watch.marks();
        assert_eq!(counted.get(&Mark::Flush).copied(), AVAILABLE.then_some(2));
        drop(watch);
        assert!(!seeded(bug));
        assert!(Watch::start(None).marks().is_empty());
    }

    #[test]
    fn names_are_distinct_and_lead_back() {
        for bug in Bug::ALL {
            assert_eq!(Bug::by_name(bug.name()), Some(*bug));
            assert!(bug.text().ends_with('.'));
        }
        for mark in Mark::ALL {
            assert_eq!(Mark::by_name(mark.name()), Some(*mark));
        }
        assert_eq!(Bug::by_name("none"), None);
    }
}
