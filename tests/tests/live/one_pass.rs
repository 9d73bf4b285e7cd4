//! A shard's bytes are read once.

use std::fs;

use qera_tests::event::{event, folded, published};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{DOWN, Q, rename_in, shard_path, sine_values};

use super::{RunningDaemon, begin_on_three_layers};

/// By what the system counts: read, hashed, checked and folded, the shard went by once. Its header
/// is read before, and the mask; the rest is the process's own files.
#[test]
fn a_shard_is_read_once() {
    const ROWS: usize = 300_000;
    /// Bytes for snapshots that are read back and the adapter that is checked.
    const OTHER_FILES: u64 = 1 << 20;
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&[]);
    let before = live.bytes_read();
    let tensors = [
        TensorToWrite::f32(Q, &[ROWS, 8], &sine_values(ROWS * 8, 0.0)),
        TensorToWrite::f32(DOWN, &[ROWS, 12], &sine_values(ROWS * 12, 1.0)),
        TensorToWrite::u8(&format!("{DOWN}::mask"), &[ROWS], &vec![1; ROWS]),
    ];
    rename_in(&daemon, "a", &tensors);
    live.wait_for(&folded("a"));
    live.wait_for(&published(1));
    let read = live.bytes_read() - before;
    let file = fs::metadata(shard_path(&daemon, "a")).unwrap().len();
    assert!(
        (file..file + ROWS as u64 + OTHER_FILES).contains(&read),
        "{read} bytes of {file}"
    );
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    assert!(
        live.heard(&event("ingest").with("shards", 1)),
        "{}",
        live.log
    );
}
