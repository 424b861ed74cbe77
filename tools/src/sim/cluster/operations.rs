//! Which operations clients carry out: all they plan, or those chosen, so that a failing run can
//! be made smaller. Every step of a client has its own randomness: leaving one out does not change
//! what the others are. Nor, where a choice says when steps begin, at which instant they do.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use coronet_lsm::env::Nanos;

/// A client and the number of its step, both from 1 on.
pub type Step = (u64, u64);

/// Longest range of steps a text may name.
const MOST_STEPS: u64 = 1_000_000;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A choice of steps, and when each begins; without an instant it does when the client has ended
/// what it did before, and a pause. As text: `1.4,2.7-9` are step 4 of client 1 and steps 7 to 9 of
/// client 2; `1.4@2.5` is step 4 of client 1, 2.5 seconds after the beginning of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen(pub BTreeMap<Step, Option<Nanos>>);

impl Chosen {
    /// These operations, each when it was.
    pub fn as_they_were(operations: &[Operation]) -> Chosen {
        Chosen(operations.iter().map(|operation| (operation.step, Some(operation.at))).collect())
    }
}

/// An operation that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// The number of its key among all.
    pub key: usize,
    /// Who, and which step.
    pub step: Step,
    /// When its client turned to it.
    pub at: Nanos,
}

/// Reads seconds with up to nine decimals.
fn instant(text: &str) -> Option<Nanos> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if part.len() > 9 || !digits(whole) || !digits(part) {
        return None;
    }
    let (whole, nanos) = (whole.parse::<u64>().ok()?, format!("{part:0<9}").parse::<u64>().ok()?);
    whole.checked_mul(SECOND)?.checked_add(nanos).map(Nanos)
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Chosen, String> {
        let mut chosen = BTreeMap::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let expected = || format!("{item:?} is no step such as 2.7, 2.7-9 or 2.7@1.5");
            let (item, at) = match item.split_once('@') {
                Some((item, at)) => (item, Some(instant(at).ok_or_else(expected)?)),
                None => (item, None),
            };
            let number = |text: &str| text.parse::<u64>().map_err(|_| expected());
            let (client, steps) = item.split_once('.').ok_or_else(expected)?;
            let (first, last) = steps.split_once('-').unwrap_or((steps, steps));
            let (client, first, last) = (number(client)?, number(first)?, number(last)?);
            let several = last != first;
            if last.saturating_sub(first) > MOST_STEPS || (several && at.is_some()) {
                return Err(expected());
            }
            chosen.extend((first..=last).map(|step| ((client, step), at)));
        }
        Ok(Chosen(chosen))
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = self.0.iter().map(|(step, at)| (*step, *at)).peekable();
        let mut comma = "";
        while let Some(((client, first), at)) = steps.next() {
            let mut last = first;
            while at.is_none() && steps.next_if_eq(&((client, last + 1), None)).is_some() {
                last += 1;
            }
            write!(f, "{comma}{client}.{first}")?;
            match at {
                Some(Nanos(at)) => write!(f, "@{}.{:09}", at / SECOND, at % SECOND)?,
                None if first == last => {}
                None => write!(f, "-{last}")?,
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
        let steps = [(1, 4), (2, 7), (2, 8), (2, 9), (3, 1)];
        let mut chosen = Chosen(steps.into_iter().map(|step| (step, None)).collect());
        assert_eq!(chosen.to_string(), "1.4,2.7-9,3.1");
        assert_eq!(chosen.to_string().parse(), Ok(chosen.clone()));
        chosen.0.insert((2, 8), Some(Nanos(2_000_000_017)));
        assert_eq!(chosen.to_string(), "1.4,2.7,2.8@2.000000017,2.9,3.1");
        assert_eq!(chosen.to_string().parse(), Ok(chosen));
        assert_eq!("1.1@2.5".parse(), Ok(Chosen([((1, 1), Some(Nanos(2_500_000_000)))].into())));
        assert_eq!("".parse(), Ok(Chosen::default()));
        let wrong = ["1", "1.x", "1.2-", "1.1-99999999999", "1.1@", "1.1@x", "1.1@1.0000000001"];
        for wrong in wrong.into_iter().chain(["1.1-2@3", "1.1@99999999999", "1.1@+1"]) {
            assert!(wrong.parse::<Chosen>().is_err(), "{wrong}");
        }
    }
}
