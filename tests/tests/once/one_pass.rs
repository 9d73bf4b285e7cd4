//! A shard is read in pieces, each hashed and checked as it comes; none of that shows in what is
//! counted, refused and said.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_without_shards, once_with, rename_in, sine_values,
};

use super::BINARY;

/// Rows of several pieces.
const ROWS: usize = 40_000;

/// Rows of both sites; those of the first one twice, because two layers read them.
fn write_shard(daemon: &TestDaemon, name: &str, rows: &[f32], mask: Option<&[u8]>) {
    let count = rows.len() / 8;
    let mut tensors = vec![
        TensorToWrite::f32(DOWN, &[300, 12], &sine_values(300 * 12, 10.0)),
        TensorToWrite::f32(Q, &[count, 8], rows),
        TensorToWrite::f32(K, &[count, 8], rows),
    ];
    // Behind the rows, where the usual writers have them.
    for module in [Q, K] {
        let name = format!("{module}::mask");
        tensors.extend(mask.map(|mask| TensorToWrite::u8(&name, &[count], mask)));
    }
    rename_in(daemon, name, &tensors);
}

#[test]
fn masked_rows_leave_no_gap_between_pieces() {
    let rows = sine_values(ROWS * 8, 0.0);
    let (mut mixed, mut mask) = (Vec::new(), Vec::new());
    for (number, row) in rows.chunks(8).enumerate() {
        // Gaps have different lengths, so that some pieces begin or end within one.
        let gap = number % 3;
        mixed.extend(core::iter::repeat_n(f32::NAN, 8 * gap));
        mask.extend(core::iter::repeat_n(0, gap));
        mixed.extend_from_slice(row);
        mask.push(1);
    }
    let [plain, masked] = [(); 2].map(|()| daemon_without_shards(BINARY));
    write_shard(&plain, "a", &rows, None);
    write_shard(&masked, "a", &mixed, Some(&mask));
    expect(&plain.run(&once_with(&[])), 0, &["1 shards folded"]);
    expect(&masked.run(&once_with(&[])), 0, &["1 shards folded"]);
    assert!(plain.adapter("qera-out").bytes == masked.adapter("qera-out").bytes);
}

/// One bad number in a late piece: it is named by its row in the tensor, and no row of the shard
/// counts.
#[test]
fn a_bad_row_in_a_late_piece_refuses_the_shard() {
    let [good, both] = [(); 2].map(|()| daemon_without_shards(BINARY));
    let mut rows = sine_values(ROWS * 8, 0.0);
    for daemon in [&good, &both] {
        write_shard(daemon, "a", &rows, None);
    }
    rows[30_001 * 8 + 3] = f32::INFINITY;
    write_shard(&both, "b", &rows, None);
    expect(&good.run(&once_with(&[])), 0, &["1 shards folded"]);
    let said = ["b.safetensors: ", Q, "inf at row 30001, column 3"];
    expect(&both.run(&once_with(&[])), 3, &said);
    assert!(good.adapter("qera-out").bytes == both.adapter("qera-out").bytes);
}

/// What the run says of taking its shards in adds up to the files.
#[test]
fn what_taking_in_took_is_said() {
    let daemon = daemon_without_shards(BINARY);
    write_shard(&daemon, "a", &sine_values(ROWS * 8, 0.0), None);
    write_shard(&daemon, "b", &sine_values(ROWS * 8, 1.0), None);
    let run = daemon.run(&once_with(&["--log-format", "json"]));
    assert_eq!(run.code, 0, "{}", run.log);
    let events = run.log.lines().map(serde_json::from_str);
    let events: Vec<serde_json::Value> = events.map_while(Result::ok).collect();
    let told: Vec<_> = events.iter().filter(|of| of["event"] == "ingest").collect();
    let [ended] = told[..] else {
        panic!("{}", run.log);
    };
    let files = ["a", "b"].map(|name| {
        let path = qera_tests::three_layers::shard_path(&daemon, name);
        std::fs::metadata(path).unwrap().len()
    });
    let bytes = |part: &str| ended[part]["bytes"].as_u64().unwrap();
    assert_eq!(bytes("hash"), files.iter().sum::<u64>());
    assert_eq!(bytes("disk") + bytes("page_cache"), bytes("hash"));
    assert_eq!(ended["shards"], 2);
    let limits = ["disk", "page-cache", "hash", "memory", "accumulation"];
    assert!(limits.iter().any(|limit| ended["limit"] == *limit));
    // Said once the rows are folded, before they are solved.
    let place = |name: &str| events.iter().position(|of| of["event"] == name);
    assert!(place("shard-folded") < place("ingest") && place("ingest") < place("published"));
}
