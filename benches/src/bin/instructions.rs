//! One case in one process, for callgrind to count: `instructions CASE`, or `--list`.
//! instructions/run.sh runs them all.
//!
//! A case names the form of the kernels, so that its count does not depend on the CPU: callgrind
//! runs code for AVX2, not for AVX-512. Only what [`counted`] calls is counted.
#![expect(clippy::print_stdout, reason = "--list")]

use core::hint::black_box;

use faer::Mat;
use qera_benches::data::{Noise, stored_as};
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use qera_core::statistics::BlockShare;
use qera_daemon::{
    ColumnMajor, Compute, Cores, Kernel, LayerProblem, Scratch, StoredRows, fold_products,
};

const FORMS: [&str; 2] = ["portable", "avx2"];

/// A name, and what it runs.
type Case = (&'static str, fn(Compute<'_>) -> Result<(), String>);

const CASES: [Case; 4] = [
    ("rank-update-f32", |compute| {
        rank_update(compute, FloatDtype::F32)
    }),
    ("rank-update-bf16", |compute| {
        rank_update(compute, FloatDtype::Bf16)
    }),
    ("products-b32", skinny),
    ("cold-solve", cold_solve),
];

/// Calls `work`: callgrind counts from here until it returns.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// 256 rows, 192 channels.
fn rank_update(compute: Compute<'_>, dtype: FloatDtype) -> Result<(), String> {
    let (m, rows) = (192, 256);
    let bytes = stored_as(&Noise::new(1).numbers(rows * m), dtype);
    let mut packed = vec![0.0; packed_len(m)];
    let mut scratch = Scratch::default();
    counted(&mut || {
        let rows = StoredRows::bytes(&bytes, dtype, m);
        fold_products(compute, rows, &mut packed, &mut scratch, |count| {
            BlockShare::new(0.0, count as f64)
        });
    });
    black_box(packed);
    Ok(())
}

/// 32 vectors times a matrix of 640 x 640.
fn skinny(compute: Compute<'_>) -> Result<(), String> {
    let (b, m) = (32, 640);
    let mut noise = Noise::new(2);
    let columns = noise.numbers(m * m);
    let x = Mat::from_fn(b, m, |_, _| f64::from(noise.number()));
    let mut result = None;
    let matrix = compute.operand(ColumnMajor::new(&columns, m));
    counted(&mut || result = Some(matrix.times(x.as_ref())));
    black_box(result);
    Ok(())
}

/// 640 x 640, rank 8: neighbours correlate, and later channels have less power.
fn cold_solve(compute: Compute<'_>) -> Result<(), String> {
    let m = 640;
    let scales: Vec<f64> = (0..m).map(|i| (f64::from(i) + 1.0).powf(-0.4)).collect();
    let mut autocorrelation = Vec::new();
    for (i, scale) in scales.iter().enumerate() {
        let mut correlation = *scale;
        for other in &scales[i..] {
            autocorrelation.push(correlation * other);
            correlation *= 0.9;
        }
    }
    let error = Noise::new(3).numbers(scales.len() * scales.len());
    let problem = LayerProblem {
        autocorrelation: &autocorrelation,
        error: &error,
        in_features: scales.len(),
        rank: 8,
    };
    let mut result = None;
    counted(&mut || result = Some(problem.solve(compute, None)));
    match black_box(result) {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("nothing was solved".into()),
    }
}

fn run(name: &str) -> Result<(), String> {
    let parts = FORMS
        .iter()
        .find_map(|form| Some((*form, name.strip_prefix(form)?.strip_prefix('-')?)));
    let found = parts.and_then(|(form, case)| {
        let case = CASES.iter().find(|(known, _)| *known == case)?;
        Some((form, case.1))
    });
    let (form, case) = found.ok_or_else(|| format!("no case '{name}': see --list"))?;
    let kernel = Kernel::named(form).map_err(|e| e.to_string())?;
    let cores = Cores::new(1);
    let _core = cores.take();
    case(Compute::new(kernel, &cores))
}

fn main() -> Result<(), String> {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name != "--list" {
        return run(&name);
    }
    for form in FORMS {
        for (case, _) in CASES {
            println!("{form}-{case}");
        }
    }
    Ok(())
}
