use super::builder::BlockBuilder;
use super::*;
use crate::table::codec::Packer;
use crate::{EntryKind, EntryRef, Seq, key_hash};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;

const UID: TableUid = TableUid(0x1234_5678_9abc_def0);

type Entries = BTreeMap<(Vec<u8>, Reverse<u64>), Option<Vec<u8>>>;

fn entry<'a>(key: &'a [u8], seq: u64, value: &'a Option<Vec<u8>>) -> EntryRef<'a> {
    let kind = if value.is_some() { EntryKind::Put } else { EntryKind::Delete };
    EntryRef { key, seq: Seq(seq), kind, value: value.as_deref().unwrap_or_default() }
}

fn frame(entries: &Entries, offset: u64) -> AlignedBuf {
    packed(entries, offset, Codec::None)
}

fn packed(entries: &Entries, offset: u64, codec: Codec) -> AlignedBuf {
    let mut builder = BlockBuilder::new();
    let mut bound = 0;
    for ((key, Reverse(seq)), value) in entries {
        bound = builder.size_with(entry(key, *seq, value));
        builder.add(entry(key, *seq, value));
    }
    let mut buf = AlignedBuf::default();
    buf.extend_from_slice(builder.finish(&mut Packer::new(codec), UID, offset));
    assert!(buf.len() <= bound);
    buf
}

fn open(buf: AlignedBuf) -> Result<Block, Damage> {
    let len = buf.len();
    Block::open(Rc::new(buf), 0, len, UID, 8192)
}

fn entries() -> impl Strategy<Value = Entries> {
    let key = prop::collection::vec(0u8..3, 0..8);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..300));
    prop::collection::btree_map((key, (0u64..50).prop_map(Reverse)), value, 1..120)
}

proptest! {
    #[test]
    fn reads_agree_with_an_ordered_map(
        model in entries(), codec in 0u8..3,
        probes in prop::collection::vec((prop::collection::vec(0u8..3, 0..8), 0u64..52), 60),
    ) {
        let codec = Codec::from_byte(codec).unwrap();
        let block = open(packed(&model, 8192, codec)).unwrap();
        let hints = Hints::of(&block);
        let last = model.keys().next_back().unwrap().0.clone();
        let mut walk = BlockWalk::default();
        let mut more = walk.first(block.clone()).unwrap();
        for ((key, Reverse(seq)), value) in &model {
            prop_assert!(more);
            prop_assert_eq!(walk.entry(), Some(entry(key, *seq, value)));
            more = walk.advance().unwrap();
        }
        prop_assert!(!more && walk.entry().is_none());

        for (key, at) in probes {
            let mut rest = model.range((key.clone(), Reverse(at))..);
            let found = match block.search(&key, Seq(at)).unwrap() {
                Search::Found { seq, kind, value } => Some((seq.0, kind, block.slice(value))),
                Search::Absent => { prop_assert!(rest.clone().next().is_some()); None }
                Search::Beyond => { prop_assert!(rest.clone().next().is_none()); None }
            };
            let want = rest.next().filter(|((k, _), _)| *k == key).map(|((k, s), v)| {
                let e = entry(k, s.0, v);
                (e.seq.0, e.kind, e.value)
            });
            prop_assert_eq!(found, want);
            let hinted = hints.search(&block, &key, key_hash(&key), Seq(at)).unwrap();
            let value = match hinted {
                Search::Found { seq, kind, value } => Some((seq.0, kind, block.slice(value))),
                Search::Absent | Search::Beyond => None,
            };
            prop_assert_eq!(value, want);
            // What may go on in the next block must say so.
            if last == key && want.is_none() {
                prop_assert_eq!(hinted, Search::Beyond);
            }

            let first = model.range((key.clone(), Reverse(u64::MAX))..).next();
            let there = walk.seek(block.clone(), &key).unwrap();
            prop_assert_eq!(there, first.is_some());
            prop_assert_eq!(walk.entry(), first.map(|((k, s), v)| entry(k, s.0, v)));

            for bound in [Bound::Included(&key[..]), Bound::Excluded(&key[..]), Bound::Unbounded] {
                let mut back = BackWalk::default();
                let mut there = back.seek(block.clone(), bound).unwrap();
                let inside = model.iter().rev().filter(|((k, _), _)| match bound {
                    Bound::Included(key) => &k[..] <= key,
                    Bound::Excluded(key) => &k[..] < key,
                    Bound::Unbounded => true,
                });
                for ((key, Reverse(seq)), value) in inside {
                    prop_assert!(there);
                    prop_assert_eq!(back.entry(), Some(entry(key, *seq, value)));
                    there = back.advance().unwrap();
                }
                prop_assert!(!there && back.entry().is_none() && !back.advance().unwrap());
            }
        }
    }

    #[test]
    fn blocks_with_a_valid_checksum_and_random_content_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), HEADER..200), restarts in 0u32..4,
        codec in 0u8..3,
        key in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let codec = Codec::from_byte(codec).unwrap();
        if restarts > 0 && bytes.len() >= HEADER + 4 * restarts as usize {
            let at = bytes.len() - 4 * restarts as usize;
            bytes[at..].fill(0);
        }
        seal(&mut bytes, FrameKind::Data, codec, (restarts + 3, restarts), UID, 8192);
        let mut buf = AlignedBuf::default();
        buf.extend_from_slice(&bytes);
        if let Ok(block) = open(buf) {
            let _ = block.search(&key, Seq(7));
            let _ = Hints::of(&block).search(&block, &key, key_hash(&key), Seq(7));
            let mut walk = BlockWalk::default();
            let mut more = walk.first(block.clone());
            while more == Ok(true) { more = walk.advance(); }
            let _ = walk.seek(block.clone(), &key);
            let mut back = BackWalk::default();
            let mut more = back.seek(block.clone(), Bound::Unbounded);
            while more == Ok(true) { more = back.advance(); }
            let _ = back.seek(block, Bound::Excluded(&key));
        }
    }
}

