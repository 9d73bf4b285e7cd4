//! One word for one thing.

use std::collections::BTreeSet;

use crate::sources::{assert_none, sources};

/// Names that say nothing about what is in a file.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];

/// Spellings that compete with the project's word, as whole identifiers or parts of one between
/// underscores.
const RIVAL_SPELLINGS: [(&str, &str); 14] = [
    ("blocksize", "block_size"),
    ("bsize", "block_size"),
    ("elembits", "element_bits"),
    ("sharedexp", "shared_exponent"),
    ("autocorr", "autocorrelation"),
    ("autocov", "autocorrelation"),
    ("infeatures", "in_features"),
    ("outfeatures", "out_features"),
    ("heldout", "held_out"),
    ("quantise", "quantize"),
    ("quantised", "quantized"),
    ("quantisation", "quantization"),
    ("dequantise", "dequantize"),
    ("calib", "calibration"),
];

#[test]
fn files_are_named_after_their_subject() {
    let findings: Vec<_> = ["rs", "py", "sh"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| {
            source
                .path
                .split(['/', '.'])
                .any(|part| EMPTY_NAMES.contains(&part))
        })
        .map(|source| source.path)
        .collect();
    assert_none("names that say nothing", &findings);
}

/// Rival spellings in a text, as `line: word`.
fn rival_spellings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in line.split(|c: char| !c.is_alphanumeric()) {
            if let Some((rival, ours)) = RIVAL_SPELLINGS.iter().find(|(rival, _)| *rival == word) {
                found.push(format!(
                    "{}: `{rival}` is spelled `{ours}` here",
                    number + 1
                ));
            }
        }
    }
    found
}

#[test]
fn each_term_has_one_spelling() {
    let this_file = "tests/tests/rules/names.rs";
    let mut findings = Vec::new();
    for source in ["rs", "md", "py", "sh"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| source.path != this_file)
    {
        findings.extend(
            rival_spellings(&source.text)
                .into_iter()
                .map(|found| format!("{}:{found}", source.path)),
        );
    }
    assert_none("rival spellings", &findings);
    assert_eq!(
        rival_spellings("let mxint_blocksize = 1;\nlet block_size = heldout;").len(),
        2
    );
}

/// `name.rs` beside `name/`: a module that has children is `name/mod.rs`.
fn modules_in_two_places(paths: &BTreeSet<String>) -> Vec<String> {
    let folders: BTreeSet<_> = paths
        .iter()
        .flat_map(|path| path.match_indices('/').map(|(end, _)| &path[..end]))
        .collect();
    paths
        .iter()
        .filter(|path| {
            path.strip_suffix(".rs")
                .is_some_and(|name| folders.contains(name))
        })
        .map(|path| {
            format!("{path} stands beside a folder of its name: make it the folder's mod.rs")
        })
        .collect()
}

#[test]
fn module_files_are_named_one_way() {
    let paths = sources("rs").into_iter().map(|source| source.path);
    assert_none(
        "a module with children is its folder's mod.rs",
        &modules_in_two_places(&paths.collect()),
    );
    let made_up = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    assert!(modules_in_two_places(&made_up(&["a/b/mod.rs", "a/b/c.rs", "a/bc.rs"])).is_empty());
    assert_eq!(
        modules_in_two_places(&made_up(&["a/b.rs", "a/b/c/d.rs"])).len(),
        1
    );
}
