//! A base whose W~ was rounded under what was seen: two of one checkpoint and one grid are not the
//! same, and an adapter belongs on one of them. The records are written here, over weights that
//! were rounded to nearest, so that nothing is asked of the rounding itself.

use std::fs;
use std::path::Path;

use qera_tests::copied_folder::copy_folder;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::three_layers::{DOWN, K, Q, once_with};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::copied_adapter::{
    change_json, change_tensors, expect_holds, expect_problems, published, tensor, verify,
};

const MANIFEST: &str = "adapter/qera_manifest.json";
const RECORD: &str = "other/qera_base.json";
const ON_OTHER: [&str; 2] = ["--base", "other"];

fn projected(base_share: f64) -> Value {
    json!({"name": "projected", "shrinkage": "rule", "base_share": base_share})
}

/// BLAKE3 of the numbers of a weight that has no more than eight rows of no more than 512.
fn sample(base: &Path, module: &str) -> String {
    let bytes = fs::read(base.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weight = file.tensor(&format!("{module}.weight")).unwrap();
    assert_eq!(weight.dtype().to_string(), "F32");
    format!("blake3:{}", blake3::hash(weight.data()).to_hex())
}

/// Says of a base that its W~ was rounded for rank 2.
fn call_rounded(daemon: &TestDaemon, record: &str, digest: &str, base_share: f64) {
    let base = daemon.path().join(record);
    let base = base.parent().unwrap().to_path_buf();
    change_json(daemon, record, |record| {
        record["version"] = 3.into();
        record["rounded"] = json!({
            "settings": projected(base_share), "ranks": [2, 2, 2], "digest": digest,
        });
        for module in [Q, K, DOWN] {
            record["samples"][module] = sample(&base, module).into();
        }
    });
}

/// An adapter in `adapter` and a base in `other`, made together.
fn rounded_together() -> TestDaemon {
    let daemon = published(&[]);
    let path = daemon.path();
    copy_folder(&path.join("qera-out/base"), &path.join("other"));
    call_rounded(&daemon, RECORD, "blake3:a", 0.01);
    change_json(&daemon, MANIFEST, |manifest| {
        manifest["settings"]["rounding"] = projected(0.01);
        manifest["fingerprints"]["rounded"] = "blake3:a".into();
        manifest["fingerprints"]["base"] = json!(null);
    });
    daemon
}

#[test]
fn a_w_that_was_exchanged_for_another_of_the_grid_is_found() {
    let daemon = rounded_together();
    expect_holds(&verify(&daemon, &ON_OTHER), &[]);
    // Every row is on the grid, wherever it stands.
    change_tensors(&daemon.path().join("other/model.safetensors"), |tensors| {
        let q = tensor(tensors, &format!("{Q}.weight"));
        let row = q.bytes.len() / 6;
        q.bytes.rotate_left(row);
    });
    let said = format!("'{Q}.weight' is not the W~ that qera_base.json was written for");
    expect_problems(&verify(&daemon, &ON_OTHER), &[&said]);
}

#[test]
fn the_base_of_another_run_is_named_by_its_w() {
    let daemon = rounded_together();
    change_json(&daemon, RECORD, |record| {
        record["rounded"]["digest"] = "blake3:b".into();
    });
    let said = "holds another W~ (blake3:b) than the one that the adapter was made with (blake3:a)";
    expect_problems(&verify(&daemon, &ON_OTHER), &[said]);
    // The one that was rounded to nearest is no better.
    let said =
        "was rounded by nearest, the adapter corrects weights that were rounded by projected";
    expect_problems(&verify(&daemon, &["--base", "qera-out/base"]), &[said]);
    fs::remove_file(daemon.path().join(RECORD)).unwrap();
    let unknown = verify(&daemon, &ON_OTHER);
    let said = "has no qera_base.json: the adapter belongs on one W~ alone, which was rounded by projected, and nothing says that this is it";
    expect_problems(&unknown, &[said]);
}

#[test]
fn an_output_folder_holds_one_rounding() {
    let daemon = published(&[]);
    let other = once_with(&["--rounding", "projected", "--state", "fresh"]);
    let said = "its current generation corrects weights that were rounded by nearest, this run rounds by projected: choose another --out";
    expect(&daemon.run(&other), 4, &[said]);
    // Without a generation the base tells.
    fs::remove_file(daemon.path().join("qera-out/current")).unwrap();
    let said = "qera-out/base: was rounded by nearest, this run rounds by projected: choose another --out, or solve from the state that made it";
    expect(&daemon.run(&other), 4, &[said]);
    call_rounded(&daemon, "qera-out/base/qera_base.json", "blake3:a", 0.25);
    let said = "was rounded by projected, --base-share 0.25, shrinkage rule, this run rounds by projected, --base-share 0.01, shrinkage rule";
    expect(&daemon.run(&other), 4, &[said]);
    let lower = once_with(&[
        "--rounding",
        "projected",
        "--base-share",
        "0.25",
        "--rank-for",
        "*=1",
        "--state",
        "fresh",
    ]);
    let said = "was rounded for rank 2 (model.layers.0.mlp.down_proj), this run's W~ will be rounded for rank 1";
    expect(&daemon.run(&lower), 4, &[said]);
    let nearest = once_with(&["--emit-base", "--state", "fresh"]);
    let said = "was rounded by projected, this run rounds by nearest: choose another --out";
    expect(&daemon.run(&nearest), 4, &[said]);
}
