//! Idempotency tokens and jitter.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::TOKEN_BYTES;

/// Makes tokens no other client makes: a counter under two keyed hashes whose 128-bit keys the
/// system's randomness gave this client.
#[derive(Debug)]
pub(super) struct Tokens {
    keys: [RandomState; 2],
    counter: AtomicU64,
}

impl Tokens {
    pub fn new() -> Self {
        Self { keys: [RandomState::new(), RandomState::new()], counter: AtomicU64::new(0) }
    }

    pub fn next(&self) -> [u8; TOKEN_BYTES] {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut token = [0; TOKEN_BYTES];
        for (half, key) in token.chunks_exact_mut(8).zip(&self.keys) {
            half.copy_from_slice(&key.hash_one(count).to_le_bytes());
        }
        token
    }

    /// A number that spreads clients out in time.
    pub fn jitter(&self) -> u64 {
        self.keys[0].hash_one(self.counter.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_differ_within_and_between_clients() {
        let (one, other) = (Tokens::new(), Tokens::new());
        let all: BTreeSet<_> = (0..1000).flat_map(|_| [one.next(), other.next()]).collect();
        assert_eq!(all.len(), 2000);
    }
}
