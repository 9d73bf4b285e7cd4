//! Checkpoints that are refused by name before the run starts.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;

use super::one_layer::{MODULE, daemon_with_one_layer, run_once, write_weight};

#[test]
fn a_checkpoint_that_cannot_serve_is_named() {
    let cases: [(&str, &[usize], usize, &[&str]); 2] = [
        ("I32", &[4, 8], 128, &["q_proj.weight", "I32", "BF16"]),
        ("F8_E4M3", &[4, 8], 32, &["q_proj.weight", "F8_E4M3"]),
    ];
    for (dtype, shape, bytes, said) in cases {
        let daemon = daemon_with_one_layer();
        write_weight(daemon.path(), dtype, shape, vec![0; bytes]);
        expect(&run_once(&daemon, &[]), 1, said);
    }
    let daemon = daemon_with_one_layer();
    write_weight(daemon.path(), "F32", &[2, 2, 8], vec![0; 128]);
    expect(
        &run_once(&daemon, &["--include", "*q_proj"]),
        1,
        &["q_proj.weight", "[2, 2, 8]"],
    );
    expect(
        &run_once(&daemon, &[]),
        1,
        &["no shard names a linear layer"],
    );

    let mut nan = vec![0; 128];
    nan[4 * (8 + 3)..4 * (8 + 4)].copy_from_slice(&f32::NAN.to_le_bytes());
    write_weight(daemon.path(), "F32", &[4, 8], nan);
    let refused = run_once(&daemon, &[]);
    expect(
        &refused,
        1,
        &[
            "model.safetensors",
            "q_proj.weight",
            "NaN at row 1, column 3",
        ],
    );

    fs::write(
        daemon.path().join("checkpoint/model.safetensors"),
        b"not a checkpoint at all",
    )
    .unwrap();
    expect(
        &run_once(&daemon, &[]),
        1,
        &["model.safetensors", "not a safetensors file"],
    );
    fs::remove_file(daemon.path().join("checkpoint/model.safetensors")).unwrap();
    expect(&run_once(&daemon, &[]), 1, &["holds neither"]);
}

#[test]
fn an_index_must_be_kept() {
    let daemon = daemon_with_one_layer();
    let folder = daemon.path().join("checkpoint");
    fs::rename(
        folder.join("model.safetensors"),
        folder.join("part.safetensors"),
    )
    .unwrap();
    let index = |file: &str, tensor: &str| {
        let text = format!(r#"{{"weight_map": {{"{tensor}": "{file}"}}}}"#);
        fs::write(folder.join("model.safetensors.index.json"), text).unwrap();
    };
    index("model-00001-of-00002.safetensors", "a.weight");
    expect(
        &run_once(&daemon, &[]),
        1,
        &["model-00001-of-00002.safetensors", "missing"],
    );
    index("part.safetensors", "b.weight");
    expect(
        &run_once(&daemon, &[]),
        1,
        &["part.safetensors: lacks tensor 'b.weight'"],
    );
    index("part.safetensors", &format!("{MODULE}.weight"));
    expect(
        &run_once(&daemon, &["--emit-base"]),
        0,
        &["1 layers corrected"],
    );
    assert!(
        daemon
            .path()
            .join("qera-out/base/model.safetensors")
            .is_file()
    );
    let by_file = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint/model.safetensors.index.json",
    ];
    expect(&daemon.run(&by_file), 0, &["nothing new"]);
}

/// What the index does not list is no tensor, and of two files it says which one counts.
#[test]
fn the_index_decides() {
    let daemon = daemon_with_one_layer();
    let folder = daemon.path().join("checkpoint");
    let weight =
        |value: f32| TensorToWrite::f32(&format!("{MODULE}.weight"), &[4, 8], &[value; 32]);
    let other = TensorToWrite::f32("model.other.weight", &[4, 8], &[1.0; 32]);
    let write = |file: &str, tensors: &[TensorToWrite]| {
        write_safetensors(&folder.join(file), tensors, &[]);
    };
    let index = |file: &str, second: &str| {
        let text = format!(
            r#"{{"weight_map": {{"{MODULE}.weight": "{file}", "second.weight": "{second}"}}}}"#
        );
        fs::write(folder.join("model.safetensors.index.json"), text).unwrap();
    };
    let second = TensorToWrite::f32("second.weight", &[4, 8], &[1.0; 32]);
    write("a.safetensors", &[weight(1.0), other, second.clone()]);
    write("b.safetensors", &[weight(0.75), second]);
    index("b.safetensors", "a.safetensors");
    let stray = "model.safetensors beside model.safetensors.index.json is not read";
    let run = run_once(&daemon, &["--emit-base"]);
    expect(&run, 0, &["checkpoint: 1 layers", stray]);
    let base = fs::read(daemon.path().join("qera-out/base/model.safetensors")).unwrap();
    let base = safetensors::SafeTensors::deserialize(&base).unwrap();
    assert_eq!(base.names().len(), 2, "{:?}", base.names());
    let found = base.tensor(&format!("{MODULE}.weight")).unwrap();
    assert_eq!(found.data(), 0.75_f32.to_le_bytes().repeat(32));
    let plan = ["plan", "--checkpoint", "checkpoint", "--out", "other"];
    expect(&daemon.run(&plan), 0, &[stray]);

    // A file of that name that the index lists is no stray.
    index("model.safetensors", "a.safetensors");
    let plan = daemon.run(&plan);
    expect(&plan, 0, &[]);
    assert!(!plan.log.contains("is not read"), "{}", plan.log);
    index("b.safetensors", "model.safetensors");
    expect(
        &run_once(&daemon, &["--out", "other"]),
        1,
        &["model.safetensors: lacks tensor 'second.weight'"],
    );
}

