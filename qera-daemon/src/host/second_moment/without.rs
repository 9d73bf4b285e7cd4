//! R less some of the rows that it is the mean of: what a fold is solved from.
//!
//! It is (N R - X^T X) / (N - n), with weights (N R - X^T W X) / (N - n) with N and n the sums of
//! weights: applied, where a few vectors are multiplied; formed
//! ([`SecondMoment::less`]) for what rounds weights by it.

use std::sync::Arc;

use faer::{Mat, MatRef};
use qera_core::packed::packed_offset;

use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::rank_update::{Scratch, fold_products};
use crate::host::kernels::stored::StoredRows;
use crate::host::operand::RowsOperand;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::second_moment::{SecondMoment, shares};

impl SecondMoment {
    /// The moments without these rows, of which the mean over `weight` holds each once, in memory of
    /// their own: m^2 flops a row. `None` where R is not kept, or no row is left.
    pub(crate) fn less<'b>(
        &self,
        compute: Compute<'_>,
        blocks: impl Iterator<Item = StoredRows<'b>>,
        weight: f64,
    ) -> Option<Self> {
        let Self::Packed { r, channels } = self else {
            return None;
        };
        let m = channels.m2.len();
        let (mut taken, mut out) = (PageVec::zeroed(r.len()), 0.0);
        let mut scratch = Scratch::default();
        for block in blocks {
            let share = shares(block, out);
            fold_products(compute, block, &mut taken, &mut scratch, share);
            out += block.extent().weight;
        }
        let left = weight - out;
        if left <= 0.0 {
            return None;
        }
        let (all, out) = (weight / left, out / left);
        let pairs = taken.iter_mut().zip(r.iter());
        pairs.for_each(|(taken, r)| *taken = all * r - out * *taken);
        // Rounding may leave -1e-9 for a channel that only these rows excite.
        for i in 0..m {
            let diagonal = &mut taken[packed_offset(m, i)];
            *diagonal = diagonal.max(0.0);
        }
        Some(Self::Packed {
            r: Arc::new(taken),
            channels: channels.clone(),
        })
    }
}

/// R without some rows, in the scaling of the R that it comes of.
#[derive(Debug)]
pub(crate) struct WithoutRows<'a> {
    r: &'a PreparedR<'a>,
    /// The rows, block by block.
    blocks: Vec<RowsOperand<'a>>,
    /// It is `kept` R - `taken` X^T W X.
    kept: f64,
    taken: f64,
}

impl<'a> WithoutRows<'a> {
    /// Takes these blocks out of the mean over `weight`; `left` of it remains, more than nothing.
    pub(crate) fn new(
        compute: Compute<'a>,
        r: &'a PreparedR<'a>,
        blocks: impl Iterator<Item = StoredRows<'a>>,
        weight: f64,
        left: f64,
    ) -> Self {
        Self {
            r,
            blocks: blocks.map(|block| compute.rows_operand(block)).collect(),
            kept: weight / left,
            taken: 1.0 / (left * r.scale),
        }
    }

    /// It times T, for T^T (b x m): b x m.
    pub(crate) fn times(&self, t: MatRef<'_, f64>) -> Mat<f64> {
        let mut rt = self.r.times(t) * faer::Scale(self.kept);
        for block in &self.blocks {
            if self.r.in_f64 {
                rt -= block.gram_times_f64(t, self.taken);
                continue;
            }
            let taken = block.gram_times(t, self.taken);
            for (to, from) in rt.col_iter_mut().zip(taken.col_iter()) {
                let from = from.iter().map(|x| f64::from(*x));
                to.iter_mut().zip(from).for_each(|(to, from)| *to -= from);
            }
        }
        rt
    }
}
