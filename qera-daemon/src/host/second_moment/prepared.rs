//! R made ready for a solve: in f64 as it was gathered, and in f32 for products with many vectors
//! unless massive channels rule those out. Where R was lent with a device, its f32 form is made
//! there, and here only when the device fails.

use std::sync::OnceLock;

use faer::{Mat, MatRef};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::offload::uploaded::Uploaded;
use crate::host::second_moment::channels::diagonal_scale;
use crate::host::second_moment::massive::needs_f64;
use crate::host::second_moment::packed::PackedR;
use crate::host::transpose::transposed;

/// R, and R / scale.
#[derive(Debug)]
pub(crate) struct PreparedR<'a> {
    compute: Compute<'a>,
    exact: PackedR<'a>,
    /// The largest diagonal element; f32 products are taken with R / scale.
    pub(crate) scale: f64,
    /// diag(R) / scale.
    pub(crate) diagonal: Vec<f64>,
    /// Whether all products have to be taken in f64, those with E too, because beside its massive
    /// channels f32 products show nothing of the others.
    pub(crate) in_f64: bool,
    /// R / scale in f32, both triangles; `None` where products are taken in f64.
    full: Option<FullR<'a>>,
}

/// R / scale in f32, both triangles.
#[derive(Debug)]
struct FullR<'a> {
    /// On the device.
    there: Option<Uploaded<'a>>,
    /// From the first product on that is taken here.
    here: OnceLock<PageVec<f32>>,
}

impl<'a> PreparedR<'a> {
    /// Prepares R for many products: m^2 numbers in f32, where f32 is enough.
    pub(crate) fn new(compute: Compute<'a>, r: PackedR<'a>) -> Self {
        let mut prepared = Self::exact(compute, r);
        if prepared.in_f64 {
            return prepared;
        }
        let there = compute
            .device
            .and_then(|device| Uploaded::scaled_r(device, r.values(), r.m(), prepared.scale));
        prepared.full = Some(FullR {
            there,
            here: OnceLock::new(),
        });
        prepared
    }

    /// Prepares R for a few products in f64.
    pub(crate) fn exact(compute: Compute<'a>, r: PackedR<'a>) -> Self {
        let diagonal = r.diagonal();
        let scale = diagonal_scale(&diagonal);
        Self {
            compute,
            exact: r,
            scale,
            in_f64: needs_f64(&diagonal),
            diagonal: diagonal.iter().map(|d| d / scale).collect(),
            full: None,
        }
    }

    /// R T / scale for T^T (b x m), by f32 products where R was made ready for them: b x m.
    pub(crate) fn times(&self, t: MatRef<'_, f64>) -> Mat<f64> {
        let Some(full) = &self.full else {
            let rt = self.exact.times(self.compute, t.transpose());
            return rt.transpose() * faer::Scale(1.0 / self.scale);
        };
        let there = full.there.as_ref().and_then(|r| r.times(t, false));
        there.unwrap_or_else(|| {
            let made = || self.exact.to_f32(self.compute, self.scale);
            let full = ColumnMajor::new(full.here.get_or_init(made), self.exact.m());
            self.compute.operand(full).times(t)
        })
    }

    /// R T for a T (m x b) that is a small change of something: by f32 products where R was made
    /// ready for them.
    pub(crate) fn times_change(&self, t: MatRef<'_, f64>) -> Mat<f64> {
        if self.full.is_none() {
            return self.times_f64(t);
        }
        let rt = self.times(transposed(t).as_ref());
        transposed(rt.as_ref()) * faer::Scale(self.scale)
    }

    /// R T in f64, T being m x b.
    pub(crate) fn times_f64(&self, t: MatRef<'_, f64>) -> Mat<f64> {
        self.exact.times(self.compute, t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;

    /// In f32 a change has the error of f32 products; beside massive channels it is f64's.
    #[test]
    fn a_change_is_multiplied_by_r() {
        const M: usize = 96;
        let cores = Cores::new(1);
        let compute = Compute::new(Kernel::best(), &cores);
        for (massive, most) in [(1.0, 1e-6), (1e8, 1e-13)] {
            let root = |i: usize| if i < 2 { f64::sqrt(massive) } else { 1.0 };
            let r = |i: usize, j: usize| {
                let near = 1.0 / (1.0 + i.abs_diff(j) as f64);
                3.0 * root(i) * root(j) * near
            };
            let packed: Vec<f64> = (0..M).flat_map(|i| (i..M).map(move |j| r(i, j))).collect();
            let prepared = PreparedR::new(compute, PackedR::new(&packed, M));
            assert_eq!(prepared.in_f64, massive > 1.0);
            let change = Mat::from_fn(M, 5, |i, j| 1e-3 * (0.7 * i as f64 + j as f64).sin());
            let found = prepared.times_change(change.as_ref());
            for (i, j) in (0..M).flat_map(|i| (0..5).map(move |j| (i, j))) {
                let terms = || (0..M).map(|l| r(i, l) * change[(l, j)]);
                let size: f64 = terms().map(f64::abs).sum();
                assert!((found[(i, j)] - terms().sum::<f64>()).abs() < most * size);
            }
        }
    }
}
