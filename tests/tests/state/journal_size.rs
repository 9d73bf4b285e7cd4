//! What a state keeps of each shard, and that it is enough.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::three_layers::{
    daemon_without_shards, once_with, shard_path, write_rows_of_both_sites,
};

use super::BINARY;

const SHARDS: u16 = 60;

#[test]
fn a_long_run_takes_few_bytes_a_shard() {
    let daemon = daemon_without_shards(BINARY);
    let arrive = |number: u16| {
        let name = format!("shard-{number:03}");
        write_rows_of_both_sites(&daemon, &name, f32::from(number));
    };
    (0..SHARDS).for_each(arrive);
    let size = |name: &str| {
        let file = daemon.path().join("qera-out/state").join(name);
        fs::read(file).unwrap_or_default().len()
    };
    for more in 0..3 {
        expect(&daemon.run(&once_with(&[])), 0, &[]);
        arrive(SHARDS + more);
    }
    let shards = usize::from(SHARDS) + 1;
    assert!(
        (1..=64 * shards).contains(&size("shards")),
        "{}",
        size("shards")
    );
    assert!((1..400).contains(&size("journal")), "{}", size("journal"));

    // The same contents under other names are known, and what is there is not read again.
    fs::copy(
        shard_path(&daemon, "shard-007"),
        shard_path(&daemon, "copy"),
    )
    .unwrap();
    let ended = daemon.run(&once_with(&["--log-format", "json"]));
    expect(&ended, 0, &[]);
    assert_eq!(
        ended.log.matches("\"duplicate\"").count(),
        1,
        "{}",
        ended.log
    );
    let inputs = &daemon.manifest("qera-out")["inputs"];
    assert_eq!(inputs["shards"], u64::from(SHARDS) + 3, "{inputs}");

    // They may be consumed, by name, though the journal has no line of theirs.
    expect(&daemon.run(&once_with(&["--consume", "delete"])), 0, &[]);
    let left = fs::read_dir(daemon.watched()).unwrap().count();
    assert_eq!(left, 0);
}
