//! Names of modules as a quantization's configuration writes them: in full, or as `re:` with a
//! regular expression of Python's. Of such expressions the part is read that occurs in these
//! configurations. It is matched with the beginning of a name, as `re.match` does.
//!
//! A match is computed as the set of places where it may end, so that no expression takes longer
//! than its length times the square of the name's.

pub(crate) mod parser;

use core::fmt;

use crate::formats::packed::name_pattern::parser::Parser;

/// The prefix of an expression.
const EXPRESSION: &str = "re:";
/// How many characters of an expression a message repeats.
const SAID: usize = 200;

/// A name, or an expression for several.
#[derive(Debug, Clone)]
pub(crate) enum NamePattern {
    /// A name in full.
    Name(String),
    /// An expression, which matches the beginning of a name.
    Expression(Expression),
}

/// Why an expression is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnreadExpression {
    text: String,
    at: usize,
}

impl fmt::Display for UnreadExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'re:{}' is not read from its character {} on: letters, '.', classes, groups, '|', '^', \
             '$' and repetitions are",
            Shortened(&self.text),
            self.at + 1
        )
    }
}

/// The beginning of a text that may have any length.
struct Shortened<'a>(&'a str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SAID) {
            Some((end, _)) => write!(f, "{}...", self.0[..end].escape_debug()),
            None => write!(f, "{}", self.0.escape_debug()),
        }
    }
}

/// An expression.
#[derive(Debug, Clone)]
pub(crate) struct Expression(Node);

#[derive(Debug, Clone)]
enum Node {
    /// One character of this class.
    One(Class),
    /// Several parts in a row.
    All(Vec<Self>),
    /// One of several parts.
    Any(Vec<Self>),
    /// A part that is repeated.
    Repeated {
        node: Box<Self>,
        least: usize,
        most: usize,
    },
    Begin,
    End,
}

#[derive(Debug, Clone)]
struct Class {
    ranges: Vec<Range>,
    inverted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    first: char,
    last: char,
}

impl NamePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`UnreadExpression`].
    pub(crate) fn parse(text: &str) -> Result<Self, UnreadExpression> {
        match text.strip_prefix(EXPRESSION) {
            None => Ok(Self::Name(text.to_owned())),
            Some(text) => Parser::whole(text).map(|node| Self::Expression(Expression(node))),
        }
    }

    /// Whether the pattern is this very name.
    #[must_use]
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Name(own) if own == name)
    }

    /// Whether the pattern is this name, or an expression that matches it.
    #[must_use]
    pub(crate) fn meets(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Expression(Expression(node)) => {
                let name: Vec<char> = name.chars().collect();
                let mut begin = vec![false; name.len() + 1];
                begin[0] = true;
                node.ends(&name, &begin).contains(&true)
            }
        }
    }
}

impl Class {
    fn of(first: char, last: char) -> Self {
        Self {
            ranges: vec![Range { first, last }],
            inverted: false,
        }
    }

    /// The class that a letter after a backslash stands for; `None` where it is not read.
    fn escaped(letter: char) -> Option<Self> {
        let range = |first, last| Range { first, last };
        let (digits, blanks) = (
            vec![range('0', '9')],
            vec![range(' ', ' '), range('\t', '\r')],
        );
        let words = [('0', '9'), ('a', 'z'), ('A', 'Z'), ('_', '_')];
        let words = words.map(|(first, last)| range(first, last)).to_vec();
        let (ranges, inverted) = match letter {
            'd' => (digits, false),
            'D' => (digits, true),
            'w' => (words, false),
            'W' => (words, true),
            's' => (blanks, false),
            'S' => (blanks, true),
            _ if letter.is_ascii_alphanumeric() => return None,
            _ => (vec![range(letter, letter)], false),
        };
        Some(Self { ranges, inverted })
    }

    fn has(&self, letter: char) -> bool {
        let mut ranges = self.ranges.iter();
        self.inverted != ranges.any(|range| (range.first..=range.last).contains(&letter))
    }
}

