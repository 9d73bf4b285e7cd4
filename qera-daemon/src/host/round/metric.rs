//! The metric that weights are rounded under.
//!
//! For a fixed A the best B is free, and min_B f = tr(E^T R_perp E) with R_perp = R - R A (A^T R
//! A)^+ A^T R: what the adapter will absorb costs nothing, and output columns are independent
//! (docs/design/mathematics.md, "Rounding"). A share b of R is left in, so that W~ is of use
//! without its adapter:
//!
//!   H = (1 - b) R_perp + b R_a + lambda I = R_a + lambda I - (1 - b) Z Z^T,
//!   Z = R_a A (A^T R_a A)^(-1/2),   R_a = (1 - a) R + a diag(R),   lambda = 0.01 mean diag(R_a).
//!
//! H is at least lambda I but for the rounding of R, so that its factor exists; it is formed and
//! factored in f64, in units of R's largest diagonal element. Where rounding left more than lambda
//! of a negative direction, it is factored with a larger one.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::host::dense::{Eigenpairs, eigen, product};
use crate::host::kernels::page_vec::PageVec;
use crate::host::rounding::narrow;
use crate::host::second_moment::channels::diagonal_scale;
use crate::host::second_moment::packed::PackedR;
use crate::host::solve_error::SolveError;

/// lambda as a share of the mean diagonal element of R_a.
pub(crate) const DAMPING: f64 = 0.01;
/// The factor by which lambda grows where H has no Cholesky factor.
const MORE_DAMPING: f64 = 16.0;
/// A direction of A whose energy is below this share of the strongest one's counts as none, its
/// columns being scaled to unit energy; the core's form has the same limit.
const NO_DIRECTION: f64 = 1.0 / (1_u64 << 26) as f64;
/// Columns of H that are formed at a time.
const BAND: usize = 64;

/// R_a + lambda I of a site, from which the metrics of its layers are made.
#[derive(Debug, Clone)]
pub(crate) struct SiteMetric<'a> {
    r: PackedR<'a>,
    /// diag(R).
    diagonal: Vec<f64>,
    /// The factor that H was divided by.
    scale: f64,
    /// The shrinkage a.
    pub(crate) shrinkage: f64,
}

/// What the adapter absorbs: sqrt(1 - b) Z in units of sqrt(scale), m x k.
#[derive(Debug)]
pub(crate) struct Absorbed(Mat<f64>);

/// H, both triangles in f32.
#[derive(Debug)]
pub(crate) struct FullMetric {
    values: PageVec<f32>,
    m: usize,
}

/// H = L L^T: L_jk / L_kk below the diagonal, by columns in f32, and L_kk^2.
#[derive(Debug)]
pub(crate) struct CholeskyFactor {
    values: PageVec<f32>,
    m: usize,
    pub(crate) pivots: Vec<f32>,
}

impl CholeskyFactor {
    /// All columns.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Column k; what stands in it down to row k has no meaning.
    pub(crate) fn column(&self, k: usize) -> &[f32] {
        &self.values[k * self.m..(k + 1) * self.m]
    }
}

impl FullMetric {
    /// Column k.
    pub(crate) fn column(&self, k: usize) -> &[f32] {
        &self.values[k * self.m..(k + 1) * self.m]
    }
}

impl<'a> SiteMetric<'a> {
    /// The metric of R shrunk by a.
    pub(crate) fn new(r: PackedR<'a>, shrinkage: f64) -> Self {
        let diagonal = r.diagonal();
        Self {
            r,
            scale: diagonal_scale(&diagonal),
            diagonal,
            shrinkage,
        }
    }

    fn m(&self) -> usize {
        self.r.m()
    }

    /// lambda, in units of the scale; 1 where R is 0, so that H = I.
    fn damping(&self) -> f64 {
        let mean = self.diagonal.iter().sum::<f64>() / self.m() as f64;
        if mean > 0.0 {
            DAMPING * mean / self.scale
        } else {
            1.0
        }
    }

    /// R_a T, given T (m x b) and R T.
    fn shrunk(&self, t: MatRef<'_, f64>, rt: MatRef<'_, f64>) -> Mat<f64> {
        let a = self.shrinkage;
        Mat::from_fn(t.nrows(), t.ncols(), |i, j| {
            (1.0 - a) * rt[(i, j)] + a * self.diagonal[i] * t[(i, j)]
        })
    }

