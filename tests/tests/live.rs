//! The daemon beside an inference stack: shards arrive, generations get better, layers converge.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::fs;
use std::path::Path;

use qera_core::quantize::Mxint;
use qera_tests::daemon::{Adapter, TestDaemon, expect, output_error};
use qera_tests::live::{
    Live, arrive, fixture_model, fixture_run, fixture_shards, generations, long_stream,
};
use qera_tests::model::{FixtureModel, evaluation_tokens};
use qera_tests::reference::from_bf16;
use safetensors::SafeTensors;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// One layer of each kind of site.
const SCORED: [&str; 4] = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.mlp.down_proj",
    "model.layers.2.mlp.gate_proj",
    "model.layers.3.self_attn.o_proj",
];

/// A daemon on an empty folder, and the folder where shards wait to arrive.
fn begin(extra: &[&str]) -> (TestDaemon, Live) {
    let daemon = TestDaemon::new(BINARY);
    fs::create_dir(daemon.path().join("activations")).unwrap();
    let live = start(&daemon, extra);
    (daemon, live)
}

fn start(daemon: &TestDaemon, extra: &[&str]) -> Live {
    let model = fixture_model();
    let basic = fixture_run("activations", &model);
    Live::start(daemon.command(&[&basic, extra].concat()))
}

/// E of a layer, [out_features, in_features], by the core's quantizer.
fn quantization_error(module: &str) -> (Vec<f32>, usize) {
    let bytes = fs::read(Path::new(&fixture_model()).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(&format!("{module}.weight")).unwrap();
    let (weight, m) = (from_bf16(tensor.data()), tensor.shape()[1]);
    let mut quantized = vec![0.0; weight.len()];
    let quantizer = Mxint::new(3, 32).unwrap();
    quantizer
        .quantize_dequantize(&weight, m, &mut quantized)
        .unwrap();
    let error = weight.iter().zip(&quantized).map(|(w, q)| w - q).collect();
    (error, m)
}

/// Rows of the evaluation text, which never is in a watched folder, by module.
fn evaluation_rows(module: &str) -> Vec<f32> {
    let model = FixtureModel::load();
    let recorded = module
        .replace("k_proj", "q_proj")
        .replace("up_proj", "gate_proj");
    let mut rows = Vec::new();
    for tokens in &evaluation_tokens()[..16] {
        let inputs = model.inputs(tokens);
        let own = inputs.into_iter().find(|(name, ..)| *name == recorded);
        rows.extend(own.unwrap().2);
    }
    rows
}

/// The mean over [`SCORED`] of each generation's error on the evaluation rows, relative to no correction.
fn held_out_errors(out: &Path, numbers: &[u64]) -> Vec<f64> {
    let mut sums = vec![0.0; numbers.len()];
    for module in SCORED {
        let (rows, (error, m)) = (evaluation_rows(module), quantization_error(module));
        let without = output_error(&rows, &error, m, None);
        for (sum, number) in sums.iter_mut().zip(numbers) {
            let adapter = Adapter::load(&out.join(format!("generations/{number:06}")));
            let (a, b, rank) = adapter.factors(module);
            *sum += output_error(&rows, &error, m, Some((&a, &b, rank))) / without;
        }
    }
    sums.iter().map(|sum| sum / SCORED.len() as f64).collect()
}

#[test]
fn generations_improve_as_samples_arrive() {
    let (daemon, mut live) = begin(&["--keep-generations", "50", "--idle-publish", "1"]);
    let watched = daemon.path().join("activations");
    live.wait_for("watching activations");
    let shards = long_stream(&daemon.path().join("later"), 16, 4);
    for (index, shard) in shards.iter().enumerate() {
        arrive(shard, &watched, &format!("s{index:02}"));
        live.wait_for(&format!("folded s{index:02}.safetensors: 512 rows"));
    }
    live.wait_for("16 shards folded");
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let out = daemon.path().join("qera-out");
    let numbers = generations(&out);
    assert!(numbers.len() >= 3, "{numbers:?}");
    let errors = held_out_errors(&out, &numbers);
    let (first, last) = (errors[0], errors[errors.len() - 1]);
    assert!(last < 0.99 * first, "{errors:?}");
    for pair in errors.windows(2) {
        assert!(pair[1] < 1.01 * pair[0], "never much worse: {errors:?}");
    }
    // What is said of unseen rows before they are in is what it is.
    let adapter = daemon.adapter("qera-out");
    let evidence = &adapter.layer("model.layers.1.mlp.down_proj")["evidence"];
    assert!(evidence["blocks"].as_u64().unwrap() >= 2, "{evidence}");
    assert!(evidence["error"].as_f64().unwrap() < evidence["error_without"].as_f64().unwrap());
}

/// The last generation is a function of the shards in their order: the same as in a batch.
#[test]
fn a_drained_folder_ends_as_a_batch_does() {
    let (daemon, mut live) = begin(&["--idle-publish", "1", "--threads", "1"]);
    let watched = daemon.path().join("activations");
    for (index, shard) in fixture_shards().iter().enumerate() {
        arrive(shard, &watched, &format!("s{index}"));
        if index % 3 == 0 {
            live.wait_for(&format!("folded s{index}"));
        }
    }
    live.wait_for("8 shards folded");
    // Idle: everything is published and saved, and the process goes on.
    let status = loop {
        let status = daemon.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status.output).unwrap();
        if status["phase"] == "idle" {
            break status;
        }
        std::thread::sleep(core::time::Duration::from_millis(50));
    };
    assert_eq!(
        (&status["running"], &status["shards"]),
        (&true.into(), &8.into())
    );
    let table = daemon.run(&["status"]);
    assert!(table.output.contains("running (pid"), "{}", table.output);
    assert!(table.output.contains("model.layers.3.self_attn.v_proj"));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let again: serde_json::Value =
        serde_json::from_str(&daemon.run(&["status", "--json"]).output).unwrap();
    assert_eq!(
        (&again["running"], &again["phase"]),
        (&false.into(), &"stopped".into())
    );

    let batch = TestDaemon::new(BINARY);
    let activations = watched.display().to_string();
    let model = fixture_model();
    let once = [&["--once"][..], &fixture_run(&activations, &model)].concat();
    expect(&batch.run(&once), 0, &[]);
    let (live, batch) = (daemon.adapter("qera-out"), batch.adapter("qera-out"));
    assert!(
        live.bytes == batch.bytes,
        "adapter_model.safetensors differs"
    );
    assert_eq!(live.config, batch.config);
    assert_eq!(
        live.manifest["inputs"]["journal_digest"],
        batch.manifest["inputs"]["journal_digest"]
    );
    for drained in [&live, &batch] {
        assert_eq!(drained.manifest["inputs"]["drained"], true);
    }
}

