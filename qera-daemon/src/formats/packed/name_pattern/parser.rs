//! The parser of expressions.

use crate::formats::packed::name_pattern::{Class, Node, Range, UnreadExpression};

/// The deepest nesting of groups.
const DEPTH: usize = 32;
/// The largest count of a repetition.
const REPEATED: usize = 1000;

/// The text of an expression, and how far it was read.
pub(super) struct Parser<'a> {
    text: &'a str,
    letters: Vec<char>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// Reads the whole expression.
    ///
    /// # Errors
    /// [`UnreadExpression`].
    pub(super) fn whole(text: &'a str) -> Result<Node, UnreadExpression> {
        let letters = text.chars().collect();
        let mut parser = Parser {
            text,
            letters,
            at: 0,
        };
        let node = parser.any(0)?;
        match parser.peek() {
            None => Ok(node),
            Some(_) => Err(parser.unread()),
        }
    }

    fn unread(&self) -> UnreadExpression {
        UnreadExpression {
            text: self.text.to_owned(),
            at: self.at,
        }
    }

    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    /// Takes the next letter, if it is this one.
    fn take(&mut self, letter: char) -> bool {
        let is_it = self.peek() == Some(letter);
        self.at += usize::from(is_it);
        is_it
    }

    fn next(&mut self) -> Result<char, UnreadExpression> {
        let letter = self.peek().ok_or_else(|| self.unread())?;
        self.at += 1;
        Ok(letter)
    }

    fn any(&mut self, depth: usize) -> Result<Node, UnreadExpression> {
        let mut nodes = vec![self.all(depth)?];
        while self.take('|') {
            nodes.push(self.all(depth)?);
        }
        Ok(Node::Any(nodes))
    }

    fn all(&mut self, depth: usize) -> Result<Node, UnreadExpression> {
        let mut nodes = Vec::new();
        while let Some(letter) = self.peek() {
            if letter == '|' || letter == ')' {
                break;
            }
            let node = self.atom(depth)?;
            nodes.push(self.repeated(node)?);
        }
        Ok(Node::All(nodes))
    }

    fn atom(&mut self, depth: usize) -> Result<Node, UnreadExpression> {
        let before = self.at;
        let node = match self.next()? {
            '(' if depth < DEPTH => {
                if self.take('?') && !self.take(':') {
                    return Err(self.unread());
                }
                let node = self.any(depth + 1)?;
                if !self.take(')') {
                    return Err(self.unread());
                }
                Some(node)
            }
            '[' => Some(Node::One(self.class()?)),
            '\\' => Class::escaped(self.next()?).map(Node::One),
            '.' => Some(Node::One(Class::of('\0', char::MAX))),
            '^' => Some(Node::Begin),
            '$' => Some(Node::End),
            '(' | ')' | '*' | '+' | '?' | '{' | '}' | ']' => None,
            letter => Some(Node::One(Class::of(letter, letter))),
        };
        node.ok_or_else(|| {
            self.at = before;
            self.unread()
        })
    }

    fn class(&mut self) -> Result<Class, UnreadExpression> {
        let mut class = Class {
            ranges: Vec::new(),
            inverted: self.take('^'),
        };
        while !self.take(']') {
            let first = self.next()?;
            if first == '\\' {
                let escaped = self.next()?;
                let escaped = Class::escaped(escaped).filter(|of| !of.inverted);
                class
                    .ranges
                    .extend(escaped.ok_or_else(|| self.unread())?.ranges);
                continue;
            }
            let last = match self.letters[self.at..] {
                ['-', last, ..] if last != ']' => {
                    self.at += 2;
                    last
                }
                _ => first,
            };
            if first == '[' || last < first || last == '\\' {
                return Err(self.unread());
            }
            class.ranges.push(Range { first, last });
        }
        match class.ranges.is_empty() {
            // In Python a bracket that comes first stands for itself.
            true => Err(self.unread()),
            false => Ok(class),
        }
    }

    fn repeated(&mut self, node: Node) -> Result<Node, UnreadExpression> {
        let (least, most) = match self.peek() {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            Some('{') => return self.counted(node),
            _ => return Ok(node),
        };
        self.at += 1;
        self.repeating(node, least, most)
    }

    /// `{2}`, `{2,}`, `{2,3}`.
    fn counted(&mut self, node: Node) -> Result<Node, UnreadExpression> {
        self.at += 1;
        let least = self.number().ok_or_else(|| self.unread())?;
        let most = match self.take(',') {
            false => least,
            true if self.peek() == Some('}') => usize::MAX,
            true => self.number().ok_or_else(|| self.unread())?,
        };
        if !self.take('}') || most < least {
            return Err(self.unread());
        }
        self.repeating(node, least, most)
    }

    fn repeating(
        &mut self,
        node: Node,
        least: usize,
        most: usize,
    ) -> Result<Node, UnreadExpression> {
        // A lazy repetition may end at the same places.
        self.take('?');
        if matches!(self.peek(), Some('*' | '+' | '?' | '{')) {
            return Err(self.unread());
        }
        Ok(Node::Repeated {
            node: Box::new(node),
            least,
            most,
        })
    }

    fn number(&mut self) -> Option<usize> {
        let begin = self.at;
        while self.peek().is_some_and(|letter| letter.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.letters[begin..self.at].iter().collect();
        digits.parse().ok().filter(|number| *number <= REPEATED)
    }
}
