//! Other forms of the same corrections: published once more, and nothing is lost.

use std::fs;

use crate::{BINARY, current, json_of, once, write_config};
use qera_tests::daemon::{expect, expect_verdict};
use qera_tests::gguf_lora::GgufLora;
use qera_tests::gguf_model::{LAYERS, daemon_with_gguf, write_shard};
use qera_tests::live::Live;
use qera_tests::output_folder::{generations, snapshot_files};

const GIVEN: [&str; 4] = ["--checkpoint", "checkpoint", "--quantized", "model.gguf"];

#[test]
fn a_drained_folder_is_published_again_in_another_form() {
    let daemon = daemon_with_gguf(BINARY);
    let run = |more: &[&str]| once(&daemon, &[&GIVEN[..], more].concat());
    let peft = run(&["--format", "peft"]);
    expect(&peft, 0, &["published generation 1"]);
    let first = daemon.adapter("qera-out");
    let state = daemon.path().join("qera-out/state");
    let before = snapshot_files(&state);
    let both = run(&["--format", "peft,gguf"]);
    expect(&both, 0, &["published generation 2"]);
    assert!(!both.output.contains("anew"), "{}", both.output);
    assert_eq!(snapshot_files(&state), before);
    let second = daemon.adapter("qera-out");
    assert_eq!(first.bytes, second.bytes);
    for same in ["inputs", "fingerprints"] {
        assert_eq!(first.manifest[same], second.manifest[same]);
    }
    // The same forms are asked for again, and they are there.
    expect(&run(&["--format", "gguf,peft"]), 0, &[]);
    assert_eq!(generations(&daemon.path().join("qera-out")), [1, 2]);
    expect(&run(&[]), 0, &["published generation 3"]);
    assert!(!current(&daemon, "adapter_config.json").exists());
    let old = "qera-out/generations/000002/adapter.gguf";
    let old = GgufLora::load(&daemon.path().join(old));
    let new = GgufLora::load(&current(&daemon, "adapter.gguf"));
    assert_eq!(old.tensors, new.tensors);
    expect(&run(&["--ragged"]), 0, &["published generation 4"]);
}

/// By the number of heads in config.json rows of q and k lie otherwise: nothing else of a run does.
#[test]
fn heads_that_were_corrected_are_published_anew() {
    let daemon = daemon_with_gguf(BINARY);
    let config = daemon.path().join("checkpoint/config.json");
    let wrong = r#"{"model_type":"llama","num_attention_heads":4,"num_key_value_heads":2}"#;
    fs::write(config, wrong).unwrap();
    let options = ["--checkpoint", "checkpoint", "--format", "gguf,mlx"];
    expect(&once(&daemon, &options), 0, &["published generation 1"]);
    let verify = ["verify", "--adapter", "qera-out/current", "--base"];
    let verify = || daemon.run(&[&verify[..], &["checkpoint"]].concat());
    let head = || {
        let manifest = json_of(&daemon, "qera_manifest.json");
        let layers = manifest["layers"].as_array().unwrap().iter();
        let mut q = layers.filter(|of| of["gguf"]["tensor"] == "blk.0.attn_q.weight");
        q.next().unwrap()["gguf"]["rows"]["rope-pairs"]["head"].clone()
    };
    let said = "self_attn.q_proj: is written as blk.0.attn_q.weight with rows in the order RopePairs { head: 4 }; by";
    assert!(!verify().output.contains(said), "{}", verify().output);
    assert_eq!(head(), 4);
    write_config(&daemon);
    expect_verdict(&verify(), 1, &["problem: adapter.gguf: model.", said]);
    expect(&once(&daemon, &options), 0, &["published generation 2"]);
    assert!(!verify().output.contains(said), "{}", verify().output);
    assert_eq!(head(), 8);
    expect(&once(&daemon, &options), 0, &[]);
    assert_eq!(generations(&daemon.path().join("qera-out")), [1, 2]);
}

/// `solve` makes the forms of a state, as a run does.
#[test]
fn solve_writes_the_forms_that_it_is_asked_for() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&once(&daemon, &GIVEN), 0, &[]);
    let own = GgufLora::load(&current(&daemon, "adapter.gguf"));
    let options = ["--state", "qera-out/state", "--out", "again", "--rank", "4"];
    let forms = ["--format", "mlx,gguf"];
    let solve = [&["solve"], &GIVEN[..], &options, &forms].concat();
    expect(&daemon.run(&solve), 0, &[]);
    let again = daemon.path().join("again/current");
    let found = GgufLora::load(&again.join("adapter.gguf"));
    assert_eq!(found.tensors, own.tensors);
    assert!(again.join("mlx/adapters.safetensors").exists());
    assert!(!again.join("adapter_config.json").exists());
}

/// Evidence that a live run gathered for one form is there for the next.
#[test]
fn evidence_stays() {
    let daemon = daemon_with_gguf(BINARY);
    let options = ["--watch", "activations", "--rank", "4", "--format", "peft"];
    let options = [&options[..], &GIVEN].concat();
    let mut live = Live::start(daemon.command(&options));
    for shard in 2..8 {
        daemon.wait_until_idle(shard);
        write_shard(&daemon, shard);
    }
    daemon.wait_until_idle(8);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let evidence = || {
        let manifest = json_of(&daemon, "qera_manifest.json");
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|of| of["evidence"].clone()).collect::<Vec<_>>()
    };
    let before = evidence();
    assert_eq!(before.len(), LAYERS.len());
    assert!(before.iter().any(|of| !of.is_null()), "{before:?}");
    expect(&once(&daemon, &GIVEN), 0, &["published generation"]);
    assert_eq!(evidence(), before);
    assert!(!current(&daemon, "adapter_config.json").exists());
    assert!(
        fs::metadata(current(&daemon, "adapter.gguf"))
            .unwrap()
            .len()
            > 1000
    );
}
