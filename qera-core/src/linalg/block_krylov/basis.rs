//! The basis behind [`block_krylov`](super::block_krylov()): growth, orthogonalisation,
//! Rayleigh-Ritz, thick restart.
//!
//! The derivation is at the head of `mod.rs`; here is how it lies in memory. `K` and `G K` are n x
//! c, columns one after the other. Columns `0..applied` of `K` have their image in `G K`;
//! `applied..filled` is the newest block, still without one. A cycle applies the operator and
//! appends until the basis is full, takes the Ritz pairs of the applied columns, overwrites these
//! with the leading Ritz vectors (and their images, which need no new product), and moves the
//! newest block up.

use nalgebra::{DMatrixView, DMatrixViewMut};

use super::super::columns::{dot, squared_norm};
use super::super::jacobi_eigen::{jacobi_eigen, jacobi_eigen_workspace_len};
use super::super::lent::Workspace;
use super::super::rotation::JACOBI_MAX_SWEEPS;
use super::orthonormal::orthonormalise_column;
use super::outcome::{BlockKrylovError, BlockKrylovOptions, BlockKrylovReport};
use super::sizes::{GUARD_VECTORS, basis_columns, block_krylov_kept};
use super::start::StartColumns;

/// The Krylov basis `K`, its image `G K`, and the small matrices of the Rayleigh-Ritz step.
#[derive(Debug)]
pub(super) struct Basis<'w> {
    order: usize,
    wanted: usize,
    kept: usize,
    capacity: usize,
    k: &'w mut [f64],
    gk: &'w mut [f64],
    h: &'w mut [f64],
    ritz: &'w mut [f64],
    ritz_values: &'w mut [f64],
    line: &'w mut [f64],
    jacobi: &'w mut [f64],
    applied: usize,
    filled: usize,
    width: usize,
    columns_applied: usize,
    start_columns: StartColumns,
}

impl<'w> Basis<'w> {
    pub(super) fn new(mut workspace: Workspace<'w>, order: usize, wanted: usize) -> Self {
        let capacity = basis_columns(order, wanted);
        Self {
            order,
            wanted,
            kept: block_krylov_kept(order, wanted),
            capacity,
            k: workspace.take(order * capacity),
            gk: workspace.take(order * capacity),
            h: workspace.take(capacity * capacity),
            ritz: workspace.take(capacity * capacity),
            ritz_values: workspace.take(capacity),
            line: workspace.take(capacity),
            jacobi: workspace.take(jacobi_eigen_workspace_len(capacity)),
            applied: 0,
            filled: 0,
            width: wanted / 2 + GUARD_VECTORS,
            columns_applied: 0,
            start_columns: StartColumns::new(),
        }
    }

    pub(super) fn solve<F>(
        &mut self,
        apply: &mut F,
        options: &BlockKrylovOptions,
        start: Option<DMatrixView<'_, f64>>,
    ) -> Result<BlockKrylovReport, BlockKrylovError>
    where
        F: FnMut(DMatrixView<'_, f64>, DMatrixViewMut<'_, f64>),
    {
        if self.capacity == self.order {
            return self.whole_space(apply);
        }
        self.begin(start)?;
        self.iterate(apply, options)
    }

    /// The leading Ritz pairs, as many as `values` holds.
    pub(super) fn write_pairs(&self, values: &mut [f64], vectors: &mut DMatrixViewMut<'_, f64>) {
        values.copy_from_slice(&self.ritz_values[..values.len()]);
        for (mut vector, ritz) in vectors
            .column_iter_mut()
            .zip(self.k.chunks_exact(self.order))
        {
            vector.as_mut_slice().copy_from_slice(ritz);
        }
    }

    /// Forms `G` column by column and decomposes it.
    fn whole_space<F>(&mut self, apply: &mut F) -> Result<BlockKrylovReport, BlockKrylovError>
    where
        F: FnMut(DMatrixView<'_, f64>, DMatrixViewMut<'_, f64>),
    {
        self.k.fill(0.0);
        for i in 0..self.order {
            self.k[i * self.order + i] = 1.0;
        }
        self.filled = self.order;
        self.apply_newest(apply)?;
        self.rayleigh_ritz()?;
        self.compress();
        Ok(BlockKrylovReport {
            cycles: 0,
            columns_applied: self.columns_applied,
            change: 0.0,
            residual: self.residual(),
        })
    }

    /// Puts the first block into the basis: the lent one, or pseudo-random columns.
    fn begin(&mut self, start: Option<DMatrixView<'_, f64>>) -> Result<(), BlockKrylovError> {
        if let Some(start) = start {
            self.width = start.ncols().min(self.kept);
            for (k, column) in self
                .k
                .chunks_exact_mut(self.order)
                .zip(start.column_iter())
                .take(self.width)
            {
                k.copy_from_slice(column.as_slice());
            }
        } else {
            for k in self.k.chunks_exact_mut(self.order).take(self.width) {
                self.start_columns.fill(k);
            }
        }
        self.filled = self.width;
        self.orthonormalise(0)
    }

    fn iterate<F>(
        &mut self,
        apply: &mut F,
        options: &BlockKrylovOptions,
    ) -> Result<BlockKrylovReport, BlockKrylovError>
    where
        F: FnMut(DMatrixView<'_, f64>, DMatrixViewMut<'_, f64>),
    {
        let mut previous: Option<f64> = None;
        let mut change = f64::INFINITY;
        for cycle in 1..=options.max_cycles {
            // The last block of the basis stays without its image: it is what the restart goes on
            // from.
            while self.filled + self.width <= self.capacity {
                self.apply_newest(apply)?;
                self.append_next_block()?;
            }
            self.rayleigh_ritz()?;
            let captured: f64 = self.ritz_values[..self.wanted].iter().sum();
            if let Some(previous) = previous {
                change = libm::fabs(captured - previous) / remaining(captured, options.trace);
            }
            previous = Some(captured);
            self.compress();
            let residual = self.residual();
            let exact = residual <= f64::EPSILON * self.capacity as f64;
            if change <= options.tolerance || exact {
                return Ok(BlockKrylovReport {
                    cycles: cycle,
                    columns_applied: self.columns_applied,
                    change: if exact { 0.0 } else { change },
                    residual,
                });
            }
        }
        Err(BlockKrylovError::NoConvergence {
            cycles: options.max_cycles,
            residual: change,
        })
    }

