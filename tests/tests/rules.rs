//! The rules of the workspace that a program can check (ARCHITECTURE.md states them; clippy and rustc hold the others).
//!
//! Each rule lists its findings with their place, so that a failure reads as what to change.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};

/// Crates of the workspace and which of them each may depend on.
const MEMBERS: [(&str, &[&str]); 5] = [
    ("qera-core", &[]),
    ("qera-gpu", &["qera-core"]),
    ("qera-daemon", &["qera-core", "qera-gpu"]),
    ("tests", &["qera-core", "qera-gpu", "qera-daemon"]),
    ("benches", &["qera-core", "qera-daemon"]),
];

/// All that qera-core may depend on: none of these needs an allocator.
const CORE_DEPENDENCIES: [&str; 4] = ["half", "heapless", "libm", "nalgebra"];

/// Where `unsafe` may stand: the checkpoint mapping, the innermost loops of the kernels, the calls into the CUDA driver, the
/// proof's runtime, the loops that measure a core's peak.
const UNSAFE_PLACES: [&str; 5] = [
    "qera-daemon/src/disk/mapping.rs",
    "qera-daemon/src/host/kernels/micro/",
    "qera-gpu/src/device/",
    "ci/no_std_proof/src/runtime.rs",
    "benches/src/peak.rs",
];

/// Names that say nothing about what is in a file.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];

/// Spellings that compete with the project's word, as whole identifiers or parts of one between underscores.
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

/// Most lines of a file, and most of them that are code: not blank, not a comment, not in the tests at its end.
const LINES_MAX: usize = 600;
const CODE_LINES_MAX: usize = 400;
const MAIN_CODE_LINES_MAX: usize = 60;

struct Source {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads every file of an extension in the folders that are the project's own.
fn sources(extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in [
        "qera-core",
        "qera-gpu",
        "qera-daemon",
        "tests",
        "benches",
        "fixtures",
        "ci",
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

fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
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

/// Finds the keyword wherever it stands in the syntax tree, macro arguments included.
#[derive(Default)]
struct Unsafe(bool);

impl<'ast> Visit<'ast> for Unsafe {
    fn visit_expr_unsafe(&mut self, _: &'ast syn::ExprUnsafe) {
        self.0 = true;
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0 |= signature.unsafety.is_some();
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.0 |= item.unsafety.is_some();
        visit::visit_item_impl(self, item);
    }

    fn visit_item_foreign_mod(&mut self, _: &'ast syn::ItemForeignMod) {
        self.0 = true;
    }

    /// Arguments that are expressions are visited as such (a string may hold the word); of other macros the words count.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let arguments = Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        match call.parse_body_with(arguments) {
            Ok(arguments) => {
                let mut inner = Self::default();
                arguments
                    .iter()
                    .for_each(|argument| inner.visit_expr(argument));
                self.0 |= inner.0;
            }
            Err(_) => {
                let text = call.tokens.to_string();
                let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
                self.0 |= words.any(|word| word == "unsafe");
            }
        }
    }
}

fn has_unsafe(text: &str) -> bool {
    let mut found = Unsafe::default();
    found.visit_file(&syn::parse_file(text).unwrap());
    found.0
}

#[test]
fn unsafe_stands_in_named_files_only() {
    let findings: Vec<_> = sources("rs")
        .into_iter()
        .filter(|source| {
            !UNSAFE_PLACES
                .iter()
                .any(|place| source.path.starts_with(place))
        })
        .filter(|source| has_unsafe(&source.text))
        .map(|source| source.path)
        .collect();
    assert_none("`unsafe` outside the named files", &findings);
}

#[test]
fn unsafe_is_seen_in_every_form() {
    assert!(!has_unsafe("/// unsafe\nfn f() { let _ = \"unsafe\"; }"));
    for form in [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "unsafe impl Send for S {}",
        "fn f() { m!(unsafe { g() }); }",
    ] {
        assert!(has_unsafe(form), "{form}");
    }
}

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
    let this_file = "tests/tests/rules.rs";
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

#[test]
fn exit_codes_live_in_one_file() {
    let numbers = [
        "process::exit",
        "ExitCode::from",
        "ExitCode::SUCCESS",
        "ExitCode::FAILURE",
        "_exit(",
    ];
    let mut findings = Vec::new();
    for source in sources("rs") {
        let of_product = source.path.starts_with("qera-") && source.path.contains("/src/");
        if of_product && source.path != "qera-daemon/src/exit.rs" {
            let code = source
                .text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let words = code.flat_map(|line| numbers.iter().filter(|word| line.contains(*word)));
            findings.extend(words.map(|word| format!("{}: {word}", source.path)));
        }
    }
    assert_none("exit codes outside qera-daemon/src/exit.rs", &findings);
}

/// A test that does not run is no test, and what is unfinished is not committed.
#[test]
fn nothing_is_ignored_or_left_unfinished() {
    let markers = [
        concat!("#[", "ignore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
    ];
    let mut findings = Vec::new();
    for source in sources("rs") {
        findings.extend(
            markers
                .iter()
                .filter(|marker| source.text.contains(**marker))
                .map(|marker| format!("{}: {marker}", source.path)),
        );
    }
    assert_none("ignored tests and unfinished code", &findings);
}
