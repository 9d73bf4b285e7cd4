//! The files that the rules read, and how a rule fails.

use std::path::{Path, PathBuf};

pub(crate) struct Source {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages of the root and of every folder, that of what people read and of taps included.
pub(crate) fn markdown() -> Vec<Source> {
    let mut found = sources("md");
    collect("docs", "md", &mut found);
    collect("taps", "md", &mut found);
    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap();
            found.push(Source {
                path: name.to_str().unwrap().to_owned(),
                text: std::fs::read_to_string(&path).unwrap(),
            });
        }
    }
    found
}

/// Reads every file of an extension among the taps, which run in other people's programs.
pub(crate) fn taps(extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect("taps", extension, &mut found);
    assert!(!found.is_empty(), "no .{extension} file was found");
    found
}

/// Reads every file of an extension in the folders that are the project's own.
pub(crate) fn sources(extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in [
        "qera-core",
        "qera-gpu",
        "qera-daemon",
        "tests",
        "benches",
        "fixtures",
        "ci",
        "firmware",
    ] {
        collect(folder, extension, &mut found);
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(!found.is_empty(), "no .{extension} file was found");
    found
}

fn collect(folder: &str, extension: &str, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{folder}/{name}");
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, extension, found);
            }
        } else if Path::new(&name).extension().is_some_and(|e| e == extension) {
            found.push(Source {
                text: std::fs::read_to_string(entry.path()).unwrap(),
                path,
            });
        }
    }
}

/// Fails with every finding on a line of its own.
pub(crate) fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
