//! Shortens what is said of many shards for the same reason: the first shards are named, then the
//! reason is said once a second with a count.

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

/// How often one reason is repeated.
const PERIOD: Duration = Duration::from_secs(1);
/// How many shards with the same reason are named at first, so that whoever has only a few bad ones
/// reads which.
const NAMED: usize = 8;

/// The reasons that were said, with the number of shards since.
#[derive(Debug, Default)]
pub(crate) struct Repeats(BTreeMap<String, Repeated>);

#[derive(Debug)]
struct Repeated {
    said: Instant,
    /// Number of shards that were named.
    named: usize,
    /// The last message that was held back.
    last: String,
    /// Number of messages that were held back.
    unsaid: usize,
}

impl Repeated {
    /// The line about messages that were held back.
    fn line(&mut self, now: Instant) -> Option<String> {
        let more = self.unsaid.checked_sub(1)?;
        (self.said, self.unsaid) = (now, 0);
        let last = core::mem::take(&mut self.last);
        Some(match more {
            0 => last,
            _ => format!("{last}; and {more} more for the same reason"),
        })
    }
}

impl Repeats {
    /// Takes a message; returns what is to be said now.
    pub(crate) fn take(&mut self, message: &str, now: Instant) -> Option<String> {
        let Some(known) = self.0.get_mut(&reason_of(message)) else {
            let first = Repeated {
                said: now,
                named: 1,
                last: String::new(),
                unsaid: 0,
            };
            self.0.insert(reason_of(message), first);
            return Some(message.to_owned());
        };
        if known.named < NAMED {
            known.named += 1;
            known.said = now;
            return Some(message.to_owned());
        }
        known.unsaid += 1;
        message.clone_into(&mut known.last);
        let due = now.saturating_duration_since(known.said) >= PERIOD;
        due.then(|| known.line(now)).flatten()
    }

    /// The lines about held-back messages that are due; at the end, all of them.
    pub(crate) fn due(&mut self, now: Instant, is_end: bool) -> Vec<String> {
        let is_due = |known: &Repeated| now.saturating_duration_since(known.said) >= PERIOD;
        let due = self.0.values_mut().filter(|known| is_end || is_due(known));
        let lines = due.filter_map(|known| known.line(now)).collect();
        self.0.retain(|_, known| known.unsaid > 0 || !is_due(known));
        lines
    }

    /// When the next line will be due.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        let unsaid = self.0.values().filter(|known| known.unsaid > 0);
        unsaid.map(|known| known.said + PERIOD).min()
    }
}

/// The reason of a message: the message without the shard, and without numbers and names that
/// differ from one to the next.
fn reason_of(message: &str) -> String {
    let reason = message.split_once(".safetensors: ");
    let reason = reason.map_or(message, |(_, reason)| reason);
    let unquoted = reason.split('\'').step_by(2);
    unquoted
        .flat_map(str::chars)
        .filter(|c| !c.is_ascii_digit())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::clock;

    #[test]
    fn one_reason_is_said_once_a_second_and_none_is_left_unsaid() {
        let mut repeats = Repeats::default();
        let begun = clock::now();
        let at = |tenths: u64| begun + Duration::from_millis(100 * tenths);
        let torn =
            |number: usize| format!("shard s{number}.safetensors: truncated: {number} of 90");
        let other = "shard a.safetensors: tensor 'x' has dtype I32";
        assert!((0..NAMED).all(|number| repeats.take(&torn(number), at(0)).is_some()));
        // Another reason, whichever tensor has it.
        for name in ["b", "c", "d", "e", "f", "g", "h", "i"] {
            assert!(repeats.take(&other.replace('x', name), at(0)).is_some());
        }
        assert_eq!(repeats.due_at(), None);
        assert!((8..16).all(|number| repeats.take(&torn(number), at(1)).is_none()));
        assert_eq!(repeats.take(other, at(1)), None);
        assert_eq!(repeats.due_at(), Some(at(10)));
        assert!(repeats.due(at(9), false).is_empty());
        let said = repeats.take(&torn(16), at(10));
        assert_eq!(said, Some(torn(16) + "; and 8 more for the same reason"));
        assert_eq!(repeats.due(at(11), false), [other]);
        assert_eq!(repeats.take(&torn(17), at(12)), None);
        assert_eq!(repeats.due(at(12), true), [torn(17)]);
        assert!(repeats.due(at(40), true).is_empty() && repeats.0.is_empty());
    }
}
