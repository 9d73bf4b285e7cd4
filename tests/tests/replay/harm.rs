//! What does harm is found, layer by layer, whatever the files' names and fingerprints say.

use std::fs;

use half::f16;
use qera_tests::copied_folder::copy_folder;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::gguf_file::{GgufTensorToWrite, GgufToWrite};
use qera_tests::gguf_model::{self, LAYERS, daemon_with_gguf, empty_model};
use qera_tests::output_folder::unseal;
use qera_tests::safetensors_file::write_safetensors;
use qera_tests::three_layers::{DOWN, K, LIVE_OPTIONS, Q, daemon_with_shards, once_with};
use serde_json::Value;

use crate::BINARY;
use crate::oracle::numbers;
use crate::replayed::replay;

/// A daemon's folder with a base, and a copy of its generation in `adapter`, of whose files nothing
/// is said but by what they do.
fn published() -> TestDaemon {
    published_by(&once_with(&["--emit-base"]))
}

fn published_by(options: &[&str]) -> TestDaemon {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(options), 0, &[]);
    copy_folder(
        &daemon.path().join("qera-out/current"),
        &daemon.path().join("adapter"),
    );
    unseal(&daemon.path().join("adapter"));
    daemon
}

/// Changes the numbers of lora_B of a layer, [out_features, rank], by their places.
fn change_b(daemon: &TestDaemon, layer: &str, change: impl Fn(usize, f32) -> f32) {
    let path = daemon.path().join("adapter/adapter_model.safetensors");
    let name = format!("base_model.model.{layer}.lora_B.weight");
    let values = numbers(&path, &name).into_iter().enumerate();
    let changed = values.flat_map(|(at, v)| f16::from_f32(change(at, v)).to_le_bytes());
    let changed: Vec<u8> = changed.collect();
    let mut bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(&name).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F16);
    let start = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[start..start + changed.len()].copy_from_slice(&changed);
    fs::write(path, bytes).unwrap();
}

/// Nothing else that `verify` looks at tells the two apart.
#[test]
fn a_sign_that_is_another_one_is_found() {
    let daemon = published();
    replay(&daemon, "adapter", &["--base", "qera-out/base"]).assert_holds();
    change_b(&daemon, Q, |_, v| -v);
    let without = daemon.run(&["verify", "--adapter", "adapter", "--base", "qera-out/base"]);
    assert_eq!(without.code, 0, "{}", without.output);
    let replayed = replay(&daemon, "adapter", &["--base", "qera-out/base"]);
    replayed.assert_problems(&[
        &format!("replay: {Q}: the peft adapter does harm: its error is "),
        &format!("replay: {Q}: the error with the adapter is "),
    ]);
    assert_eq!(replayed.layer(Q)["harm"], true);
    assert_eq!(replayed.layer(Q)["verdict"], "differs");
    assert_eq!(replayed.layer(K)["harm"], false);
    assert_eq!(replayed.totals()["harmed"], 1);
}

/// One direction of one layer a little too large: no harm, and not what was solved.
#[test]
fn what_does_no_harm_and_is_not_what_was_solved_is_found() {
    let daemon = published();
    change_b(&daemon, DOWN, |at, v| if at % 2 == 0 { v * 1.1 } else { v });
    let replayed = replay(&daemon, "adapter", &["--base", "qera-out/base"]);
    replayed.assert_problems(&[&format!("replay: {DOWN}: the error with the adapter is ")]);
    assert_eq!(replayed.totals()["same"], 2);
    // On some of the rows there is nothing to hold it against.
    let some = ["--base", "qera-out/base", "--replay-rows", "600"];
    replay(&daemon, "adapter", &some).assert_holds();
}

