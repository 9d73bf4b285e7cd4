//! The kernels against this core's peak: X^T X of 2048 rows, skinny products, and traces, in every
//! form that runs here.
//!
//! `cargo bench -p qera-benches --bench kernels [-- FILTER]`: FILTER is a part of a case's name.
//!
//! A sample is the peak, the kernel, the peak again, each in CPU time of the process on one core;
//! its share is the kernel's rate over the mean of the two peaks. The peak is that of the
//! arithmetic: bf16 where bf16 is multiplied, else the faster of AVX2 and AVX-512 in f32, also for
//! forms that use neither and for f64, whose own peak is half of that. Printed are the median of
//! the samples, and their ends.
#![expect(clippy::print_stdout, reason = "the table is what a bench is for")]

use core::cell::RefCell;
use core::hint::black_box;
use std::rc::Rc;

use faer::Mat;
use qera_benches::cpu_time::seconds_of_repeated;
use qera_benches::data::{Noise, stored_as};
use qera_benches::peak::Peak;
use qera_benches::samples::Samples;
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use qera_core::statistics::BlockShare;
use qera_daemon::{
    ColumnMajor, Compute, Cores, Kernel, PageVec, Scratch, StoredRows, fold_products,
    trace_products,
};

const SIZES: [usize; 4] = [576, 1536, 2048, 4096];
const VECTORS: [usize; 3] = [16, 32, 48];
const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16];
const ROWS: usize = 2048;
/// Samples of a case: every round visits all cases of a size, so that a slow minute of the machine
/// slows all.
const SAMPLES: usize = 5;
/// CPU seconds of a sample's kernel, at least, and of each of its peaks.
const KERNEL_SECONDS: f64 = 0.02;
const PEAK_SECONDS: f64 = 0.005;

/// What is measured.
struct Case<'a> {
    name: String,
    /// Whether it multiplies in bf16.
    bf16: bool,
    flops: f64,
    work: Box<dyn FnMut() + 'a>,
    /// GFLOP/s.
    rates: Vec<f64>,
    /// Percent of the peak.
    shares: Vec<f64>,
}

impl<'a> Case<'a> {
    fn new(name: String, bf16: bool, flops: usize, work: impl FnMut() + 'a) -> Self {
        Self {
            name,
            bf16,
            flops: flops as f64,
            work: Box::new(work),
            rates: Vec::new(),
            shares: Vec::new(),
        }
    }

    fn sample(&mut self, peaks: [Option<Peak>; 2]) {
        let peak = peaks[usize::from(self.bf16)];
        let before = peak.map(|peak| peak.measure(PEAK_SECONDS));
        let rate = self.flops / seconds_of_repeated(KERNEL_SECONDS, &mut self.work);
        let after = peak.map(|peak| peak.measure(PEAK_SECONDS));
        self.rates.push(rate * 1e-9);
        if let (Some(before), Some(after)) = (before, after) {
            self.shares
                .push(100.0 * rate / f64::midpoint(before, after));
        }
    }

    fn print(self) {
        let rates = Samples::new(self.rates).text(1);
        let shares = if self.shares.is_empty() {
            "-".into()
        } else {
            Samples::new(self.shares).text(0)
        };
        println!("| {:<36} | {rates:<22} | {shares:<14} |", self.name);
    }
}

/// Prints what the peaks are, and says which loop is the fastest in f32 and in bf16.
fn peaks() -> [Option<Peak>; 2] {
    let mut best = [None, None];
    let mut highest = [0.0; 2];
    println!("Peak of this core, GFLOP/s, median (least-most) of {SAMPLES}:");
    for peak in Peak::available() {
        let rates = (0..SAMPLES).map(|_| peak.measure(4.0 * PEAK_SECONDS) * 1e-9);
        let rates = Samples::new(rates.collect());
        println!("  {:<12} {}", peak.name(), rates.text(1));
        let kind = usize::from(peak.is_bf16());
        if rates.median() > highest[kind] {
            highest[kind] = rates.median();
            best[kind] = Some(peak);
        }
    }
    best
}

