//! `plan` says what a run will take: the peak of the daemon's anonymous memory is within a tenth of
//! it, and not above.
#![cfg(target_os = "linux")]

use std::sync::{Mutex, PoisonError};

use qera_tests::planned_run::{LayerShape, PlannedRun, ShardInput};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// The plan is at least the peak and at most this much more.
const SLACK: f64 = 0.10;
/// The most runs of which the largest peak counts: a live run's is where a solve happens to meet
/// shards, and a busy machine may look too seldom.
const RUNS: usize = 8;
/// Runs are measured one at a time: they take hundreds of MB.
static ALONE: Mutex<()> = Mutex::new(());

const Q: &str = "model.layers.0.self_attn.q_proj";
const K: &str = "model.layers.0.self_attn.k_proj";
const O: &str = "model.layers.0.self_attn.o_proj";
const UP: &str = "model.layers.0.mlp.up_proj";
const DOWN: &str = "model.layers.0.mlp.down_proj";
const Q_NEXT: &str = "model.layers.1.self_attn.q_proj";
const UP_NEXT: &str = "model.layers.1.mlp.up_proj";

const fn layer(module: &'static str, out_features: usize, in_features: usize) -> LayerShape {
    LayerShape {
        module,
        out_features,
        in_features,
    }
}

const fn input(module: &'static str, in_features: usize) -> ShardInput {
    ShardInput {
        module,
        in_features,
    }
}

/// Square layers and wide ones.
const BLOCK: &[LayerShape] = &[
    layer(Q, 1024, 1024),
    layer(K, 256, 1024),
    layer(O, 1024, 1024),
    layer(UP, 2048, 1024),
    layer(DOWN, 1024, 2048),
];
const BLOCK_INPUTS: &[ShardInput] = &[
    input(Q, 1024),
    input(O, 1024),
    input(UP, 1024),
    input(DOWN, 2048),
];

/// Sites alike.
const ALIKE: &[LayerShape] = &[
    layer(Q, 1024, 1024),
    layer(O, 1024, 1024),
    layer(UP, 1024, 1024),
    layer(DOWN, 1024, 1024),
    layer(Q_NEXT, 1024, 1024),
    layer(UP_NEXT, 1024, 1024),
];
const ALIKE_INPUTS: &[ShardInput] = &[
    input(Q, 1024),
    input(O, 1024),
    input(UP, 1024),
    input(DOWN, 1024),
    input(Q_NEXT, 1024),
    input(UP_NEXT, 1024),
];

const EXACT: PlannedRun = PlannedRun {
    binary: BINARY,
    name: "exact, once, 1 thread",
    layers: BLOCK,
    inputs: BLOCK_INPUTS,
    shards: 8,
    rows: 512,
    live: false,
    options: &["--threads", "1"],
};

const SKETCHED: PlannedRun = PlannedRun {
    name: "sketched, once, 1 thread",
    options: &["--threads", "1", "--statistics", "sketch=64"],
    ..EXACT
};

fn check(run: PlannedRun) {
    check_within(run, SLACK);
}

fn check_within(run: PlannedRun, slack: f64) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut planned, mut peak) = (0, 0);
    for _ in 0..RUNS {
        let measured = run.measure();
        (planned, peak) = (measured.planned, measured.seen.max(peak));
        if (planned as f64) <= (1.0 + slack) * peak as f64 {
            break;
        }
    }
    let ratio = planned as f64 / peak as f64;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let said = format!(
        "{}: planned {:.1} MiB, peak {:.1} MiB, ratio {ratio:.3}",
        run.name,
        mib(planned),
        mib(peak)
    );
    eprintln!("{said}");
    assert!((1.0..=1.0 + slack).contains(&ratio), "{said}");
}