    /// `G K` for the newest block.
    fn apply_newest<F>(&mut self, apply: &mut F) -> Result<(), BlockKrylovError>
    where
        F: FnMut(DMatrixView<'_, f64>, DMatrixViewMut<'_, f64>),
    {
        let n = self.order;
        let columns = self.filled - self.applied;
        let range = self.applied * n..self.filled * n;
        apply(
            DMatrixView::from_slice(&self.k[range.clone()], n, columns),
            DMatrixViewMut::from_slice(&mut self.gk[range.clone()], n, columns),
        );
        for (j, image) in self.gk[range].chunks_exact(n).enumerate() {
            if !squared_norm(image).is_finite() {
                return Err(BlockKrylovError::NonFinite {
                    column: self.applied + j,
                });
            }
        }
        self.applied = self.filled;
        self.columns_applied += columns;
        Ok(())
    }

    /// The next Krylov block: the image of the newest one, orthonormalised against the whole basis.
    fn append_next_block(&mut self) -> Result<(), BlockKrylovError> {
        let n = self.order;
        let first = self.filled;
        let newest = &self.gk[(first - self.width) * n..first * n];
        self.k[first * n..(first + self.width) * n].copy_from_slice(newest);
        self.filled = first + self.width;
        self.orthonormalise(first)
    }

    /// Makes columns `first..filled` orthonormal to all before them and to each other.
    fn orthonormalise(&mut self, first: usize) -> Result<(), BlockKrylovError> {
        let n = self.order;
        for j in first..self.filled {
            let (before, rest) = self.k.split_at_mut(j * n);
            let column = &mut rest[..n];
            // A random column has a component of about sqrt((n - j) / n) outside the basis, so the
            // second attempt succeeds but for a freak; the bound only makes the loop provably
            // finite.
            let mut attempts = 0;
            while !orthonormalise_column(before, column, n) {
                attempts += 1;
                if attempts == 16 || !squared_norm(column).is_finite() {
                    return Err(BlockKrylovError::NonFinite { column: j });
                }
                self.start_columns.fill(column);
            }
        }
        Ok(())
    }

    /// Eigenpairs of `H = K^T G K` over the applied columns, into `ritz_values` and `ritz` (c x c).
    fn rayleigh_ritz(&mut self) -> Result<(), BlockKrylovError> {
        let (n, c) = (self.order, self.applied);
        for j in 0..c {
            let image = &self.gk[j * n..(j + 1) * n];
            for i in j..c {
                self.h[j * c + i] = dot(&self.k[i * n..(i + 1) * n], image);
            }
        }
        jacobi_eigen(
            DMatrixViewMut::from_slice(&mut self.h[..c * c], c, c),
            &mut self.ritz_values[..c],
            DMatrixViewMut::from_slice(&mut self.ritz[..c * c], c, c),
            self.jacobi,
            JACOBI_MAX_SWEEPS,
        )
        .map_err(BlockKrylovError::RayleighRitz)?;
        Ok(())
    }

    /// Replaces the applied columns by the leading Ritz vectors, with their images, and moves the
    /// unapplied block up behind them. Row by row, so that no second basis is needed.
    fn compress(&mut self) {
        let (n, c, kept) = (self.order, self.applied, self.kept.min(self.applied));
        let line = &mut self.line[..c];
        for matrix in [&mut *self.k, &mut *self.gk] {
            for i in 0..n {
                for (j, value) in line.iter_mut().enumerate() {
                    *value = matrix[j * n + i];
                }
                for (j, ritz) in self.ritz[..c * c].chunks_exact(c).take(kept).enumerate() {
                    matrix[j * n + i] = dot(line, ritz);
                }
            }
        }
        self.k.copy_within(c * n..self.filled * n, kept * n);
        self.filled = kept + self.filled - c;
        self.applied = kept;
    }

    /// `||G V - V L||_F / l_1` of the wanted pairs, after [`Self::compress`].
    fn residual(&self) -> f64 {
        let n = self.order;
        let largest = libm::fabs(self.ritz_values[0]);
        let mut sum = 0.0;
        for ((v, gv), value) in self
            .k
            .chunks_exact(n)
            .zip(self.gk.chunks_exact(n))
            .zip(self.ritz_values.iter())
            .take(self.wanted)
        {
            for (v, gv) in v.iter().zip(gv) {
                let r = gv - value * v;
                sum += r * r;
            }
        }
        if sum > 0.0 {
            libm::sqrt(sum) / largest
        } else {
            0.0
        }
    }
}

/// What the captured sum is measured against; never zero.
fn remaining(captured: f64, trace: Option<f64>) -> f64 {
    let scale = trace.map_or(captured, |trace| (trace - captured).max(1e-6 * trace));
    scale.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_never_zero() {
        assert!((remaining(3.0, Some(4.0)) - 1.0).abs() < 1e-15);
        assert!((remaining(4.0, Some(4.0)) - 4e-6).abs() < 1e-18);
        assert!((remaining(4.0, None) - 4.0).abs() < 1e-15);
        assert!(remaining(0.0, Some(0.0)) > 0.0);
    }
}
