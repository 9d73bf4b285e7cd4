//! `verify` knows the folder that an adapter corrects.

use crate::BINARY;
use qera_tests::daemon::expect;
use qera_tests::packed_model::{Coding, ONCE, PLAIN, PackedModel, daemon_with_packed, weights};

#[test]
fn the_folder_is_known_and_another_is_told() {
    let model = PackedModel::compressed_tensors(&weights(), PLAIN);
    let daemon = daemon_with_packed(BINARY, &model);
    expect(&daemon.run(&ONCE), 0, &[]);
    let verify = ["verify", "--adapter", "qera-out/current"];
    let against = |base| daemon.run(&[&verify[..], &["--base", base]].concat());
    let own = daemon.run(&verify);
    assert!(
        own.code == 0 && own.output.contains("/packed"),
        "{}",
        own.output
    );
    let named = against("packed");
    assert!(
        named.code == 0 && named.output.contains("on packed"),
        "{}",
        named.output
    );

    let symmetric = Coding {
        symmetric: true,
        ..PLAIN
    };
    PackedModel::compressed_tensors(&weights(), symmetric).write(&daemon.path().join("other"));
    PackedModel::awq(&weights()).write(&daemon.path().join("awq"));
    for base in ["other", "awq"] {
        let other = against(base);
        assert!(
            other.code == 1 && other.output.contains("another folder"),
            "{}",
            other.output
        );
    }
    let gguf = against("model.gguf");
    assert!(
        gguf.code == 1 && gguf.output.contains("another file"),
        "{}",
        gguf.output
    );
    let full = against("checkpoint");
    assert!(
        full.code == 1 && full.output.contains("in full precision"),
        "{}",
        full.output
    );

    // Another model lies at its place now.
    PackedModel::awq(&weights()).write(&daemon.path().join("packed"));
    let changed = daemon.run(&verify);
    assert!(
        changed.code == 1 && changed.output.contains("another folder"),
        "{}",
        changed.output
    );
    std::fs::rename(daemon.path().join("packed"), daemon.path().join("gone")).unwrap();
    let gone = daemon.run(&verify);
    assert!(
        gone.code == 0 && gone.output.contains("is not there"),
        "{}",
        gone.output
    );
}
