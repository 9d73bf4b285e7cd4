//! GGUF adapters that nobody vouches for: each is refused by what is wrong with it. That no bytes
//! whatever end in a panic is tested in `gguf_headers`.

use std::fs;
use std::process::Command;

use crate::{BINARY, current, once};
use qera_tests::daemon::{expect, expect_verdict, run_to_end};
use qera_tests::gguf_file::{GgufTensorToWrite, GgufToWrite};
use qera_tests::gguf_model::daemon_with_gguf;

const A: &str = "blk.0.attn_q.weight.lora_a";
const B: &str = "blk.0.attn_q.weight.lora_b";
const INVOCATION: &str = "adapter.alora.invocation_tokens";
const VERIFY: [&str; 5] = ["verify", "--adapter", "x.gguf", "--base", "model.gguf"];

/// An adapter of one pair of rank 2 for q, whose B is this tensor.
fn adapter(architecture: &str, b: GgufTensorToWrite) -> GgufToWrite {
    GgufToWrite::default()
        .text("general.type", "adapter")
        .text("general.architecture", architecture)
        .text("adapter.type", "lora")
        .tensor(GgufTensorToWrite::f32(A, &[32, 2], &[0.5; 64]))
        .tensor(b)
}

fn b(ne: &[usize]) -> GgufTensorToWrite {
    GgufTensorToWrite::f32(B, ne, &vec![0.5; ne.iter().product()])
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let daemon = daemon_with_gguf(BINARY);
    let file = daemon.path().join("x.gguf");
    adapter("llama", b(&[2, 16])).write(&file);
    let said = "1 layers of rank 2 as gguf, on model.gguf";
    expect_verdict(&daemon.run(&VERIFY), 0, &[said]);
    let mut not_finite = b(&[2, 16]);
    not_finite.bytes[4 * 5..4 * 6].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut unknown = b(&[2, 16]);
    unknown.type_number = 200;
    let named = |name: &str| GgufTensorToWrite {
        name: name.into(),
        ..b(&[2, 16])
    };
    for (changed, said) in [
        (
            adapter("qwen2", b(&[2, 16])),
            "its general.architecture is 'qwen2', model.gguf is a 'llama'",
        ),
        (
            adapter("llama", named("blk.0.attn_k.weight.lora_b")),
            "tensor 'blk.0.attn_q.weight.lora_b' is missing, its other half is there",
        ),
        (
            adapter("llama", named("blk.0.attn_q.weight.lora_c")),
            "tensor 'blk.0.attn_q.weight.lora_c' is neither",
        ),
        (
            adapter("llama", b(&[3, 16])),
            "blk.0.attn_q.weight: A has rank 2 and B has rank 3",
        ),
        (
            adapter("llama", b(&[2, 15])),
            "blk.0.attn_q.weight: A and B fit [32, 15], model.gguf has [32, 16]",
        ),
        (
            adapter("llama", not_finite),
            "tensor 'blk.0.attn_q.weight.lora_b' is NaN or infinite at [2, 1]",
        ),
        (
            adapter("llama", unknown),
            "tensor 'blk.0.attn_q.weight.lora_b' is of type",
        ),
        (
            adapter("llama", b(&[2, 16])).text("adapter.lora.alpha", "16"),
            "adapter.lora.alpha is no number of 32 bits",
        ),
        (
            GgufToWrite::model("llama", 2, 1),
            "general.type is no text, not 'adapter'",
        ),
    ] {
        changed.write(&file);
        expect_verdict(&daemon.run(&VERIFY), 1, &["x.gguf: ", said]);
    }
}

#[test]
fn what_is_not_read_is_said_and_not_taken_for_wrong() {
    let daemon = daemon_with_gguf(BINARY);
    let file = daemon.path().join("x.gguf");
    adapter("llama", b(&[2, 16, 3])).write(&file);
    let said = "not checked: x.gguf: tensor 'blk.0.attn_q.weight.lora_b' has three dimensions";
    expect_verdict(&daemon.run(&VERIFY), 0, &[said]);
    // An embedding's: A is looked up by tokens, and B is [in_features, rank].
    let embedding = |half: &str, ne: &[usize]| {
        let name = format!("token_embd.weight.lora_{half}");
        GgufTensorToWrite::f32(&name, ne, &vec![0.5; ne.iter().product()])
    };
    let both = adapter("llama", b(&[2, 16])).tensor(embedding("a", &[4, 10]));
    both.clone().tensor(embedding("b", &[4, 32])).write(&file);
    let said =
        "not checked: x.gguf: 'token_embd.weight' is an embedding, whose A and B are transposed";
    expect_verdict(&daemon.run(&VERIFY), 0, &[said, "1 layers of rank 2"]);
    both.write(&file);
    let said = "tensor 'token_embd.weight.lora_b' is missing, its other half is there";
    expect_verdict(&daemon.run(&VERIFY), 1, &[said]);
    let tokens = |element: u32| {
        let count = 1_u64.to_le_bytes();
        let array = [&element.to_le_bytes()[..], &count, &7_u32.to_le_bytes()].concat();
        adapter("llama", b(&[2, 16])).value(INVOCATION, 9, &array)
    };
    tokens(4).write(&file);
    let said = "not checked: x.gguf: adapter.alora.invocation_tokens: from which token";
    expect_verdict(&daemon.run(&VERIFY), 0, &[said]);
    tokens(5).write(&file);
    let said = "problem: x.gguf: adapter.alora.invocation_tokens is no array of unsigned numbers";
    expect_verdict(&daemon.run(&VERIFY), 1, &[said]);
    fs::write(&file, b"no GGUF at all").unwrap();
    let said = "x.gguf: is no folder, and no GGUF file";
    expect_verdict(&daemon.run(&VERIFY), 1, &[said]);
}

/// A tensor of 12 MB of a type with less than two bits a number: 235 MB in f32.
#[cfg(target_os = "linux")]
#[test]
fn what_a_file_claims_takes_no_memory() {
    const TQ1_0: u32 = 34;
    let daemon = daemon_with_gguf(BINARY);
    let large = GgufTensorToWrite {
        name: B.into(),
        ne: vec![1024, 57_344],
        type_number: TQ1_0,
        bytes: vec![0; 1024 / 256 * 54 * 57_344],
    };
    adapter("llama", large).write(&daemon.path().join("x.gguf"));
    let limited = "ulimit -d 150000; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.current_dir(daemon.path());
    command.args(["-c", limited, BINARY]).args(VERIFY);
    let said = "blk.0.attn_q.weight: A has rank 2 and B has rank 1024";
    expect_verdict(&run_to_end(command), 1, &[said]);
}

#[test]
fn a_file_that_was_cut_is_told() {
    let daemon = daemon_with_gguf(BINARY);
    let given = ["--checkpoint", "checkpoint", "--quantized", "model.gguf"];
    expect(&once(&daemon, &given), 0, &[]);
    let whole = fs::read(current(&daemon, "adapter.gguf")).unwrap();
    for cut in [4, 23, 200, whole.len() / 2, whole.len() - 64] {
        fs::write(current(&daemon, "adapter.gguf"), &whole[..cut]).unwrap();
        let run = daemon.run(&["verify", "--adapter", "qera-out/current"]);
        expect_verdict(&run, 1, &["problem: adapter.gguf: "]);
    }
}
