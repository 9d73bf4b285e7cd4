//! Test-then-train: the two latest corrections of a layer, as they were written, scored on rows
//! newer than both.
//!
//! With e_old and e_new the mean output errors of a block's rows under the two, and g =
//! mean(e_old - e_new) / mean(e_new) over the same blocks, g is what the latest solve gained from
//! its new rows. The interval is Student's t over blocks, for a ratio of means: its error is that
//! of the mean of (e_old - e_new - g e_new) / mean(e_new) (linearised; Cochran, Sampling
//! Techniques, 6.4).

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use qera_core::statistics::BlockMeans;
use serde::{Deserialize, Serialize};

use crate::calibrate::blocks::Block;
use crate::host::column_major::ColumnMajor;
use crate::host::factors::WrittenCorrection;

pub(crate) const CONFIDENCE: f64 = 0.95;
/// With fewer blocks than this, evidence says nothing about convergence.
pub(crate) const BLOCKS_MIN: u64 = 8;
/// Rows that are multiplied together.
pub(crate) const GROUP_ROWS: usize = 512;

/// The evidence of one solve point: how corrections of earlier solve points did on rows newer than
/// they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Rows that the site had when the corrections were scored.
    pub(crate) rows: u64,
    /// Rows of the blocks that count.
    pub(crate) rows_tested: u64,
    /// Blocks that count: those with an error to correct.
    pub blocks: u64,
    /// Mean error per row of the latest correction, on rows that it had not seen.
    pub error: f64,
    /// Half-width of the 95 % interval of `error`; null below two blocks.
    pub half_width: Option<f64>,
    /// Mean error per row of the same rows without correction.
    pub(crate) error_without: f64,
    /// Half-width of the 95 % interval of `error` / `error_without`; null below two blocks.
    pub(crate) relative_half_width: Option<f64>,
    /// By how much the latest correction beats the one before, relative to its error; null where
    /// there was none before.
    pub(crate) gain: Option<f64>,
    /// Upper limit of the gain's 95 % interval.
    pub(crate) gain_upper: Option<f64>,
}

impl Evidence {
    pub(crate) fn below(&self, tolerance: f64) -> bool {
        self.blocks >= BLOCKS_MIN && self.gain_upper.is_some_and(|upper| upper < tolerance)
    }
}

/// Scores corrections, the latest first, on blocks of rows. Costs 2 m n flops a row, and 2 k (m +
/// n) for each correction. `None` where there is no correction, or no block that counts. `error` is
/// E, m x n by columns.
///
/// A block without an error to correct (its rows are all zero) says nothing of corrections, and
/// does not count. Where E itself is zero every block counts: it says that there is nothing to
/// gain.
#[must_use]
pub fn score(
    rows: u64,
    blocks: &[Block],
    error: ColumnMajor<'_>,
    corrections: &[WrittenCorrection],
) -> Option<Evidence> {
    let latest = corrections.first()?;
    if blocks.is_empty() || error.rows == 0 {
        return None;
    }
    let corrects_nothing = error.is_zero();
    let (mut without, mut new, mut old) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows_tested = 0;
    for group in groups(blocks) {
        let rows: usize = group.iter().map(Block::rows).sum();
        let values = widened(group, rows * error.rows);
        let x = MatRef::from_row_major_slice(&values, rows, error.rows);
        let mut y = Mat::<f32>::zeros(rows, error.columns());
        matmul(y.as_mut(), Accum::Replace, x, error.as_mat(), 1.0, Par::Seq);
        let errors = block_errors(group, &y);
        let counts: Vec<bool> = errors
            .iter()
            .map(|e| corrects_nothing || *e != 0.0)
            .collect();
        let add = |errors: Vec<f64>, to: &mut Vec<f64>| {
            let counted = errors
                .into_iter()
                .zip(&counts)
                .filter(|(_, counts)| **counts);
            to.extend(counted.map(|(error, _)| error));
        };
        add(errors, &mut without);
        add(block_errors(group, &residual(x, &y, latest)), &mut new);
        if let Some(before) = corrections.get(1) {
            add(block_errors(group, &residual(x, &y, before)), &mut old);
        }
        for (block, _) in group.iter().zip(&counts).filter(|(_, counts)| **counts) {
            rows_tested += block.rows() as u64;
        }
    }
    if new.is_empty() {
        return None;
    }
    let mut means = BlockMeans::new();
    new.iter().for_each(|e| {
        means.push(*e);
    });
    let gain = (!old.is_empty()).then(|| {
        let less: Vec<f64> = old.iter().zip(&new).map(|(old, new)| old - new).collect();
        ratio_of_means(&less, &new)
    });
    Some(Evidence {
        rows,
        rows_tested,
        blocks: means.count(),
        error: means.mean(),
        half_width: means.interval(CONFIDENCE).map(|i| i.half_width),
        error_without: without.iter().sum::<f64>() / without.len() as f64,
        relative_half_width: ratio_of_means(&new, &without).half_width,
        gain: gain.map(|gain| gain.value),
        gain_upper: gain.and_then(|gain| Some(gain.value + gain.half_width?)),
    })
}

