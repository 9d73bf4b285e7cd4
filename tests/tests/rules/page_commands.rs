//! Every command of a page is run by a stage, or the page says why it is not.
//!
//! The line before a block says it: `<!-- run: STAGE -->`, `<!-- run: STAGE: more -->` or
//! `<!-- not run: reason -->`. Blocks `run: test` are run as they stand by `tests/tests/pages`.

use crate::sources::{Source, assert_none, markdown, root};

/// Languages of what somebody is to run or install.
const COMMANDS: [&str; 6] = ["sh", "bash", "console", "python", "ini", "dockerfile"];
const RUN_AS_IT_STANDS: &str = "<!-- run: test -->";

/// What a block's mark says.
enum BlockMark<'a> {
    RunBy(&'a str),
    NotRun(&'a str),
    None,
}

fn mark_of(line: &str) -> BlockMark<'_> {
    let inner = line.trim().strip_prefix("<!-- ");
    let Some(inner) = inner.and_then(|inner| inner.strip_suffix(" -->")) else {
        return BlockMark::None;
    };
    if let Some(reason) = inner.strip_prefix("not run: ") {
        return BlockMark::NotRun(reason.trim());
    }
    let stage = inner.strip_prefix("run: ");
    let stage = stage.map(|of| of.split(':').next().unwrap_or_default().trim());
    stage.map_or(BlockMark::None, BlockMark::RunBy)
}

/// The gate's stages, as `ci.sh` lists them.
fn stages(script: &str) -> Vec<&str> {
    let list = script
        .lines()
        .find_map(|line| line.strip_prefix("stages=("));
    let list = list.and_then(|list| list.strip_suffix(')'));
    list.unwrap_or_default().split_whitespace().collect()
}

/// Blocks of commands that say neither.
fn unmarked(page: &Source, stages: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    let (mut before, mut in_code) = ("", false);
    for (index, line) in page.text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let is_command = !in_code && COMMANDS.contains(&language.trim());
            in_code = !in_code;
            let wrong = match mark_of(before) {
                _ if !is_command => None,
                BlockMark::RunBy(stage) if stages.contains(&stage) => None,
                BlockMark::RunBy(stage) => Some(format!("'{stage}' is no stage of ci.sh")),
                BlockMark::NotRun("") => Some("no reason is given".to_owned()),
                BlockMark::NotRun(_) => None,
                BlockMark::None => Some("no mark says which stage runs it, or why none".to_owned()),
            };
            findings.extend(wrong.map(|of| format!("{}:{}: {of}", page.path, index + 1)));
        }
        before = line;
    }
    findings
}

#[test]
fn every_block_of_commands_says_who_runs_it() {
    let script = std::fs::read_to_string(root().join("ci.sh")).unwrap();
    let stages = stages(&script);
    assert!(stages.contains(&"test"), "{stages:?}");
    let pages = markdown();
    let findings: Vec<_> = pages
        .iter()
        .flat_map(|page| unmarked(page, &stages))
        .collect();
    assert_none("blocks of commands that nobody is known to run", &findings);
}

#[test]
fn what_is_run_as_it_stands_is_run_by_the_test_of_pages() {
    let test = std::fs::read_to_string(root().join("tests/tests/pages/main.rs")).unwrap();
    let pages = markdown().into_iter();
    let marked = pages.filter(|page| page.text.lines().any(|of| of.trim() == RUN_AS_IT_STANDS));
    let forgotten = marked.filter(|page| !test.contains(&format!("\"{}\"", page.path)));
    let findings: Vec<_> = forgotten.map(|page| page.path).collect();
    assert_none(
        "pages with such blocks that tests/tests/pages leaves out",
        &findings,
    );
}

#[test]
fn an_unmarked_block_is_seen() {
    let count = |text: &str| {
        let page = Source {
            path: "docs/a.md".to_owned(),
            text: text.to_owned(),
        };
        unmarked(&page, &["test", "peft"]).len()
    };
    assert_eq!(stages("#!/bin/sh\nstages=(fmt test)\n"), ["fmt", "test"]);
    for fine in [
        "<!-- run: test -->\n```sh\nls\n```",
        "<!-- run: peft: tap -->\n  ```python\n  x\n  ```",
        "<!-- not run: needs Docker -->\n```sh\nls\n```",
        "```text\nls\n```\n```json\n{}\n```",
    ] {
        assert_eq!(count(fine), 0, "{fine}");
    }
    for wrong in [
        "```sh\nls\n```",
        "<!-- run: none -->\n```sh\nls\n```",
        "<!-- not run: -->\n```sh\nls\n```",
        "<!-- run: test -->\n\n```sh\nls\n```",
        "<!-- run: test -->\n```sh\nls\n```\n```python\nx\n```",
    ] {
        assert_eq!(count(wrong), 1, "{wrong}");
    }
}
