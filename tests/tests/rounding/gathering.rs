//! Too few rows to round from: nothing is solved or published, and everyone who asks is told why.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::event::{event, folded, published};
use qera_tests::live::Live;
use qera_tests::output_folder::generations;
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, daemon_without_shards, live_with, write_rows_of_both_sites,
};

use super::{
    BINARY, PROJECTED, assert_same_bytes, kept, kept_in_state, once_rounded, record, rows_of,
    start_rounded,
};

#[test]
fn a_site_gathers_until_it_has_the_rows() {
    let daemon = daemon_without_shards(BINARY);
    let mut live = start_rounded(&daemon, &["--round-after", "700"]);
    for (index, name) in ["a", "b"].iter().enumerate() {
        write_rows_of_both_sites(&daemon, name, index as f32);
        live.wait_for(&folded(name));
    }
    let unrounded = event("unrounded").with("rows", 600);
    let said = live.wait_for(&unrounded.with("rounds_at", 700).with("layers", 3));
    assert!([Q, DOWN].iter().any(|site| said["site"] == *site), "{said}");
    assert_eq!(live.count(&event("gathering")), 2, "{}", live.log);
    assert!(!live.heard(&event("layer-solved")));

    let status = daemon.wait_until_idle(2);
    for layer in status["layers"].as_array().unwrap() {
        assert_eq!(layer["status"], "gathering", "{layer}");
        assert_eq!(
            (&layer["rows"], &layer["rounds_at"]),
            (&600.into(), &700.into())
        );
    }
    assert!(status["generation"].is_null());
    let table = daemon.run(&["status"]).output;
    let said = "3 layers gather rows before they are rounded; ";
    assert!(
        table.contains(said) && table.contains("has 600 of 700"),
        "{table}"
    );

    write_rows_of_both_sites(&daemon, "c", 2.0);
    live.wait_for(&published(3));
    assert_eq!(live.count(&event("rounded").with("journal_position", 3)), 3);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(live.count(&event("gathering")), 2);
    let status = daemon.status();
    for layer in status["layers"].as_array().unwrap() {
        assert!(
            layer["status"] == "solved" && layer["rounds_at"].is_null(),
            "{layer}"
        );
    }
}

/// What a run that only gathered leaves is a state to go on from.
#[test]
fn a_run_that_only_gathered_ends_well() {
    let daemon = daemon_with_shards(BINARY);
    let options = ["--round-after", "5000", "--after-convergence", "stop"];
    let mut live = start_rounded(&daemon, &options);
    live.wait_for(
        &event("unrounded")
            .with("rows", 1200)
            .with("rounds_at", 5000),
    );
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    // The last word says why there is nothing.
    assert!(!live.heard(&event("nothing-new")), "{}", live.log);
    assert!(live.count(&event("unrounded")) >= 2, "{}", live.log);
    let out = daemon.path().join("qera-out");
    assert!(generations(&out).is_empty() && !out.join("base").exists());
    assert!(kept_in_state(&daemon).is_empty());
    expect(
        &daemon.run(&once_rounded(&[])),
        0,
        &["rounded by projected"],
    );
    assert_eq!(kept_in_state(&daemon).len(), 3);
}

/// At the same place of the journal a live run makes the W~ that `--once` makes.
#[test]
fn live_and_once_round_alike_at_the_same_position() {
    let live_one = daemon_without_shards(BINARY);
    let mut live = start_rounded(&live_one, &["--round-after", "900"]);
    for (index, name) in ["a", "b", "c", "d"].iter().enumerate() {
        write_rows_of_both_sites(&live_one, name, index as f32);
        live.wait_for(&folded(name));
    }
    live.wait_for(&published(4));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let at_the_point = kept_in_state(&live_one);

    let once = daemon_without_shards(BINARY);
    for (index, name) in ["a", "b", "c"].iter().enumerate() {
        write_rows_of_both_sites(&once, name, index as f32);
    }
    expect(&once.run(&once_rounded(&[])), 0, &[]);
    assert_eq!(record(&at_the_point[K])["journal_position"], 3);
    assert_same_bytes(&at_the_point, &kept_in_state(&once));
    // And from there on the same adapter.
    write_rows_of_both_sites(&once, "d", 3.0);
    expect(&once.run(&once_rounded(&[])), 0, &[]);
    assert!(live_one.adapter("qera-out").bytes == once.adapter("qera-out").bytes);
}

/// An expert that is hardly ever asked does not keep all others back.
#[test]
fn a_site_with_few_rows_is_rounded_to_nearest_when_others_are_rounded() {
    let daemon = daemon_without_shards(BINARY);
    rows_of(&daemon, "few", DOWN, [50, 12], 0.1);
    let mut live = start_rounded(&daemon, &["--round-after", "800"]);
    // Alone it is waited for.
    live.wait_for(&event("unrounded").with("rows", 50).with("site", DOWN));
    rows_of(&daemon, "many", Q, [900, 8], 0.2);
    live.wait_for(&published(2));
    live.wait_for(&event("published").with("waiting", 0));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let files = kept_in_state(&daemon);
    assert_eq!(record(&files[DOWN])["rounding"], "nearest");
    assert_eq!(record(&files[Q])["rounding"], "projected");
    assert_eq!(daemon.adapter("qera-out").layer(DOWN)["status"], "solved");
    assert!(kept(&daemon.path().join("qera-out/rounded")).is_empty());
    assert!(fs::exists(daemon.path().join("qera-out/base")).unwrap());
}

/// Before the folder is drained nobody can know that no more rows come: how soon the first site is
/// solved must not decide which W~ the second one gets.
#[test]
fn a_site_whose_rows_come_late_is_not_given_up_before_a_drain() {
    let files = ["1", "2"].map(|threads| {
        let daemon = daemon_without_shards(BINARY);
        let busy = ["--idle-publish", "600", "--round-after", "800"];
        let options = [&PROJECTED[..], &busy, &["--threads", threads]].concat();
        let mut live = Live::start(daemon.command(&live_with(&options)));
        live.wait_for(&event("watching"));
        rows_of(&daemon, "few", DOWN, [50, 12], 0.1);
        live.wait_for(&folded("few"));
        rows_of(&daemon, "many", Q, [900, 8], 0.2);
        live.wait_for(&event("layer-solved").with("layer", K));
        live.wait_for(&event("layer-solved").with("layer", Q));
        rows_of(&daemon, "late", DOWN, [900, 12], 0.4);
        live.wait_for(&event("rounded").with("layer", DOWN));
        live.wait_for(&published(3));
        assert_eq!(live.count(&event("published")), 1, "{}", live.log);
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        kept_in_state(&daemon)
    });
    let late = record(&files[0][DOWN]);
    assert_eq!(late["rounding"], "projected", "{late}");
    assert_eq!(late["journal_position"], 3);
    assert_same_bytes(&files[0], &files[1]);
}
