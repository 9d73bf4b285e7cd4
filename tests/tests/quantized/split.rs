//! A model in several files is read by the name of the first.

use crate::BINARY;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::gguf_file::GgufToWrite;
use qera_tests::gguf_model::{ONCE, daemon_with_gguf, quantized_model};

const FIRST: &str = "part-00001-of-00002.gguf";
const SECOND: &str = "part-00002-of-00002.gguf";

/// The quantized model in two parts, which say these numbers of themselves.
fn write_parts(daemon: &TestDaemon, numbers: [u32; 2], all: u32) {
    let whole = quantized_model();
    let split = |model: GgufToWrite, number: u32| {
        let model = model.number("split.no", number).number("split.count", 2);
        model.number("split.tensors.count", all)
    };
    let mut first = split(whole.clone(), numbers[0]);
    first.tensors.truncate(1);
    let mut second = split(GgufToWrite::default(), numbers[1]);
    second.tensors = whole.tensors[1..].to_vec();
    first.write(&daemon.path().join(FIRST));
    second.write(&daemon.path().join(SECOND));
}

fn options<'a>(file: &'a str, out: &'a str) -> Vec<&'a str> {
    let options = ONCE.iter().map(|word| match *word {
        "model.gguf" => file,
        word => word,
    });
    options.chain(["--out", out]).collect()
}

#[test]
fn parts_are_one_model() {
    let daemon = daemon_with_gguf(BINARY);
    write_parts(&daemon, [0, 1], 3);
    expect(&daemon.run(&ONCE), 0, &[]);
    expect(&daemon.run(&options(FIRST, "of-parts")), 0, &[]);
    let (whole, parts) = (daemon.adapter("qera-out"), daemon.adapter("of-parts"));
    assert_eq!(whole.bytes, parts.bytes);
    assert_eq!(parts.manifest["quantized"]["files"], 2);
    let fingerprint = |of: &serde_json::Value| of["fingerprints"]["quantized"].clone();
    assert_eq!(fingerprint(&whole.manifest), fingerprint(&parts.manifest));
}

#[test]
fn parts_that_do_not_belong_together_are_named() {
    let daemon = daemon_with_gguf(BINARY);
    let run = |file| daemon.run(&options(file, "out"));
    write_parts(&daemon, [0, 1], 3);
    expect(&run(SECOND), 1, &[SECOND, "general.architecture"]);
    write_parts(&daemon, [0, 0], 3);
    expect(&run(FIRST), 1, &[SECOND, "part 1 of 2", "not part 2"]);
    write_parts(&daemon, [1, 1], 3);
    expect(&run(FIRST), 1, &[FIRST, "is part 2 of 2", "give the first"]);
    let mut twice = quantized_model()
        .number("split.no", 1)
        .number("split.count", 2);
    twice = twice.number("split.tensors.count", 3);
    write_parts(&daemon, [0, 1], 3);
    twice.write(&daemon.path().join(SECOND));
    let name = "'blk.0.attn_q.weight' stands in another part";
    expect(&run(FIRST), 1, &[SECOND, name]);
    write_parts(&daemon, [0, 1], 4);
    expect(&run(FIRST), 1, &["split.tensors.count is 4", "hold 3"]);
    write_parts(&daemon, [0, 1], 3);
    std::fs::rename(
        daemon.path().join(FIRST),
        daemon.path().join("renamed.gguf"),
    )
    .unwrap();
    expect(
        &run("renamed.gguf"),
        1,
        &["is one of 2 parts", "-00001-of-00002.gguf"],
    );
    std::fs::rename(
        daemon.path().join("renamed.gguf"),
        daemon.path().join(FIRST),
    )
    .unwrap();
    std::fs::remove_file(daemon.path().join(SECOND)).unwrap();
    expect(&run(FIRST), 1, &[SECOND]);
}
