//! The metric H that a rounding is measured by, made of R alone or of R and an adapter's A.
//!
//! **Derivation.** R_a = (1 - a) R + a diag(R), and lambda = damping x mean diag(R). For a rounding
//! that stands alone H = R_a + lambda I. For one that is corrected by A B with B free,
//!
//!   H = (1 - b) R_perp + b R_a + lambda I = R_a + lambda I - (1 - b) Z Z^T,
//!   R_perp = R_a - Z Z^T,  Z = R_a A (A^T R_a A)^(-1/2),
//!
//! because min over B of tr((E - A B)^T R_a (E - A B)) is tr(E^T R_perp E) (complete the square: B
//! = (A^T R_a A)^-1 A^T R_a E). b > 0 keeps a share of R_a, so that W~ is not wrong without its
//! adapter. R_perp is a Schur complement, hence positive semi-definite, and H >= lambda I.
//!
//! **Rank.** The columns of A are scaled to a^T R_a a = 1 first, which changes no span. Of the
//! eigenvalues of the k x k matrix that is left, those at most 2^-26 of the largest are taken as 0:
//! their directions are not in the span, and keep their cost. An eigenvalue mu brings an error of
//! about eps / mu into Z, which the cut keeps below 2^-26 of |R_a|.
//!
//! **Cost.** 2 m^2 k for R_a A, m^2 k for Z Z^T, about 60 k^3 for the eigenvalues.
//!
//! **Error bound.** Entries of H to a small multiple of 2^-26 |R_a| in the worst case of the cut,
//! of k eps |R_a| where A is well conditioned.

use nalgebra::{DMatrixView, DMatrixViewMut};

use super::error::RoundError;
use crate::linalg::{
    JACOBI_MAX_SWEEPS, Workspace, add_scaled, dot, dot_add_scaled, expect_length, expect_matrix,
    jacobi_eigen, jacobi_eigen_workspace_len,
};
use crate::packed::{packed_len, packed_offset, packed_rows};

/// Eigenvalues at most this large, relative to the largest, count as 0: 2^-26.
const CUT: f64 = 1.0 / (1 << 26) as f64;

/// How R is turned into a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricOptions {
    /// a, from 0 (R as it is) to 1 (only its diagonal).
    pub shrinkage: f64,
    /// b, the share of R_a that what A absorbs still costs, from 0 to 1 (A is not looked at).
    pub base_share: f64,
    /// lambda relative to the mean of the diagonal, above 0.
    pub damping: f64,
}

impl Default for MetricOptions {
    fn default() -> Self {
        Self {
            shrinkage: 0.0,
            base_share: 0.01,
            damping: 0.01,
        }
    }
}

/// The damping and the rank that a metric was made with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricReport {
    /// lambda.
    pub damping: f64,
    /// Dimensions of the span of A that cost less.
    pub rank: usize,
}

/// Writes H = R_a + lambda I, both triangles.
///
/// # Shapes
/// `autocorrelation` is R, packed by rows ([`crate::packed`]); `metric` is m x m.
///
/// # Errors
/// [`Shape`](RoundError::Shape), [`Option`](RoundError::Option),
/// [`NonFinite`](RoundError::NonFinite); [`Diagonal`](RoundError::Diagonal) for a negative second
/// moment.
///
/// # Numerics
/// An R whose diagonal is 0, or too small for lambda to be a normal number, gets lambda = 1: under
/// inputs that are always 0 every rounding costs nothing, and the nearest is as good as any.
///
/// # Example
/// ```
/// use nalgebra::DMatrixViewMut;
/// use qera_core::quantize::round::{MetricOptions, MetricReport, damped_metric};
///
/// let mut h = [0.0; 4];
/// let options = MetricOptions { shrinkage: 0.25, ..MetricOptions::default() };
/// let metric = DMatrixViewMut::from_slice(&mut h, 2, 2);
/// let report = damped_metric(&[2.0, 1.0, 4.0], &options, metric)?;
/// assert_eq!(report, MetricReport { damping: 0.03, rank: 0 });
/// assert_eq!(h, [2.03, 0.75, 0.75, 4.03]);
/// # Ok::<(), qera_core::quantize::round::RoundError>(())
/// ```
pub fn damped_metric(
    autocorrelation: &[f64],
    options: &MetricOptions,
    mut metric: DMatrixViewMut<'_, f64>,
) -> Result<MetricReport, RoundError> {
    let m = metric.nrows();
    expect_matrix("metric", &metric, m, m)?;
    expect_length("autocorrelation", autocorrelation, packed_len(m))?;
    check_options(options)?;
    check_autocorrelation(autocorrelation, m)?;
    let trace: f64 = packed_rows(autocorrelation, m).map(|row| row[0]).sum();
    let damping = options.damping * (trace / m as f64);
    let damping = if damping.is_normal() { damping } else { 1.0 };
    for (i, row) in packed_rows(autocorrelation, m).enumerate() {
        metric[(i, i)] = row[0] + damping;
        for (j, r) in (i + 1..m).zip(&row[1..]) {
            let shrunk = (1.0 - options.shrinkage) * r;
            metric[(i, j)] = shrunk;
            metric[(j, i)] = shrunk;
        }
    }
    Ok(MetricReport { damping, rank: 0 })
}

