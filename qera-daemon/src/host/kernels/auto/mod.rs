//! What `--kernel auto` stands for: a table by architecture, vendor, family and instructions.
//!
//! | CPU | f32 rows | f16 rows | bf16 rows |
//! |---|---|---|---|
//! | Intel with AMX-BF16 and AVX-512F | avx512 | amx-bf16 | amx-bf16 |
//! | AMD of families 25 and 26 (Zen 4, Zen 5) with AVX512-BF16 | avx512 | avx512 | avx512-bf16 |
//! | any other with AVX-512F | avx512 | avx512 | avx512 |
//! | with AVX2 and FMA | avx2 | avx2 | avx2 |
//! | any other of x86-64 | portable | portable | portable |
//! | 64-bit ARM | neon | neon | neon |
//! | any other | portable | portable | portable |
//!
//! An instruction is not worth the same everywhere. `vdpbf16ps` has twice the products of an f32
//! multiply-add: Zen 4 begins as many of either in a cycle, Sapphire Rapids a quarter, so that
//! there X^T X of 2,048 rows of 4096 took 0.485 s by it and 0.37 s as f32. A CPU of which nothing
//! was measured gets the widest f32 products that it has. AMX's row stands on the rates in Intel's
//! manuals (`micro::amx`): it was not run on such a CPU. Where the operating system gives no
//! permission for its tiles, or their trial product is wrong, `auto` does without, and the log says
//! why.
//!
//! Every 64-bit ARM CPU has NEON. Some have products of bf16 pairs beside it (`bfmmla`), the Cortex
//! A76, A78AE and A72 of today's boards have none. They are not used: no such CPU was there to
//! measure whether they are faster, and an emulator cannot tell.
//!
//! It is a table, and no timing at the start, because the kernels differ in the order of their
//! sums: with a timing the bytes would depend on who else was busy.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::host::kernels::Kernel;

/// Every kernel for this CPU's instructions, beside the portable one.
pub(super) fn here() -> Vec<Kernel> {
    #[cfg(target_arch = "x86_64")]
    return x86::here();
    #[cfg(target_arch = "aarch64")]
    return vec![Kernel::NEON];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Vec::new();
}

/// The table's kernel for this CPU.
pub(super) fn best() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    return x86::best();
    #[cfg(target_arch = "aarch64")]
    return Kernel::NEON;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Kernel::PORTABLE;
}

/// Why AMX is not used on this CPU, if it has AMX.
pub(super) fn tile_refusal() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    return x86::tile_refusal().map(|refusal| refusal.to_string());
    #[cfg(not(target_arch = "x86_64"))]
    return None;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen here is a kernel that runs here.
    #[test]
    fn the_choice_runs_here() {
        let best = best();
        assert!(Kernel::available().contains(&best), "{}", best.name());
    }
}
