//! Which operations clients carry out: all they plan, or those chosen, so that a failing run can
//! be made smaller. Every step of a client has its own randomness: leaving one out does not change
//! what the others are.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A client and the number of its step, both from 1 on.
pub type Step = (u64, u64);

/// Longest range of steps a text may name.
const MOST_STEPS: u64 = 1_000_000;

/// A choice of steps. As text: `1.4,2.7-9` are step 4 of client 1 and steps 7 to 9 of client 2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen(pub BTreeSet<Step>);

/// An operation that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// The number of its key among all.
    pub key: usize,
    /// Who, and which step.
    pub step: Step,
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Chosen, String> {
        let mut chosen = BTreeSet::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let expected = || format!("{item:?} is no step such as 2.7 or 2.7-9");
            let number = |text: &str| text.parse::<u64>().map_err(|_| expected());
            let (client, steps) = item.split_once('.').ok_or_else(expected)?;
            let (first, last) = steps.split_once('-').unwrap_or((steps, steps));
            let (client, first, last) = (number(client)?, number(first)?, number(last)?);
            if last.saturating_sub(first) > MOST_STEPS {
                return Err(expected());
            }
            chosen.extend((first..=last).map(|step| (client, step)));
        }
        Ok(Chosen(chosen))
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some((client, first)) = steps.next() {
            let mut last = first;
            while steps.next_if_eq(&(client, last + 1)).is_some() {
                last += 1;
            }
            match first == last {
                true => write!(f, "{comma}{client}.{first}")?,
                false => write!(f, "{comma}{client}.{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        let chosen = Chosen([(1, 4), (2, 7), (2, 8), (2, 9), (3, 1)].into());
        assert_eq!(chosen.to_string(), "1.4,2.7-9,3.1");
        assert_eq!(chosen.to_string().parse(), Ok(chosen));
        assert_eq!("".parse(), Ok(Chosen::default()));
        for wrong in ["1", "1.x", "1.2-", "1.1-99999999999"] {
            assert!(wrong.parse::<Chosen>().is_err(), "{wrong}");
        }
    }
}
