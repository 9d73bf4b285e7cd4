//! What is said of a sketched layer: tr(G), between what and what the optimum lies, the error on
//! the window's rows; and f nowhere.

use qera_tests::adapter::output_error;
use qera_tests::daemon::expect;
use qera_tests::event::event;
use qera_tests::live::Live;
use serde_json::Value;

use crate::model::{K, O, Q, SHARDS, WIDE, error_of_q, live, once, rows_of, with_shards};

fn number(of: &Value) -> f64 {
    of.as_f64().unwrap_or_else(|| panic!("{of} is no number"))
}

#[test]
fn a_manifest_has_bounds_and_the_window_in_the_place_of_f() {
    let daemon = with_shards();
    let run = daemon.run(&once(&["--emit-base", "--dtype", "f32"]));
    expect(
        &run,
        0,
        &["on the window's rows", "sketched: the smallest is"],
    );
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.manifest["settings"]["statistics"], "sketch=16");
    for (module, is_sketched) in [(Q, true), (K, true), (O, false)] {
        let layer = adapter.layer(module);
        assert_eq!(layer["status"], "solved", "{layer}");
        for said in ["error", "output_power"] {
            assert_eq!(layer.get(said).is_some(), !is_sketched, "{layer}");
        }
        for said in ["window_error", "sketch"] {
            assert_eq!(layer.get(said).is_some(), is_sketched, "{layer}");
        }
        assert_eq!(layer["shrinkage_origin"], "held-out", "{layer}");
        assert!(number(&layer["held_out_error"]["mean"]) > 0.0);
    }
    // An oracle in f64 from the definition: 1,200 rows are all in the window.
    let rows: Vec<f32> = (0..SHARDS).flat_map(|shard| rows_of(shard, WIDE)).collect();
    let error = error_of_q();
    let trace = output_error(&rows, &error, WIDE, None);
    let left = output_error(&rows, &error, WIDE, Some(&adapter.factors(Q)));
    let layer = adapter.layer(Q);
    let near = |found: &Value, expected: f64| (number(found) / expected - 1.0).abs() < 1e-5;
    let sketch = &layer["sketch"];
    assert!(near(&sketch["trace"], trace), "{sketch} {trace}");
    assert_eq!(sketch["rows"], 16);
    let optimum = &sketch["optimum"];
    assert!(
        number(&optimum["least"]) <= left * (1.0 + 1e-6),
        "{optimum} {left}"
    );
    assert!(number(&optimum["most"]) < trace, "{optimum} {trace}");
    let window = &layer["window_error"];
    assert!(near(&window["without"], trace), "{window} {trace}");
    assert!(near(&window["rounded"], left), "{window} {left}");
    assert!(left < 0.9 * trace);
}

#[test]
fn events_status_readme_and_report_do_not_call_it_an_error() {
    let daemon = with_shards();
    let mut run = Live::start(daemon.command(&live(&["--idle-publish", "0.5"])));
    daemon.wait_until_idle(SHARDS);
    assert_eq!(run.stop(), Some(0), "{}", run.log);
    assert!(run.heard(&event("layer-sketched").with("layer", Q)));
    assert!(run.heard(&event("layer-solved").with("layer", O)));
    assert!(!run.heard(&event("layer-solved").with("layer", Q)));
    let status = daemon.status();
    for layer in status["layers"].as_array().unwrap() {
        let is_sketched = layer["name"] != O;
        assert_eq!(layer["error_without"].is_null(), is_sketched, "{layer}");
        assert_eq!(
            layer.get("window_error_with").is_some(),
            is_sketched,
            "{layer}"
        );
    }
    let table = daemon.run(&["status"]);
    assert!(
        table
            .output
            .contains("from a sketch; on the rows of the window")
    );
    let readme = daemon.path().join("qera-out/current/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    assert!(
        readme.contains("R of 2 of the corrected layers was not gathered"),
        "{readme}"
    );
    assert!(readme.contains("geometric means of 1 layers"), "{readme}");
    let report = daemon.run(&["report", "--out", "qera-out"]);
    assert_eq!(report.code, 0, "{}", report.log);
    assert!(report.output.contains("% (window)"), "{}", report.output);
}

