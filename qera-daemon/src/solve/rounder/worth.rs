//! Measures what W~ of a layer is worth, and keeps nearest rounding's W~ where that is worth more.

use qera_core::quantize::round::nearest;

use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::solve::rounder::layer::{Codes, Refit, RoundedLayer, RoundedWork, Rounder, difference};
use crate::weights::frozen::record::MeasuredRounding;

/// f of a W~ on the rows that it was made from, without an adapter and with one.
#[derive(Clone, Copy)]
struct Worth {
    alone: f64,
    with: f64,
}

impl Rounder<'_> {
    /// W~ with its errors, alone and with the A and B that QERA-exact has for it. Nearest
    /// rounding's W~ is returned where it is better: where its error is of low rank, nothing else
    /// comes near.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer.
    pub(crate) fn measured(
        &self,
        mut work: RoundedWork,
        member: usize,
    ) -> Result<RoundedLayer, Fatal> {
        let own = self.weigh(&mut work, member)?;
        let rounded = core::mem::replace(&mut work.rounded, self.nearest(&work.weight, member)?);
        work.refit = Refit::none(&work.rounded, self.packed.m());
        let nearest = self.weigh(&mut work, member)?;
        let takes_nearest = if self.layers.weights.rounding().knows_the_adapter() {
            nearest.with < own.with
        } else {
            nearest.alone < own.alone
        };
        let worth = if takes_nearest {
            nearest
        } else {
            work.rounded = rounded;
            own
        };
        let output = self.packed_power(&work.weight);
        let relative = |error: f64| {
            if output > 0.0 {
                error.max(0.0) / output
            } else {
                0.0
            }
        };
        Ok(RoundedLayer {
            record: MeasuredRounding {
                error_alone: relative(worth.alone),
                error_nearest: relative(nearest.alone),
                error_with: relative(worth.with),
            },
            values: work.rounded.values,
            levels: work.rounded.levels,
        })
    }

    /// W~ by rounding to nearest.
    fn nearest(&self, weight: &[f32], member: usize) -> Result<Codes, Fatal> {
        let (grid, m) = (self.layers.weights.grid(), self.packed.m());
        let mut rounded = self.no_codes(weight.len());
        let (values, levels) = (&mut rounded.values, &mut rounded.levels);
        nearest(grid, weight, m, values, levels)
            .map_err(|reason| self.layers.refused(member, &reason))?;
        Ok(rounded)
    }

    /// tr(R E^T E) over the rows that W~ may be made from.
    fn packed_power(&self, matrix: &[f32]) -> f64 {
        let matrix = ColumnMajor::new(matrix, self.packed.m());
        self.packed.trace_with(self.layers.compute, matrix).sum()
    }

    /// Refits the present W~, and measures f without and with the refit.
    fn weigh(&self, work: &mut RoundedWork, member: usize) -> Result<Worth, Fatal> {
        work.refit = self.refit(work, member)?;
        let alone = self.packed_power(&difference(&work.weight, &work.rounded.values));
        Ok(Worth {
            alone,
            with: work.refit.correction.error(alone),
        })
    }
}
