//! What the output-error sketch of qera-core leaves above the smallest error, and what it takes,
//! beside R and its diagonal: the table of docs/sketch.md. `sketch FOLDER`, the folder being that
//! of the reference data with the two layers (CONTRIBUTING.md).
#![expect(clippy::print_stdout, reason = "a table")]

use core::error::Error;
use std::path::Path;

use cpu_time::ProcessTime;
use half::bf16;
use nalgebra::{DMatrixView, DMatrixViewMut};
use qera_core::packed::packed_len;
use qera_core::quantize::Mxint;
use qera_core::reconstruct::{
    Method, Problem, Statistic, output_error, output_error_workspace_len, reconstruct,
    reconstruct_sketched, reconstruct_workspace_len,
};
use qera_core::rows::Rows;
use qera_core::statistics::{Autocorrelation, ErrorSketch, SketchRoom, error_sketch_workspace_len};
use safetensors::SafeTensors;

const RANK: usize = 32;
const LENGTHS: [usize; 4] = [32, 64, 128, 256];

/// A layer: rows, E, and R of the rows.
struct Layer {
    m: usize,
    n: usize,
    rows: Vec<f32>,
    error: Vec<f32>,
    packed: Vec<f64>,
}

/// What a correction leaves, and what its statistic took.
struct Worth {
    f: f64,
    seconds: f64,
}

impl Layer {
    fn load(path: &Path) -> Result<Self, Box<dyn Error>> {
        let bytes = std::fs::read(path)?;
        let file = SafeTensors::deserialize(&bytes)?;
        let numbers = |name| -> Result<Vec<f32>, Box<dyn Error>> {
            let bytes = file.tensor(name)?.data().chunks_exact(2);
            Ok(bytes
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect())
        };
        let &[n, m] = file.tensor("weight")?.shape() else {
            return Err("the weight is no matrix".into());
        };
        let (weight, rows) = (numbers("weight")?, numbers("x")?);
        let mut error = vec![0.0; weight.len()];
        Mxint::new(3, 32)?.quantize_dequantize(&weight, m, &mut error)?;
        for (error, weight) in error.iter_mut().zip(&weight) {
            *error = weight - *error;
        }
        Ok(Self {
            m,
            n,
            rows,
            error,
            packed: vec![0.0; packed_len(m)],
        })
    }

    /// Gathers R; returns the seconds.
    fn gather(&mut self) -> Result<f64, Box<dyn Error>> {
        let begun = ProcessTime::now();
        let mut state = Autocorrelation::new(&mut self.packed, self.m)?;
        for block in self.rows.chunks(256 * self.m) {
            state.update(&Rows::new(block, self.m)?)?;
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    fn by(&self, method: Method) -> Result<f64, Box<dyn Error>> {
        let (mut a, mut b) = (vec![0.0; self.m * RANK], vec![0.0; RANK * self.n]);
        let mut workspace = vec![0.0; reconstruct_workspace_len(self.m, self.n, RANK)];
        let error: Vec<f64> = self.error.iter().map(|e| f64::from(*e)).collect();
        let report = reconstruct(
            method,
            &self.problem(&error)?,
            DMatrixViewMut::from_slice(&mut a, self.m, RANK),
            DMatrixViewMut::from_slice(&mut b, RANK, self.n),
            &mut [],
            &mut workspace,
        )?;
        Ok(report.error_with)
    }

    fn problem<'a>(&'a self, error: &'a [f64]) -> Result<Problem<'a>, Box<dyn Error>> {
        let error = DMatrixView::from_slice(error, self.m, self.n);
        let statistic = Statistic::Autocorrelation(&self.packed);
        Ok(Problem::new(error, statistic, RANK)?)
    }

    /// By sketches of so many equal parts of the rows, merged.
    fn sketched(&self, l: usize, parts: usize) -> Result<Worth, Box<dyn Error>> {
        let (m, n, begun) = (self.m, self.n, ProcessTime::now());
        let mut columns_of = |first: usize, columns: &mut [f32]| {
            columns.copy_from_slice(&self.error[first * m..][..columns.len()]);
        };
        let mut states = vec![vec![0.0; (l - 1) * n]; parts];
        let (mut errors, mut columns) = (vec![0.0; l * n], vec![0.0; m]);
        let mut workspace = vec![0.0; error_sketch_workspace_len(l - 1, l)];
        let mut whole: Option<ErrorSketch<'_>> = None;
        let each = self.rows.len() / parts;
        for (state, rows) in states.iter_mut().zip(self.rows.chunks_exact(each)) {
            let mut sketch = ErrorSketch::new(state, n)?;
            let mut room = SketchRoom {
                errors: &mut errors,
                columns: &mut columns,
                workspace: &mut workspace,
            };
            sketch.update(&Rows::new(rows, m)?, &mut columns_of, &mut room)?;
            match &mut whole {
                None => whole = Some(sketch),
                Some(whole) => whole.merge(&sketch, &mut workspace)?,
            }
        }
        let sketch = whole.ok_or("no part")?;
        let (mut a, mut b) = (vec![0.0; m * RANK], vec![0.0; RANK * n]);
        reconstruct_sketched(
            &sketch,
            &mut columns_of,
            &mut columns,
            DMatrixViewMut::from_slice(&mut a, m, RANK),
            DMatrixViewMut::from_slice(&mut b, RANK, n),
        )?;
        let seconds = begun.elapsed().as_secs_f64();
        let error: Vec<f64> = self.error.iter().map(|e| f64::from(*e)).collect();
        let (a, b) = (
            DMatrixView::from_slice(&a, m, RANK),
            DMatrixView::from_slice(&b, RANK, n),
        );
        let mut workspace = vec![0.0; output_error_workspace_len(m)];
        let f = output_error(&self.problem(&error)?, a, b, &mut workspace)?;
        Ok(Worth { f, seconds })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("sketch FOLDER")?;
    println!(
        "| layer | statistic | KiB | above the smallest error | in two merged halves | CPU s |"
    );
    println!("|---|---|---|---|---|---|");
    for name in ["q_proj_l0", "gate_proj_l15"] {
        let mut layer = Layer::load(&Path::new(&folder).join(format!("{name}.safetensors")))?;
        let seconds = layer.gather()?;
        let (best, approx) = (layer.by(Method::Exact)?, layer.by(Method::Approx)?);
        let above = |f: f64| format!("{:.2} %", 100.0 * (f / best - 1.0));
        let name = format!("{name}, {} x {}", layer.m, layer.n);
        let packed = 8 * packed_len(layer.m) / 1024;
        println!(
            "| {name} | R | {packed} | {} | | {seconds:.1} |",
            above(best)
        );
        for l in LENGTHS {
            let [whole, halves] = [layer.sketched(l, 1)?, layer.sketched(l, 2)?];
            let kib = 4 * (l - 1) * layer.n / 1024;
            println!(
                "| {name} | sketch, l = {l} | {kib} | {} | {} | {:.1} |",
                above(whole.f),
                above(halves.f),
                whole.seconds
            );
        }
        let kib = 8 * layer.m / 1024;
        println!("| {name} | diagonal | {kib} | {} | | |", above(approx));
    }
    Ok(())
}
