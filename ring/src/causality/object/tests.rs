//! The stored format holds what it was given and survives anything it was not.

use proptest::prelude::*;

use super::*;
use crate::causality::context::tests::context;

fn sibling() -> impl Strategy<Value = Sibling> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    (0_u64..5, 1_u64..9, any::<u64>(), any::<bool>(), any::<Option<Token>>(), value).prop_map(
        |(actor, counter, hlc, tombstone, token, value)| Sibling {
            dot: Dot::new(Actor(actor), counter),
            hlc: Hlc(hlc),
            tombstone,
            token,
            value,
        },
    )
}

fn object() -> impl Strategy<Value = Object> {
    (context(), prop::collection::vec(sibling(), 0..4)).prop_map(|(seen, mut siblings)| {
        siblings.sort_by_key(|sibling| sibling.dot);
        Object { seen, siblings }
    })
}

fn encoded(object: &Object) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.encode(&mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn round_trip(object in object()) {
        let bytes = encoded(&object);
        let view = ObjectRef::decode(&bytes).unwrap();
        prop_assert_eq!(view.len(), object.siblings.len());
        prop_assert_eq!(view.siblings().len(), object.siblings.len());
        prop_assert_eq!(view.is_deleted(), object.siblings.iter().all(|s| s.tombstone));
        for actor in 0..8 {
            prop_assert_eq!(view.counter_of(Actor(actor)), object.seen.vector().get(Actor(actor)));
        }
        prop_assert_eq!(view.seen(), object.seen.clone());
        prop_assert_eq!(view.to_owned(), object);
    }

    #[test]
    fn any_cut_or_addition_is_noticed(object in object(), at: prop::sample::Index) {
        let mut bytes = encoded(&object);
        prop_assert!(ObjectRef::decode(&bytes[..at.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert_eq!(ObjectRef::decode(&bytes).err(), Some(ObjectError::Length));
    }

    #[test]
    fn random_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        format in VERSION_PLAIN..=VERSION,
    ) {
        if let Some(version) = bytes.first_mut() {
            *version = format;
        }
        if let Ok(view) = ObjectRef::decode(&bytes) {
            let object = view.to_owned();
            prop_assert!(!object.siblings.is_sorted_by_key(|s| s.dot) || encoded(&object) == bytes);
        }
    }

    #[test]
    fn damage_never_panics(object in object(), at: prop::sample::Index, to: u8) {
        let mut bytes = encoded(&object);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(view) = ObjectRef::decode(&bytes) {
            prop_assert_eq!(view.siblings().count(), view.len());
        }
    }
}

#[test]
fn unknown_version_is_named() {
    assert_eq!(ObjectRef::decode(&[3, 0, 0, 0, 0, 0]).err(), Some(ObjectError::Version(3)));
    assert_eq!(ObjectRef::decode(&[]).err(), Some(ObjectError::Length));
}

#[test]
fn limits_hold_in_both_directions() {
    let one = Sibling {
        dot: Dot::new(Actor(1), 1),
        hlc: Hlc(1),
        tombstone: false,
        token: None,
        value: Vec::new(),
    };
    let object = Object { seen: Context::default(), siblings: vec![one; MAX_SIBLINGS + 1] };
    assert!(matches!(object.encode(&mut Vec::new()), Err(ObjectError::TooLarge { .. })));
    let claims_many = [VERSION_PLAIN, 0, 0xff, 0xff, 0, 0];
    assert_eq!(ObjectRef::decode(&claims_many).err(), Some(ObjectError::Malformed));
}

/// The bytes of format 1, fixed for ever.
#[test]
fn golden() {
    let object = Object {
        seen: Context::new([Dot::new(Actor(7), 2)].into_iter().collect()),
        siblings: vec![Sibling {
            dot: Dot::new(Actor(7), 2),
            hlc: Hlc(0x0102),
            tombstone: false,
            token: None,
            value: b"hi".to_vec(),
        }],
    };
    let expected = [
        &[1, 0, 1, 0, 1, 0][..],
        &[7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
        b"hi",
    ]
    .concat();
    assert_eq!(encoded(&object), expected);
}

/// The bytes of format 2, fixed for ever: single dots follow the vector.
#[test]
fn golden_with_single_dots() {
    let mut seen = Context::new([Dot::new(Actor(7), 2)].into_iter().collect());
    seen.observe(Dot::new(Actor(9), 5));
    let expected = [
        &[2, 0, 0, 0, 1, 0, 1, 0][..],
        &[7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(encoded(&Object { seen, siblings: Vec::new() }), expected);
    let empty_list = [2, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(ObjectRef::decode(&empty_list).err(), Some(ObjectError::Malformed));
    let covered = [&expected[..24], &expected[8..24]].concat();
    assert_eq!(ObjectRef::decode(&covered).err(), Some(ObjectError::Malformed));
}
