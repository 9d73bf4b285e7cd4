//! W~ that was rounded under what was seen goes where such a checkpoint's W~ can be.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect, expect_verdict};
use qera_tests::gguf_model::LAYERS;
use qera_tests::gguf_read::ReadGguf;

use crate::model::{MODEL, ON_MODEL, base, base_file, daemon_with_model, rich_model};

/// The base of a run on the Hugging Face folder, which holds the same W.
fn of_folder(daemon: &TestDaemon, options: &[&str]) -> safetensors_of::Numbers {
    let once = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
    ];
    let run = daemon.run(&[&once[..], &["--rank", "4", "--out", "of-folder"], options].concat());
    expect(&run, 0, &["base written: "]);
    safetensors_of::Numbers::open(&daemon.path().join("of-folder/base/model.safetensors"))
}

mod safetensors_of {
    use std::path::Path;

    /// The weights of a base, as numbers.
    pub(super) struct Numbers(Vec<u8>);

    impl Numbers {
        pub(super) fn open(path: &Path) -> Self {
            Self(std::fs::read(path).unwrap())
        }

        pub(super) fn weight(&self, module: &str) -> Vec<f32> {
            let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
            let tensor = file.tensor(&format!("{module}.weight")).unwrap();
            let words = tensor.data().chunks(4);
            words
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect()
        }
    }
}

/// A copy of the base without its record is told by the manifest, to the last bit; a copy of the
/// adapter without its manifest by its own keys.
fn assert_copies_are_known(daemon: &TestDaemon) {
    let (copy, base) = (daemon.path().join("served.gguf"), base_file(daemon));
    fs::copy(base, &copy).unwrap();
    expect_verdict(&daemon.verify(&["--base", "served.gguf"]), 0, &["holds: "]);
    let mut bytes = fs::read(&copy).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&copy, bytes).unwrap();
    let said = "is not the file that the adapter's manifest was written for";
    expect_verdict(&daemon.verify(&["--base", "served.gguf"]), 1, &[said]);
    let alone = daemon.path().join("x.gguf");
    fs::copy(daemon.path().join("qera-out/current/adapter.gguf"), alone).unwrap();
    let on = [
        "verify",
        "--adapter",
        "x.gguf",
        "--base",
        "qera-out/base-gguf",
    ];
    let run = daemon.run(&on);
    expect_verdict(&run, 0, &["holds: "]);
    assert!(!run.output.contains("other names"), "{}", run.output);
}

#[test]
fn it_is_a_gguf_where_the_checkpoint_is_one() {
    for (rounding, quantizer) in [
        ("projected", "mxint3"),
        ("feedback", "q4-0"),
        ("projected", "int4"),
    ] {
        let daemon = daemon_with_model(&rich_model());
        let options = ["--quantizer", quantizer, "--rounding", rounding];
        // Nobody asks for a base.
        let run = daemon.run(&[&["--once"], &ON_MODEL[..], &options].concat());
        expect(&run, 0, &["base as GGUF written", "3 layers corrected"]);
        assert!(!daemon.path().join("qera-out/base").exists());
        let base = base(&daemon);
        let numbers = of_folder(&daemon, &options);
        for layer in &LAYERS {
            crate::model::assert_holds(&base, layer, &numbers.weight(layer.module));
        }
        let verdict = daemon.run(&["verify", "--adapter", "qera-out/current"]);
        assert_eq!(verdict.code, 0, "{}", verdict.output);
        assert!(
            !verdict.output.contains("not checked"),
            "{}",
            verdict.output
        );
        assert_copies_are_known(&daemon);
        let again = daemon.run(&[&["--once"], &ON_MODEL[..], &options].concat());
        expect(&again, 0, &["nothing new"]);
        // The base's W~ is not made again beside it.
        fs::remove_dir_all(daemon.path().join("qera-out/state/rounded")).unwrap();
        let refused = daemon.run(&[&["--once"], &ON_MODEL[..], &options].concat());
        expect(&refused, 4, &["base-gguf"]);
    }
}

#[test]
fn another_adapter_of_the_same_state_goes_on_the_same_w() {
    let daemon = daemon_with_model(&rich_model());
    let options = ["--quantizer", "mxint3", "--rounding", "projected"];
    let run = daemon.run(&[&["--once"], &ON_MODEL[..], &options].concat());
    expect(&run, 0, &[]);
    let solve = [
        "solve",
        "--state",
        "qera-out/state",
        "--out",
        "solved",
        "--rank",
        "2",
    ];
    let solve = [
        &solve[..],
        &["--checkpoint", MODEL, "--lower-rank"],
        &options,
    ]
    .concat();
    expect(&daemon.run(&solve), 0, &["base as GGUF written"]);
    let solved = ReadGguf::open(&daemon.path().join("solved/base-gguf/model.gguf"));
    assert_eq!(solved, base(&daemon));
}
