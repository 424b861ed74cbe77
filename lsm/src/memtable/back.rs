//! Going through a memtable backwards. The lists lead forwards only: the key before is looked for
//! in the ordered index, and the versions of a key are gathered by whoever wants the oldest first.

use super::{Memtable, NONE, Pos};
use std::cmp::Ordering;
use std::ops::Bound;

impl Memtable {
    /// The newest version of the last key within `bound`.
    pub fn seek_back(&self, bound: Bound<&[u8]>) -> Option<Pos> {
        let compare = |id: u32, key: &[u8]| self.arena.get(self.keys[id].bytes).cmp(key);
        let found = match bound {
            Bound::Unbounded => self.order.before(u128::MAX, |_| Ordering::Less),
            Bound::Excluded(key) => self.order.before(self.prefixes.of(key), |id| compare(id, key)),
            Bound::Included(key) => {
                // For the index a key that is equal lies before, too.
                let order = |id| compare(id, key).then(Ordering::Less);
                self.order.before(self.prefixes.of(key), order)
            }
        };
        found.map(|id| Pos(self.keys[id].newest))
    }

    /// The version of the same key that came before the one at `pos`.
    pub fn older(&self, pos: Pos) -> Option<Pos> {
        let older = self.versions[pos.0].older;
        (older != NONE).then_some(Pos(older))
    }
}
