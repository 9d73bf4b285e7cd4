//! A panel of output columns: lane by lane, so that one instruction works on many of them.

use qera_core::quantize::{Grid, Levels};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::panel::panel_lanes;

/// 1.5 x 2^23: added and taken away, it rounds numbers below 2^22 to integers, halves to even.
const TO_INTEGER: f32 = 12_582_912.0;

/// A weight, W~ and the levels of its blocks, for some output columns.
pub(crate) struct PanelTask<'a> {
    /// W of these columns.
    pub(crate) weight: ColumnMajor<'a>,
    /// W~ of them, laid out alike.
    pub(crate) rounded: &'a mut [f32],
    /// Levels, each column's blocks one after the other.
    pub(crate) levels: &'a mut [Levels],
}

/// W~ and its levels, to be filled or improved.
#[derive(Debug)]
pub(crate) struct RoundedColumns<'a> {
    /// W~ by columns.
    pub(crate) values: &'a mut [f32],
    /// Levels, each column's blocks one after the other.
    pub(crate) levels: &'a mut [Levels],
}

/// Cuts a weight into panels.
pub(crate) fn panels<'a>(
    compute: Compute<'_>,
    weight: ColumnMajor<'a>,
    rounded: RoundedColumns<'a>,
    grid: Grid,
) -> Vec<PanelTask<'a>> {
    let (m, lanes) = (weight.rows, panel_lanes(compute.kernel));
    let blocks = m.div_ceil(grid.block_size());
    let columns = weight.values.chunks(m * lanes);
    let rounded = rounded
        .values
        .chunks_mut(m * lanes)
        .zip(rounded.levels.chunks_mut(blocks * lanes));
    let tasks = columns.zip(rounded);
    let task = |(weight, (rounded, levels))| PanelTask {
        weight: ColumnMajor::new(weight, m),
        rounded,
        levels,
    };
    tasks.map(task).collect()
}

/// The levels of one block in every lane.
#[derive(Debug, Clone)]
pub(crate) struct LaneLevels {
    step: Vec<f32>,
    lowest: Vec<f32>,
    highest: Vec<f32>,
}

impl LaneLevels {
    /// Levels for this many lanes, all of them levels of nothing but 0.
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            step: vec![1.0; lanes],
            lowest: vec![0.0; lanes],
            highest: vec![0.0; lanes],
        }
    }

    pub(crate) fn set(&mut self, lane: usize, levels: Levels) {
        self.step[lane] = levels.step;
        self.lowest[lane] = levels.lowest;
        self.highest[lane] = levels.highest;
    }

    pub(crate) fn get(&self, lane: usize) -> Levels {
        Levels {
            step: self.step[lane],
            lowest: self.lowest[lane],
            highest: self.highest[lane],
        }
    }

    /// The nearest levels, as [`Levels::nearest`] has them.
    #[inline(always)]
    pub(crate) fn nearest(&self, targets: &[f32], values: &mut [f32]) {
        let of = self.step.iter().zip(self.lowest.iter().zip(&self.highest));
        for ((value, target), (step, (lowest, highest))) in values.iter_mut().zip(targets).zip(of) {
            let scaled = target / step;
            let above = if scaled > *lowest { scaled } else { *lowest };
            let within = if above < *highest { above } else { *highest };
            *value = (within + TO_INTEGER - TO_INTEGER) * step;
        }
    }
}

/// Copies some rows of columns into a panel of so many lanes; lanes without a column stay.
pub(crate) fn gather(
    columns: ColumnMajor<'_>,
    rows: core::ops::Range<usize>,
    lanes: usize,
    panel: &mut [f32],
) {
    for (lane, column) in columns.values.chunks_exact(columns.rows).enumerate() {
        let panel = panel.chunks_exact_mut(lanes);
        for (row, value) in panel.zip(&column[rows.clone()]) {
            row[lane] = *value;
        }
    }
}

/// Copies a panel back into some rows of columns.
pub(crate) fn scatter(
    panel: &[f32],
    lanes: usize,
    rows: core::ops::Range<usize>,
    columns: &mut [f32],
    m: usize,
) {
    for (lane, column) in columns.chunks_exact_mut(m).enumerate() {
        for (value, row) in column[rows.clone()]
            .iter_mut()
            .zip(panel.chunks_exact(lanes))
        {
            *value = row[lane];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors and the definition round alike, at the ends and at halves too.
    #[test]
    fn lanes_round_as_the_definition_does() {
        let levels = [
            Levels {
                step: 0.25,
                lowest: -3.0,
                highest: 3.0,
            },
            Levels {
                step: -0.5,
                lowest: -8.0,
                highest: 7.0,
            },
        ];
        let targets: Vec<f32> = (-60..60)
            .map(|i| i as f32 * 0.125)
            .chain([1e30, -1e30, 0.0])
            .collect();
        for of in levels {
            let mut lanes = LaneLevels::new(targets.len());
            (0..targets.len()).for_each(|lane| lanes.set(lane, of));
            let mut values = vec![0.0; targets.len()];
            lanes.nearest(&targets, &mut values);
            for (target, value) in targets.iter().zip(&values) {
                assert!(
                    (of.nearest(*target) - value).abs() == 0.0,
                    "{target} {value}"
                );
            }
        }
    }
}
