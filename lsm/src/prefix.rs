//! Keys as numbers that sort like them, so that most comparisons touch no key.
//!
//! Keys of one engine begin with a partition, two bytes, and go on with what the application puts
//! in front of all its keys ("user:0000"). The number skips such an *infix*: it has the two bytes,
//! how what follows compares with the infix, and the bytes behind it. Any infix gives right
//! numbers; a good one gives numbers that are rarely equal.

use std::cmp::Ordering;

/// Bytes before the infix: the partition.
const HEAD: usize = 2;
/// Key bytes in a number besides the head and the byte for the comparison with the infix.
const TAIL: usize = 13;
/// A longer infix would cost more to compare than it saves.
const MOST_INFIX: usize = 64;

/// Turns keys into numbers. Numbers of two of them must not be compared with each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes {
    infix: Box<[u8]>,
}

impl Prefixes {
    /// The number of a key. Smaller numbers mean smaller keys; equal numbers decide nothing.
    pub fn of(&self, key: &[u8]) -> u128 {
        let (head, rest) = key.split_at(HEAD.min(key.len()));
        let lead = &rest[..self.infix.len().min(rest.len())];
        let (class, tail) = match lead.cmp(&self.infix) {
            Ordering::Less => (0, rest),
            Ordering::Equal => (1, &rest[lead.len()..]),
            Ordering::Greater => (2, rest),
        };
        let mut bytes = [0; HEAD + 1 + TAIL];
        bytes[..head.len()].copy_from_slice(head);
        bytes[HEAD] = class;
        match tail.first_chunk::<TAIL>() {
            Some(tail) => bytes[HEAD + 1..].copy_from_slice(tail),
            None => bytes[HEAD + 1..HEAD + 1 + tail.len()].copy_from_slice(tail),
        }
        u128::from_be_bytes(bytes)
    }

    /// Memory held, bytes.
    pub fn held(&self) -> usize {
        self.infix.len()
    }
}

/// Finds the infix that keys share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Learner {
    /// What all keys so far have behind their head; `None` before the first.
    shared: Option<Vec<u8>>,
}

impl Learner {
    /// Sees a key. One that ends within the infix does not shorten it.
    pub fn see(&mut self, key: &[u8]) {
        let rest = key.get(HEAD..).unwrap_or_default();
        let rest = &rest[..rest.len().min(MOST_INFIX)];
        let Some(shared) = &mut self.shared else {
            self.shared = (!rest.is_empty()).then(|| rest.to_vec());
            return;
        };
        if !rest.starts_with(shared) && !shared.starts_with(rest) {
            let common = common_prefix(shared, rest);
            shared.truncate(common);
        }
    }

    /// Numbers for keys like those seen.
    pub fn prefixes(&self) -> Prefixes {
        Prefixes { infix: self.shared.as_deref().unwrap_or_default().into() }
    }

    /// Memory held, bytes.
    pub fn held(&self) -> usize {
        self.shared.as_ref().map_or(0, Vec::capacity)
    }
}

/// Number of bytes that both begin with.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0u8..3, 0..24), 2..20)
    }

    proptest! {
        #[test]
        fn numbers_sort_like_keys_whatever_the_infix(seen in keys(), others in keys()) {
            let mut learner = Learner::default();
            seen.iter().for_each(|key| learner.see(key));
            let prefixes = learner.prefixes();
            for a in seen.iter().chain(&others) {
                for b in seen.iter().chain(&others) {
                    if a <= b {
                        prop_assert!(prefixes.of(a) <= prefixes.of(b), "{a:?} {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_infix_makes_long_keys_of_a_partition_distinct() {
        let key = |partition: u8, n: u32| {
            [&[0, partition], format!("tenant/user:{n:018}").as_bytes()].concat()
        };
        let mut learner = Learner::default();
        (0..100).for_each(|n| learner.see(&key(n as u8 % 7, n)));
        learner.see(&[0, 3]); // a separator that was cut
        let prefixes = learner.prefixes();
        assert!(prefixes.of(&key(1, 41)) < prefixes.of(&key(1, 42)));
        assert!(prefixes.of(&key(1, 42)) < prefixes.of(&key(2, 0)));
        assert!(prefixes.of(&[0, 1]) < prefixes.of(&key(1, 0)));
        assert_eq!(Prefixes::default().of(&key(1, 41)), Prefixes::default().of(&key(1, 42)));
    }

    #[test]
    fn no_key_and_short_keys_teach_nothing() {
        let mut learner = Learner::default();
        assert_eq!(learner.prefixes().held(), 0);
        learner.see(b"");
        learner.see(b"ab");
        assert_eq!(learner.prefixes().held(), 0);
        learner.see(&[7; 500]);
        assert_eq!(learner.prefixes().held(), MOST_INFIX);
    }
}
