//! `verify` on such a base: names, shapes, W~, every byte of it.

use std::fs;

use qera_tests::daemon::{expect, expect_verdict};

use crate::model::{MODEL, base, base_file, daemon_with_model, rich_model, run_once};

#[test]
fn file_and_folder_are_the_base_wherever_they_lie() {
    let daemon = daemon_with_model(&rich_model());
    expect(&run_once(&daemon, &[]), 0, &[]);
    let holds = [
        "holds: ",
        "3 layers of rank 4 as gguf, on ",
        "base-gguf/model.gguf",
    ];
    for options in [
        &[][..],
        &["--base", "qera-out/base-gguf/model.gguf"],
        &["--base", "qera-out/base-gguf"],
    ] {
        let run = daemon.verify(options);
        expect_verdict(&run, 0, &holds);
        assert!(!run.output.contains("not checked"), "{}", run.output);
    }
    // A file that was copied to the place of the models is recognised by the manifest.
    fs::copy(base_file(&daemon), daemon.path().join("served.gguf")).unwrap();
    expect_verdict(&daemon.verify(&["--base", "served.gguf"]), 0, &["holds: "]);
    // Found beside the generation.
    let (from, to) = (daemon.path().join("qera-out"), daemon.path().join("moved"));
    fs::rename(from, to).unwrap();
    let moved = daemon.run(&["verify", "--adapter", "moved/current"]);
    expect_verdict(&moved, 0, &["on ", "moved/base-gguf/model.gguf"]);
}

/// In a block's codes, in its scale, in a tensor that is no layer, in the metadata.
#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let daemon = daemon_with_model(&rich_model());
    expect(&run_once(&daemon, &[]), 0, &[]);
    let down = base(&daemon).tensor("blk.0.ffn_down.weight").clone();
    let norm = base(&daemon).tensor("output_norm.weight").start;
    let bytes = fs::read(base_file(&daemon)).unwrap();
    let name = bytes.windows(6).position(|of| of == "naïve".as_bytes());
    let places = [
        down.start + 2,
        down.start,
        down.start + down.bytes.len() - 1,
        norm,
        name.unwrap(),
    ];
    for place in places {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1;
        fs::write(base_file(&daemon), &flipped).unwrap();
        let said = "is not the file that qera_base.json was written for";
        expect_verdict(&daemon.verify(&[]), 1, &["model.gguf: ", said]);
        fs::copy(base_file(&daemon), daemon.path().join("served.gguf")).unwrap();
        let said = "is not the file that the adapter's manifest was written for";
        expect_verdict(&daemon.verify(&["--base", "served.gguf"]), 1, &[said]);
    }
    fs::write(base_file(&daemon), &bytes).unwrap();
    expect_verdict(&daemon.verify(&[]), 0, &["holds: "]);
}

#[test]
fn another_file_is_named() {
    let daemon = daemon_with_model(&rich_model());
    expect(&run_once(&daemon, &[]), 0, &[]);
    // The model in full precision, as it is given to the run.
    let full = daemon.verify(&["--base", MODEL]);
    let said = "'model.layers.0.mlp.down_proj.weight' is not quantized by mxint4/32";
    expect_verdict(&full, 1, &[said]);
    // A base of another grid, with a record of its own.
    let options = ["--quantizer", "mxint3", "--out", "other"];
    expect(&run_once(&daemon, &options), 0, &[]);
    let other = daemon.verify(&["--base", "other/base-gguf"]);
    expect_verdict(
        &other,
        1,
        &["is quantized by mxint3/32, the adapter corrects mxint4/32"],
    );
    // Of an adapter that knows no such base numbers of a GGUF are to be on its grid all the same.
    let plain = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        MODEL,
        "--out",
        "plain",
    ];
    expect(&daemon.run(&plain), 0, &[]);
    let run = daemon.run(&[
        "verify",
        "--adapter",
        "plain/current",
        "--base",
        "model.gguf",
    ]);
    expect_verdict(&run, 1, &["model.gguf: ", said]);
    // A base that is given to another run with --quantized belongs to that run.
    let given = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
        "--out",
        "given",
    ];
    let given = [
        &given[..],
        &["--quantized", "qera-out/base-gguf/model.gguf"],
    ]
    .concat();
    expect(&daemon.run(&given), 0, &[]);
    let run = daemon.run(&["verify", "--adapter", "given/current"]);
    expect_verdict(&run, 0, &["holds: ", "base-gguf/model.gguf"]);
    // An adapter without the base may still be checked against it.
    let options = [
        "verify",
        "--adapter",
        "plain/current",
        "--base",
        "qera-out/base-gguf",
    ];
    let run = daemon.run(&options);
    expect_verdict(&run, 0, &["holds: "]);
}
