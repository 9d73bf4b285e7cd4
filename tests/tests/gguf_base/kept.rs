//! It is written once, whole or not at all, and stays.

use std::fs;
use std::os::unix::fs::MetadataExt;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::disk_shim::{DiskShim, FailingCalls};
use qera_tests::gguf_file::GgufTensorToWrite;
use qera_tests::gguf_model::write_shard;

use crate::model::{
    EMITS, MODEL, ON_MODEL, base, base_file, daemon_with_model, rich_model, run_once,
};

fn inode(daemon: &TestDaemon) -> u64 {
    fs::metadata(base_file(daemon)).unwrap().ino()
}

#[test]
fn a_later_run_finds_it_and_refuses_another() {
    let daemon = daemon_with_model(&rich_model());
    expect(&run_once(&daemon, &[]), 0, &["base as GGUF written"]);
    let first = inode(&daemon);
    expect(&run_once(&daemon, &[]), 0, &["nothing new"]);
    // Without the option, too, the adapter belongs to this base.
    write_shard(&daemon, 2);
    let run = daemon.run(&[&["--once"], &ON_MODEL[..]].concat());
    expect(&run, 0, &["published generation 2"]);
    assert!(!run.log.contains("GGUF written"), "{}", run.log);
    assert_eq!(inode(&daemon), first);
    // And the base that serves the adapter is still found.
    assert!(
        daemon
            .path()
            .join("qera-out/current/adapter.gguf")
            .is_file()
    );
    let both = ["--once", "--format", "peft,gguf"];
    let run = daemon.run(&[&both, &ON_MODEL[..]].concat());
    expect(&run, 0, &["published generation 3"]);
    let adapter = daemon.adapter("qera-out");
    let path = adapter.config["base_model_name_or_path"].as_str().unwrap();
    assert!(path.ends_with("qera-out/base-gguf/model.gguf"), "{path}");
    assert_eq!(adapter.manifest["gguf_base"]["types"]["Q4_0"], 3);
    let readme = fs::read_to_string(daemon.path().join("qera-out/current/README.md")).unwrap();
    assert!(
        readme.contains("llama-server --model ") && readme.contains(path),
        "{readme}"
    );
    assert!(readme.contains("gguf_file=\"model.gguf\""), "{readme}");

    let other = run_once(&daemon, &["--quantizer", "mxint3"]);
    expect(&other, 4, &["corrects mxint4/32, this run uses mxint3/32"]);
    // Other metadata are another base: a tokenizer, say; so is another tensor that nobody reads.
    let tensor = GgufTensorToWrite::coarse("blk.0.more.weight", &[32, 2], &[1.0; 64]);
    for model in [
        rich_model().text("general.more", "x"),
        rich_model().tensor(tensor),
    ] {
        model.write(&daemon.path().join(MODEL));
        let run = run_once(&daemon, &[]);
        expect(&run, 4, &["base-gguf", "was made from other weights"]);
    }
    rich_model().write(&daemon.path().join(MODEL));

    let bytes = fs::read(base_file(&daemon)).unwrap();
    fs::write(base_file(&daemon), &bytes[..bytes.len() - 64]).unwrap();
    expect(
        &run_once(&daemon, &[]),
        4,
        &["base-gguf", "its model.gguf is damaged"],
    );
    fs::write(base_file(&daemon), &bytes).unwrap();
    let record = daemon.path().join("qera-out/base-gguf/qera_base.json");
    let mut changed: serde_json::Value =
        serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    changed.as_object_mut().unwrap().remove("gguf");
    fs::write(&record, changed.to_string()).unwrap();
    expect(
        &run_once(&daemon, &[]),
        4,
        &["that of a base in another form"],
    );
}

/// Killed when all of it is written, and nothing has its name yet.
#[test]
fn a_kill_before_the_rename_leaves_nothing_and_the_next_run_writes_it() {
    let daemon = daemon_with_model(&rich_model());
    let shim = DiskShim::build();
    let mut command = daemon.command(&[&["--once"], &ON_MODEL[..], &[EMITS]].concat());
    shim.kill_at_rename(&mut command, "/base-gguf");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), None, "{output:?}");
    let out = daemon.path().join("qera-out");
    assert!(!out.join("base-gguf").exists() && !out.join("current").exists());
    let unfinished = |out: &std::path::Path| {
        let left = fs::read_dir(out).unwrap();
        let mut left = left.map(|of| of.unwrap().path());
        left.find(|path| path.join("model.gguf").exists())
    };
    assert!(unfinished(&out).is_some(), "what was written lies aside");
    let run = run_once(&daemon, &[]);
    expect(&run, 0, &["base as GGUF written", "published generation 1"]);
    let left = unfinished(&out).unwrap();
    assert_eq!(left.file_name().unwrap(), "base-gguf");
    let undisturbed = daemon_with_model(&rich_model());
    expect(&run_once(&undisturbed, &[]), 0, &[]);
    assert_eq!(base(&daemon), base(&undisturbed));
    let bytes = [&daemon, &undisturbed].map(|of| fs::read(base_file(of)).unwrap());
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn a_disk_that_fails_leaves_nothing_behind() {
    let daemon = daemon_with_model(&rich_model());
    let shim = DiskShim::build();
    let failing = FailingCalls {
        call: "open",
        path: "/model.gguf",
        count: 999,
        errno: 28,
    };
    let options = [&["--once"], &ON_MODEL[..], &[EMITS]].concat();
    let run = daemon.run_failing(&options, &shim, failing);
    expect(&run, 1, &["model.gguf: create: "]);
    let left = fs::read_dir(daemon.path().join("qera-out")).unwrap();
    let left = left.map(|of| of.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.contains("unfinished")).count(), 0);
    expect(&run_once(&daemon, &[]), 0, &["base as GGUF written"]);
}

/// A start reads the whole file, not only its header.
#[test]
fn a_flipped_bit_ends_the_start() {
    let daemon = daemon_with_model(&rich_model());
    expect(&run_once(&daemon, &[]), 0, &[]);
    let mut bytes = fs::read(base_file(&daemon)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(base_file(&daemon), bytes).unwrap();
    let refused = run_once(&daemon, &[]);
    let said = "base-gguf: its model.gguf is damaged: it is not what was written";
    expect(&refused, 4, &[said, "remove the folder"]);
    fs::remove_dir_all(daemon.path().join("qera-out/base-gguf")).unwrap();
    expect(&run_once(&daemon, &[]), 0, &["published generation 2"]);
}