#[test]
fn other_formats_are_named_and_said_how_to_convert() {
    let daemon = daemon_with_one_layer();
    let folder = daemon.path().join("checkpoint");
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("README.md"), "# A model").unwrap();
    fs::write(folder.join("training_args.bin"), "PK\u{3}\u{4}").unwrap();
    expect(&run_once(&daemon, &[]), 1, &["checkpoint: holds neither"]);
    let convert = "model.save_pretrained(folder, safe_serialization=True)";
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json", "m.pt"] {
        let path = folder.join(name);
        fs::write(&path, "{}").unwrap();
        let said = [name, "PyTorch", convert];
        expect(&run_once(&daemon, &[]), 1, &said);
        let file = path.to_str().unwrap();
        expect(&daemon.run(&["plan", "--checkpoint", file]), 1, &said);
        fs::remove_file(&path).unwrap();
    }
    let gguf = folder.join("model-q8");
    fs::write(&gguf, b"GGUF\x03\0\0\0").unwrap();
    let said = ["model-q8", "GGUF", "give the file itself"];
    expect(&run_once(&daemon, &[]), 1, &said);
    // Read by its name; this one is cut off.
    let file = gguf.to_str().unwrap();
    let cut_off = daemon.run(&["plan", "--checkpoint", file]);
    expect(
        &cut_off,
        1,
        &["model-q8", "GGUF header: truncated at byte 8"],
    );
    // Beside safetensors they are nobody's business.
    write_weight(daemon.path(), "F32", &[4, 8], vec![1; 128]);
    fs::write(folder.join("pytorch_model.bin"), "PK").unwrap();
    expect(&run_once(&daemon, &[]), 0, &["1 layers corrected"]);
}