/// The rows of these blocks in f32; `length` is the number of their numbers.
fn widened(blocks: &[Block], length: usize) -> Vec<f32> {
    let mut values = vec![0.0; length];
    let mut rest = &mut values[..];
    for block in blocks {
        let stored = block.stored();
        let (own, behind) = rest.split_at_mut(stored.rows() * block.in_features);
        stored.widen(0..own.len(), own);
        rest = behind;
    }
    values
}

/// Groups of successive blocks whose rows are multiplied together. The outputs of one group are in
/// memory at a time.
fn groups(blocks: &[Block]) -> impl Iterator<Item = &[Block]> {
    let largest = blocks.iter().map(Block::rows).max().unwrap_or(1).max(1);
    blocks.chunks((GROUP_ROWS / largest).max(1))
}

/// A ratio of two means, with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ratio {
    value: f64,
    /// Half-width of the ratio's 95 % interval; `None` below two blocks.
    half_width: Option<f64>,
}

/// mean(parts) / mean(whole).
fn ratio_of_means(parts: &[f64], whole: &[f64]) -> Ratio {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let mean_whole = mean(whole);
    if mean_whole <= 0.0 {
        // The correction leaves no error at all.
        return Ratio {
            value: 0.0,
            half_width: Some(0.0),
        };
    }
    let ratio = mean(parts) / mean_whole;
    let mut residuals = BlockMeans::new();
    for (part, whole) in parts.iter().zip(whole) {
        residuals.push((part - ratio * whole) / mean_whole);
    }
    let interval = residuals.interval(CONFIDENCE);
    Ratio {
        value: ratio,
        half_width: interval.map(|interval| interval.half_width),
    }
}

/// x E - (x A) B, given x E.
fn residual(x: MatRef<'_, f32>, y: &Mat<f32>, correction: &WrittenCorrection) -> Mat<f32> {
    let k = correction.rank;
    let mut rest = y.clone();
    if k == 0 {
        return rest;
    }
    let a = MatRef::from_row_major_slice(&correction.lora_a[..k * x.ncols()], k, x.ncols());
    let b = MatRef::from_row_major_slice(&correction.lora_b, y.ncols(), k);
    let mut xa = Mat::<f32>::zeros(x.nrows(), k);
    matmul(xa.as_mut(), Accum::Replace, x, a.transpose(), 1.0, Par::Seq);
    matmul(
        rest.as_mut(),
        Accum::Add,
        xa.as_ref(),
        b.transpose(),
        -1.0,
        Par::Seq,
    );
    rest
}

