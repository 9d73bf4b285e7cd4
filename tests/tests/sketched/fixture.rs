//! The fixture's model: live, killed and in a batch the same bytes, and near what R gives.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{folded, published};
use qera_tests::fixture::{fixture_run, fixture_shards};
use qera_tests::live::{Live, arrive};
use qera_tests::tier;
use serde_json::Value;

use crate::BINARY;
use crate::equal::Left;

const DOWN: &str = "down_proj";

fn options(watched: &std::path::Path, more: &[&str]) -> Vec<String> {
    let more = [&["--statistics", "sketch"], more].concat();
    fixture_run(watched, tier::cases(1, 4), &more)
}

fn shards() -> std::path::PathBuf {
    let first = &fixture_shards()[0];
    first.parent().unwrap().to_path_buf()
}

/// Of the layers whose names end so, what `verify --replay` measures with and without the adapter.
fn replayed(daemon: &TestDaemon, out: &str, ending: &str) -> [f64; 2] {
    let checkpoint = qera_tests::fixture::fixtures().join("model");
    let run = daemon.run(&[
        "verify".into(),
        "--adapter".into(),
        format!("{out}/current"),
        "--replay".into(),
        shards().display().to_string(),
        "--checkpoint".into(),
        checkpoint.display().to_string(),
        "--json".into(),
    ]);
    assert_eq!(run.code, 0, "{}{}", run.output, run.log);
    let said: Value = serde_json::from_str(&run.output).unwrap();
    let layers = said["replay"][0]["layers"].as_array().unwrap();
    let of = layers.iter().filter(|layer| {
        let name = layer["layer"].as_str().or_else(|| layer["name"].as_str());
        name.unwrap().ends_with(ending)
    });
    let sum = |what: &str| of.clone().map(|layer| layer[what].as_f64().unwrap()).sum();
    [sum("error_with"), sum("error_without")]
}

#[test]
fn live_killed_and_batch_are_the_same_bytes_and_near_the_whole_of_r() {
    let batch = TestDaemon::new(BINARY);
    let once = options(&shards(), &["--once", "--emit-base"]);
    expect(&batch.run(&once), 0, &[]);
    let expected = Left::of(&batch);

    let killed = TestDaemon::with_watched_folder(BINARY);
    let more = ["--idle-publish", "1", "--emit-base"];
    let start = || Live::start(killed.command(&options("activations".as_ref(), &more)));
    let mut live = start();
    let all = fixture_shards();
    for (index, shard) in all.iter().enumerate() {
        let name = shard.file_stem().unwrap().to_str().unwrap();
        arrive(shard, &killed.watched(), name);
        live.wait_for(&folded(name));
        if [2, 5].contains(&index) {
            live.kill();
            live = start();
        }
    }
    live.wait_for(&published(all.len()));
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    Left::of(&killed).assert_equals(&expected, "live, killed twice");

    // Inputs of 320 channels are sketched; those of 128 gather R, which takes less.
    let layers = batch.adapter("qera-out");
    for layer in layers.layers() {
        let is_sketched = layer["name"].as_str().unwrap().ends_with(DOWN);
        assert_eq!(layer.get("sketch").is_some(), is_sketched, "{layer}");
        assert_eq!(layer.get("error").is_some(), !is_sketched, "{layer}");
    }
    let mut full = fixture_run(
        &shards(),
        tier::cases(1, 4),
        &["--once", "--emit-base", "--out", "full"],
    );
    expect(&batch.run(&full), 0, &[]);
    full.truncate(full.len() - 1);
    full.extend(["approx-out", "--method", "approx"].map(String::from));
    expect(&batch.run(&full), 0, &[]);
    let [sketched, without] = replayed(&batch, "qera-out", DOWN);
    let [exact, _] = replayed(&batch, "full", DOWN);
    let [approx, _] = replayed(&batch, "approx-out", DOWN);
    assert!(sketched < 1.03 * exact, "{sketched} {exact}");
    assert!(sketched < approx && approx < without, "{sketched} {approx}");
}
