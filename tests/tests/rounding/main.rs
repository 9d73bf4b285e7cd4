//! W~ that is rounded under what was seen of its inputs: made once, kept, and never another.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod gathering;
mod judged;
mod kept;
mod killed;
mod published;
mod refused;
mod solve;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use qera_tests::daemon::TestDaemon;
use qera_tests::event::event;
use qera_tests::live::Live;
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::{DOWN, K, Q, live_with, once_with, shard_path, sine_values};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
const PROJECTED: [&str; 2] = ["--rounding", "projected"];

/// A file of W~.
#[derive(Debug, PartialEq, Eq)]
struct KeptFile {
    bytes: Vec<u8>,
    /// Another one after each writing.
    inode: u64,
    modified: i64,
}

/// The files of W~ in a folder, by layer; none where there is no folder.
fn kept(rounded: &Path) -> BTreeMap<String, KeptFile> {
    let Ok(entries) = fs::read_dir(rounded) else {
        return BTreeMap::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|of| of == "safetensors"));
    let file = |path: PathBuf| {
        let layer = path.file_stem().unwrap().to_string_lossy().into_owned();
        let metadata = fs::metadata(&path).unwrap();
        let kept = KeptFile {
            bytes: fs::read(&path).unwrap(),
            inode: metadata.ino(),
            modified: metadata.mtime_nsec(),
        };
        (layer, kept)
    };
    // What a killed run was just writing is none.
    let whole = |(layer, _): &(String, KeptFile)| !layer.starts_with(".qera-unfinished-");
    paths.map(file).filter(whole).collect()
}

/// The marker that names a layer among those that were rounded together, and all that it names.
fn marker(rounded: &Path, layer: &str) -> Option<(PathBuf, Vec<String>)> {
    let paths = fs::read_dir(rounded).ok()?.map(|of| of.unwrap().path());
    // What a killed run was just writing is none.
    let whole = |path: &PathBuf| {
        !path
            .file_name()
            .unwrap()
            .as_encoded_bytes()
            .starts_with(b".")
    };
    let markers = paths.filter(|path| path.extension().is_some_and(|of| of == "done"));
    let markers = markers.filter(whole);
    let mut read = markers.map(|path| {
        let names = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        (path, names)
    });
    read.find(|(_, names): &(PathBuf, Vec<String>)| names.iter().any(|name| name == layer))
}

/// The W~ of a state.
fn kept_in_state(daemon: &TestDaemon) -> BTreeMap<String, KeptFile> {
    kept(&daemon.path().join("qera-out/state/rounded"))
}

/// Asserts that both have the same layers, bit for bit.
fn assert_same_bytes(ours: &BTreeMap<String, KeptFile>, theirs: &BTreeMap<String, KeptFile>) {
    assert_eq!(ours.len(), theirs.len());
    for (layer, file) in ours {
        assert!(file.bytes == theirs[layer].bytes, "{layer} differs");
    }
}

/// What the file of a layer says of its rounding.
fn record(file: &KeptFile) -> Value {
    let (_, header) = SafeTensors::read_metadata(&file.bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let record: Value = serde_json::from_str(&metadata["qera.rounded"]).unwrap();
    record["rounding"].clone()
}

/// Rows of one input, by a tap that names all three layers.
fn rows_of(daemon: &TestDaemon, name: &str, module: &str, shape: [usize; 2], phase: f32) {
    let values = sine_values(shape[0] * shape[1], phase);
    let tensor = TensorToWrite::f32(module, &shape, &values);
    let linear =
        |name: &str, m: usize, n: usize| format!(r#"{{"name":"{name}","in":{m},"out":{n}}}"#);
    let linears = [linear(Q, 8, 6), linear(K, 8, 4), linear(DOWN, 12, 8)].join(",");
    let linears = format!("[{linears}]");
    let said = [Metadata::new("qera.linears", &linears)];
    let aside = daemon.path().join("aside");
    write_safetensors(&aside, &[tensor], &said);
    fs::rename(aside, shard_path(daemon, name)).unwrap();
}

/// `--once` with projected rounding on the three layers.
fn once_rounded<'a>(more: &[&'a str]) -> Vec<&'a str> {
    once_with(&[&PROJECTED, more].concat())
}

/// A live run with projected rounding on the three layers, watching.
fn start_rounded(daemon: &TestDaemon, more: &[&str]) -> Live {
    let idle = ["--idle-publish", "0.5"];
    let options = live_with(&[&PROJECTED, &idle[..], more].concat());
    let mut live = Live::start(daemon.command(&options));
    live.wait_for(&event("watching"));
    live
}
