//! Every form of an adapter is replayed by its own files: PEFT's, a GGUF with its order of rows,
//! mlx-lm's; and a base that is a GGUF of qera's.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::gguf_file::{GgufTensorToWrite, GgufToWrite, coarse_values};
use qera_tests::gguf_model::{GgufTestLayer, LAYERS, daemon_with_gguf};
use qera_tests::three_layers::sine_values;
use serde_json::Value;

use crate::BINARY;
use crate::oracle::{Expected, Factors, WeightedRows, peft_factors};
use crate::replayed::{Replayed, replay};

/// Runs on the GGUF and writes these forms.
fn published(more: &[&str]) -> TestDaemon {
    let daemon = daemon_with_gguf(BINARY);
    let once = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
        "--quantized",
        "model.gguf",
        "--rank",
        "4",
    ];
    expect(&daemon.run(&[&once[..], more].concat()), 0, &[]);
    daemon
}

fn expected(layer: &GgufTestLayer, factors: &Factors) -> Expected {
    let rows = [layer.rows(0.0), layer.rows(1.0)].concat();
    let rows = WeightedRows::plain(rows, layer.in_features);
    let weight = layer.weight();
    rows.expected(&weight, &coarse_values(&weight), factors)
}

/// The forms by their names.
fn forms(replayed: &Replayed) -> Vec<&str> {
    let forms = replayed.said["replay"].as_array().unwrap().iter();
    forms.map(|form| form["form"].as_str().unwrap()).collect()
}

#[test]
fn all_forms_of_a_generation_are_replayed_and_are_equal() {
    let daemon = published(&["--format", "peft,gguf,mlx"]);
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_holds();
    assert_eq!(forms(&replayed), ["peft", "gguf", "mlx"]);
    let layers = |form: usize| replayed.said["replay"][form]["layers"].as_array().unwrap();
    for form in 0..3 {
        assert_eq!(layers(form).len(), LAYERS.len());
        for (ours, peft) in layers(form).iter().zip(layers(0)) {
            assert_eq!(ours["error_with"], peft["error_with"]);
            assert_eq!(ours["verdict"], "same");
        }
    }
    // Each by itself, by the path of its files.
    for (path, form) in [("adapter.gguf", "gguf"), ("mlx", "mlx")] {
        let path = format!("qera-out/current/{path}");
        let alone = replay(&daemon, &path, &["--base", "model.gguf"]);
        alone.assert_holds();
        assert_eq!(forms(&alone), [form]);
        for layer in &LAYERS {
            let adapter = daemon.path().join("qera-out/current");
            let factors = peft_factors(&adapter, layer.module, 1.0);
            alone.assert_figures(layer.module, &expected(layer, &factors));
        }
    }
}

/// Rows of q that lie in the order of the checkpoint are other rows to an engine.
#[test]
fn rows_of_a_gguf_in_another_order_do_harm() {
    let daemon = published(&["--format", "gguf,peft"]);
    let adapter = daemon.path().join("qera-out/current");
    let write = |in_order: bool| {
        let file = GgufToWrite::default()
            .text("general.type", "adapter")
            .text("general.architecture", "llama")
            .text("adapter.type", "lora");
        let file = LAYERS.iter().fold(file, |file, layer| {
            let Factors { a, b, .. } = peft_factors(&adapter, layer.module, 1.0);
            let (m, n) = (layer.in_features, layer.out_features);
            let rank = a.len() / m;
            let as_rank = GgufTestLayer {
                in_features: rank,
                ..*layer
            };
            let b = if in_order {
                as_rank.in_gguf_order(&b)
            } else {
                b
            };
            let name = |factor| format!("{}.weight.lora_{factor}", layer.tensor);
            file.tensor(GgufTensorToWrite::f32(&name('a'), &[m, rank], &a))
                .tensor(GgufTensorToWrite::f32(&name('b'), &[rank, n], &b))
        });
        fs::create_dir_all(daemon.path().join("lone")).unwrap();
        file.write(&daemon.path().join("lone/by-others.gguf"));
    };
    write(true);
    let right = replay(&daemon, "lone/by-others.gguf", &["--base", "model.gguf"]);
    right.assert_holds();
    for layer in &LAYERS {
        let factors = peft_factors(&adapter, layer.module, 1.0);
        right.assert_figures(layer.module, &expected(layer, &factors));
        assert_eq!(right.layer(layer.module)["verdict"], "nothing-said");
    }
    write(false);
    let wrong = replay(&daemon, "lone/by-others.gguf", &["--base", "model.gguf"]);
    let of = |replayed: &Replayed, layer: &GgufTestLayer| -> f64 {
        replayed.layer(layer.module)["error_with"].as_f64().unwrap()
    };
    // The rows of q and k are interleaved, those of down_proj are not.
    for layer in &LAYERS[..2] {
        assert!(of(&wrong, layer) > 1.5 * of(&right, layer), "{layer:?}");
    }
    let down = &LAYERS[2];
    assert_eq!(of(&wrong, down).to_bits(), of(&right, down).to_bits());
}

