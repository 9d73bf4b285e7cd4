//! Tens of thousands of shards that fail for one reason are not as many lines.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::three_layers::{daemon_with_shards, once_with, shard_path};

use super::BINARY;

const PARTIAL: usize = 25_000;

#[test]
fn one_reason_is_said_once_a_second_with_a_count_and_json_keeps_every_name() {
    let daemon = daemon_with_shards(BINARY);
    let whole = fs::read(shard_path(&daemon, "shard-0")).unwrap();
    // The header and a few rows: 25,000 whole shards would be gigabytes.
    let header = 8 + usize::from(u16::from_le_bytes([whole[0], whole[1]]));
    for number in 0..PARTIAL {
        let part = &whole[..header + 900 - number % 900];
        fs::write(shard_path(&daemon, &format!("part-{number:05}")), part).unwrap();
    }
    let run = daemon.run(&once_with(&[]));
    expect(&run, 3, &["4 shards folded, 25000 quarantined"]);
    let lines: Vec<_> = run
        .log
        .lines()
        .filter(|l| l.starts_with("quarantined: "))
        .collect();
    let more = |line: &&str| -> usize {
        let (_, more) = line.rsplit_once("; and ").unwrap_or_default();
        let number = more.strip_suffix(" more for the same reason");
        1 + number.map_or(0, |number| number.parse::<usize>().unwrap())
    };
    assert_eq!(lines.iter().map(more).sum::<usize>(), PARTIAL, "{lines:?}");
    assert!(lines.len() < 100, "{} lines", lines.len());
    assert!(
        lines[0].contains("part-00000.safetensors: truncated"),
        "{}",
        lines[0]
    );

    let run = daemon.run(&once_with(&["--log-format", "json"]));
    for number in [0, 7, PARTIAL / 2, PARTIAL - 1] {
        assert!(run.log.contains(&format!("part-{number:05}.safetensors")));
    }
    assert_eq!(run.log.matches("shard-quarantined").count(), PARTIAL);
}