/// `verify` holds, and a replay of the same rows agrees with what the window showed.
#[test]
fn a_generation_is_verified_and_replayed() {
    let daemon = with_shards();
    expect(&daemon.run(&once(&["--emit-base"])), 0, &[]);
    let options = [
        "--replay",
        "activations",
        "--checkpoint",
        "checkpoint",
        "--json",
    ];
    let run = daemon.verify(&options);
    assert_eq!(run.code, 0, "{}{}", run.output, run.log);
    let said: Value = serde_json::from_str(&run.output).unwrap();
    let layers = said["replay"][0]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    for layer in layers {
        assert_eq!(layer["verdict"], "same", "{layer}");
    }
}

/// The diagonal is kept beside the sketch: QERA-approx from the same state is that of any other.
#[test]
fn approx_still_works() {
    let daemon = with_shards();
    expect(&daemon.run(&once(&[])), 0, &[]);
    let options = [
        "--checkpoint",
        "checkpoint",
        "--rank",
        "4",
        "--method",
        "approx",
    ];
    let solve = [
        &["solve", "--state", "qera-out/state", "--out", "solved"],
        &options[..],
    ];
    for quantizer in ["mxint3", "mxint4"] {
        let solved = [&solve.concat()[..], &["--quantizer", quantizer]].concat();
        expect(&daemon.run(&solved), 0, &["3 layers corrected"]);
        let direct = ["--once", "--watch", "activations", "--out", "direct"];
        let direct = [&direct, &options[..], &["--quantizer", quantizer]].concat();
        expect(&daemon.run(&direct), 0, &[]);
        let [solved, direct] = ["solved", "direct"].map(|out| daemon.adapter(out));
        // O has R in one state and its diagonal in the other: dtypes are chosen by other figures.
        for module in [Q, K] {
            let [own, other] = [&solved, &direct].map(|of| of.factors(module));
            assert!(own.lora_a == other.lora_a && own.lora_b == other.lora_b);
        }
        for out in ["solved", "direct"] {
            std::fs::remove_dir_all(daemon.path().join(out)).unwrap();
        }
    }
    // A part of the layers.
    let part = ["solve", "--state", "qera-out/state", "--out", "part"];
    let part = [&part[..], &["--checkpoint", "checkpoint", "--rank", "4"]].concat();
    let own = [
        "--quantizer",
        "mxint3",
        "--statistics",
        "sketch",
        "--exclude",
        K,
    ];
    expect(
        &daemon.run(&[&part[..], &own].concat()),
        0,
        &["2 layers corrected"],
    );
    let [part, whole] = ["part", "qera-out"].map(|out| daemon.adapter(out));
    assert_eq!(part.layer(Q)["sketch"], whole.layer(Q)["sketch"]);
}

#[test]
fn plan_prints_each_choice() {
    let daemon = with_shards();
    let plan = daemon.run(&[&["plan"], &live(&["--once"])[..]].concat());
    assert_eq!(plan.code, 0, "{}", plan.log);
    for said in [
        "--statistics",
        "\nfull ",
        "\nsketch=16 ",
        "\ndiagonal ",
        "expected excess",
    ] {
        assert!(plan.output.contains(said), "{said}: {}", plan.output);
    }
    let json = [&["plan"], &live(&["--once", "--log-format", "json"])[..]].concat();
    let plan: Value = serde_json::from_str(&daemon.run(&json).output).unwrap();
    let bytes = |index: usize| number(&plan["choices"][index]["bytes"]);
    assert!(
        bytes(1) < bytes(0) && bytes(2) < bytes(1),
        "{}",
        plan["choices"]
    );
    assert_eq!(plan["choices"][1]["sketched"], 1);
    // What is planned of the sites is what the choice says, but for rows that wait: f32 here.
    let sites = plan["sites"].as_array().unwrap();
    let planned: f64 = sites
        .iter()
        .map(|site| number(&site["statistics_bytes"]))
        .sum();
    assert!((planned - bytes(1)).abs() < 1.0, "{planned} {}", bytes(1));
}