/// What the cases of one size compute on.
struct Data {
    m: usize,
    /// As many as X and R have, the larger of the two.
    numbers: Vec<f32>,
    /// The rows of X in each dtype.
    rows: [(FloatDtype, Vec<u8>); 3],
    /// R in f32, in the memory that a solve has it in.
    full: PageVec<f32>,
    /// R in f64, and what X^T X is folded into.
    packed: Vec<f64>,
    folded: RefCell<Vec<f64>>,
}

impl Data {
    fn new(m: usize) -> Self {
        let numbers = Noise::new(1).numbers(m * m.max(ROWS));
        let mut full = PageVec::zeroed(m * m);
        full.copy_from_slice(&numbers[..m * m]);
        let packed = numbers[..packed_len(m)].iter().map(|x| f64::from(*x));
        Self {
            m,
            rows: DTYPES.map(|dtype| (dtype, stored_as(&numbers[..ROWS * m], dtype))),
            full,
            packed: packed.collect(),
            folded: RefCell::new(vec![0.0; packed_len(m)]),
            numbers,
        }
    }

    /// Every case of one form.
    fn cases<'a>(&'a self, compute: Compute<'a>) -> Vec<Case<'a>> {
        let (m, kernel) = (self.m, compute.kernel);
        let scratch = Rc::new(RefCell::new(Scratch::default()));
        let mut cases = Vec::new();
        for (dtype, bytes) in &self.rows {
            let name = format!("{} x_t_x {} m={m}", kernel.name(), dtype.name());
            let bf16 = kernel.multiplies_in_bf16(*dtype);
            let scratch = scratch.clone();
            cases.push(Case::new(name, bf16, m * m * ROWS, move || {
                let rows = StoredRows::bytes(bytes, *dtype, m);
                let share = |count| BlockShare::new(ROWS as f64, count as f64);
                let mut folded = self.folded.borrow_mut();
                fold_products(compute, rows, &mut folded, &mut scratch.borrow_mut(), share);
                black_box(&*folded);
            }));
        }
        for b in VECTORS {
            // b vectors times an m x m matrix: what R times a block of a Krylov basis is.
            let name = format!("{} products b={b} m={m}", kernel.name());
            let x = Mat::from_fn(b, m, |i, j| f64::from(self.numbers[j * b + i]));
            let full = compute.operand(ColumnMajor::new(&self.full, m));
            cases.push(Case::new(name, false, 2 * m * m * b, move || {
                black_box(full.times(x.as_ref()));
            }));
        }
        let b = VECTORS[1];
        let name = format!("{} products_f64 b={b} m={m}", kernel.name());
        let x = Mat::from_fn(b, m, |i, j| f64::from(self.numbers[j * b + i]));
        let full = compute.operand(ColumnMajor::new(&self.full, m));
        cases.push(Case::new(name, false, 2 * m * m * b, move || {
            black_box(full.times_f64(x.as_ref()));
        }));
        let name = format!("{} trace_products m={m}", kernel.name());
        cases.push(Case::new(name, false, m * m * ROWS, move || {
            let columns = ColumnMajor::new(&self.numbers[..ROWS * m], m);
            let mut scratch = scratch.borrow_mut();
            black_box(trace_products(compute, columns, &self.packed, &mut scratch));
        }));
        cases
    }
}

fn main() {
    // cargo bench says --bench.
    let filter: Vec<_> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let wants = |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part));
    let peaks = peaks();
    println!(
        "\n| {:<36} | {:<22} | {:<14} |",
        "case", "GFLOP/s", "% of the peak"
    );
    println!("|---|---|---|");
    let cores = Cores::new(1);
    let _core = cores.take();
    for m in SIZES {
        let data = Data::new(m);
        let hosts = Kernel::available()
            .into_iter()
            .map(|kernel| Compute::new(kernel, &cores));
        let mut cases: Vec<_> = hosts.flat_map(|compute| data.cases(compute)).collect();
        cases.retain(|case| wants(&case.name));
        cases.iter_mut().for_each(|case| (case.work)());
        for _ in 0..SAMPLES {
            cases.iter_mut().for_each(|case| case.sample(peaks));
        }
        cases.into_iter().for_each(Case::print);
    }
}
