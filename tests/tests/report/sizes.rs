//! A page stays below 1 MB, and says what it leaves out.

use qera_tests::daemon::TestDaemon;
use serde_json::{Value, json};

use crate::{BINARY, page, write_generation};

fn layer(name: String, error: f64) -> Value {
    json!({
        "name": name, "status": "solved", "rank_asked": 32, "rank_used": 32,
        "quantizer": "mxint3/32", "shrinkage": 0.05, "shrinkage_origin": "held-out",
        "rows": 32_768, "converged": true,
        "error": {"relative_without": 4.0 * error, "relative_with": error},
        "held_out_error": {"mean": 1.2, "half_width": 0.1, "mean_without": 4.0},
    })
}

fn written(layers: &[Value]) -> String {
    let daemon = TestDaemon::new(BINARY);
    let why = "not known to be a linear layer";
    let passed = |number| json!({"tensors": format!("t{number}"), "why": why, "share": 1e-4});
    let passed: Vec<Value> = (0..500).map(passed).collect();
    let manifest = json!({"manifest_version": 4, "layers": layers, "passed_over": passed});
    write_generation(&daemon.path().join("qera-out"), &manifest);
    page(&daemon, &[])
}

/// Experts by the thousand: the charts have all, the table those with the largest errors.
#[test]
fn a_model_of_many_experts_fits() {
    let mut layers = Vec::new();
    for block in 0..48 {
        for expert in 0..64 {
            for part in ["gate_proj", "up_proj", "down_proj"] {
                let name = format!("model.layers.{block}.mlp.experts.{expert}.{part}");
                layers.push(layer(name, f64::from(block + 1) / 1e3));
            }
        }
    }
    let page = written(&layers);
    assert!(page.len() < 1_000_000, "{}", page.len());
    assert!(page.contains("9216 of 9216"), "{page}");
    assert!(page.contains("7716 more are in the charts and in the manifest"));
    assert!(page.contains("each bar is the mean of 48 layers"));
    assert!(page.contains("300 more are in the manifest."));
    assert!(page.contains(">model.layers.47.mlp.experts.63.up_proj</th>"));
    assert!(!page.contains(">model.layers.0.mlp.experts.0.up_proj</th>"));
}

/// Names without numbers: every layer is a kind of its own.
#[test]
fn a_model_of_many_kinds_fits() {
    let name = |number: usize| {
        format!(
            "{}.{}",
            "x".repeat(200),
            number.to_string().replace('1', "one")
        )
    };
    let layers: Vec<_> = (0..100).map(|of| layer(name(of) + "y", 1e-3)).collect();
    let page = written(&layers);
    assert!(page.len() < 1_000_000, "{}", page.len());
    assert!(
        page.contains("84 more kinds are in the table alone."),
        "{page}"
    );
}

/// The usual: 32 blocks of seven layers, of which none is left out.
#[test]
fn every_layer_of_a_usual_model_is_there() {
    let mut layers = Vec::new();
    for block in 0..32 {
        for part in ["q", "k", "v", "o", "gate", "up", "down"] {
            layers.push(layer(format!("model.layers.{block}.{part}_proj"), 0.01));
        }
    }
    let page = written(&layers);
    for layer in &layers {
        let row = format!(">{}</th>", layer["name"].as_str().unwrap());
        assert_eq!(page.matches(&row).count(), 1, "{row}");
    }
    assert!(!page.contains("more are in the charts"));
    assert!(page.len() < 400_000, "{}", page.len());
}
