//! The order within a partition's list: who comes first is shared as evenly as who is in it.
//!
//! A keyspace with N = 1 uses only the first of each list, so each prefix of the lists is balanced
//! too. Only places within a list are exchanged: for keyspaces that use the whole list nothing
//! moves.

use std::collections::VecDeque;

/// Orders every list, moving as few as possible from their places.
pub(super) fn order(
    mut lists: Vec<Vec<u16>>,
    racks: &[u16],
    nodes: usize,
    replicas: usize,
) -> Vec<Vec<u16>> {
    lists.iter_mut().for_each(|list| spread_racks(list, racks));
    let mut held = vec![0; nodes];
    lists.iter().flatten().for_each(|node| held[usize::from(*node)] += 1);
    for column in 0..replicas.saturating_sub(1) {
        Column { column, replicas, held: &held, racks }.balance(&mut lists);
    }
    lists
}

/// Brings a rack's second replica behind the first of every other rack.
fn spread_racks(list: &mut [u16], racks: &[u16]) {
    let rank = |list: &[u16], at: usize| {
        let rack = racks[usize::from(list[at])];
        list[..at].iter().filter(|node| racks[usize::from(**node)] == rack).count()
    };
    let mut ranked: Vec<_> = (0..list.len()).map(|at| (rank(list, at), at, list[at])).collect();
    ranked.sort_unstable();
    for (place, (.., node)) in list.iter_mut().zip(ranked) {
        *place = node;
    }
}

/// The prefix of the lists that ends with one column.
struct Column<'a> {
    column: usize,
    replicas: usize,
    held: &'a [usize],
    racks: &'a [u16],
}

impl Column<'_> {
    fn balance(&self, lists: &mut [Vec<u16>]) {
        let mut count = vec![0; self.held.len()];
        for list in lists.iter() {
            list.iter().take(self.column + 1).for_each(|node| count[usize::from(*node)] += 1);
        }
        let share = |node: usize| self.held[node] * (self.column + 1);
        let most = |node: usize| share(node).div_ceil(self.replicas);
        let least = |node: usize| share(node) / self.replicas;
        for node in 0..count.len() {
            while count[node] > most(node) {
                let ends: Vec<_> = (0..count.len()).map(|to| count[to] < most(to)).collect();
                let Some(last) = self.shift(node, &ends, lists, true) else { break };
                (count[node], count[last]) = (count[node] - 1, count[last] + 1);
            }
            while count[node] < least(node) {
                let ends: Vec<_> = (0..count.len()).map(|from| count[from] > least(from)).collect();
                let Some(last) = self.shift(node, &ends, lists, false) else { break };
                (count[node], count[last]) = (count[node] + 1, count[last] - 1);
            }
        }
    }

    /// Shifts one place of this column away from `node` (or towards it) along the shortest chain
    /// of exchanges that ends at one of `ends`, which is returned.
    fn shift(
        &self,
        node: usize,
        ends: &[bool],
        lists: &mut [Vec<u16>],
        away: bool,
    ) -> Option<usize> {
        let (mut came_by, mut found) = (vec![None; self.held.len()], None);
        let mut queue = VecDeque::from([node]);
        'search: while let Some(from) = queue.pop_front() {
            for (at, list) in lists.iter().enumerate() {
                for later in self.column + 1..list.len() {
                    let (here, there) = (usize::from(list[self.column]), usize::from(list[later]));
                    let (near, far) = if away { (here, there) } else { (there, here) };
                    let new = near == from && far != node && came_by[far].is_none();
                    if !new || !self.keeps_racks_apart(list, later) {
                        continue;
                    }
                    came_by[far] = Some((from, at, later));
                    if ends[far] {
                        found = Some(far);
                        break 'search;
                    }
                    queue.push_back(far);
                }
            }
        }
        let mut to = found?;
        while let Some((from, at, later)) = came_by[to] {
            lists[at].swap(self.column, later);
            to = from;
        }
        found
    }

    /// Whether an exchange leaves the prefix on as many racks as it is.
    fn keeps_racks_apart(&self, list: &[u16], later: usize) -> bool {
        let rack = |at: usize| self.racks[usize::from(list[at])];
        let coming = rack(later);
        let among = |rack_of: u16| (0..self.column).any(|at| rack(at) == rack_of);
        !among(coming) || among(rack(self.column))
    }
}