    /// What an adapter with this A absorbs where the base's own error has a share of `base_share`;
    /// `ra` is R A.
    ///
    /// # Errors
    /// [`SolveError`] when A^T R_a A has a number that is not finite.
    pub(crate) fn absorbed(
        &self,
        a: MatRef<'_, f64>,
        ra: MatRef<'_, f64>,
        base_share: f64,
    ) -> Result<Absorbed, SolveError> {
        let mut shrunk = self.shrunk(a, ra);
        let mut energy = product(a.transpose(), shrunk.as_ref());
        let unit: Vec<f64> = (0..a.ncols())
            .map(|j| energy[(j, j)])
            .map(|of| if of > 0.0 { 1.0 / of.sqrt() } else { 0.0 })
            .collect();
        for (j, unit_j) in unit.iter().enumerate() {
            shrunk.col_mut(j).iter_mut().for_each(|x| *x *= unit_j);
            let column = energy.col_mut(j).iter_mut().zip(&unit);
            column.for_each(|(x, unit_i)| *x *= unit_i * unit_j);
        }
        let Eigenpairs { vectors, values } = eigen(&energy)?;
        let least = NO_DIRECTION * values.first().copied().unwrap_or_default();
        let count = values.iter().take_while(|&&value| value > least).count();
        let mut z = product(shrunk.as_ref(), vectors.subcols(0, count));
        for (column, value) in z.col_iter_mut().zip(&values) {
            let by = ((1.0 - base_share) / (value * self.scale)).sqrt();
            column.iter_mut().for_each(|x| *x *= by);
        }
        Ok(Absorbed(z))
    }

    /// Nothing is absorbed: H = R_a + lambda I.
    pub(crate) fn nothing_absorbed(&self) -> Absorbed {
        Absorbed(Mat::zeros(self.m(), 0))
    }

    /// The columns of H with this lambda from `first` on as far as `columns` is wide, from row
    /// `first` on.
    fn form(&self, first: usize, absorbed: &Absorbed, damping: f64, mut columns: MatMut<'_, f64>) {
        let (a, unit) = (self.shrinkage, 1.0 / self.scale);
        for (c, column) in columns.as_mut().col_iter_mut().enumerate() {
            let rows = column.iter_mut().skip(c);
            let r = self.r.row(first + c);
            rows.zip(r).for_each(|(to, r)| *to = (1.0 - a) * r * unit);
        }
        let width = columns.ncols();
        for c in 0..width {
            columns[(c, c)] += a * self.diagonal[first + c] * unit + damping;
        }
        let z = &absorbed.0;
        matmul(
            columns,
            Accum::Add,
            z.subrows(first, z.nrows() - first),
            z.subrows(first, width).transpose(),
            -1.0,
            Par::Seq,
        );
    }

    /// H in f32: 2 m^2 k flops.
    pub(crate) fn full(&self, absorbed: &Absorbed) -> FullMetric {
        let m = self.m();
        let mut values = PageVec::zeroed(m * m);
        let mut band = Mat::<f64>::zeros(m, BAND);
        for first in (0..m).step_by(BAND) {
            let width = BAND.min(m - first);
            let mut band = band.as_mut().submatrix_mut(0, 0, m - first, width);
            self.form(first, absorbed, self.damping(), band.as_mut());
            for c in 0..width {
                for i in c..m - first {
                    let value = narrow(band[(i, c)]);
                    values[(first + c) * m + first + i] = value;
                    values[(first + i) * m + first + c] = value;
                }
            }
        }
        FullMetric { values, m }
    }

    /// The factor of H, formed in f64: m^3 / 3 flops.
    ///
    /// # Errors
    /// [`SolveError::NotPositive`] where R is not finite.
    pub(crate) fn factor(&self, absorbed: &Absorbed) -> Result<CholeskyFactor, SolveError> {
        let m = self.m();
        let mut memory = PageVec::<f64>::zeroed(m * m);
        let mut damping = self.damping();
        while !self.factor_with(damping, absorbed, &mut memory) {
            // From some lambda on every finite H has one.
            if !damping.is_finite() || !self.is_finite(absorbed) {
                return Err(SolveError::NotPositive);
            }
            damping *= MORE_DAMPING;
        }
        let mut values = PageVec::zeroed(m * m);
        let mut pivots = Vec::with_capacity(m);
        let columns = memory.chunks_exact(m).zip(values.chunks_exact_mut(m));
        for (k, (from, to)) in columns.enumerate() {
            let pivot = from[k];
            pivots.push(narrow(pivot * pivot));
            let below = to[k + 1..].iter_mut().zip(&from[k + 1..]);
            below.for_each(|(u, l)| *u = narrow(l / pivot));
        }
        if pivots.iter().any(|pivot| !pivot.is_finite()) {
            return Err(SolveError::NotPositive);
        }
        Ok(CholeskyFactor { values, m, pivots })
    }

    /// Puts the factor of H with this lambda there, by columns; whether there is one.
    fn factor_with(&self, damping: f64, absorbed: &Absorbed, memory: &mut [f64]) -> bool {
        let m = self.m();
        let mut h = MatMut::from_column_major_slice_mut(memory, m, m);
        for first in (0..m).step_by(BAND) {
            let width = BAND.min(m - first);
            let columns = h.as_mut().submatrix_mut(first, first, m - first, width);
            self.form(first, absorbed, damping, columns);
        }
        let scratch = cholesky_in_place_scratch::<f64>(m, Par::Seq, Default::default());
        let mut scratch = MemBuffer::new(scratch);
        let stack = MemStack::new(&mut scratch);
        cholesky_in_place(h, Default::default(), Par::Seq, stack, Default::default()).is_ok()
    }

    fn is_finite(&self, absorbed: &Absorbed) -> bool {
        let mut rows = (0..self.m()).map(|i| self.r.row(i));
        rows.all(|row| row.iter().all(|x| x.is_finite())) && absorbed.0.is_all_finite()
    }
}
