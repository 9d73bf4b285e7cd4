//! Layers that converge by themselves, and what it costs to know.

use core::time::Duration;
use std::path::Path;

use qera_tests::daemon::TestDaemon;
use qera_tests::event::{event, published};
use qera_tests::fixture::{FixtureModel, LAYERS_OF_A_BLOCK, fixture_run, write_stream};
use qera_tests::live::Live;
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::{DOWN, Q, shard_path, sine_values, write_rows_of_both_sites};
use serde_json::{Value, json};

use super::{BINARY, RunningDaemon, begin_on_three_layers, blocks};

/// 0.05 is reached on a long stream, and the run ends by itself; 0.0001 is not.
#[test]
fn layers_converge_by_themselves() {
    let stream = tempfile::tempdir().unwrap();
    let model = FixtureModel::load_first(blocks());
    let shards = write_stream(stream.path(), &model, 50, 16);
    let layers = LAYERS_OF_A_BLOCK * blocks();

    let RunningDaemon { daemon, mut live } = until_converged(stream.path(), "0.05");
    assert_eq!(live.end(), Some(0), "{}", live.log);
    assert!(live.heard(&event("all-converged").with("layers", layers)));
    let adapter = daemon.adapter("qera-out");
    for layer in adapter.layers() {
        assert_eq!(layer["converged"], true, "{layer}");
        let evidence = &layer["evidence"];
        assert!(evidence["blocks"].as_u64().unwrap() >= 8, "{evidence}");
        assert!(evidence["gain_upper"].as_f64().unwrap() < 0.05);
    }
    check_scoring_cost(adapter.layers());

    // The same rows with a tolerance that they cannot show to be met.
    let RunningDaemon { daemon, mut live } = until_converged(stream.path(), "0.0001");
    live.wait_for(&published(shards.len()));
    let waiting = live.wait_for(&event("waiting").with("tolerance", 0.0001));
    assert!(waiting["gaining"].as_u64().unwrap() > 0, "{waiting}");
    assert!(
        waiting["gain_upper"].as_f64().unwrap() > 0.0001,
        "{waiting}"
    );
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!live.heard(&event("all-converged")), "{}", live.log);
    let adapter = daemon.adapter("qera-out");
    let converged = |layer: &&Value| layer["converged"] == true;
    assert!(adapter.layers().iter().filter(converged).count() < layers);
}

/// While it is idle a run says once what it waits for, and again when that has changed.
#[test]
fn what_is_waited_for_is_said() {
    let options = ["--until-converged", "--rescan-interval", "0.1"];
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&options);
    let waiting = |rows: u64, point: u64| {
        let next = json!({ "rows": rows, "point": point });
        let of_all = event("waiting").with("layers", 3).with("unscored", 3);
        of_all.with("next", next)
    };
    write_rows_of_both_sites(&daemon, "a", 0.0);
    let said = live.wait_for(&waiting(300, 450));
    let status = daemon.wait_until_idle(1);
    for (key, value) in status["waiting"].as_object().unwrap() {
        assert_eq!(&said[key], value, "{key}");
    }
    let table = daemon.run(&["status"]).output;
    for words in ["waiting for 3 layers", "at 450 rows, 300 came"] {
        assert!(table.contains(words), "{table}");
    }
    // Many listings later there is nothing new to say.
    std::thread::sleep(Duration::from_secs(1));
    write_rows_of_both_sites(&daemon, "b", 1.0);
    live.wait_for(&waiting(600, 900));
    assert_eq!(live.count(&event("waiting")), 2, "{}", live.log);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert_eq!(daemon.status()["waiting"], Value::Null);
}

/// A layer that no row feeds is waited for only where that was asked for.
#[test]
fn starved_layers_are_waited_for_with_require_all() {
    for (more, layers, starved) in [(&[][..], 2, 0), (&["--require-all"], 3, 1)] {
        let options = [&["--until-converged"], more].concat();
        let RunningDaemon { daemon, mut live } = begin_on_three_layers(&options);
        let rows = TensorToWrite::f32(Q, &[300, 8], &sine_values(2400, 0.0));
        let listed = format!(r#"[{{"name":"{DOWN}","in":12,"out":8}}]"#);
        let aside = daemon.path().join("aside");
        let metadata = [Metadata::new("qera.linears", &listed)];
        write_safetensors(&aside, &[rows], &metadata);
        std::fs::rename(aside, shard_path(&daemon, "a")).unwrap();
        let said = live.wait_for(&event("waiting"));
        assert_eq!(
            (&said["layers"], &said["starved"]),
            (&json!(layers), &json!(starved))
        );
        assert_eq!(live.stop(), Some(0), "{}", live.log);
    }
}

fn until_converged(stream: &Path, tolerance: &str) -> RunningDaemon {
    let daemon = TestDaemon::new(BINARY);
    let more = ["--until-converged", "--tolerance", tolerance];
    let more = [&more[..], &["--idle-publish", "1"]].concat();
    let live = Live::start(daemon.command(&fixture_run(stream, blocks(), &more)));
    RunningDaemon { daemon, live }
}

/// Rows scored at the last solve point, and what that costs beside accumulating the rows since the
/// one before.
fn check_scoring_cost(layers: &[Value]) {
    let number = |layer: &Value, key: &str| layer[key].as_f64().unwrap();
    for member in ["q_proj", "o_proj", "gate_proj", "down_proj"] {
        let of_site = |layer: &&Value| {
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
        // A point is met at the end of a shard: the one before was at two thirds of the rows, or up
        // to a shard earlier.
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
