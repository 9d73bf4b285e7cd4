//! The form of 64-bit ARM: 8 lanes, 8 columns, 16 of the 32 registers are sums.
//!
//! A multiply-add takes one number of a register as its factor for all lanes (`fmla` by element),
//! so that numbers of `b` are loaded four at a time and never broadcast: 8 of one step where they
//! are packed, 4 steps of each column where columns lie in memory. A packed step is 16
//! multiply-adds of 4 lanes and two loads of two registers each; 16 sums keep busy four pipes of
//! four cycles, which is more than boards have.

use core::arch::aarch64::{
    float32x2_t, float32x4_t, float64x2_t, vcvt_f64_f32, vdup_n_f32, vdupq_n_f32, vdupq_n_f64,
    vfmaq_laneq_f32, vfmaq_laneq_f64, vld1_f32, vld1q_f32, vld1q_f64, vst1q_f32, vst1q_f64,
};

use super::{Tile, WideTile};

/// f32 and f64 of a vector.
const WIDTH: usize = 4;
const WIDE: usize = 2;
/// Vectors of a tile's lanes.
const VECTORS: usize = 2;

pub(in super::super) const LANES: usize = WIDTH * VECTORS;
pub(in super::super) const COLUMNS: usize = 8;

/// Vectors for each column.
type Sums<T, const V: usize> = [[T; V]; COLUMNS];

#[target_feature(enable = "neon")]
#[inline]
fn load(numbers: &[f32; WIDTH]) -> float32x4_t {
    // SAFETY: the reference is to the 4 readable f32 of a vector, and the load asks for no
    // alignment.
    unsafe { vld1q_f32(numbers.as_ptr()) }
}

#[target_feature(enable = "neon")]
#[inline]
fn load_f64(numbers: &[f64; WIDE]) -> float64x2_t {
    // SAFETY: the reference is to the 2 readable f64 of a vector, and the load asks for no
    // alignment.
    unsafe { vld1q_f64(numbers.as_ptr()) }
}

#[target_feature(enable = "neon")]
#[inline]
fn load_half(numbers: &[f32; WIDE]) -> float32x2_t {
    // SAFETY: the reference is to the 2 readable f32 of half a vector, and the load asks for no
    // alignment.
    unsafe { vld1_f32(numbers.as_ptr()) }
}

