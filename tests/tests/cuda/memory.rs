//! What a plan says of a device, and a device without room.

use std::sync::{Mutex, PoisonError};

use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::fixture::{fixture_run, fixtures};
use qera_tests::planned_run::{LayerShape, PlannedRun, ShardInput};

use super::BINARY;
use super::stand_in::{Counts, StandIn, tells_who_moved};

/// Two inputs, one of them narrower.
const MEASURED: PlannedRun = PlannedRun {
    binary: BINARY,
    name: "beside the device",
    layers: &[
        LayerShape {
            module: "model.layers.0.self_attn.o_proj",
            out_features: 768,
            in_features: 512,
        },
        LayerShape {
            module: "model.layers.0.mlp.down_proj",
            out_features: 512,
            in_features: 768,
        },
    ],
    inputs: &[
        ShardInput {
            module: "model.layers.0.self_attn.o_proj",
            in_features: 512,
        },
        ShardInput {
            module: "model.layers.0.mlp.down_proj",
            in_features: 768,
        },
    ],
    shards: 6,
    rows: 1024,
    live: false,
    options: &["--threads", "1", "--device", "cuda"],
};
/// Runs are measured one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn run(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let watched = fixtures().join("activations");
    let options = fixture_run(&watched, 1, &[&["--once"], more].concat());
    StandIn::default().run(daemon, &options)
}

/// `plan` says what is computed there, and counts the rows that are kept for it.
#[test]
fn plan_says_what_is_computed_there() {
    let daemon = TestDaemon::new(BINARY);
    let asked = ["--device", "cuda", "--rounding", "feedback", "plan"];
    let planned = run(&daemon, &asked);
    expect(&planned, 0, &[]);
    for said in [
        "device: CPU stand-in",
        "rows are summed for 4 of 4 inputs there in ",
        "layers are solved of 4 of 4 inputs there in ",
        "layers are rounded of 4 of 4 inputs there in ",
        "rows kept for the device",
        "rows on their way to it",
    ] {
        assert!(planned.output.contains(said), "{}", planned.output);
    }
    let nearest = run(&daemon, &["--device", "cuda", "plan"]);
    assert!(
        !nearest.output.contains("layers are rounded"),
        "{}",
        nearest.output
    );
    // All of it is too small to be worth it.
    let small = run(&daemon, &["--device", "auto", "plan"]);
    let said = "rows are summed for 0 of 4 inputs there, on the CPU model.layers.0.";
    assert!(small.output.contains(said), "{}", small.output);
    let here = run(&daemon, &["--device", "cpu", "plan"]);
    assert!(!here.output.contains("device"), "{}", here.output);
}

/// Asserts that what a plan says of the device's memory and of the host's is no less than what a
/// run takes, and not twice as much: the host's has room for what the device does, should that
/// fail, and for a solve that meets a shard.
fn is_planned(run: PlannedRun) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let counts = tempfile::NamedTempFile::new().unwrap();
    let measured = run.measure_beside(|command| {
        StandIn::default().beside(command, counts.path());
    });
    let device = &measured.plan["device"];
    let bytes = |of: &serde_json::Value| of.as_u64().unwrap_or(0);
    let of = |work: &str| bytes(&device[work]["bytes"]);
    let solving = of("solved").max(of("rounded"));
    let planned = bytes(&device["workspace_bytes"]) + of("summed") + solving;
    assert!(planned <= bytes(&device["memory_bytes"]));
    let there = (planned, Counts::of(counts.path()).most);
    let here = (measured.planned, measured.seen);
    for (place, (planned, most)) in [("there", there), ("here", here)] {
        let said = format!("{}, {place}: planned {planned}, most {most}", run.name);
        eprintln!("{said}");
        assert!((most..2 * most).contains(&planned), "{said}");
    }
}

#[test]
fn memory_of_a_batch_is_planned() {
    is_planned(MEASURED);
}

#[test]
fn memory_of_a_live_run_is_planned() {
    is_planned(PlannedRun {
        name: "beside the device, live",
        live: true,
        ..MEASURED
    });
}

#[test]
fn memory_of_rounding_is_planned() {
    is_planned(PlannedRun {
        name: "beside the device, rounded",
        options: &[
            "--threads",
            "1",
            "--device",
            "cuda",
            "--rounding",
            "projected",
        ],
        ..MEASURED
    });
}

/// A device that has no room for a small layer is not used: `auto` says so and computes here.
#[test]
fn a_device_without_room_is_not_used() {
    let daemon = TestDaemon::new(BINARY);
    let tight = ["--device-memory", "70MiB", "--device"];
    let refused = run(&daemon, &[&tight[..], &["cuda"]].concat());
    expect(
        &refused,
        2,
        &[
            "--device cuda:0: cannot be used: ",
            "too little device memory: 70 MiB may be used, of 2048 MiB that are free, and ",
        ],
    );
    let here = run(&daemon, &[&tight[..], &["auto"]].concat());
    let said = "too little device memory: 70 MiB may be used, of 2048 MiB";
    expect(&here, 0, &["computing on the CPU by ", said]);
    assert!(daemon.adapter("qera-out").manifest["device"].is_null());
}

/// An input for which there is no room stays here by name, and no call fails for it.
#[test]
fn an_input_without_room_stays_here() {
    let tight = PlannedRun {
        options: &["--device", "cuda", "--device-memory", "100MiB"],
        shards: 1,
        ..MEASURED
    };
    let daemon = tight.files();
    let asked = |more: &[&str]| -> Vec<String> {
        tight.arguments(more).into_iter().map(Into::into).collect()
    };
    let planned = StandIn::default().run(&daemon, &asked(&["--once", "plan"]));
    let planned: serde_json::Value = serde_json::from_str(&planned.output).unwrap();
    let here = |work: &str| planned["device"][work]["here"].clone();
    let [o, down] = [0, 1].map(|layer| tight.layers[layer].module);
    assert_eq!(here("summed"), serde_json::json!([down]));
    assert_eq!(here("solved"), serde_json::json!([down, o]));
    let adapters = ["1", "2"].map(|threads| {
        // Each has a state of its own.
        let more = ["--once", "--threads", threads, "--out", threads];
        let run = StandIn::default().run(&daemon, &asked(&more));
        expect(&run, 0, &["CPU stand-in"]);
        assert!(!tells_who_moved(&run.log), "{}", run.log);
        daemon.adapter(threads).bytes
    });
    assert!(adapters[0] == adapters[1]);
}
