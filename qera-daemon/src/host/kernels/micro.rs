//! The innermost loops: a tile of sums of products, held in registers.
//!
//! A tile is LANES x COLUMNS sums over t of a(t, lane) b(t, column), in f32 or in f64. `a` is packed, LANES numbers for each t, so
//! that a step is a few vector loads and one broadcast and multiply-add for each column and vector. `b` is packed
//! likewise (COLUMNS numbers for each t) or comes as COLUMNS columns of a matrix as they lie in memory.
//!
//! | form | tile | registers | used where the CPU has |
//! |---|---|---|---|
//! | AVX-512, f32 | 48 x 8 | 24 sums, 3 of `a` | avx512f |
//! | AVX512-BF16 | 48 x 8, two t a step, products exact | the same | avx512_bf16 |
//! | AVX2, f32 | 16 x 6 | 12 sums, 2 of `a` | avx2 and fma |
//! | portable, f32 | 8 x 4 | what the compiler finds | anything |
//! | the same with f64 sums, `b` widened as it is read | 24 x 8, 8 x 6, 8 x 4 | the same | the same |
//!
//! The only `unsafe` of the kernels is here: loads and stores through references to whole vectors, and the calls
//! of functions that need a CPU feature, which [`Kernel`](super::Kernel) has found.

#![allow(
    unsafe_code,
    reason = "vector loads and calls behind a feature test; each block says why it is sound"
)]

/// Columns of a tile in the AVX-512 forms.
pub(super) const COLUMNS: usize = 8;
/// Most lanes of a tile.
pub(super) const LANES_MAX: usize = 48;
/// PageVec of the largest tile.
pub(super) const TILE_MAX: usize = LANES_MAX * COLUMNS;

/// A tile's sums, column by column: `LANES` numbers for each column.
pub(super) type Tile = [f32; TILE_MAX];

