//! Maps recorded names to the checkpoint's names, by rules PATTERN=REPLACEMENT on whole dotted
//! parts.

use serde::{Deserialize, Serialize};

use crate::error::Fatal;
use crate::settings::dotted::{fill, join, match_start, stars};

/// The ending of names where a producer names parameters instead of modules.
const WEIGHT: &str = ".weight";

/// A map from the shards' names to the checkpoint's. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameMap {
    /// Whether the recorded names end in `.weight`.
    #[serde(default)]
    suffix: bool,
    /// The rules; the first one that matches a name counts.
    rules: Vec<MapRule>,
}

/// `--map PATTERN=REPLACEMENT`. PATTERN matches the first parts of a name, and `*` matches one
/// part; in REPLACEMENT `*` is the part that was matched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct MapRule {
    pattern: String,
    replacement: String,
}

impl MapRule {
    /// Parses an option's value.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for a text that is no rule, and for a rule that cannot be undone.
    pub(crate) fn parse(text: &str) -> Result<Self, Fatal> {
        let wrong = |what: &str| Fatal::Usage(format!("--map: '{text}' {what}"));
        let (pattern, replacement) = text
            .split_once('=')
            .ok_or_else(|| wrong("is not PATTERN=REPLACEMENT"))?;
        let whole = |of: &str| of.is_empty() || of.split('.').all(is_part);
        if !whole(pattern) || !whole(replacement) {
            return Err(wrong(
                "has a part that is empty, or '*' beside other characters: \
                 patterns are of whole dotted parts",
            ));
        }
        if stars(pattern) != stars(replacement) {
            return Err(wrong("has more '*' on one side than on the other"));
        }
        Ok(Self {
            pattern: pattern.to_owned(),
            replacement: replacement.to_owned(),
        })
    }

    /// A rule that replaces one prefix of whole parts by another.
    #[must_use]
    pub(crate) fn prefix(from: &str, to: &str) -> Self {
        Self {
            pattern: from.to_owned(),
            replacement: to.to_owned(),
        }
    }

    /// Whether the rule only removes one of these prefixes, or several in a row.
    #[must_use]
    pub(crate) fn strips(&self, prefixes: &[&str]) -> bool {
        let mut rest = self.pattern.as_str();
        while let Some(met) = prefixes.iter().find_map(|prefix| match_start(prefix, rest)) {
            rest = met.rest;
            if rest.is_empty() {
                return self.replacement.is_empty();
            }
        }
        rest.is_empty() && self.replacement.is_empty()
    }

    fn apply(&self, name: &str) -> Option<String> {
        replaced(&self.pattern, &self.replacement, name)
    }

    fn undo(&self, name: &str) -> Option<String> {
        replaced(&self.replacement, &self.pattern, name)
    }
}

impl core::fmt::Display for MapRule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}={}", self.pattern, self.replacement)
    }
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && (part == "*" || !part.contains('*'))
}

fn replaced(pattern: &str, replacement: &str, name: &str) -> Option<String> {
    let met = match_start(pattern, name)?;
    Some(join(&fill(replacement, &met.stars), met.rest))
}

impl NameMap {
    /// A map with these rules, in this order.
    #[must_use]
    pub(crate) const fn new(suffix: bool, rules: Vec<MapRule>) -> Self {
        Self { suffix, rules }
    }

    /// The checkpoint's name for a recorded name.
    #[must_use]
    pub(crate) fn apply(&self, recorded: &str) -> String {
        let name = self.bare(recorded);
        let mapped = self.rules.iter().find_map(|rule| rule.apply(name));
        mapped.unwrap_or_else(|| name.to_owned())
    }

