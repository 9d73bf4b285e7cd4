//! The pages of docs/design name the tests that guard a decision, and these tests are there.
//!
//! A paragraph ends with them: ``Test: `name` (`path`).``, or several names, then their file.

use std::collections::BTreeMap;

use crate::sources::{Source, assert_none, markdown, sources};

/// A test as a page names it.
#[derive(Debug, PartialEq)]
struct Guard {
    name: String,
    /// The file that follows the name; empty where none does.
    path: String,
}

/// What stands between backticks behind the word in each paragraph.
fn guards(page: &str) -> Vec<Guard> {
    let mut found = Vec::new();
    for paragraph in page.split("\n\n") {
        let Some(at) = ["Test:", "Tests:"]
            .iter()
            .find_map(|word| paragraph.find(word))
        else {
            continue;
        };
        let spans: Vec<_> = paragraph[at..].split('`').skip(1).step_by(2).collect();
        let mut names = Vec::new();
        for span in spans {
            if span.ends_with(".rs") && span.contains('/') {
                found.extend(names.drain(..).map(|name| Guard {
                    name,
                    path: span.to_owned(),
                }));
            } else if is_a_name(span) {
                names.push(span.to_owned());
            }
        }
        found.extend(names.into_iter().map(|name| Guard {
            name,
            path: String::new(),
        }));
    }
    found
}

fn is_a_name(span: &str) -> bool {
    span.chars()
        .all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn absent(page: &Source, files: &BTreeMap<String, String>) -> Vec<String> {
    let guards = guards(&page.text).into_iter();
    let absent = guards.filter(|guard| {
        let text = files.get(&guard.path);
        !text.is_some_and(|text| text.contains(&format!("fn {}(", guard.name)))
    });
    absent
        .map(|Guard { name, path }| format!("{}: `{name}` in `{path}`", page.path))
        .collect()
}

#[test]
fn tests_that_guard_decisions_are_there() {
    let pages = markdown().into_iter();
    let pages: Vec<_> = pages
        .filter(|page| page.path.starts_with("docs/design/"))
        .collect();
    let files = sources("rs").into_iter();
    let files = files.map(|source| (source.path, source.text)).collect();
    let named: usize = pages.iter().map(|page| guards(&page.text).len()).sum();
    assert!(named > 100, "{named} tests are not all");
    let findings: Vec<_> = pages.iter().flat_map(|page| absent(page, &files)).collect();
    assert_none(
        "tests that docs/design names and that are not there",
        &findings,
    );
}

#[test]
fn a_test_that_is_gone_is_seen() {
    let page = Source {
        path: "docs/design/a.md".to_owned(),
        text: "**It is so.** Why. Tests: `one`,\n`two` (`tests/a.rs`), `three` (`tests/b.rs`).\n\n\
               `code` alone. Test: `four`.\n\nNo `five`."
            .to_owned(),
    };
    let guard = |name: &str, path: &str| Guard {
        name: name.to_owned(),
        path: path.to_owned(),
    };
    let all = [
        guard("one", "tests/a.rs"),
        guard("two", "tests/a.rs"),
        guard("three", "tests/b.rs"),
        guard("four", ""),
    ];
    assert_eq!(guards(&page.text), all);
    let files = BTreeMap::from([
        ("tests/a.rs".to_owned(), "fn one() {}".to_owned()),
        ("tests/b.rs".to_owned(), "fn three(input: u8) {}".to_owned()),
    ]);
    let findings = absent(&page, &files);
    let gone = [
        "docs/design/a.md: `two` in `tests/a.rs`",
        "docs/design/a.md: `four` in ``",
    ];
    assert_eq!(findings, gone);
}
