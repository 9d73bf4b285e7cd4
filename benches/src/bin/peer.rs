//! Our side of `benches/peers`: one piece of work in a process of its own, timed without reading
//! its input.
//!
//! `peer accumulate --rows FILE --threads N` folds the rows of a shard into R, as the official hook
//! does; `peer solve --problem FILE --rank K --threads N --out FILE [--warm-from FILE]` takes R and
//! E to A and B. One JSON line on standard output: CPU seconds of the process, elapsed seconds, and
//! the kernel that ran.
#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use cpu_time::ProcessTime;
use faer::Mat;
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use qera_core::statistics::BlockShare;
use qera_daemon::{
    Compute, Cores, Kernel, LayerProblem, PageVec, Scratch, StoredRows, fold_products,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

type Failure = Box<dyn core::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the only message")]
            {
                eprintln!("peer: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<serde_json::Value, Failure> {
    let Some((command, options)) = arguments.split_first() else {
        return Err("peer accumulate|solve --option value ...".into());
    };
    let options: BTreeMap<&str, &str> = options
        .chunks_exact(2)
        .map(|pair| (pair[0].trim_start_matches('-'), pair[1].as_str()))
        .collect();
    let option = |name: &str| {
        let found = options.get(name).copied();
        found.ok_or_else(|| format!("--{name} is missing"))
    };
    let cores = Cores::new(option("threads")?.parse()?);
    let _core = cores.take();
    let compute = Compute::new(
        Kernel::named(options.get("kernel").copied().unwrap_or("auto"))?,
        &cores,
    );
    match command.as_str() {
        "accumulate" => accumulate(compute, Path::new(option("rows")?)),
        "solve" => {
            let problem = Problem::read(Path::new(option("problem")?))?;
            let warm = options.get("warm-from").copied().map(Path::new);
            let rank = option("rank")?.parse()?;
            solve(compute, &problem, (rank, warm), Path::new(option("out")?))
        }
        other => Err(format!("'{other}' is neither accumulate nor solve").into()),
    }
}

/// CPU and elapsed seconds of `work`.
fn timed<T>(compute: Compute<'_>, work: impl FnOnce() -> T) -> (T, serde_json::Value) {
    let (cpu, elapsed) = (ProcessTime::now(), Instant::now());
    let done = work();
    let figures = serde_json::json!({
        "cpu_s": cpu.elapsed().as_secs_f64(),
        "elapsed_s": elapsed.elapsed().as_secs_f64(),
        "kernel": compute.kernel.name(),
    });
    (done, figures)
}

fn accumulate(compute: Compute<'_>, path: &Path) -> Result<serde_json::Value, Failure> {
    let file = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&file)?;
    let rows = tensors.tensor("rows")?;
    let &[count, in_features] = rows.shape() else {
        return Err("'rows' is not [rows, in_features]".into());
    };
    let dtype = match rows.dtype() {
        Dtype::BF16 => FloatDtype::Bf16,
        Dtype::F16 => FloatDtype::F16,
        Dtype::F32 => FloatDtype::F32,
        other => return Err(format!("rows of {other:?}").into()),
    };
    let stored = StoredRows::bytes(rows.data(), dtype, in_features);
    // R lies as it does in the daemon.
    let mut autocorrelation = PageVec::zeroed(packed_len(in_features));
    let mut scratch = Scratch::default();
    let mut seen = 0.0;
    let mut fold = || {
        fold_products(
            compute,
            stored,
            &mut autocorrelation,
            &mut scratch,
            |count| {
                let share = BlockShare::new(seen, count as f64);
                seen += count as f64;
                share
            },
        );
    };
    // The first fold touches the memory of R for the first time, as the official code's first batch
    // does.
    fold();
    let ((), figures) = timed(compute, fold);
    if seen.to_bits() != (2.0 * count as f64).to_bits() {
        return Err("not every row was folded".into());
    }
    Ok(figures)
}

/// R and E of one layer; R lies as it does in the daemon.
struct Problem {
    autocorrelation: PageVec<f64>,
    error: Vec<f32>,
    in_features: usize,
}

impl Problem {
    fn read(path: &Path) -> Result<Self, Failure> {
        let file = std::fs::read(path)?;
        let tensors = SafeTensors::deserialize(&file)?;
        let (r, error) = (tensors.tensor("r")?, tensors.tensor("error_t")?);
        let in_features = *error.shape().last().ok_or("'error_t' has no shape")?;
        if r.dtype() != Dtype::F64 || r.shape() != [in_features; 2] {
            return Err("'r' is not F64 [in_features, in_features]".into());
        }
        if error.dtype() != Dtype::F32 {
            return Err("'error_t' is not F32".into());
        }
        let row_bytes = 8 * in_features;
        let from_diagonal = |(i, row): (usize, &[u8])| -> Vec<f64> {
            let (numbers, _) = row[8 * i..].as_chunks::<8>();
            numbers.iter().map(|le| f64::from_le_bytes(*le)).collect()
        };
        let mut autocorrelation = PageVec::zeroed(packed_len(in_features));
        let rows = r.data().chunks_exact(row_bytes).enumerate();
        let packed = autocorrelation.iter_mut().zip(rows.flat_map(from_diagonal));
        packed.for_each(|(to, from)| *to = from);
        let (numbers, _) = error.data().as_chunks::<4>();
        Ok(Self {
            autocorrelation,
            error: numbers.iter().map(|le| f32::from_le_bytes(*le)).collect(),
            in_features,
        })
    }

    /// R = diag(1, 2, ...), E of 64 x 640 without structure.
    fn small() -> Self {
        let (m, n) = (64, 640);
        let row = |i: usize| (i..m).map(move |j| if i == j { 1.0 + i as f64 } else { 0.0 });
        Self {
            autocorrelation: (0..m).flat_map(row).collect::<Vec<f64>>().into(),
            error: (0..m * n).map(|i| (i as f32 * 0.37).sin()).collect(),
            in_features: m,
        }
    }

    fn of(&self, rank: usize) -> LayerProblem<'_> {
        LayerProblem {
            autocorrelation: &self.autocorrelation,
            error: &self.error,
            in_features: self.in_features,
            rank,
        }
    }
}

