//! `verify` knows the file that an adapter corrects.

use crate::BINARY;
use qera_tests::daemon::expect;
use qera_tests::gguf_file::GgufToWrite;
use qera_tests::gguf_model::{ONCE, daemon_with_gguf, full_model, quantized_model};

#[test]
fn the_file_is_known_and_another_is_told() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&daemon.run(&ONCE), 0, &[]);
    let verify = ["verify", "--adapter", "qera-out/current"];
    let against = |base| daemon.run(&[&verify[..], &["--base", base]].concat());

    let own = daemon.run(&verify);
    assert_eq!(own.code, 0, "{}", own.output);
    let named = against("model.gguf");
    assert_eq!(named.code, 0, "{}", named.output);
    assert!(named.output.contains("on model.gguf"), "{}", named.output);
    let other = against("full.gguf");
    assert!(
        other.code == 1 && other.output.contains("another file"),
        "{}",
        other.output
    );
    let full = against("checkpoint");
    assert!(
        full.code == 1 && full.output.contains("in full precision"),
        "{}",
        full.output
    );
    // The same tensors, in another order of rows.
    let turned = quantized_model()
        .tensors
        .into_iter()
        .fold(GgufToWrite::model("llama", 4, 1), GgufToWrite::tensor);
    turned.write(&daemon.path().join("turned.gguf"));
    let turned = against("turned.gguf");
    assert!(
        turned.code == 1 && turned.output.contains("another file"),
        "{}",
        turned.output
    );

    // Another file lies at its place now.
    full_model().write(&daemon.path().join("model.gguf"));
    let changed = daemon.run(&verify);
    assert!(
        changed.code == 1 && changed.output.contains("another file"),
        "{}",
        changed.output
    );
    std::fs::remove_file(daemon.path().join("model.gguf")).unwrap();
    let gone = daemon.run(&verify);
    assert!(
        gone.code == 0 && gone.output.contains("is not there"),
        "{}",
        gone.output
    );

    quantized_model().write(&daemon.path().join("model.gguf"));
    let own = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
    ];
    expect(&daemon.run(&[&own[..], &["--out", "own"]].concat()), 0, &[]);
    let run = daemon.run(&["verify", "--adapter", "own/current", "--base", "model.gguf"]);
    assert!(
        run.code == 1 && run.output.contains("mxint4/32"),
        "{}",
        run.output
    );
}