/// Products of rows are planned only where R is gathered.
#[test]
fn work_is_planned_where_it_is_done() {
    let daemon = EXACT.files();
    let flops = |method| {
        let plan = EXACT.plan(&daemon, &["--once", "--method", method]);
        plan["accumulate_flops"].as_f64().unwrap()
    };
    let rows = (EXACT.shards * EXACT.rows) as f64;
    let squares = EXACT.inputs.iter().map(|i| (i.in_features as f64).powi(2));
    let exact = rows * squares.sum::<f64>();
    assert!((flops("exact") / exact - 1.0).abs() < 1e-12);
    assert!(flops("approx").abs() < 1.0);
}

#[test]
fn exact_once() {
    check(EXACT);
}

/// Sketches, rows that wait, and what shrinks them in are in the place of R.
#[test]
fn sketched_once() {
    check(SKETCHED);
}

/// A core folds rows into sketches or solves from them, never both at one time.
#[test]
fn sketched_live() {
    check(PlannedRun {
        name: "sketched, live, 1 thread",
        live: true,
        shards: 16,
        ..SKETCHED
    });
}

/// Layers alike, so that it does not matter which two are solved at one time.
#[test]
fn exact_once_on_two_threads() {
    check(PlannedRun {
        name: "exact, once, 2 threads",
        layers: ALIKE,
        inputs: ALIKE_INPUTS,
        options: &["--threads", "2"],
        ..EXACT
    });
}

/// Solve points come while shards wait, so that both are there at one time.
#[test]
fn exact_live() {
    check(PlannedRun {
        name: "exact, live, 1 thread",
        live: true,
        shards: 16,
        ..EXACT
    });
}

/// Each layer is rounded, then solved.
#[test]
fn projected_once() {
    check(PlannedRun {
        name: "projected, once, 1 thread",
        options: &["--threads", "1", "--rounding", "projected"],
        ..EXACT
    });
}

/// Layers are rounded while shards wait, but once, and before there are corrections to keep.
#[test]
fn projected_live() {
    const ONCE: f64 = 0.2;
    let run = PlannedRun {
        name: "projected, live, 1 thread",
        live: true,
        shards: 16,
        options: &["--threads", "1", "--rounding", "projected"],
        ..EXACT
    };
    check_within(run, ONCE);
}

#[test]
fn projected_once_on_two_threads() {
    check(PlannedRun {
        name: "projected, once, 2 threads",
        layers: ALIKE,
        inputs: ALIKE_INPUTS,
        options: &["--threads", "2", "--rounding", "projected"],
        ..EXACT
    });
}

#[test]
fn approx_once() {
    check(PlannedRun {
        name: "approx, once, 1 thread",
        options: &["--threads", "1", "--method", "approx"],
        ..EXACT
    });
}

#[test]
fn approx_live() {
    check(PlannedRun {
        name: "approx, live, 1 thread",
        live: true,
        shards: 16,
        options: &["--threads", "1", "--method", "approx"],
        ..EXACT
    });
}

/// Which solve meets which shard is a matter of time here, so that the peak is seldom all that may
/// meet.
#[test]
fn exact_live_on_two_threads() {
    const MEETING: f64 = 0.15;
    let run = PlannedRun {
        name: "exact, live, 2 threads",
        layers: ALIKE,
        inputs: ALIKE_INPUTS,
        live: true,
        shards: 16,
        options: &["--threads", "2"],
        ..EXACT
    };
    check_within(run, MEETING);
}

/// Threads that can have no site are not planned as if they had one, nor do they take memory as if
/// they had: at most half as much again as the peak.
#[test]
fn more_threads_than_sites() {
    const THREADS: &[&str] = &["--threads", "64"];
    const HELPERS: &[&str] = &["--threads", "8", "--method", "approx"];
    let run = PlannedRun {
        layers: ALIKE,
        inputs: ALIKE_INPUTS,
        options: THREADS,
        ..EXACT
    };
    for run in [
        PlannedRun {
            name: "exact, once, 64 threads",
            ..run
        },
        PlannedRun {
            name: "exact, live, 64 threads",
            live: true,
            shards: 16,
            ..run
        },
        PlannedRun {
            name: "approx, once, 8 threads",
            options: HELPERS,
            ..run
        },
    ] {
        check_within(run, 0.5);
    }
}

