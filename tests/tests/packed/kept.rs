//! State and output folder belong to one folder of packed weights.

use crate::BINARY;
use qera_tests::daemon::expect;
use qera_tests::event::event;
use qera_tests::gguf_model::write_shard;
use qera_tests::live::Live;
use qera_tests::packed_model::{ONCE, PLAIN, PackedModel, daemon_with_packed, weights};

/// The same weights but for one number.
fn another() -> PackedModel {
    let mut of = weights();
    of[0][3] += 0.5;
    PackedModel::gptq(&of, PLAIN, 1, "gptq")
}

fn with<'a>(folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let options = ONCE.iter().map(|word| match *word {
        "packed" => folder,
        word => word,
    });
    options.chain(more.iter().copied()).collect()
}

#[test]
fn another_folder_is_refused_and_a_new_beginning_is_not() {
    let model = PackedModel::gptq(&weights(), PLAIN, 1, "gptq");
    let daemon = daemon_with_packed(BINARY, &model);
    expect(&daemon.run(&ONCE), 0, &[]);
    another().write(&daemon.path().join("another"));
    // The same codes under another description.
    let mut said = model.clone();
    said.config["damp_percent"] = serde_json::json!(0.1);
    said.write(&daemon.path().join("said"));
    write_shard(&daemon, 2);
    for folder in ["another", "said"] {
        let run = daemon.run(&with(folder, &[]));
        expect(&run, 4, &["another --quantized file", "blake3:"]);
        let state = ["--out", "new", "--state", "qera-out/state"];
        let run = daemon.run(&with(folder, &state));
        expect(&run, 4, &["qera-out/state", "another --quantized file"]);
    }
    let gguf = daemon.run(&with("model.gguf", &["--state", "fresh"]));
    expect(&gguf, 4, &["corrects gptq", "gguf"]);
    // The rows that were gathered belong to no folder.
    let solve = with("another", &["--out", "solved", "--state", "qera-out/state"]);
    expect(&daemon.run(&[&["solve"], &solve[3..]].concat()), 0, &[]);
    expect(&daemon.run(&with("another", &["--new-checkpoint"])), 0, &[]);
    assert_eq!(daemon.adapter("qera-out").manifest["inputs"]["shards"], 3);
}

#[test]
fn it_is_corrected_live_and_solved_again_from_the_state() {
    let daemon = daemon_with_packed(BINARY, &PackedModel::awq(&weights()));
    let mut running = daemon.command(&ONCE[1..]).spawn().unwrap();
    daemon.wait_until_idle(2);
    std::process::Command::new("kill")
        .args(["-TERM", &running.id().to_string()])
        .status()
        .unwrap();
    assert!(running.wait().unwrap().success());
    expect(
        &daemon.run(&[&ONCE[..], &["--out", "once"]].concat()),
        0,
        &[],
    );
    let solve = ["solve", "--state", "qera-out/state", "--out", "solved"];
    expect(&daemon.run(&[&solve[..], &ONCE[3..]].concat()), 0, &[]);
    let of = |out| daemon.adapter(out).bytes;
    assert_eq!(of("qera-out"), of("once"));
    assert_eq!(of("qera-out"), of("solved"));
}

/// What is served now is not what was read.
#[test]
fn nothing_is_published_for_a_folder_that_was_written_to() {
    let daemon = daemon_with_packed(BINARY, &PackedModel::awq(&weights()));
    let mut live = Live::start(daemon.command(&ONCE[1..]));
    live.wait_for(&event("published"));
    daemon.wait_until_idle(2);
    PackedModel::awq(&weights()).write(&daemon.path().join("other"));
    let file = |name: &str| daemon.path().join(name).join("model.safetensors");
    std::fs::rename(file("other"), file("packed")).unwrap();
    write_shard(&daemon, 2);
    let rejected = live.wait_for(&event("rejected"));
    assert!(
        rejected.to_string().contains("packed/model.safetensors"),
        "{rejected}"
    );
    live.send("KILL");
}
