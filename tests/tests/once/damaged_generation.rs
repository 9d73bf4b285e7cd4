//! A current generation that is not what was written: it is said by name at the start and by
//! `verify`, and its corrections are published again under a new number.

use std::fs;
use std::path::{Path, PathBuf};

use qera_tests::daemon::{EndedRun, TestDaemon, expect, expect_verdict};
use qera_tests::disk_shim::{DiskShim, FailingCalls};
use qera_tests::event::event;
use qera_tests::gguf_model::daemon_with_gguf;
use qera_tests::live::Live;
use qera_tests::output_folder::{generations, unseal};
use qera_tests::three_layers::{daemon_with_shards, live_with, once_with};

use super::BINARY;

const TENSORS: &str = "adapter_model.safetensors";
const MANIFEST: &str = "qera_manifest.json";

fn current(daemon: &TestDaemon, file: &str) -> PathBuf {
    daemon.path().join("qera-out/current").join(file)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn flip(path: &Path) {
    change(path, |bytes| *bytes.last_mut().unwrap() ^= 1);
}

type Damage = fn(&TestDaemon);

/// What is done to a generation, and the message that follows.
const DAMAGES: [(Damage, &str, &str); 9] = [
    (
        |daemon| change(&current(daemon, TENSORS), |bytes| bytes.truncate(100)),
        TENSORS,
        "has 100 bytes, ",
    ),
    (
        |daemon| flip(&current(daemon, TENSORS)),
        TENSORS,
        "is not what was written (blake3:",
    ),
    (
        |daemon| fs::remove_file(current(daemon, TENSORS)).unwrap(),
        TENSORS,
        "is missing",
    ),
    (
        |daemon| {
            let other = daemon.path().join("other/current").join(TENSORS);
            fs::copy(other, current(daemon, TENSORS)).map(drop).unwrap();
        },
        TENSORS,
        "is not what was written (blake3:",
    ),
    (
        |daemon| flip(&current(daemon, "README.md")),
        "README.md",
        "is not what was written (blake3:",
    ),
    (
        |daemon| fs::remove_file(current(daemon, "adapter_config.json")).unwrap(),
        "adapter_config.json",
        "is missing",
    ),
    (
        // One bit: '4' becomes '6'.
        |daemon| {
            change(&current(daemon, MANIFEST), |bytes| {
                let name = bytes.windows(6).position(|of| of == b"mxint4").unwrap();
                bytes[name + 5] ^= 2;
            });
        },
        MANIFEST,
        "has a seal that does not fit what it says",
    ),
    (
        |daemon| change(&current(daemon, MANIFEST), |bytes| bytes.truncate(300)),
        MANIFEST,
        "has a seal that does not fit what it says",
    ),
    (
        |daemon| {
            let before = fs::read(daemon.path().join("other/current").join(MANIFEST));
            fs::write(current(daemon, MANIFEST), before.unwrap()).unwrap();
        },
        MANIFEST,
        "is that of generation 1",
    ),
];

fn is_said(run: &EndedRun, number: u64, file: &str, how: &str) {
    let said = format!("current generation: {number} is damaged: {file} {how}");
    assert!(run.log.contains(&said), "'{said}' is not in:\n{}", run.log);
    assert!(!run.log.contains("mxint6"), "{}", run.log);
}

#[test]
fn what_is_damaged_is_named_and_published_again() {
    let daemon = daemon_with_shards(BINARY);
    let other = once_with(&["--out", "other", "--method", "approx"]);
    expect(&daemon.run(&other), 0, &[]);
    // Numbers above those of the other folder.
    for shrinkage in ["0.5", "auto"] {
        let options = once_with(&["--shrinkage", shrinkage]);
        expect(&daemon.run(&options), 0, &["published generation"]);
    }
    let good = daemon.adapter("qera-out").bytes;
    for (number, (damage, file, how)) in (2..).zip(DAMAGES) {
        damage(&daemon);
        let found = daemon.verify(&[]);
        let said = format!("problem: {file}: is damaged: it {how}");
        if file != MANIFEST || !how.starts_with("is that") {
            expect_verdict(&found, 1, &[&said]);
        } else {
            expect_verdict(&found, 1, &["is damaged: it is that of generation 1"]);
        }
        assert!(!found.output.contains("mxint6"), "{}", found.output);
        let published = format!("published generation {}", number + 1);
        let again = daemon.run(&once_with(&[]));
        expect(&again, 0, &[&published]);
        is_said(&again, number, file, how);
        assert_eq!(daemon.adapter("qera-out").bytes, good, "{file} {how}");
        let whole = daemon.verify(&[]);
        expect_verdict(&whole, 0, &["holds: "]);
        let nothing = daemon.run(&once_with(&[]));
        expect(&nothing, 0, &["nothing new"]);
        assert!(!nothing.log.contains("damaged"), "{}", nothing.log);
    }
}

/// The forms of an adapter one by one, and `solve`.
#[test]
fn every_form_is_looked_at() {
    let daemon = daemon_with_gguf(BINARY);
    let given = ["--checkpoint", "checkpoint", "--quantized", "model.gguf"];
    let forms = ["--rank", "4", "--format", "peft,gguf,mlx"];
    let once = [&["--once", "--watch", "activations"], &given[..], &forms].concat();
    expect(&daemon.run(&once), 0, &["published generation 1"]);
    let state = ["solve", "--state", "qera-out/state"];
    let solve = [&state, &given[..], &forms].concat();
    let files = [
        ("adapter.gguf", "/adapter.gguf"),
        ("mlx/adapters.safetensors", "/mlx"),
        ("mlx/adapter_config.json", "/mlx"),
    ];
    for (number, (file, form)) in (1..).zip(files) {
        flip(&current(&daemon, file));
        let said = format!("problem: {file}: is damaged: it is not what was written");
        expect_verdict(&daemon.verify(&[]), 1, &[&said]);
        // With one form, only the files of that form are read.
        for of in ["/adapter.gguf", "/mlx"] {
            let path = format!("qera-out/current{of}");
            let run = daemon.run(&["verify", "--adapter", &path]);
            assert_eq!(run.output.contains(&said), of == form, "{}", run.output);
            assert_eq!(run.code, i32::from(of == form), "{}", run.output);
        }
        let again = daemon.run(if number == 1 { &solve } else { &once });
        expect(
            &again,
            0,
            &[&format!("published generation {}", number + 1)],
        );
        is_said(&again, number, file, "is not what was written");
        expect_verdict(&daemon.verify(&[]), 0, &["holds: "]);
    }
}

#[test]
fn a_live_run_publishes_again_and_tells_nobody_of_what_is_damaged() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &["published generation 1"]);
    flip(&current(&daemon, TENSORS));
    let told = [
        "--idle-publish",
        "0.5",
        "--on-publish",
        "echo $QERA_GENERATION >> told",
    ];
    let mut live = Live::start(daemon.command(&live_with(&told)));
    live.wait_for(&event("published").with("generation", 2));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let said = "1 is damaged: adapter_model.safetensors is not what was written";
    assert!(live.log.contains(said), "{}", live.log);
    let told = fs::read_to_string(daemon.path().join("told")).unwrap();
    assert_eq!(told, "2\n");
}