/// A head is corrected only where it is stored on its own, and its class keeps it so.
#[test]
fn embeddings_and_tied_heads_are_refused_by_name() {
    let daemon = daemon_with_one_layer();
    let checkpoint = daemon.path().join("checkpoint");
    let shard = |module: &str, phase: f32| {
        let rows: Vec<f32> = (0..800).map(|i| (i as f32 + phase).sin()).collect();
        let shard = TensorToWrite::f32(module, &[100, 8], &rows);
        let path = daemon.watched().join(format!("{module}.safetensors"));
        write_safetensors(&path, &[shard], &[]);
    };
    fs::remove_file(daemon.watched().join("a.safetensors")).unwrap();
    let write = |module: &str, value: f32| {
        let tensors = [
            TensorToWrite::f32(&format!("{module}.weight"), &[4, 8], &[value; 32]),
            TensorToWrite::f32("model.embed_tokens.weight", &[4, 8], &[0.3; 32]),
        ];
        write_safetensors(&checkpoint.join("model.safetensors"), &tensors, &[]);
    };
    let config = |json: &str| fs::write(checkpoint.join("config.json"), json).unwrap();
    let run = |module: &str, out: &str| run_once(&daemon, &["--include", module, "--out", out]);
    shard("lm_head", 0.0);

    write("lm_head", 0.7);
    expect(
        &run("model.embed_tokens", "none"),
        2,
        &["embed_tokens", "embedding"],
    );
    let silent = ["--include 'lm_head'", "tied", "tie_word_embeddings"];
    // Nobody says that it stays on its own: without a configuration, or with one that leaves it
    // out.
    expect(&run("lm_head", "none"), 2, &silent);
    for json in [
        r#"{"model_type": "falcon"}"#,
        r#"{"model_type": "llama", "tie_word_embeddings": true}"#,
        r#"{"text_config": {"model_type": "llama", "tie_word_embeddings": true}}"#,
    ] {
        config(json);
        expect(&run("lm_head", "none"), 2, &silent);
    }
    for (json, out) in [
        (r#"{"model_type": "llama"}"#, "by-class"),
        (r#"{"tie_word_embeddings": false}"#, "by-config"),
    ] {
        config(json);
        expect(&run("lm_head", out), 0, &["1 layers corrected"]);
    }
    // Equal bytes are the embedding, whatever the configuration says.
    write("lm_head", 0.3);
    let said = ["'lm_head'", "the bytes of 'model.embed_tokens.weight'"];
    expect(&run("lm_head", "none"), 2, &said);

    // However it is called, and if nobody asked for it by name it is left as it is.
    fs::remove_file(daemon.watched().join("lm_head.safetensors")).unwrap();
    shard("model.readout", 1.0);
    write("model.readout", 0.7);
    config(r#"{"tie_word_embeddings": true}"#);
    expect(
        &run("model.readout", "none"),
        2,
        &["'model.readout'", "tied"],
    );
    write("model.readout", 0.3);
    config(r#"{"tie_word_embeddings": false}"#);
    let said = [
        "'model.readout'",
        "the bytes of 'model.embed_tokens.weight'",
    ];
    expect(&run("model.readout", "none"), 2, &said);
    let said = ["not corrected: model.readout.weight [4, 8]", "tied"];
    expect(&run_once(&daemon, &["--out", "none"]), 1, &said);
}

#[test]
fn foreign_checkpoints_are_refused() {
    let daemon = daemon_with_one_layer();
    let config = daemon.path().join("checkpoint/config.json");
    fs::write(
        &config,
        r#"{"quantization_config": {"quant_method": "gptq"}}"#,
    )
    .unwrap();
    expect(&run_once(&daemon, &[]), 1, &["quantization_config"]);
    fs::write(
        &config,
        r#"{"thinker_config": {"text_config": {"compression_config": {"bits": 4}}}}"#,
    )
    .unwrap();
    expect(
        &run_once(&daemon, &[]),
        1,
        &[
            "thinker_config.text_config.compression_config",
            "full-precision",
        ],
    );
    fs::write(&config, "{").unwrap();
    expect(&run_once(&daemon, &[]), 1, &["config.json", "not JSON"]);
}

/// Of weights that are quantized already nothing is left to be corrected.
#[test]
fn a_base_of_qera_is_no_checkpoint() {
    let daemon = daemon_with_one_layer();
    write_weight(daemon.path(), "F32", &[4, 8], sine_bytes(32));
    expect(&run_once(&daemon, &["--emit-base=hf"]), 0, &[]);
    for base in ["qera-out/base", "qera-out/base/model.safetensors"] {
        let options = ["--once", "--watch", "activations", "--out", "again"];
        let ended = daemon.run(&[&options[..], &["--checkpoint", base]].concat());
        expect(&ended, 1, &["is a base that qera quantized"]);
    }
}

/// A cache of models holds links, and what they lead to may be gone.
#[test]
fn a_checkpoint_s_link_that_leads_nowhere_is_named() {
    let daemon = daemon_with_one_layer();
    let weights = daemon.path().join("checkpoint/model.safetensors");
    fs::remove_file(&weights).unwrap();
    std::os::unix::fs::symlink("../blobs/gone", &weights).unwrap();
    let said = ["model.safetensors", "is a link that leads to no file"];
    expect(&run_once(&daemon, &[]), 1, &said);
}

/// Whoever serves it would believe that it corrects something.
#[test]
fn an_adapter_that_changes_nothing_is_warned_of() {
    let daemon = daemon_with_one_layer();
    write_weight(daemon.path(), "F32", &[4, 8], sine_bytes(32));
    let warning = "warning: adapter: it changes nothing: no layer has a correction";
    expect(&run_once(&daemon, &["--method", "w-only"]), 0, &[warning]);
    let corrected = run_once(&daemon, &["--out", "corrected", "--rank", "2"]);
    expect(&corrected, 0, &["1 layers corrected"]);
    assert!(!corrected.log.contains(warning), "{}", corrected.log);
}

/// Any base of these shapes would do for an adapter that says nothing of its own.
#[test]
fn without_a_manifest_verify_says_what_nobody_can_say() {
    let daemon = daemon_with_one_layer();
    write_weight(daemon.path(), "F32", &[4, 8], sine_bytes(32));
    expect(&run_once(&daemon, &["--rank", "2"]), 0, &[]);
    let verify = || daemon.verify(&["--base", "checkpoint"]);
    let unsaid = "not checked: checkpoint: whether the adapter was made for it: without \
                  qera_manifest.json nobody can say";
    assert!(!verify().output.contains(unsaid));
    fs::remove_file(daemon.path().join("qera-out/current/qera_manifest.json")).unwrap();
    let said = verify();
    assert_eq!(said.code, 0, "{}", said.log);
    assert!(said.output.contains(unsaid), "{}", said.output);
}

fn sine_bytes(count: usize) -> Vec<u8> {
    let values = sine_values(count, 0.5);
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
