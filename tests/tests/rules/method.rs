//! What tells the paper's methods apart is said in `qera-core/src/reconstruct/` and asked
//! everywhere else.

use std::collections::BTreeSet;

use crate::sources::assert_none;
use crate::spelled::spelling;
use crate::syntax::{Parsed, made_up, parsed, place};

const HOME: &str = "qera-core/src/reconstruct/";
/// The one file that makes the diagonal of S of what a method says that it needs.
const DIAGONAL: &str = "qera-daemon/src/judge/site_metric.rs";

/// The variants of an enum.
fn variants(files: &[Parsed], of: &str) -> Vec<String> {
    let items = files.iter().flat_map(|file| &file.file.items);
    let methods = items.filter_map(|item| match item {
        syn::Item::Enum(item) if item.ident == of => Some(&item.variants),
        _ => None,
    });
    methods
        .flatten()
        .map(|variant| variant.ident.to_string())
        .collect()
}

/// Paths that name a variant, in a pattern, a comparison, a list or an import: whoever names one
/// tells methods apart. And another name for the type, under which a variant would not be seen.
fn named(files: &[Parsed], of: &str, variants: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let mut seen = BTreeSet::new();
        for path in spelling(&file.file).paths {
            let names_variant = path
                .segments
                .windows(2)
                .any(|pair| pair[0] == of && (pair[1] == "*" || variants.contains(&pair[1])));
            let renames = path.import.as_ref().is_some_and(|name| {
                name != of && path.segments.last().is_some_and(|last| last == of)
            });
            if (names_variant || renames) && seen.insert(path.segments.clone()) {
                let from = path.segments.iter().position(|part| part == of);
                let words = &path.segments[from.unwrap()..];
                let words: Vec<_> = words.iter().filter(|word| *word != "*").cloned().collect();
                let place = place(&file.path, &file.text, &words);
                findings.push(format!("{place}: {}", path.segments.join("::")));
            }
        }
    }
    findings
}

#[test]
fn methods_are_told_apart_in_one_place() {
    let core = parsed("qera-core/src");
    let enums = ["Method", "StatisticKind"].map(|of| (of, variants(&core, of)));
    let mut findings = Vec::new();
    for mut files in [core, parsed("qera-gpu/src"), parsed("qera-daemon/src")] {
        files.retain(|file| !file.path.starts_with(HOME));
        for (of, variants) in &enums {
            assert!(variants.len() > 3, "{variants:?}");
            if *of == "StatisticKind" {
                files.retain(|file| file.path != DIAGONAL);
            }
            findings.extend(named(&files, of, variants));
        }
    }
    assert_none(
        &format!("methods told apart outside of {HOME} and {DIAGONAL}: ask a predicate of Method"),
        &findings,
    );
}

#[test]
fn variants_are_seen_in_every_form() {
    let home = made_up(&[("method.rs", "pub enum Method { Exact, Approx(u8) }")]);
    let variants = variants(&home, "Method");
    assert_eq!(variants, ["Exact", "Approx"]);
    let found = |text: &str| named(&made_up(&[("a.rs", text)]), "Method", &variants).len();
    for sound in [
        "use x::Method; fn f(m: Method) { Method::parse(\"exact\"); for m in Method::ALL { m.uses_rows() } }",
        "fn f(m: Other) { m == Other::Exact }",
        "#[cfg(test)] mod tests { fn f() { g(Method::Exact) } }",
    ] {
        assert_eq!(found(sound), 0, "{sound}");
    }
    for form in [
        "fn f(m: Method) { match m { Method::Exact => 1, _ => 2 } }",
        "fn f(m: Method) { if let core::Method::Approx(_) = m {} }",
        "fn f(m: Method) { matches!(m, Method::Exact) }",
        "fn f(m: Method) { m != Method::Exact }",
        "fn f(m: Method) { [Method::Exact].contains(&m) }",
        "use x::Method::Exact;",
        "use x::Method::*;",
        "use x::Method as M;",
    ] {
        assert_eq!(found(form), 1, "{form}");
    }
    let text = "fn f(m: Method) {\n    m == Method::Exact\n}";
    assert_eq!(
        named(&made_up(&[("a.rs", text)]), "Method", &variants),
        ["src/a.rs:2: Method::Exact"]
    );
}
