//! What a check found: problems, what it could not look at, and what it looked at.

use core::fmt::Write as _;

use serde_json::{Value, json};

use crate::observe::reporter::printable;
use crate::observe::run_events::GenerationRejected;

/// Problems that are kept; the rest is only counted.
const PROBLEMS_MAX: usize = 100;

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The first of the problems.
    problems: Vec<String>,
    /// How many there are.
    count: usize,
    /// What is worth knowing, and not wrong.
    notes: Vec<String>,
    /// What was not looked at, or not understood.
    unchecked: Vec<String>,
    /// What was looked at.
    subject: String,
}

impl Findings {
    /// Whether there is no problem.
    #[must_use]
    pub(crate) const fn holds(&self) -> bool {
        self.count == 0
    }

    /// Something is wrong.
    pub(crate) fn problem(&mut self, message: String) {
        self.count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(message);
        }
    }

    /// Something is worth knowing.
    pub(crate) fn note(&mut self, message: String) {
        self.notes.push(message);
    }

    /// Something was not looked at.
    pub(crate) fn not_checked(&mut self, message: String) {
        self.unchecked.push(message);
    }

    /// How many problems there are.
    #[must_use]
    pub(crate) const fn problems_so_far(&self) -> usize {
        self.count
    }

    /// What was looked at, for the last line.
    pub(crate) fn describe(&mut self, subject: String) {
        self.subject = subject;
    }

    /// As the event of a generation that is not published.
    #[must_use]
    pub(crate) fn rejecting(self, generation: u64) -> GenerationRejected {
        GenerationRejected {
            generation,
            more: self.count - self.problems.len(),
            problems: self.problems,
        }
    }

    /// For a person: a problem a line, then what is said beside, then the verdict.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |words: &str, message: &str| {
            let _ = writeln!(text, "{words}: {}", printable(message));
        };
        for problem in &self.problems {
            line("problem", problem);
        }
        let more = self.count - self.problems.len();
        if more > 0 {
            line("problem", &format!("and {more} more"));
        }
        for note in &self.notes {
            line("note", note);
        }
        for unchecked in &self.unchecked {
            line("not checked", unchecked);
        }
        if self.holds() {
            line("holds", &self.subject);
        } else {
            line(
                "fails",
                &format!("{} problems; {}", self.count, self.subject),
            );
        }
        text
    }

    /// The same for programs.
    #[must_use]
    pub(crate) fn json(&self) -> Value {
        json!({
            "holds": self.holds(),
            "subject": self.subject,
            "problems": self.problems,
            "more_problems": self.count - self.problems.len(),
            "notes": self.notes,
            "not_checked": self.unchecked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hundred_are_named_and_the_rest_is_counted() {
        let mut findings = Findings::default();
        findings.describe("an adapter".into());
        findings.not_checked("the base".into());
        findings.note("a layer".into());
        let said = "note: a layer\nnot checked: the base\n";
        assert_eq!(findings.text(), format!("{said}holds: an adapter\n"));
        findings.problem("a\nforged: line".into());
        assert!(!findings.holds());
        assert_eq!(
            findings.text(),
            format!("problem: a\\nforged: line\n{said}fails: 1 problems; an adapter\n")
        );
        (1..103).for_each(|number| findings.problem(format!("{number}")));
        let text = findings.text();
        assert_eq!(
            text.lines().filter(|l| l.starts_with("problem")).count(),
            101
        );
        assert!(text.contains("problem: and 3 more\n"), "{text}");
        let event = findings.rejecting(7);
        assert_eq!(
            (event.generation, event.problems.len(), event.more),
            (7, 100, 3)
        );
    }
}
