//! Every layer from the imatrix, with no row.

use std::fs;

use qera_tests::adapter::{Adapter, LoraFactors};
use qera_tests::daemon::expect;
use qera_tests::gguf_model::{GgufTestLayer, LAYERS as GGUF_LAYERS, ONCE, daemon_with_gguf};
use qera_tests::imatrix_file::{ImatrixEntry, legacy_imatrix};
use qera_tests::quantization::quantization_error;
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, daemon_without_shards, once_with, sine_values, write_checkpoint,
};

use super::{BINARY, LAYERS, SHARDS, alone_with, entries, rows_of, write_imatrix};

/// C = A B as [out, in], in f64.
fn product(of: &LoraFactors) -> Vec<f64> {
    let m = of.lora_a.len() / of.rank;
    let rows = of.lora_b.chunks_exact(of.rank);
    rows.flat_map(|b| {
        (0..m).map(move |i| {
            let terms = b.iter().enumerate();
            let term = |(k, b): (usize, &f32)| f64::from(*b) * f64::from(of.lora_a[k * m + i]);
            terms.map(term).sum()
        })
    })
    .collect()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// How far the corrections of two adapters are apart, over all layers.
fn distance(one: &Adapter, other: &Adapter) -> f64 {
    let of_layer = |(module, ..): &(&str, &str, usize)| {
        let (a, b) = (
            product(&one.factors(module)),
            product(&other.factors(module)),
        );
        let difference = a.iter().zip(&b).map(|(a, b)| a - b);
        norm(difference) / norm(a.iter().copied())
    };
    LAYERS.iter().map(of_layer).fold(0.0, f64::max)
}

fn weight(module: &str) -> Vec<f32> {
    match module {
        Q => sine_values(48, 0.0),
        K => sine_values(32, 1.0),
        _ => sine_values(96, 2.0),
    }
}

/// tr(D P P^T) from the definition, D = diag(E[x^2]) of the rows.
fn diagonal_error(module: &str, width: usize, correction: Option<&LoraFactors>) -> f64 {
    let error = quantization_error(&weight(module), width, 4, 4);
    let mut p: Vec<f64> = error.iter().map(|e| f64::from(*e)).collect();
    if let Some(of) = correction {
        p.iter_mut().zip(product(of)).for_each(|(p, c)| *p -= c);
    }
    let rows = rows_of(width);
    let count = (rows.len() / width) as f64;
    let mean_square = |channel: usize| {
        let values = rows.iter().skip(channel).step_by(width);
        values.map(|x| f64::from(*x).powi(2)).sum::<f64>() / count
    };
    let d: Vec<f64> = (0..width).map(mean_square).collect();
    let squares = p.iter().enumerate();
    squares.map(|(at, p)| d[at % width] * p * p).sum()
}

#[test]
fn it_gives_what_approx_gives_from_the_rows_that_were_summed_up() {
    let daemon = daemon_with_shards(BINARY);
    let f32_factors = ["--method", "approx", "--dtype", "f32"];
    let from_rows = once_with(&[&f32_factors[..], &["--out", "rows"]].concat());
    expect(&daemon.run(&from_rows), 0, &["3 layers corrected"]);
    write_imatrix(&daemon, "whole.gguf", &entries());
    let alone = |file: &'static str, out: &'static str| {
        daemon.run(&alone_with(file, &["--dtype", "f32", "--out", out]))
    };
    let said = [
        "imatrix whole.gguf: 3 entries, 4 chunks of 512 tokens (wiki.txt)",
        "imatrix: diagonal error ",
        "0 layers corrected, 3 by an imatrix, 0 starved",
    ];
    expect(&alone("whole.gguf", "whole"), 0, &said);
    let rows = daemon.adapter("rows");
    let whole = daemon.adapter("whole");
    assert!(
        distance(&rows, &whole) < 1e-5,
        "{}",
        distance(&rows, &whole)
    );

    // The same means in the legacy form.
    let legacy = legacy_imatrix(&entries(), 4, "wiki.txt");
    fs::write(daemon.path().join("legacy.dat"), legacy).unwrap();
    expect(&alone("legacy.dat", "legacy"), 0, &["3 by an imatrix"]);
    let legacy = daemon.adapter("legacy");
    assert!(distance(&rows, &legacy) < 1e-5);
    assert_eq!(legacy.manifest["inputs"]["imatrix"][0]["counts"], "chunks");

    // The same sums in two files that add up.
    for (name, first) in [("first.gguf", 0), ("second.gguf", SHARDS / 2)] {
        let half = |(_, tensor, width): &(&str, &str, usize)| {
            let rows = rows_of(*width);
            let shard = rows.len() / SHARDS;
            let half = &rows[first * shard..(first + SHARDS / 2) * shard];
            ImatrixEntry::of_rows(tensor, half, *width)
        };
        let halves: Vec<_> = LAYERS.iter().map(half).collect();
        write_imatrix(&daemon, name, &halves);
    }
    let more = ["--imatrix", "second.gguf", "--dtype", "f32", "--out", "two"];
    expect(&daemon.run(&alone_with("first.gguf", &more)), 0, &[]);
    let two = daemon.adapter("two");
    assert_eq!(two.manifest["inputs"]["imatrix"][1]["counts"], "tokens");
    assert!(distance(&rows, &two) < 1e-5);
    assert_eq!(two.layer(Q)["rows"], 1200);
    assert_eq!(
        two.manifest["inputs"]["imatrix"].as_array().unwrap().len(),
        2
    );
}

#[test]
fn a_legacy_file_among_others_is_an_estimate() {
    let daemon = daemon_without_shards(BINARY);
    write_imatrix(&daemon, "imatrix.gguf", &entries());
    let legacy = legacy_imatrix(&entries(), 4, "wiki.txt");
    fs::write(daemon.path().join("legacy.dat"), legacy).unwrap();
    let said = "legacy.dat counts chunks, each taken for as many tokens as another file's have";
    let run = daemon.run(&alone_with("imatrix.gguf", &["--imatrix", "legacy.dat"]));
    expect(&run, 0, &[said, "3 by an imatrix"]);
    let manifest = daemon.adapter("qera-out").manifest;
    let counts = |file: usize| manifest["inputs"]["imatrix"][file]["counts"].clone();
    assert_eq!(counts(0), "tokens");
    assert_eq!(counts(1), "chunks, estimated in tokens");
}

#[test]
fn what_is_said_of_it_is_the_diagonal_error_and_never_f() {
    let daemon = daemon_without_shards(BINARY);
    write_imatrix(&daemon, "imatrix.gguf", &entries());
    let run = daemon.run(&alone_with("imatrix.gguf", &["--once", "--dtype", "f32"]));
    expect(&run, 0, &["published generation 1"]);
    assert!(!run.log.contains(": error "), "{}", run.log);
    assert!(!daemon.path().join("qera-out/state").exists());
    let adapter = daemon.adapter("qera-out");
    let manifest = &adapter.manifest;
    assert_eq!(manifest["manifest_version"], 5);
    let file = &manifest["inputs"]["imatrix"][0];
    assert_eq!(file["file"], "imatrix.gguf");
    assert_eq!(file["datasets"][0], "wiki.txt");
    assert_eq!(
        (&file["counts"], &file["chunks"]),
        (&"tokens".into(), &4.into())
    );
    let bytes = fs::read(daemon.path().join("imatrix.gguf")).unwrap();
    let digest = format!("blake3:{}", blake3::hash(&bytes).to_hex());
    assert_eq!(file["digest"], digest.as_str());
    for (module, _, width) in LAYERS {
        let layer = adapter.layer(module);
        assert_eq!(layer["status"], "imatrix");
        assert_eq!(layer["statistic"], "imatrix");
        assert_eq!(layer["method"], "approx");
        assert_eq!(layer["rows"], 1200);
        for absent in ["error", "output_power"] {
            assert!(layer.get(absent).is_none(), "{absent}: {layer}");
        }
        assert!(layer["held_out_error"].is_null() && layer["evidence"].is_null());
        let said = |key: &str| layer["diagonal_error"][key].as_f64().unwrap();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b;
        let without = diagonal_error(module, width, None);
        let with = diagonal_error(module, width, Some(&adapter.factors(module)));
        assert!(close(said("without"), without), "{layer}: {without}");
        assert!(close(said("rounded"), with), "{layer}: {with}");
        assert!(with < without);
        assert!(close(said("relative_with"), with / said("power")));
    }
    let readme = fs::read_to_string(daemon.path().join("qera-out/current/README.md")).unwrap();
    for words in [
        "3 of 3 layers corrected by method `approx` from an imatrix",
        "imatrix.gguf",
        "diagonal error",
        "not measured",
    ] {
        assert!(readme.contains(words), "'{words}' is not in:\n{readme}");
    }
    for untrue in ["relative to the squared output", "No layer has an error"] {
        assert!(!readme.contains(untrue), "{readme}");
    }
    expect(
        &daemon.run(&["verify", "--adapter", "qera-out/current"]),
        0,
        &[],
    );
}

/// So little is left that a difference of traces cannot show it.
#[test]
fn a_correction_of_full_rank_leaves_nothing() {
    let daemon = daemon_without_shards(BINARY);
    write_imatrix(&daemon, "imatrix.gguf", &entries());
    let more = ["--rank-for", "*=8", "--dtype", "f32"];
    let run = daemon.run(&alone_with("imatrix.gguf", &more));
    expect(&run, 0, &["3 by an imatrix"]);
    let adapter = daemon.adapter("qera-out");
    for (module, _, width) in LAYERS {
        let layer = adapter.layer(module);
        let said = layer["diagonal_error"]["rounded"].as_f64().unwrap();
        let without = diagonal_error(module, width, None);
        let with = diagonal_error(module, width, Some(&adapter.factors(module)));
        assert!((0.0..1e-12 * without).contains(&said), "{layer}");
        // P is formed in f32.
        assert!((said - with).abs() <= 1e-13 * without, "{layer}: {with}");
    }
}

#[test]
fn rows_go_on_where_it_ended_and_no_state_is_in_their_way() {
    let daemon = daemon_with_shards(BINARY);
    write_imatrix(&daemon, "imatrix.gguf", &entries());
    let run = daemon.run(&alone_with("imatrix.gguf", &[]));
    expect(&run, 0, &["published generation 1"]);
    // Any method.
    let run = daemon.run(&once_with(&[]));
    expect(
        &run,
        0,
        &["published generation 2", "3 layers corrected, 0 starved"],
    );
    let adapter = daemon.adapter("qera-out");
    // The way back is told.
    let again = daemon.run(&alone_with("imatrix.gguf", &[]));
    let warned = "qera-out was solved from rows";
    expect(&again, 0, &[warned, "published generation 3"]);
    let again = daemon.run(&alone_with("imatrix.gguf", &[]));
    expect(&again, 0, &["published generation 4"]);
    assert!(!again.log.contains(warned), "{}", again.log);
    for (module, ..) in LAYERS {
        let layer = adapter.layer(module);
        assert_eq!(layer["status"], "solved");
        assert!(layer.get("statistic").is_none() && layer.get("diagonal_error").is_none());
        assert!(layer["error"]["with"].as_f64().unwrap() > 0.0);
    }
    assert!(adapter.manifest["inputs"].get("imatrix").is_none());
}

#[test]
fn layers_without_an_entry_are_starved_by_name() {
    let daemon = daemon_without_shards(BINARY);
    let mut few = entries();
    few.retain(|entry| entry.name != super::K_TENSOR);
    // Nothing was counted in it.
    few[1].count = 0.0;
    few[1].sums.fill(0.0);
    write_imatrix(&daemon, "imatrix.gguf", &few);
    let run = daemon.run(&alone_with("imatrix.gguf", &[]));
    let missing =
        format!("it has no entry, or only zeros, for 2 layers, which are starved: {DOWN}, {K}");
    expect(&run, 0, &[missing.as_str(), "1 by an imatrix, 2 starved"]);
    assert_eq!(run.log.matches("which are starved").count(), 1);
    assert!(!run.log.contains("no row seen"), "{}", run.log);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(Q)["status"], "imatrix");
    assert_eq!(adapter.layer(K)["status"], "starved");
    assert_eq!(adapter.layer(DOWN)["status"], "starved");
    assert!(adapter.has(Q) && !adapter.has(K) && !adapter.has(DOWN));
}