#[target_feature(enable = "neon")]
#[inline]
fn store<const V: usize>(sums: Sums<float32x4_t, V>, tile: &mut Tile) {
    let (vectors, _) = tile.as_chunks_mut::<WIDTH>();
    for (to, from) in vectors.iter_mut().zip(sums.as_flattened()) {
        // SAFETY: the reference is to the 4 writable f32 of a vector, and the store asks for no
        // alignment.
        unsafe { vst1q_f32(to.as_mut_ptr(), *from) }
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn store_f64<const V: usize>(sums: Sums<float64x2_t, V>, tile: &mut WideTile) {
    let (vectors, _) = tile.as_chunks_mut::<WIDE>();
    for (to, from) in vectors.iter_mut().zip(sums.as_flattened()) {
        // SAFETY: the reference is to the 2 writable f64 of a vector, and the store asks for no
        // alignment.
        unsafe { vst1q_f64(to.as_mut_ptr(), *from) }
    }
}

/// Adds a column's products of one step: `a` times number `B` of `b`.
#[target_feature(enable = "neon")]
#[inline]
fn add_column<const B: i32, const V: usize>(
    sums: &mut [float32x4_t; V],
    a: [float32x4_t; V],
    b: float32x4_t,
) {
    for (sum, a) in sums.iter_mut().zip(a) {
        *sum = vfmaq_laneq_f32::<B>(*sum, a, b);
    }
}

/// Adds a column as `add_column` does, in f64.
#[target_feature(enable = "neon")]
#[inline]
fn add_column_f64<const B: i32, const V: usize>(
    sums: &mut [float64x2_t; V],
    a: [float64x2_t; V],
    b: float64x2_t,
) {
    for (sum, a) in sums.iter_mut().zip(a) {
        *sum = vfmaq_laneq_f64::<B>(*sum, a, b);
    }
}

#[target_feature(enable = "neon")]
#[inline(never)] // Where ci/aarch64 counts its instructions.
fn packed_tile(a: &[f32], b: &[f32], tile: &mut Tile) {
    let mut sums = [[vdupq_n_f32(0.0); VECTORS]; COLUMNS];
    let (lanes, _) = a.as_chunks::<WIDTH>();
    let (numbers, _) = b.as_chunks::<WIDTH>();
    let (lanes, _) = lanes.as_chunks::<VECTORS>();
    let (numbers, _) = numbers.as_chunks::<{ COLUMNS / WIDTH }>();
    for (a, b) in lanes.iter().zip(numbers) {
        let a = [load(&a[0]), load(&a[1])];
        let (columns, _) = sums.as_chunks_mut::<WIDTH>();
        for ([s0, s1, s2, s3], b) in columns.iter_mut().zip(b) {
            let b = load(b);
            add_column::<0, VECTORS>(s0, a, b);
            add_column::<1, VECTORS>(s1, a, b);
            add_column::<2, VECTORS>(s2, a, b);
            add_column::<3, VECTORS>(s3, a, b);
        }
    }
    store(sums, tile);
}

/// Adds step `B` of the four in `a` and of the four in each column.
#[target_feature(enable = "neon")]
#[inline]
fn add_step<const B: i32, const V: usize>(
    sums: &mut Sums<float32x4_t, V>,
    a: &[[f32; WIDTH]; V],
    b: [float32x4_t; COLUMNS],
) {
    let mut lanes = [vdupq_n_f32(0.0); V];
    for (lane, a) in lanes.iter_mut().zip(a) {
        *lane = load(a);
    }
    for (sums, b) in sums.iter_mut().zip(b) {
        add_column::<B, V>(sums, lanes, b);
    }
}

#[target_feature(enable = "neon")]
#[inline(never)] // Where ci/aarch64 counts its instructions.
fn columns_tile<const V: usize>(a: &[f32], b: [&[f32]; COLUMNS], tile: &mut Tile) {
    let mut sums = [[vdupq_n_f32(0.0); V]; COLUMNS];
    let (vectors, _) = a.as_chunks::<WIDTH>();
    let (steps, _) = vectors.as_chunks::<V>();
    let (fours, left) = steps.as_chunks::<WIDTH>();
    let b = b.map(|column| &column[..steps.len()]);
    let by_four = b.map(|column| &column.as_chunks::<WIDTH>().0[..fours.len()]);
    for (t, [a0, a1, a2, a3]) in fours.iter().enumerate() {
        let mut four = [vdupq_n_f32(0.0); COLUMNS];
        for (four, column) in four.iter_mut().zip(by_four) {
            // SAFETY: t < fours.len(), which every column has. A test of it would cost two
            // instructions for every eight multiply-adds.
            *four = load(unsafe { column.get_unchecked(t) });
        }
        add_step::<0, V>(&mut sums, a0, four);
        add_step::<1, V>(&mut sums, a1, four);
        add_step::<2, V>(&mut sums, a2, four);
        add_step::<3, V>(&mut sums, a3, four);
    }
    for (t, a) in left.iter().enumerate() {
        let mut one = [vdupq_n_f32(0.0); COLUMNS];
        for (one, column) in one.iter_mut().zip(b) {
            *one = vdupq_n_f32(column[fours.len() * WIDTH + t]);
        }
        add_step::<0, V>(&mut sums, a, one);
    }
    store(sums, tile);
}

/// Adds step `B` of the two in `a` and of the two in each column.
#[target_feature(enable = "neon")]
#[inline]
fn add_step_f64<const B: i32, const V: usize>(
    sums: &mut Sums<float64x2_t, V>,
    a: &[[f64; WIDE]; V],
    b: [float64x2_t; COLUMNS],
) {
    let mut lanes = [vdupq_n_f64(0.0); V];
    for (lane, a) in lanes.iter_mut().zip(a) {
        *lane = load_f64(a);
    }
    for (sums, b) in sums.iter_mut().zip(b) {
        add_column_f64::<B, V>(sums, lanes, b);
    }
}

#[target_feature(enable = "neon")]
#[inline(never)] // Where ci/aarch64 counts its instructions.
fn columns_f64_tile<const V: usize>(a: &[f64], b: [&[f32]; COLUMNS], tile: &mut WideTile) {
    let mut sums = [[vdupq_n_f64(0.0); V]; COLUMNS];
    let (vectors, _) = a.as_chunks::<WIDE>();
    let (steps, _) = vectors.as_chunks::<V>();
    let (pairs, left) = steps.as_chunks::<WIDE>();
    let b = b.map(|column| &column[..steps.len()]);
    let by_two = b.map(|column| &column.as_chunks::<WIDE>().0[..pairs.len()]);
    for (t, [a0, a1]) in pairs.iter().enumerate() {
        let mut pair = [vdupq_n_f64(0.0); COLUMNS];
        for (pair, column) in pair.iter_mut().zip(by_two) {
            // SAFETY: t < pairs.len(), which every column has.
            *pair = vcvt_f64_f32(load_half(unsafe { column.get_unchecked(t) }));
        }
        add_step_f64::<0, V>(&mut sums, a0, pair);
        add_step_f64::<1, V>(&mut sums, a1, pair);
    }
    for (t, a) in left.iter().enumerate() {
        let mut one = [vdupq_n_f64(0.0); COLUMNS];
        for (one, column) in one.iter_mut().zip(b) {
            *one = vcvt_f64_f32(vdup_n_f32(column[pairs.len() * WIDE + t]));
        }
        add_step_f64::<0, V>(&mut sums, a, one);
    }
    store_f64(sums, tile);
}

/// Multiplies packed rows, as many lanes as a tile has.
pub(in super::super) fn packed(a: &[f32], b: &[f32], tile: &mut Tile) {
    // SAFETY: every CPU of this architecture's targets with std has NEON.
    unsafe { packed_tile(a, b, tile) }
}

/// Multiplies columns, as many lanes as the given number of vectors has.
pub(in super::super) fn columns(vectors: usize, a: &[f32], b: [&[f32]; COLUMNS], tile: &mut Tile) {
    match vectors {
        // SAFETY: as in `packed`.
        1 => unsafe { columns_tile::<1>(a, b, tile) },
        // SAFETY: as in `packed`.
        _ => unsafe { columns_tile::<VECTORS>(a, b, tile) },
    }
}

/// Multiplies columns as `columns` does, in f64.
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
        _ => unsafe { columns_f64_tile::<VECTORS>(a, b, tile) },
    }
}
