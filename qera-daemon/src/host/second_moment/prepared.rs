//! R made ready for a solve: in f64 as it was gathered, and in f32 for products with many vectors
//! unless massive channels rule those out.

use faer::{Mat, MatRef};

use crate::host::compute::Compute;
use crate::host::operand::Operand;
use crate::host::second_moment::channels::diagonal_scale;
use crate::host::second_moment::massive::needs_f64;
use crate::host::second_moment::packed::PackedR;

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
    full: Option<Operand<'a>>,
}

impl<'a> PreparedR<'a> {
    /// Prepares R for many products: m^2 numbers in f32, where f32 is enough.
    pub(crate) fn new(compute: Compute<'a>, r: PackedR<'a>) -> Self {
        let mut prepared = Self::exact(compute, r);
        if prepared.in_f64 {
            return prepared;
        }
        let full = r.to_f32(compute, prepared.scale);
        prepared.full = Some(compute.own_operand(full, r.m()));
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
        match &self.full {
            Some(full) => full.times(t),
            None => {
                let rt = self.exact.times(self.compute, t.transpose());
                rt.transpose() * faer::Scale(1.0 / self.scale)
            }
        }
    }

    /// R T in f64, T being m x b.
    pub(crate) fn times_f64(&self, t: MatRef<'_, f64>) -> Mat<f64> {
        self.exact.times(self.compute, t)
    }
}
