//! The commands of README and docs do what the pages say: every block that is marked
//! `<!-- run: test -->` is run here as it stands, a page in one folder, its blocks in their order.
//!
//! The folder has what the pages speak of: `activations`, `path/to/model`, files of GGUF; the
//! programs `qera-daemon` and `cargo` (`cargo run ... --` is the binary under test).
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::fixture::{fixture_shards, fixtures};
use qera_tests::gguf_model::daemon_with_gguf;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
const MARK: &str = "<!-- run: test -->";

/// A block of a page.
struct MarkedBlock {
    line: usize,
    commands: String,
}

/// The blocks of a page that are run here.
fn marked(page: &str) -> Vec<MarkedBlock> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.trim() != MARK {
            continue;
        }
        let (_, fence) = lines.next().unwrap();
        assert_eq!(
            fence.trim(),
            "```sh",
            "line {}: what follows the mark",
            index + 2
        );
        let code = lines.by_ref().map(|(_, line)| line);
        let code: Vec<_> = code.take_while(|line| line.trim() != "```").collect();
        found.push(MarkedBlock {
            line: index + 3,
            commands: code.join("\n"),
        });
    }
    found
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The programs that pages call, in a folder of their own.
fn write_programs(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    symlink(BINARY, folder.join("qera-daemon")).unwrap();
    let cargo = "#!/bin/sh\nset -e\n[ \"$1\" = run ]\nwhile [ \"$1\" != -- ]; do shift; done\nshift\n\
                 exec qera-daemon \"$@\"\n";
    write_program(&folder.join("cargo"), cargo);
}

/// The marked blocks of a page, which are so many.
fn blocks_of(page: &str, count: usize) -> Vec<MarkedBlock> {
    let text = std::fs::read_to_string(fixtures().join("..").join(page)).unwrap();
    let blocks = marked(&text);
    assert_eq!(blocks.len(), count, "{page}: how many blocks are marked");
    blocks
}

/// Runs a block in this folder.
fn run_block(folder: &Path, page: &str, block: &MarkedBlock) {
    let programs = folder.join("programs");
    if !programs.exists() {
        write_programs(&programs);
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let run = Command::new("sh")
        .args(["-eu", "-c", &block.commands])
        .env("PATH", &path)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{page}:{}: {said}", block.line);
}

/// A folder with the fixture's model and shards, as somebody has it who records and corrects.
fn folder_with_fixture() -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    for shard in fixture_shards() {
        let to = daemon.watched().join(shard.file_name().unwrap());
        std::fs::copy(shard, to).unwrap();
    }
    std::fs::create_dir_all(daemon.path().join("path/to")).unwrap();
    symlink(
        fixtures().join("model"),
        daemon.path().join("path/to/model"),
    )
    .unwrap();
    symlink(fixtures(), daemon.path().join("fixtures")).unwrap();
    daemon
}

/// Each of its ways in is for another model, and so in a folder of its own.
#[test]
fn readme_corrects_the_fixture_s_model() {
    for block in blocks_of("README.md", 2) {
        let daemon = folder_with_fixture();
        run_block(daemon.path(), "README.md", &block);
        let out = daemon.path().join("qera-out");
        for made in [
            "base/model.safetensors",
            "current/adapter_model.safetensors",
        ] {
            assert!(out.join(made).exists(), "{made}");
        }
    }
}

#[test]
fn a_gguf_is_corrected_and_exported_from() {
    let daemon = daemon_with_gguf(BINARY);
    std::fs::create_dir_all(daemon.path().join("path/to")).unwrap();
    for (name, is) in [
        ("MODEL", "checkpoint"),
        ("path/to/model", "../../checkpoint"),
        ("model-Q4_K_M.gguf", "model.gguf"),
        ("model-F16.gguf", "full.gguf"),
    ] {
        symlink(is, daemon.path().join(name)).unwrap();
    }
    for block in blocks_of("docs/gguf.md", 3) {
        run_block(daemon.path(), "docs/gguf.md", &block);
    }
    assert!(
        daemon
            .path()
            .join("qera-mxint3/base-gguf/model.gguf")
            .exists()
    );
    assert!(daemon.path().join("imatrix.gguf").exists());
}

/// A page, how many blocks of it are run, and what was done before it is read.
struct RunPage {
    path: &'static str,
    blocks: usize,
    before: &'static str,
}

const CORRECTED: &str =
    "--once --watch activations --checkpoint path/to/model --emit-base --rank 4";
const PAGES: [RunPage; 4] = [
    RunPage {
        path: "docs/rounding.md",
        blocks: 1,
        before: "plan --watch activations --checkpoint path/to/model",
    },
    RunPage {
        path: "docs/running.md",
        blocks: 2,
        before: "--once --watch activations --checkpoint path/to/model --out live-out",
    },
    RunPage {
        path: "docs/verify.md",
        blocks: 2,
        before: CORRECTED,
    },
    RunPage {
        path: "docs/report.md",
        blocks: 1,
        before: CORRECTED,
    },
];

#[test]
fn what_other_pages_say_is_done() {
    for page in &PAGES {
        let daemon = folder_with_fixture();
        let before: Vec<_> = page.before.split(' ').collect();
        expect(&daemon.run(&before), 0, &[]);
        for block in blocks_of(page.path, page.blocks) {
            run_block(daemon.path(), page.path, &block);
        }
    }
}
