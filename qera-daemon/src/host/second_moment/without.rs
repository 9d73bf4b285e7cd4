//! R without some of the rows that it is the mean of: a fold is solved from this.
//!
//! It is (N R - X^T X) / (N - n), with weights (N R - X^T W X) / (N - n) with N and n the sums of
//! weights: applied, where a few vectors are multiplied; formed
//! ([`SecondMoment::less`]) for what rounds weights by it.
//!
//! For a channel that only the removed rows excite, rounding leaves the difference of two sums of
//! squares: -1e-7 of them and more, which is no valid R where these are large beside the rest. So
//! rows of massive channels are taken out as they were folded, in f64. Where the rounding of the
//! other channels is as large as what a W~ is rounded by, nothing is formed.

use std::sync::Arc;

use faer::{Mat, MatRef};
use qera_core::packed::packed_offset;

use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::rank_update::{Scratch, fold_products};
use crate::host::kernels::row_weights::Extent;
use crate::host::kernels::stored::StoredRows;
use crate::host::operand::{RowProducts, RowsOperand};
use crate::host::row_images::RowImages;
use crate::host::second_moment::massive::{ERROR_F64, MassiveRows, massive_channels};
use crate::host::second_moment::prepared::PreparedR;
use crate::host::second_moment::{SecondMoment, shares};

/// The error of R_ij by f32 sums, relative to sqrt(R_ii R_jj), where rounding errors average out.
const ERROR_F32: f64 = 1e-7;
/// The most that this rounding may be of the mean diagonal element: a W~ is rounded under R plus
/// 0.01 of that element.
const ROUNDING_MOST: f64 = 1.0 / 256.0;

impl SecondMoment {
    /// The moments without these rows, of which the mean over `all` holds each once, in memory of
    /// their own: m^2 flops a row. `None` where R is not kept, no row is left, or what is left does
    /// not stand out of the rounding of what was taken.
    pub(crate) fn less<'b>(
        &self,
        compute: Compute<'_>,
        blocks: impl Iterator<Item = StoredRows<'b>>,
        all: &Extent,
    ) -> Option<Self> {
        let Self::Packed { r, channels } = self else {
            return None;
        };
        let m = channels.m2.len();
        let massive = massive_channels(channels, all);
        let (mut taken, mut out) = (PageVec::zeroed(r.len()), 0.0);
        let mut scratch = Scratch::default();
        for block in blocks {
            let in_f64 = MassiveRows::before(massive.clone(), &taken, m);
            let share = shares(block, out);
            fold_products(compute, block, &mut taken, &mut scratch, share);
            in_f64.fold(block, shares(block, out)(block.rows()), &mut taken);
            out += block.extent().weight;
        }
        let left = all.weight - out;
        if left <= 0.0 {
            return None;
        }
        let (all, out) = (all.weight / left, out / left);
        let pairs = taken.iter_mut().zip(r.iter());
        pairs.for_each(|(taken, r)| *taken = all * r - out * *taken);
        let (mut diagonal, mut kept) = (Vec::with_capacity(m), 0.0);
        for i in 0..m {
            let at = packed_offset(m, i);
            // Rounding may leave -1e-9 for a channel that only these rows excite.
            taken[at] = taken[at].max(0.0);
            kept += taken[at];
            diagonal.push(all * r[at]);
        }
        let stands_out = rounding(&diagonal, &massive) <= ROUNDING_MOST * kept / m as f64;
        stands_out.then(|| Self::Packed {
            r: Arc::new(taken),
            channels: channels.clone(),
        })
    }
}

/// An estimate of the largest eigenvalue of the rounding errors in an R with this diagonal. For a
/// symmetric matrix of independent numbers it is at most twice the length of the longest row.
fn rounding(diagonal: &[f64], massive: &[usize]) -> f64 {
    let [mut trace, mut ordinary, mut largest, mut largest_massive] = [0.0_f64; 4];
    for (channel, square) in diagonal.iter().enumerate() {
        trace += square;
        if massive.binary_search(&channel).is_ok() {
            largest_massive = largest_massive.max(*square);
        } else {
            ordinary += square;
            largest = largest.max(*square);
        }
    }
    let of_row = |error: f64, square: f64, others: f64| 2.0 * error * (square * others).sqrt();
    of_row(ERROR_F32, largest, ordinary) + of_row(ERROR_F64, largest_massive, trace)
}

/// How R is scaled and multiplied, or what stands for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scaling {
    /// What R is divided by.
    pub(crate) scale: f64,
    /// Whether f32 products are not enough.
    pub(crate) in_f64: bool,
}

impl Scaling {
    /// Of R made ready.
    pub(crate) const fn of(r: &PreparedR<'_>) -> Self {
        Self {
            scale: r.scale,
            in_f64: r.in_f64,
        }
    }
}

/// R without some rows, scaled like the R that it comes from.
#[derive(Debug)]
pub(crate) struct WithoutRows<'a> {
    in_f64: bool,
    /// The rows, block by block.
    blocks: Vec<RowsOperand<'a>>,
    /// The factors of `kept` R - `taken` X^T W X.
    kept: f64,
    taken: f64,
}

impl<'a> WithoutRows<'a> {
    /// Takes these blocks out of the mean over `weight`; `left` of it remains, more than nothing.
    pub(crate) fn new(
        compute: Compute<'a>,
        of: Scaling,
        blocks: impl Iterator<Item = StoredRows<'a>>,
        weight: f64,
        left: f64,
    ) -> Self {
        Self {
            in_f64: of.in_f64,
            blocks: blocks.map(|block| compute.rows_operand(block)).collect(),
            kept: weight / left,
            taken: 1.0 / (left * of.scale),
        }
    }

