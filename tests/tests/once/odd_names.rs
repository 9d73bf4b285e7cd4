//! Names that are no text, or that would write to a terminal.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use qera_tests::daemon::expect;
use qera_tests::three_layers::{daemon_with_shards, once_with, shard_path};

use super::BINARY;

/// Such a shard could be folded but never consumed, as no journal can hold its name.
#[test]
fn a_shard_whose_name_is_no_text_is_set_aside_under_an_escaped_one() {
    let daemon = daemon_with_shards(BINARY);
    let odd = daemon
        .watched()
        .join(OsStr::from_bytes(b"odd-\xff\x1b.safetensors"));
    fs::rename(shard_path(&daemon, "shard-1"), &odd).unwrap();
    let run = daemon.run(&once_with(&["--consume", "delete"]));
    let said = [
        "shard odd-\\xff\\x1b.safetensors: its name is no UTF-8 text",
        "1 quarantined",
    ];
    expect(&run, 3, &said);
    assert_eq!(run.log.matches("no UTF-8").count(), 1, "{}", run.log);
    assert!(odd.exists());
    assert_eq!(daemon.adapter("qera-out").manifest["inputs"]["shards"], 3);
    fs::rename(&odd, shard_path(&daemon, "shard-1")).unwrap();
    let run = daemon.run(&once_with(&["--consume", "delete"]));
    expect(&run, 0, &["4 shards folded"]);
    assert!(!shard_path(&daemon, "shard-1").exists());
}

#[test]
fn a_state_that_is_the_output_folder_is_a_usage_error() {
    let daemon = daemon_with_shards(BINARY);
    for state in ["qera-out", "./qera-out/", "new/../qera-out"] {
        let run = daemon.run(&once_with(&["--state", state]));
        expect(&run, 2, &["--state and --out", "the same folder"]);
        let _ = fs::create_dir(daemon.path().join("qera-out"));
    }
}
