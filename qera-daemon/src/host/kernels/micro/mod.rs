//! The innermost loops: a tile of sums of products, held in registers.
//!
//! A tile is LANES x COLUMNS sums over t of a(t, lane) b(t, column), in f32 or in f64. `a` is
//! packed, LANES numbers for each t, so that a step is a few vector loads and one broadcast and
//! multiply-add for each column and vector. `b` is packed likewise (COLUMNS numbers for each t) or
//! comes as COLUMNS columns of a matrix as they lie in memory.
//!
//! | form | tile | registers | used where the CPU has |
//! |---|---|---|---|
//! | AVX-512, f32 | 48 x 8 | 24 sums, 3 of `a` | avx512f |
//! | AVX512-BF16 | 48 x 8, two t a step, products exact | the same | avx512_bf16 |
//! | AVX2, f32 | 16 x 6 | 12 sums, 2 of `a` | avx2 and fma |
//! | NEON, f32 | 8 x 8 | 16 sums, 2 of `a`, 2 or 8 of `b` | 64-bit ARM |
//! | portable, f32 | 8 x 4 | what the compiler finds | anything |
//! | AMX, f32 sums of bf16 numbers | 32 x 32, 16 pairs a step ([`amx`]) | 4 tiles of sums, 4 of numbers | amx_bf16 |
//! | the same with f64 sums, `b` widened as it is read | 24 x 8, 8 x 6, 4 x 8, 8 x 4 | the same | the same |
//!
//! The only `unsafe` of the kernels is in this folder: a hint here, in `x86.rs` and `neon.rs` loads
//! and stores through references to whole vectors, and the calls of functions that need a CPU
//! feature, which [`Kernel`](super::Kernel) has found; in `amx` three pieces of assembly and a
//! system call.

#![allow(
    unsafe_code,
    reason = "vector loads and calls behind a feature test; each block says why it is sound"
)]

pub(super) mod amx;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{avx2, avx512};

/// Columns of a tile in the AVX-512 forms.
pub(super) const COLUMNS: usize = 8;
/// The most lanes that a tile can have.
pub(super) const LANES_MAX: usize = 48;
/// Numbers of the largest tile.
pub(super) const TILE_MAX: usize = LANES_MAX * COLUMNS;

/// A tile's sums, column by column: `LANES` numbers for each column.
pub(super) type Tile = [f32; TILE_MAX];

/// A tile's sums in f64.
pub(super) type WideTile = [f64; TILE_MAX];

/// Adds a tile's sums to f64 ones, with the vectors of whoever it is inlined into.
#[inline(always)]
pub(super) fn add(tile: &[f32], sums: &mut [f64]) {
    for (sum, x) in sums.iter_mut().zip(tile) {
        *sum += f64::from(*x);
    }
}

/// Asks for memory that will be read and written soon, where the CPU can be asked.
pub(super) fn prefetch(numbers: &[f64]) {
    #[cfg(target_arch = "x86_64")]
    for line in numbers.chunks(8) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint about an address inside of a slice; every x86-64 CPU has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = numbers;
}

/// The portable form: 8 lanes, 4 columns.
pub(super) mod portable {
    use super::{Tile, WideTile};

    pub(in super::super) const LANES: usize = 8;
    pub(in super::super) const COLUMNS: usize = 4;

    /// Fused where that is one instruction of the target, else a call into the math library.
    #[inline]
    fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            a.mul_add(b, sum)
        } else {
            a * b + sum
        }
    }

    #[inline]
    fn step(sums: &mut [[f32; LANES]; COLUMNS], a: &[f32], b: impl Fn(usize) -> f32) {
        for (c, sums) in sums.iter_mut().enumerate() {
            let b = b(c);
            for (sum, a) in sums.iter_mut().zip(a) {
                *sum = multiply_add(*a, b, *sum);
            }
        }
    }

    pub(in super::super) fn packed(a: &[f32], b: &[f32], tile: &mut Tile) {
        let mut sums = [[0.0; LANES]; COLUMNS];
        for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(COLUMNS)) {
            step(&mut sums, a, |c| b[c]);
        }
        tile[..LANES * COLUMNS].copy_from_slice(sums.as_flattened());
    }

    pub(in super::super) fn columns(a: &[f32], b: [&[f32]; COLUMNS], tile: &mut Tile) {
        let mut sums = [[0.0; LANES]; COLUMNS];
        let steps = a.len() / LANES;
        let b = b.map(|column| &column[..steps]);
        for (t, a) in a.chunks_exact(LANES).enumerate() {
            step(&mut sums, a, |c| b[c][t]);
        }
        tile[..LANES * COLUMNS].copy_from_slice(sums.as_flattened());
    }

    pub(in super::super) fn columns_f64(a: &[f64], b: [&[f32]; COLUMNS], tile: &mut WideTile) {
        let mut sums = [[0.0; LANES]; COLUMNS];
        let steps = a.len() / LANES;
        let b = b.map(|column| &column[..steps]);
        for (t, a) in a.chunks_exact(LANES).enumerate() {
            for (sums, b) in sums.iter_mut().zip(b) {
                let b = f64::from(b[t]);
                for (sum, a) in sums.iter_mut().zip(a) {
                    *sum += a * b;
                }
            }
        }
        tile[..LANES * COLUMNS].copy_from_slice(sums.as_flattened());
    }
}
