//! State and output folder belong to one file.

use crate::BINARY;
use qera_tests::daemon::expect;
use qera_tests::event::event;
use qera_tests::gguf_model::{
    LAYERS, ONCE, daemon_with_gguf, empty_model, quantized_model, write_shard,
};
use qera_tests::live::Live;

/// The quantized model with one number that is another.
fn write_another(daemon: &qera_tests::daemon::TestDaemon) {
    let model = LAYERS.iter().fold(empty_model(), |model, layer| {
        let mut weight = layer.weight();
        weight[3] += 0.5;
        model.tensor(layer.coarse(&layer.in_gguf_order(&weight)))
    });
    model.write(&daemon.path().join("another.gguf"));
}

fn with_another<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let options = ONCE.iter().map(|word| match *word {
        "model.gguf" => "another.gguf",
        word => word,
    });
    options.chain(more.iter().copied()).collect()
}

#[test]
fn another_file_is_refused_and_a_new_beginning_is_not() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&daemon.run(&ONCE), 0, &[]);
    write_another(&daemon);
    write_shard(&daemon, 2);
    let run = daemon.run(&with_another(&[]));
    expect(&run, 4, &["another --quantized file", "blake3:"]);
    // A folder of its own, and the same state: its evidence is of the other file.
    let run = daemon.run(&with_another(&[
        "--out",
        "new",
        "--state",
        "qera-out/state",
    ]));
    expect(&run, 4, &["qera-out/state", "another --quantized file"]);
    // The rows that were gathered belong to no file.
    let solve = with_another(&["--out", "solved", "--state", "qera-out/state"]);
    let solve = [&["solve"], &solve[3..]].concat();
    expect(&daemon.run(&solve), 0, &[]);
    expect(&daemon.run(&with_another(&["--new-checkpoint"])), 0, &[]);
    let found = daemon.adapter("qera-out").manifest["inputs"]["shards"].clone();
    assert_eq!(found, 3);
}

#[test]
fn a_run_that_makes_w_is_another_run() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&daemon.run(&ONCE), 0, &[]);
    let own = [&ONCE[..5], &ONCE[7..]].concat();
    expect(&daemon.run(&own), 4, &["corrects gguf", "mxint4/32"]);
    // In between, a run on the state alone: the state does not forget its file.
    let between = ["--out", "own", "--state", "qera-out/state"];
    expect(&daemon.run(&[&own[..], &between].concat()), 0, &[]);
    write_another(&daemon);
    let run = daemon.run(&with_another(&[
        "--out",
        "new",
        "--state",
        "qera-out/state",
    ]));
    expect(&run, 4, &["another --quantized file"]);
}

/// What is served now is not what was read.
#[test]
fn nothing_is_published_for_a_file_that_was_replaced() {
    let daemon = daemon_with_gguf(BINARY);
    let mut live = Live::start(daemon.command(&ONCE[1..]));
    live.wait_for(&event("published"));
    daemon.wait_until_idle(2);
    quantized_model().write(&daemon.path().join("other.gguf"));
    let file = |name: &str| daemon.path().join(name);
    std::fs::rename(file("other.gguf"), file("model.gguf")).unwrap();
    let before = std::fs::read_link(file("qera-out/current")).unwrap();
    write_shard(&daemon, 2);
    let rejected = live.wait_for(&event("rejected"));
    assert!(rejected.to_string().contains("model.gguf"), "{rejected}");
    assert_eq!(
        std::fs::read_link(file("qera-out/current")).unwrap(),
        before
    );
    live.send("KILL");
}
