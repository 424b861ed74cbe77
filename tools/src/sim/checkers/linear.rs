//! Linearizability of one register: is there an order of all operations, in line with which was
//! over before which began, in which every read finds the last write?
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with
//! the memo of Lowe ("Testing for linearizability", 2017): a set of operations done and the value
//! they left need to be looked at only once.

use std::collections::BTreeSet;

use super::{Kind, Op};

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none. The operations that the longest partial order could not place.
    Violation(Vec<usize>),
    /// More states than were allowed.
    Undecided,
}

/// Operations done, and the value they left.
type State = (Vec<u64>, u64);

/// Looks for an order of a register that begins empty (zero), among at most `limit` states.
pub fn check(ops: &[Op], limit: usize) -> Verdict {
    // A read without an answer says nothing, nor does a write without one that nobody read: it can
    // be left out of any order.
    let found: BTreeSet<u64> = ops.iter().filter_map(Op::found).collect();
    let says = |op: &&Op| match op.kind {
        Kind::Write(value) => op.ret.is_some() || found.contains(&value),
        Kind::Read(_) => op.ret.is_some(),
    };
    let ops: Vec<Op> = ops.iter().filter(says).copied().collect();
    let start: State = (vec![0; ops.len().div_ceil(64)], 0);
    let mut seen = BTreeSet::from([start.clone()]);
    let mut open = vec![start];
    let mut best: Option<(usize, Vec<usize>)> = None;
    while let Some(state) = open.pop() {
        let missing = missing(&ops, &state.0);
        if missing.is_empty() {
            return Verdict::Linearizable;
        }
        let placed = ops.len() - missing.len();
        if best.as_ref().is_none_or(|(most, _)| placed > *most) {
            best = Some((placed, missing));
        }
        for next in successors(&ops, &state) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
        if seen.len() > limit {
            return Verdict::Undecided;
        }
    }
    Verdict::Violation(best.map(|(_, missing)| missing).unwrap_or_default())
}

fn is_done(done: &[u64], at: usize) -> bool {
    done[at / 64] & (1 << (at % 64)) != 0
}

/// The operations that must still be placed: those that were answered.
fn missing(ops: &[Op], done: &[u64]) -> Vec<usize> {
    (0..ops.len()).filter(|at| ops[*at].ret.is_some() && !is_done(done, *at)).collect()
}

/// All states one operation further.
fn successors(ops: &[Op], (done, value): &State) -> Vec<State> {
    let todo = || (0..ops.len()).filter(|at| !is_done(done, *at));
    // What began after another operation was over cannot come before that one.
    let first_end = todo().map(|at| ops[at].end()).min().unwrap_or(u64::MAX);
    let mut states = Vec::new();
    for at in todo().filter(|at| ops[*at].call <= first_end) {
        let left = match ops[at].kind {
            Kind::Write(written) => written,
            Kind::Read(found) if found == *value => found,
            Kind::Read(_) => continue,
        };
        let mut done = done.clone();
        done[at / 64] |= 1 << (at % 64);
        states.push((done, left));
    }
    states
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{read, unknown, write};
    use super::*;

    const PLENTY: usize = 1_000_000;

    fn holds(ops: &[Op]) -> bool {
        check(ops, PLENTY) == Verdict::Linearizable
    }

    #[test]
    fn reads_find_the_last_write_or_one_under_way() {
        assert!(holds(&[]));
        assert!(holds(&[read(0, 1, 0), write(2, 3, 7), read(4, 5, 7)]));
        assert!(holds(&[write(0, 9, 7), read(1, 2, 0), read(3, 4, 7)]));
        assert!(holds(&[write(0, 9, 7), write(1, 8, 8), read(10, 11, 7)]));
        assert!(holds(&[unknown(0, 7), read(1, 2, 0), read(90, 91, 7)]));
        assert!(holds(&[unknown(0, 7), read(90, 91, 0)]));
    }

    #[test]
    fn what_no_order_explains_is_found() {
        assert!(!holds(&[write(0, 1, 7), read(2, 3, 0)]), "a lost write");
        assert!(!holds(&[read(0, 1, 7)]), "a value nobody wrote");
        assert!(!holds(&[read(0, 1, 7), write(2, 3, 7)]), "a value from the future");
        let back = [write(0, 1, 7), write(2, 9, 8), read(3, 4, 8), read(5, 6, 7)];
        assert!(!holds(&back), "new, then old");
        let torn = [write(0, 9, 7), write(0, 9, 8), read(10, 11, 7), read(12, 13, 8)];
        assert!(!holds(&torn), "two reads after both writes that differ");
        assert_eq!(check(&torn, 3), Verdict::Undecided);
    }

    #[test]
    fn a_violation_names_what_could_not_be_placed() {
        let ops = [write(0, 1, 7), read(2, 3, 7), read(4, 5, 9)];
        assert_eq!(check(&ops, PLENTY), Verdict::Violation(vec![2]));
    }

    /// Every order of every choice of the unanswered operations.
    fn brute(ops: &[Op], order: &mut Vec<usize>) -> bool {
        let complete = (0..ops.len()).all(|at| ops[at].ret.is_none() || order.contains(&at));
        if complete && explains(ops, order) {
            return true;
        }
        for at in 0..ops.len() {
            if !order.contains(&at) {
                order.push(at);
                let found = brute(ops, order);
                order.pop();
                if found {
                    return true;
                }
            }
        }
        false
    }

    fn explains(ops: &[Op], order: &[usize]) -> bool {
        let mut value = 0;
        for (place, at) in order.iter().enumerate() {
            if order[place..].iter().any(|later| ops[*later].precedes(&ops[*at])) {
                return false;
            }
            match ops[*at].kind {
                Kind::Write(written) => value = written,
                Kind::Read(found) if found != value => return false,
                Kind::Read(_) => {}
            }
        }
        true
    }

    fn any_op() -> impl Strategy<Value = Op> {
        (0..12_u64, 0..8_u64, 0..3_u64, any::<bool>(), 0..6_u8).prop_map(
            |(call, long, value, writes, lost)| {
                let kind = if writes { Kind::Write(value) } else { Kind::Read(value) };
                let ret = (lost > 0 || !writes).then_some(call + long);
                Op { call, ret, kind }
            },
        )
    }

    proptest! {
        #[test]
        fn agrees_with_trying_every_order(ops in prop::collection::vec(any_op(), 0..7)) {
            prop_assert_eq!(holds(&ops), brute(&ops, &mut Vec::new()));
        }
    }
}
