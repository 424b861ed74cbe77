//! Histories that must pass and histories that must fail.

use super::super::cart;
use super::*;

const KEY: &[u8] = b"k";

/// A history over three replicas in which time passes by itself.
struct Story {
    history: History,
    now: u64,
}

impl Story {
    fn new(style: Style) -> Story {
        let mut history = History { replicas: 3, ..History::default() };
        history.add_key(KEY, style);
        Story { history, now: 0 }
    }

    fn tick(&mut self) -> Nanos {
        self.now += 10;
        Nanos(self.now)
    }

    /// A write that `acks` replicas have on disk; none: nobody knows. Deletes without a value.
    fn write(&mut self, acks: u8, value: bool, seen: &[WriteId]) -> WriteId {
        let (begun, at) = (self.tick(), self.tick());
        let content = value.then_some(|id| value_of(id, 5));
        let seen = seen.iter().flat_map(|id| self.history.covered_by(*id)).collect();
        let (id, _) = self.history.begin(KEY, content, false, seen, begun);
        if acks > 0 {
            let ack = Acknowledgement { at, acks, sloppy: false, durable: true, by: NodeId(1) };
            self.history.end(id, Outcome::Acknowledged(ack));
        }
        id
    }

    fn read(&mut self, answers: u8, ids: &[WriteId]) {
        let (since, until) = (self.tick(), self.tick());
        let ids = ids.iter().copied().collect();
        self.history.check(
            KEY,
            &Shown {
                since,
                until,
                answers,
                sloppy: false,
                copies: 1,
                by: NodeId(1),
                hedged: false,
                ids,
            },
        );
    }

    fn end(&mut self, ids: &[WriteId]) {
        self.history.check_final(KEY, &ids.iter().copied().collect());
    }

    fn found(&self, what: &str) -> bool {
        self.history.violations.iter().any(|line| line.contains(what))
    }
}

#[test]
fn siblings_that_do_not_know_each_other_are_fine() {
    let mut story = Story::new(Style::Versions);
    let (a, b) = (story.write(2, true, &[]), story.write(2, true, &[]));
    story.read(2, &[a, b]);
    let c = story.write(2, true, &[a, b]);
    story.read(2, &[c]);
    story.read(1, &[a, b]); // one replica may be behind
    story.end(&[c]);
    assert!(!story.found(""), "{:?}", story.history.violations);
}

#[test]
fn a_lost_write_is_found() {
    let mut story = Story::new(Style::Versions);
    let (a, b) = (story.write(2, true, &[]), story.write(2, true, &[]));
    story.read(2, &[b]);
    assert!(story.found("lost: acknowledged write 1"), "{a}");
    let mut story = Story::new(Style::Versions);
    story.write(1, true, &[]);
    story.end(&[]);
    assert!(story.found("in the end: lost"));
}

#[test]
fn a_covered_version_beside_its_successor_is_found() {
    let mut story = Story::new(Style::Versions);
    let a = story.write(2, true, &[]);
    let b = story.write(2, true, &[a]);
    story.read(1, &[a, b]);
    assert!(story.found("false sibling"));
}

#[test]
fn a_deleted_version_that_comes_back_is_found() {
    let mut story = Story::new(Style::Versions);
    let a = story.write(3, true, &[]);
    story.write(2, false, &[a]);
    story.read(1, &[a]);
    assert!(!story.found(""), "one replica may be behind");
    story.end(&[a]);
    assert!(story.found("back again: 1 was deleted"));
}

#[test]
fn a_lost_disk_excuses_what_only_it_may_have_had() {
    for (acks, excused) in [(1, true), (2, false)] {
        let mut story = Story::new(Style::Versions);
        story.write(acks, true, &[]);
        let at = story.tick();
        story.history.emptied.push(at);
        story.end(&[]);
        assert_eq!(!story.found(""), excused, "{acks} copies");
    }
    let mut story = Story::new(Style::Versions);
    let at = story.tick();
    story.history.emptied.push(at);
    story.write(1, true, &[]);
    story.end(&[]);
    assert!(story.found("lost"), "the disk was lost before the write");
}

