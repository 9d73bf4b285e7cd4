//! What a plan says of a device, and a device without room.

use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::fixture::{fixture_run, fixtures};

use super::BINARY;
use super::stand_in::StandIn;

fn run(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let watched = fixtures().join("activations");
    let options = fixture_run(&watched, 1, &[&["--once"], more].concat());
    StandIn::default().run(daemon, &options)
}

/// `plan` says what is computed there, and counts the rows that are kept for it.
#[test]
fn plan_says_what_is_computed_there() {
    let daemon = TestDaemon::new(BINARY);
    let planned = run(&daemon, &["--device", "cuda", "plan"]);
    expect(&planned, 0, &[]);
    for said in [
        "device: CPU stand-in",
        "rows are summed for 4 of 4 inputs there",
        "layers are solved of 4 of 4 inputs there",
        "rows kept for the device",
    ] {
        assert!(planned.output.contains(said), "{}", planned.output);
    }
    // All of it is too small to be worth it.
    let small = run(&daemon, &["--device", "auto", "plan"]);
    let said = "rows are summed for 0 of 4 inputs there, on the CPU model.layers.0.";
    assert!(small.output.contains(said), "{}", small.output);
    let here = run(&daemon, &["--device", "cpu", "plan"]);
    assert!(!here.output.contains("device"), "{}", here.output);
}

/// A device that has no room for a small layer is not used: `auto` says so and computes here.
#[test]
fn a_device_without_room_is_not_used() {
    let daemon = TestDaemon::new(BINARY);
    let tight = ["--device-memory", "70MiB", "--device"];
    let refused = run(&daemon, &[&tight[..], &["cuda"]].concat());
    expect(&refused, 2, &["--device cuda:0: cannot be used: ", "room"]);
    let here = run(&daemon, &[&tight[..], &["auto"]].concat());
    expect(&here, 0, &["computing on the CPU by ", "room"]);
    assert!(daemon.adapter("qera-out").manifest["device"].is_null());
}