/// Shards in flight are bounded in bytes: three of those that are there, but no more than 1 GiB,
/// and a larger one goes alone.
#[test]
fn shards_in_flight_are_bounded() {
    const GIB: u64 = 1 << 30;
    let run = PlannedRun { shards: 3, ..EXACT };
    let one = run.rows * 2 * run.inputs.iter().map(|of| of.in_features).sum::<usize>();
    for (times, expected) in [(1, 3 * one as u64), (200, GIB), (800, 0)] {
        let daemon = run.files();
        let rows = times * run.rows;
        run.announce(&daemon, rows);
        let shard = (times * one) as u64;
        let plan = run.plan(&daemon, &["--once", "--memory-budget", "64GiB"]);
        let stage = &plan["stages"][0];
        assert_eq!(stage["name"], "shards in flight");
        // And one byte a row for a mask.
        let masks = 3 * (rows * run.inputs.len()) as u64;
        let expected = expected.max(shard);
        let bytes = stage["bytes"].as_u64().unwrap();
        assert!(
            (expected..=expected + masks).contains(&bytes),
            "{bytes} {expected}"
        );
    }
}

/// Rows held out and kept aside take no more than they may, and the run no more than is planned.
#[test]
fn rows_that_are_kept_are_bounded() {
    const MEMORY: u64 = 8_000_000;
    for (name, live) in [("small window, once", false), ("small window, live", true)] {
        let run = PlannedRun {
            name,
            live,
            shards: 16,
            options: &["--threads", "1", "--window-memory", "8MB"],
            ..EXACT
        };
        let more: &[&str] = if live { &[] } else { &["--once"] };
        let plan = run.plan(&run.files(), more);
        let bytes = |of: &serde_json::Value, name: &str| of[name].as_u64().unwrap();
        for kept in ["bytes", "bound_bytes"] {
            let stages = plan["stages"].as_array().unwrap();
            let is_kept = |stage: &&serde_json::Value| {
                stage["name"] == "rows held out and kept aside, all sites"
            };
            let stage = stages.iter().find(is_kept).unwrap();
            let kept = bytes(stage, kept);
            assert!(kept <= MEMORY && kept > MEMORY / 2, "{name}: {kept}");
        }
        let sites = plan["sites"].as_array().unwrap();
        let rows = |site| bytes(site, "window_bytes") / bytes(site, "in_features");
        assert!(sites.iter().all(|site| rows(site) == rows(&sites[0])));
        // Of less memory in all, what is planned for the process beside it is a larger share.
        check_within(run, 0.15);
    }
}

/// More rows than are there may come: what the budget has to hold is more than the plan for those
/// that are there, by the rows that are kept aside.
#[test]
fn a_live_run_is_bounded() {
    // The total of the rows that are there, and what any number of them takes.
    let planned = |run: PlannedRun| {
        let more: &[&str] = if run.live { &[] } else { &["--once"] };
        let plan = run.plan(&run.files(), more);
        let bytes = |name: &str| plan[name].as_u64().unwrap();
        [bytes("total_bytes"), bytes("bound_bytes")]
    };
    let few = PlannedRun { shards: 1, ..EXACT };
    let [total, bound] = planned(few);
    assert_eq!(total, bound, "nothing more comes to a batch");
    let live = PlannedRun { live: true, ..few };
    let [one, bound] = planned(live);
    let [two, same] = planned(PlannedRun { shards: 2, ..live });
    assert!(one < two && two < bound, "{one} {two} {bound}");
    assert_eq!(bound, same);
    // The rows that come may be f32 ones, of which a number takes twice what is there now.
    let window: usize = live.inputs.iter().map(|input| input.in_features).sum();
    assert!(bound > one + (4096 * 4 * window) as u64 - (512 * 2 * window) as u64);
}
