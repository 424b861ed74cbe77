//! The memtable's ordered index: a B+ tree of key numbers that answers one question, "which key
//! comes just before this one?". The keys themselves form a linked list in key order, so the
//! tree is never walked by a scan and positions survive every insert.
//!
//! Each entry carries its key's number ([`crate::prefix`]), so that most comparisons stay inside one
//! node. Keys are only added: a memtable forgets everything at once.

use super::arena::Segments;
use std::cmp::Ordering;

const FANOUT: usize = 64;

/// Sorted entries of one node. In an inner node entry `i` is the smallest key under child `i`.
#[derive(Debug)]
struct Node {
    len: usize,
    prefixes: [u128; FANOUT],
    keys: [u32; FANOUT],
}

impl Node {
    fn empty() -> Self {
        Node { len: 0, prefixes: [0; FANOUT], keys: [0; FANOUT] }
    }

    /// How many entries sort before the target; `order` compares a key number with the target.
    fn rank(&self, target: u128, order: &mut impl FnMut(u32) -> Ordering) -> usize {
        let prefixes = &self.prefixes[..self.len];
        let low = prefixes.partition_point(|p| *p < target);
        if prefixes.get(low) != Some(&target) {
            return low;
        }
        let ties = prefixes[low..].partition_point(|p| *p == target);
        low + self.keys[low..low + ties].partition_point(|k| order(*k) == Ordering::Less)
    }

    fn insert(&mut self, at: usize, prefix: u128, key: u32) {
        self.prefixes.copy_within(at..self.len, at + 1);
        self.keys.copy_within(at..self.len, at + 1);
        self.prefixes[at] = prefix;
        self.keys[at] = key;
        self.len += 1;
    }

    /// Moves the entries from `at` on into a new node.
    fn split_off(&mut self, at: usize) -> Node {
        let mut right = Node::empty();
        right.len = self.len - at;
        right.prefixes[..right.len].copy_from_slice(&self.prefixes[at..self.len]);
        right.keys[..right.len].copy_from_slice(&self.keys[at..self.len]);
        self.len = at;
        right
    }
}

#[derive(Debug)]
struct Inner {
    node: Node,
    children: [u32; FANOUT],
}

impl Inner {
    fn insert(&mut self, at: usize, prefix: u128, key: u32, child: u32) {
        self.children.copy_within(at..self.node.len, at + 1);
        self.children[at] = child;
        self.node.insert(at, prefix, key);
    }

    fn split_off(&mut self, at: usize) -> Inner {
        let mut children = [0; FANOUT];
        children[..self.node.len - at].copy_from_slice(&self.children[at..self.node.len]);
        Inner { node: self.node.split_off(at), children }
    }
}

/// A child that a split produced, to be entered into the parent.
struct Sibling {
    prefix: u128,
    key: u32,
    child: u32,
}

/// More levels than 2^32 keys can need: every node but a freshly appended one is half full.
const MAX_HEIGHT: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Order {
    leaves: Segments<Node, 16>,
    inners: Segments<Inner, 16>,
    root: u32,
    /// Inner levels above the leaves.
    height: usize,
}

