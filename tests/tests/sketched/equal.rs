//! Equal journals give equal bytes: whatever the threads, kills and restarts, live and in a batch.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{event, folded, published};
use qera_tests::live::Live;
use qera_tests::output_folder::{SnapshotFile, statistics_files};

use crate::model::{
    O, ROWS, SHARDS, live, once, with_shards, without_shards, write_rows, write_shard,
};

/// What a run left.
pub(crate) struct Left {
    adapter: Vec<u8>,
    statistics: Vec<SnapshotFile>,
}

impl Left {
    pub(crate) fn of(daemon: &TestDaemon) -> Self {
        Self {
            adapter: daemon.adapter("qera-out").bytes,
            statistics: statistics_files(&daemon.path().join("qera-out/state")),
        }
    }

    pub(crate) fn assert_equals(&self, other: &Self, what: &str) {
        assert!(self.adapter == other.adapter, "{what}: the adapter differs");
        assert_eq!(self.statistics.len(), other.statistics.len(), "{what}");
        for (own, other) in self.statistics.iter().zip(&other.statistics) {
            assert!(own == other, "{what}: {} differs", own.name);
        }
    }
}

#[test]
fn threads_restarts_and_kills_change_no_byte() {
    let batch = with_shards();
    expect(
        &batch.run(&once(&["--threads", "1"])),
        0,
        &["4 shards folded"],
    );
    let expected = Left::of(&batch);

    let threads = with_shards();
    expect(&threads.run(&once(&["--threads", "3"])), 0, &[]);
    Left::of(&threads).assert_equals(&expected, "three threads");

    let restarted = without_shards();
    for shard in 0..SHARDS {
        write_shard(&restarted, shard);
        expect(&restarted.run(&once(&[])), 0, &[]);
    }
    Left::of(&restarted).assert_equals(&expected, "a run a shard");

    let more = ["--idle-publish", "0.5"];
    let killed = without_shards();
    let mut run = Live::start(killed.command(&live(&more)));
    write_shard(&killed, 0);
    run.wait_for(&folded("shard-0"));
    run.kill();
    write_shard(&killed, 1);
    let mut run = Live::start(killed.command(&live(&more)));
    run.wait_for(&published(2));
    run.kill();
    write_shard(&killed, 2);
    let mut run = Live::start(killed.command(&live(&more)));
    run.wait_for(&event("restored"));
    run.wait_for(&folded("shard-2"));
    write_shard(&killed, 3);
    killed.wait_until_idle(SHARDS);
    assert_eq!(run.stop(), Some(0), "{}", run.log);
    Left::of(&killed).assert_equals(&expected, "live, killed twice");
}

/// The sketch is a function of the rows, not of the shards: 270 shards of a row are one of 270.
#[test]
fn shards_of_one_row_give_the_same_sketch() {
    const COUNT: usize = 270;
    let [one, many] = [(); 2].map(|()| without_shards());
    write_rows(&one, "all", 0, 0..COUNT);
    for row in 0..COUNT {
        write_rows(&many, &format!("row-{row:04}"), 0, row..row + 1);
    }
    // Which shrinkage is best is chosen on blocks, which are cut from shards.
    let options = once(&["--shrinkage", "0", "--dtype", "f32", "--exclude", O]);
    let mut sketches = Vec::new();
    for daemon in [&one, &many] {
        expect(&daemon.run(&options), 0, &[]);
        let files = statistics_files(&daemon.path().join("qera-out/state"));
        let [file] = &files[..] else {
            panic!("{} sites", files.len());
        };
        let tensors = safetensors::SafeTensors::deserialize(&file.bytes).unwrap();
        let of = |name: &str| {
            let tensor = tensors.tensor(name).unwrap();
            (tensor.shape().to_vec(), tensor.data().to_vec())
        };
        sketches.push(["sketch.0", "sketch.1", "waiting.f32"].map(of));
        let adapter = daemon.adapter("qera-out");
        assert_eq!(adapter.layers()[0]["rows"], COUNT);
        sketches.push([(); 3].map(|()| (vec![], adapter.bytes.clone())));
    }
    let (first, second) = sketches.split_at(2);
    assert!(first == second, "sketches, rows that wait and factors");
    // 256 rows are shrunk in, 14 wait.
    assert_eq!(first[0][2].0, [COUNT - 256, 512]);
    const { assert!(COUNT < ROWS) };
}
