//! Names of modules are parts joined by dots; a pattern is such a name in which `*` stands for one
//! whole part.

/// The result of matching a pattern with the beginning of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Matched<'a> {
    /// What each `*` stood for, in order.
    pub(crate) stars: Vec<&'a str>,
    /// The parts of the name after the match; empty where the whole name matched.
    pub(crate) rest: &'a str,
}

/// Matches a pattern with the first parts of a name. An empty pattern matches every name.
pub(crate) fn match_start<'a>(pattern: &str, name: &'a str) -> Option<Matched<'a>> {
    let (mut stars, mut rest) = (Vec::new(), name);
    if pattern.is_empty() {
        return Some(Matched { stars, rest });
    }
    for part in pattern.split('.') {
        if rest.is_empty() {
            return None;
        }
        let (first, after) = rest.split_once('.').unwrap_or((rest, ""));
        match part {
            "*" => stars.push(first),
            _ if part == first => {}
            _ => return None,
        }
        rest = after;
    }
    Some(Matched { stars, rest })
}

/// Puts parts in the place of a pattern's stars.
pub(crate) fn fill(pattern: &str, stars: &[&str]) -> String {
    let mut stars = stars.iter();
    let parts = pattern.split('.').map(|part| match part {
        "*" => stars.next().copied().unwrap_or(part),
        _ => part,
    });
    parts.collect::<Vec<_>>().join(".")
}

/// Joins two names; each of them may be empty.
pub(crate) fn join(first: &str, second: &str) -> String {
    match (first, second) {
        ("", name) | (name, "") => name.to_owned(),
        _ => format!("{first}.{second}"),
    }
}

/// The number of `*` in a pattern.
pub(crate) fn stars(pattern: &str) -> usize {
    pattern.split('.').filter(|part| *part == "*").count()
}

/// Whether a part is a number, which is a place in a list of modules.
pub(crate) fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

/// The name with `*` in the place of every number.
pub(crate) fn starred(name: &str) -> String {
    let parts = name.split('.').map(|p| if is_number(p) { "*" } else { p });
    parts.collect::<Vec<_>>().join(".")
}

/// The name without its last part; empty where it has only one.
pub(crate) fn before_last(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(before, _)| before)
}

/// The last part of a name.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_are_met_and_never_halves() {
        let matched = match_start("h.*.attn", "h.10.attn.c_proj").unwrap();
        assert_eq!((&matched.stars[..], matched.rest), (&["10"][..], "c_proj"));
        assert_eq!(match_start("h.*", "h.1").unwrap().rest, "");
        assert_eq!(match_start("", "h.1").unwrap().rest, "h.1");
        for (pattern, name) in [("h.1", "h.10"), ("h.*.x", "h.1"), ("mod", "model.h")] {
            assert_eq!(match_start(pattern, name), None, "{pattern} {name}");
        }
    }

    #[test]
    fn stars_are_filled_in_order() {
        assert_eq!(fill("a.*.b.*", &["1", "2"]), "a.1.b.2");
        assert_eq!(stars("a.*.b.*"), 2);
        assert_eq!(join("", "x"), "x");
        assert_eq!(join("x", ""), "x");
        assert_eq!(join("x", "y.z"), "x.y.z");
        assert_eq!(starred("h.12.x2..3"), "h.*.x2..*");
        assert_eq!((before_last("a.b.c"), last_part("a.b.c")), ("a.b", "c"));
        assert_eq!((before_last("a"), last_part("a")), ("", "a"));
    }
}