/// The same in f64.
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

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use core::arch::x86_64::{
        __m256, _mm_set1_ps, _mm256_cvtps_pd, _mm256_fmadd_pd, _mm256_fmadd_ps, _mm256_loadu_pd,
        _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_pd, _mm256_setzero_ps, _mm256_storeu_pd,
        _mm256_storeu_ps,
    };

    use super::{Tile, WideTile};

    const WIDTH: usize = 8;
    /// f64 of a vector.
    const WIDE: usize = 4;
    pub(in super::super) const COLUMNS: usize = 6;

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn load(numbers: &[f32; WIDTH]) -> __m256 {
        // SAFETY: the reference is to 8 readable f32, and the load asks for no alignment.
        unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn store<const V: usize>(sums: [[__m256; V]; COLUMNS], tile: &mut Tile) {
        let (vectors, _) = tile.as_chunks_mut::<WIDTH>();
        for (to, from) in vectors.iter_mut().zip(sums.as_flattened()) {
            // SAFETY: the reference is to 8 writable f32, and the store asks for no alignment.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), *from) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn step<const V: usize>(
        sums: &mut [[__m256; V]; COLUMNS],
        a: &[[f32; WIDTH]],
        b: impl Fn(usize) -> f32,
    ) {
        let mut lanes = [_mm256_setzero_ps(); V];
        for (lanes, a) in lanes.iter_mut().zip(a) {
            *lanes = load(a);
        }
        for (c, sums) in sums.iter_mut().enumerate() {
            let b = _mm256_set1_ps(b(c));
            for (sum, a) in sums.iter_mut().zip(lanes) {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn packed_tile<const V: usize>(a: &[f32], b: &[f32], tile: &mut Tile) {
        let mut sums = [[_mm256_setzero_ps(); V]; COLUMNS];
        let (vectors, _) = a.as_chunks::<WIDTH>();
        let (rows, _) = b.as_chunks::<COLUMNS>();
        for (a, b) in vectors.chunks_exact(V).zip(rows) {
            step(&mut sums, a, |c| b[c]);
        }
        store(sums, tile);
    }

    #[target_feature(enable = "avx2,fma")]
    fn columns_tile<const V: usize>(a: &[f32], b: [&[f32]; COLUMNS], tile: &mut Tile) {
        let mut sums = [[_mm256_setzero_ps(); V]; COLUMNS];
        let (vectors, _) = a.as_chunks::<WIDTH>();
        let steps = vectors.len() / V;
        let b = b.map(|column| &column[..steps]);
        for (t, a) in vectors.chunks_exact(V).enumerate() {
            // SAFETY: t < steps, which every column has. A test of it would stand between the loads, each of which is to
            // become part of its multiply-add.
            step(&mut sums, a, |c| unsafe { *b[c].get_unchecked(t) });
        }
        store(sums, tile);
    }

    #[target_feature(enable = "avx2,fma")]
    fn columns_f64_tile<const V: usize>(a: &[f64], b: [&[f32]; COLUMNS], tile: &mut WideTile) {
        let mut sums = [[_mm256_setzero_pd(); V]; COLUMNS];
        let (vectors, _) = a.as_chunks::<WIDE>();
        let steps = vectors.len() / V;
        let b = b.map(|column| &column[..steps]);
        for (t, a) in vectors.chunks_exact(V).enumerate() {
            let mut lanes = [_mm256_setzero_pd(); V];
            for (lanes, a) in lanes.iter_mut().zip(a) {
                // SAFETY: the reference is to 4 readable f64, and the load asks for no alignment.
                *lanes = unsafe { _mm256_loadu_pd(a.as_ptr()) };
            }
            for (sums, b) in sums.iter_mut().zip(b) {
                // SAFETY: t < steps, which every column has.
                let b = _mm256_cvtps_pd(_mm_set1_ps(unsafe { *b.get_unchecked(t) }));
                for (sum, a) in sums.iter_mut().zip(lanes) {
                    *sum = _mm256_fmadd_pd(a, b, *sum);
                }
            }
        }
        let (vectors, _) = tile.as_chunks_mut::<WIDE>();
        for (to, from) in vectors.iter_mut().zip(sums.as_flattened()) {
            // SAFETY: the reference is to 4 writable f64, and the store asks for no alignment.
            unsafe { _mm256_storeu_pd(to.as_mut_ptr(), *from) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn add_vectors(tile: &[f32], sums: &mut [f64]) {
        super::add(tile, sums);
    }

    /// Adds a tile's sums to f64 ones. Called as `packed` is.
    pub(in super::super) fn add(tile: &[f32], sums: &mut [f64]) {
        // SAFETY: as in `packed`.
        unsafe { add_vectors(tile, sums) }
    }

    /// 16 lanes. Called through a [`Kernel`](super::super::Kernel) only, which exists where the CPU has avx2 and fma.
    pub(in super::super) fn packed(a: &[f32], b: &[f32], tile: &mut Tile) {
        // SAFETY: a `Kernel` of the form AVX2 or above is only made where avx2 and fma were found.
        unsafe { packed_tile::<2>(a, b, tile) }
    }

    /// `vectors` x 8 lanes, 1 or 2 of them; called as `packed` is.
    pub(in super::super) fn columns(
        vectors: usize,
        a: &[f32],
        b: [&[f32]; COLUMNS],
        tile: &mut Tile,
    ) {
        match vectors {
            // SAFETY: as in `packed`.
            1 => unsafe { columns_tile::<1>(a, b, tile) },
            // SAFETY: as in `packed`.
            _ => unsafe { columns_tile::<2>(a, b, tile) },
        }
    }

    /// `vectors` x 4 lanes, 1 or 2 of them; called as `packed` is.
    pub(in super::super) fn columns_f64(
        vectors: usize,
        a: &[f64],
        b: [&[f32]; COLUMNS],
        tile: &mut WideTile,
    ) {
        match vectors {
            // SAFETY: as in `packed`.
            1 => unsafe { columns_f64_tile::<1>(a, b, tile) },
            // SAFETY: as in `packed`.
            _ => unsafe { columns_f64_tile::<2>(a, b, tile) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use core::arch::x86_64::{
        __m512, __m512bh, _mm256_set1_ps, _mm512_cvtps_pd, _mm512_dpbf16_ps, _mm512_fmadd_pd,
        _mm512_fmadd_ps, _mm512_loadu_pd, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_set1_ps, _mm512_setzero_pd, _mm512_setzero_ps, _mm512_storeu_pd, _mm512_storeu_ps,
    };

    use super::{COLUMNS, Tile, WideTile};

    const WIDTH: usize = 16;
    /// f64 of a vector.
    const WIDE: usize = 8;

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(numbers: &[f32; WIDTH]) -> __m512 {
        // SAFETY: the reference is to 16 readable f32, and the load asks for no alignment.
        unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store<const V: usize>(sums: [[__m512; V]; COLUMNS], tile: &mut Tile) {
        let (vectors, _) = tile.as_chunks_mut::<WIDTH>();
        for (to, from) in vectors.iter_mut().zip(sums.as_flattened()) {
            // SAFETY: the reference is to 16 writable f32, and the store asks for no alignment.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *from) }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn step<const V: usize>(
        sums: &mut [[__m512; V]; COLUMNS],
        a: &[[f32; WIDTH]],
        b: impl Fn(usize) -> f32,
    ) {
        let mut lanes = [_mm512_setzero_ps(); V];
        for (lanes, a) in lanes.iter_mut().zip(a) {
            *lanes = load(a);
        }
        for (c, sums) in sums.iter_mut().enumerate() {
            let b = _mm512_set1_ps(b(c));
            for (sum, a) in sums.iter_mut().zip(lanes) {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn packed_tile<const V: usize>(a: &[f32], b: &[f32], tile: &mut Tile) {
        let mut sums = [[_mm512_setzero_ps(); V]; COLUMNS];
        let (vectors, _) = a.as_chunks::<WIDTH>();
        let (rows, _) = b.as_chunks::<COLUMNS>();
        for (a, b) in vectors.chunks_exact(V).zip(rows) {
            step(&mut sums, a, |c| b[c]);
        }
        store(sums, tile);
    }

    #[target_feature(enable = "avx512f")]
    fn columns_tile<const V: usize>(a: &[f32], b: [&[f32]; COLUMNS], tile: &mut Tile) {
        let mut sums = [[_mm512_setzero_ps(); V]; COLUMNS];
        let (vectors, _) = a.as_chunks::<WIDTH>();
        let steps = vectors.len() / V;
        let b = b.map(|column| &column[..steps]);
        for (t, a) in vectors.chunks_exact(V).enumerate() {
            // SAFETY: t < steps, which every column has. A test of it would stand between the loads, each of which is to
            // become part of its multiply-add.
            step(&mut sums, a, |c| unsafe { *b[c].get_unchecked(t) });
        }
        store(sums, tile);
    }

    /// Two rows a step: each number of `a` and `b` is a pair of bf16, the earlier row in the low half.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pairs_tile<const V: usize>(a: &[u32], b: &[u32], tile: &mut Tile) {
        let mut sums = [[_mm512_setzero_ps(); V]; COLUMNS];
        let (vectors, _) = a.as_chunks::<WIDTH>();
        let (rows, _) = b.as_chunks::<COLUMNS>();
        for (a, b) in vectors.chunks_exact(V).zip(rows) {
            let mut lanes = [as_pairs(_mm512_set1_epi32(0)); V];
            for (lanes, a) in lanes.iter_mut().zip(a) {
                // SAFETY: the reference is to 16 readable u32, and the load asks for no alignment.
                *lanes = as_pairs(unsafe { _mm512_loadu_si512(a.as_ptr().cast()) });
            }
            for (sums, b) in sums.iter_mut().zip(b) {
                let b = as_pairs(_mm512_set1_epi32(b.cast_signed()));
                for (sum, a) in sums.iter_mut().zip(lanes) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
        store(sums, tile);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    fn as_pairs(bits: core::arch::x86_64::__m512i) -> __m512bh {
        // SAFETY: both are 512 bits without invalid values.
        unsafe { core::mem::transmute(bits) }
    }

    #[target_feature(enable = "avx512f")]
    fn columns_f64_tile<const V: usize>(a: &[f64], b: [&[f32]; COLUMNS], tile: &mut WideTile) {
        let mut sums = [[_mm512_setzero_pd(); V]; COLUMNS];
        let (vectors, _) = a.as_chunks::<WIDE>();
        let steps = vectors.len() / V;
        let b = b.map(|column| &column[..steps]);
        for (t, a) in vectors.chunks_exact(V).enumerate() {
            let mut lanes = [_mm512_setzero_pd(); V];
            for (lanes, a) in lanes.iter_mut().zip(a) {
                // SAFETY: the reference is to 8 readable f64, and the load asks for no alignment.
                *lanes = unsafe { _mm512_loadu_pd(a.as_ptr()) };
            }
            for (sums, b) in sums.iter_mut().zip(b) {
                // SAFETY: t < steps, which every column has.
                let b = _mm512_cvtps_pd(_mm256_set1_ps(unsafe { *b.get_unchecked(t) }));
                for (sum, a) in sums.iter_mut().zip(lanes) {
                    *sum = _mm512_fmadd_pd(a, b, *sum);
                }
            }
        }
        let (vectors, _) = tile.as_chunks_mut::<WIDE>();
        for (to, from) in vectors.iter_mut().zip(sums.as_flattened()) {
            // SAFETY: the reference is to 8 writable f64, and the store asks for no alignment.
            unsafe { _mm512_storeu_pd(to.as_mut_ptr(), *from) }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn add_vectors(tile: &[f32], sums: &mut [f64]) {
        super::add(tile, sums);
    }

    /// Adds a tile's sums to f64 ones. Called as `packed` is.
    pub(in super::super) fn add(tile: &[f32], sums: &mut [f64]) {
        // SAFETY: as in `packed`.
        unsafe { add_vectors(tile, sums) }
    }

    /// 48 lanes. Called through a [`Kernel`](super::super::Kernel) only, which exists where the CPU has avx512f.
    pub(in super::super) fn packed(a: &[f32], b: &[f32], tile: &mut Tile) {
        // SAFETY: a `Kernel` of the form AVX-512 or above is only made where avx512f was found.
        unsafe { packed_tile::<3>(a, b, tile) }
    }

    /// 48 lanes of pairs. Called where [`Kernel::multiplies_bf16`](super::super::Kernel::multiplies_bf16) only.
    pub(in super::super) fn pairs(a: &[u32], b: &[u32], tile: &mut Tile) {
        // SAFETY: a `Kernel` of the form AVX512-BF16 is only made where avx512f and avx512bf16 were found.
        unsafe { pairs_tile::<3>(a, b, tile) }
    }

    /// `vectors` x 16 lanes, 1 to 3 of them; called as `packed` is.
    pub(in super::super) fn columns(
        vectors: usize,
        a: &[f32],
        b: [&[f32]; COLUMNS],
        tile: &mut Tile,
    ) {
        match vectors {
            // SAFETY: as in `packed`.
            1 => unsafe { columns_tile::<1>(a, b, tile) },
            // SAFETY: as in `packed`.
            2 => unsafe { columns_tile::<2>(a, b, tile) },
            // SAFETY: as in `packed`.
            _ => unsafe { columns_tile::<3>(a, b, tile) },
        }
    }

    /// `vectors` x 8 lanes, 1 to 3 of them; called as `packed` is.
    pub(in super::super) fn columns_f64(
        vectors: usize,
        a: &[f64],
        b: [&[f32]; COLUMNS],
        tile: &mut WideTile,
    ) {
        match vectors {
            // SAFETY: as in `packed`.
            1 => unsafe { columns_f64_tile::<1>(a, b, tile) },
            // SAFETY: as in `packed`.
            2 => unsafe { columns_f64_tile::<2>(a, b, tile) },
            // SAFETY: as in `packed`.
            _ => unsafe { columns_f64_tile::<3>(a, b, tile) },
        }
    }
}
