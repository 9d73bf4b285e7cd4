//! Which device is used, how much of its memory and of the host's, and what is said of it.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::fixture::{fixture_run, fixtures};
use qera_tests::planned_run::{LayerShape, PlannedRun, ShardInput};

use super::BINARY;
use super::stand_in::{StandIn, tells_who_moved};

fn options(more: &[&str]) -> Vec<String> {
    let watched = fixtures().join("activations");
    fixture_run(&watched, 1, &[&["--once"], more].concat())
}

/// What is said of devices that cannot be used, in the order of `auto`.
const REFUSED: [&str; 5] = [
    "cuda:0: cuDevicePrimaryCtxRetain failed with error 46 (CUDA_ERROR_DEVICE_UNAVAILABLE)",
    "; cuda:1: the device has compute capability 7.0, and 8.0 is needed",
    "; cuda:2: too little device memory: 51 MiB may be used, of 64 MiB that are free, and ",
    "; cuda:3: CPU stand-in (2048 MiB, compute capability 9.0): failed the self-test: R[",
    " of f32 rows is ",
];

/// `auto` takes the first device that serves, and says in one line why those before it do not.
#[test]
fn auto_tries_each_device_in_its_order() {
    let standing = StandIn::of("busy,old,small,tf32-rows,good,good");
    let daemon = TestDaemon::new(BINARY);
    let planned = standing.run(&daemon, &options(&["--device", "auto", "plan"]));
    expect(&planned, 0, &[]);
    let line = |text: &str, of: &str| -> String {
        let found = text.lines().find(|line| line.contains(of));
        found.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let passed_over = line(&planned.output, "passed over: ");
    let run = standing.run(&daemon, &options(&["--device", "auto"]));
    expect(&run, 0, &[]);
    let begins = line(&run.log, "computing on CPU stand-in (2048 MiB, ");
    for said in REFUSED {
        assert!(passed_over.contains(said), "{passed_over}");
        assert!(begins.contains(said), "{begins}");
    }
    assert!(!begins.contains("cuda:4"), "{begins}");
}

/// Where none serves, the CPU computes, and `plan` and the log say why.
#[test]
fn why_there_is_no_device_is_said() {
    let standing = StandIn::of("busy,old,small,tf32-rows");
    let daemon = TestDaemon::new(BINARY);
    let planned = standing.run(&daemon, &options(&["--device", "auto", "plan"]));
    let run = standing.run(&daemon, &options(&["--device", "auto"]));
    expect(&run, 0, &["computing on the CPU by "]);
    assert!(
        planned
            .output
            .contains("device: none, the CPU computes: cuda:0: ")
    );
    for said in REFUSED {
        assert!(planned.output.contains(said), "{}", planned.output);
        assert!(run.log.contains(said), "{}", run.log);
    }
    assert!(daemon.manifest("qera-out")["device"].is_null());
}

/// A device that multiplies f32 numbers as TF32 is refused, wherever it does.
#[test]
fn a_device_that_uses_tf32_is_refused() {
    for (devices, what) in [
        ("tf32-rows", "of f32 rows is "),
        ("tf32-matrices", "a product of f32 numbers is "),
    ] {
        let daemon = TestDaemon::new(BINARY);
        let planned =
            |device| StandIn::of(devices).run(&daemon, &options(&["--device", device, "plan"]));
        expect(&planned("cuda"), 2, &["failed the self-test: ", what]);
        let auto = planned("auto");
        expect(&auto, 0, &[]);
        assert!(auto.output.contains(what), "{}", auto.output);
    }
}

/// A share is of all that was free, the libraries' part within it.
#[test]
fn a_share_of_the_memory_is_of_all_that_is_free() {
    let daemon = TestDaemon::new(BINARY);
    let more = [
        "--device",
        "cuda",
        "--device-memory",
        "50%",
        "--log-format",
        "json",
        "plan",
    ];
    let planned = StandIn::default().run(&daemon, &options(&more));
    let plan: serde_json::Value = serde_json::from_str(&planned.output).unwrap();
    let bytes = |what: &str| plan["device"][what].as_u64().unwrap();
    assert!((1_u64 << 30).abs_diff(bytes("memory_bytes")) < 1 << 16);
    assert!(bytes("workspace_bytes") >= 64 << 20);
}

/// A device that is opened and has nothing to do is no device that computed: all is too small.
#[test]
fn a_manifest_names_no_idle_device() {
    let daemon = TestDaemon::new(BINARY);
    let run = StandIn::default().run(&daemon, &options(&["--device", "auto"]));
    expect(&run, 0, &["computing on CPU stand-in"]);
    assert!(daemon.manifest("qera-out")["device"].is_null());
}

/// Two inputs that are large enough for `auto`.
const LARGE: PlannedRun = PlannedRun {
    binary: BINARY,
    name: "large inputs",
    layers: &[
        LayerShape {
            module: "model.layers.0.self_attn.o_proj",
            out_features: 64,
            in_features: 1024,
        },
        LayerShape {
            module: "model.layers.0.mlp.down_proj",
            out_features: 64,
            in_features: 2048,
        },
    ],
    inputs: &[
        ShardInput {
            module: "model.layers.0.self_attn.o_proj",
            in_features: 1024,
        },
        ShardInput {
            module: "model.layers.0.mlp.down_proj",
            in_features: 2048,
        },
    ],
    shards: 2,
    rows: 64,
    live: false,
    options: &["--threads", "1", "--once"],
};

/// What the host has no room to keep for the device is summed here, by name, with `auto`: the
/// widest input first, and in the end all. Only a device that was named is worth a refusal.
#[test]
fn auto_does_with_less_where_the_budget_is_small() {
    let daemon = LARGE.files();
    let bound = LARGE.plan(&daemon, &["--device", "cpu"])["bound_bytes"]
        .as_u64()
        .unwrap();
    let run = |device, budget: u64, more: &[&str]| {
        let budget = budget.to_string();
        let asked = ["--memory-budget", &budget, "--device", device];
        let arguments = LARGE.arguments(&[&asked[..], more].concat());
        let arguments: Vec<String> = arguments.into_iter().map(Into::into).collect();
        StandIn::default().run(&daemon, &arguments)
    };
    let [o, down] = [0, 1].map(|layer| LARGE.layers[layer].module);
    let room = bound + (64 << 20);
    for (budget, left_out, there) in [
        (room, &[][..], 2),
        (bound + (6 << 20), &[down][..], 1),
        (bound, &[down, o][..], 0),
    ] {
        let planned = run("auto", budget, &["plan"]);
        expect(&planned, 0, &[]);
        let plan: serde_json::Value = serde_json::from_str(&planned.output).unwrap();
        assert_eq!(plan["device"]["summed"]["inputs"], there, "{plan}");
        let said = plan["device"].get("without_room");
        let said = said.map_or_else(|| serde_json::json!([]), Clone::clone);
        assert_eq!(said, serde_json::json!(left_out));
        let out = format!("out-{there}");
        let ran = run("auto", budget, &["--out", &out]);
        let names = left_out.join(", ");
        let said = if left_out.is_empty() {
            String::new()
        } else {
            format!("rows are summed on the CPU of {names}: the memory budget has no room")
        };
        expect(&ran, 0, &[&said, "computing on CPU stand-in"]);
        assert!(!tells_who_moved(&ran.log), "{}", ran.log);
        let device = &daemon.manifest(&out)["device"];
        assert_eq!(
            device["inputs_summed"].as_u64().unwrap_or(0),
            there,
            "{device}"
        );
    }
    expect(&run("cuda", bound, &[]), 5, &[]);
}
