//! States that an older program left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use qera_tests::daemon::expect;
use qera_tests::output_folder::newest_snapshot;
use qera_tests::three_layers::{daemon_with_shards, once_with, write_rows_of_both_sites};

use super::BINARY;

/// Every file under a folder but its lock, with its bytes.
#[expect(clippy::unwrap_used, reason = "a step that fails fails the test")]
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else if !path.ends_with(".lock") {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// A state of version 1, as that program sealed it, is refused by name and left as it is.
#[test]
fn a_state_of_version_1_is_refused_and_left() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let state = daemon.path().join("qera-out/state");
    let path = state.join("sites.json");
    let now = fs::read_to_string(&path).unwrap();
    let record: serde_json::Value = serde_json::from_str(now.split('\t').next().unwrap()).unwrap();
    let sites = record["sites"].as_array().unwrap().iter();
    let sites = sites.map(|s| serde_json::json!([s["key"], s["name"], s["in_features"]]));
    let before = serde_json::json!({
        "version": 1,
        "mask_rule": record["mask_rule"],
        "keeps_r": true,
        "selected": record["selected"],
        "shares": record["shares"],
        "sites": sites.collect::<Vec<_>>(),
    })
    .to_string();
    let checksum = &blake3::hash(before.as_bytes()).to_hex()[..16];
    fs::write(&path, format!("{before}\t{checksum}")).unwrap();
    let left = files(&state);
    write_rows_of_both_sites(&daemon, "shard-4", 8.0);
    let said = [
        "sites.json",
        "has version 1, this program reads version 3",
        "choose another --state",
    ];
    expect(&daemon.run(&once_with(&[])), 4, &said);
    assert!(files(&state) == left);
    expect(
        &daemon.run(&once_with(&["--state", "another"])),
        0,
        &["5 shards folded"],
    );
}

/// So is one whose list of sites is gone, by its snapshot.
#[test]
fn a_snapshot_of_version_1_is_refused_and_left() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let state = daemon.path().join("qera-out/state");
    let path = newest_snapshot(&state).join("index.json");
    let now = fs::read_to_string(&path).unwrap();
    let mut record: serde_json::Value =
        serde_json::from_str(now.split('\t').next().unwrap()).unwrap();
    record["version"] = 1.into();
    let before = record.to_string();
    let checksum = &blake3::hash(before.as_bytes()).to_hex()[..16];
    fs::write(&path, format!("{before}\t{checksum}")).unwrap();
    fs::remove_file(state.join("sites.json")).unwrap();
    let left = files(&state);
    write_rows_of_both_sites(&daemon, "shard-4", 8.0);
    let said = [
        "index.json",
        "has version 1, this program reads versions 3 to 6",
    ];
    expect(&daemon.run(&once_with(&[])), 4, &said);
    assert!(files(&state) == left);
}