    /// The outputs of T on the rows that are taken: Z_T = T^T X^T (`taken` W)^1/2, b x rows, from
    /// T^T (b x m). So T^T (R without them) U is `kept` T^T R U - Z_T Z_U^T.
    pub(crate) fn outputs(&self, t: MatRef<'_, f64>, wide: &mut Vec<f32>) -> RowImages {
        let rows = self.blocks.iter().map(RowsOperand::rows).sum();
        let mut outputs = RowImages::zeros(self.in_f64, t.nrows(), rows);
        let mut first = 0;
        for block in &self.blocks {
            block.outputs(t, self.products(), wide, first, &mut outputs);
            first += block.rows();
        }
        outputs
    }

    /// What R counts: it is so much R less the rows taken.
    pub(crate) const fn kept(&self) -> f64 {
        self.kept
    }

    /// It times T, given T^T R in this scaling and the [`outputs`](Self::outputs) of T: b x m.
    /// Without R, which then has no rows, what the rows taken take off.
    pub(crate) fn times_given(
        &self,
        rt: &Mat<f64>,
        outputs: &RowImages,
        wide: &mut Vec<f32>,
    ) -> Mat<f64> {
        let mut times = if rt.nrows() > 0 {
            rt * faer::Scale(self.kept)
        } else {
            let m = self.blocks.first().map_or(0, RowsOperand::in_features);
            Mat::zeros(outputs.vectors(), m)
        };
        let mut first = 0;
        for block in &self.blocks {
            block.take_off(outputs, first, self.products(), wide, &mut times);
            first += block.rows();
        }
        times
    }

    /// T^T (it) U, given T^T R U in this scaling and the outputs of T and U: b x c.
    pub(crate) fn between(&self, t_ru: &Mat<f64>, of_t: &RowImages, of_u: &RowImages) -> Mat<f64> {
        t_ru * faer::Scale(self.kept) - of_t.product(of_u)
    }

    fn products(&self) -> RowProducts {
        RowProducts {
            root: self.taken.sqrt(),
            in_f64: self.in_f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::site::SiteStatistics;
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;
    use crate::host::kernels::row_weights::RowWeights;
    use crate::host::rounding::narrow;
    use crate::source::rows::Batch;
    use qera_core::dtype::FloatDtype;
    use qera_core::pseudo_random::SplitMix64;

    const M: usize = 24;
    const LENGTH: usize = 70;
    const SEQUENCES: usize = 8;
    /// A channel whose values may be made massive.
    const LARGE: usize = 3;

    /// Rows of which the first sequence is larger in some channels, and weighs more.
    fn numbers(scale: f32, channels: core::ops::Range<usize>) -> Vec<f32> {
        let mut sequence = SplitMix64::new(11);
        let number = |i: usize| {
            let large = i < LENGTH * M && channels.contains(&(i % M));
            narrow(sequence.next_symmetric()) * if large { scale } else { 1.0 }
        };
        (0..SEQUENCES * LENGTH * M).map(number).collect()
    }

    fn folded(compute: Compute<'_>, values: &[f32], weights: &[f32]) -> SiteStatistics {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let batch = Batch {
            site: 0,
            in_features: M,
            bytes: bytes.into(),
            dtype: FloatDtype::F32,
            weights: Some(RowWeights::new(weights.to_vec())),
            batches: vec![LENGTH; SEQUENCES],
            sequences: true,
        };
        let mut statistics = SiteStatistics::whole(M);
        statistics
            .fold(&batch, compute, &mut Scratch::default())
            .unwrap();
        statistics
    }

    /// R without the first sequence.
    fn rest(scale: f32, channels: core::ops::Range<usize>, weight: f32) -> Option<Vec<f64>> {
        let cores = Cores::new(1);
        let compute = Compute::new(Kernel::best(), &cores);
        let mut weights = vec![1.0; SEQUENCES * LENGTH];
        weights[..LENGTH].fill(weight);
        let statistics = folded(compute, &numbers(scale, channels), &weights);
        let first = statistics.window.blocks()[0].stored();
        let r = &statistics.second_moment;
        let less = r.less(compute, core::iter::once(first), &statistics.extent())?;
        let SecondMoment::Packed { r, .. } = less else {
            return None;
        };
        Some(r.to_vec())
    }

    /// A channel that is massive in the rows taken, and in no other, leaves what the others have of
    /// it.
    #[test]
    fn massive_channels_are_taken_out_in_f64() {
        let expected = rest(1.0, 0..0, 1.0).unwrap();
        for (scale, weight) in [(60_000.0, 1.0), (600.0, 1.0), (600.0, 100.0)] {
            let found = rest(scale, LARGE..LARGE + 1, weight).unwrap();
            for i in 0..M {
                for j in i..M {
                    let at = packed_offset(M, i) + j - i;
                    let error = (found[at] - expected[at]).abs();
                    assert!(error < 1e-4, "{scale} {weight}: {i} {j} {error:e}");
                }
            }
        }
    }

    /// Where what is left is as small as the rounding of what was taken, it is no R.
    #[test]
    fn what_does_not_stand_out_is_nothing() {
        assert!(rest(100.0, 0..M, 1.0).is_some());
        assert!(rest(30_000.0, 0..M, 1.0).is_none());
        assert!(rest(100.0, 0..M, 1e5).is_none());
        // f64 has its rounding too.
        assert!(rest(1e10, LARGE..LARGE + 1, 1.0).is_none());
    }
}
