//! What a shard's removal depends on is durable before it: contents and the names that lead there.

use std::path::Path;

use qera_tests::daemon::{expect, run_to_end};
use qera_tests::disk_shim::DiskShim;
use qera_tests::three_layers::{daemon_with_shards, once_with};

use super::BINARY;

#[test]
fn names_are_synced_before_a_shard_goes() {
    let shim = DiskShim::build();
    let daemon = daemon_with_shards(BINARY);
    let mut command = daemon.command(&once_with(&["--consume", "delete"]));
    shim.watch(&mut command);
    expect(&run_to_end(command), 0, &["4 shards folded"]);
    // The call, and the path from the test's folder on.
    let root = daemon.path().canonicalize().unwrap();
    let log: Vec<String> = shim.log();
    let log: Vec<(&str, &Path)> = log
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(call, path)| (call, Path::new(path)))
        .map(|(call, path)| (call, path.strip_prefix(&root).unwrap_or(path)))
        .collect();
    let unlinked = |&(call, path): &(&str, &Path)| {
        call == "unlink" && path.starts_with("activations/.consumed")
    };
    let before = log.iter().position(unlinked).unwrap();
    assert_eq!(log.iter().filter(|entry| unlinked(entry)).count(), 4);
    let log = &log[..before];
    for name in [
        "qera-out",
        "qera-out/state",
        "qera-out/state/snapshots",
        "qera-out/state/sites.json",
        "qera-out/state/journal",
        "qera-out/state/snapshots/000001",
        "activations/.consumed",
    ] {
        let path = Path::new(name);
        let made = log.iter().rposition(|entry| *entry == ("create", path));
        let made = made.unwrap_or_else(|| panic!("{name} is not made: {log:?}"));
        let parent = path.parent().unwrap();
        let synced = log[made..].contains(&("sync", parent));
        assert!(synced, "the name {name} is not durable: {:?}", &log[made..]);
    }
    // And what is in them.
    let unfinished = "qera-out/state/snapshots/.qera-unfinished-new/";
    for name in [
        "qera-out/state/journal",
        &format!("{unfinished}index.json"),
        &format!("{unfinished}00000.statistics.safetensors"),
        &format!("{unfinished}00001.statistics.safetensors"),
    ] {
        assert!(log.contains(&("sync", Path::new(name))), "{name}: {log:?}");
    }
}
