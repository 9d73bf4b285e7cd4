//! `solve` reads the state's W~; where there is none it makes its own, beside its adapter.

use std::fs;

use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::three_layers::{daemon_with_shards, once_with, write_rows_of_both_sites};

use super::{BINARY, PROJECTED, assert_same_bytes, kept, kept_in_state, once_rounded, record};

fn solve(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let basic = [
        "solve",
        "--state",
        "qera-out/state",
        "--checkpoint",
        "checkpoint",
        "--block-size",
        "4",
        "--rank",
        "2",
    ];
    daemon.run(&[&basic[..], &PROJECTED, more].concat())
}

#[test]
fn statistics_first_rounding_later() {
    let daemon = daemon_with_shards(BINARY);
    let gather = [
        "--once",
        "--watch",
        "activations",
        "--state",
        "qera-out/state",
    ];
    expect(&daemon.run(&gather), 0, &["statistics only"]);
    let first = solve(&daemon, &["--out", "solved"]);
    expect(
        &first,
        0,
        &["rounded by projected", "published generation 1"],
    );
    assert!(kept_in_state(&daemon).is_empty(), "the state is only read");
    let own = daemon.path().join("solved/rounded");
    let before = kept(&own);
    assert_eq!(before.len(), 3);
    let adapter = daemon.adapter("solved").bytes;

    // Another method would be for other weights; another shrinkage is for these.
    let second = solve(&daemon, &["--out", "solved", "--shrinkage", "0.5"]);
    expect(&second, 0, &["published generation 2"]);
    assert!(!second.log.contains("rounded by"), "{}", second.log);
    assert_eq!(kept(&own), before);
    assert!(daemon.adapter("solved").bytes != adapter);

    let again = solve(&daemon, &["--out", "again", "--round-again"]);
    expect(&again, 0, &["rounded by projected"]);
    // From the same statistics the same.
    assert_same_bytes(&kept(&daemon.path().join("again/rounded")), &before);
    assert!(daemon.adapter("again").bytes == adapter);

    // Of more statistics they would be others than the base that is there.
    write_rows_of_both_sites(&daemon, "later", 7.5);
    expect(&daemon.run(&gather), 0, &["statistics only"]);
    let (base, current) = ("solved/base", "solved/current");
    for gone in [&[][..], &[current], &[base]] {
        for path in gone {
            let path = daemon.path().join(path);
            fs::rename(&path, path.with_extension("aside")).unwrap();
        }
        let refused = solve(&daemon, &["--out", "solved", "--round-again"]);
        expect(&refused, 4, &["belong to a W~", "choose another --out"]);
        assert!(!refused.log.contains("rounded by"), "{}", refused.log);
        assert_eq!(kept(&own), before);
        for path in gone {
            let path = daemon.path().join(path);
            fs::rename(path.with_extension("aside"), path).unwrap();
        }
    }
    expect(&solve(&daemon, &["--out", "solved"]), 0, &[]);
    assert_eq!(kept(&own), before);
    // Nor does one that finds none make others beside them.
    fs::rename(&own, own.with_extension("aside")).unwrap();
    let refused = solve(&daemon, &["--out", "solved"]);
    expect(&refused, 4, &["belong to a W~", "choose another --out"]);
    assert!(kept(&own).is_empty());
    // What a killed one left half done is made again, whole.
    for path in [base, current] {
        let path = daemon.path().join(path);
        fs::rename(&path, path.with_extension("aside")).unwrap();
    }
    fs::rename(own.with_extension("aside"), &own).unwrap();
    expect(
        &solve(&daemon, &["--out", "solved", "--round-again"]),
        0,
        &[],
    );
    let after = kept(&own);
    assert!(
        after
            .values()
            .all(|file| record(file)["journal_position"] == 5)
    );
}

/// Neither waits for rows: both take what is there.
#[test]
fn how_many_rows_to_wait_for_is_refused_where_nothing_waits() {
    let daemon = daemon_with_shards(BINARY);
    let after = ["--round-after", "700"];
    let once = daemon.run(&once_rounded(&after));
    let said = "--round-after: does nothing with --once, which rounds from all rows";
    expect(&once, 2, &[said]);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let said = "--round-after: does nothing with solve, which rounds from all rows";
    expect(&solve(&daemon, &after), 2, &[said]);
}

#[test]
fn the_weights_of_the_state_are_taken() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_rounded(&[])), 0, &[]);
    let before = kept_in_state(&daemon);
    let taken = solve(&daemon, &["--out", "taken"]);
    expect(&taken, 0, &[]);
    assert!(!taken.log.contains("rounded by"), "{}", taken.log);
    assert!(daemon.adapter("taken").bytes == daemon.adapter("qera-out").bytes);
    assert!(kept(&daemon.path().join("taken/rounded")).is_empty());

    // Others are made where they are asked for, and the state's stay.
    let other = ["--out", "other", "--base-share", "0.5"];
    expect(
        &solve(&daemon, &other),
        4,
        &["--base-share 0.01", "0.5", "--round-again"],
    );
    let again = solve(&daemon, &[&other[..], &["--round-again"]].concat());
    expect(&again, 0, &["rounded by projected"]);
    expect(&solve(&daemon, &other), 0, &["published generation 2"]);
    assert_eq!(kept_in_state(&daemon), before);
    // Nearest needs none.
    let nearest = ["--rounding", "nearest", "--out", "nearest"];
    let run = daemon.run(
        &[
            &[
                "solve",
                "--state",
                "qera-out/state",
                "--checkpoint",
                "checkpoint",
            ],
            &nearest[..],
            &["--rank", "2", "--block-size", "4"],
        ]
        .concat(),
    );
    expect(&run, 0, &["published generation 1"]);
    expect(&daemon.run(&once_with(&["--out", "direct"])), 0, &[]);
    assert!(daemon.adapter("nearest").bytes == daemon.adapter("direct").bytes);
}
