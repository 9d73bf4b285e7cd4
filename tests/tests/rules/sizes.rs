//! Files and functions of a size that is read in one go.

use crate::sources::{Source, assert_none, root, sources};

/// Most lines of a file, and most of them that are code: not blank, not a comment, not in the tests
/// at its end.
const LINES_MAX: usize = 600;
const CODE_LINES_MAX: usize = 400;
const MAIN_CODE_LINES_MAX: usize = 60;

/// Most lines of half of the files of a crate, and of nine in ten.
const MEDIAN_MAX: usize = 200;
const NINE_IN_TEN_MAX: usize = 400;
/// For each of these, and for all that is Rust.
const CRATES: [&str; 4] = ["qera-core/", "qera-daemon/", "tests/", ""];

fn code_lines(text: &str) -> usize {
    let before_tests = text.split("#[cfg(test)]").next().unwrap();
    before_tests
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

#[test]
fn files_stay_readable() {
    let mut findings = Vec::new();
    for source in sources("rs") {
        let (lines, code) = (source.text.lines().count(), code_lines(&source.text));
        if lines > LINES_MAX {
            findings.push(format!(
                "{}: {lines} lines, at most {LINES_MAX}",
                source.path
            ));
        }
        let code_max = if source.path.ends_with("/main.rs") {
            MAIN_CODE_LINES_MAX
        } else {
            CODE_LINES_MAX
        };
        if code > code_max && !source.path.starts_with("tests/") {
            findings.push(format!(
                "{}: {code} lines of code, at most {code_max}",
                source.path
            ));
        }
    }
    assert_none("files that should be two", &findings);
}

/// The file at a share of the files in order of their sizes: half of them, rounded up, are at most
/// as long as the median.
fn at_share(sizes: &[usize], tenths: usize) -> usize {
    sizes[(sizes.len() * tenths).div_ceil(10) - 1]
}

/// Shares of a crate's files that are too long, and which files to begin with.
fn long_files(place: &str, files: &[Source]) -> Vec<String> {
    let length = |source: &&Source| source.text.lines().count();
    let mut files: Vec<_> = (files.iter())
        .filter(|source| source.path.starts_with(place))
        .map(|source| (length(&source), &source.path))
        .collect();
    files.sort();
    let sizes: Vec<_> = files.iter().map(|(lines, _)| *lines).collect();
    let crate_name = if place.is_empty() { "all files" } else { place };
    let mut findings = Vec::new();
    for (tenths, name, max) in [
        (5, "median", MEDIAN_MAX),
        (9, "90th percentile", NINE_IN_TEN_MAX),
    ] {
        let lines = at_share(&sizes, tenths);
        if lines > max {
            let above = files.iter().filter(|(lines, _)| *lines > max);
            let longest: Vec<_> = above
                .map(|(lines, path)| format!("{path} {lines}"))
                .collect();
            findings.push(format!(
                "{crate_name}: {name} {lines} lines, at most {max}; of {} files {} are longer: {}",
                files.len(),
                longest.len(),
                longest.join(", ")
            ));
        }
    }
    findings
}

#[test]
fn most_files_are_short() {
    let files = sources("rs");
    let findings: Vec<_> = CRATES
        .iter()
        .flat_map(|place| long_files(place, &files))
        .collect();
    assert_none("files that are too long too often", &findings);
}

#[test]
fn long_files_are_counted() {
    let made_up = |lines: &[usize]| {
        let file = |(index, lines): (usize, &usize)| Source {
            path: format!("a/{index}.rs"),
            text: "x\n".repeat(*lines),
        };
        lines.iter().enumerate().map(file).collect::<Vec<_>>()
    };
    let found = |lines: &[usize]| long_files("a/", &made_up(lines));
    assert!(
        found(&[200, 200, 500]).len() == 1,
        "one of three is no tenth"
    );
    assert!(found(&[[200; 5].as_slice(), &[201, 400, 400, 400, 999]].concat()).is_empty());
    assert_eq!(
        found(&[10, 300, 201]),
        ["a/: median 201 lines, at most 200; of 3 files 2 are longer: a/2.rs 201, a/1.rs 300"]
    );
}

/// The lint counts the lines of functions; an exception from it is a function that should be two.
fn exceptions(files: &[Source]) -> Vec<String> {
    let lint = concat!("too_many", "_lines");
    let mut findings = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            if line.contains(lint) {
                findings.push(format!("{}:{}", file.path, index + 1));
            }
        }
    }
    findings
}

#[test]
fn no_function_is_an_exception() {
    let threshold = std::fs::read_to_string(root().join("clippy.toml")).unwrap();
    assert!(
        threshold.contains(concat!("too-many", "-lines-threshold = 70")),
        "clippy.toml holds functions at 70 lines"
    );
    let lints = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(
        lints.contains(concat!("too_many", "_lines = \"warn\"")),
        "Cargo.toml turns the lint on"
    );
    assert_none("functions that should be two", &exceptions(&sources("rs")));
    let text = concat!("\n#[expect(clippy::too_many", "_lines)]\nfn f() {}");
    let made_up = Source {
        path: "a.rs".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(exceptions(&[made_up]), ["a.rs:2"]);
}
