//! What cannot be replayed is said, and ends nothing else.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{DOWN, K, Q, daemon_with_shards, once_with, write_checkpoint};

use crate::BINARY;
use crate::oracle::numbers;
use crate::replayed::replay;

#[test]
fn options_that_are_wrong_are_refused_by_name() {
    let daemon = daemon_with_shards(BINARY);
    let verify = ["verify", "--adapter", "adapter"];
    for (more, said) in [
        (
            &["--replay", "activations"][..],
            "--replay: --checkpoint PATH is needed",
        ),
        (&["--replay-rows", "5"], "--replay <DIR>"),
        (
            &[
                "--replay",
                "activations",
                "--checkpoint",
                "checkpoint",
                "--replay-rows",
                "0",
            ],
            "--replay-rows: must be at least 1",
        ),
        (
            &[
                "--replay",
                "activations",
                "--checkpoint",
                "checkpoint",
                "--include",
                "[",
            ],
            "--include",
        ),
    ] {
        let run = daemon.run(&[&verify[..], more].concat());
        assert!(
            run.code == 2 && run.log.contains(said),
            "{more:?}: {}",
            run.log
        );
    }
    let there = ["--replay", "gone", "--checkpoint", "checkpoint"];
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let verify = ["verify", "--adapter", "qera-out/current"];
    let run = daemon.run(&[&verify[..], &there].concat());
    // A problem among those that the rest of the check has found.
    let problem = |line: &str| line.contains("replay: ") && line.contains("gone");
    assert_eq!(run.code, 1, "{}", run.log);
    assert!(run.output.lines().any(problem), "{}", run.output);
}

#[test]
fn layers_that_the_checkpoint_has_not_are_named() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    // One layer of the model has gone, and one has another width.
    let path = daemon.path().join("checkpoint/model.safetensors");
    let tensor = |name: &str, shape: &[usize]| {
        let name = format!("{name}.weight");
        let mut values = numbers(&path, &name);
        values.resize(shape.iter().product(), 0.5);
        TensorToWrite::f32(&name, shape, &values)
    };
    let tensors = [tensor(Q, &[6, 8]), tensor(DOWN, &[7, 12])];
    fs::create_dir(daemon.path().join("other")).unwrap();
    write_safetensors(
        &daemon.path().join("other/model.safetensors"),
        &tensors,
        &[],
    );
    let replayed = replay(&daemon, "qera-out/current", &["--checkpoint", "other"]);
    replayed.assert_problems(&[
        &format!("replay: {K}: other has no '{K}.weight'"),
        &format!("replay: {DOWN}: its factors make [8, 12], the checkpoint's weight is [7, 12]"),
    ]);
    assert_eq!(replayed.layers().len(), 1);
    let notes = replayed.lines("notes");
    assert!(
        notes[0].contains("other is another file of weights"),
        "{notes:?}"
    );
}

/// The figures of a manifest are of its checkpoint.
#[test]
fn another_version_of_the_weights_is_told() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let q: Vec<f32> = (0..48).map(|i| (i as f32 * 0.3).cos()).collect();
    write_checkpoint(&daemon.path().join("other"), &q);
    let replayed = replay(&daemon, "qera-out/current", &["--checkpoint", "other"]);
    assert_eq!(replayed.layer(Q)["verdict"], "differs");
    assert_eq!(replayed.layer(K)["verdict"], "same");
    let problems = replayed.lines("problems");
    let power = format!("replay: {Q}: the output's power is ");
    assert!(
        problems.iter().any(|line| line.starts_with(&power)),
        "{problems:#?}"
    );
}

#[test]
fn without_an_adapter_or_a_base_nothing_is_replayed() {
    let daemon = daemon_with_shards(BINARY);
    let replayed = replay(&daemon, "gone", &["--base", "checkpoint"]);
    replayed.assert_problems(&[
        "gone: is no folder",
        "replay: there is no adapter whose factors can be read",
    ]);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_problems(&["replay: no base is known: --base names it"]);
    let replayed = replay(&daemon, "qera-out/current", &["--base", "nowhere"]);
    let problems = replayed.lines("problems");
    assert!(
        problems
            .iter()
            .any(|line| line.starts_with("replay: base: ")),
        "{problems:#?}"
    );
}
