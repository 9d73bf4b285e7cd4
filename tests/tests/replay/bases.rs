//! W~ from whatever the base is: a GGUF, a folder that others packed, Conv1D's numbers; and W from
//! a GGUF.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::gguf_file::coarse_values;
use qera_tests::gguf_model::{self, LAYERS, daemon_with_gguf};
use qera_tests::packed_model::{self, Coding, PLAIN, PackedModel, daemon_with_packed, weights};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{rename_in, sine_values};

use crate::BINARY;
use crate::oracle::{WeightedRows, numbers, peft_factors};
use crate::replayed::{Replayed, replay};

/// Every layer of the small Llama, whose W~ are these.
fn assert_replayed(daemon: &TestDaemon, replayed: &Replayed, quantized: &[Vec<f32>]) {
    replayed.assert_holds();
    assert_eq!(replayed.layers().len(), LAYERS.len());
    for (layer, quantized) in LAYERS.iter().zip(quantized) {
        let rows = [layer.rows(0.0), layer.rows(1.0)].concat();
        let rows = WeightedRows::plain(rows, layer.in_features);
        let adapter = daemon.path().join("qera-out/current");
        let factors = peft_factors(&adapter, layer.module, 1.0);
        let expected = rows.expected(&layer.weight(), quantized, &factors);
        replayed.assert_figures(layer.module, &expected);
        assert_eq!(replayed.layer(layer.module)["verdict"], "same");
    }
}

#[test]
fn a_gguf_is_decoded_as_the_engine_reads_it() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&daemon.run(&gguf_model::ONCE), 0, &[]);
    let quantized = LAYERS.map(|layer| coarse_values(&layer.weight()));
    // The base that the adapter names, and W in either form.
    let replayed = replay(&daemon, "qera-out/current", &[]);
    assert_replayed(&daemon, &replayed, &quantized);
    assert!(replayed.lines("notes").is_empty());
    let of_gguf = ["--checkpoint", "full.gguf"];
    let replayed = replay(&daemon, "qera-out/current", &of_gguf);
    assert_replayed(&daemon, &replayed, &quantized);
    let [note] = &replayed.lines("notes")[..] else {
        panic!("{}", replayed.said);
    };
    assert!(
        note.contains("full.gguf is another file of weights"),
        "{note}"
    );
}

#[test]
fn weights_that_others_packed_are_decoded() {
    let symmetric = Coding {
        symmetric: true,
        ..PLAIN
    };
    for model in [
        PackedModel::compressed_tensors(&weights(), symmetric),
        PackedModel::awq(&weights()),
        // The zero points are one less than the configuration says.
        PackedModel::gptq(&weights(), PLAIN, 1, "gptq_v2"),
        PackedModel::gptq(&weights(), PLAIN, 0, "gptq")
            .unpacked(1, &coarse_values(&LAYERS[1].weight())),
    ] {
        let daemon = daemon_with_packed(BINARY, &model);
        expect(&daemon.run(&packed_model::ONCE), 0, &[]);
        let replayed = replay(&daemon, "qera-out/current", &["--base", "packed"]);
        assert_replayed(&daemon, &replayed, &model.values);
    }
}

/// A square weight of Conv1D, so that only its kind says how it lies.
#[test]
fn weights_that_lie_the_other_way_round_are_read_so() {
    const SIDE: usize = 8;
    const MODULE: &str = "transformer.h.0.attn.c_proj";
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let folder = daemon.path().join("checkpoint");
    fs::create_dir_all(&folder).unwrap();
    let stored = sine_values(SIDE * SIDE, 0.4);
    let tensor = TensorToWrite::f32(&format!("{MODULE}.weight"), &[SIDE, SIDE], &stored);
    write_safetensors(&folder.join("model.safetensors"), &[tensor], &[]);
    fs::write(folder.join("config.json"), r#"{"model_type":"gpt2"}"#).unwrap();
    let rows = sine_values(100 * SIDE, 0.9);
    rename_in(
        &daemon,
        "a",
        &[TensorToWrite::f32(MODULE, &[100, SIDE], &rows)],
    );
    let options = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
    ];
    let more = ["--rank", "2", "--block-size", "4", "--emit-base"];
    expect(&daemon.run(&[&options[..], &more].concat()), 0, &[]);
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_holds();
    let base = daemon.path().join("qera-out/base/model.safetensors");
    let transposed = |of: &[f32]| -> Vec<f32> {
        (0..SIDE * SIDE)
            .map(|i| of[(i % SIDE) * SIDE + i / SIDE])
            .collect()
    };
    let quantized = transposed(&numbers(&base, &format!("{MODULE}.weight")));
    let factors = peft_factors(&daemon.path().join("qera-out/current"), MODULE, 1.0);
    let rows = WeightedRows::plain(rows, SIDE);
    let expected = rows.expected(&transposed(&stored), &quantized, &factors);
    replayed.assert_figures(MODULE, &expected);
    assert_eq!(replayed.layer(MODULE)["verdict"], "same");
}
