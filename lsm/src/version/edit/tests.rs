use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn keyspace() -> impl Strategy<Value = KeyspaceId> {
    prop_oneof![Just(KeyspaceId::DEFAULT), any::<u32>().prop_map(KeyspaceId)]
}

fn table() -> impl Strategy<Value = TableMeta> {
    let key = || proptest::collection::vec(any::<u8>(), 0..40);
    (keyspace(), 0..LEVELS as u8, any::<[u64; 7]>(), key(), key()).prop_map(
        |(keyspace, level, [run, id, uid, oldest, newest, all, half], first, last)| TableMeta {
            keyspace,
            level,
            run,
            id: TableId(id),
            uid: TableUid(uid),
            first: first.into(),
            last: last.into(),
            written: Written { oldest, newest },
            expiry: Expiry { all: Millis(all), half: Millis(half) },
        },
    )
}

fn given_up() -> impl Strategy<Value = GivenUp> {
    (keyspace(), any::<u64>().prop_map(TableUid), any::<u64>())
        .prop_map(|(keyspace, uid, offset)| GivenUp { keyspace, uid, offset })
}

fn options() -> impl Strategy<Value = KeyspaceOptions> {
    proptest::option::of(0u64..1000).prop_map(|ttl| KeyspaceOptions {
        default_ttl: ttl.map(Duration::from_secs),
        ..KeyspaceOptions::default()
    })
}

