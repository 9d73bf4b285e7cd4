//! A state that was gathered without a checkpoint, and is then given one that has other names for
//! its inputs, or knows that some of them are one.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;

use super::BINARY;

const GATHER: [&str; 3] = ["--once", "--watch", "activations"];
const SOLVE: [&str; 9] = [
    "solve",
    "--checkpoint",
    "checkpoint",
    "--state",
    "qera-out/state",
    "--rank",
    "2",
    "--block-size",
    "4",
];

/// A checkpoint of two layers [4, 8], and a shard with other rows of each.
#[expect(clippy::unwrap_used, reason = "a step that fails fails the test")]
fn daemon(names: [&str; 2], config: &str) -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let folder = daemon.path().join("checkpoint");
    fs::create_dir(&folder).unwrap();
    let weight = |name: &str, phase| {
        TensorToWrite::f32(&format!("{name}.weight"), &[4, 8], &sine_values(32, phase))
    };
    let weights = [weight(names[0], 0.0), weight(names[1], 1.0)];
    write_safetensors(&folder.join("model.safetensors"), &weights, &[]);
    fs::write(folder.join("config.json"), config).unwrap();
    let rows = |name: &str, phase| TensorToWrite::f32(name, &[300, 8], &sine_values(2400, phase));
    let shard = [rows(names[0], 3.0), rows(names[1], 5.0)];
    let class = [Metadata::new("qera.class", "Recorded")];
    write_safetensors(&daemon.watched().join("s.safetensors"), &shard, &class);
    daemon
}

/// The error without correction of each layer.
fn errors(daemon: &TestDaemon, out: &str, names: [&str; 2]) -> [String; 2] {
    let adapter = daemon.adapter(out);
    names.map(|name| adapter.layer(name)["error"]["without"].to_string())
}

/// Names that a map exchanges: each layer has the rows that were recorded under its own.
#[test]
fn exchanged_names_exchange_the_rows() {
    let names = ["a", "b"];
    let (gathered, at_once) = (daemon(names, "{}"), daemon(names, "{}"));
    expect(&gathered.run(&GATHER), 0, &[]);
    let exchange = ["--map", "a=b", "--map", "b=a"];
    let solve = [&SOLVE[..], &exchange, &["--out", "s"]].concat();
    expect(&gathered.run(&solve), 0, &["2 layers corrected"]);
    let options = [
        "--checkpoint",
        "checkpoint",
        "--rank",
        "2",
        "--block-size",
        "4",
    ];
    let run = [&GATHER[..], &options, &exchange].concat();
    expect(&at_once.run(&run), 0, &["2 layers corrected"]);
    let expected = errors(&at_once, "qera-out", names);
    assert_eq!(errors(&gathered, "s", names), expected);
    // The state goes on under the checkpoint's names, and then they are not exchanged again.
    let went_on = gathered.run(&run);
    expect(&went_on, 0, &["2 layers corrected"]);
    assert!(
        !went_on.log.contains("was not gathered before"),
        "{}",
        went_on.log
    );
    assert_eq!(errors(&gathered, "qera-out", names), expected);
    let again = [&SOLVE[..], &["--out", "t"]].concat();
    expect(&gathered.run(&again), 0, &["2 layers corrected"]);
    assert_eq!(errors(&gathered, "t", names), expected);
}

/// What was recorded apart stays apart, though a listed architecture joins it: each layer has its
/// own rows.
#[test]
fn what_was_gathered_apart_stays_apart() {
    let path = "model.layers.0.self_attn";
    let [q, k] = ["q_proj", "k_proj"].map(|leaf| format!("{path}.{leaf}"));
    let names = [q.as_str(), k.as_str()];
    let gathered = daemon(names, r#"{"model_type":"llama"}"#);
    expect(&gathered.run(&GATHER), 0, &[]);
    let solve = [&SOLVE[..], &["--out", "s"]].concat();
    expect(
        &gathered.run(&solve),
        0,
        &["2 layers on 2 sites", "2 layers corrected"],
    );
    let apart = daemon(names, "{}");
    expect(&apart.run(&GATHER), 0, &[]);
    expect(&apart.run(&solve), 0, &["2 layers corrected"]);
    assert_eq!(errors(&gathered, "s", names), errors(&apart, "s", names));
}

/// Names that fit in two ways, or of a class that nobody knows, are asked about here as well.
#[test]
fn names_that_are_not_known_are_asked_for() {
    let gathered = daemon(["left.a", "right.a"], r#"{"model_type":"own"}"#);
    let rows = TensorToWrite::f32("a", &[300, 8], &sine_values(2400, 3.0));
    let path = gathered.watched().join("s.safetensors");
    write_safetensors(&path, &[rows], &[]);
    expect(&gathered.run(&GATHER), 0, &[]);
    expect(
        &gathered.run(&SOLVE),
        4,
        &["--map '=left' or --map '=right'"],
    );
    let mapped = [&SOLVE[..], &["--map", "=left"]].concat();
    expect(
        &gathered.run(&mapped),
        4,
        &["which class serves the model", "qera.class"],
    );
}
