//! What cannot be had of an imatrix, and imatrices that belong to another model.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::imatrix_file::ImatrixEntry;
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_without_shards, once_with, write_rows_of_both_sites,
};

use super::{BINARY, DOWN_TENSOR, K_TENSOR, Q_TENSOR, alone_with, entries, write_imatrix};

/// A daemon's folder with the checkpoint and `imatrix.gguf`.
fn daemon_with(entries: &[ImatrixEntry]) -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    write_imatrix(&daemon, "imatrix.gguf", entries);
    daemon
}

fn expect_refused(daemon: &TestDaemon, options: &[&str], code: i32, said: &[&str]) {
    for command in [&[][..], &["plan"]] {
        let run = daemon.run(&[command, options].concat());
        expect(&run, code, said);
    }
    assert!(!daemon.path().join("qera-out/current").exists());
}

#[test]
fn exact_is_refused_by_name_whether_it_was_said_or_not() {
    let daemon = daemon_with(&entries());
    let why = "--method exact: an imatrix has no R: --method approx";
    let by_default = ["--checkpoint", "checkpoint", "--imatrix", "imatrix.gguf"];
    expect_refused(&daemon, &by_default, 2, &[why]);
    let said = [&by_default[..], &["--method", "exact"]].concat();
    expect_refused(&daemon, &said, 2, &[why]);
    let lqer = [&by_default[..], &["--method", "lqer"]].concat();
    let why = "--method lqer: an imatrix has E[x^2] and nothing else: --method approx";
    expect_refused(&daemon, &lqer, 2, &[why]);
    // Beside a watched folder it would correct what no row fed, and nothing else.
    let why = "--method w-only: corrects nothing, and --imatrix is there to correct";
    let nothing = once_with(&["--imatrix", "imatrix.gguf", "--method", "w-only"]);
    expect_refused(&daemon, &nothing, 2, &[why]);
}

#[test]
fn options_that_would_do_nothing_are_refused_by_name() {
    let daemon = daemon_with(&entries());
    for more in [
        &["--until-converged"][..],
        &["--consume", "delete"],
        &["--state", "elsewhere"],
        &["--map", "a=b"],
    ] {
        let options = alone_with("imatrix.gguf", more);
        let said = [more[0], "does nothing without --watch DIR"];
        expect_refused(&daemon, &options, 2, &said);
    }
    let bare = ["--imatrix", "imatrix.gguf", "--method", "approx"];
    expect_refused(&daemon, &bare, 2, &["--imatrix: needs --checkpoint"]);
    let rounding = alone_with(
        "imatrix.gguf",
        &["--rounding", "feedback", "--method", "exact"],
    );
    let rounding: Vec<&str> = rounding
        .iter()
        .enumerate()
        .filter(|(at, _)| !(6..8).contains(at))
        .map(|(_, option)| *option)
        .collect();
    expect_refused(
        &daemon,
        &rounding,
        2,
        &["--imatrix: not with --rounding feedback"],
    );
}

#[test]
fn an_imatrix_of_another_model_is_refused() {
    let others: Vec<_> = entries()
        .into_iter()
        .map(|entry| ImatrixEntry {
            name: entry.name.replace("blk.0", "blk.7"),
            ..entry
        })
        .collect();
    let daemon = daemon_with(&others);
    let options = alone_with("imatrix.gguf", &[]);
    let none = [
        "imatrix imatrix.gguf: none of its 3 entries is of a layer of the checkpoint",
        "'blk.7.attn_k.weight' first, where 'blk.0.",
        "an imatrix of another model",
    ];
    expect_refused(&daemon, &options, 1, &none);
    // Before a shard is waited for, too.
    let watching = once_with(&["--imatrix", "imatrix.gguf"]);
    expect_refused(&daemon, &watching, 1, &none);

    let mut wide = entries();
    wide[2].sums.push(1.0);
    let daemon = daemon_with(&wide);
    let widths = format!(
        "imatrix imatrix.gguf: tensor '{DOWN_TENSOR}' has 13 channels, the checkpoint's '{DOWN}' has in_features 12"
    );
    expect_refused(&daemon, &options, 1, &[&widths]);
    // The second of two is named.
    write_imatrix(&daemon, "good.gguf", &entries()[..2]);
    let two = alone_with("good.gguf", &["--imatrix", "imatrix.gguf"]);
    expect_refused(&daemon, &two, 1, &[&widths]);
}