proptest! {
    #[test]
    fn edits_survive_and_truncation_is_seen(
        added in proptest::collection::vec(table(), 0..8),
        removed in proptest::collection::vec(any::<u64>().prop_map(TableId), 0..8),
        dropped in proptest::collection::vec(keyspace(), 0..3),
        defined in proptest::collection::vec((keyspace(), options()), 0..3),
        policies in proptest::collection::vec((keyspace(), "\\PC{0,20}"), 0..3),
        flushed in proptest::collection::vec((keyspace(), any::<u64>().prop_map(Seq)), 0..3),
        lost in proptest::collection::vec(table(), 0..4),
        accepted in proptest::collection::vec(keyspace(), 0..2),
        given_up in proptest::collection::vec(given_up(), 0..3),
        numbers in any::<(u64, u64, u64)>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let progress = Progress {
            next_table: numbers.0, last_seq: Seq(numbers.1), log_floor: numbers.2,
        };
        let lost = lost.iter().map(|meta| Lost::table(meta, "000001.sst".as_ref(), Seq(7)));
        let lost = lost.collect();
        let edit = Edit {
            removed, dropped, defined, policies, added, accepted, lost, given_up, flushed, progress,
        };
        let bytes = edit.encode();
        prop_assert_eq!(Edit::decode(&bytes), Ok(edit));
        prop_assert!(Edit::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let decoded = Edit::decode(&bytes);
        prop_assert!(decoded.is_err() || !bytes.is_empty());
    }
}

fn meta() -> TableMeta {
    TableMeta {
        keyspace: KeyspaceId::DEFAULT,
        level: 0,
        run: 1,
        id: TableId(1),
        uid: TableUid(9),
        first: (*b"a").into(),
        last: (*b"b").into(),
        written: Written { oldest: 5, newest: 6 },
        expiry: Expiry::default(),
    }
}

#[test]
fn contradictions_are_named() {
    let mut state = State::default();
    let edit = Edit { removed: vec![TableId(3)], ..Edit::default() };
    assert!(state.apply(&edit).unwrap_err().contains("table 3"));
    let add = Edit { added: vec![meta()], ..Edit::default() };
    state.apply(&add).unwrap();
    assert!(state.apply(&add).unwrap_err().contains("twice"));
    let moved = TableMeta { level: 1, ..meta() };
    let edit = Edit { added: vec![moved.clone()], removed: vec![TableId(1)], ..Edit::default() };
    state.apply(&edit).unwrap();
    assert_eq!(state.as_edit().added, vec![moved]);
    let stray = TableMeta { keyspace: KeyspaceId(7), id: TableId(2), ..meta() };
    let edit = Edit { added: vec![stray], ..Edit::default() };
    assert!(state.apply(&edit).unwrap_err().contains("unknown keyspace 7"));
    let edit = Edit { flushed: vec![(KeyspaceId(7), Seq(1))], ..Edit::default() };
    assert!(state.apply(&edit).unwrap_err().contains("unknown keyspace 7"));
    for id in [KeyspaceId::DEFAULT, KeyspaceId(7)] {
        let edit = Edit { dropped: vec![id], ..Edit::default() };
        assert!(state.apply(&edit).unwrap_err().contains("not there to drop"));
    }
}

#[test]
fn tables_of_a_run_that_would_overlap_are_refused() {
    let mut state = State::default();
    let table = |id, run, first: &[u8], last: &[u8]| TableMeta {
        id: TableId(id),
        level: 1,
        run,
        first: first.into(),
        last: last.into(),
        ..meta()
    };
    let add = |added| Edit { added, ..Edit::default() };
    let apart = vec![table(1, 1, b"a", b"c"), table(2, 1, b"d", b"f"), table(3, 2, b"b", b"e")];
    state.apply(&add(apart)).unwrap();
    for (first, last) in [(b"c", b"c"), (b"e", b"e"), (b"f", b"g"), (b"a", b"z")] {
        let met = state.clone().apply(&add(vec![table(4, 1, first, last)]));
        assert!(met.unwrap_err().contains("of one run overlap"), "{first:?} to {last:?}");
    }
    // What goes with the same edit is not in the way.
    let edit = Edit { removed: vec![TableId(2)], ..add(vec![table(4, 1, b"e", b"g")]) };
    state.apply(&edit).unwrap();
}

#[test]
fn a_keyspace_goes_with_its_tables_and_comes_back_empty() {
    let id = KeyspaceId(7);
    let mut state = State::default();
    let own = TableMeta { keyspace: id, id: TableId(2), ..meta() };
    let define = (id, KeyspaceOptions::default());
    let edit = Edit {
        defined: vec![define.clone()],
        added: vec![meta(), own],
        flushed: vec![(id, Seq(5))],
        ..Edit::default()
    };
    state.apply(&edit).unwrap();
    assert!(state.needs(id, Seq(6)) && !state.needs(id, Seq(5)));
    assert_eq!((state.flushed_by_all(), state.flushed_by_any()), (Seq(0), Seq(5)));
    let rebuilt = Edit::decode(&state.as_edit().encode()).unwrap();
    let mut copy = State::default();
    copy.apply(&rebuilt).unwrap();
    assert_eq!(copy, state);
    state.apply(&Edit { dropped: vec![id], ..Edit::default() }).unwrap();
    assert_eq!(state.tables.keys().collect::<Vec<_>>(), [&TableId(1)]);
    assert!(!state.needs(id, Seq(6)));
    let again = Edit { defined: vec![define], flushed: vec![(id, Seq(9))], ..Edit::default() };
    state.apply(&again).unwrap();
    assert!(state.needs(id, Seq(10)) && !state.needs(id, Seq(9)));
}

/// `docs/FORMATS.md`, "Manifest": an edit of version 1, as the first release wrote it.
#[test]
fn edits_of_version_1_are_read() {
    let bytes = b"\x02\x03\0\0\0\0\0\0\0\
        \x01\x02\x04\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\0\0\0a\x01\0\0\0b\
        \x03\x05\0\0\0\0\0\0\0\x64\0\0\0\0\0\0\0\x32\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0";
    let expected = Edit {
        removed: vec![TableId(3)],
        added: vec![TableMeta {
            level: 2,
            run: 0,
            id: TableId(4),
            written: Written::default(),
            ..meta()
        }],
        flushed: vec![(KeyspaceId::DEFAULT, Seq(50))],
        progress: Progress { next_table: 5, last_seq: Seq(100), log_floor: 7 },
        ..Edit::default()
    };
    assert_eq!(Edit::decode(bytes), Ok(expected));
}

#[test]
fn an_accepted_block_is_given_up_as_long_as_its_table_lives() {
    let block = Lost { offset: 4096, ..Lost::table(&meta(), "1.sst".as_ref(), Seq(6)) };
    let whole = Lost::table(&meta(), "1.sst".as_ref(), Seq(6));
    let mut state = State::default();
    let found = Edit { added: vec![meta()], lost: vec![block, whole], ..Edit::default() };
    state.apply(&found).unwrap();
    let accepted = Edit { accepted: vec![KeyspaceId::DEFAULT], ..Edit::default() };
    state.apply(&accepted).unwrap();
    let given_up = GivenUp { keyspace: KeyspaceId::DEFAULT, uid: meta().uid, offset: 4096 };
    assert_eq!((&state.given_up[..], state.lost.len()), (&[given_up][..], 0));
    let mut copy = State::default();
    copy.apply(&Edit::decode(&state.as_edit().encode()).unwrap()).unwrap();
    assert_eq!(copy, state);
    let moved = TableMeta { level: 1, ..meta() };
    let edit = Edit { removed: vec![TableId(1)], added: vec![moved], ..Edit::default() };
    state.apply(&edit).unwrap();
    assert_eq!(state.given_up.len(), 1, "the table lives on another level");
    state.apply(&Edit { removed: vec![TableId(1)], ..Edit::default() }).unwrap();
    assert_eq!(state.given_up, []);
}

/// `docs/FORMATS.md`, "Manifest": these bytes are what version 5 is.
#[test]
fn golden_bytes_of_an_edit_with_keyspaces() {
    let id = KeyspaceId(258);
    let options = KeyspaceOptions { memtable_percent: Some(25), ..KeyspaceOptions::default() };
    let lost = TableMeta { keyspace: id, ..meta() };
    let edit = Edit {
        removed: vec![TableId(3)],
        dropped: vec![KeyspaceId(1)],
        defined: vec![(id, options)],
        policies: vec![(id, "t".into())],
        added: vec![TableMeta { keyspace: id, level: 2, id: TableId(4), ..meta() }],
        accepted: vec![id],
        lost: vec![Lost::table(&lost, "4.sst".as_ref(), Seq(6))],
        given_up: vec![GivenUp { keyspace: id, uid: TableUid(9), offset: 4096 }],
        flushed: vec![(id, Seq(50))],
        progress: Progress { next_table: 5, last_seq: Seq(100), log_floor: 7 },
    };
    let golden = b"\x02\x03\0\0\0\0\0\0\0\
        \x08\x01\0\0\0\x0a\
        \x08\x02\x01\0\0\x09\x09\0\0\0\x01\x19\0\0\0\0\0\0\0\
        \x07\x01\0\0\0t\
        \x0e\x02\x01\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\
        \x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\
        \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0a\x01\0\0\0b\
        \x05\
        \x04\x09\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x06\0\0\0\0\0\0\0\
        \x05\0\0\x004.sst\x01\0\0\0a\x01\0\0\0b\
        \x0d\x09\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\
        \x0b\x32\0\0\0\0\0\0\0\
        \x0c\x05\0\0\0\0\0\0\0\x64\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0";
    assert_eq!(edit.encode(), golden);
    assert_eq!(Edit::decode(golden), Ok(edit));
}
