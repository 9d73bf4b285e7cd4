//! An imatrix beside a watched folder: it stands in for layers until rows feed them.

use std::fs;

use qera_tests::adapter::Adapter;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{event, published};
use qera_tests::live::Live;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{
    DOWN, K, LIVE_OPTIONS, Q, daemon_without_shards, once_with, rename_in, sine_values,
};
use serde_json::Value;

use super::{BINARY, ROWS, entries, write_imatrix};

/// A daemon's folder with the checkpoint and `imatrix.gguf`.
fn daemon_with_imatrix() -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    write_imatrix(&daemon, "imatrix.gguf", &entries());
    daemon
}

/// Rows of the input of q and k alone; that down is a linear layer is said, too.
fn write_rows_of_q(daemon: &TestDaemon, name: &str, rows: usize) {
    let tensors = [
        TensorToWrite::f32(Q, &[rows, 8], &sine_values(rows * 8, 0.5)),
        TensorToWrite::f32(DOWN, &[0, 12], &[]),
    ];
    rename_in(daemon, name, &tensors);
}

fn write_rows_of_down(daemon: &TestDaemon, name: &str, rows: usize) {
    let values = sine_values(rows * 12, 7.0);
    let tensor = TensorToWrite::f32(DOWN, &[rows, 12], &values);
    rename_in(daemon, name, &[tensor]);
}

fn statuses(adapter: &Adapter) -> [String; 3] {
    [Q, K, DOWN].map(|module| {
        let status = adapter.layer(module)["status"].as_str().unwrap();
        status.to_owned()
    })
}

/// The entry that `status` has for a layer.
fn status_of(daemon: &TestDaemon, module: &str) -> Value {
    let status = daemon.status();
    let mut layers = status["layers"].as_array().unwrap().iter();
    layers
        .find(|layer| layer["name"] == module)
        .unwrap()
        .clone()
}

#[test]
fn once_it_stands_in_for_what_no_row_fed_and_is_replaced() {
    let daemon = daemon_with_imatrix();
    write_rows_of_q(&daemon, "q", ROWS);
    let options = once_with(&["--imatrix", "imatrix.gguf"]);
    let run = daemon.run(&options);
    let said = [
        "model.layers.0.mlp.down_proj: imatrix: diagonal error ",
        "2 layers corrected, 1 by an imatrix, 0 starved",
    ];
    expect(&run, 0, &said);
    assert!(!run.log.contains("no row seen"), "{}", run.log);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(statuses(&adapter), ["solved", "solved", "imatrix"]);
    let stand_in = adapter.layer(DOWN);
    assert_eq!(
        (&stand_in["method"], &stand_in["rows"]),
        (&"approx".into(), &1200.into())
    );
    assert_eq!(adapter.layer(Q)["method"], "exact");
    assert!(stand_in["diagonal_error"]["with"].as_f64().unwrap() > 0.0);
    assert!(stand_in.get("error").is_none());
    let readme = fs::read_to_string(daemon.path().join("qera-out/current/README.md")).unwrap();
    let both = "3 of 3 layers corrected (2 by method `exact` from rows, 1 by method `approx` from an imatrix) for";
    for words in [
        both,
        "1 of the corrected layers",
        "relative to the squared output",
    ] {
        assert!(readme.contains(words), "'{words}' is not in:\n{readme}");
    }
    expect(
        &daemon.run(&["verify", "--adapter", "qera-out/current"]),
        0,
        &[],
    );
    let down = status_of(&daemon, DOWN);
    assert_eq!(
        (&down["status"], &down["rows"]),
        (&"imatrix".into(), &0.into())
    );
    assert!(down["error_without"].is_null());

    // Nothing is new with the same imatrix; another one is.
    expect(&daemon.run(&options), 0, &["nothing new"]);
    assert_eq!(status_of(&daemon, DOWN)["status"], "imatrix");
    let mut others = entries();
    for entry in &mut others {
        entry.sums[0] *= 3.0;
    }
    write_imatrix(&daemon, "other.gguf", &others);
    let run = daemon.run(&once_with(&["--imatrix", "other.gguf"]));
    expect(&run, 0, &["published generation 2", "1 by an imatrix"]);
    assert!(daemon.adapter("qera-out").factors(DOWN) != adapter.factors(DOWN));
    // The state is what it was: without one, the layer is starved again.
    let run = daemon.run(&once_with(&[]));
    expect(
        &run,
        0,
        &["published generation 3", "1 starved", "no row seen"],
    );

    write_rows_of_down(&daemon, "down", ROWS);
    let run = daemon.run(&options);
    expect(&run, 0, &["3 layers corrected, 0 starved"]);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(statuses(&adapter), ["solved", "solved", "solved"]);
    assert_eq!(adapter.layer(DOWN)["rows"], 300);
}