/// Where the manifest's figure is of the window's rows, it is not excused from being right.
#[test]
fn half_a_correction_is_found_where_the_window_was_asked() {
    for method in ["exact", "approx", "lqer", "zeroquant-v2"] {
        let options = "--once --watch activations --checkpoint checkpoint --rank 4 --block-size 4 \
                       --emit-base --method";
        let mut options: Vec<&str> = options.split_whitespace().collect();
        options.push(method);
        let daemon = published_by(&options);
        let base = ["--base", "qera-out/base"];
        let whole = replay(&daemon, "adapter", &base);
        whole.assert_holds();
        let of = |of: &Value, figure: &str| of[figure].as_f64().unwrap();
        // The rank is full: next to nothing is left.
        let layer = whole.layer(K);
        assert!(of(layer, "error_with") < 1e-4 * of(layer, "error_without"));

        change_b(&daemon, K, |_, v| v * 0.5);
        let half = replay(&daemon, "adapter", &base);
        half.assert_problems(&[&format!("replay: {K}: the error with the adapter is ")]);
        let layer = half.layer(K);
        let left = of(layer, "error_with") / of(layer, "error_without");
        assert!((left - 0.25).abs() < 1e-3, "{method}: {left}");
        assert_eq!(layer["harm"], false);
    }
}

/// What is held within a factor alone is said to be.
#[test]
fn a_figure_that_is_held_within_a_factor_is_not_called_checked() {
    let daemon = published_by(&once_with(&["--emit-base", "--method", "approx"]));
    change_b(&daemon, DOWN, |_, v| v * 1.05);
    let replayed = replay(&daemon, "adapter", &["--base", "qera-out/base"]);
    replayed.assert_holds();
    assert_eq!(replayed.layer(DOWN)["verdict"], "rows-of-window");
    let said = format!("replay: {DOWN}: its figures nearer than a factor of 2, ");
    let lines = replayed.lines("not_checked");
    let of_down = lines.iter().filter(|line| line.starts_with(&said));
    assert_eq!(of_down.count(), 1, "{lines:#?}");
    let options = "verify --adapter adapter --base qera-out/base --replay activations \
                   --checkpoint checkpoint";
    let options: Vec<&str> = options.split_whitespace().collect();
    let run = daemon.run(&options);
    let beside = "(some of 1200 rows: not checked nearer than a factor of 2)";
    assert!(
        run.code == 0 && run.output.contains(beside),
        "{}",
        run.output
    );
}

/// A correction of coarse weights is far larger than the error of fine ones.
#[test]
fn an_adapter_for_another_base_is_found() {
    let daemon = daemon_with_shards(BINARY);
    let of = |quantizer, out| {
        let more = [
            "--once",
            "--emit-base",
            "--quantizer",
            quantizer,
            "--out",
            out,
        ];
        expect(&daemon.run(&[&LIVE_OPTIONS[..], &more].concat()), 0, &[]);
    };
    of("mxint2", "coarse");
    of("mxint6", "fine");
    let replayed = replay(&daemon, "coarse/current", &["--base", "fine/base"]);
    let problems = replayed.lines("problems");
    for layer in [Q, K, DOWN] {
        let harm = format!("replay: {layer}: the peft adapter does harm");
        assert!(
            problems.iter().any(|line| line.starts_with(&harm)),
            "{problems:#?}"
        );
        let differs = format!("replay: {layer}: the error without the adapter is ");
        assert!(
            problems.iter().any(|line| line.starts_with(&differs)),
            "{problems:#?}"
        );
        let without = replayed.layer(layer)["error_without"].as_f64().unwrap();
        assert!(without > 0.0 && replayed.layer(layer)["harm"] == true);
    }
    assert_eq!(replayed.run.code, 1);
    // And so it does on the weights in full precision, where there is no error to take off.
    let replayed = replay(&daemon, "coarse/current", &["--base", "checkpoint"]);
    for layer in [Q, K, DOWN] {
        assert_eq!(replayed.layer(layer)["error_without"], 0.0);
        assert_eq!(replayed.layer(layer)["harm"], true);
    }
}