/// Number of `f64` that [`projected_metric`] needs: `m k + m + 2 k^2 + 4 k`.
#[must_use]
pub const fn projected_metric_workspace_len(in_features: usize, rank: usize) -> usize {
    let images = in_features.saturating_mul(rank.saturating_add(1));
    let squares = rank.saturating_mul(rank).saturating_mul(2);
    let vectors = rank.saturating_mul(2);
    images
        .saturating_add(squares)
        .saturating_add(vectors)
        .saturating_add(jacobi_eigen_workspace_len(rank))
}

/// Writes H = R_a + lambda I - (1 - b) Z Z^T, both triangles: what is left of the metric once an
/// adapter with this A has taken its part.
///
/// # Shapes
/// `autocorrelation` is R, packed by rows; `a` is m x k, any k; `metric` is m x m.
///
/// # Workspace
/// [`projected_metric_workspace_len`]`(m, k)` = m k + m + 2 k^2 + 4 k.
///
/// # Errors
/// As [`damped_metric`]; [`Workspace`](RoundError::Workspace); [`Eigen`](RoundError::Eigen) should
/// not happen for finite numbers.
///
/// # Numerics
/// The module's documentation has the cut for an A whose columns depend on each other; columns of
/// zeros count for nothing.
///
/// # Determinism
/// Every sum in a fixed order.
///
/// # Example
/// ```
/// use nalgebra::{DMatrixView, DMatrixViewMut};
/// use qera_core::quantize::round::{
///     MetricOptions, projected_metric, projected_metric_workspace_len,
/// };
///
/// let options = MetricOptions { base_share: 0.0, ..MetricOptions::default() };
/// let (mut h, mut workspace) = ([0.0; 4], [0.0; projected_metric_workspace_len(2, 1)]);
/// let report = projected_metric(
///     &[2.0, 0.0, 4.0], // diag(2, 4)
///     DMatrixView::from_slice(&[3.0, 0.0], 2, 1), // absorbs the first input whole
///     &options,
///     DMatrixViewMut::from_slice(&mut h, 2, 2),
///     &mut workspace,
/// )?;
/// assert_eq!(report.rank, 1);
/// assert!((h[0] - 0.03).abs() < 1e-15 && (h[3] - 4.03).abs() < 1e-15);
/// # Ok::<(), qera_core::quantize::round::RoundError>(())
/// ```
pub fn projected_metric(
    autocorrelation: &[f64],
    a: DMatrixView<'_, f64>,
    options: &MetricOptions,
    mut metric: DMatrixViewMut<'_, f64>,
    workspace: &mut [f64],
) -> Result<MetricReport, RoundError> {
    let (m, k) = (metric.nrows(), a.ncols());
    expect_matrix("a", &a, m, k)?;
    let mut workspace = Workspace::new(workspace, projected_metric_workspace_len(m, k))?;
    for (j, column) in a.column_iter().enumerate() {
        if let Some(place) = column.as_slice().iter().position(|x| !x.is_finite()) {
            let index = j * m + place;
            return Err(RoundError::NonFinite {
                operand: "a",
                index,
            });
        }
    }
    let mut report = damped_metric(autocorrelation, options, metric.as_view_mut())?;
    let images = workspace.take(m * k);
    let (scales, values, z) = (workspace.take(k), workspace.take(k), workspace.take(m));
    let mut gram = DMatrixViewMut::from_slice(workspace.take(k * k), k, k);
    let mut vectors = DMatrixViewMut::from_slice(workspace.take(k * k), k, k);
    for (j, image) in images.chunks_exact_mut(m.max(1)).enumerate() {
        let column = a.column(j);
        apply_shrunk(autocorrelation, options.shrinkage, column.as_slice(), image);
        let energy = dot(column.as_slice(), image);
        // A column without energy is none: it is not divided by what may be 0.
        scales[j] = if energy > 0.0 {
            1.0 / libm::sqrt(energy)
        } else {
            0.0
        };
        for i in 0..=j {
            gram[(j, i)] = scales[i] * dot(a.column(i).as_slice(), image) * scales[j];
        }
    }
    let scratch = workspace.take(jacobi_eigen_workspace_len(k));
    jacobi_eigen(
        gram,
        values,
        vectors.as_view_mut(),
        scratch,
        JACOBI_MAX_SWEEPS,
    )?;
    for (value, vector) in values.iter().zip(vectors.column_iter()) {
        if *value <= CUT * values[0] {
            break; // They descend.
        }
        report.rank += 1;
        z.fill(0.0);
        let images = images.chunks_exact(m.max(1));
        for ((image, scale), x) in images.zip(scales.iter()).zip(vector.as_slice()) {
            add_scaled(scale * x / libm::sqrt(*value), image, z);
        }
        for (i, &z_i) in z.iter().enumerate() {
            let mut column = metric.column_mut(i);
            let below = &mut column.as_mut_slice()[i..];
            add_scaled((options.base_share - 1.0) * z_i, &z[i..], below);
        }
    }
    for i in 0..m {
        for j in i + 1..m {
            metric[(i, j)] = metric[(j, i)];
        }
    }
    Ok(report)
}

