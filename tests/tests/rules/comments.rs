//! Comments are read beside code, and so are as narrow as it.

use crate::sources::{Source, assert_none, root, sources, taps};

const COLUMNS_MAX: usize = 100;
/// Of a docstring.
const QUOTES: &str = "\"\"\"";
/// Scripts that have no extension or lie at the root.
const SCRIPTS: [&str; 4] = ["ci.sh", ".ci/run", "benches/cuda/run", "benches/peers/run"];

/// What a line of Python stands in where a text in three quotes is open.
#[derive(PartialEq)]
enum Open {
    Nothing,
    Docstring,
    /// A text that is a value: it begins behind other code.
    Data,
}

/// The lines of a file that are nothing but comment, numbered from 1. Docstrings of Python are
/// comments, too; examples in documentation are code.
fn comment_lines(file: &Source) -> Vec<(usize, &str)> {
    let (is_rust, is_python) = (file.path.ends_with(".rs"), file.path.ends_with(".py"));
    let mark = if is_rust { "//" } else { "#" };
    let (mut open, mut in_example) = (Open::Nothing, false);
    let mut found = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        let text = line.trim_start();
        let is_docstring = text.starts_with(QUOTES);
        let is_mark = open == Open::Nothing && text.starts_with(mark);
        in_example ^= is_mark && text.contains("```");
        let begins = is_python && open == Open::Nothing && is_docstring;
        if begins || open == Open::Docstring || (is_mark && !in_example) {
            found.push((number, line));
        }
        if is_python && text.matches(QUOTES).count() % 2 == 1 {
            open = match open {
                Open::Nothing if begins => Open::Docstring,
                Open::Nothing => Open::Data,
                Open::Docstring | Open::Data => Open::Nothing,
            };
        }
    }
    found
}

/// Whether a line cannot be broken: a row of a table, aligned text, or one long word, as an address
/// is.
fn is_unbreakable(line: &str) -> bool {
    let text = line.trim_start().trim_start_matches(['/', '!', '#']).trim();
    text.starts_with('|') || text.contains("   ") || line.split_whitespace().count() <= 2
}

/// Those that are wider than they may be.
fn wide_comments(file: &Source) -> Vec<String> {
    let lines = comment_lines(file).into_iter();
    let wide = lines.filter(|(_, line)| line.chars().count() > COLUMNS_MAX);
    let wide = wide.filter(|(_, line)| !is_unbreakable(line));
    wide.map(|(number, _)| format!("{}:{number}", file.path))
        .collect()
}

/// Every file of Rust, Python and shell that is the project's own.
fn files() -> Vec<Source> {
    let mut found: Vec<_> = ["rs", "py", "sh"].into_iter().flat_map(sources).collect();
    found.extend(taps("py"));
    found.extend(SCRIPTS.map(|path| Source {
        path: path.to_owned(),
        text: std::fs::read_to_string(root().join(path)).unwrap(),
    }));
    found
}

#[test]
fn comments_are_not_wide() {
    let files = files();
    assert!(files.len() > 500, "{} files are not all", files.len());
    let findings: Vec<_> = files.iter().flat_map(wide_comments).collect();
    assert_none("comments of more than 100 columns", &findings);
}

#[test]
fn a_wide_comment_is_seen() {
    let wide = |path: &str, text: String| {
        let path = path.to_owned();
        wide_comments(&Source { path, text }).len()
    };
    let words = "two words ".repeat(9);
    for (path, mark) in [
        ("a.rs", "//"),
        ("a.rs", "    ///"),
        ("a.py", "#"),
        (".ci/run", "#"),
    ] {
        assert_eq!(
            wide(path, format!("{mark} {words}and some more")),
            1,
            "{path} {mark}"
        );
        assert_eq!(
            wide(path, format!("{mark} {}", words.trim())),
            0,
            "{path} {mark}"
        );
    }
    let docstring = |text: &str| wide("a.py", format!("def f():\n    {QUOTES}{text}{QUOTES}\n"));
    assert_eq!(docstring(&format!("First.\n\n    {words}{words}\n    ")), 1);
    assert_eq!(docstring(&format!("{words}{words}")), 1);
    assert_eq!(docstring("First."), 0);
    let data = format!("X = {QUOTES}\n# {words}{words}\n{QUOTES}\n{words}{words}\n");
    assert_eq!(wide("a.py", data.clone()), 0, "a text is data, and ends");
    assert_eq!(wide("a.py", format!("{data}# {words}{words}")), 1);
    assert_eq!(
        wide("a.rs", format!("let x = 1; // {words}")),
        0,
        "code decides"
    );
    assert_eq!(
        wide("a.rs", format!("// {}", "x".repeat(200))),
        0,
        "one word"
    );
}
