//! GPTQ stores zero points as they are or one less, and its word for it is not always true.

use crate::BINARY;
use qera_tests::daemon::expect;
use qera_tests::gguf_model::LAYERS;
use qera_tests::packed_model::{ONCE, PLAIN, PackedModel, daemon_with_packed, weights};

#[test]
fn the_nearer_reading_is_taken_whatever_the_label_says() {
    let mut adapters = Vec::new();
    for (less, label, read) in [
        (1, "gptq", "stored-minus-one"),
        (0, "gptq_v2", "as-stored"),
        (0, "gptq", "as-stored"),
        (1, "gptq_v2", "stored-minus-one"),
    ] {
        let model = PackedModel::gptq(&weights(), PLAIN, less, label);
        let daemon = daemon_with_packed(BINARY, &model);
        let run = daemon.run(&ONCE);
        expect(&run, 0, &[&format!("(gptq, zero points {read})")]);
        let lies = (less == 1) != (label == "gptq");
        assert_eq!(
            run.log.contains("an engine that goes by it"),
            lies,
            "{}",
            run.log
        );
        let adapter = daemon.adapter("qera-out");
        for layer in &LAYERS {
            assert_eq!(adapter.layer(layer.module)["read"]["zero_points"], read);
        }
        adapters.push(adapter.bytes);
    }
    assert!(adapters.iter().all(|bytes| *bytes == adapters[0]));
}

#[test]
fn a_model_of_both_readings_is_told() {
    let mut model = PackedModel::gptq(&weights(), PLAIN, 1, "gptq");
    let other = PackedModel::gptq(&weights(), PLAIN, 0, "gptq");
    let name = format!("{}.qzeros", LAYERS[1].module);
    let zeros = other.tensors.iter().find(|tensor| tensor.name == name);
    *model.tensor("k_proj.qzeros") = zeros.unwrap().clone();
    let daemon = daemon_with_packed(BINARY, &model);
    let said = "zero points stored-minus-one in 2 layers, as-stored in 1 layers";
    expect(&daemon.run(&ONCE), 0, &[said, "an engine that goes by it"]);
}
