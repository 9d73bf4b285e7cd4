//! The output folder: what others left in it, its base, its lock.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};

use super::one_layer::{MODULE, daemon_with_one_layer, run_once};

/// What an OUT folder holds of others is left alone, and what stands in the way is said before the
/// work.
#[test]
fn the_out_folder_is_treated_with_care() {
    let daemon = daemon_with_one_layer();
    let out = daemon.path().join("qera-out");
    fs::create_dir_all(out.join(".tmp-precious")).unwrap();
    fs::create_dir_all(out.join("generations/.qera-unfinished-1")).unwrap();
    expect(&run_once(&daemon, &[]), 0, &[]);
    assert!(
        out.join(".tmp-precious").is_dir() && !out.join("generations/.qera-unfinished-1").exists()
    );
    fs::remove_file(out.join("current")).unwrap();
    fs::create_dir(out.join("current")).unwrap();
    let refused = run_once(&daemon, &[]);
    expect(&refused, 4, &["current: is no symlink"]);
    assert!(!refused.log.contains("folded"));
}

/// A base belongs to all tensors of its checkpoint, not only to the corrected ones.
#[test]
fn a_stale_base_is_refused() {
    let daemon = daemon_with_one_layer();
    let write_with = |norm: f32| {
        let tensors = [
            TensorToWrite::new(&format!("{MODULE}.weight"), "F32", &[4, 8], vec![1; 128]),
            TensorToWrite::f32("model.norm.weight", &[2], &[norm, f32::NEG_INFINITY]),
        ];
        write_safetensors(
            &daemon.path().join("checkpoint/model.safetensors"),
            &tensors,
            &[],
        );
    };
    write_with(1.0);
    expect(&run_once(&daemon, &["--emit-base"]), 0, &[]);
    expect(&run_once(&daemon, &["--emit-base"]), 0, &["nothing new"]);
    let base = daemon.path().join("qera-out/base/model.safetensors");
    let bytes = fs::read(&base).unwrap();
    fs::write(&base, &bytes[..bytes.len() - 1]).unwrap();
    expect(
        &run_once(&daemon, &["--emit-base"]),
        4,
        &["model.safetensors is damaged: truncated"],
    );
    fs::write(&base, &bytes).unwrap();
    write_with(2.0);
    let options = ["--emit-base", "--new-checkpoint"];
    expect(&run_once(&daemon, &options), 4, &["other weights"]);
}

#[test]
fn a_folder_in_use_exits_75() {
    let daemon = daemon_with_one_layer();
    fs::create_dir(daemon.path().join("qera-out")).unwrap();
    let lock = fs::File::create(daemon.path().join("qera-out/.lock")).unwrap();
    lock.lock().unwrap();
    expect(&run_once(&daemon, &[]), 75, &["in use", ".lock"]);
    drop(lock);
    expect(&run_once(&daemon, &[]), 0, &[]);
}

#[test]
fn another_quantizer_refuses_the_base() {
    let daemon = daemon_with_one_layer();
    expect(&run_once(&daemon, &["--emit-base"]), 0, &[]);
    let base = fs::read(daemon.path().join("qera-out/base/model.safetensors")).unwrap();
    expect(
        &run_once(&daemon, &["--emit-base", "--quantizer", "mxint3"]),
        4,
        &["mxint4/32", "mxint3/32"],
    );
    expect(
        &run_once(&daemon, &["--quantizer", "mxint3"]),
        4,
        &["mxint4/32"],
    );
    expect(&run_once(&daemon, &[]), 0, &["nothing new"]);
    expect(&run_once(&daemon, &["--out", "bare"]), 0, &[]);
    expect(
        &run_once(&daemon, &["--out", "bare", "--quantizer", "mxint3"]),
        4,
        &["bare: its current generation corrects mxint4/32, this run uses mxint3/32"],
    );
    let readme = fs::read_to_string(daemon.path().join("qera-out/current/README.md")).unwrap();
    assert!(
        readme.contains("qera-out/base") && !readme.contains("full-precision"),
        "{readme}"
    );
    expect(
        &run_once(&daemon, &["--emit-base", "--method", "approx"]),
        0,
        &["generation 2"],
    );
    assert_eq!(
        base,
        fs::read(daemon.path().join("qera-out/base/model.safetensors")).unwrap()
    );
    let adapter = daemon.adapter("qera-out");
    let path = adapter.config["base_model_name_or_path"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(path.ends_with("qera-out/base"), "{path}");
    assert!(
        adapter.manifest["fingerprints"]["base"]
            .as_str()
            .unwrap()
            .starts_with("blake3:")
    );
}
