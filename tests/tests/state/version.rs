//! States that an older program left.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::three_layers::{daemon_with_shards, once_with, write_rows_of_both_sites};

use super::BINARY;

/// A state of version 1, as that program sealed it, is refused by name and left as it is.
#[test]
fn a_state_of_version_1_is_refused_and_left() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let path = daemon.path().join("qera-out/state/sites.json");
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
    let sealed = format!("{before}\t{checksum}");
    fs::write(&path, &sealed).unwrap();
    write_rows_of_both_sites(&daemon, "shard-4", 8.0);
    let said = [
        "sites.json",
        "has version 1, this program reads version 2",
        "choose another --state",
    ];
    expect(&daemon.run(&once_with(&[])), 4, &said);
    assert_eq!(fs::read_to_string(&path).unwrap(), sealed);
    expect(
        &daemon.run(&once_with(&["--state", "another"])),
        0,
        &["5 shards folded"],
    );
}
