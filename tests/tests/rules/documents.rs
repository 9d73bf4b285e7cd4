//! What people read first: how long pages are, how wide lines are, where links lead.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::sources::{Source, assert_none, markdown, root, sources};

/// Most words of what is read first, by a user and by a colleague.
const WORDS_MAX: [(&str, usize); 2] = [("README.md", 900), ("ARCHITECTURE.md", 1_000)];
const COLUMNS_MAX: usize = 100;

/// Words with a letter or a digit; those of code and tables count, too.
fn words(text: &str) -> usize {
    let words = text.split_whitespace();
    words
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .count()
}

/// A line of a page with its number, outside of blocks of code.
struct Line<'a> {
    number: usize,
    text: &'a str,
}

fn prose(text: &str) -> Vec<Line<'_>> {
    let mut in_code = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            lines.push(Line {
                number: index + 1,
                text: line,
            });
        }
    }
    lines
}

/// The line without where its links lead: `[text](target)` is `[text]`.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push(']');
        text.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    text
}

fn wide_lines(page: &Source) -> Vec<String> {
    let lines = prose(&page.text).into_iter();
    lines
        .filter(|line| !line.text.trim_start().starts_with('|'))
        .filter(|line| without_targets(line.text).chars().count() > COLUMNS_MAX)
        .map(|line| format!("{}:{}", page.path, line.number))
        .collect()
}

/// The targets of a line's links.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("](") {
        let target = &rest[at + 2..];
        let end = target.find(')').unwrap_or(target.len());
        found.push(&target[..end]);
        rest = &target[end..];
    }
    found
}

/// What GitHub calls a heading in an address.
fn anchor(heading: &str) -> String {
    let text = without_targets(heading).to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let lines = prose(text).into_iter();
    let headings = lines.filter(|line| line.text.starts_with('#'));
    headings
        .map(|line| anchor(line.text.trim_start_matches('#')))
        .collect()
}

/// The path of a link that stands in `page`, from the root on.
fn resolved(page: &str, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    let folder = Path::new(page).parent().unwrap();
    for component in folder.join(target).components() {
        if component == Component::ParentDir {
            path.pop();
        } else {
            path.push(component);
        }
    }
    path
}

/// Links of a page to files that `exists` denies, or to headings that `text_of` does not show.
fn broken_links(
    page: &Source,
    exists: impl Fn(&Path) -> bool,
    text_of: impl Fn(&Path) -> String,
) -> Vec<String> {
    let mut findings = Vec::new();
    for line in prose(&page.text) {
        for target in targets(line.text) {
            if target.contains(':') {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => PathBuf::from(&page.path),
                path => resolved(&page.path, path),
            };
            let is_there = exists(&file);
            if !is_there || (!heading.is_empty() && !anchors(&text_of(&file)).contains(heading)) {
                findings.push(format!("{}:{}: {target}", page.path, line.number));
            }
        }
    }
    findings
}

/// The numbers with a decimal point.
fn figures(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let words = words.map(|word| word.trim_end_matches('.'));
    let is_figure = |word: &&str| word.contains('.') && word.parse::<f64>().is_ok();
    words.filter(is_figure).collect()
}

fn table_rows(page: &str) -> String {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_read_first_is_short() {
    let long = WORDS_MAX.into_iter().filter_map(|(page, most)| {
        let count = words(&std::fs::read_to_string(root().join(page)).unwrap());
        (count > most).then(|| format!("{page} has {count} words, more than {most}"))
    });
    let findings: Vec<_> = long.collect();
    assert_none("what these tell has a page in docs", &findings);
}

/// What README says is gained stands on the pages that have it with command and machine.
#[test]
fn readme_repeats_figures_and_has_none_of_its_own() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (engines, fixture) = (read("docs/llama-cpp.md"), read("docs/numbers.md"));
    let measured = &figures(&engines) | &figures(&fixture);
    let table = table_rows(&read("README.md"));
    let stated = figures(&table);
    assert!(stated.len() > 10, "{} figures are not all", stated.len());
    let findings: Vec<_> = stated
        .difference(&measured)
        .map(|f| (*f).to_owned())
        .collect();
    assert_none("figures of README.md that no page has", &findings);
}

