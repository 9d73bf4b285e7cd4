//! What a run reports of its adapter is what the files do to the same rows.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::fixture::{fixture_run, fixtures};
use qera_tests::three_layers::{DOWN, K, Q, daemon_with_shards, once_with, sine_values};
use serde_json::Value;

use crate::BINARY;
use crate::oracle::{WeightedRows, numbers, peft_factors};
use crate::replayed::{Replayed, replay};

/// The largest relative difference between a replayed error and the manifest's on these inputs.
const NEAR: f64 = 2e-6;

/// Rows of both sites of the four shards.
pub(crate) fn rows_of(layer: &str) -> WeightedRows {
    let (width, first) = if layer == DOWN { (12, 10.0) } else { (8, 0.0) };
    let shards = (0..4).flat_map(|shard| sine_values(300 * width, first + shard as f32));
    WeightedRows::plain(shards.collect(), width)
}

fn assert_same(replayed: &Replayed) {
    for layer in replayed.layers() {
        assert_eq!(layer["verdict"], "same", "{layer}");
        let deviation = layer["deviation"].as_f64().unwrap();
        assert!(deviation < NEAR, "{layer}");
    }
}

#[test]
fn the_files_do_what_the_definition_says() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let replayed = replay(&daemon, "qera-out/current", &[]);
    replayed.assert_holds();
    let at = |file: &str| daemon.path().join(file);
    for layer in [Q, K, DOWN] {
        let tensor = format!("{layer}.weight");
        let weight = numbers(&at("checkpoint/model.safetensors"), &tensor);
        let quantized = numbers(&at("qera-out/base/model.safetensors"), &tensor);
        let factors = peft_factors(&at("qera-out/current"), layer, 1.0);
        let expected = rows_of(layer).expected(&weight, &quantized, &factors);
        replayed.assert_figures(layer, &expected);
        let said = replayed.layer(layer);
        assert_eq!((&said["rows"], &said["rank"]), (&1200.into(), &2.into()));
    }
    assert_same(&replayed);
    let totals = replayed.totals();
    assert_eq!((&totals["layers"], &totals["same"]), (&3.into(), &3.into()));
    let mean = |figure: &str| {
        let layers = replayed.layers().iter();
        layers
            .map(|layer| layer[figure].as_f64().unwrap())
            .sum::<f64>()
            / 3.0
    };
    let total = |figure: &str| totals[figure].as_f64().unwrap();
    for figure in ["relative_without", "relative_with"] {
        let far = total(&format!("mean_{figure}")) - mean(figure);
        assert!(far.abs() < 1e-15, "{figure}: {far}");
    }
}

/// As text, a line a layer and one for all; the last line is the verdict as ever.
#[test]
fn a_person_reads_the_same() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--emit-base"])), 0, &[]);
    let options = ["verify", "--adapter", "qera-out/current"];
    let replayed = ["--replay", "activations", "--checkpoint", "checkpoint"];
    let run = daemon.run(&[&options[..], &replayed].concat());
    assert_eq!(run.code, 0, "{}{}", run.output, run.log);
    let lines: Vec<&str> = run.output.lines().collect();
    assert_eq!(lines.len(), 5, "{}", run.output);
    let of_q = format!("replay (peft): {Q}: error ");
    assert!(
        lines.iter().any(|line| line.starts_with(&of_q)),
        "{}",
        run.output
    );
    let of_layers = lines
        .iter()
        .filter(|line| line.ends_with("(the same rows)"));
    assert_eq!(of_layers.count(), 3, "{}", run.output);
    assert!(lines[3].starts_with("replay (peft): 3 layers, 1200 rows of 4 shards: error "));
    assert!(
        lines[3].contains("; 3 as in the manifest, within ") && lines[3].ends_with("; 0 harmed")
    );
    assert!(lines[4].starts_with("holds: "));
    // Without a replay nothing is said of one.
    let run = daemon.run(&options);
    assert!(
        run.code == 0 && !run.output.contains("replay"),
        "{}",
        run.output
    );
    let run = daemon.run(&[&options[..], &["--json"]].concat());
    let said: Value = serde_json::from_str(&run.output).unwrap();
    assert!(
        said["holds"] == true && said.get("replay").is_none(),
        "{said}"
    );
}

/// `--replay` of the fixture's shards and its model.
fn fixture_replay(daemon: &TestDaemon, base: &str, more: &[&str]) -> Replayed {
    let (shards, model) = (fixtures().join("activations"), fixtures().join("model"));
    let [shards, model] = [shards, model].map(|path| path.display().to_string());
    let options = ["--base", base, "--replay", &shards, "--checkpoint", &model];
    replay(daemon, "qera-out/current", &[&options[..], more].concat())
}

#[test]
fn the_fixture_s_manifest_is_right_about_every_layer() {
    let daemon = TestDaemon::new(BINARY);
    let options = ["--once", "--emit-base"];
    let run = daemon.run(&fixture_run(&fixtures().join("activations"), 4, &options));
    expect(&run, 0, &[]);
    let replayed = fixture_replay(&daemon, "qera-out/base", &[]);
    replayed.assert_holds();
    assert_eq!(replayed.layers().len(), 28);
    assert_same(&replayed);
    // Of some of the rows nothing is compared.
    let some = fixture_replay(
        &daemon,
        "qera-out/base",
        &["--replay-rows", "512", "--threads", "1"],
    );
    some.assert_holds();
    for (layer, whole) in some.layers().iter().zip(replayed.layers()) {
        assert_eq!(
            (&layer["rows"], &layer["verdict"]),
            (&512.into(), &"other-rows".into())
        );
        let of = |layer: &Value| layer["relative_with"].as_f64().unwrap();
        let ratio = of(layer) / of(whole);
        assert!((0.5..2.0).contains(&ratio), "{layer} {whole}");
    }
    // No bit depends on the number of threads.
    let alone = fixture_replay(&daemon, "qera-out/base", &["--threads", "1"]);
    assert_eq!(alone.said["replay"], replayed.said["replay"]);
}

#[test]
fn both_forms_of_a_base_and_both_kinds_of_rounding_are_right() {
    let daemon = TestDaemon::new(BINARY);
    let options = [
        "--once",
        "--quantizer",
        "mxint4",
        "--emit-base=hf,compressed-tensors",
        "--rounding",
        "projected",
    ];
    let options = fixture_run(&fixtures().join("activations"), 1, &options);
    // Its first two words are another grid.
    expect(&daemon.run(&options[2..]), 0, &[]);
    let numbers = fixture_replay(&daemon, "qera-out/base", &[]);
    let packed = fixture_replay(&daemon, "qera-out/base-compressed-tensors", &[]);
    for replayed in [&numbers, &packed] {
        replayed.assert_holds();
        assert_eq!(replayed.layers().len(), 7);
        assert_same(replayed);
    }
    // Code times scale is the number.
    assert_eq!(numbers.said["replay"], packed.said["replay"]);
}
