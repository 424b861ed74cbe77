//! What clients do how often: drawn per seed, so that some seeds are all about one thing.

use coronet_sim::Rng;

/// A client's next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// List the keys.
    List,
    /// Look at one replica's copy.
    Look,
    /// Read.
    Read,
    /// Write or delete.
    Write,
}

/// Which context a write carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// None: it is blind.
    Blind,
    /// Any of the last few, maybe one used before.
    Old,
    /// The latest.
    Latest,
}

/// The habits of all clients of a seed.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Longest pause of a client between two steps, microseconds.
    pub pause: u64,
    /// In 100 steps: lists, looks, reads; the rest writes.
    steps: [u64; 3],
    /// In 100 writes: blind ones, old contexts.
    habits: [u64; 2],
    /// In 100 writes that may: deletions.
    deletes: u64,
    /// In 100 writes: those with a token.
    tokens: u64,
    /// In 100 steps: those that concern the first key whatever else was drawn.
    hot: u64,
}

impl Mix {
    /// Draws one.
    pub fn draw(rng: &mut Rng) -> Mix {
        Mix {
            pause: [20_000, 60_000, 300_000][rng.index(3)],
            steps: [[5, 5, 35], [1, 10, 20], [2, 2, 70], [20, 5, 30]][rng.index(4)],
            habits: [[16, 16], [60, 5], [0, 40], [2, 2]][rng.index(4)],
            deletes: [0, 10, 20, 50][rng.index(4)],
            tokens: [0, 50, 50, 100][rng.index(4)],
            hot: [0, 0, 30, 80][rng.index(4)],
        }
    }

    /// The next step.
    pub fn step(&self, rng: &mut Rng) -> Step {
        let at = rng.below(100);
        let [lists, looks, reads] = self.steps;
        match at {
            _ if at < lists => Step::List,
            _ if at < lists + looks => Step::Look,
            _ if at < lists + looks + reads => Step::Read,
            _ => Step::Write,
        }
    }

    /// The context of the next write.
    pub fn habit(&self, rng: &mut Rng) -> Habit {
        let at = rng.below(100);
        match at {
            _ if at < self.habits[0] => Habit::Blind,
            _ if at < self.habits[0] + self.habits[1] => Habit::Old,
            _ => Habit::Latest,
        }
    }

    /// Whether the next write deletes.
    pub fn deletes(&self, rng: &mut Rng) -> bool {
        rng.below(100) < self.deletes
    }

    /// Whether the next write has a token.
    pub fn has_token(&self, rng: &mut Rng) -> bool {
        rng.below(100) < self.tokens
    }

    /// The key of the next step, of so many.
    pub fn key(&self, rng: &mut Rng, keys: usize) -> usize {
        if rng.below(100) < self.hot { 0 } else { rng.index(keys) }
    }
}
