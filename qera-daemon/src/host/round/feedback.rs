//! Rounding with feedback (GPTQ, LDLQ): each input is rounded so as to make good the errors of
//! those rounded before it.
//!
//! With H = L L^T and u_jk = L_jk / L_kk the objective of a column is
//!
//!   e^T H e = sum_k L_kk^2 (e_k + sum_{j>k} e_j u_jk)^2,   e = w - q,
//!
//! so that, going from the last input to the first, t_k = w_k + sum_{j>k} e_j u_jk is what q_k has
//! to be near, and L_kk^2 (t_k - q_k)^2 what it costs. That is GPTQ's rounding (2210.17323; LDLQ in
//! 2307.13304, Theorem 6: the same for any order), from the factor of H itself: its usual form goes
//! from the first input to the last by a factor of the inverse, which loses digits in forming it.
//!
//! A block's levels are those of its grid's candidates whose feedback within the block costs least.
//! Cost: m^2 flops a column, and a few times the block's size an element.

use qera_core::quantize::{Candidates, Grid, Levels};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::Kernel;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::panel::{add_products, panel_lanes};
use crate::host::round::lanes::{LaneLevels, PanelTask, RoundedColumns, gather, panels, scatter};
use crate::host::round::metric::CholeskyFactor;
use crate::host::rounding::narrow;

/// Rounds a weight (m x n, by columns) on a grid under the metric whose factor is given.
pub(crate) fn feedback(
    compute: Compute<'_>,
    factor: &CholeskyFactor,
    weight: ColumnMajor<'_>,
    grid: Grid,
    rounded: RoundedColumns<'_>,
) {
    let tasks = panels(compute, weight, rounded, grid);
    compute.cores.spread(tasks, |task: PanelTask<'_>| {
        FeedbackPanel::new(compute.kernel, factor, grid, task).round();
    });
}

/// Output columns that are rounded side by side.
struct FeedbackPanel<'a> {
    kernel: Kernel,
    factor: &'a CholeskyFactor,
    grid: Grid,
    task: PanelTask<'a>,
    lanes: usize,
    /// e of every input, lane by lane; 0 where it is not rounded yet.
    errors: PageVec<f32>,
}

impl<'a> FeedbackPanel<'a> {
    fn new(kernel: Kernel, factor: &'a CholeskyFactor, grid: Grid, task: PanelTask<'a>) -> Self {
        let (m, lanes) = (task.weight.rows, panel_lanes(kernel));
        Self {
            kernel,
            factor,
            grid,
            task,
            lanes,
            errors: PageVec::zeroed(m * lanes),
        }
    }

    fn round(mut self) {
        let (m, size) = (self.task.weight.rows, self.grid.block_size());
        let mut block = RoundedBlock::new(size, self.lanes);
        for first in (0..m).step_by(size).rev() {
            self.round_block(first..(first + size).min(m), &mut block);
        }
    }

    fn round_block(&mut self, rows: core::ops::Range<usize>, block: &mut RoundedBlock) {
        let (m, lanes, factor) = (self.task.weight.rows, self.lanes, self.factor);
        let size = rows.len();
        block.begin(size * lanes);
        gather(self.task.weight, rows.clone(), lanes, &mut block.weight);
        let later = &self.errors[rows.end * lanes..];
        let column = |k: usize| &factor.column(rows.start + k)[rows.end..];
        add_products(self.kernel, later, column, &mut block.sums[..size * lanes]);
        let sums = block.weight.iter().zip(&block.sums);
        for (target, (weight, sum)) in block.targets.iter_mut().zip(sums) {
            *target = weight + narrow(*sum);
        }
        block.find_candidates(self.grid, size);
        for candidate in 0..block.candidate_count() {
            block.trial(candidate, factor, rows.clone());
            block.keep_better(candidate, size * lanes);
        }
        let blocks = m.div_ceil(self.grid.block_size());
        let number = rows.start / self.grid.block_size();
        for (lane, levels) in self.task.levels.chunks_exact_mut(blocks).enumerate() {
            levels[number] = block.chosen.get(lane);
        }
        let errors = &mut self.errors[rows.start * lanes..rows.end * lanes];
        errors.copy_from_slice(&block.best.errors[..size * lanes]);
        let values = &block.best.values[..size * lanes];
        scatter(values, lanes, rows, self.task.rounded, m);
    }
}