/// 0.05 is reached on a long stream, and the run ends by itself; 0.0001 is not.
#[test]
fn layers_converge_by_themselves() {
    let stream = tempfile::tempdir().unwrap();
    let shards = long_stream(stream.path(), 50, 16);
    let watched = stream.path().display().to_string();
    let run = |tolerance: &str, extra: &[&str]| {
        let daemon = TestDaemon::new(BINARY);
        let model = fixture_model();
        let arguments = [
            &[
                "--watch",
                &watched,
                "--checkpoint",
                &model,
                "--quantizer",
                "mxint3",
                "--rank",
                "8",
                "--until-converged",
                "--tolerance",
                tolerance,
                "--idle-publish",
                "1",
            ],
            extra,
        ];
        let live = Live::start(daemon.command(&arguments.concat()));
        (daemon, live)
    };
    let (daemon, mut live) = run("0.05", &[]);
    assert_eq!(live.end(), Some(0), "{}", live.log);
    assert!(
        live.log
            .contains("all 28 layers that are fed have converged")
    );
    let adapter = daemon.adapter("qera-out");
    let layers = adapter.manifest["layers"].as_array().unwrap();
    for layer in layers {
        assert_eq!(layer["converged"], true, "{layer}");
        let evidence = &layer["evidence"];
        assert!(evidence["blocks"].as_u64().unwrap() >= 8, "{evidence}");
        assert!(evidence["gain_upper"].as_f64().unwrap() < 0.05);
    }
    check_scoring_cost(layers);

    // The same rows, a tolerance that they cannot show to be met.
    let (daemon, mut live) = run("0.0001", &[]);
    live.wait_for(&format!("{} shards folded", shards.len()));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!live.log.contains("have converged"), "{}", live.log);
    let adapter = daemon.adapter("qera-out");
    let converged = |layer: &&serde_json::Value| layer["converged"] == true;
    let count = adapter.manifest["layers"].as_array().unwrap().iter();
    assert!(count.filter(converged).count() < 28);
}