#[test]
fn layers_of_one_input_have_one_entry() {
    let mut apart = entries();
    apart[1].sums[5] *= 1.1;
    let daemon = daemon_with(&apart);
    let options = alone_with("imatrix.gguf", &[]);
    let said = [Q_TENSOR, K_TENSOR, "in channel 5", Q, K, "read one input"];
    expect_refused(&daemon, &options, 1, &said);
    // As near as sums in f32 can be the same.
    let mut near = entries();
    near[1].sums.iter_mut().for_each(|sum| *sum *= 1.0 + 1e-4);
    write_imatrix(&daemon, "near.gguf", &near);
    let run = daemon.run(&alone_with("near.gguf", &[]));
    expect(&run, 0, &["3 by an imatrix"]);
}

#[test]
fn a_file_that_is_none_is_refused() {
    let daemon = daemon_with(&entries());
    fs::write(daemon.path().join("noise"), b"GGUFnothing").unwrap();
    let options = alone_with("noise", &[]);
    expect_refused(&daemon, &options, 1, &["imatrix noise: "]);
    let options = alone_with("missing", &[]);
    expect_refused(&daemon, &options, 1, &["missing: read the imatrix"]);
    let model = alone_with("checkpoint/model.safetensors", &[]);
    let said = ["model.safetensors: no imatrix: it is a safetensors file"];
    expect_refused(&daemon, &model, 1, &said);
    for path in ["/dev/zero", "checkpoint"] {
        let said = [path, "is no file: an imatrix is a file"];
        expect_refused(&daemon, &alone_with(path, &[]), 1, &said);
    }
    // More than there is memory for: only its beginning is read.
    let sparse = fs::File::create(daemon.path().join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let said = ["imatrix sparse: no imatrix: "];
    expect_refused(&daemon, &alone_with("sparse", &[]), 1, &said);
}

#[test]
fn a_file_that_is_named_twice_is_refused() {
    let daemon = daemon_with(&entries());
    let name = "./imatrix.gguf";
    let twice = alone_with("imatrix.gguf", &["--imatrix", name]);
    let said = "imatrix ./imatrix.gguf: is the same file as imatrix.gguf: its rows would";
    expect_refused(&daemon, &twice, 1, &[said]);
}

#[test]
fn one_of_this_model_is_not_refused_for_what_is_selected() {
    let daemon = daemon_with(&entries()[2..]);
    write_imatrix(&daemon, "q.gguf", &entries()[..1]);
    let of_q = ["--imatrix", "q.gguf", "--include", Q];
    let run = daemon.run(&alone_with("imatrix.gguf", &of_q));
    let said = "imatrix.gguf has no entry of a layer that is selected";
    expect(&run, 0, &[said, "1 by an imatrix, 0 starved"]);
    assert!(!run.log.contains("q.gguf has no entry"), "{}", run.log);
    // Alone with it there is nothing to solve from.
    let run = daemon.run(&alone_with("imatrix.gguf", &of_q[2..]));
    expect(&run, 1, &[said, "says nothing of any of the 1 layers"]);
    // With a watched folder rows may still come.
    write_rows_of_both_sites(&daemon, "rows", 0.0);
    let more = ["--imatrix", "imatrix.gguf", "--include", Q];
    let run = daemon.run(&once_with(&more));
    expect(&run, 0, &[said, "1 layers corrected, 0 starved"]);
}

#[test]
fn one_of_another_model_is_refused_before_a_state_is_begun() {
    let mut others = entries();
    for entry in &mut others {
        entry.name = entry.name.replace("blk.0", "blk.7");
    }
    let daemon = daemon_with(&others);
    // Without config.json the shards say which layers there are.
    fs::remove_file(daemon.path().join("checkpoint/config.json")).unwrap();
    write_rows_of_both_sites(&daemon, "rows", 0.0);
    let watching = once_with(&["--imatrix", "imatrix.gguf"]);
    let said = "none of its 3 entries is of a layer of the checkpoint";
    expect_refused(&daemon, &watching, 1, &[said]);
    assert!(!daemon.path().join("qera-out").exists());
}

#[test]
fn a_model_that_is_not_listed_says_itself_what_is_linear() {
    let own: Vec<_> = entries()
        .into_iter()
        .zip([Q, K, DOWN])
        .map(|(entry, module)| ImatrixEntry {
            name: format!("{module}.weight"),
            ..entry
        })
        .collect();
    let daemon = daemon_with(&own);
    let config = daemon.path().join("checkpoint/config.json");
    fs::remove_file(config).unwrap();
    let options = alone_with("imatrix.gguf", &[]);
    let said = [
        "nothing says which of its tensors are linear layers",
        "--include",
    ];
    expect_refused(&daemon, &options, 1, &said);
    let named = alone_with("imatrix.gguf", &["--include", Q, "--include", DOWN]);
    let run = daemon.run(&named);
    expect(&run, 0, &["0 layers corrected, 2 by an imatrix, 0 starved"]);
    let adapter = daemon.adapter("qera-out");
    assert!(adapter.has(Q) && adapter.has(DOWN) && !adapter.has(K));
}
