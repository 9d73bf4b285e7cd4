//! One meaning for every name of a type.

use std::collections::BTreeMap;

use crate::sources::assert_none;
use crate::syntax::{Parsed, made_up, parsed, routines, type_names};

const CRATES: [&str; 5] = [
    "qera-core/src",
    "qera-gpu/src",
    "qera-daemon/src",
    "tests/src",
    "benches/src",
];

/// Names of types that meant two things, or nothing, in qera-daemon, and what stands in their
/// place.
const RIVAL_TYPES: [(&str, &str); 6] = [
    ("Host", "Compute"),
    ("Numbers", "PageVec"),
    ("Stop", "Fatal"),
    ("TurnedError", "ErrorByRows"),
    ("Turn", "FoldingChange"),
    ("Fed", "FeedReport"),
];

/// Names of functions of the same kind.
const RIVAL_ROUTINES: [(&str, &str); 4] = [
    ("turn", "transpose, or close and reopen"),
    ("turned", "transposed"),
    ("settle", "publish_idle"),
    ("settled", "insensitive_to_rows"),
];

/// Names that two types of a crate have, with every place.
fn doubled(files: &[Parsed]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for found in files.iter().flat_map(type_names) {
        places.entry(found.name).or_default().push(found.place);
    }
    let doubled = places.into_iter().filter(|(_, places)| places.len() > 1);
    doubled
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect()
}

fn rivals(files: &[Parsed]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        for found in type_names(file) {
            if let Some((rival, ours)) = RIVAL_TYPES.iter().find(|(name, _)| *name == found.name) {
                findings.push(format!("{}: `{rival}` is `{ours}` here", found.place));
            }
        }
        for found in routines(file) {
            let name = &found.signature.ident;
            if let Some((rival, ours)) = RIVAL_ROUTINES.iter().find(|(rival, _)| name == rival) {
                findings.push(format!("{}: `{rival}` is `{ours}` here", found.place));
            }
        }
    }
    findings
}

#[test]
fn no_type_name_stands_twice_in_a_crate() {
    let of_crate = |folder: &&str| doubled(&parsed(folder));
    let findings: Vec<_> = CRATES.iter().flat_map(of_crate).collect();
    assert_none("names of two types of one crate", &findings);
}

#[test]
fn names_with_two_meanings_stay_away() {
    assert_none("words for two things", &rivals(&parsed("qera-daemon/src")));
}

#[test]
fn doubled_names_are_seen() {
    let files = made_up(&[
        (
            "a.rs",
            "struct A;\nenum B {}\ntrait C { type D; }\nimpl C for A { type D = u8; }",
        ),
        (
            "b/mod.rs",
            "mod inner { type A = u8; }\nfn f() {\n    union B { x: u8 }\n}\nstruct D;",
        ),
        (
            "c.rs",
            "#[cfg(test)] mod tests { struct D; } use crate::a::A as C2; enum E { A, B }",
        ),
    ]);
    assert_eq!(
        doubled(&files),
        [
            "A: src/a.rs:1, src/b/mod.rs:1",
            "B: src/a.rs:2, src/b/mod.rs:3"
        ]
    );
}

#[test]
fn rival_names_are_seen() {
    let files = made_up(&[
        (
            "a.rs",
            "struct Stop;\nenum E { Stop, Turn }\nimpl E { fn settle(&self) {} }",
        ),
        (
            "b.rs",
            "fn returned() { let turn = 1; }\nfn turn() {}\ntype Fed = u8;",
        ),
    ]);
    assert_eq!(
        rivals(&files),
        [
            "src/a.rs:1: `Stop` is `Fatal` here",
            "src/a.rs:3: `settle` is `publish_idle` here",
            "src/b.rs:3: `Fed` is `FeedReport` here",
            "src/b.rs:2: `turn` is `transpose, or close and reopen` here"
        ]
    );
}