#[test]
fn phantoms_are_found() {
    let mut story = Story::new(Style::Versions);
    let a = story.write(2, true, &[]);
    story.history.identify(KEY, &[value_of(a, 5)]);
    assert!(!story.found(""));
    story.history.identify(KEY, &[value_of(9, 5)]);
    assert!(story.found("was never written"));
    story.history.identify(KEY, &[value_of(a, 4)]);
    assert!(story.found("is not what was written"));
    story.history.identify(KEY, &[value_of(a, 5), value_of(a, 5)]);
    assert!(story.found("shown twice"));
    story.history.end(a, Outcome::NotApplied);
    story.history.identify(KEY, &[value_of(a, 5)]);
    assert!(story.found("answered \"not applied\""));
}

#[test]
fn a_cart_without_an_item_is_found() {
    let mut story = Story::new(Style::Cart);
    let (a, b) = (story.write(2, true, &[]), story.write(2, true, &[]));
    let both = cart::encode(b, &BTreeSet::from([a]));
    story.history.check_cart(KEY, &[both]);
    assert!(!story.found(""));
    story.history.check_cart(KEY, &[cart::encode(b, &BTreeSet::new())]);
    assert!(story.found("items are missing from the cart: [1]"));
}

#[test]
fn a_register_that_goes_back_is_found() {
    let mut story = Story::new(Style::Register);
    let a = story.write(2, true, &[]);
    story.read(2, &[a]);
    let b = story.write(2, true, &[a]);
    story.read(2, &[b]);
    story.history.check_register(KEY);
    assert!(!story.found(""), "{:?}", story.history.violations);
    story.history.replicas = 9; // the other checks look away
    story.read(2, &[a]);
    story.history.check_register(KEY);
    assert!(story.found("irregular"));
}

#[test]
fn a_register_seen_new_then_old_is_found_where_reads_are_monotonic() {
    for (monotonic, dies) in [(false, false), (true, false), (true, true)] {
        let mut story = Story::new(Style::Register);
        story.history.monotonic = monotonic;
        let a = story.write(2, true, &[]);
        let b = story.write(0, true, &[a]); // for ever under way
        story.read(2, &[b]);
        if dies {
            let at = story.tick();
            story.history.deaths.push(at);
        }
        story.read(2, &[a]);
        story.history.check_register(KEY);
        assert_eq!(story.found("not linearizable"), monotonic && !dies, "{monotonic} {dies}");
    }
    let mut story = Story::new(Style::Register);
    story.history.monotonic = true;
    let a = story.write(0, true, &[]);
    let b = story.write(2, true, &[]);
    story.read(2, &[a, b]); // the one in doubt stays beside its successor
    story.read(2, &[b]);
    story.history.check_register(KEY);
    assert!(!story.found(""), "{:?}", story.history.violations);
}

#[test]
fn where_the_last_write_wins_one_must_be_left() {
    let mut story = Story::new(Style::Replace);
    let (a, _) = (story.write(2, true, &[]), story.write(2, true, &[]));
    story.end(&[a]);
    assert!(!story.found(""));
    story.end(&[]);
    assert!(story.found("no value is left"));
}

#[test]
fn sessions_know_what_they_were_shown() {
    let mut story = Story::new(Style::Versions);
    let (a, mut session) = (story.write(0, true, &[]), Session::default());
    let mut read = |answers, ids: &[WriteId]| {
        let ids = ids.iter().copied().collect();
        let (since, until) = (Nanos(1), Nanos(2));
        let shown = Shown {
            since,
            until,
            answers,
            sloppy: false,
            copies: 1,
            by: NodeId(1),
            hedged: false,
            ids,
        };
        story.history.check_session(&mut session, KEY, &shown);
        story.history.violations.len()
    };
    assert_eq!((read(1, &[a]), read(2, &[]), read(3, &[])), (0, 0, 1));
}
