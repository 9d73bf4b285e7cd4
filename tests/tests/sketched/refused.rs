//! What a sketch cannot serve is refused by name.

use qera_core::packed::packed_len;
use qera_tests::daemon::expect;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::rename_in;

use crate::model::{K, Q, WIDE, once, with_shards, write_shard};

/// What no state is needed for.
#[test]
fn options_that_need_r_are_refused() {
    let daemon = with_shards();
    for (options, said) in [
        (
            &["--rounding", "projected"][..],
            "--rounding projected rounds under R",
        ),
        (
            &["--rounding", "feedback"],
            "--rounding feedback rounds under R",
        ),
    ] {
        expect(
            &daemon.run(&once(options)),
            2,
            &["--statistics sketch=16", said],
        );
    }
    let of = |statistics, more: &[&'static str]| {
        let options = [
            "--once",
            "--watch",
            "activations",
            "--statistics",
            statistics,
        ];
        daemon.run(&[&options[..], more].concat())
    };
    let model = ["--checkpoint", "checkpoint"];
    expect(&of("sketch", &[]), 2, &["need --checkpoint"]);
    expect(
        &of("diagonal", &model),
        2,
        &["--method exact needs R or a sketch"],
    );
    expect(&of("sketch=32", &model), 2, &["keeps 31 directions"]);
    expect(&of("half", &model), 2, &["'half' is none of"]);
    assert!(!daemon.path().join("qera-out/state/sites.json").exists());
}

/// A state belongs to what it gathered, and to its E.
#[test]
fn a_state_of_other_statistics_or_another_e_is_refused() {
    let daemon = with_shards();
    expect(&daemon.run(&once(&[])), 0, &[]);
    write_shard(&daemon, 5);
    let with = |replaced: &str, by: &'static str| {
        let mut options = once(&[]);
        let at = options.iter().position(|option| *option == replaced);
        options[at.unwrap()] = by;
        daemon.run(&options)
    };
    let begun = "was begun with --statistics sketch=16";
    for (replaced, by, said) in [
        ("sketch", "full", &[begun, "this run's is full"][..]),
        ("sketch", "sketch=32", &[begun, "this run's is sketch=32"]),
        ("mxint3", "mxint4", &["of W~ in mxint3/32", "mxint4/32"]),
        ("32", "16", &["of W~ in mxint3/32", "mxint3/16"]),
    ] {
        expect(&with(replaced, by), 4, said);
    }
    expect(
        &daemon.run(&once(&["--exclude", K])),
        4,
        &["holds a sketch of", K],
    );
    // `solve` with a method that needs what is of another E.
    let options = [
        "--state",
        "qera-out/state",
        "--out",
        "other",
        "--checkpoint",
        "checkpoint",
    ];
    let solve = |more: &[&'static str]| {
        let rank = ["--rank", "4"];
        daemon.run(&[&["solve"], &options[..], &rank, more].concat())
    };
    let sketch = ["--statistics", "sketch"];
    expect(
        &solve(&[&sketch[..], &["--quantizer", "mxint4"]].concat()),
        4,
        &["of W~ in mxint3/32", "approx"],
    );
    expect(
        &solve(&["--quantizer", "mxint3"]),
        4,
        &[begun, "this run's is none"],
    );
    // And the other way: R is not taken for a sketch.
    let full = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
        "--rank",
        "4",
    ];
    let full = [&full[..], &["--quantizer", "mxint3", "--out", "full"]].concat();
    expect(&daemon.run(&full), 0, &[]);
    let sketch = [&full[..], &["--statistics", "sketch"]].concat();
    expect(
        &daemon.run(&sketch),
        4,
        &["was begun with --statistics full"],
    );
}

/// A sum has no rows to sketch: the shard is set aside, the others count.
#[test]
fn shards_of_sums_are_set_aside() {
    let daemon = with_shards();
    let sum = format!("{Q}::xtx");
    let rows = format!("{Q}::xtx_rows");
    let tensors = [
        TensorToWrite::f32(&sum, &[packed_len(WIDE)], &vec![0.0; packed_len(WIDE)]),
        TensorToWrite::new(&rows, "I64", &[1], 7_i64.to_le_bytes().to_vec()),
    ];
    rename_in(&daemon, "summed", &tensors);
    let said = ["summed.safetensors", "output errors are sketched from rows"];
    expect(&daemon.run(&once(&[])), 3, &said);
    assert_eq!(daemon.adapter("qera-out").layer(Q)["rows"], 1200);
}