#[test]
fn lines_of_pages_are_not_wide() {
    let pages = markdown().into_iter().filter(|page| {
        let named = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
        page.path.starts_with("docs/") || named.contains(&page.path.as_str())
    });
    let findings: Vec<_> = pages.flat_map(|page| wide_lines(&page)).collect();
    assert_none(
        &format!("lines of more than {COLUMNS_MAX} columns outside of tables and code"),
        &findings,
    );
}

#[test]
fn links_lead_somewhere() {
    let exists = |path: &Path| root().join(path).exists();
    let text_of = |path: &Path| std::fs::read_to_string(root().join(path)).unwrap_or_default();
    let pages = markdown();
    assert!(pages.len() > 10, "{} pages are not all", pages.len());
    let findings: Vec<_> = pages
        .iter()
        .flat_map(|page| broken_links(page, exists, text_of))
        .collect();
    assert_none("links to a file or a heading that is not there", &findings);
}

/// Pages that a text names, as `docs/running.md`.
fn named_pages(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c);
    let words = text.split(|c| !is_part(c));
    let words = words.map(|word| word.trim_end_matches('.'));
    words
        .filter(|word| word.starts_with("docs/") && word.ends_with(".md"))
        .collect()
}

/// A comment cites what the repository holds, or a paper.
#[test]
fn pages_that_code_cites_are_there() {
    let files = ["rs", "py", "sh"].into_iter().flat_map(sources);
    let made_up = "tests/tests/rules/";
    let mut findings = Vec::new();
    for file in files.filter(|file| !file.path.starts_with(made_up)) {
        let pages = named_pages(&file.text).into_iter();
        let absent = pages.filter(|page| !root().join(page).exists());
        findings.extend(absent.map(|page| format!("{}: {page}", file.path)));
    }
    assert_none("pages that code cites and that are not there", &findings);
}

#[test]
fn words_and_columns_are_counted() {
    assert_eq!(words("| a | `--b` | 1.5 |\n- two words\n```\ncode\n```"), 6);
    let wide = "x".repeat(COLUMNS_MAX + 1);
    let page = |text: String| Source {
        path: "docs/a.md".to_owned(),
        text,
    };
    assert_eq!(wide_lines(&page(format!("a\n{wide}"))), ["docs/a.md:2"]);
    let table = table_rows("1.5 is in no row\n| x2.5 | 3.25 -> 4. | v1.2.3 |\n");
    assert_eq!(figures(&table), BTreeSet::from(["2.5", "3.25"]));
    let link = format!("[{}]({wide}) and so on", "y".repeat(80));
    let fine = format!("| {wide} |\n```\n{wide}\n```\n{link}");
    assert!(wide_lines(&page(fine)).is_empty());
}

#[test]
fn a_broken_link_is_seen() {
    let page = |text: &str| Source {
        path: "docs/a.md".to_owned(),
        text: text.to_owned(),
    };
    let exists = |path: &Path| {
        let there = ["docs/a.md", "docs/b.md", "README.md"];
        there.contains(&path.to_str().unwrap())
    };
    let text_of = |_: &Path| "# The `first` one: so!\n```\n# no heading\n```\n".to_owned();
    let links = |text: &str| broken_links(&page(text), exists, text_of).len();
    assert_eq!(links("[x](b.md) [y](../README.md#the-first-one-so)"), 0);
    assert_eq!(
        links("[x](https://example.org/none) [y](#the-first-one-so)"),
        0
    );
    assert_eq!(links("```\n[x](none.md)\n```"), 0);
    assert_eq!(links("[x](none.md) [y](b.md#no-heading) [z](../b.md)"), 3);
    let cited = "// see docs/a-b.md, \"C\", and (docs/d/e.md). Not docs/f.svg or x.md.";
    assert_eq!(named_pages(cited), ["docs/a-b.md", "docs/d/e.md"]);
}