#[test]
fn sums_of_zero_say_nothing_whatever_was_counted() {
    let daemon = daemon_without_shards(BINARY);
    let mut zeros = entries();
    zeros[2].sums.fill(0.0);
    write_imatrix(&daemon, "imatrix.gguf", &zeros);
    let run = daemon.run(&alone_with("imatrix.gguf", &[]));
    let missing =
        format!("it has no entry, or only zeros, for 1 layers, which are starved: {DOWN}");
    expect(&run, 0, &[missing.as_str(), "2 by an imatrix, 1 starved"]);
    assert_eq!(daemon.adapter("qera-out").layer(DOWN)["status"], "starved");

    // Where this is true of all layers, nothing is published.
    for entry in &mut zeros {
        entry.sums.fill(0.0);
    }
    write_imatrix(&daemon, "zeros.gguf", &zeros);
    for entry in &mut zeros {
        entry.count = 0.0;
    }
    write_imatrix(&daemon, "uncounted.gguf", &zeros);
    for file in ["zeros.gguf", "uncounted.gguf"] {
        let run = daemon.run(&alone_with(file, &["--out", "none"]));
        let said = format!("imatrix {file}: says nothing of any of the 3 layers");
        expect(&run, 1, &[&said]);
        assert!(!daemon.path().join("none").exists());
    }
}