/// `y = R_a x`.
fn apply_shrunk(autocorrelation: &[f64], shrinkage: f64, x: &[f64], y: &mut [f64]) {
    let m = x.len();
    y.fill(0.0);
    for (i, row) in packed_rows(autocorrelation, m).enumerate() {
        let off_diagonal = dot_add_scaled(&row[1..], &x[i + 1..], x[i], &mut y[i + 1..]);
        y[i] += off_diagonal;
    }
    let diagonal = packed_rows(autocorrelation, m).map(|row| row[0]);
    for ((y, x), d) in y.iter_mut().zip(x).zip(diagonal) {
        *y = (1.0 - shrinkage) * *y + d * x;
    }
}

fn check_options(options: &MetricOptions) -> Result<(), RoundError> {
    let share = 0.0..=1.0;
    let refused = |option, value| Err(RoundError::Option { option, value });
    if !share.contains(&options.shrinkage) {
        return refused("shrinkage", options.shrinkage);
    }
    if !share.contains(&options.base_share) {
        return refused("base_share", options.base_share);
    }
    if !(options.damping > 0.0 && options.damping.is_finite()) {
        return refused("damping", options.damping);
    }
    Ok(())
}

/// Refuses an R that is not finite, or has a negative second moment.
fn check_autocorrelation(autocorrelation: &[f64], m: usize) -> Result<(), RoundError> {
    if let Some(index) = autocorrelation.iter().position(|x| !x.is_finite()) {
        let operand = "autocorrelation";
        return Err(RoundError::NonFinite { operand, index });
    }
    let mut diagonal = packed_rows(autocorrelation, m).map(|row| row[0]);
    let Some(index) = diagonal.position(|x| x < 0.0) else {
        return Ok(());
    };
    let value = autocorrelation[packed_offset(m, index)];
    Err(RoundError::Diagonal { index, value })
}
