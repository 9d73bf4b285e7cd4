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
//! Cost: m^2 flops a column, and a few times the block's size an element. Where a device is lent,
//! it takes the sums over j for some hundred inputs k at once and all columns, in f32; what these
//! inputs leave to each other, and the rounding itself, stays here.

use core::ops::Range;

use qera_core::quantize::{Candidates, Grid, Levels};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::Kernel;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::panel::{add_products, panel_lanes};
use crate::host::offload::fed_back::FedBack;
use crate::host::offload::lent::LentDevice;
use crate::host::round::lanes::{LaneLevels, PanelTask, RoundedColumns, gather, panels, scatter};
use crate::host::round::metric::CholeskyFactor;
use crate::host::rounding::narrow;

/// Inputs between which errors are fed back here while a device has what all later ones leave to
/// them: enough that products there are large, few beside a layer's thousands.
const INPUTS_AT_ONCE: usize = 128;
/// Inputs whose errors one piece of work lays out for the device.
const LAID_OUT: usize = 32;

/// What is rounded, and how.
#[derive(Clone, Copy)]
struct FeedbackTask<'a> {
    compute: Compute<'a>,
    factor: &'a CholeskyFactor,
    weight: ColumnMajor<'a>,
    grid: Grid,
}

/// Rounds a weight (m x n, by columns) on a grid under the metric whose factor is given.
pub(crate) fn feedback(
    compute: Compute<'_>,
    factor: &CholeskyFactor,
    weight: ColumnMajor<'_>,
    grid: Grid,
    mut rounded: RoundedColumns<'_>,
) {
    let task = FeedbackTask {
        compute,
        factor,
        weight,
        grid,
    };
    let left = compute.device.map_or(weight.rows, |device| {
        task.round_beside(device, &mut rounded)
    });
    task.round(0..left, None, &mut rounded);
}

impl FeedbackTask<'_> {
    /// Rounds some inputs at a time, with what the later ones leave to them from a device; as many
    /// inputs, from the last one on, as it answers for. Returns how many are left.
    fn round_beside(&self, device: &LentDevice<'_>, rounded: &mut RoundedColumns<'_>) -> usize {
        let (m, n) = (self.weight.rows, self.weight.columns());
        let size = self.grid.block_size();
        let at_once = size * (INPUTS_AT_ONCE / size).max(1);
        if m <= at_once {
            return m;
        }
        let Some(mut there) = FedBack::new(device, self.factor.values(), m, n) else {
            return m;
        };
        let mut errors = vec![0.0; at_once * n];
        for first in (0..m).step_by(at_once).rev() {
            let inputs = first..(first + at_once).min(m);
            if inputs.end == m {
                self.round(inputs.clone(), None, rounded);
            } else {
                let Some(due) = there.due(inputs.clone()) else {
                    return inputs.end;
                };
                self.round(inputs.clone(), Some(&due), rounded);
            }
            let errors = &mut errors[..inputs.len() * n];
            self.lay_out(first, rounded.values, errors);
            if first > 0 && there.take(inputs, errors).is_none() {
                return first;
            }
        }
        0
    }

    /// Rounds some inputs, all later ones being rounded. What these leave is `due`, or is summed
    /// here.
    fn round(&self, inputs: Range<usize>, due: Option<&[f32]>, rounded: &mut RoundedColumns<'_>) {
        if inputs.is_empty() {
            return;
        }
        let (n, lanes) = (self.weight.columns(), panel_lanes(self.compute.kernel));
        let lent = RoundedColumns {
            values: &mut *rounded.values,
            levels: &mut *rounded.levels,
        };
        let tasks = panels(self.compute, self.weight, lent, self.grid);
        let tasks = tasks.into_iter().enumerate().collect();
        let one = |(panel, task): (usize, PanelTask<'_>)| {
            let due = due.map(|sums| DueSums {
                sums: &sums[panel * lanes..],
                stride: n,
            });
            FeedbackPanel::new(self, inputs.clone(), due, task).round();
        };
        self.compute.cores.spread(tasks, one);
    }

    /// The errors of inputs from `first` on, for each a number for every column.
    fn lay_out(&self, first: usize, rounded: &[f32], errors: &mut [f32]) {
        let (m, n) = (self.weight.rows, self.weight.columns());
        let pieces = errors.chunks_mut(LAID_OUT * n).enumerate().collect();
        let one = |(piece, errors): (usize, &mut [f32])| {
            let first = first + piece * LAID_OUT;
            let last = first + errors.len() / n;
            let columns = self.weight.values.chunks_exact(m);
            for (j, (w, q)) in columns.zip(rounded.chunks_exact(m)).enumerate() {
                let pairs = w[first..last].iter().zip(&q[first..last]);
                for (to, (w, q)) in errors[j..].iter_mut().step_by(n).zip(pairs) {
                    *to = w - q;
                }
            }
        };
        self.compute.cores.spread(pieces, one);
    }
}

