//! Generations get better as samples arrive, and each of them is whole.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use qera_tests::adapter::{Adapter, output_error};
use qera_tests::event::{event, folded, published};
use qera_tests::fixture::{
    FixtureModel, ModuleInput, evaluation_tokens, fixture_shards, fixtures, write_stream,
};
use qera_tests::live::arrive;
use qera_tests::output_folder::generations;
use qera_tests::quantization::quantization_error;
use qera_tests::reference::from_bf16;
use qera_tests::tier;
use safetensors::SafeTensors;

use super::{RunningDaemon, begin_on_fixture, blocks};

/// One layer of each kind of site.
fn scored() -> [&'static str; 4] {
    tier::cases(
        [
            "model.layers.0.self_attn.q_proj",
            "model.layers.1.mlp.down_proj",
            "model.layers.0.mlp.gate_proj",
            "model.layers.1.self_attn.o_proj",
        ],
        [
            "model.layers.0.self_attn.q_proj",
            "model.layers.1.mlp.down_proj",
            "model.layers.2.mlp.gate_proj",
            "model.layers.3.self_attn.o_proj",
        ],
    )
}

/// E of a layer, [out_features, in_features].
fn error_of(module: &str, in_features: usize) -> Vec<f32> {
    let bytes = fs::read(fixtures().join("model/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weight = file.tensor(&format!("{module}.weight")).unwrap();
    quantization_error(&from_bf16(weight.data()), in_features, 3, 32)
}

/// What the modules see of the evaluation text, which never is in a watched folder.
fn evaluation_inputs() -> Vec<ModuleInput> {
    let model = FixtureModel::load_first(blocks());
    let mut joined: Vec<ModuleInput> = Vec::new();
    for tokens in &evaluation_tokens()[..16] {
        let inputs = model.inputs(tokens);
        if joined.is_empty() {
            joined = inputs;
            continue;
        }
        for (whole, part) in joined.iter_mut().zip(inputs) {
            whole.rows.extend(part.rows);
        }
    }
    joined
}

/// The mean over [`scored`] of each generation's error on the evaluation rows, relative to no
/// correction.
fn held_out_errors(out: &Path, numbers: &[u64]) -> Vec<f64> {
    let (modules, inputs) = (scored(), evaluation_inputs());
    let mut sums = vec![0.0; numbers.len()];
    for module in modules {
        let input = inputs.iter().find(|input| input.module == module).unwrap();
        let (rows, m) = (&input.rows, input.in_features);
        let error = error_of(module, m);
        let without = output_error(rows, &error, m, None);
        for (sum, number) in sums.iter_mut().zip(numbers) {
            let adapter = Adapter::load(&out.join(format!("generations/{number:06}")));
            *sum += output_error(rows, &error, m, Some(&adapter.factors(module))) / without;
        }
    }
    sums.iter().map(|sum| sum / modules.len() as f64).collect()
}

#[test]
fn generations_improve_as_samples_arrive() {
    let RunningDaemon { daemon, mut live } =
        begin_on_fixture(&["--keep-generations", "50", "--idle-publish", "1"]);
    live.wait_for(&event("watching").with("folder", "activations"));
    let model = FixtureModel::load_first(blocks());
    let shards = write_stream(&daemon.path().join("later"), &model, 16, 4);
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("s{index:02}");
        arrive(shard, &daemon.watched(), &name);
        live.wait_for(&folded(&name).with("rows", 512));
    }
    live.wait_for(&published(16));
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
    // By the evidence the correction lowers the error of rows that it had not seen.
    let adapter = daemon.adapter("qera-out");
    let evidence = &adapter.layer("model.layers.1.mlp.down_proj")["evidence"];
    assert!(evidence["blocks"].as_u64().unwrap() >= 2, "{evidence}");
    assert!(evidence["error"].as_f64().unwrap() < evidence["error_without"].as_f64().unwrap());
}

/// A reader that resolves `current` once always finds one whole generation.
#[test]
fn a_reader_never_sees_a_mixture() {
    let RunningDaemon { daemon, mut live } =
        begin_on_fixture(&["--keep-generations", "3", "--idle-publish", "1"]);
    let current = daemon.path().join("qera-out/current");
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&current, &stop));
        for (index, shard) in fixture_shards().iter().enumerate() {
            let name = format!("s{index}");
            arrive(shard, &daemon.watched(), &name);
            live.wait_for(&folded(&name));
            std::thread::sleep(Duration::from_millis(100));
        }
        live.wait_for(&published(8));
        assert_eq!(live.stop(), Some(0), "{}", live.log);
        stop.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    assert!(seen.len() >= 3, "{seen:?}");
    let out = daemon.path().join("qera-out");
    assert_eq!(generations(&out).len(), 3, "pruned");
    let last = fs::canonicalize(&current).unwrap();
    assert!(last.ends_with(format!("{:06}", generations(&out)[2])));
}

/// Reads what `current` names over and over; returns the generations that were seen.
fn read_until(current: &Path, stop: &AtomicBool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while !stop.load(Ordering::SeqCst) {
        let Ok(folder) = fs::canonicalize(current) else {
            continue;
        };
        let adapter = Adapter::load(&folder);
        let rank = usize::try_from(adapter.config["r"].as_u64().unwrap()).unwrap();
        for module in scored() {
            let used = adapter.layer(module)["rank_used"].as_u64().unwrap();
            assert!(used <= rank as u64);
            assert_eq!(adapter.factors(module).rank, rank);
        }
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        let title = format!("generation {}\n", name.trim_start_matches('0'));
        assert!(readme.contains(&title), "{readme}");
        seen.insert(name);
    }
    seen
}