/// The result of rounding a block with some levels.
struct Trial {
    values: Vec<f32>,
    errors: Vec<f32>,
    /// The loss of each lane.
    losses: Vec<f32>,
}

impl Trial {
    fn new(numbers: usize, lanes: usize) -> Self {
        Self {
            values: vec![0.0; numbers],
            errors: vec![0.0; numbers],
            losses: vec![0.0; lanes],
        }
    }
}

/// Memory for one block of every lane, `size` x `lanes` each.
struct RoundedBlock {
    lanes: usize,
    weight: Vec<f32>,
    sums: Vec<f64>,
    targets: Vec<f32>,
    /// Targets with the feedback of this block's own inputs.
    moved: Vec<f32>,
    /// Levels of each candidate.
    candidates: Vec<LaneLevels>,
    chosen: LaneLevels,
    trial: Trial,
    best: Trial,
    /// The targets of one lane.
    lane: Vec<f32>,
    count: usize,
}

impl RoundedBlock {
    fn new(size: usize, lanes: usize) -> Self {
        let numbers = size * lanes;
        Self {
            lanes,
            weight: vec![0.0; numbers],
            sums: vec![0.0; numbers],
            targets: vec![0.0; numbers],
            moved: vec![0.0; numbers],
            candidates: vec![LaneLevels::new(lanes); Candidates::MOST],
            chosen: LaneLevels::new(lanes),
            trial: Trial::new(numbers, lanes),
            best: Trial::new(numbers, lanes),
            lane: vec![0.0; size],
            count: 0,
        }
    }

    /// Forgets the block before; this block has `numbers` numbers.
    fn begin(&mut self, numbers: usize) {
        self.sums[..numbers].fill(0.0);
        self.best.losses.fill(f32::INFINITY);
    }

    const fn candidate_count(&self) -> usize {
        self.count
    }

    /// The candidates of each lane, by its targets.
    fn find_candidates(&mut self, grid: Grid, size: usize) {
        for lane in 0..self.lanes {
            let targets = self.targets.chunks_exact(self.lanes);
            for (to, row) in self.lane[..size].iter_mut().zip(targets) {
                *to = row[lane];
            }
            let found = grid.candidates(&self.lane[..size]);
            self.count = found.as_slice().len();
            let candidates = self.candidates.iter_mut().zip(found.as_slice());
            candidates.for_each(|(to, levels): (&mut LaneLevels, &Levels)| to.set(lane, *levels));
        }
    }

    /// Rounds the block with a candidate, from its last input to its first.
    fn trial(&mut self, candidate: usize, factor: &CholeskyFactor, rows: core::ops::Range<usize>) {
        let (lanes, size) = (self.lanes, rows.len());
        let levels = &self.candidates[candidate];
        let Trial {
            values,
            errors,
            losses,
        } = &mut self.trial;
        losses.fill(0.0);
        self.moved[..size * lanes].copy_from_slice(&self.targets[..size * lanes]);
        for k in (0..size).rev() {
            let own = k * lanes..(k + 1) * lanes;
            let (before, target) = self.moved.split_at_mut(own.start);
            let target = &target[..lanes];
            let (value, error) = (&mut values[own.clone()], &mut errors[own.clone()]);
            levels.nearest(target, value);
            let weight = &self.weight[own];
            let pivot = factor.pivots[rows.start + k];
            for lane in 0..lanes {
                let missed = target[lane] - value[lane];
                losses[lane] += pivot * missed * missed;
                error[lane] = weight[lane] - value[lane];
            }
            for (j, target) in before.chunks_exact_mut(lanes).enumerate() {
                let u = factor.column(rows.start + j)[rows.start + k];
                target
                    .iter_mut()
                    .zip(&*error)
                    .for_each(|(t, e)| *t += u * e);
            }
        }
    }

    /// Takes over the lanes in which the trial cost less; the first of equals stays.
    fn keep_better(&mut self, candidate: usize, numbers: usize) {
        let lanes = self.lanes;
        for lane in 0..lanes {
            if self.trial.losses[lane] < self.best.losses[lane] || candidate == 0 {
                self.best.losses[lane] = self.trial.losses[lane];
                self.chosen.set(lane, self.candidates[candidate].get(lane));
                for at in (lane..numbers).step_by(lanes) {
                    self.best.values[at] = self.trial.values[at];
                    self.best.errors[at] = self.trial.errors[at];
                }
            }
        }
    }
}