    /// A recorded name without the `.weight` that all of them end in.
    #[must_use]
    pub(crate) fn bare<'n>(&self, recorded: &'n str) -> &'n str {
        match self.suffix {
            true => recorded.strip_suffix(WEIGHT).unwrap_or(recorded),
            false => recorded,
        }
    }

    /// The recorded name of a module of the checkpoint.
    #[must_use]
    pub(crate) fn undo(&self, name: &str) -> String {
        let mut candidates = self.rules.iter().filter_map(|rule| rule.undo(name));
        let recorded = candidates.find(|recorded| self.apply(recorded) == name);
        recorded.unwrap_or_else(|| name.to_owned())
    }

    /// A rule that matches none of these names.
    #[must_use]
    pub(crate) fn idle_rule<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<&MapRule> {
        let mut idle: Vec<&MapRule> = self.rules.iter().collect();
        for name in names {
            idle.retain(|rule| rule.apply(self.bare(name)).is_none());
        }
        idle.first().copied()
    }

    /// The prefix of every name where a part of the checkpoint was recorded alone, without what
    /// `wrappers` put there.
    #[must_use]
    pub(crate) fn part(&self, wrappers: &[&str]) -> Option<&str> {
        let [rule] = &self.rules[..] else {
            return None;
        };
        let bare = MapRule::prefix(&rule.pattern, "");
        let everything = rule.pattern.is_empty() || bare.strips(wrappers);
        (everything && !rule.replacement.is_empty()).then_some(rule.replacement.as_str())
    }

    /// The rules, as `--map` takes them.
    #[must_use]
    pub(crate) fn rules(&self) -> &[MapRule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rules: &[&str]) -> NameMap {
        let rules = rules.iter().map(|rule| MapRule::parse(rule).unwrap());
        NameMap::new(false, rules.collect())
    }

    #[test]
    fn a_rule_maps_whole_parts_and_is_undone() {
        let cases = [
            ("transformer=", "transformer.h.0.mlp", "h.0.mlp"),
            ("=transformer", "h.0.mlp", "transformer.h.0.mlp"),
            (
                "h.*.attn=blocks.*.attention",
                "h.7.attn.q",
                "blocks.7.attention.q",
            ),
        ];
        for (rule, recorded, name) in cases {
            let map = map(&[rule]);
            assert_eq!(map.apply(recorded), name, "{rule}");
            assert_eq!(map.undo(name), recorded, "{rule}");
        }
        assert_eq!(map(&["mod=x"]).apply("model.h"), "model.h");
        let first = map(&["a=x", "a.b=y", "b=x"]);
        assert_eq!(first.apply("a.b"), "x.b");
        assert_eq!(first.undo("x.c"), "a.c");
        let idle = |names: &[&'static str]| first.idle_rule(names.iter().copied());
        assert_eq!(idle(&["a.b", "c"]).unwrap().to_string(), "b=x");
        assert!(idle(&["a.b", "b"]).is_none());
    }

    #[test]
    fn a_suffix_is_taken_off_and_no_rule_changes_nothing() {
        let map = NameMap::new(true, vec![MapRule::prefix("_orig_mod", "")]);
        assert_eq!(map.apply("_orig_mod.h.0.weight"), "h.0");
        assert_eq!(map.undo("h.0"), "_orig_mod.h.0");
        assert!(MapRule::prefix("a.module", "").strips(&["module", "a"]));
        assert!(!MapRule::prefix("model", "").strips(&["module"]));
        assert!(!MapRule::prefix("module", "x").strips(&["module"]));
        assert_eq!(NameMap::default().apply("h.weight"), "h.weight");
    }

    #[test]
    fn a_part_is_what_every_name_lies_in() {
        let part = |rules: &[&str]| map(rules).part(&["module"]).map(str::to_owned);
        assert_eq!(part(&["=decoder"]).as_deref(), Some("decoder"));
        assert_eq!(part(&["module=decoder"]).as_deref(), Some("decoder"));
        for rules in [&["decoder="][..], &["h=decoder.h"], &["=a", "b=c"], &[]] {
            assert_eq!(part(rules), None, "{rules:?}");
        }
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for (text, said) in [
            ("transformer", "not PATTERN=REPLACEMENT"),
            ("a..b=c", "part"),
            ("a.x*=b", "whole dotted parts"),
            ("a.*=b", "has more '*' on one side"),
        ] {
            let error = MapRule::parse(text).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(text), "{error}");
        }
    }
}
