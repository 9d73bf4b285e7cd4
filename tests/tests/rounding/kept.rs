//! What is kept of W~, and that it stays what it is.

use qera_tests::daemon::expect;
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, daemon_without_shards, write_rows_of_both_sites,
};

use super::{BINARY, kept_in_state, once_rounded, record, rows_of};

/// More rows make another adapter and no other W~.
#[test]
fn a_later_run_on_the_state_corrects_the_same_weights() {
    let daemon = daemon_with_shards(BINARY);
    let first = daemon.run(&once_rounded(&[]));
    expect(&first, 0, &[]);
    for layer in [Q, K, DOWN] {
        let said = format!("{layer}: rounded by projected from ");
        assert_eq!(first.log.matches(&said).count(), 1, "{}", first.log);
    }
    let before = kept_in_state(&daemon);
    let layers: Vec<&str> = before.keys().map(String::as_str).collect();
    assert_eq!(layers, [DOWN, K, Q]);
    for file in before.values() {
        let record = record(file);
        assert_eq!(record["rounding"], "projected", "{record}");
        assert_eq!(record["rank"], 2);
        assert_eq!(record["base_share"], 0.01);
        assert_eq!(record["grid"], "mxint4, block_size 4");
        assert_eq!(record["journal_position"], 4);
        let rows = record["rows"].as_u64().unwrap();
        assert!((1..=1200).contains(&rows), "{record}");
        for error in ["error_alone", "error_nearest", "error_with"] {
            let error = record["measured"][error].as_f64().unwrap();
            assert!(error > 0.0 && error < 1.0, "{record}");
        }
    }
    let corrected = daemon.adapter("qera-out").bytes;

    write_rows_of_both_sites(&daemon, "later", 7.5);
    let second = daemon.run(&once_rounded(&[]));
    expect(&second, 0, &["5 shards folded"]);
    assert!(!second.log.contains("rounded"), "{}", second.log);
    assert_eq!(kept_in_state(&daemon), before);
    assert!(daemon.adapter("qera-out").bytes != corrected);
}

#[test]
fn threads_change_no_byte() {
    let daemon = daemon_with_shards(BINARY);
    for threads in ["1", "2"] {
        let out = format!("threads-{threads}");
        let run = daemon.run(&once_rounded(&["--threads", threads, "--out", &out]));
        expect(&run, 0, &[]);
    }
    let of = |threads: &str| {
        let state = format!("threads-{threads}/state/rounded");
        super::kept(&daemon.path().join(state))
    };
    assert_eq!(of("1").len(), 3);
    super::assert_same_bytes(&of("1"), &of("2"));
    let adapter = |threads: &str| daemon.adapter(&format!("threads-{threads}")).bytes;
    assert!(adapter("1") == adapter("2"));
}

/// A base is W~ of every layer: one that had no rows is the nearest of its W, for good.
#[test]
fn a_layer_without_rows_is_rounded_to_nearest_and_stays_so() {
    let daemon = daemon_without_shards(BINARY);
    for (shard, phase) in [("a", 0.5), ("b", 1.5), ("c", 2.5)] {
        rows_of(&daemon, shard, Q, [300, 8], phase);
    }
    let run = daemon.run(&once_rounded(&[]));
    expect(&run, 0, &["base: 1 layers had no rows, or too few"]);
    let before = kept_in_state(&daemon);
    let starved = record(&before[DOWN]);
    assert_eq!(starved["rounding"], "nearest");
    assert_eq!(starved["rows"], 0);
    assert!(starved["measured"].is_null(), "{starved}");
    assert_eq!(record(&before[Q])["rounding"], "projected");

    rows_of(&daemon, "d", DOWN, [300, 12], 1.5);
    let run = daemon.run(&once_rounded(&[]));
    expect(&run, 0, &["4 shards folded"]);
    assert!(!run.log.contains("rounded by"), "{}", run.log);
    assert_eq!(kept_in_state(&daemon), before);
    assert_eq!(daemon.adapter("qera-out").layer(DOWN)["status"], "solved");
}
