//! What base and adapter cost is said, by what they are stored in.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::gguf_model::{GgufTestLayer, LAYERS, ONCE};
use qera_tests::gguf_read::ReadGguf;
use serde_json::{Value, json};

use crate::model::{EMITS, MODEL, ON_MODEL, base, daemon_with_model, rich_model, run_once};

fn numbers(layer: &GgufTestLayer) -> usize {
    layer.in_features * layer.out_features
}

/// Bits of factors of this rank in f16, over the weights of all layers.
fn adapter_bits(rank: usize) -> f64 {
    let factors = LAYERS.map(|layer| rank * (layer.in_features + layer.out_features));
    let weights: usize = LAYERS.iter().map(numbers).sum();
    16.0 * factors.iter().sum::<usize>() as f64 / weights as f64
}

fn expect_bits(bits: &Value, base: f64, base_as: &str, next: &Value) {
    let near = |found: &Value, expected: f64| {
        let found = found.as_f64().unwrap();
        assert!(
            (found - expected).abs() < 1e-9,
            "{found}, not {expected}: {bits}"
        );
    };
    near(&bits["base"], base);
    assert_eq!(bits["base_as"], base_as);
    assert_eq!(bits["layers"], 3);
    near(&bits["adapter"], adapter_bits(4));
    near(&bits["both"], base + adapter_bits(4));
    assert_eq!(bits["next_to_base"], *next, "{bits}");
}

fn bits(daemon: &TestDaemon, out: &str) -> Value {
    daemon.manifest(out)["bits_per_weight"].clone()
}

#[test]
fn of_the_gguf_that_is_written() {
    let daemon = daemon_with_model(&rich_model());
    let run = run_once(&daemon, &["--quantizer", "mxint3"]);
    let said =
        "; 4.50 (gguf) + 4.18 = 8.68 bits a weight; next types of ggml: Q4_1 5.00, F16/BF16 16.00";
    expect(&run, 0, &[said]);
    let next = json!({"types": ["Q4_1"], "bits": 5.0});
    expect_bits(&bits(&daemon, "qera-out"), 4.5, "gguf", &next);
    // The bits of the file that an engine reads.
    let base = base(&daemon);
    let stored = LAYERS.map(|of| base.tensor(&format!("{}.weight", of.tensor)).bytes.len());
    let weights: usize = LAYERS.iter().map(numbers).sum();
    assert_eq!(8 * stored.iter().sum::<usize>(), weights * 9 / 2);
    let adapter = ReadGguf::open(&daemon.path().join("qera-out/current/adapter.gguf"));
    let factors = LAYERS.iter().flat_map(|of| {
        let factor = |name: &str| format!("{}.weight.lora_{name}", of.tensor);
        [factor("a"), factor("b")]
    });
    let bytes: usize = factors.map(|name| adapter.tensor(&name).bytes.len()).sum();
    let of_adapter = 8.0 * bytes as f64 / weights as f64;
    assert!((of_adapter - adapter_bits(4)).abs() < 1e-9, "{of_adapter}");

    // The plan says the same before a row is read.
    let plan = daemon.run(&[&["plan"], &ON_MODEL[..], &[EMITS, "--quantizer", "mxint3"]].concat());
    for said in [
        "base as GGUF: 3 layers in Q4_0, 4.50 bits a weight",
        "4.50 (gguf) + 4.18 = 8.68 bits a weight; next types of ggml: Q4_1 5.00",
    ] {
        assert!(plan.output.contains(said), "{said}: {}", plan.output);
    }
    let options = [
        EMITS,
        "--log-format",
        "json",
        "--quantizer",
        "int4",
        "--zero-points",
    ];
    let plan = daemon.run(&[&["plan"], &ON_MODEL[..], &options].concat());
    let plan: Value = serde_json::from_str(&plan.output).unwrap();
    let refused = plan["model"]["gguf_base"]["refused"].as_str().unwrap();
    assert!(refused.contains("no zero points"), "{plan}");
}

/// Some layers in blocks, others not: as many bits as all of it takes.
#[test]
fn of_what_is_given_or_written_as_numbers_or_not_at_all() {
    let daemon = daemon_with_model(&rich_model());
    // Codes of three bits, and an exponent of eight for 32 of them.
    let grid = json!({"types": ["Q3_K", "IQ3_S"], "bits": 3.4375});
    for (checkpoint, options, out) in [
        (MODEL, &[][..], "without"),
        ("checkpoint", &["--emit-base"], "numbers"),
    ] {
        let once = [
            "--once",
            "--watch",
            "activations",
            "--rank",
            "4",
            "--quantizer",
            "mxint3",
        ];
        let more = ["--checkpoint", checkpoint, "--out", out];
        expect(
            &daemon.run(&[&once[..], &more, options].concat()),
            0,
            &["3.25 (grid) + "],
        );
        expect_bits(&bits(&daemon, out), 3.25, "grid", &grid);
    }
    expect(
        &daemon.run(&[&ONCE[..], &["--out", "given"]].concat()),
        0,
        &["4.50 (given) + "],
    );
    let next = json!({"types": ["Q4_1"], "bits": 5.0});
    expect_bits(&bits(&daemon, "given"), 4.5, "given", &next);
    // Nothing is corrected.
    let none = ["--method", "w-only", "--out", "none"];
    let run = daemon.run(&[&["--once"], &ON_MODEL[..], &none].concat());
    assert!(
        run.code == 0 && !run.log.contains("bits a weight"),
        "{}",
        run.log
    );
    assert_eq!(bits(&daemon, "none"), Value::Null);
}