impl Order {
    /// The greatest key before the target, if any.
    pub fn before(&self, target: u128, mut order: impl FnMut(u32) -> Ordering) -> Option<u32> {
        if self.leaves.len() == 0 {
            return None;
        }
        let mut at = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[at];
            at = inner.children[inner.node.rank(target, &mut order).saturating_sub(1)];
        }
        let leaf = &self.leaves[at];
        // Only the leftmost leaf can have nothing before the target: every other leaf was chosen
        // because its smallest key is before it.
        leaf.node_before(leaf.rank(target, &mut order))
    }

    /// Adds a key that is not in the tree; returns the key before it.
    pub fn insert(
        &mut self,
        prefix: u128,
        key: u32,
        mut order: impl FnMut(u32) -> Ordering,
    ) -> Option<u32> {
        if self.leaves.len() == 0 {
            self.root = self.leaves.push(Node::empty());
        }
        let mut path = [(0, 0); MAX_HEIGHT];
        let mut at = self.root;
        for step in &mut path[..self.height] {
            let inner = &mut self.inners[at];
            let rank = inner.node.rank(prefix, &mut order);
            if rank == 0 {
                // The new key becomes the smallest of this subtree.
                (inner.node.prefixes[0], inner.node.keys[0]) = (prefix, key);
            }
            let child = rank.saturating_sub(1);
            *step = (at, child);
            at = inner.children[child];
        }
        let leaf = &self.leaves[at];
        let rank = leaf.rank(prefix, &mut order);
        let before = leaf.node_before(rank);
        let mut sibling = self.insert_leaf(at, rank, prefix, key);
        for &(inner, child) in path[..self.height].iter().rev() {
            let Some(new) = sibling else { return before };
            sibling = self.insert_inner(inner, child + 1, new);
        }
        if let Some(new) = sibling {
            self.grow(new);
        }
        before
    }

    fn insert_leaf(&mut self, at: u32, rank: usize, prefix: u128, key: u32) -> Option<Sibling> {
        let leaf = &mut self.leaves[at];
        if leaf.len < FANOUT {
            leaf.insert(rank, prefix, key);
            return None;
        }
        // Appending leaves the old leaf full: keys that arrive in order fill the tree.
        let middle = if rank == FANOUT { FANOUT } else { FANOUT / 2 };
        let mut right = leaf.split_off(middle);
        if rank > middle || middle == FANOUT {
            right.insert(rank - middle, prefix, key);
        } else {
            leaf.insert(rank, prefix, key);
        }
        let (prefix, key) = (right.prefixes[0], right.keys[0]);
        Some(Sibling { prefix, key, child: self.leaves.push(right) })
    }

    fn insert_inner(&mut self, at: u32, rank: usize, new: Sibling) -> Option<Sibling> {
        let inner = &mut self.inners[at];
        if inner.node.len < FANOUT {
            inner.insert(rank, new.prefix, new.key, new.child);
            return None;
        }
        let middle = if rank == FANOUT { FANOUT } else { FANOUT / 2 };
        let mut right = inner.split_off(middle);
        if rank > middle || middle == FANOUT {
            right.insert(rank - middle, new.prefix, new.key, new.child);
        } else {
            inner.insert(rank, new.prefix, new.key, new.child);
        }
        let (prefix, key) = (right.node.prefixes[0], right.node.keys[0]);
        Some(Sibling { prefix, key, child: self.inners.push(right) })
    }

    fn grow(&mut self, right: Sibling) {
        assert!(self.height < MAX_HEIGHT, "the ordered index is too high");
        let mut left = self.root;
        for _ in 0..self.height {
            left = self.inners[left].children[0];
        }
        let leftmost = &self.leaves[left];
        let (prefix, key) = (leftmost.prefixes[0], leftmost.keys[0]);
        let mut root = Inner { node: Node::empty(), children: [0; FANOUT] };
        root.insert(0, prefix, key, self.root);
        root.insert(1, right.prefix, right.key, right.child);
        self.root = self.inners.push(root);
        self.height += 1;
    }

    pub fn held(&self) -> usize {
        self.leaves.held() + self.inners.held()
    }
}

impl Node {
    fn node_before(&self, rank: usize) -> Option<u32> {
        rank.checked_sub(1).map(|at| self.keys[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(numbers: impl Iterator<Item = u64>) -> (Order, Vec<u64>) {
        let (mut order, mut stored) = (Order::default(), Vec::new());
        for n in numbers {
            let id = stored.len() as u32;
            // Half of the number decides by prefix, the rest by full comparison.
            let before = order.insert(u128::from(n >> 8), id, |k| stored_cmp(&stored, k, n));
            let expected = stored.iter().copied().filter(|m| *m < n).max();
            assert_eq!(before.map(|k| stored[k as usize]), expected);
            stored.push(n);
        }
        (order, stored)
    }

    fn stored_cmp(stored: &[u64], k: u32, n: u64) -> Ordering {
        stored[k as usize].cmp(&n)
    }

    #[test]
    fn finds_the_key_before_in_any_order_of_arrival() {
        let shuffled = (0..6000u64).map(|i| i * 2_654_435_761 % 65_537);
        for numbers in
            [shuffled.collect::<Vec<_>>(), (0..6000).collect(), (0..6000).rev().collect()]
        {
            let (order, stored) = build(numbers.into_iter());
            for n in (0..66_000).step_by(37) {
                let found = order.before(u128::from(n >> 8), |k| stored_cmp(&stored, k, n));
                let expected = stored.iter().copied().filter(|m| *m < n).max();
                assert_eq!(found.map(|k| stored[k as usize]), expected, "before {n}");
            }
        }
    }

    #[test]
    fn keys_in_order_fill_their_leaves() {
        let (order, stored) = build(0..4096);
        assert_eq!(order.leaves.len(), stored.len() / FANOUT);
    }
}
