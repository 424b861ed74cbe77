//! A loser tree: finds the first of many inputs with one comparison per level of the tree.

/// The order of `n` numbered inputs, given by a `before` that the caller passes each time.
#[derive(Debug)]
pub(super) struct Tournament {
    /// `losers[0]` is the winner; `losers[i]` lost the match at inner node `i`. The leaf of input
    /// `k` is node `n + k`, the parent of node `i` is `i / 2`.
    losers: Vec<u32>,
}

impl Tournament {
    pub fn new(inputs: usize) -> Self {
        Tournament { losers: vec![0; inputs] }
    }

    /// The first input; zero when there are none.
    pub fn winner(&self) -> usize {
        self.losers.first().map_or(0, |w| *w as usize)
    }

    /// Plays all matches anew.
    pub fn rebuild(&mut self, before: impl Fn(usize, usize) -> bool) {
        let n = self.losers.len();
        // Winners of the nodes of the whole tree, from the leaves to the root.
        let mut winners = vec![0; 2 * n];
        for node in (1..2 * n).rev() {
            winners[node] = if node >= n {
                (node - n) as u32
            } else {
                let (a, b) = (winners[2 * node], winners[2 * node + 1]);
                let (winner, loser) = if before(b as usize, a as usize) { (b, a) } else { (a, b) };
                self.losers[node] = loser;
                winner
            };
        }
        if n > 0 {
            self.losers[0] = winners[1];
        }
    }

    /// Plays the matches on the path of input `changed`, the last winner.
    pub fn replay(&mut self, changed: usize, before: impl Fn(usize, usize) -> bool) {
        let mut winner = changed as u32;
        let mut node = (self.losers.len() + changed) / 2;
        while node > 0 {
            let other = &mut self.losers[node];
            if before(*other as usize, winner as usize) {
                std::mem::swap(other, &mut winner);
            }
            node /= 2;
        }
        self.losers[0] = winner;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merges_any_number_of_sorted_inputs(
            mut inputs in prop::collection::vec(prop::collection::vec(0u8..50, 0..20), 0..12)
        ) {
            inputs.iter_mut().for_each(|input| input.sort());
            let mut want: Vec<(u8, usize)> = inputs.iter().enumerate()
                .flat_map(|(i, input)| input.iter().map(move |v| (*v, i))).collect();
            want.sort();
            let mut at = vec![0; inputs.len()];
            let head = |at: &[usize], i: usize| inputs[i].get(at[i]).map_or((256, i), |v| (u16::from(*v), i));
            let mut tournament = Tournament::new(inputs.len());
            tournament.rebuild(|a, b| head(&at, a) < head(&at, b));
            for (value, input) in want {
                let winner = tournament.winner();
                prop_assert_eq!((inputs[winner][at[winner]], winner), (value, input));
                at[winner] += 1;
                tournament.replay(winner, |a, b| head(&at, a) < head(&at, b));
            }
        }
    }
}
