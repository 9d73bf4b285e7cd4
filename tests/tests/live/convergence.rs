//! Layers that converge by themselves, and what it costs to know.

use std::path::Path;

use qera_tests::daemon::TestDaemon;
use qera_tests::event::{event, published};
use qera_tests::fixture::{FixtureModel, LAYERS_OF_A_BLOCK, fixture_run, write_stream};
use qera_tests::live::Live;
use serde_json::Value;

use super::{BINARY, RunningDaemon, blocks};

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

    // The same rows, a tolerance that they cannot show to be met.
    let RunningDaemon { daemon, mut live } = until_converged(stream.path(), "0.0001");
    live.wait_for(&published(shards.len()));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(!live.heard(&event("all-converged")), "{}", live.log);
    let adapter = daemon.adapter("qera-out");
    let converged = |layer: &&Value| layer["converged"] == true;
    assert!(adapter.layers().iter().filter(converged).count() < layers);
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
