//! Options and inputs that are refused before the run starts, with the exit code and the words that
//! name the cause; and what the settings and the log say.

use std::fs;

use qera_tests::daemon::expect;

use super::one_layer::{MODULE, daemon_with_one_layer, run_once};

#[test]
fn wrong_options_exit_2_with_the_valid_values() {
    let daemon = daemon_with_one_layer();
    // The options that are added to the run, and the message that follows.
    let cases: [(&str, &[&str]); 19] = [
        ("--method best", &["best", "zeroquant-v2"]),
        ("--quantizer int9", &["int9", "mxint4", "int8", "q4-0"]),
        (
            "--quantizer q4-0 --block-size 64",
            &["q4-0 --block-size 64", "32 elements"],
        ),
        (
            "--quantizer int4 --block-size 16",
            &["int4 --block-size 16", "32, 64 or 128"],
        ),
        ("--scale-dtype f16", &["--scale-dtype", "mxint4"]),
        ("--rounding up", &["up", "projected"]),
        (
            "--rounding projected --method approx",
            &["--rounding projected", "--method exact"],
        ),
        ("--base-share 0.5", &["--base-share", "projected"]),
        (
            "--rounding feedback --round-again",
            &["--round-again", "only solve"],
        ),
        ("--after-convergence no", &["stop"]),
        ("--frobnicate", &["frobnicate"]),
        ("--shrinkage 2", &["shrinkage", "2"]),
        ("--rank 0", &["rank"]),
        ("--rank-for x", &["GLOB=K"]),
        ("--rank-for nothing*=3", &["nothing*", "matches no"]),
        (
            "--rank 18446744073709551615",
            &["--rank", "18446744073709551615"],
        ),
        ("--include nothing*", &["nothing*", "matches no"]),
        ("--memory-budget lots", &["lots"]),
        ("--until-converged", &["--once", "--until-converged"]),
    ];
    for (options, said) in cases {
        let options: Vec<&str> = options.split(' ').collect();
        expect(&run_once(&daemon, &options), 2, said);
    }
    let solve = daemon.run(&["solve", "--state", "nowhere"]);
    expect(&solve, 2, &["--checkpoint"]);
    let unwatched = daemon.run(&["--once", "--checkpoint", "checkpoint"]);
    expect(&unwatched, 2, &["--watch"]);
    for (config, said) in [
        (
            "rank = 3\nmethods = \"exact\"\n",
            &["bad.toml", "methods"][..],
        ),
        ("method = \"best\"\n", &["method", "best", "approx"]),
    ] {
        fs::write(daemon.path().join("bad.toml"), config).unwrap();
        expect(&run_once(&daemon, &["--config", "bad.toml"]), 2, said);
    }
    let out = daemon.path().join("qera-out");
    assert!(!out.exists(), "nothing was started");
}

#[test]
fn missing_inputs_exit_1_by_name() {
    let daemon = daemon_with_one_layer();
    expect(
        &daemon.run(&["--once", "--watch", "nowhere", "--checkpoint", "checkpoint"]),
        1,
        &["nowhere"],
    );
    expect(
        &daemon.run(&[
            "--once",
            "--watch",
            "activations",
            "--checkpoint",
            "nowhere",
        ]),
        1,
        &["nowhere"],
    );
}

#[test]
fn what_does_not_fit_exits_5_before_anything_is_made() {
    let daemon = daemon_with_one_layer();
    expect(
        &run_once(&daemon, &["--memory-budget", "1000"]),
        5,
        &["1000 B", "plan"],
    );
    assert!(!daemon.path().join("qera-out").exists());
    let plan = daemon.run(&[
        "plan",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
        "--memory-budget",
        "1000",
    ]);
    assert_eq!(plan.code, 5);
    for words in [MODULE, "statistics of all sites", "total", "GFlop"] {
        assert!(plan.output.contains(words), "{words}: {}", plan.output);
    }
    let json = daemon.run(&[
        "plan",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
        "--log-format",
        "json",
    ]);
    let plan: serde_json::Value = serde_json::from_str(&json.output).unwrap();
    let stages = plan["stages"].as_array().unwrap();
    let sum: u64 = stages.iter().map(|s| s["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["total_bytes"], sum);
    assert_eq!(plan["sites"][0]["rows"], 100);
    assert_eq!(plan["sites"][0]["statistics_bytes"], 8 * (36 + 40));
}

#[test]
fn settings_are_shown_with_their_origin() {
    let daemon = daemon_with_one_layer();
    fs::write(
        daemon.path().join("qera.toml"),
        "rank = 7\nrank-for = [\"*.mlp.*=3\"]\nmemory-budget = 123456\n",
    )
    .unwrap();
    let shown = daemon.run(&[
        "config",
        "--show",
        "--config",
        "qera.toml",
        "--method",
        "lqer",
    ]);
    assert_eq!(shown.code, 0, "{}", shown.log);
    for line in [
        "rank = 7",
        "method = \"lqer\"",
        "memory-budget = \"123456\"",
        "# command line",
        "# qera.toml",
        "# default",
    ] {
        assert!(shown.output.contains(line), "{line}: {}", shown.output);
    }
    // The output of `config` is itself a configuration.
    fs::write(daemon.path().join("again.toml"), &shown.output).unwrap();
    let again = daemon.run(&["config", "--show", "--config", "again.toml"]);
    assert!(again.output.contains("method = \"lqer\""));
}

/// `config --show` refuses in the words of a run; what needs the files is not its business.
#[test]
fn settings_that_a_run_refuses_are_not_shown() {
    let daemon = daemon_with_one_layer();
    let file = daemon.path().join("wrong.toml");
    for wrong in [
        "quantizer = \"mxint9\"",
        "block-size = 48\nquantizer = \"int4\"",
        "rounding = \"projected\"\nmethod = \"lqer\"",
        "base-share = 0.01",
        "round-again = true",
        "rank = 0",
        "rank-for = [\"*\"]",
        "shrinkage = 1.5",
        "method = \"best\"",
        "threads = 0",
        "tolerance = 0.0",
        "memory-budget = \"lots\"",
        "once = true\nuntil-converged = true",
        "until-converged = true",
        "require-all = true",
        "log-format = \"xml\"",
        "state = \"qera-out\"",
    ] {
        fs::write(&file, wrong).unwrap();
        let shown = daemon.run(&["config", "--show", "--config", "wrong.toml"]);
        expect(&shown, 2, &["error: "]);
        assert_eq!(shown.output, "", "{wrong}");
        let run = daemon.run(&["--watch", "activations", "--config", "wrong.toml"]);
        expect(&run, 2, &[&shown.log]);
    }
    let absent = ["--checkpoint", "nowhere", "--watch", "nowhere"];
    let shown = daemon.run(&[&["config", "--show"], &absent[..]].concat());
    expect(&shown, 0, &[]);
    assert!(shown.output.contains("nowhere"), "{}", shown.output);
}

#[test]
fn json_lines_are_json() {
    let daemon = daemon_with_one_layer();
    let run = run_once(&daemon, &["--log-format", "json"]);
    expect(&run, 0, &[]);
    let events: Vec<serde_json::Value> = run
        .log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let named = |name: &str| events.iter().filter(|e| e["event"] == name).count();
    assert_eq!(
        (
            named("started"),
            named("shard-folded"),
            named("layer-solved"),
            named("published")
        ),
        (1, 1, 1, 1)
    );
}