fn solve(
    compute: Compute<'_>,
    problem: &Problem,
    (rank, warm_from): (usize, Option<&Path>),
    out: &Path,
) -> Result<serde_json::Value, Failure> {
    // A first small call, as the official side has one: code and allocator are there when the clock
    // starts.
    Problem::small().of(8).solve(compute, None)?;
    let earlier = match warm_from {
        Some(path) => Some(Problem::read(path)?.of(rank).solve(compute, None)?.vectors),
        None => None,
    };
    let warm = earlier.as_ref().map(Mat::as_ref);
    let (term, figures) = timed(compute, || problem.of(rank).solve(compute, warm));
    let term = term?;
    let a = by_rows(&term.a);
    let b = by_rows(&term.b_transposed.transpose().to_owned());
    let vectors = by_rows(&term.vectors);
    let view = |matrix: &Mat<f64>, bytes| {
        TensorView::new(Dtype::F64, vec![matrix.nrows(), matrix.ncols()], bytes)
    };
    let k_by_n = TensorView::new(
        Dtype::F64,
        vec![term.b_transposed.ncols(), term.b_transposed.nrows()],
        &b,
    )?;
    let tensors = [
        ("a", view(&term.a, &a)?),
        ("b", k_by_n),
        ("vectors", view(&term.vectors, &vectors)?),
    ];
    safetensors::serialize_to_file(tensors, None, out)?;
    Ok(figures)
}

fn by_rows(matrix: &Mat<f64>) -> Vec<u8> {
    let row = |i| (0..matrix.ncols()).flat_map(move |j| matrix[(i, j)].to_le_bytes());
    (0..matrix.nrows()).flat_map(row).collect()
}
