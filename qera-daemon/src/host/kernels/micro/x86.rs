//! The vector forms of x86-64: one set of loops, written for AVX2 and for AVX-512, and the products
//! of bf16 pairs.
//!
//! The compiler wants a CPU's features at each function, and the two sets differ in features, in
//! the names of the instructions and in how many registers there are; in nothing else. So a macro
//! writes the functions of a form, and each form's module names the instructions for it.

/// Writes the loops of a form into its module, which names the vectors and instructions they are
/// made of: `Vector` of `WIDTH` f32, `WIDE` f64, and `COLUMNS` of a tile.
macro_rules! loops {
    (
        features $features:literal,
        vectors of a tile $($fewer:literal,)* at most $most:literal
    ) => {
        #[target_feature(enable = $features)]
        #[inline]
        fn load(numbers: &[f32; WIDTH]) -> Vector {
            // SAFETY: the reference is to the WIDTH readable f32 of a vector, and the load asks for
            // no alignment.
            unsafe { load_f32(numbers.as_ptr()) }
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store<const V: usize>(sums: [[Vector; V]; COLUMNS], tile: &mut Tile) {
            let (vectors, _) = tile.as_chunks_mut::<WIDTH>();
            for (to, from) in vectors.iter_mut().zip(sums.as_flattened()) {
                // SAFETY: the reference is to the WIDTH writable f32 of a vector, and the store
                // asks for no alignment.
                unsafe { store_f32(to.as_mut_ptr(), *from) }
            }
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn step<const V: usize>(
            sums: &mut [[Vector; V]; COLUMNS],
            a: &[[f32; WIDTH]],
            b: impl Fn(usize) -> f32,
        ) {
            let mut lanes = [zero_f32(); V];
            for (lanes, a) in lanes.iter_mut().zip(a) {
                *lanes = load(a);
            }
            for (c, sums) in sums.iter_mut().enumerate() {
                let b = broadcast_f32(b(c));
                for (sum, a) in sums.iter_mut().zip(lanes) {
                    *sum = multiply_add_f32(a, b, *sum);
                }
            }
        }

        #[target_feature(enable = $features)]
        fn packed_tile<const V: usize>(a: &[f32], b: &[f32], tile: &mut Tile) {
            let mut sums = [[zero_f32(); V]; COLUMNS];
            let (vectors, _) = a.as_chunks::<WIDTH>();
            let (rows, _) = b.as_chunks::<COLUMNS>();
            for (a, b) in vectors.chunks_exact(V).zip(rows) {
                step(&mut sums, a, |c| b[c]);
            }
            store(sums, tile);
        }

        #[target_feature(enable = $features)]
        fn columns_tile<const V: usize>(a: &[f32], b: [&[f32]; COLUMNS], tile: &mut Tile) {
            let mut sums = [[zero_f32(); V]; COLUMNS];
            let (vectors, _) = a.as_chunks::<WIDTH>();
            let steps = vectors.len() / V;
            let b = b.map(|column| &column[..steps]);
            for (t, a) in vectors.chunks_exact(V).enumerate() {
                // SAFETY: t < steps, which every column has. A test of it would stand between the
                // loads, each of which is to become part of its multiply-add.
                step(&mut sums, a, |c| unsafe { *b[c].get_unchecked(t) });
            }
            store(sums, tile);
        }

        #[target_feature(enable = $features)]
        fn columns_f64_tile<const V: usize>(a: &[f64], b: [&[f32]; COLUMNS], tile: &mut WideTile) {
            let mut sums = [[zero_f64(); V]; COLUMNS];
            let (vectors, _) = a.as_chunks::<WIDE>();
            let steps = vectors.len() / V;
            let b = b.map(|column| &column[..steps]);
            for (t, a) in vectors.chunks_exact(V).enumerate() {
                let mut lanes = [zero_f64(); V];
                for (lanes, a) in lanes.iter_mut().zip(a) {
                    // SAFETY: the reference is to the WIDE readable f64 of a vector, and the load
                    // asks for no alignment.
                    *lanes = unsafe { load_f64(a.as_ptr()) };
                }
                for (sums, b) in sums.iter_mut().zip(b) {
                    // SAFETY: t < steps, which every column has.
                    let b = widen_f32(broadcast_half(unsafe { *b.get_unchecked(t) }));
                    for (sum, a) in sums.iter_mut().zip(lanes) {
                        *sum = multiply_add_f64(a, b, *sum);
                    }
                }
            }
            let (vectors, _) = tile.as_chunks_mut::<WIDE>();
            for (to, from) in vectors.iter_mut().zip(sums.as_flattened()) {
                // SAFETY: the reference is to the WIDE writable f64 of a vector, and the store asks
                // for no alignment.
                unsafe { store_f64(to.as_mut_ptr(), *from) }
            }
        }

        #[target_feature(enable = $features)]
        fn add_vectors(tile: &[f32], sums: &mut [f64]) {
            super::super::add(tile, sums);
        }

        /// Adds a tile's sums to f64 ones. Called as `packed` is.
        pub(in super::super::super) fn add(tile: &[f32], sums: &mut [f64]) {
            // SAFETY: as in `packed`.
            unsafe { add_vectors(tile, sums) }
        }

        /// Multiplies packed rows, as many lanes as a tile has at most. It is called only through a
        /// [`Kernel`](super::super::super::Kernel) of this form or one above it, and such a kernel
        /// exists only where the CPU has the features.
        pub(in super::super::super) fn packed(a: &[f32], b: &[f32], tile: &mut Tile) {
            // SAFETY: a `Kernel` of this form or above is only made where the features of this form
            // were found.
            unsafe { packed_tile::<$most>(a, b, tile) }
        }

        /// Multiplies columns, as many lanes as the given number of vectors has. It is called as
        /// `packed` is.
        pub(in super::super::super) fn columns(
            vectors: usize,
            a: &[f32],
            b: [&[f32]; COLUMNS],
            tile: &mut Tile,
        ) {
            match vectors {
                // SAFETY: as in `packed`.
                $($fewer => unsafe { columns_tile::<$fewer>(a, b, tile) },)*
                // SAFETY: as in `packed`.
                _ => unsafe { columns_tile::<$most>(a, b, tile) },
            }
        }

        /// Multiplies columns as `columns` does, in f64.
        pub(in super::super::super) fn columns_f64(
            vectors: usize,
            a: &[f64],
            b: [&[f32]; COLUMNS],
            tile: &mut WideTile,
        ) {
            match vectors {
                // SAFETY: as in `packed`.
                $($fewer => unsafe { columns_f64_tile::<$fewer>(a, b, tile) },)*
                // SAFETY: as in `packed`.
                _ => unsafe { columns_f64_tile::<$most>(a, b, tile) },
            }
        }
    };
}

/// 16 lanes, 6 columns: 12 of the 16 registers are sums.
pub(in super::super) mod avx2 {
    use core::arch::x86_64::{
        __m256 as Vector, _mm_set1_ps as broadcast_half, _mm256_cvtps_pd as widen_f32,
        _mm256_fmadd_pd as multiply_add_f64, _mm256_fmadd_ps as multiply_add_f32,
        _mm256_loadu_pd as load_f64, _mm256_loadu_ps as load_f32, _mm256_set1_ps as broadcast_f32,
        _mm256_setzero_pd as zero_f64, _mm256_setzero_ps as zero_f32,
        _mm256_storeu_pd as store_f64, _mm256_storeu_ps as store_f32,
    };

    use super::super::{Tile, WideTile};

    const WIDTH: usize = 8;
    const WIDE: usize = 4;
    pub(in super::super::super) const COLUMNS: usize = 6;

    loops!(features "avx2,fma", vectors of a tile 1, at most 2);
}

/// 48 lanes, 8 columns: 24 of the 32 registers are sums.
pub(in super::super) mod avx512 {
    use core::arch::x86_64::{
        __m512 as Vector, __m512bh, __m512i, _mm256_set1_ps as broadcast_half,
        _mm512_cvtps_pd as widen_f32, _mm512_dpbf16_ps, _mm512_fmadd_pd as multiply_add_f64,
        _mm512_fmadd_ps as multiply_add_f32, _mm512_loadu_pd as load_f64,
        _mm512_loadu_ps as load_f32, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_set1_ps as broadcast_f32, _mm512_setzero_pd as zero_f64,
        _mm512_setzero_ps as zero_f32, _mm512_storeu_pd as store_f64,
        _mm512_storeu_ps as store_f32,
    };

    use super::super::{COLUMNS, Tile, WideTile};

    const WIDTH: usize = 16;
    const WIDE: usize = 8;

    loops!(features "avx512f", vectors of a tile 1, 2, at most 3);

    /// Two rows a step: each number of `a` and `b` is a pair of bf16, the earlier row in the low
    /// half.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pairs_tile<const V: usize>(a: &[u32], b: &[u32], tile: &mut Tile) {
        let mut sums = [[zero_f32(); V]; COLUMNS];
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
    fn as_pairs(bits: __m512i) -> __m512bh {
        // SAFETY: both are 512 bits without invalid values.
        unsafe { core::mem::transmute(bits) }
    }

    /// 48 lanes of pairs. Called where
    /// [`Kernel::multiplies_in_bf16`](super::super::super::Kernel::multiplies_in_bf16) only.
    pub(in super::super::super) fn pairs(a: &[u32], b: &[u32], tile: &mut Tile) {
        // SAFETY: a `Kernel` of the form AVX512-BF16 is only made where avx512f and avx512bf16 were
        // found.
        unsafe { pairs_tile::<3>(a, b, tile) }
    }
}
