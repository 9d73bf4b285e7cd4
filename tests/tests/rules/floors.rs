//! The floors of qera-daemon: ARCHITECTURE.md lists them, the files' paths say whether they stand.

use std::collections::{BTreeMap, BTreeSet};

use crate::circles::{Graph, circles};
use crate::graph::{Use, uses};
use crate::sources::{assert_none, root};
use crate::syntax::{Parsed, made_up, parsed};

const SOURCE: &str = "qera-daemon/src";

/// The first words of the block in ARCHITECTURE.md, bottom first.
fn floors(architecture: &str) -> Vec<String> {
    let (_, block) = architecture.split_once("```floors\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let words = block
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.map(str::to_owned).collect()
}

fn listed() -> Vec<String> {
    floors(&std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap())
}

/// The library's files; the program's is below none of them.
fn files() -> Vec<Parsed> {
    let mut files = parsed(SOURCE);
    files.retain(|file| file.path != format!("{SOURCE}/main.rs"));
    files
}

/// The folders and files directly below the crate's root.
fn entries(files: &[Parsed]) -> BTreeSet<&str> {
    let first = files.iter().filter_map(|file| file.module.first());
    first.map(String::as_str).collect()
}

fn unlisted(listed: &[String], entries: &BTreeSet<&str>) -> Vec<String> {
    let mut findings = Vec::new();
    for entry in entries {
        if !listed.iter().any(|floor| floor == entry) {
            findings.push(format!("`{entry}` is no floor of the list"));
        }
    }
    for (index, floor) in listed.iter().enumerate() {
        if !entries.contains(floor.as_str()) {
            findings.push(format!("`{floor}` is listed, but there is none"));
        }
        if listed[..index].contains(floor) {
            findings.push(format!("`{floor}` is listed twice"));
        }
    }
    findings
}

/// Uses of a later floor. One that is not listed is a finding of its own.
fn upward(listed: &[String], uses: &[Use]) -> Vec<String> {
    let floor = |module: &[String]| {
        listed
            .iter()
            .position(|floor| Some(floor) == module.first())
    };
    uses.iter()
        .filter(|found| match (floor(&found.from), floor(&found.to)) {
            (Some(from), Some(to)) => to > from,
            _ => false,
        })
        .map(|found| {
            let (from, to) = (&found.from[0], &found.to[0]);
            format!("{} (`{to}` stands above `{from}`)", found.finding)
        })
        .collect()
}

/// Circles of folders, with a file's use for every step.
fn folder_circles(uses: &[Use]) -> Vec<String> {
    let mut graph = Graph::new();
    let mut steps = BTreeMap::new();
    for found in uses {
        if let (Some(from), Some(to)) = (found.from.first(), found.to.first())
            && from != to
        {
            graph.entry(from.clone()).or_default().insert(to.clone());
            steps
                .entry((from.clone(), to.clone()))
                .or_insert(&found.finding);
        }
    }
    circles(&graph)
        .into_iter()
        .map(|circle| {
            let next = circle.iter().cycle().skip(1);
            let step = |(from, to): (&String, &String)| steps[&(from.clone(), to.clone())].clone();
            let steps: Vec<_> = circle.iter().zip(next).map(step).collect();
            format!(
                "{} -> {}: {}",
                circle.join(" -> "),
                circle[0],
                steps.join("; ")
            )
        })
        .collect()
}

/// Circles of files; a module's file and those below it may use each other.
fn file_circles(uses: &[Use]) -> Vec<String> {
    let mut graph = Graph::new();
    for found in uses {
        if !found.from.starts_with(&found.to) && !found.to.starts_with(&found.from) {
            let targets = graph.entry(found.file.clone()).or_default();
            targets.insert(found.target.clone());
        }
    }
    let way = |circle: Vec<String>| format!("{} -> {}", circle.join(" -> "), circle[0]);
    circles(&graph).into_iter().map(way).collect()
}

/// `pub(crate) use a::*` hides which file a name comes from, from readers and from these rules.
fn hidden_origins(files: &[Parsed]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let paths = crate::spelled::spelling(&file.file).paths;
        let hidden = paths.iter().filter(|path| path.public);
        findings.extend(
            hidden
                .filter(|path| path.segments.last().is_some_and(|last| last == "*"))
                .map(|path| format!("{}: {}", file.path, path.segments.join("::"))),
        );
    }
    findings
}

#[test]
fn every_floor_is_listed() {
    let findings = unlisted(&listed(), &entries(&files()));
    assert_none(
        "ARCHITECTURE.md lists the floors of qera-daemon/src",
        &findings,
    );
}

#[test]
fn imports_point_down() {
    let uses = uses(&files());
    assert!(uses.len() > 200, "{} uses are not all", uses.len());
    let findings = upward(&listed(), &uses);
    assert_none("uses of a floor above", &findings);
}

#[test]
fn folders_stand_in_no_circle() {
    let findings = folder_circles(&uses(&files()));
    assert_none("folders that use each other", &findings);
}

#[test]
fn files_stand_in_no_circle() {
    let files = files();
    assert_none("files that use each other", &file_circles(&uses(&files)));
    assert_none(
        "imports that hide where a name comes from",
        &hidden_origins(&files),
    );
}

#[test]
fn the_list_is_read_and_compared() {
    let list = floors("text\n```floors\nlow     the bottom\nlow twice\nhigh\n```\n```sh\nls\n```");
    assert_eq!(list, ["low", "low", "high"]);
    let entries = BTreeSet::from(["low", "new"]);
    assert_eq!(unlisted(&list, &entries).len(), 3);
    assert!(unlisted(&list[1..2], &BTreeSet::from(["low"])).is_empty());
}

#[test]
fn a_way_up_and_a_way_round_are_seen() {
    let list = ["low".to_owned(), "high".to_owned()];
    let sound = made_up(&[
        ("lib.rs", "mod low; mod high; pub use high::H;"),
        (
            "low.rs",
            "use crate::high_not; #[cfg(test)] mod tests { use crate::high::H; }",
        ),
        ("high/mod.rs", "mod child; use crate::low::L; use child::C;"),
        ("high/child.rs", "use super::H; use crate::high::other::O;"),
        ("high/other.rs", ""),
    ]);
    let uses_of = |files: &[Parsed]| uses(files);
    let found = uses_of(&sound);
    assert!(upward(&list, &found).is_empty());
    assert!(folder_circles(&found).is_empty() && file_circles(&found).is_empty());

    let broken = made_up(&[
        ("low.rs", "struct L;\nfn f() { crate::high::g() }"),
        ("high/mod.rs", "mod child; mod other; pub use child::*;"),
        ("high/child.rs", "use super::other::O; use crate::low::L;"),
        ("high/other.rs", "fn f(c: super::child::C) {}"),
    ]);
    let found = uses_of(&broken);
    assert_eq!(
        upward(&list, &found),
        ["src/low.rs:2: crate::high::g (`high` stands above `low`)"]
    );
    assert_eq!(
        folder_circles(&found),
        ["high -> low -> high: src/high/child.rs:1: crate::low::L; src/low.rs:2: crate::high::g"]
    );
    assert_eq!(
        file_circles(&found),
        ["src/high/child.rs -> src/high/other.rs -> src/high/child.rs"]
    );
    assert_eq!(hidden_origins(&broken), ["src/high/mod.rs: child::*"]);
}
