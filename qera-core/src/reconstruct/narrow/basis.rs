//! The basis [X, G X], its Rayleigh-Ritz step, and the restart from the leading Ritz vectors.

use nalgebra::DMatrixViewMut;

use super::NarrowError;
use super::operator::OutputProduct;
use crate::linalg::{JACOBI_MAX_SWEEPS, add_scaled_narrow, dot, jacobi_eigen, narrow, narrow_dot};
use crate::pseudo_random::SplitMix64;

/// The seed of the start block, the digits of pi, as for
/// [`block_krylov`](crate::linalg::block_krylov()).
const SEED: u64 = 0x243F_6A88_85A3_08D3;
/// The iteration ends when a cycle captures less than this share of what is left.
const TOLERANCE: f64 = 1e-4;
/// The least share of the trace that counts as left, as f32 knows the trace no better.
const LEAST_LEFT: f64 = 1e-4;
/// The most cycles that are made, for what converges slowly. V is orthonormal after every cycle.
const CYCLES_MAX: usize = 60;
/// A column is replaced when less than this share of it is left after the projection.
const DEPENDENT: f64 = 1e-5;

pub(super) struct NarrowBasis<'a> {
    order: usize,
    /// How many columns X has.
    block: usize,
    /// The basis: X, followed by its image; `c` columns of n numbers.
    columns: &'a mut [f32],
    /// The image of a block.
    image: &'a mut [f32],
    h: &'a mut [f64],
    ritz: &'a mut [f64],
    values: &'a mut [f64],
    line: &'a mut [f64],
    jacobi: &'a mut [f64],
    random: SplitMix64,
}

impl<'a> NarrowBasis<'a> {
    /// Starts an iteration; `columns` has room for the basis and one more block.
    pub(super) fn new(
        order: usize,
        block: usize,
        columns: &'a mut [f32],
        workspace: &'a mut [f64],
    ) -> Self {
        let c = (2 * block).min(order);
        let (columns, image) = columns.split_at_mut(order * c);
        let (h, rest) = workspace.split_at_mut(c * c);
        let (ritz, rest) = rest.split_at_mut(c * c);
        let (values, rest) = rest.split_at_mut(c);
        let (line, jacobi) = rest.split_at_mut(c);
        Self {
            order,
            block,
            columns,
            image,
            h,
            ritz,
            values,
            line,
            jacobi,
            random: SplitMix64::new(SEED),
        }
    }

    /// Iterates until a cycle gains little, and returns how many cycles it took.
    pub(super) fn iterate<F: FnMut(usize, &mut [f32])>(
        &mut self,
        product: &mut OutputProduct<'_, F>,
        wanted: usize,
        trace: f64,
    ) -> Result<usize, NarrowError> {
        let (n, w) = (self.order, self.block);
        for x in self.columns[..n * w].iter_mut() {
            *x = narrow(self.random.next_symmetric());
        }
        self.orthonormalise(0, w);
        let mut captured = 0.0;
        for cycle in 1..=CYCLES_MAX {
            self.expand(product)?;
            self.rayleigh_ritz()?;
            self.restart();
            let before = captured;
            captured = self.values[..wanted].iter().sum();
            let left = (trace - captured).max(LEAST_LEFT * trace);
            let whole = self.values.len() == n;
            if whole || captured - before <= TOLERANCE * left {
                return Ok(cycle);
            }
        }
        Ok(CYCLES_MAX)
    }

    /// How many of the wanted eigenvalues stand above the rounding of f32.
    pub(super) fn rank(&self, wanted: usize) -> usize {
        let noise = self.order as f64 * f64::from(f32::EPSILON) * self.values[0].max(0.0);
        let above = self.values[..wanted].iter();
        above.take_while(|value| **value > noise).count()
    }

    /// The leading Ritz vectors.
    pub(super) fn vectors(&self, count: usize) -> &[f32] {
        &self.columns[..self.order * count]
    }

    /// Applies G to X, appends the image to the basis, applies G to that, and fills H on the way.
    fn expand<F: FnMut(usize, &mut [f32])>(
        &mut self,
        product: &mut OutputProduct<'_, F>,
    ) -> Result<(), NarrowError> {
        let (n, w, c) = (self.order, self.block, self.values.len());
        self.apply(product, 0, w)?;
        let appended = n * (c - w);
        self.columns[n * w..].copy_from_slice(&self.image[..appended]);
        self.orthonormalise(w, c);
        self.apply(product, w, c)
    }

    /// Applies G to the columns `first..end` and fills in the entries of H that this gives.
    fn apply<F: FnMut(usize, &mut [f32])>(
        &mut self,
        product: &mut OutputProduct<'_, F>,
        first: usize,
        end: usize,
    ) -> Result<(), NarrowError> {
        let (n, c) = (self.order, self.values.len());
        let image = &mut self.image[..n * (end - first)];
        product.apply(&self.columns[n * first..n * end], image);
        for (j, image) in (first..end).zip(image.chunks_exact(n)) {
            for (i, column) in self.columns[..n * end].chunks_exact(n).enumerate() {
                let entry = narrow_dot(column, image);
                if !entry.is_finite() {
                    return Err(NarrowError::NonFinite);
                }
                // Only the lower triangle is read: row j, column i of the earlier one.
                self.h[i.min(j) * c + i.max(j)] = entry;
            }
        }
        Ok(())
    }

    fn rayleigh_ritz(&mut self) -> Result<(), NarrowError> {
        let c = self.values.len();
        jacobi_eigen(
            DMatrixViewMut::from_slice(self.h, c, c),
            self.values,
            DMatrixViewMut::from_slice(self.ritz, c, c),
            self.jacobi,
            JACOBI_MAX_SWEEPS,
        )
        .map_err(NarrowError::RayleighRitz)?;
        Ok(())
    }

    /// X <- the leading Ritz vectors, row by row, so that no second basis is needed.
    fn restart(&mut self) {
        let (n, w, c) = (self.order, self.block, self.values.len());
        for i in 0..n {
            for (j, value) in self.line.iter_mut().enumerate() {
                *value = f64::from(self.columns[j * n + i]);
            }
            for (j, ritz) in self.ritz.chunks_exact(c).take(w).enumerate() {
                self.columns[j * n + i] = narrow(dot(self.line, ritz));
            }
        }
        self.orthonormalise(0, w);
    }

    /// Makes columns `first..end` orthonormal to all before them and to each other: Gram-Schmidt,
    /// twice. A column that vanishes is replaced by a pseudo-random one.
    fn orthonormalise(&mut self, first: usize, end: usize) {
        let n = self.order;
        for j in first..end {
            let (before, rest) = self.columns.split_at_mut(j * n);
            let column = &mut rest[..n];
            for _ in 0..8 {
                let whole = libm::sqrt(narrow_dot(column, column));
                for other in before.chunks_exact(n).chain(before.chunks_exact(n)) {
                    let along = narrow(narrow_dot(other, column));
                    add_scaled_narrow(-along, other, column);
                }
                let length = libm::sqrt(narrow_dot(column, column));
                if length > DEPENDENT * whole {
                    let scale = narrow(1.0 / length);
                    column.iter_mut().for_each(|x| *x *= scale);
                    break;
                }
                for x in column.iter_mut() {
                    *x = narrow(self.random.next_symmetric());
                }
            }
        }
    }
}