/// `adapter.lora.alpha` over the rank in a GGUF, `scale` in mlx-lm's configuration.
#[test]
fn forms_of_others_are_scaled_as_their_engines_scale_them() {
    const RANK: usize = 2;
    const FLOAT32: u32 = 6;
    let daemon = published(&["--format", "mlx"]);
    let layer = LAYERS[2];
    let (m, n) = (layer.in_features, layer.out_features);
    let small =
        |count, phase| -> Vec<f32> { sine_values(count, phase).iter().map(|v| v * 1e-2).collect() };
    let factors = |scale| Factors {
        a: small(RANK * m, 0.1),
        b: small(n * RANK, 0.7),
        scale,
    };
    for (alpha, scale) in [(Some(5.0_f32), 2.5), (Some(0.0), 1.0), (None, 1.0)] {
        let Factors { a, b, .. } = factors(scale);
        let mut file = GgufToWrite::default()
            .text("general.type", "adapter")
            .text("general.architecture", "llama")
            .text("adapter.type", "lora");
        if let Some(alpha) = alpha {
            file = file.value("adapter.lora.alpha", FLOAT32, &alpha.to_le_bytes());
        }
        let name = |factor| format!("{}.weight.lora_{factor}", layer.tensor);
        let file = file
            .tensor(GgufTensorToWrite::f32(&name('a'), &[m, RANK], &a))
            .tensor(GgufTensorToWrite::f32(&name('b'), &[RANK, n], &b));
        file.write(&daemon.path().join("scaled.gguf"));
        let replayed = replay(&daemon, "scaled.gguf", &["--base", "model.gguf"]);
        assert_eq!(replayed.layers().len(), 1);
        replayed.assert_figures(layer.module, &expected(&layer, &factors(scale)));
    }

    let (from, to) = ("qera-out/current/mlx", "mlx-by-others");
    fs::create_dir(daemon.path().join(to)).unwrap();
    for file in ["adapters.safetensors", "adapter_config.json"] {
        let [from, to] = [from, to].map(|folder| daemon.path().join(folder).join(file));
        fs::copy(from, to).unwrap();
    }
    let path = daemon.path().join(to).join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let error = |scale: f64| {
        config["lora_parameters"]["scale"] = scale.into();
        fs::write(&path, config.to_string()).unwrap();
        let replayed = replay(&daemon, to, &["--base", "model.gguf"]);
        assert_eq!(replayed.layers().len(), LAYERS.len());
        let layer = replayed.layer(layer.module).clone();
        ["error_without", "error_with"].map(|of| layer[of].as_f64().unwrap())
    };
    let mut error = error;
    let [[without, once], [_, half], [_, twice]] = [1.0, 0.5, 2.0].map(&mut error);
    // |E - s C|^2 is a parabola in s.
    let (square, linear) = (
        2.0 * (once - 2.0 * half + without),
        4.0 * half - once - 3.0 * without,
    );
    let at_two = 4.0 * square + 2.0 * linear + without;
    assert!((twice - at_two).abs() < 1e-4 * twice, "{twice} {at_two}");
    assert!(twice > once && half > once && without > half);
}

/// Blocks of 8 bits, and a base whose blocks are qera's.
#[test]
fn a_gguf_adapter_in_q8_0_on_a_gguf_of_qera_s_is_what_the_manifest_says() {
    let daemon = daemon_with_gguf(BINARY);
    let run = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "full.gguf",
        "--quantizer",
        "q4-0",
        "--emit-base=gguf",
        "--format",
        "gguf",
        "--dtype",
        "q8_0",
        "--rank",
        "4",
    ];
    expect(&daemon.run(&run), 0, &[]);
    for base in [
        &[][..],
        &["--base", "qera-out/base-gguf"],
        &["--base", "qera-out/base-gguf/model.gguf"],
    ] {
        let more = [&["--checkpoint", "full.gguf"], base].concat();
        let replayed = replay(&daemon, "qera-out/current", &more);
        replayed.assert_holds();
        assert_eq!(forms(&replayed), ["gguf"]);
        assert_eq!(replayed.totals()["same"], 3, "{}", replayed.said);
    }
}
