//! The targets, and how their inputs are dressed.

mod configured;
mod gguf;
mod published;
mod safetensors;
mod sealed;
mod sketches;
mod tensors;

use serde_json::Value;

use crate::trials::draw::Draw;
use crate::trials::fuzz::Target;
use crate::trials::fuzz::mutation::{mutate_bytes, mutate_json, times};

/// Each parser, and each file of the state.
pub(crate) static TARGETS: [Target; 17] = [
    safetensors::HEADER,
    gguf::HEADER,
    gguf::ADAPTER,
    gguf::IMATRIX,
    sealed::JOURNAL,
    sealed::BRIEFS,
    sealed::INDEX,
    sealed::SITES,
    tensors::STATISTICS,
    tensors::PROGRESS,
    sketches::SKETCHES,
    published::MANIFEST,
    published::ADAPTER_CONFIG,
    published::STATUS,
    configured::CONFIG,
    configured::CHECKPOINT_INDEX,
    configured::SETTINGS,
];

/// A seed with a few of its values changed.
fn changed(seed: &Value, draw: &mut Draw) -> Value {
    let mut value = seed.clone();
    for _ in 0..times(draw) {
        mutate_json(&mut value, draw);
    }
    value
}

/// Mostly the bytes of a changed value, dressed; else those of the value with bytes changed.
fn dressed(seed: &Value, draw: &mut Draw, dress: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    if !draw.once_in(6) {
        return dress(&changed(seed, draw));
    }
    let mut bytes = dress(seed);
    let other = bytes.clone();
    for _ in 0..times(draw) {
        mutate_bytes(&mut bytes, &other, draw);
    }
    bytes
}

/// The bytes of JSON.
fn plain(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}
