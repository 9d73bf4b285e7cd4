//! A small layer solved and a block of rows summed, there and here: a device whose answers differ
//! is not used.

use faer::Mat;
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use qera_core::pseudo_random::SplitMix64;
use qera_gpu::{DeviceError, PIECE_ROWS, Triangle};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::host::kernels::rank_update::Scratch;
use crate::host::kernels::row_weights::Extent;
use crate::host::kernels::stored::StoredRows;
use crate::host::kernels::{ENTRY_ERROR, Kernel};
use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::lent::LentDevice;
use crate::host::offload::placement::SolvedWidths;
use crate::host::offload::row_sums::RowSums;
use crate::host::rounding::narrow;
use crate::host::second_moment::fold_rows;
use crate::host::second_moment::metric::Metric;
use crate::host::second_moment::packed::PackedR;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::subspace::operator::ErrorOperator;
use crate::host::subspace::top::{Effort, top_subspace};

/// in_features, out_features and rank of the layer: so many that it is solved on a basis that
/// grows, not by forming G.
const M: usize = 96;
const N: usize = 640;
const K: usize = 8;
/// More than one piece.
const ROWS: usize = PIECE_ROWS + 76;
/// The captured sum and tr(R E E^T) of the two sides differ by less, relative.
const TOLERANCE: f64 = 1e-8;

/// What of a layer is compared.
struct Solved {
    /// The eigenvalues captured, together.
    captured: f64,
    /// tr(R E E^T).
    trace: f64,
}

/// Why a device is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Distrust {
    /// It failed in summing rows.
    #[error("summing rows: {0}")]
    Sums(#[from] DeviceError),
    /// It failed in a solve.
    #[error("{0}")]
    Products(String),
    /// The solve ended early.
    #[error("{0}")]
    Solve(#[from] SolveError),
    /// It has no memory for a small layer.
    #[error(
        "no room for a small layer, which takes {needed} bytes of the {left} that are for solves, \
         half of what may be used"
    )]
    NoRoom {
        /// Bytes that the layer takes.
        needed: u64,
        /// Bytes that there are.
        left: u64,
    },
    /// Something came out otherwise.
    #[error("{what} is {there:e} there and {here:e} here")]
    Differs {
        /// What.
        what: String,
        /// On the device.
        there: f64,
        /// On the host.
        here: f64,
    },
}

/// Compares the two sides.
///
/// # Errors
/// [`Distrust`].
pub(crate) fn self_test(accelerator: &Accelerator, kernel: Kernel) -> Result<(), Distrust> {
    let cores = Cores::new(1);
    let _core = cores.take();
    let compute = Compute::new(kernel, &cores);
    let bytes = rows();
    let rows = StoredRows::bytes(&bytes, FloatDtype::Bf16, M);
    let r = summed_here(compute, rows);
    compare_sums(&r, &summed_there(accelerator, rows)?)?;
    compare_solves(accelerator, compute, &r)
}

/// Rows in bf16.
fn rows() -> Vec<u8> {
    let mut sequence = SplitMix64::new(1);
    let number = |i: usize| {
        let x = sequence.next_symmetric() + 0.2 * ((i % M) as f64).sin();
        (narrow(x).to_bits() >> 16) as u16
    };
    (0..ROWS * M)
        .map(number)
        .flat_map(u16::to_le_bytes)
        .collect()
}

fn summed_here(compute: Compute<'_>, rows: StoredRows<'_>) -> Vec<f64> {
    let mut r = vec![0.0; packed_len(M)];
    let mut scratch = Scratch::default();
    fold_rows(compute, rows, &Extent::rows(0), &[], &mut r, &mut scratch);
    r
}

fn summed_there(accelerator: &Accelerator, rows: StoredRows<'_>) -> Result<Vec<f64>, DeviceError> {
    let mut r = vec![0.0; packed_len(M)];
    let mut sums = Triangle::new(&accelerator.offload, &r, M)?;
    RowSums::fold(&mut sums, rows, 0.0)?;
    RowSums::read(&mut sums, &mut r)?;
    Ok(r)
}

fn compare_sums(here: &[f64], there: &[f64]) -> Result<(), Distrust> {
    let diagonal = PackedR::new(here, M).diagonal();
    let mut pairs = here.iter().zip(there);
    for i in 0..M {
        for j in i..M {
            // Both have a number for each.
            let Some((&here, &there)) = pairs.next() else {
                return Ok(());
            };
            let error = (here - there).abs() / (diagonal[i] * diagonal[j]).sqrt();
            if error.is_nan() || error > ENTRY_ERROR {
                let what = format!("R[{i}, {j}]");
                return Err(Distrust::Differs { what, there, here });
            }
        }
    }
    Ok(())
}

fn compare_solves(
    accelerator: &Accelerator,
    compute: Compute<'_>,
    r: &[f64],
) -> Result<(), Distrust> {
    let widths = SolvedWidths {
        in_features: M,
        out_features: N,
        needs_r: true,
        rounds: false,
    };
    let lent = LentDevice::any(accelerator, widths, Some(r));
    let lent = lent.ok_or_else(|| Distrust::NoRoom {
        needed: widths.bytes(),
        left: accelerator.shares.solving,
    })?;
    let here = solved(compute, r)?;
    let there = solved(compute.beside(Some(&lent)), r)?;
    if let Some(first) = lent.failures().into_iter().next() {
        return Err(Distrust::Products(first));
    }
    for (what, here, there) in [
        ("the captured sum", here.captured, there.captured),
        ("tr(R E E^T)", here.trace, there.trace),
    ] {
        let error = (here - there).abs();
        if error.is_nan() || error > TOLERANCE * here {
            let what = what.to_owned();
            return Err(Distrust::Differs { what, there, here });
        }
    }
    Ok(())
}

/// A layer with this R.
fn solved(compute: Compute<'_>, r: &[f64]) -> Result<Solved, SolveError> {
    let mut sequence = SplitMix64::new(2);
    let e: Vec<f32> = (0..M * N)
        .map(|_| narrow(sequence.next_symmetric()))
        .collect();
    let matrix = ColumnMajor::new(&e, M);
    let packed = PackedR::new(r, M);
    let prepared = PreparedR::new(compute, packed);
    let metric = Metric::Shrunk {
        r: &prepared,
        shrinkage: 0.1,
    };
    let error = ErrorOperand::new(compute, matrix, false);
    let operator = ErrorOperator {
        error: &error,
        metric: &metric,
        outputs: None,
    };
    let found = top_subspace(&operator, K, Effort::Final)?;
    // In true units and in f64, as f is measured.
    let t = error.times_v_f64(found.vectors.subcols(0, K));
    let rt = packed.times(compute, t.as_ref());
    let captured: Mat<f64> = metric.rayleigh(&t, &rt);
    Ok(Solved {
        captured: (0..K).map(|i| captured[(i, i)]).sum(),
        trace: packed.trace_with(compute, matrix).sum(),
    })
}
