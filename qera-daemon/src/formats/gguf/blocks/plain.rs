//! Numbers as they are: `F32`, `F16`, `BF16`.

use qera_core::dtype::{FloatDtype, widen};

pub(super) fn f32(bytes: &[u8], values: &mut [f32]) {
    widen(bytes, FloatDtype::F32, values);
}

pub(super) fn f16(bytes: &[u8], values: &mut [f32]) {
    widen(bytes, FloatDtype::F16, values);
}

pub(super) fn bf16(bytes: &[u8], values: &mut [f32]) {
    widen(bytes, FloatDtype::Bf16, values);
}
