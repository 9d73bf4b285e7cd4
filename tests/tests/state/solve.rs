//! Other adapters from the same statistics, with and without R, with weights that come later.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::output_folder::statistics_files;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, shard_path, sine_values, write_rows_of_both_sites,
};

use super::BINARY;

/// Another rank, method or shrinkage from the same statistics: what a run with those settings would
/// have made.
#[test]
fn solve_makes_what_a_run_would_have_made() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let state = ["--state", "qera-out/state", "--checkpoint", "checkpoint"];
    for (name, options) in [
        ("rank", vec!["--rank", "3", "--block-size", "4"]),
        ("approx", vec!["--method", "approx", "--block-size", "4"]),
        ("lqer", vec!["--method", "lqer", "--block-size", "4"]),
        (
            "fixed",
            vec![
                "--shrinkage",
                "0.3",
                "--quantizer",
                "mxint2",
                "--block-size",
                "4",
            ],
        ),
        ("auto", vec!["--shrinkage", "auto", "--block-size", "2"]),
    ] {
        let solved = format!("solved-{name}");
        let arguments = [&["solve", "--out", &solved], &state[..], &options].concat();
        expect(&daemon.run(&arguments), 0, &["published generation 1"]);
        let direct = format!("direct-{name}");
        let watch = [
            "--once",
            "--watch",
            "activations",
            "--checkpoint",
            "checkpoint",
        ];
        let arguments = [&watch[..], &["--out", &direct], &options].concat();
        expect(&daemon.run(&arguments), 0, &[]);
        let (solved, direct) = (daemon.adapter(&solved), daemon.adapter(&direct));
        assert!(solved.bytes == direct.bytes, "{name}");
        assert_eq!(solved.config, direct.config, "{name}");
        assert_eq!(
            solved.manifest["inputs"]["journal_digest"],
            direct.manifest["inputs"]["journal_digest"]
        );
    }
}

/// The first line of `solve` is that of a run, with the shards of the state.
#[test]
fn solve_names_what_it_computes_by() {
    let daemon = daemon_with_shards(BINARY);
    let kernel = ["--kernel", "portable"];
    let run = daemon.run(&once_with(&kernel));
    expect(&run, 0, &["computing on the CPU by portable kernels"]);
    let solve = "solve --state qera-out/state --checkpoint checkpoint --out other --block-size 4";
    let solve: Vec<&str> = solve.split(' ').chain(kernel).collect();
    let solved = daemon.run(&solve);
    expect(&solved, 0, &[]);
    let first = |log: &str| log.lines().next().unwrap().to_owned();
    let (of_run, of_solve) = (first(&run.log), first(&solved.log));
    let what = |line: &str| line.split("memory").next().unwrap().to_owned();
    assert_eq!(what(&of_run), what(&of_solve));
    assert!(
        of_solve.contains("3 layers on 2 sites, 4 shards"),
        "{of_solve}"
    );
    assert!(of_solve.contains("portable kernels"), "{of_solve}");
}

#[test]
fn solve_refuses_what_was_not_gathered() {
    let daemon = daemon_with_shards(BINARY);
    let solve = |extra: &[&str]| {
        let basic = ["solve", "--checkpoint", "checkpoint", "--out", "other"];
        daemon.run(&[&basic, extra].concat())
    };
    expect(
        &solve(&["--state", "nowhere"]),
        4,
        &["nowhere", "no statistics"],
    );
    expect(
        &daemon.run(&once_with(&["--method", "approx", "--out", "approx"])),
        0,
        &[],
    );
    expect(
        &solve(&["--state", "approx/state"]),
        4,
        &["without R", "--method exact"],
    );
    expect(
        &solve(&["--state", "approx/state", "--method", "lqer-mean"]),
        0,
        &["published"],
    );
    // R is not gathered from here on either.
    expect(
        &daemon.run(&once_with(&["--out", "approx"])),
        4,
        &["without R", "choose another --state"],
    );
    expect(
        &daemon.run(&once_with(&["--include", "*.q_proj", "--out", "part"])),
        0,
        &[],
    );
    expect(
        &solve(&["--state", "part/state"]),
        4,
        &["without", "down_proj"],
    );
    expect(
        &daemon.run(&once_with(&["--out", "part"])),
        4,
        &["without", "down_proj", "choose another --state"],
    );
    expect(
        &solve(&["--state", "part/state", "--exclude", "*.down_proj"]),
        0,
        &["2 layers corrected"],
    );
}

