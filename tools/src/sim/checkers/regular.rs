//! One writer's register under strict quorums with R + W > N: a read finds the last write that
//! was over before it began, or one that was under way meanwhile (Lamport, "On interprocess
//! communication", 1986). Two reads in a row may disagree while a write is going on.

use super::{Kind, Op};

/// The reads that found what they must not: by index, with what they found.
pub fn check(ops: &[Op]) -> Vec<(usize, u64)> {
    let found = |(at, op): (usize, &Op)| match op.kind {
        Kind::Read(value) if op.ret.is_some() && !is_allowed(ops, op, value) => Some((at, value)),
        _ => None,
    };
    ops.iter().enumerate().filter_map(found).collect()
}

fn is_allowed(ops: &[Op], read: &Op, value: u64) -> bool {
    let writes = || ops.iter().filter(|op| matches!(op.kind, Kind::Write(_)));
    // Whether a write was over and another came after it, both before the read.
    let is_replaced = |old: &Op| writes().any(|new| old.precedes(new) && new.precedes(read));
    let initial = value == 0 && !writes().any(|write| write.precedes(read));
    let writes_it = |op: &&Op| op.kind == Kind::Write(value) && op.call <= read.end();
    initial || writes().filter(writes_it).any(|write| !is_replaced(write))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::linear::{self, Verdict};
    use super::super::testing::{read, unknown, write};
    use super::*;

    #[test]
    fn the_last_write_or_one_under_way_is_found() {
        assert!(check(&[read(0, 1, 0), write(2, 3, 7), read(4, 5, 7)]).is_empty());
        let flicker = [write(0, 1, 6), write(2, 9, 7), read(3, 4, 7), read(5, 6, 6)];
        assert!(check(&flicker).is_empty(), "new, then old, while the write goes on");
        assert!(check(&[unknown(0, 7), read(90, 91, 7), read(92, 93, 0)]).is_empty());
    }

    #[test]
    fn an_older_write_is_not() {
        assert_eq!(check(&[write(0, 1, 7), read(2, 3, 0)]), [(1, 0)]);
        assert_eq!(check(&[write(0, 1, 7), write(2, 3, 8), read(4, 5, 7)]), [(2, 7)]);
        assert_eq!(check(&[read(0, 1, 7), write(2, 3, 7)]), [(0, 7)]);
    }

    /// A register with one writer whose every operation takes a moment within its span.
    fn history() -> impl Strategy<Value = Vec<Op>> {
        let spans = prop::collection::vec((0..4_u64, 0..4_u64, any::<bool>(), 0..4_u64), 0..10);
        spans.prop_map(|spans| {
            let (mut time, mut last, mut ops) = (0, 0, Vec::new());
            for (before, after, writes, value) in spans {
                let kind = if writes {
                    last = value;
                    Kind::Write(value)
                } else {
                    Kind::Read(last)
                };
                let moment = time + 5;
                ops.push(Op { call: moment - before, ret: Some(moment + after), kind });
                time = moment;
            }
            ops
        })
    }

    proptest! {
        #[test]
        fn whatever_is_linearizable_is_regular(ops in history()) {
            prop_assert_eq!(linear::check(&ops, 100_000), Verdict::Linearizable);
            prop_assert!(check(&ops).is_empty());
        }
    }
}
