//! The findings of a check: problems, notes, what was not looked at, and what was.

use core::fmt::Write as _;

use serde_json::{Value, json};

use crate::observe::reporter::printable;
use crate::observe::run_events::GenerationRejected;

/// How many problems are kept. Further ones are only counted.
const PROBLEMS_MAX: usize = 100;

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The first problems.
    problems: Vec<String>,
    /// The number of all problems.
    count: usize,
    /// Notes: worth knowing, and not wrong.
    notes: Vec<String>,
    /// What was not checked, or not understood.
    unchecked: Vec<String>,
    /// A description of what was checked.
    subject: String,
}

impl Findings {
    /// Whether there is no problem.
    #[must_use]
    pub(crate) const fn holds(&self) -> bool {
        self.count == 0
    }

    /// Enters a problem.
    pub(crate) fn problem(&mut self, message: String) {
        self.count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(message);
        }
    }

    /// Enters a note.
    pub(crate) fn note(&mut self, message: String) {
        self.notes.push(message);
    }

    /// Enters something that was not looked at.
    pub(crate) fn not_checked(&mut self, message: String) {
        self.unchecked.push(message);
    }

    /// How many problems there are.
    #[must_use]
    pub(crate) const fn problems_so_far(&self) -> usize {
        self.count
    }

    /// Describes what was looked at, for the last line.
    pub(crate) fn describe(&mut self, subject: String) {
        self.subject = subject;
    }

    /// The event of a generation that is not published because of these findings.
    #[must_use]
    pub(crate) fn rejecting(self, generation: u64) -> GenerationRejected {
        GenerationRejected {
            generation,
            more: self.count - self.problems.len(),
            problems: self.problems,
        }
    }

    /// The findings for a person: one problem a line, then notes, then the verdict.
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

    /// The findings for programs.
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
