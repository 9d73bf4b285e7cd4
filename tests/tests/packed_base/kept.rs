//! A packed base is written once, whole or not at all, and stays.

use std::fs;
use std::os::unix::fs::MetadataExt;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::event;
use qera_tests::live::Live;
use qera_tests::output_folder::generations;

use crate::model::{daemon_with_block, run_both, run_once, write_rows};

const PACKED: [&str; 1] = ["--emit-base=compressed-tensors"];
const MODEL: &str = "qera-out/base-compressed-tensors/model.safetensors";

fn inode(daemon: &TestDaemon) -> u64 {
    fs::metadata(daemon.path().join(MODEL)).unwrap().ino()
}

#[test]
fn it_is_kept_and_refused_where_it_is_another() {
    let daemon = daemon_with_block();
    expect(&run_once(&daemon, &PACKED), 0, &["packed base written"]);
    let first = inode(&daemon);
    expect(&run_once(&daemon, &PACKED), 0, &["nothing new"]);
    // Without the option, too, the adapter belongs to this base.
    write_rows(&daemon, "b", 5.0);
    let run = run_once(&daemon, &[]);
    expect(&run, 0, &["published generation 2"]);
    assert!(!run.log.contains("base written"), "{}", run.log);
    assert_eq!(inode(&daemon), first);
    let adapter = daemon.adapter("qera-out");
    let path = adapter.config["base_model_name_or_path"].as_str().unwrap();
    assert!(path.ends_with("base-compressed-tensors"), "{path}");
    expect(
        &run_once(&daemon, &["--quantizer", "int4"]),
        4,
        &["corrects mxint4/32, this run uses int4/32/f16"],
    );
    // Another form joins it, and belongs to the same W~.
    expect(
        &run_both(&daemon, &[]),
        0,
        &["base written: ", "qera-out/base ("],
    );
    assert_eq!(inode(&daemon), first);

    let model = daemon.path().join(MODEL);
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() - 1]).unwrap();
    let said = ["base-compressed-tensors", "model.safetensors is damaged"];
    expect(&run_once(&daemon, &[]), 4, &said);
    fs::write(&model, &bytes).unwrap();
    let out = daemon.path().join("qera-out");
    let record = "qera_base.json";
    fs::copy(
        out.join("base").join(record),
        out.join("base-compressed-tensors").join(record),
    )
    .unwrap();
    expect(
        &run_once(&daemon, &[]),
        4,
        &["that of a base in another form"],
    );
}

/// Killed when it has just been written, and while it is.
#[test]
fn after_a_kill_it_is_there_whole() {
    let daemon = daemon_with_block();
    let out = daemon.path().join("qera-out");
    let options = "--watch activations --checkpoint checkpoint --rank 2 --idle-publish 0.2";
    let options: Vec<&str> = options.split(' ').chain(PACKED).collect();
    let mut live = Live::start(daemon.command(&options));
    live.wait_for(&event("packed-base-written").with("layers", 7));
    live.kill();
    let first = inode(&daemon);
    // A run that is killed in the middle of it leaves such a folder.
    let unfinished = out.join(".qera-unfinished-1");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("model.safetensors"), "half").unwrap();
    let run = run_once(&daemon, &PACKED);
    expect(&run, 0, &[]);
    assert!(!run.log.contains("packed base written"), "{}", run.log);
    assert_eq!(inode(&daemon), first);
    assert!(!unfinished.exists() && !generations(&out).is_empty());
    let verdict = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    assert_eq!(verdict.code, 0, "{}{}", verdict.output, verdict.log);
}

/// No engine loads a model without its configuration, and nothing else tells what it lacks.
#[test]
fn what_is_gone_from_a_base_is_written_again() {
    let daemon = daemon_with_block();
    let checkpoint = daemon.path().join("checkpoint");
    fs::create_dir(checkpoint.join("1_Pooling")).unwrap();
    fs::write(checkpoint.join("1_Pooling/config.json"), "pooling").unwrap();
    expect(&run_both(&daemon, &[]), 0, &[]);
    let out = daemon.path().join("qera-out");
    let folders = ["base-compressed-tensors", "base"].map(|name| out.join(name));
    let parts = ["config.json", "tokenizer.json", "1_Pooling/config.json"];
    let read_all = || -> Vec<Vec<u8>> {
        let paths = folders
            .iter()
            .flat_map(|of| parts.map(|part| of.join(part)));
        paths.map(|path| fs::read(path).unwrap()).collect()
    };
    let (first, model) = (read_all(), inode(&daemon));
    // A run with the options, and one without them.
    for options in [&["--emit-base=hf,compressed-tensors"][..], &[]] {
        for folder in &folders {
            for part in parts {
                fs::remove_file(folder.join(part)).unwrap();
            }
            fs::remove_dir(folder.join("1_Pooling")).unwrap();
        }
        let gone = "config.json: was gone from the base, and is written again";
        let run = run_once(&daemon, options);
        expect(&run, 0, &["nothing new", "tokenizer.json: was gone", gone]);
        assert_eq!(read_all(), first);
        assert_eq!(inode(&daemon), model);
        let run = run_once(&daemon, options);
        assert!(!run.log.contains("was gone"), "{}", run.log);
    }
    let left = fs::read_dir(&out).unwrap();
    let left = left.map(|of| of.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.contains("unfinished")).count(), 0);
}