/// The methods without R gather none, and measure on the rows held.
#[test]
fn diagonal_methods_do_without_r() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&["--method", "approx"])), 0, &[]);
    let files = statistics_files(&daemon.path().join("qera-out/state"));
    for statistics in files {
        let file = safetensors::SafeTensors::deserialize(&statistics.bytes).unwrap();
        assert!(
            file.tensor("autocorrelation").is_err(),
            "{}",
            statistics.name
        );
        assert!(file.tensor("window.f32").unwrap().shape()[0] >= 1024);
    }
    // The window holds every row here, so that both ways measure the same.
    expect(
        &daemon.run(&once_with(&[
            "--method",
            "exact",
            "--out",
            "exact",
            "--shrinkage",
            "1",
        ])),
        0,
        &[],
    );
    let (rows, r) = (daemon.adapter("qera-out"), daemon.adapter("exact"));
    for module in [Q, K, DOWN] {
        let error = |of: &serde_json::Value, key: &str| of["error"][key].as_f64().unwrap();
        for key in ["without", "with"] {
            let (a, b) = (error(rows.layer(module), key), error(r.layer(module), key));
            assert!((a / b - 1.0).abs() < 1e-4, "{module} {key}: {a} {b}");
        }
    }
}

/// Without a checkpoint statistics are gathered; later they are solved as if it had been there.
#[test]
fn statistics_first_weights_later() {
    let daemon = daemon_with_shards(BINARY);
    let gather = ["--once", "--watch", "activations", "--state", "gathered"];
    expect(&daemon.run(&gather), 0, &["statistics only", "4 shards"]);
    assert!(!daemon.path().join("qera-out").exists());
    let status = daemon.run(&["status", "--state", "gathered"]);
    assert!(status.output.contains("gathered"), "{}", status.output);
    // A module that comes later is a site of its own from there on.
    let late = TensorToWrite::f32("model.late", &[50, 4], &sine_values(200, 0.3));
    write_safetensors(&shard_path(&daemon, "t"), &[late], &[]);
    expect(&daemon.run(&gather), 0, &["folded t", "5 shards"]);
    let solve = [
        "solve",
        "--state",
        "gathered",
        "--checkpoint",
        "checkpoint",
        "--rank",
        "2",
        "--block-size",
        "4",
    ];
    let unused = "1 of its inputs belong to no weight of the checkpoint ('model.late' first)";
    expect(&daemon.run(&solve), 0, &["3 layers corrected", unused]);
    // A run on the checkpoint would not go on with what it does not have.
    let other = daemon.run(&once_with(&["--state", "gathered", "--out", "other"]));
    expect(&other, 4, &["model.late, which is not selected"]);
    fs::remove_file(shard_path(&daemon, "t")).unwrap();
    expect(&daemon.run(&once_with(&["--out", "direct"])), 0, &[]);
    assert!(daemon.adapter("qera-out").bytes == daemon.adapter("direct").bytes);
    // And a run with the checkpoint continues what is its own.
    let again = ["--once", "--watch", "activations", "--state", "again"];
    expect(&daemon.run(&again), 0, &["4 shards"]);
    write_rows_of_both_sites(&daemon, "u", 3.5);
    expect(
        &daemon.run(&once_with(&["--state", "again", "--out", "continued"])),
        0,
        &["continuing from", "5 shards folded"],
    );
    assert_eq!(daemon.adapter("continued").layer(Q)["rows"], 1500);
}
