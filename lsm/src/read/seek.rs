//! Where a cursor goes, and which way from there.

use std::ops::Bound;

/// Which way a cursor or scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Keys ascend.
    #[default]
    Forward,
    /// Keys descend.
    Backward,
}

/// A place to go to, and the direction from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek<'a> {
    /// The first entry with a key not before this one, then forwards.
    Forward(&'a [u8]),
    /// The last entry with a key within this bound, then backwards.
    Backward(Bound<&'a [u8]>),
}

impl Seek<'_> {
    /// Which way it goes on from there.
    pub fn direction(&self) -> Direction {
        match self {
            Seek::Forward(_) => Direction::Forward,
            Seek::Backward(_) => Direction::Backward,
        }
    }

    /// The place before everything, in that direction.
    pub(super) fn start(direction: Direction) -> Self {
        match direction {
            Direction::Forward => Seek::Forward(&[]),
            Direction::Backward => Seek::Backward(Bound::Unbounded),
        }
    }

    /// Whether a cursor that goes there has passed over `key`.
    pub(super) fn passes(&self, key: &[u8]) -> bool {
        match self {
            Seek::Forward(first) => key < *first,
            Seek::Backward(Bound::Included(last)) => key > *last,
            Seek::Backward(Bound::Excluded(last)) => key >= *last,
            Seek::Backward(Bound::Unbounded) => false,
        }
    }
}

impl<'a> From<&'a [u8]> for Seek<'a> {
    fn from(key: &'a [u8]) -> Self {
        Seek::Forward(key)
    }
}

impl<'a> From<&'a Vec<u8>> for Seek<'a> {
    fn from(key: &'a Vec<u8>) -> Self {
        Seek::Forward(key)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Seek<'a> {
    fn from(key: &'a [u8; N]) -> Self {
        Seek::Forward(key)
    }
}