/// A file whose numbers are another model's.
#[test]
fn a_base_that_is_another_model_is_named() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&daemon.run(&gguf_model::ONCE), 0, &[]);
    let other = LAYERS.iter().fold(empty_model(), |model, layer| {
        let weight: Vec<f32> = layer.weight().iter().map(|w| -w).collect();
        model.tensor(layer.coarse(&layer.in_gguf_order(&weight)))
    });
    other.write(&daemon.path().join("other.gguf"));
    let replayed = replay(&daemon, "qera-out/current", &["--base", "other.gguf"]);
    let problems = replayed.lines("problems");
    let named = |words: &str| problems.iter().any(|line| line.contains(words));
    for layer in &LAYERS {
        let words = format!("is not the weight of '{}' in the checkpoint", layer.module);
        assert!(named(&words), "{problems:#?}");
    }
    // The advice names what `verify` then does.
    let advised = |line: &&String| {
        line.ends_with("--exclude PATTERN leaves such layers out of the replay")
            && line.contains("; --base names another base, ")
    };
    assert_eq!(problems.iter().filter(advised).count(), LAYERS.len());
    assert!(!named("--skip-broken"), "{problems:#?}");
    let [of_q, of_k, of_down] = LAYERS.each_ref().map(|layer| layer.module);
    let excluded = ["--base", "other.gguf", "--exclude", of_q, "--exclude", of_k];
    let left = replay(&daemon, "qera-out/current", &excluded).lines("problems");
    let of = |module: &str| {
        left.iter()
            .any(|line| line.contains(&format!("'{module}'")))
    };
    assert!(of(of_down) && !of(of_q) && !of(of_k), "{left:#?}");
    assert!(
        named("no layer of the peft adapter was replayed"),
        "{problems:#?}"
    );
}

/// A file without one of the layers, and one of another width.
#[test]
fn a_base_that_lacks_a_layer_is_named_and_the_others_are_replayed() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&daemon.run(&gguf_model::ONCE), 0, &[]);
    let [q, k, down] = LAYERS.map(|layer| layer.coarse(&layer.in_gguf_order(&layer.weight())));
    let without: GgufToWrite = empty_model().tensor(q.clone()).tensor(down.clone());
    without.write(&daemon.path().join("without.gguf"));
    let replayed = replay(&daemon, "qera-out/current", &["--base", "without.gguf"]);
    let of_k = LAYERS[1].module;
    let lacks = format!("layer '{of_k}': the --quantized file has no tensor of a block for it");
    replayed.assert_problems(&["is another file", &lacks]);
    assert_eq!(replayed.layers().len(), 2);

    let wide = GgufTensorToWrite::coarse(&k.name, &[64, 8], &[1.0; 512]);
    let other = empty_model().tensor(q).tensor(wide).tensor(down);
    other.write(&daemon.path().join("wide.gguf"));
    let replayed = replay(&daemon, "qera-out/current", &["--base", "wide.gguf"]);
    let shape = format!("the weight of '{of_k}' in the checkpoint has [32, 8]");
    replayed.assert_problems(&["is another file", &shape]);
    assert_eq!(replayed.layers().len(), 2);

    // The same for a folder of numbers.
    let folder = daemon.path().join("numbers");
    fs::create_dir(&folder).unwrap();
    let tensors = LAYERS.iter().map(|layer| {
        let name = format!("{}.weight", layer.module);
        let (n, m) = (layer.out_features, layer.in_features);
        let shape = if layer.module == of_k { [m, n] } else { [n, m] };
        qera_tests::safetensors_file::TensorToWrite::f32(&name, &shape, &layer.weight())
    });
    let tensors: Vec<_> = tensors.collect();
    write_safetensors(&folder.join("model.safetensors"), &tensors[..2], &[]);
    let replayed = replay(&daemon, "qera-out/current", &["--base", "numbers"]);
    let problems = replayed.lines("problems");
    let named = |words: &str| problems.iter().any(|line| line.contains(words));
    assert!(named(&format!(
        "'{of_k}.weight' is [32, 8], the checkpoint's weight is [8, 32]"
    )));
    assert!(named(&format!(
        "replay: {}: checkpoint numbers: has no '",
        LAYERS[2].module
    )));
    assert_eq!(replayed.layers().len(), 1);
}
