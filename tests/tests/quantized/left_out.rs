//! A layer that the file lacks, or stores in a type that is not read, is passed over by name; the
//! others are corrected.

use crate::BINARY;
use qera_tests::daemon::expect;
use qera_tests::gguf_file::GgufTensorToWrite;
use qera_tests::gguf_model::{LAYERS, ONCE, daemon_with_gguf, empty_model};

#[test]
fn what_the_file_has_not_is_passed_over() {
    let daemon = daemon_with_gguf(BINARY);
    let [q, k, down] = LAYERS;
    let of = |layer: &qera_tests::gguf_model::GgufTestLayer| {
        layer.coarse(&layer.in_gguf_order(&layer.weight()))
    };
    // A type of a fork, whose size nobody knows.
    let forks = GgufTensorToWrite {
        type_number: 138,
        ..of(&down)
    };
    let model = empty_model().tensor(of(&q)).tensor(forks);
    model.write(&daemon.path().join("model.gguf"));
    expect(&daemon.run(&ONCE), 0, &["138", "k_proj"]);
    let adapter = daemon.adapter("qera-out");
    let corrected: Vec<_> = adapter.layers().iter().map(|l| l["name"].clone()).collect();
    assert_eq!(corrected, [q.module]);
    let passed_over = adapter.manifest["passed_over"].as_array().unwrap();
    let why = |module: &str| {
        let name = format!("{module}.weight");
        let found = passed_over.iter().find(|of| of["tensors"] == name).unwrap();
        found["why"].as_str().unwrap().to_owned()
    };
    assert!(
        why(k.module).contains("has no tensor of a block for it"),
        "{passed_over:?}"
    );
    assert!(why(down.module).contains("type 138"), "{passed_over:?}");
}
