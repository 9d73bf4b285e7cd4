//! A checkpoint of one layer and one shard, for what is refused before the run starts.

use std::fs;
use std::path::Path;

use qera_tests::daemon::{EndedRun, TestDaemon};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};

use super::BINARY;

/// [4, 8].
pub(crate) const MODULE: &str = "model.layers.0.self_attn.q_proj";

/// A daemon's folder with the checkpoint and a shard of 100 rows.
pub(crate) fn daemon_with_one_layer() -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    fs::create_dir(daemon.path().join("checkpoint")).unwrap();
    write_weight(daemon.path(), "F32", &[4, 8], vec![1; 128]);
    let rows: Vec<f32> = (0..800).map(|i| (i as f32).sin()).collect();
    let shard = TensorToWrite::f32(MODULE, &[100, 8], &rows);
    write_safetensors(&daemon.watched().join("a.safetensors"), &[shard], &[]);
    daemon
}

/// The checkpoint, with any bytes for the weight.
pub(crate) fn write_weight(folder: &Path, dtype: &str, shape: &[usize], bytes: Vec<u8>) {
    let tensor = TensorToWrite::new(&format!("{MODULE}.weight"), dtype, shape, bytes);
    write_safetensors(&folder.join("checkpoint/model.safetensors"), &[tensor], &[]);
}

/// `--once` on the checkpoint and the watched folder, and more.
pub(crate) fn run_once(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let options = "--once --watch activations --checkpoint checkpoint";
    let options: Vec<&str> = options.split(' ').chain(more.iter().copied()).collect();
    daemon.run(&options)
}
