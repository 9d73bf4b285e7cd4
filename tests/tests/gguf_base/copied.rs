//! All that is no layer's weight is the checkpoint's: keys, order, tensors, alignment.

use qera_tests::daemon::expect;
use qera_tests::gguf_file::GgufToWrite;
use qera_tests::gguf_read::{ReadGguf, ReadKey};

use crate::model::{MODEL, base, daemon_with_model, rich_model, run_once};

/// Keys but those that say what the file is in.
fn plain(keys: &[ReadKey]) -> Vec<ReadKey> {
    let said = ["general.file_type", "general.quantization_version"];
    let keys = keys.iter().filter(|key| !said.contains(&key.name.as_str()));
    keys.cloned().collect()
}

fn is_layer(name: &str) -> bool {
    ["attn_q", "attn_k", "ffn_down"]
        .iter()
        .any(|of| name.contains(of))
}

/// Every tensor is there, in its order; those that are no layers as they were.
fn assert_copied(found: &ReadGguf, source: &ReadGguf) {
    assert_eq!(plain(&found.keys), plain(&source.keys));
    assert_eq!(found.alignment, source.alignment);
    assert_eq!(found.tensors.len(), source.tensors.len());
    for (tensor, of) in found.tensors.iter().zip(&source.tensors) {
        assert_eq!((&tensor.name, &tensor.ne), (&of.name, &of.ne));
        assert_eq!(tensor.offset % found.alignment, 0);
        let same = (tensor.type_number, &tensor.bytes) == (of.type_number, &of.bytes);
        assert_eq!(same, !is_layer(&of.name), "{}", of.name);
    }
}

#[test]
fn metadata_and_tensors_are_the_checkpoint_s() {
    for model in [rich_model(), rich_model().aligned(128)] {
        let daemon = daemon_with_model(&model);
        expect(&run_once(&daemon, &[]), 0, &[]);
        let source = ReadGguf::open(&daemon.path().join(MODEL));
        let found = base(&daemon);
        assert_copied(&found, &source);
        // Said where it was said.
        let place = |of: &ReadGguf| of.keys.iter().position(|k| k.name == "general.file_type");
        assert_eq!(place(&found), place(&source));
        let last = found.keys.last().map(|key| key.name.as_str());
        assert_eq!(last, Some("general.quantization_version"));
    }
}

#[test]
fn a_matrix_keeps_lengths_of_one_behind_it() {
    let mut model = rich_model();
    for tensor in &mut model.tensors {
        tensor.ne.push(1);
    }
    let daemon = daemon_with_model(&model);
    expect(&run_once(&daemon, &[]), 0, &[]);
    assert_copied(&base(&daemon), &ReadGguf::open(&daemon.path().join(MODEL)));
}

#[test]
fn parts_become_one_file() {
    let whole = rich_model();
    let daemon = daemon_with_model(&whole);
    expect(&run_once(&daemon, &[]), 0, &[]);
    let of_whole = base(&daemon);
    let fingerprint = |out: &str| daemon.manifest(out)["fingerprints"]["base"].clone();
    let parts = ["part-00001-of-00002.gguf", "part-00002-of-00002.gguf"];
    let split = |model: GgufToWrite, number: u32| {
        let model = model.number("split.no", number).number("split.count", 2);
        model.number("split.tensors.count", 6)
    };
    let mut first = split(whole.clone(), 0);
    first.tensors.truncate(2);
    let mut second = split(GgufToWrite::default(), 1);
    second.tensors = whole.tensors[2..].to_vec();
    first.write(&daemon.path().join(parts[0]));
    second.write(&daemon.path().join(parts[1]));
    let options = ["--checkpoint", parts[0], "--out", "of-parts"];
    expect(
        &daemon.run(
            &[
                &["--once", "--watch", "activations"],
                &options[..],
                &["--rank", "4", "--emit-base=gguf"],
            ]
            .concat(),
        ),
        0,
        &[],
    );
    let of_parts = ReadGguf::open(&daemon.path().join("of-parts/base-gguf/model.gguf"));
    assert_eq!(of_parts, of_whole);
    assert_eq!(fingerprint("of-parts"), fingerprint("qera-out"));
}
