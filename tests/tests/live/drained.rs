//! A folder that is drained.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::event::{event, folded, published};
use qera_tests::fixture::{fixture_run, fixture_shards};
use qera_tests::live::arrive;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{Q, rename_in, sine_values};

use super::{BINARY, RunningDaemon, begin_on_fixture, begin_on_three_layers, blocks};

/// The last generation is a function of the shards in their order: the same as in a batch.
#[test]
fn a_drained_folder_ends_as_a_batch_does() {
    let RunningDaemon { daemon, mut live } =
        begin_on_fixture(&["--idle-publish", "1", "--threads", "1"]);
    for (index, shard) in fixture_shards().iter().enumerate() {
        let name = format!("s{index}");
        arrive(shard, &daemon.watched(), &name);
        if index % 3 == 0 {
            live.wait_for(&folded(&name));
        }
    }
    live.wait_for(&published(8));
    // Idle: everything is published and saved, and the process goes on.
    let status = daemon.wait_until_idle(8);
    assert_eq!(status["running"], true);
    let table = daemon.run(&["status"]);
    assert!(table.output.contains("running (pid"), "{}", table.output);
    let last = format!("model.layers.{}.self_attn.v_proj", blocks() - 1);
    assert!(table.output.contains(&last), "{}", table.output);
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let again = daemon.status();
    assert_eq!(again["running"], false);
    assert_eq!(again["phase"], "stopped");

    let batch = TestDaemon::new(BINARY);
    let once = fixture_run(&daemon.watched(), blocks(), &["--once"]);
    expect(&batch.run(&once), 0, &[]);
    let (live, batch) = (daemon.adapter("qera-out"), batch.adapter("qera-out"));
    assert!(
        live.bytes == batch.bytes,
        "adapter_model.safetensors differs"
    );
    assert_eq!(live.config, batch.config);
    assert_eq!(
        live.manifest["inputs"]["journal_digest"],
        batch.manifest["inputs"]["journal_digest"]
    );
    for drained in [&live, &batch] {
        assert_eq!(drained.manifest["inputs"]["drained"], true);
    }
}

/// What makes a correction weak is said once of a layer input, however often it is solved.
#[test]
fn a_weakness_is_said_once() {
    let RunningDaemon { daemon, mut live } = begin_on_three_layers(&[]);
    for generation in 1..=2_u32 {
        let values = sine_values(3 * 8, generation as f32);
        let rows = TensorToWrite::f32(Q, &[3, 8], &values);
        rename_in(&daemon, &format!("shard-{generation}"), &[rows]);
        live.wait_for(&event("published").with("generation", generation));
    }
    assert_eq!(live.stop(), Some(0), "{}", live.log);
    let said = live.log.matches("R is singular").count();
    assert_eq!(said, 1, "{}", live.log);
}
