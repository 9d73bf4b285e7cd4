//! Rows of each type summed, a matrix multiplied and a small layer solved, there and here: a device
//! whose answers differ is not used.

use faer::Mat;
use half::f16;
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use qera_core::pseudo_random::SplitMix64;
use qera_gpu::{DeviceError, DeviceOperand, PIECE_ROWS, Triangle, shared_bytes};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::host::kernels::rank_update::Scratch;
use crate::host::kernels::row_weights::{Extent, RowWeights};
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
/// The layer's solve.
const WIDTHS: SolvedWidths = SolvedWidths {
    in_features: M,
    out_features: N,
    needs_r: true,
    rounds: false,
};
/// Rows of each form that are summed.
const FORMS: [Form; 6] = [
    // More than one piece.
    Form::new(FloatDtype::Bf16, false, PIECE_ROWS + 76),
    Form::new(FloatDtype::F16, false, 76),
    Form::new(FloatDtype::F32, false, 76),
    Form::new(FloatDtype::Bf16, true, 76),
    Form::new(FloatDtype::F16, true, 76),
    Form::new(FloatDtype::F32, true, 76),
];
/// The captured sum and tr(R E E^T) of the two sides differ by less, relative.
const TOLERANCE: f64 = 1e-8;
/// Products by f32 numbers differ from the true ones by less, relative: f32 sums of 640 numbers
/// above 0 are within 640 / 2^24 in any order, and TF32 takes 7e-4 off the numbers here.
const PRODUCT_ERROR: f64 = 5e-5;

/// Rows as they may come.
#[derive(Debug, Clone, Copy)]
struct Form {
    dtype: FloatDtype,
    is_weighted: bool,
    rows: usize,
}

impl Form {
    const fn new(dtype: FloatDtype, is_weighted: bool, rows: usize) -> Self {
        Self {
            dtype,
            is_weighted,
            rows,
        }
    }

    /// In words.
    fn name(&self) -> String {
        let weighted = if self.is_weighted { ", weighted" } else { "" };
        format!("{} rows{weighted}", self.dtype.name())
    }

    /// Their numbers.
    fn bytes(&self) -> Vec<u8> {
        let mut sequence = SplitMix64::new(1);
        let number = |i: usize| {
            let x = narrow(sequence.next_symmetric() + 0.2 * ((i % M) as f64).sin());
            match self.dtype {
                FloatDtype::F32 => x.to_le_bytes().to_vec(),
                FloatDtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
                FloatDtype::Bf16 => ((x.to_bits() >> 16) as u16).to_le_bytes().to_vec(),
            }
        };
        (0..self.rows * M).flat_map(number).collect()
    }
}

/// Bytes of the device without which the test cannot be made: what libraries work in, and twice
/// what the layer takes, because half is for solves.
pub(crate) fn needed_bytes() -> u64 {
    shared_bytes(0) + 2 * WIDTHS.bytes()
}

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
    /// A call failed.
    #[error("the self-test could not be made: {0}")]
    Call(#[from] DeviceError),
    /// One failed in a solve.
    #[error("the self-test could not be made: {0}")]
    Solving(String),
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
    #[error("failed the self-test: {what} is {there:e} there and {here:e} here")]
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
    let mut of_layer = None;
    for form in FORMS {
        let bytes = form.bytes();
        let weights = (0..form.rows).map(|row| 0.5 + (row % 3) as f32);
        let weights = form.is_weighted.then(|| RowWeights::new(weights.collect()));
        let rows = StoredRows::bytes(&bytes, form.dtype, M).weighted(weights.as_ref());
        let r = summed_here(compute, rows);
        compare_sums(&r, &summed_there(accelerator, rows)?, &form.name())?;
        of_layer = of_layer.or(Some(r));
    }
    compare_products(accelerator)?;
    of_layer.map_or(Ok(()), |r| compare_solves(accelerator, compute, &r))
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

fn compare_sums(here: &[f64], there: &[f64], of: &str) -> Result<(), Distrust> {
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
                let what = format!("R[{i}, {j}] of {of}");
                return Err(Distrust::Differs { what, there, here });
            }
        }
    }
    Ok(())
}

/// Products by a matrix of f32 numbers, both ways, against sums in f64. All numbers are above 0 and
/// have bits just beyond those that TF32 keeps, so that all of its errors would add up.
fn compare_products(accelerator: &Accelerator) -> Result<(), Distrust> {
    let number = |i: usize| narrow(f64::from(1 << (i % 7 % 4)) * (1.0 + 3.0 / 8192.0));
    let e: Vec<f32> = (0..M * N).map(number).collect();
    let x: Vec<f64> = (0..K * N).map(|i| number(3 * i + i / K).into()).collect();
    let there = DeviceOperand::new(&accelerator.offload, &e, M)?;
    let e_at = |i: usize, j: usize| f64::from(e[j * M + i]);
    let x_at = |k: usize, i: usize| x[i * K + k];
    let (mut e_x, mut x_e) = (vec![0.0; K * M], vec![0.0; K * N]);
    there.transposed_times(&x, K, &mut e_x)?;
    there.times(&x[..K * M], K, &mut x_e)?;
    let products_of_e_x = (0..K * M).map(|at| {
        let (k, i) = (at % K, at / K);
        (0..N).map(|j| x_at(k, j) * e_at(i, j)).sum::<f64>()
    });
    let products_of_x_e = (0..K * N).map(|at| {
        let (k, j) = (at % K, at / K);
        (0..M).map(|i| x_at(k, i) * e_at(i, j)).sum::<f64>()
    });
    let here = products_of_e_x.chain(products_of_x_e);
    for (here, there) in here.zip(e_x.into_iter().chain(x_e)) {
        let error = (here - there).abs() / here;
        if error.is_nan() || error > PRODUCT_ERROR {
            let what = "a product of f32 numbers".to_owned();
            return Err(Distrust::Differs { what, there, here });
        }
    }
    Ok(())
}

fn compare_solves(
    accelerator: &Accelerator,
    compute: Compute<'_>,
    r: &[f64],
) -> Result<(), Distrust> {
    let lent = LentDevice::any(accelerator, WIDTHS, Some(r));
    let lent = lent.ok_or_else(|| Distrust::NoRoom {
        needed: WIDTHS.bytes(),
        left: accelerator.shares.solving,
    })?;
    let here = solved(compute, r)?;
    let there = solved(compute.beside(Some(&lent)), r)?;
    if let Some(first) = lent.failures().into_iter().next() {
        return Err(Distrust::Solving(first));
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
