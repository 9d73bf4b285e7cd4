//! What cannot be written in this form is refused by name, before a row is read.

use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::gguf_file::GgufTensorToWrite;

use crate::model::{EMITS, MODEL, daemon_with_model, rich_model, run_once};

fn run_on(daemon: &TestDaemon, checkpoint: &str, options: &[&str]) -> EndedRun {
    let once = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        checkpoint,
    ];
    daemon.run(&[&once[..], options].concat())
}

#[test]
fn a_base_is_of_its_checkpoint_s_kind() {
    let daemon = daemon_with_model(&rich_model());
    for (checkpoint, options, said) in [
        (
            "checkpoint",
            &[EMITS][..],
            &[
                "--emit-base=gguf: writes OUT/base-gguf",
                "and checkpoint is none",
            ][..],
        ),
        (
            "checkpoint",
            &["--emit-base=hf,gguf"],
            &["--emit-base=gguf: "],
        ),
        (
            MODEL,
            &["--emit-base"],
            &[
                "--emit-base=hf: writes OUT/base, ",
                "of the GGUF rich.gguf: --emit-base=gguf writes",
            ],
        ),
        (
            MODEL,
            &["--emit-base=gguf,compressed-tensors"],
            &["--emit-base=compressed-tensors: writes OUT/base-compressed-tensors, "],
        ),
        (
            "checkpoint",
            &["--quantized", "model.gguf", EMITS],
            &["--emit-base: the quantized weights are those of --quantized"],
        ),
    ] {
        let run = run_on(&daemon, checkpoint, options);
        expect(&run, 2, said);
        assert!(!run.log.contains("folded"), "{}", run.log);
    }
    assert!(!daemon.path().join("qera-out/current").exists());
}

#[test]
fn grids_that_no_type_holds_are_named_with_the_layer() {
    let daemon = daemon_with_model(&rich_model());
    for (options, said) in [
        (
            &["--quantizer", "int4", "--zero-points"][..],
            "no zero points",
        ),
        (
            &["--quantizer", "int4", "--scale-dtype", "bf16"],
            "its scales are bf16",
        ),
        (
            &["--quantizer", "int8", "--block-size", "64"],
            "have 64 numbers",
        ),
    ] {
        let run = run_once(&daemon, options);
        let layer = "--emit-base=gguf: layer 'model.layers.0.mlp.down_proj' is quantized by int";
        expect(
            &run,
            2,
            &[layer, said, "bf16 does not hold its numbers exactly"],
        );
        assert!(!run.log.contains("folded"), "{}", run.log);
    }
    // Asked for by nobody, and needed.
    let rounded = [
        "--quantizer",
        "int4",
        "--zero-points",
        "--rounding",
        "feedback",
    ];
    let run = run_on(&daemon, MODEL, &rounded);
    expect(
        &run,
        2,
        &["--emit-base=gguf (--rounding feedback has to write W~): layer '"],
    );
}

#[test]
fn tensors_that_cannot_be_copied_are_named() {
    let odd = |name: &str, type_number: u32| GgufTensorToWrite {
        name: name.into(),
        ne: vec![8],
        type_number,
        bytes: vec![0; 32],
    };
    let long = "blk.0.".to_owned() + &"x".repeat(58);
    for (tensor, said) in [
        (
            odd("blk.0.fork", 140),
            "'blk.0.fork' cannot be copied: type 140 is of a fork",
        ),
        (odd(&long, 0), "its name has 64 bytes"),
    ] {
        let daemon = daemon_with_model(&rich_model().tensor(tensor));
        let run = run_once(&daemon, &[]);
        expect(&run, 2, &["--emit-base=gguf: rich.gguf: tensor '", said]);
        // A run without the base does not look at such a tensor.
        expect(&run_on(&daemon, MODEL, &["--rank", "4"]), 0, &[]);
    }
}