#[test]
fn solve_takes_it_for_layers_that_the_state_has_no_rows_of() {
    let daemon = daemon_with_imatrix();
    write_rows_of_q(&daemon, "q", ROWS);
    expect(&daemon.run(&once_with(&[])), 0, &["1 starved"]);
    let options = [
        &["solve", "--state", "qera-out/state", "--out", "again"],
        &LIVE_OPTIONS[2..],
        &["--imatrix", "imatrix.gguf"],
    ]
    .concat();
    expect(
        &daemon.run(&options),
        0,
        &["2 layers corrected, 1 by an imatrix"],
    );
    assert_eq!(
        statuses(&daemon.adapter("again")),
        ["solved", "solved", "imatrix"]
    );
}

#[test]
fn live_it_stands_in_until_the_first_solve_of_rows() {
    let daemon = daemon_with_imatrix();
    let more = ["--imatrix", "imatrix.gguf", "--idle-publish", "0.5"];
    let options = [&LIVE_OPTIONS[..], &more].concat();
    let mut live = Live::start(daemon.command(&options));
    live.wait_for(&event("watching"));
    write_rows_of_q(&daemon, "q", ROWS);
    live.wait_for(&event("imatrix").with("layer", DOWN).with("rank", 2));
    live.wait_for(&published(1).with("imatrix", 1));
    let adapter = daemon.adapter("qera-out");
    assert_eq!(statuses(&adapter), ["solved", "solved", "imatrix"]);
    assert_eq!(adapter.layer(DOWN)["rows"], 1200, "as the imatrix counts");
    write_rows_of_down(&daemon, "down", ROWS);
    live.wait_for(&published(2).with("solved", 3));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(statuses(&adapter), ["solved", "solved", "solved"]);
    // The layer was solved once, and reported once.
    let said = live.events.iter().filter(|of| of["event"] == "imatrix");
    assert_eq!(said.filter(|of| of["layer"] == DOWN).count(), 1);
}

#[test]
fn a_layer_that_it_stands_in_for_is_not_fed() {
    let daemon = daemon_with_imatrix();
    write_rows_of_q(&daemon, "q", ROWS);
    let more = [
        "--imatrix",
        "imatrix.gguf",
        "--idle-publish",
        "0.2",
        "--until-converged",
        "--require-all",
    ];
    let options = [&LIVE_OPTIONS[..], &more].concat();
    let mut live = Live::start(daemon.command(&options));
    live.wait_for(&published(1).with("imatrix", 1));
    live.wait_for(&event("waiting").with("starved", 1));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
}

#[test]
fn it_stays_while_rows_are_too_few_for_a_solve_point() {
    let daemon = daemon_with_imatrix();
    let more = ["--imatrix", "imatrix.gguf", "--idle-publish", "600"];
    let options = [&LIVE_OPTIONS[..], &more].concat();
    let mut live = Live::start(daemon.command(&options));
    live.wait_for(&event("watching"));
    let tensors = [
        TensorToWrite::f32(Q, &[ROWS, 8], &sine_values(ROWS * 8, 0.5)),
        TensorToWrite::f32(DOWN, &[5, 12], &sine_values(60, 7.0)),
    ];
    rename_in(&daemon, "few", &tensors);
    live.wait_for(&published(1).with("imatrix", 1));
    let adapter = daemon.adapter("qera-out");
    assert_eq!(statuses(&adapter), ["solved", "solved", "imatrix"]);
    // Nor at the end: 5 rows would make it worse.
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let adapter = daemon.adapter("qera-out");
    let down = adapter.layer(DOWN);
    assert_eq!(
        (&down["status"], &down["rows"]),
        (&"imatrix".into(), &1200.into())
    );
    let down = status_of(&daemon, DOWN);
    assert_eq!(
        (&down["status"], &down["rows"]),
        (&"imatrix".into(), &5.into())
    );

    // Nor in another run, nor by `solve`; without an imatrix they are all there is.
    let once = once_with(&[
        "--imatrix",
        "imatrix.gguf",
        "--out",
        "once",
        "--state",
        "once-state",
    ]);
    expect(
        &daemon.run(&once),
        0,
        &["2 layers corrected, 1 by an imatrix"],
    );
    let solve = [
        &["solve", "--state", "qera-out/state", "--out", "again"],
        &LIVE_OPTIONS[2..],
    ]
    .concat();
    let with = [&solve[..], &["--imatrix", "imatrix.gguf"]].concat();
    expect(
        &daemon.run(&with),
        0,
        &["2 layers corrected, 1 by an imatrix"],
    );
    expect(&daemon.run(&solve), 0, &["3 layers corrected, 0 starved"]);

    // With enough rows the layers are solved from these.
    write_rows_of_down(&daemon, "enough", 256);
    expect(&daemon.run(&once), 0, &["3 layers corrected, 0 starved"]);
    assert_eq!(daemon.adapter("once").layer(DOWN)["rows"], 261);
}
