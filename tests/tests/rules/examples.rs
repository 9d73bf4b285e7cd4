//! Every public item of qera-core is shown by an example of its documentation, which runs as a
//! test.

use std::collections::BTreeSet;

use crate::sources::{Source, assert_none, sources};
use crate::surface::surface;
use crate::syntax::{Parsed, made_up, parsed};

const SOURCE: &str = "qera-core/src";

/// The words of all examples: what stands between fences in comments of documentation.
fn shown(files: &[Source]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for file in files {
        let mut is_code = false;
        for line in file.text.lines().map(str::trim_start) {
            let comment = ["///", "//!"]
                .iter()
                .find_map(|mark| line.strip_prefix(mark));
            let Some(text) = comment.map(str::trim_start) else {
                is_code = false;
                continue;
            };
            if text.starts_with("```") {
                is_code = !is_code;
            } else if is_code {
                let is_part = |c: char| c.is_alphanumeric() || c == '_';
                words.extend(text.split(|c| !is_part(c)).map(str::to_owned));
            }
        }
    }
    words
}

/// A module is shown by what is in it.
fn module(item: &syn::Item) -> Option<String> {
    match item {
        syn::Item::Mod(item) => Some(item.ident.to_string()),
        _ => None,
    }
}

fn never_shown(files: &[Parsed], words: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let modules: Vec<_> = file.file.items.iter().filter_map(module).collect();
        let items = surface(file).items.into_iter();
        let missing = items.filter(|name| !modules.contains(name) && !words.contains(name));
        findings.extend(missing.map(|name| format!("{}: {name}", file.path)));
    }
    findings
}

#[test]
fn every_public_item_of_the_core_stands_in_an_example() {
    let mut files = sources("rs");
    files.retain(|file| file.path.starts_with(SOURCE));
    let findings = never_shown(&parsed(SOURCE), &shown(&files));
    assert_none("items that no example shows", &findings);
}

#[test]
fn an_item_that_only_prose_or_code_names_is_found() {
    let text = "/// `g` is prose.\n/// ```\n/// f(S::C);\n/// ```\npub fn f() { g() }";
    let words = shown(&[Source {
        path: String::new(),
        text: text.to_owned(),
    }]);
    let files = made_up(&[(
        "a.rs",
        "pub mod m; pub fn f() {} pub fn g() {} pub struct S; impl S { pub const C: u8 = 0; }",
    )]);
    assert_eq!(never_shown(&files, &words), ["src/a.rs: g"]);
}
