//! Which crate may depend on which, and qera-core on nothing that needs an allocator.

use std::collections::BTreeSet;

use crate::sources::{assert_none, root, sources};

/// Crates of the workspace and which of them each may depend on.
const MEMBERS: [(&str, &[&str]); 5] = [
    ("qera-core", &[]),
    ("qera-gpu", &["qera-core"]),
    ("qera-daemon", &["qera-core", "qera-gpu"]),
    ("tests", &["qera-core", "qera-gpu", "qera-daemon"]),
    ("benches", &["qera-core", "qera-gpu", "qera-daemon"]),
];

/// All that qera-core may depend on: none of these needs an allocator.
const CORE_DEPENDENCIES: [&str; 4] = ["half", "heapless", "libm", "nalgebra"];

/// Names on the left of `=` in every dependency section of a crate's Cargo.toml.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut names = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
        } else if section.ends_with("dependencies")
            && let Some((name, _)) = line.split_once('=')
        {
            names.insert(name.trim().trim_end_matches(".workspace").to_owned());
        }
    }
    names
}

#[test]
fn dependencies_point_one_way() {
    let mut findings = Vec::new();
    for (member, allowed) in MEMBERS {
        let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let named = dependencies(&manifest);
        for name in named
            .iter()
            .filter(|name| name.starts_with("qera-") && !allowed.contains(&name.as_str()))
        {
            findings.push(format!("{member} depends on {name}"));
        }
        if member == "qera-core" {
            for name in named
                .iter()
                .filter(|name| !CORE_DEPENDENCIES.contains(&name.as_str()))
            {
                findings.push(format!("qera-core depends on {name}"));
            }
        }
    }
    assert_none(
        "qera-daemon -> {qera-core, qera-gpu}, nothing -> qera-tests or qera-benches, qera-core -> no_std crates only",
        &findings,
    );
}

#[test]
fn dependencies_are_read_from_every_section() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = { path = \"c\" }\n[lints]\nworkspace = true\n";
    assert_eq!(
        dependencies(manifest).into_iter().collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
}

#[test]
fn core_is_no_std_and_safe() {
    let text = std::fs::read_to_string(root().join("qera-core/src/lib.rs")).unwrap();
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        assert!(
            text.lines().any(|line| line == attribute),
            "qera-core/src/lib.rs lacks {attribute}"
        );
    }
    let foreign = [
        "extern crate alloc",
        "extern crate std",
        "cfg(feature",
        "cfg_attr",
    ];
    let sources = sources("rs");
    let findings: Vec<_> = sources
        .iter()
        .filter(|source| source.path.starts_with("qera-core/"))
        .flat_map(|source| {
            foreign
                .iter()
                .filter(|word| source.text.contains(*word))
                .map(|word| format!("{}: {word}", source.path))
        })
        .collect();
    assert_none(
        "qera-core is no_std without exception or feature",
        &findings,
    );
}