#[test]
fn a_layer_without_an_error_is_not_one_that_it_corrected() {
    let daemon = daemon_without_shards(BINARY);
    write_checkpoint(&daemon.path().join("checkpoint"), &[0.0; 48]);
    write_imatrix(&daemon, "imatrix.gguf", &entries());
    let run = daemon.run(&alone_with("imatrix.gguf", &[]));
    let said = "0 layers corrected, 1 solved without correction, 2 by an imatrix, 0 starved";
    expect(&run, 0, &[said]);
    assert_eq!(
        daemon.adapter("qera-out").layer(Q)["status"],
        "nothing-to-correct"
    );
}

/// The command of people who have a quantized model, its original and an imatrix.
#[test]
fn a_quantized_file_is_corrected_from_it() {
    let daemon = daemon_with_gguf(BINARY);
    let approx = [
        &ONCE[..],
        &["--method", "approx", "--dtype", "f32", "--out", "rows"],
    ]
    .concat();
    expect(&daemon.run(&approx), 0, &["3 layers corrected"]);
    let of = |layer: &GgufTestLayer| {
        let rows = [layer.rows(0.0), layer.rows(1.0)].concat();
        let tensor = format!("{}.weight", layer.tensor);
        ImatrixEntry::of_rows(&tensor, &rows, layer.in_features)
    };
    let entries: Vec<ImatrixEntry> = GGUF_LAYERS.iter().map(of).collect();
    write_imatrix(&daemon, "imatrix.gguf", &entries);
    let options = [
        "--rank",
        "4",
        "--method",
        "approx",
        "--dtype",
        "f32",
        "--imatrix",
        "imatrix.gguf",
    ];
    let rows = daemon.adapter("rows");
    // Input channels lie alike in both worlds, whatever becomes of a weight's rows.
    for checkpoint in ["checkpoint", "full.gguf"] {
        let out = format!("{checkpoint}-out");
        let files = [
            "--checkpoint",
            checkpoint,
            "--quantized",
            "model.gguf",
            "--format",
            "peft",
            "--out",
            &out,
        ];
        let run = daemon.run(&[&options[..], &files].concat());
        expect(&run, 0, &["0 layers corrected, 3 by an imatrix, 0 starved"]);
        let readme = daemon.path().join(&out).join("current/README.md");
        let readme = fs::read_to_string(readme).unwrap();
        for words in [
            "/model.gguf` corrected by method `approx` from an imatrix;",
            "No row of 3 of the corrected layers was seen",
            "E[x^2] of an imatrix (`imatrix.gguf`)",
        ] {
            assert!(readme.contains(words), "'{words}' is not in:\n{readme}");
        }
        assert!(!readme.contains("No layer has an error"), "{readme}");
        let given = daemon.adapter(&out);
        for layer in &GGUF_LAYERS {
            let pair = [&rows, &given].map(|of| product(&of.factors(layer.module)));
            let [a, b] = &pair;
            let apart = norm(a.iter().zip(b).map(|(a, b)| a - b)) / norm(a.iter().copied());
            assert!(apart < 1e-5, "{checkpoint}: {}: {apart}", layer.module);
        }
    }
}

#[test]
fn plan_knows_it() {
    let daemon = daemon_without_shards(BINARY);
    write_imatrix(&daemon, "imatrix.gguf", &entries()[..2]);
    let options = alone_with("imatrix.gguf", &[]);
    let run = daemon.run(&[&["plan"], &options[..]].concat());
    expect(&run, 0, &[]);
    let line = "imatrix: E[x^2] of 2 layers, 1 without an entry (imatrix.gguf)";
    assert!(run.output.contains(line), "{}", run.output);
    // No row is kept of any input.
    let json = [&["plan", "--log-format", "json"], &options[..]].concat();
    let plan: serde_json::Value = serde_json::from_str(&daemon.run(&json).output).unwrap();
    let sites = plan["sites"].as_array().unwrap();
    assert_eq!(sites.len(), 2);
    for site in sites {
        for kept in ["window_bytes", "aside_bytes", "rows_bound_bytes"] {
            assert_eq!(site[kept], 0, "{kept}: {site}");
        }
    }
    assert!(!daemon.path().join("qera-out").exists());
}