impl Node {
    /// The places where a match may end that begins at these places.
    fn ends(&self, name: &[char], begins: &[bool]) -> Vec<bool> {
        let mut ends = vec![false; begins.len()];
        match self {
            Self::One(class) => {
                for (at, letter) in name.iter().enumerate() {
                    ends[at + 1] = begins[at] && class.has(*letter);
                }
            }
            Self::Begin => ends[0] = begins[0],
            Self::End => ends[name.len()] = begins[name.len()],
            Self::All(nodes) => {
                ends = nodes
                    .iter()
                    .fold(begins.to_vec(), |begins, node| node.ends(name, &begins));
            }
            Self::Any(nodes) => {
                for node in nodes {
                    join(&mut ends, &node.ends(name, begins));
                }
            }
            Self::Repeated { node, least, most } => {
                let mut current = begins.to_vec();
                if *least == 0 {
                    ends.clone_from(&current);
                }
                for count in 1..=*most {
                    current = node.ends(name, &current);
                    let grown = count >= *least && join(&mut ends, &current);
                    if !current.contains(&true) || (count >= *least && !grown) {
                        break;
                    }
                }
            }
        }
        ends
    }
}

/// Adds places; returns whether there are more than before.
fn join(places: &mut [bool], more: &[bool]) -> bool {
    let mut grown = false;
    for (place, more) in places.iter_mut().zip(more) {
        grown |= *more && !*place;
        *place |= *more;
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().meets(name)
    }

    /// Matches agree with those of Python 3.11's `re.match`.
    #[test]
    fn expressions_meet_what_python_s_meet() {
        for (pattern, name, met) in [
            ("re:.*lm_head", "model.lm_head", true),
            ("re:.*lm_head", "lm_head", true),
            ("re:lm_head", "model.lm_head", false),
            ("re:lm_head", "lm_head_2", true),
            ("re:lm_head$", "lm_head_2", false),
            (
                r"re:.*\.layers\.[0-3]\.mlp\..*",
                "model.layers.3.mlp.up",
                true,
            ),
            (
                r"re:.*\.layers\.[0-3]\.mlp\..*",
                "model.layers.4.mlp.up",
                false,
            ),
            (
                r"re:model\.layers\.(0|1[0-9]|2\d)\.",
                "model.layers.17.x",
                true,
            ),
            (
                r"re:model\.layers\.(0|1[0-9]|2\d)\.",
                "model.layers.7.x",
                false,
            ),
            ("re:.*(q|k|v)_proj$", "a.k_proj", true),
            ("re:.*(?:q|k|v)_proj$", "a.o_proj", false),
            ("re:^a{2,3}b", "aab", true),
            ("re:^a{2,3}b", "aaaab", false),
            ("re:a{2}$", "aa", true),
            ("re:a{2,}?b", "aaaaab", true),
            ("re:[^.]+\\.x", "ab.x", true),
            ("re:[^.]+\\.x", "a.b.x", false),
            ("re:(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
            ("re:", "anything", true),
            ("re:a|", "b", true),
            ("re:x-y[a-]", "x-y-", true),
            ("lm_head", "lm_head", true),
            ("lm_head", "lm_head_2", false),
            ("lm.head", "lm_head", false),
        ] {
            assert_eq!(meets(pattern, name), met, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_not_read_is_said_with_its_place() {
        for (pattern, at) in [
            ("re:a(?!b)", 4),
            ("re:(?i)a", 3),
            ("re:a**", 3),
            ("re:*a", 1),
            (r"re:a\b", 2),
            (r"re:(a)\1", 4),
            ("re:(a", 3),
            ("re:a)", 2),
            ("re:[a", 3),
            ("re:[]", 3),
            ("re:a{9999}", 7),
            ("re:a{3,2}", 7),
            ("re:a\\", 3),
        ] {
            let error = NamePattern::parse(pattern).unwrap_err();
            assert!(error.text == pattern[3..], "{pattern}");
            assert_eq!(error.at + 1, at, "{pattern}: {error}");
        }
        assert!(NamePattern::parse(&format!("re:{}", "(".repeat(100_000))).is_err());
    }

    #[test]
    fn of_a_long_expression_only_the_beginning_is_repeated() {
        let long = format!("re:{}(?=x)", "\u{e9}".repeat(400_000));
        let said = NamePattern::parse(&long).unwrap_err().to_string();
        let shown = format!(
            "'re:{}...' is not read from its character 4000",
            "\u{e9}".repeat(200)
        );
        assert!(said.starts_with(&shown), "{}", said.len());
        let short = format!("re:{}(?=x)", "a".repeat(195));
        let said = NamePattern::parse(&short).unwrap_err().to_string();
        assert!(said.starts_with(&format!("'{short}' is not")), "{said}");
    }
}