/// Rows scored at the last solve point, and what that costs beside accumulating the rows since the one before.
fn check_scoring_cost(layers: &[serde_json::Value]) {
    let number = |layer: &serde_json::Value, key: &str| layer[key].as_f64().unwrap();
    for member in ["q_proj", "o_proj", "gate_proj", "down_proj"] {
        let of_site = |layer: &&serde_json::Value| {
            let name = layer["name"].as_str().unwrap();
            name.starts_with("model.layers.0.") && shares_input(name, member)
        };
        let of_site: Vec<_> = layers.iter().filter(of_site).collect();
        let (m, mut cost) = (number(of_site[0], "in_features"), 0.0);
        for layer in &of_site {
            let n = number(layer, "out_features");
            cost += 2.0 * m * n + 4.0 * number(layer, "rank_used") * (m + n);
        }
        let evidence = &of_site[0]["evidence"];
        let rows = number(evidence, "rows_tested");
        // A point is met at the end of a shard: the one before was at two thirds of the rows, or up to a shard earlier.
        let since = number(evidence, "rows") / 3.0 + 2048.0;
        let share = rows * cost / (since * m * m);
        assert!(share < 0.05 && share > 0.02, "{member}: {share}");
    }
}

fn shares_input(name: &str, member: &str) -> bool {
    let leaf = name.rsplit('.').next().unwrap();
    match member {
        "q_proj" => ["q_proj", "k_proj", "v_proj"].contains(&leaf),
        "gate_proj" => ["gate_proj", "up_proj"].contains(&leaf),
        _ => leaf == member,
    }
}

/// A reader that resolves `current` once always finds one whole generation.
#[test]
fn a_reader_never_sees_a_mixture() {
    let (daemon, mut live) = begin(&["--keep-generations", "3", "--idle-publish", "1"]);
    let watched = daemon.path().join("activations");
    let current = daemon.path().join("qera-out/current");
    let stop = core::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(core::sync::atomic::Ordering::SeqCst);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !stopped() {
                let Ok(folder) = fs::canonicalize(&current) else {
                    continue;
                };
                let adapter = Adapter::load(&folder);
                let rank = usize::try_from(adapter.config["r"].as_u64().unwrap()).unwrap();
                for module in SCORED {
                    let used = adapter.layer(module)["rank_used"].as_u64().unwrap();
                    assert!(used <= rank as u64);
                    assert_eq!(adapter.factors(module).2, rank);
                }
                let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                let readme = fs::read_to_string(folder.join("README.md")).unwrap();
                let number = name.trim_start_matches('0');
                assert!(
                    readme.contains(&format!("generation {number}\n")),
                    "{readme}"
                );
                seen.insert(name);
            }
            seen
        });
        for (index, shard) in fixture_shards().iter().enumerate() {
            arrive(shard, &watched, &format!("s{index}"));
            live.wait_for(&format!("folded s{index}"));
            std::thread::sleep(core::time::Duration::from_millis(100));
        }
        live.wait_for("8 shards folded");
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        stop.store(true, core::sync::atomic::Ordering::SeqCst);
        reader.join().unwrap()
    });
    assert!(seen.len() >= 3, "{seen:?}");
    let out = daemon.path().join("qera-out");
    assert_eq!(generations(&out).len(), 3, "pruned");
    let last = fs::canonicalize(&current).unwrap();
    assert!(last.ends_with(format!("{:06}", generations(&out)[2])));
}
