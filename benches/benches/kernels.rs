//! The kernels against this core's peak: X^T X of 2048 rows, skinny products, and traces, in every form that runs here.
//!
//! `cargo bench -p qera-benches --bench kernels [-- FILTER]`: FILTER is a part of a case's name.
//!
//! A sample is the peak, the kernel, the peak again, each in CPU time of the process on one core; its share is the kernel's
//! rate over the mean of the two peaks. The peak is that of the arithmetic: bf16 where bf16 is multiplied, else the faster
//! of AVX2 and AVX-512 in f32, also for forms that use neither. Printed are the median of the samples, and their ends.
#![expect(clippy::print_stdout, reason = "the table is what a bench is for")]

use core::hint::black_box;

use faer::Mat;
use qera_benches::cpu_time::seconds_of_repeated;
use qera_benches::data::{Noise, stored_as};
use qera_benches::peak::Peak;
use qera_benches::samples::Samples;
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use qera_core::statistics::BlockShare;
use qera_daemon::cores::Cores;
use qera_daemon::kernels::{
    Host, Kernel, Numbers, Scratch, Stored, fold_products, products, trace_products,
};

const SIZES: [usize; 4] = [576, 1536, 2048, 4096];
const VECTORS: [usize; 3] = [16, 32, 48];
const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16];
const ROWS: usize = 2048;
/// Samples of a case.
const SAMPLES: usize = 5;
/// CPU seconds of a sample's kernel, at least, and of each of its peaks.
const KERNEL_SECONDS: f64 = 0.02;
const PEAK_SECONDS: f64 = 0.005;

/// What all cases need.
struct Bench {
    filter: Vec<String>,
    /// The fastest loop in f32, and that in bf16.
    peaks: [Option<Peak>; 2],
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part))
    }

    /// Measures and prints one case, if it is asked for.
    fn case(&self, name: &str, bf16: bool, flops: f64, mut work: impl FnMut()) {
        if !self.wants(name) {
            return;
        }
        let peak = self.peaks[usize::from(bf16)];
        work();
        let (mut rates, mut shares) = (Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            let before = peak.map(|peak| peak.measure(PEAK_SECONDS));
            let rate = flops / seconds_of_repeated(KERNEL_SECONDS, &mut work);
            let after = peak.map(|peak| peak.measure(PEAK_SECONDS));
            rates.push(rate * 1e-9);
            if let (Some(before), Some(after)) = (before, after) {
                shares.push(100.0 * rate / f64::midpoint(before, after));
            }
        }
        let shares = if shares.is_empty() {
            "-".into()
        } else {
            Samples::new(shares).text(0)
        };
        let rates = Samples::new(rates).text(1);
        println!("| {name:<36} | {rates:<22} | {shares:<14} |");
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

fn x_t_x(bench: &Bench, host: Host<'_>, m: usize, numbers: &[f32]) {
    let kernel = host.kernel;
    for dtype in DTYPES {
        let name = format!("{} x_t_x {} m={m}", kernel.name(), dtype.name());
        if !bench.wants(&name) {
            continue;
        }
        let bytes = stored_as(&numbers[..ROWS * m], dtype);
        let mut packed = vec![0.0; packed_len(m)];
        let mut scratch = Scratch::default();
        let bf16 = kernel.multiplies_bf16() && dtype == FloatDtype::Bf16;
        bench.case(&name, bf16, (m * m * ROWS) as f64, || {
            let rows = (Stored::Bytes(&bytes, dtype), m);
            let share = |count| BlockShare::new(ROWS as f64, count as f64);
            fold_products(host, rows, &mut packed, &mut scratch, share);
            black_box(&packed);
        });
    }
}

/// b vectors times an m x m matrix: what R times a block of a Krylov basis is, in the memory that a solve has it in.
fn skinny(bench: &Bench, host: Host<'_>, m: usize, numbers: &[f32]) {
    let mut columns = Numbers::zeroed(m * m);
    columns.copy_from_slice(&numbers[..m * m]);
    for b in VECTORS {
        let name = format!("{} products b={b} m={m}", host.kernel.name());
        let x = Mat::from_fn(b, m, |i, j| f64::from(numbers[j * b + i]));
        bench.case(&name, false, (2 * m * m * b) as f64, || {
            black_box(products(host, x.as_ref(), (&columns, m)));
        });
    }
}

fn trace(bench: &Bench, host: Host<'_>, m: usize, numbers: &[f32]) {
    let name = format!("{} trace_products m={m}", host.kernel.name());
    if !bench.wants(&name) {
        return;
    }
    let packed: Vec<f64> = numbers[..packed_len(m)]
        .iter()
        .map(|x| f64::from(*x))
        .collect();
    let mut scratch = Scratch::default();
    bench.case(&name, false, (m * m * ROWS) as f64, || {
        let columns = (&numbers[..ROWS * m], m);
        black_box(trace_products(host, columns, &packed, &mut scratch));
    });
}

fn main() {
    // cargo bench says --bench.
    let filter = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let bench = Bench {
        filter,
        peaks: peaks(),
    };
    println!(
        "\n| {:<36} | {:<22} | {:<14} |",
        "case", "GFLOP/s", "% of the peak"
    );
    println!("|---|---|---|");
    let cores = Cores::new(1);
    let _core = cores.take();
    for m in SIZES {
        let numbers = Noise::new(1).numbers(m * m.max(ROWS));
        for kernel in Kernel::available() {
            let host = Host {
                kernel,
                cores: &cores,
            };
            x_t_x(&bench, host, m, &numbers);
            skinny(&bench, host, m, &numbers);
            trace(&bench, host, m, &numbers);
        }
    }
}