#[test]
fn a_block_is_bound_to_its_content_table_place_and_kind() {
    let model = Entries::from([((b"k".to_vec(), Reverse(1)), Some(b"v".to_vec()))]);
    let buf = frame(&model, 8192);
    let len = buf.len();
    assert!(check(&buf, FrameKind::Data, UID, 8192).is_ok());
    assert!(check(&buf, FrameKind::Data, UID, 4096).is_err());
    assert!(check(&buf, FrameKind::Data, TableUid(1), 8192).is_err());
    assert!(check(&buf, FrameKind::Index, UID, 8192).is_err());
    assert!(check(&buf[..len - 1], FrameKind::Data, UID, 8192).is_err());
    assert!(check(&buf[..HEADER - 1], FrameKind::Data, UID, 8192).is_err());
    for at in 0..len {
        let mut flipped = buf.clone();
        flipped[at] ^= 0x10;
        assert!(open(flipped).is_err(), "flip at {at} unnoticed");
    }
}

#[test]
fn a_block_gives_up_pages_that_only_its_neighbours_need() {
    let value = Some(vec![3; 5000]);
    let entries = Entries::from([((b"key".to_vec(), Reverse(1)), value.clone())]);
    let frame = frame(&entries, 8192);
    for (before, after) in [(0, 0), (100, 200), (3000, 4000), (4095, 512)] {
        let mut buf = AlignedBuf::zeroed(before);
        buf.extend_from_slice(&frame);
        buf.extend_from_slice(&vec![9; after]);
        let block = Block::open(Rc::new(buf), before, frame.len(), UID, 8192).unwrap().compact();
        assert_eq!(block.buf.capacity(), 2 * PAGE, "{before} before, {after} after");
        let Ok(Search::Found { value: found, .. }) = block.search(b"key", Seq(5)) else { panic!() };
        assert_eq!(Some(block.slice(found).to_vec()), value);
    }
    // A page more does not matter to a large one.
    let large = Entries::from([((b"key".to_vec(), Reverse(1)), Some(vec![3; 16 * PAGE]))]);
    let frame = self::frame(&large, 8192);
    let mut buf = AlignedBuf::with_capacity(frame.len() + PAGE);
    buf.extend_from_slice(&frame);
    buf.extend_from_slice(&[9; PAGE]);
    let place = buf.as_ptr();
    let block = Block::open(Rc::new(buf), 0, frame.len(), UID, 8192).unwrap().compact();
    assert_eq!(block.buf.as_ptr(), place);
}
