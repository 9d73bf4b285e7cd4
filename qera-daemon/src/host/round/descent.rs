//! Coordinate descent on the codes: each goes to the level that is best given all others.
//!
//! With g = H e, e = w - q, moving q_i by d changes e^T H e by H_ii d^2 - 2 g_i d. So the best
//! level is the one nearest to q_i + g_i / H_ii, and no move makes the objective larger. Inputs are
//! taken from the first to the last. g of a block is formed when its turn comes, from all moves so
//! far, and within the block it follows each move. Cost: 2 m^2 flops a column.

use core::sync::atomic::{AtomicU64, Ordering};

use qera_core::quantize::Grid;

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::Kernel;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::panel::{add_products, panel_lanes};
use crate::host::round::lanes::{LaneLevels, PanelTask, RoundedColumns, gather, panels, scatter};
use crate::host::round::metric::FullMetric;
use crate::host::rounding::narrow;

/// Improves W~ by one round under a metric; returns how many codes moved.
pub(crate) fn descend(
    compute: Compute<'_>,
    metric: &FullMetric,
    weight: ColumnMajor<'_>,
    grid: Grid,
    rounded: RoundedColumns<'_>,
) -> u64 {
    let moved = AtomicU64::new(0);
    let tasks = panels(compute, weight, rounded, grid);
    compute.cores.spread(tasks, |task: PanelTask<'_>| {
        let of_panel = DescentPanel::new(compute.kernel, metric, grid, task).descend();
        moved.fetch_add(of_panel, Ordering::Relaxed);
    });
    moved.into_inner()
}

/// Output columns that are improved side by side.
struct DescentPanel<'a> {
    kernel: Kernel,
    metric: &'a FullMetric,
    grid: Grid,
    task: PanelTask<'a>,
    lanes: usize,
    /// e of every input, lane by lane.
    errors: PageVec<f32>,
}

/// Memory for one block of every lane.
struct DescentBlock {
    sums: Vec<f64>,
    gradient: Vec<f32>,
    values: Vec<f32>,
    levels: LaneLevels,
    /// g_i / H_ii, the move that would be best if there were no levels; then the move.
    wanted: Vec<f32>,
    target: Vec<f32>,
    nearest: Vec<f32>,
}

impl<'a> DescentPanel<'a> {
    fn new(kernel: Kernel, metric: &'a FullMetric, grid: Grid, task: PanelTask<'a>) -> Self {
        let (m, lanes) = (task.weight.rows, panel_lanes(kernel));
        let mut errors = PageVec::zeroed(m * lanes);
        let columns = task.weight.values.chunks_exact(m);
        for (lane, (w, q)) in columns.zip(task.rounded.chunks_exact(m)).enumerate() {
            let rows = errors.chunks_exact_mut(lanes).zip(w.iter().zip(q));
            rows.for_each(|(row, (w, q))| row[lane] = w - q);
        }
        Self {
            kernel,
            metric,
            grid,
            task,
            lanes,
            errors,
        }
    }

    fn descend(mut self) -> u64 {
        let (m, size, lanes) = (self.task.weight.rows, self.grid.block_size(), self.lanes);
        let mut block = DescentBlock {
            sums: vec![0.0; size * lanes],
            gradient: vec![0.0; size * lanes],
            values: vec![0.0; size * lanes],
            levels: LaneLevels::new(lanes),
            wanted: vec![0.0; lanes],
            target: vec![0.0; lanes],
            nearest: vec![0.0; lanes],
        };
        let blocks = (0..m).step_by(size);
        blocks
            .map(|first| self.descend_block(first..(first + size).min(m), &mut block))
            .sum()
    }

    fn descend_block(&mut self, rows: core::ops::Range<usize>, block: &mut DescentBlock) -> u64 {
        let (m, lanes, metric) = (self.task.weight.rows, self.lanes, self.metric);
        let numbers = rows.len() * lanes;
        let sums = &mut block.sums[..numbers];
        sums.fill(0.0);
        let column = |k: usize| metric.column(rows.start + k);
        add_products(self.kernel, &self.errors, column, sums);
        let gradient = block.gradient.iter_mut().zip(&*sums);
        gradient.for_each(|(to, sum)| *to = narrow(*sum));
        let present = ColumnMajor::new(self.task.rounded, m);
        gather(present, rows.clone(), lanes, &mut block.values);
        let (count, number) = (
            m.div_ceil(self.grid.block_size()),
            rows.start / self.grid.block_size(),
        );
        for (lane, levels) in self.task.levels.chunks_exact(count).enumerate() {
            block.levels.set(lane, levels[number]);
        }
        let errors = &mut self.errors[rows.start * lanes..rows.end * lanes];
        let moved = block.descend(metric, rows.clone(), errors);
        if moved > 0 {
            scatter(&block.values, lanes, rows, self.task.rounded, m);
        }
        moved
    }
}

impl DescentBlock {
    /// Moves the codes of a block, whose errors follow.
    fn descend(
        &mut self,
        metric: &FullMetric,
        rows: core::ops::Range<usize>,
        errors: &mut [f32],
    ) -> u64 {
        let lanes = self.target.len();
        let mut moved = 0;
        for k in 0..rows.len() {
            let own = k * lanes..(k + 1) * lanes;
            let column = &metric.column(rows.start + k)[rows.clone()];
            let pivot = column[k];
            let values = &mut self.values[own.clone()];
            let gradient = &self.gradient[own.clone()];
            for (wanted, g) in self.wanted.iter_mut().zip(gradient) {
                *wanted = g / pivot;
            }
            let of = values.iter().zip(&self.wanted);
            for (target, (value, wanted)) in self.target.iter_mut().zip(of) {
                *target = value + wanted;
            }
            self.levels.nearest(&self.target, &mut self.nearest);
            let mut any = 0;
            let both = values.iter_mut().zip(&self.nearest);
            for (wanted, (value, nearest)) in self.wanted.iter_mut().zip(both) {
                let step = nearest - *value;
                // Rounding errors may make one of two equally good levels look better.
                let falls = step * (step - 2.0 * *wanted) < 0.0;
                *wanted = if falls { step } else { 0.0 };
                *value = if falls { *nearest } else { *value };
                any += u64::from(falls);
            }
            if any == 0 {
                continue;
            }
            moved += any;
            let error = errors[own].iter_mut().zip(&self.wanted);
            error.for_each(|(e, step)| *e -= step);
            let later = self.gradient[(k + 1) * lanes..rows.len() * lanes].chunks_exact_mut(lanes);
            for (gradient, h) in later.zip(&column[k + 1..]) {
                let steps = gradient.iter_mut().zip(&self.wanted);
                steps.for_each(|(g, step)| *g -= h * step);
            }
        }
        moved
    }
}
