//! What a log and a manifest say of a kernel: what multiplies rows of each type.

use core::fmt;

use qera_core::dtype::FloatDtype;
use serde::Serialize;

use crate::host::kernels::Kernel;

/// The name of what multiplies rows of each type without weights; those with weights are multiplied
/// as f32 ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct KernelNames {
    f32: &'static str,
    f16: &'static str,
    bf16: &'static str,
}

impl KernelNames {
    /// The names of a kernel, one for each type of rows.
    pub(crate) const fn of(kernel: Kernel) -> Self {
        Self {
            f32: kernel.name_for(FloatDtype::F32),
            f16: kernel.name_for(FloatDtype::F16),
            bf16: kernel.name_for(FloatDtype::Bf16),
        }
    }
}

impl fmt::Display for KernelNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { f32, f16, bf16 } = *self;
        match (f16 == f32, bf16 == f16) {
            (true, true) => write!(f, "{f32} kernels"),
            (true, false) => write!(f, "{bf16} kernels, f32 and f16 rows by {f32}"),
            (false, true) => write!(f, "{bf16} kernels, f32 rows by {f32}"),
            (false, false) => write!(f, "{bf16} kernels, f16 rows by {f16}, f32 rows by {f32}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_named() {
        let text = |f32, f16, bf16| KernelNames { f32, f16, bf16 }.to_string();
        assert_eq!(text("avx2", "avx2", "avx2"), "avx2 kernels");
        assert_eq!(
            text("avx512", "avx512", "avx512-bf16"),
            "avx512-bf16 kernels, f32 and f16 rows by avx512"
        );
        assert_eq!(
            text("avx512", "amx-bf16", "amx-bf16"),
            "amx-bf16 kernels, f32 rows by avx512"
        );
        assert_eq!(
            text("a", "b", "c"),
            "c kernels, f16 rows by b, f32 rows by a"
        );
    }

    #[test]
    fn one_form_multiplies_all_where_no_pairs_are() {
        for kernel in Kernel::available() {
            let names = KernelNames::of(kernel);
            assert_eq!(names.bf16, kernel.name(), "what a kernel is named after");
            let widened = !kernel.multiplies_in_bf16(FloatDtype::Bf16);
            assert_eq!(names.f32 == names.bf16, widened, "{names}");
        }
    }
}