/// What later inputs leave to the inputs of a panel, from its first column on; `stride` numbers an
/// input.
#[derive(Clone, Copy)]
struct DueSums<'a> {
    sums: &'a [f32],
    stride: usize,
}

/// Output columns that are rounded side by side.
struct FeedbackPanel<'a> {
    kernel: Kernel,
    factor: &'a CholeskyFactor,
    grid: Grid,
    task: PanelTask<'a>,
    lanes: usize,
    /// The inputs that are rounded.
    inputs: Range<usize>,
    /// What the inputs behind the last of `errors` leave.
    due: Option<DueSums<'a>>,
    /// e of every input from the first of `inputs` on, lane by lane; 0 where it is not rounded yet.
    errors: PageVec<f32>,
}

impl<'a> FeedbackPanel<'a> {
    fn new(
        of: &FeedbackTask<'a>,
        inputs: Range<usize>,
        due: Option<DueSums<'a>>,
        task: PanelTask<'a>,
    ) -> Self {
        let (m, lanes) = (task.weight.rows, panel_lanes(of.compute.kernel));
        let end = if due.is_some() { inputs.end } else { m };
        let mut errors = PageVec::zeroed((end - inputs.start) * lanes);
        let columns = task.weight.values.chunks_exact(m);
        for (lane, (w, q)) in columns.zip(task.rounded.chunks_exact(m)).enumerate() {
            let later = w[inputs.end..end].iter().zip(&q[inputs.end..end]);
            let rows = errors.chunks_exact_mut(lanes).skip(inputs.len());
            rows.zip(later).for_each(|(row, (w, q))| row[lane] = w - q);
        }
        Self {
            kernel: of.compute.kernel,
            factor: of.factor,
            grid: of.grid,
            task,
            lanes,
            inputs,
            due,
            errors,
        }
    }

    fn round(mut self) {
        let size = self.grid.block_size();
        let mut block = RoundedBlock::new(size, self.lanes);
        let Range { start, end } = self.inputs;
        for first in (start..end).step_by(size).rev() {
            self.round_block(first..(first + size).min(end), &mut block);
        }
    }

    fn round_block(&mut self, rows: Range<usize>, block: &mut RoundedBlock) {
        let (m, lanes, factor) = (self.task.weight.rows, self.lanes, self.factor);
        let size = rows.len();
        block.begin(size * lanes);
        gather(self.task.weight, rows.clone(), lanes, &mut block.weight);
        let start = self.inputs.start;
        if let Some(DueSums { sums, stride }) = self.due {
            let due = sums[(rows.start - start) * stride..].chunks(stride);
            let columns = self.task.weight.columns();
            for (to, due) in block.sums.chunks_exact_mut(lanes).zip(due).take(size) {
                let due = &due[..columns];
                to.iter_mut()
                    .zip(due)
                    .for_each(|(to, due)| *to = f64::from(*due));
            }
        }
        let later = &self.errors[(rows.end - start) * lanes..];
        let end = start + self.errors.len() / lanes;
        let column = |k: usize| &factor.column(rows.start + k)[rows.end..end];
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
        let errors = &mut self.errors[(rows.start - start) * lanes..][..size * lanes];
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
    fn trial(&mut self, candidate: usize, factor: &CholeskyFactor, rows: Range<usize>) {
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