/// For each block the mean of ||y||^2 over its rows, weighted by the rows' weights.
fn block_errors(blocks: &[Block], y: &Mat<f32>) -> Vec<f64> {
    let mut squares = vec![0.0_f64; y.nrows()];
    for column in y.col_iter() {
        for (sum, value) in squares.iter_mut().zip(column.iter()) {
            *sum += f64::from(*value).powi(2);
        }
    }
    let mut rest = &squares[..];
    let mut errors = Vec::new();
    for block in blocks {
        let (own, after) = rest.split_at(block.rows());
        let weighted = own.iter().enumerate();
        let weighted = weighted.map(|(row, square)| block.stored().weight_of(row) * square);
        errors.push(weighted.sum::<f64>() / block.stored().extent().weight);
        rest = after;
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::kernels::row_weights::RowWeights;
    use crate::host::kernels::stored::KeptRows;
    use crate::judge::progress::LayerProgress;

    #[test]
    fn the_gain_and_its_limit() {
        let new = [1.0, 2.0, 3.0, 2.0];
        let less = [0.1, 0.3, 0.2, 0.2];
        let Ratio { value, half_width } = ratio_of_means(&less, &new);
        assert!((value - 0.8 / 8.0).abs() < 1e-12);
        // residuals (d - g e) / 2: 0, .05, -.05, 0; s^2 = .005 / 3; t(.975, 3) = 3.18245.
        let expected = 3.182_446_3 * (0.005_f64 / 3.0 / 4.0).sqrt();
        assert!((half_width.unwrap() - expected).abs() < 1e-6);
        // Blocks that gain alike leave no doubt, however much they differ in size.
        let alike: Vec<f64> = new.iter().map(|e| 0.05 * e).collect();
        let Ratio { value, half_width } = ratio_of_means(&alike, &new);
        assert!((value - 0.05).abs() < 1e-12 && half_width.unwrap() < 1e-12);
        let ratio = |value, half_width| Ratio { value, half_width };
        assert_eq!(ratio_of_means(&[0.0], &[0.0]), ratio(0.0, Some(0.0)));
        assert_eq!(ratio_of_means(&[1.0], &[1.0]), ratio(1.0, None));
    }

    /// Rows that are zero are scored as nothing; beside others they do not count.
    #[test]
    fn blocks_without_an_error_say_nothing() {
        let error = ColumnMajor::new(&[1.0, 0.0, 0.0, 2.0], 2);
        let block = |values: [f32; 4], number| Block {
            kept: KeptRows::Floats(values.to_vec().into()),
            weights: None,
            in_features: 2,
            number,
        };
        let corrections = vec![WrittenCorrection::default(); 2];
        let zeros: Vec<Block> = (0..8).map(|number| block([0.0; 4], number)).collect();
        assert_eq!(score(16, &zeros, error, &corrections), None);
        let mut mixed = zeros.clone();
        mixed.push(block([3.0, 1.0, 1.0, 2.0], 8));
        mixed.push(block([1.0, 1.0, 1.0, 1.0], 9));
        let found = score(20, &mixed, error, &corrections).unwrap();
        assert_eq!((found.blocks, found.rows_tested), (2, 4));
        // (9 + 4 + 1 + 16) / 2 and 5: the mean is over the two.
        assert!((found.error_without - 10.0).abs() < 1e-6);
        assert!(!found.below(0.01));
        // Of an E that is zero every block is evidence.
        let nothing = ColumnMajor::new(&[0.0; 4], 2);
        let found = score(20, &mixed, nothing, &corrections).unwrap();
        assert_eq!((found.blocks, found.error), (10, 0.0));
        assert!(found.below(0.01));
    }

    /// Within a block rows count by their weights; each block counts the same.
    #[test]
    fn the_error_of_a_block_is_a_mean_by_weight() {
        let error = ColumnMajor::new(&[1.0, 0.0, 0.0, 2.0], 2);
        let block = |values: &[f32], weights: &[f32], number| Block {
            kept: KeptRows::Floats(values.to_vec().into()),
            weights: Some(RowWeights::new(weights.to_vec())),
            in_features: 2,
            number,
        };
        // Without correction (3 13 + 1 17) / 4 = 14 and 4; with it (3 4 + 1 16) / 4 = 7 and 4.
        let blocks = [
            block(&[3.0, 1.0, 1.0, 2.0], &[3.0, 1.0], 0),
            block(&[0.0, 1.0], &[1e-9], 1),
        ];
        let first_column = WrittenCorrection {
            rank: 1,
            lora_a: vec![1.0, 0.0],
            lora_b: vec![1.0, 0.0],
        };
        let corrections = [first_column, WrittenCorrection::default()];
        let found = score(5, &blocks, error, &corrections).unwrap();
        assert!((found.error - 5.5).abs() < 1e-6 && (found.error_without - 9.0).abs() < 1e-6);
        assert!((found.gain.unwrap() - 3.5 / 5.5).abs() < 1e-6);
        assert_eq!((found.blocks, found.rows_tested), (2, 3));
    }

    /// x (E - A B) by hand: E = [[1, 0], [0, 2]], A B takes the first column off.
    #[test]
    fn scores_are_the_definition() {
        let error = ColumnMajor::new(&[1.0, 0.0, 0.0, 2.0], 2);
        let block = |values: &[f32], number| Block {
            kept: KeptRows::Floats(values.to_vec().into()),
            weights: None,
            in_features: 2,
            number,
        };
        let blocks = [block(&[3.0, 1.0, 1.0, 2.0], 0), block(&[0.0, 1.0], 1)];
        let first = WrittenCorrection {
            rank: 1,
            lora_a: vec![1.0, 0.0],
            lora_b: vec![1.0, 0.0],
        };
        let mut progress = LayerProgress::default();
        progress.test(5, &blocks, error);
        assert!(progress.evidence.is_empty(), "nothing to score");
        progress.corrections = vec![first, WrittenCorrection::default()];
        progress.test(5, &blocks, error);
        let found = progress.evidence[0];
        // Blocks: without (9 + 4 + 1 + 16) / 2 = 15 and 4; with (4 + 16) / 2 = 10 and 4.
        assert!((found.error - 7.0).abs() < 1e-6 && (found.error_without - 9.5).abs() < 1e-6);
        assert!((found.gain.unwrap() - 2.5 / 7.0).abs() < 1e-6);
        assert_eq!((found.blocks, found.rows_tested, found.rows), (2, 3, 5));
    }
}
