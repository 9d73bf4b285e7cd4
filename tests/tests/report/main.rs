//! `report`: a generation as a page and as a table. What it shows is what the manifest says, names
//! are never markup, and it disturbs nobody.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod hostile;
mod refused;
mod shown;
mod sizes;

use std::path::Path;

use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
const PAGE: &str = "page.html";

/// Writes the page of `qera-out`.
fn page(daemon: &TestDaemon, more: &[&str]) -> String {
    let options = [&["report", "--html", PAGE], more].concat();
    expect(&daemon.run(&options), 0, &[]);
    std::fs::read_to_string(daemon.path().join(PAGE)).unwrap()
}

/// Prints the table of `qera-out`.
fn table(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    daemon.run(&[&["report"], more].concat())
}

/// An output folder whose only generation has this manifest, unsealed as those of before.
fn write_generation(folder: &Path, manifest: &Value) {
    let generation = folder.join("generations/000001");
    std::fs::create_dir_all(&generation).unwrap();
    std::fs::write(generation.join("qera_manifest.json"), manifest.to_string()).unwrap();
    std::os::unix::fs::symlink("generations/000001", folder.join("current")).unwrap();
}

/// Texts between this tag and its end, in their order.
fn cells<'a>(page: &'a str, tag: &str) -> Vec<&'a str> {
    let (begin, end) = (
        format!("<{tag}>"),
        format!("</{}>", tag.split(' ').next().unwrap()),
    );
    let parts = page.split(begin.as_str()).skip(1);
    parts
        .map(|part| part.split(end.as_str()).next().unwrap())
        .collect()
}
