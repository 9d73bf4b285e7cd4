//! `plan` of a run that rounds under what it sees: what that takes, and when it happens.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::three_layers::{LIVE_OPTIONS, daemon_with_shards};
use serde_json::Value;

use super::BINARY;

fn plan(daemon: &TestDaemon, more: &[&str]) -> Value {
    let options = [&["plan", "--log-format", "json"], &LIVE_OPTIONS[..], more].concat();
    let run = daemon.run(&options);
    expect(&run, 0, &[]);
    serde_json::from_str(&run.output).unwrap()
}

fn stage(plan: &Value) -> Option<u64> {
    let mut stages = plan["stages"].as_array().unwrap().iter();
    let found = stages.find(|stage| stage["name"] == "rounding, beyond solving")?;
    found["bytes"].as_u64()
}

#[test]
fn what_rounding_takes_is_planned() {
    let daemon = daemon_with_shards(BINARY);
    let total = |plan: &Value| plan["total_bytes"].as_u64().unwrap();
    let nearest = plan(&daemon, &[]);
    assert_eq!(stage(&nearest), None);
    assert!(nearest["layers"][0].get("rounding").is_none(), "{nearest}");
    assert_eq!(nearest["round_flops"], 0.0);
    let projected = plan(&daemon, &["--rounding", "projected"]);
    let rounding = stage(&projected).unwrap();
    assert_eq!(total(&projected), total(&nearest) + rounding);
    let feedback = plan(&daemon, &["--rounding", "feedback"]);
    let flops = |plan: &Value| plan["round_flops"].as_f64().unwrap();
    assert!(flops(&projected) > 2.0 * flops(&feedback), "{projected}");
    assert!(flops(&feedback) > 0.0);
}

#[test]
fn when_a_layer_is_rounded_is_said() {
    let daemon = daemon_with_shards(BINARY);
    let after = |more: &[&str]| {
        let options = [&["--rounding", "projected"], more].concat();
        let plan = plan(&daemon, &options);
        let of = plan["layers"][0]["rounding"].clone();
        assert!(of["made"].is_null(), "{of}");
        of["round_after"].as_u64().unwrap()
    };
    assert_eq!(after(&[]), 4096);
    assert_eq!(after(&["--round-after", "700"]), 700);
    let text = |more: &[&str]| {
        let run = daemon.run(&[&["plan"], &LIVE_OPTIONS[..], more].concat());
        expect(&run, 0, &[]);
        run.output
    };
    let said = text(&["--rounding", "projected", "--rounding-shrinkage", "0.2"]);
    for words in [
        "rounding: projected, base share 0.01, shrinkage 0.2\n",
        "base alone",
        "4096",
        "GFlop to round 3 layers",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let nearest = text(&[]);
    assert!(!nearest.contains("round"), "{nearest}");
}
