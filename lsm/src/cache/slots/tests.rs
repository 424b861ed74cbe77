use super::*;
use crate::TableUid;
use proptest::prelude::*;

fn key(n: u64) -> BlockKey {
    BlockKey { uid: TableUid(n % 7), offset: n / 7 * 4096 }
}

/// Everything that must hold between any two calls.
fn check(slots: &Slots<u64>) {
    let queued: Vec<u32> = slots.small.iter().chain(&slots.main).copied().collect();
    let weight = |at: &u32| u64::from(slots.slots[*at as usize].weight);
    let holds = |at: &&u32| slots.slots[**at as usize].block.is_some();
    assert_eq!(slots.bytes, queued.iter().filter(holds).map(weight).sum::<u64>());
    assert_eq!(slots.small_bytes, slots.small.iter().map(weight).sum::<u64>());
    assert!(slots.bytes <= slots.budget);
    assert_eq!(slots.by_key.len() + slots.holes, queued.len());
    assert!(slots.holes <= SWEEP_AT + slots.by_key.len() / 2);
    assert!(
        queued.iter().filter(holds).all(|at| slots.by_key[&slots.slots[*at as usize].key] == *at)
    );
    assert!(slots.free.iter().all(|at| slots.slots[*at as usize].block.is_none()));
    assert_eq!(slots.slots.len(), queued.len() + slots.free.len());
    assert!(slots.gone_keys.iter().all(|key| slots.gone.contains(key)));
}

proptest! {
    #[test]
    fn what_is_found_is_what_was_put_in_whatever_the_note(
        steps in prop::collection::vec((0u64..60, 0usize..2000, 0u32..80, 0u8..5), 1..400),
        budget in 500u64..30_000,
    ) {
        let mut slots = Slots::new(budget);
        for (n, bytes, note, action) in steps {
            let note = Cell::new(note);
            match slots.get(key(n), &note).map(|(block, _)| *block) {
                Some(_) if action == 4 => {
                    slots.remove(key(n));
                    prop_assert_eq!(slots.peek(key(n), &note), None);
                }
                Some(found) => {
                    prop_assert_eq!(found, n);
                    // The note is right now.
                    prop_assert_eq!(slots.slots[note.get() as usize].block, Some(n));
                }
                None if action < 2 => {
                    match action {
                        0 => slots.insert(key(n), n, bytes),
                        _ => slots.insert_warm(key(n), n, bytes),
                    }
                    let fits = bytes as u64 + OVERHEAD <= budget;
                    prop_assert_eq!(slots.peek(key(n), &note).is_some(), fits);
                }
                None => {}
            }
            check(&slots);
        }
    }
}

#[test]
fn what_is_taken_out_leaves_no_trace_for_long() {
    let mut slots = Slots::new(1 << 30);
    for n in 0..100_000 {
        slots.insert(key(n), n, 1000);
        check_sometimes(&slots, n);
        if n >= 10 {
            slots.remove(key(n - 10));
        }
    }
    assert_eq!(slots.by_key.len(), 10);
    assert!(slots.slots.len() < 1000, "{} slots for ten blocks", slots.slots.len());
}

fn check_sometimes(slots: &Slots<u64>, n: u64) {
    if n.is_multiple_of(997) {
        check(slots);
    }
}

#[test]
fn a_scan_pushes_out_nothing_that_is_used() {
    let mut slots = Slots::new(100 * (1000 + OVERHEAD));
    let note = Cell::new(0);
    for round in 0..3 {
        for n in 0..50 {
            if slots.get(key(n), &note).is_none() {
                assert_eq!(round, 0, "block {n} is gone");
                slots.insert(key(n), n, 1000);
            }
        }
    }
    for n in 1000..2000 {
        slots.insert(key(n), n, 1000);
    }
    assert!((0..50).all(|n| slots.peek(key(n), &note) == Some(&n)));
    check(&slots);
}

/// A cache for 100 blocks whose main queue is full of blocks that nobody uses any more.
fn settled() -> (Slots<u64>, Cell<u32>) {
    let mut slots = Slots::new(100 * (1000 + OVERHEAD));
    let note = Cell::new(0);
    for n in 0..300 {
        slots.insert(key(n), n, 1000);
        slots.get(key(n), &note);
    }
    (slots, note)
}

#[test]
fn what_was_just_written_stays_while_it_is_read() {
    let (mut slots, note) = settled();
    // Half of the budget, five times what the small queue holds.
    for n in 1000..1050 {
        slots.insert_warm(key(n), n, 1000);
    }
    assert!((1000..1050).all(|n| slots.get(key(n), &note).is_some()));
    check(&slots);
}

/// So many blocks are written; returns how many of them were let in.
fn write(slots: &mut Slots<u64>, keys: std::ops::Range<u64>) -> Vec<u64> {
    let mut came = Vec::new();
    for n in keys {
        if slots.admits_warm() {
            slots.insert_warm(key(n), n, 1000);
            came.push(n);
        }
    }
    came
}

#[test]
fn what_is_written_and_never_read_is_sampled_until_it_is_read_again() {
    let (mut slots, note) = settled();
    write(&mut slots, 1000..5000);
    let samples = write(&mut slots, 5000..5320).len();
    assert_eq!(samples, 320 / WARM_SAMPLES as usize);
    // From here on all that is there is asked for.
    for first in (6000..40_000).step_by(10) {
        for n in write(&mut slots, first..first + 10) {
            slots.get(key(n), &note);
        }
    }
    assert_eq!(write(&mut slots, 50_000..50_100).len(), 100, "all are let in again");
    check(&slots);
}

#[test]
fn what_is_written_and_never_read_pushes_nothing_out() {
    let (mut slots, note) = settled();
    let mut lost = 0;
    for written in 1000..5000 {
        slots.insert_warm(key(written), written, 1000);
        // Less often than the main queue would go round if all of this went through it.
        for n in (500..530).filter(|_| written % 150 == 0) {
            if slots.get(key(n), &note).is_none() {
                slots.insert(key(n), n, 1000);
                slots.get(key(n), &note);
                lost += usize::from(written > 3000);
            }
        }
    }
    assert_eq!(lost, 0);
    check(&slots);
}

#[test]
fn what_comes_back_soon_stays() {
    let mut slots = Slots::new(20 * (1000 + OVERHEAD));
    let note = Cell::new(0);
    // The main queue must have blocks for the memory of the gone to be of use.
    for n in 0..10 {
        slots.insert(key(n), n, 1000);
        slots.get(key(n), &note);
    }
    for n in 100..120 {
        slots.insert(key(n), n, 1000);
    }
    let left = (100..120).find(|n| slots.peek(key(*n), &note).is_none()).unwrap();
    slots.insert(key(left), left, 1000);
    for n in 200..230 {
        slots.insert(key(n), n, 1000);
    }
    assert_eq!(slots.peek(key(left), &note), Some(&left));
}

#[test]
fn a_slot_takes_one_cache_line() {
    assert_eq!(size_of::<Slot<crate::cache::Cached>>(), 64);
}
