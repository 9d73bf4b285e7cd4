//! Which modules a configuration targets: PEFT's rules of matching, apart from regular expressions.

use core::iter::once;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Names, or the last parts of names.
#[derive(Debug, Default)]
pub(crate) struct TargetEntries(BTreeSet<String>);

impl TargetEntries {
    /// The strings of a list; `None` where the value is no list.
    #[must_use]
    pub(crate) fn listed(value: &Value) -> Option<Self> {
        let texts = value.as_array()?.iter();
        let texts: Option<_> = texts.map(|v| v.as_str().map(str::to_owned)).collect();
        texts.map(Self)
    }

    /// The entry that targets a module: its name, or the end of its name after a dot.
    #[must_use]
    pub(crate) fn entry_of(&self, module: &str) -> Option<&str> {
        let after_dots = module.match_indices('.').map(|(at, _)| &module[at + 1..]);
        let mut ends = once(module).chain(after_dots);
        ends.find_map(|end| self.0.get(end)).map(String::as_str)
    }

    /// All entries, sorted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The value of `target_modules`.
#[derive(Debug)]
pub(crate) enum Targets {
    /// A list.
    Listed(TargetEntries),
    /// A string without special characters, which is the name of one module.
    Named(String),
    /// A regular expression, which is not matched here.
    Expression(String),
}

impl Targets {
    /// Reads the value; `None` where PEFT would not accept it.
    #[must_use]
    pub(crate) fn parse(value: &Value) -> Option<Self> {
        if let Some(text) = value.as_str() {
            // The word "all-linear" is PEFT's own: every linear layer except the output layer.
            let plain = is_plain(text) && text != "all-linear";
            return Some(if plain {
                Self::Named(text.to_owned())
            } else {
                Self::Expression(text.to_owned())
            });
        }
        TargetEntries::listed(value).map(Self::Listed)
    }

    /// The entry that targets a module.
    #[must_use]
    pub(crate) fn entry_of(&self, module: &str) -> Option<&str> {
        match self {
            Self::Listed(entries) => entries.entry_of(module),
            Self::Named(name) => (name == module).then_some(name),
            Self::Expression(_) => None,
        }
    }
}

/// `rank_pattern` or `alpha_pattern`: special values for some modules.
#[derive(Debug)]
pub(crate) struct ValuePattern<T> {
    by_name: BTreeMap<String, T>,
    /// Whether a key is a regular expression, or a value is invalid.
    pub(crate) unread: bool,
}

impl<T> Default for ValuePattern<T> {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            unread: false,
        }
    }
}

impl<T: Copy + PartialEq> ValuePattern<T> {
    /// Reads an object; `read` reads a value.
    #[must_use]
    pub(crate) fn parse(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Self {
        let mut pattern = Self::default();
        match value {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    match read(value).filter(|_| is_plain(key.strip_prefix('^').unwrap_or(key))) {
                        Some(value) => {
                            pattern.by_name.insert(key.clone(), value);
                        }
                        None => pattern.unread = true,
                    }
                }
            }
            _ => pattern.unread = true,
        }
        pattern
    }

    /// The value for a module: that of a key that is its name or the end of its name, or after `^`
    /// its whole name; without such a key `otherwise`. `None` where the value is unknown.
    #[must_use]
    pub(crate) fn value_of(&self, module: &str, otherwise: Option<T>) -> Option<T> {
        if self.unread {
            return None;
        }
        let means = |key: &str| match key.strip_prefix('^') {
            Some(name) => name == module,
            None => {
                let before = module.strip_suffix(key);
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
        };
        let mut meant = self.by_name.iter().filter(|(key, _)| means(key));
        let Some((_, &first)) = meant.next() else {
            return otherwise;
        };
        // Of several keys PEFT takes the first in the file.
        meant.all(|(_, &other)| other == first).then_some(first)
    }
}

/// Whether a regular expression matches only itself, apart from dots, which stand for dots in
/// names.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    !text.is_empty() && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_module_is_meant_by_its_name_or_by_the_end_of_it() {
        let targets = Targets::parse(&json!(["q_proj", "model.head", "0"])).unwrap();
        for (module, entry) in [
            ("q_proj", Some("q_proj")),
            ("layers.1.q_proj", Some("q_proj")),
            ("layers.1.xq_proj", None),
            ("layers.1.q_proj.inner", None),
            ("model.head", Some("model.head")),
            ("base.model.head", Some("model.head")),
            ("head", None),
            ("layers.0", Some("0")),
        ] {
            assert_eq!(targets.entry_of(module), entry, "{module}");
        }
        assert!(Targets::parse(&json!(["a", 1])).is_none());
        assert!(Targets::parse(&json!(null)).is_none());
    }

    #[test]
    fn a_string_means_a_whole_name_or_is_an_expression() {
        let named = Targets::parse(&json!("model.head")).unwrap();
        assert_eq!(named.entry_of("model.head"), Some("model.head"));
        assert_eq!(named.entry_of("base.model.head"), None);
        for text in [".*q_proj", "all-linear", "(a|b)", ""] {
            let found = Targets::parse(&json!(text)).unwrap();
            assert!(matches!(found, Targets::Expression(_)), "{text}");
        }
    }

    #[test]
    fn patterns_give_some_modules_values_of_their_own() {
        let of = |value: Value| ValuePattern::parse(&value, Value::as_u64);
        let pattern = of(json!({"q_proj": 4, "^model.head": 2}));
        assert_eq!(pattern.value_of("layers.0.q_proj", Some(8)), Some(4));
        assert_eq!(pattern.value_of("q_proj", Some(8)), Some(4));
        assert_eq!(pattern.value_of("xq_proj", Some(8)), Some(8));
        assert_eq!(pattern.value_of("model.head", Some(8)), Some(2));
        assert_eq!(pattern.value_of("base.model.head", Some(8)), Some(8));
        // It is not known any more which of the two comes first.
        let both = of(json!({"q_proj": 4, "0.q_proj": 2}));
        assert_eq!(both.value_of("layers.0.q_proj", Some(8)), None);
        assert_eq!(both.value_of("layers.1.q_proj", Some(8)), Some(4));
        for unread in [json!({"layers.*.q": 4}), json!({"q": "x"}), json!([1])] {
            assert!(of(unread.clone()).unread, "{unread}");
        }
        assert_eq!(of(json!({"(": 1})).value_of("q", Some(8)), None);
        assert_eq!(of(json!(null)).value_of("q", None), None);
    }
}