/// Nothing is known of the bytes of what was written before there were seals.
#[test]
fn a_manifest_of_before_is_unsealed_and_not_damaged() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    unseal(&daemon.path().join("qera-out/current"));
    let again = daemon.run(&once_with(&[]));
    expect(&again, 0, &["nothing new"]);
    assert!(!again.log.contains("damaged"), "{}", again.log);
    expect_verdict(&daemon.verify(&[]), 0, &["holds: "]);
    // A missing file is found without a seal, too.
    fs::remove_file(current(&daemon, TENSORS)).unwrap();
    let again = daemon.run(&once_with(&[]));
    expect(&again, 0, &["published generation 2"]);
    is_said(&again, 1, TENSORS, "is missing");
}

#[test]
fn what_the_disk_does_not_give_is_no_damage() {
    let shim = DiskShim::build();
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    for file in [TENSORS, MANIFEST] {
        let failing = FailingCalls {
            call: "read",
            path: file,
            count: 100,
            errno: 5,
        };
        let run = daemon.run_failing(&once_with(&[]), &shim, failing);
        expect(&run, 1, &[file]);
        assert!(!run.log.contains("damaged"), "{}", run.log);
    }
    assert_eq!(generations(&daemon.path().join("qera-out")), [1]);
    expect(&daemon.run(&once_with(&[])), 0, &["nothing new"]);
}

/// What a folder belongs to is still known by the generation before.
#[test]
fn a_damaged_manifest_opens_the_folder_to_nobody_else() {
    let daemon = daemon_with_shards(BINARY);
    for shrinkage in ["0.5", "auto"] {
        let options = once_with(&["--shrinkage", shrinkage]);
        expect(&daemon.run(&options), 0, &["published generation"]);
    }
    change(&current(&daemon, MANIFEST), |bytes| bytes.truncate(300));
    let other = daemon.run(&once_with(&["--quantizer", "mxint3"]));
    let said = "its current generation corrects mxint4/4, this run uses mxint3/4";
    expect(&other, 4, &[said]);
}

#[test]
fn a_base_is_looked_at_by_size_and_time_and_read_by_verify() {
    let daemon = daemon_with_shards(BINARY);
    let options = once_with(&["--emit-base"]);
    expect(&daemon.run(&options), 0, &[]);
    let base = daemon.path().join("qera-out/base");
    let weights = base.join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    // Touched: it is read, and is what it was.
    fs::write(&weights, &whole).unwrap();
    expect(&daemon.run(&options), 0, &["nothing new"]);
    flip(&weights);
    let refused = daemon.run(&options);
    let said = "qera-out/base: its model.safetensors is damaged: it is not what was written";
    expect(&refused, 4, &[said, "remove the folder"]);
    let said = "base/model.safetensors: is damaged: it is not what was written";
    expect_verdict(&daemon.verify(&[]), 1, &[said]);
    fs::write(&weights, &whole).unwrap();
    expect_verdict(&daemon.verify(&[]), 0, &["holds: "]);
    // What lies beside the weights is said, and the run goes on.
    fs::write(base.join("config.json"), "{}").unwrap();
    let said = "base/config.json: is damaged: it has 2 bytes, ";
    expect(&daemon.run(&options), 0, &[said, "nothing new"]);
    expect_verdict(&daemon.verify(&[]), 1, &[said]);
    // One that is removed is written again.
    fs::remove_dir_all(&base).unwrap();
    expect(&daemon.run(&options), 0, &["published generation 2"]);
    assert_eq!(fs::read(&weights).unwrap(), whole);
    expect_verdict(&daemon.verify(&[]), 0, &["holds: "]);
}
