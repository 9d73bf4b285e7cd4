//! A text that changes: closed sites are opened again, also when the daemon is killed on the way.

use qera_tests::adapter::{Adapter, output_error};
use qera_tests::daemon::TestDaemon;
use qera_tests::event::{event, folded};
use qera_tests::live::Live;
use qera_tests::quantization::quantization_error;
use qera_tests::three_layers::{DOWN, K, Q, sine_values};
use serde_json::Value;

use super::two_texts::{SHARD_ROWS, Text, daemon_with_first_text, rows, write_shards_of};
use super::{assert_same, live_options, number, run, start, with_both_modes};

/// The mean over the layers of an adapter's error on new rows of the second text, relative to no
/// correction.
fn error_on_the_second_text(adapter: &Adapter) -> f64 {
    let mut sum = 0.0;
    for (module, m, weight) in [
        (Q, 8, sine_values(48, 0.0)),
        (K, 8, sine_values(32, 1.0)),
        (DOWN, 12, sine_values(96, 2.0)),
    ] {
        let error = quantization_error(&weight, m, 4, 4);
        let rows = rows(4096, m, 77_777, Text::Second);
        let with = output_error(&rows, &error, m, Some(&adapter.factors(module)));
        sum += with / output_error(&rows, &error, m, None);
    }
    sum / 3.0
}

/// Whether a site said that it drifted, by one of these layers: the error on new rows rose.
fn has_drifted(live: &Live, layers: &[&str]) -> bool {
    let reopened = event("reopened");
    let rose = |said: &Value| {
        let error = |which: usize| said["error"][which].as_f64();
        let is_of_site = layers.iter().any(|layer| said["layer"] == *layer);
        reopened.is(said) && is_of_site && error(0).is_some() && error(1) > error(0)
    };
    live.events.iter().any(rose)
}

/// A long stream of one text is never taken for another; when the text changes, the site says so,
/// folds again and follows.
#[test]
fn a_drift_opens_the_site_again() {
    with_both_modes(|mode| {
        let options = ["--tolerance", "0.05", "--after-convergence", mode];
        let daemon = daemon_with_first_text(80);
        let live = run(&daemon, 80, &options);
        assert!(!live.heard(&event("reopened")), "{}", live.log);
        let frozen = daemon.adapter("qera-out");
        for layer in frozen.layers() {
            assert_eq!(layer["folding"], "closed", "{layer}");
            assert!(number(layer, "rows") < number(layer, "rows_skipped"));
        }

        write_shards_of(Text::Second, &daemon, 80..140);
        let live = run(&daemon, 140, &options);
        for site in [&[Q, K][..], &[DOWN]] {
            assert!(has_drifted(&live, site), "{site:?}:\n{}", live.log);
        }
        let status = daemon.run(&["status"]).output;
        let followed = daemon.adapter("qera-out");
        for (layer, before) in followed.layers().iter().zip(frozen.layers()) {
            let rows = number(layer, "rows");
            assert_eq!(rows + number(layer, "rows_skipped"), 140 * SHARD_ROWS);
            assert!(rows > number(before, "rows") + 20 * SHARD_ROWS, "{layer}");
            let shown = layer["folding"].as_str().unwrap();
            assert!(status.contains(shown), "{shown}:\n{status}");
        }
        // A run that stayed closed would have ended with what there was when it was closed.
        let stayed = error_on_the_second_text(&frozen);
        let ended = error_on_the_second_text(&followed);
        println!("{mode}: {stayed:.3} -> {ended:.3}");
        assert!(ended < 0.9 * stayed, "{mode}: {ended} against {stayed}");
    });
}

/// Undisturbed, from the first text to the second; what people read of it names both.
fn calm_run(options: &[&str]) -> TestDaemon {
    let daemon = daemon_with_first_text(40);
    write_shards_of(Text::Second, &daemon, 40..70);
    let mut live = Live::start_in_text(daemon.command(&live_options(options)));
    daemon.wait_until_idle(70);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let says = |name: &str, phrases: &[&str]| {
        let mut lines = live.log.lines().filter(|line| line.starts_with(name));
        lines.any(|line| phrases.iter().all(|phrase| line.contains(phrase)))
    };
    for name in ["model.layers.0.self_attn", DOWN] {
        assert!(says(name, &["closed at", "from here on"]), "{}", live.log);
    }
    let drift = [
        "drift at",
        "error on new rows rose from x",
        "site re-opened",
    ];
    assert!(says("model.layers.0", &drift), "{}", live.log);
    daemon
}

/// Killed while sites are closed, and while a drift is under way, it ends as if nothing had
/// happened.
#[test]
fn killed_while_closed_it_ends_the_same() {
    with_both_modes(|mode| {
        let options = ["--tolerance", "0.05", "--after-convergence", mode];
        let calm = calm_run(&options);

        let daemon = daemon_with_first_text(30);
        let mut live = start(&daemon, &options);
        live.wait_for(&event("closed"));
        live.kill();

        let mut live = start(&daemon, &options);
        daemon.wait_until_idle(30);
        write_shards_of(Text::First, &daemon, 30..40);
        live.wait_for(&folded("034"));
        live.kill();

        // Closed in the snapshot: what came after it is folded again, or left out again.
        let mut live = start(&daemon, &[&options[..], &["--threads", "1"]].concat());
        live.wait_for(&event("restored").at_least("again", 1));
        daemon.wait_until_idle(40);
        write_shards_of(Text::Second, &daemon, 40..70);
        live.wait_for(&event("reopened"));
        live.kill();

        run(&daemon, 70, &options);
        assert_same(&daemon, &calm);
    });
}
