//! Some rows of a block, of which the mean stands for that of all.
//!
//! Rows without weights are evenly spaced. The mean by weight of rows that have some is estimated
//! by rows drawn in proportion to their weight: the weights are laid end to end, and what lies at
//! evenly spaced points of that length is drawn (systematic sampling with probability proportional
//! to size; Cochran, Sampling Techniques, 9A). Each row drawn stands for the same weight, the step;
//! with a random start the mean is unbiased, and the middle of each step is a fixed start that
//! favours nothing. The other way, evenly spaced rows with their own weights, is a ratio of two
//! estimates: biased by the covariance of weight and error, and where a few rows have most of the
//! weight it is the error of whatever light rows it meets. A row heavier than a step would be drawn
//! once or several times by chance; it is taken for certain and stands for itself, so that it adds
//! no variance, and the steps are of the rest.
//!
//! Rows of equal weight are those that are drawn without weights.

use crate::calibrate::blocks::Block;
use crate::host::kernels::row_weights::{LentWeights, RowWeights};
use crate::host::kernels::stored::{KeptRows, StoredRows};
use crate::host::rounding::narrow;

/// A row that was drawn, and the weight of the rows it stands for.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    row: usize,
    weight: f64,
}

/// `count` of the rows as the block of this number; with the weights that they stand for, where the
/// rows have weights.
pub(crate) fn sampled(rows: StoredRows<'_>, number: u64, count: usize) -> Block {
    let all = rows.rows();
    match rows.weights.filter(|_| count < all) {
        None => Block::of(rows, number, count, |i| (2 * i + 1) * all / (2 * count)),
        Some(weights) => {
            let drawn = systematic(weights, count);
            // A step of many rows may weigh more than f32 holds, one beside a much heavier row
            // less.
            let weight = |of: &Drawn| narrow(of.weight / weights.unit()).max(f32::MIN_POSITIVE);
            Block {
                kept: KeptRows::rows_of(rows, drawn.len(), |i| drawn[i].row),
                weights: Some(RowWeights::new(drawn.iter().map(weight).collect())),
                in_features: rows.in_features,
                number,
            }
        }
    }
}

/// `count` rows of these, fewer than there are, in their order.
fn systematic(weights: LentWeights<'_>, count: usize) -> Vec<Drawn> {
    let weights: Vec<f64> = weights.values().iter().map(|w| f64::from(*w)).collect();
    let mut by_weight: Vec<usize> = (0..weights.len()).collect();
    by_weight.sort_by(|&i, &j| weights[j].total_cmp(&weights[i]).then(i.cmp(&j)));
    // Of the lightest first, so that what is left beside heavy rows is not lost in a difference.
    let mut rest = vec![0.0; weights.len() + 1];
    for (place, &row) in by_weight.iter().enumerate().rev() {
        rest[place] = rest[place + 1] + weights[row];
    }
    let is_heavy =
        |place: &usize| weights[by_weight[*place]] * (count - place) as f64 > rest[*place];
    let heavy = (0..count).take_while(is_heavy).count();
    let mut drawn: Vec<Drawn> = by_weight[..heavy]
        .iter()
        .map(|&row| Drawn {
            row,
            weight: weights[row],
        })
        .collect();
    let mut light = by_weight.split_off(heavy);
    light.sort_unstable();
    let steps = count - heavy;
    let step = rest[heavy] / steps as f64;
    let (mut place, mut behind) = (0, 0.0);
    for i in 0..steps {
        // Products, because they are exact where all weights are one small number.
        let middle = (2 * i + 1) as f64 * rest[heavy];
        let end = |place: usize, behind: f64| 2.0 * steps as f64 * (behind + weights[light[place]]);
        while place + 1 < light.len() && end(place, behind) <= middle {
            behind += weights[light[place]];
            place += 1;
        }
        drawn.push(Drawn {
            row: light[place],
            weight: step,
        });
    }
    drawn.sort_by_key(|of| of.row);
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use qera_core::pseudo_random::SplitMix64;

    /// The mean by weight of rows of one number.
    fn mean(rows: StoredRows<'_>) -> f64 {
        let values = rows.widened();
        let terms = values.iter().enumerate();
        let sum: f64 = terms
            .map(|(row, x)| rows.weight_of(row) * f64::from(*x))
            .sum();
        sum / rows.extent().weight
    }

    /// The same of a sample of the rows.
    fn estimate(values: &[f32], weights: &[f32], count: usize) -> f64 {
        let weights = RowWeights::new(weights.to_vec());
        let rows = StoredRows::floats(values, 1).weighted(Some(&weights));
        let block = sampled(rows, 3, count);
        assert_eq!((block.rows(), block.number), (count, 3));
        mean(block.stored())
    }

    fn exact(values: &[f32], weights: &[f32]) -> f64 {
        let weights = RowWeights::new(weights.to_vec());
        mean(StoredRows::floats(values, 1).weighted(Some(&weights)))
    }

    /// A row with most of the weight is in the sample, wherever it stands, and counts for itself.
    #[test]
    fn a_heavy_row_counts_for_itself() {
        for heavy in 0..64 {
            let (mut values, mut weights) = ([1.0; 64], [1.0; 64]);
            (values[heavy], weights[heavy]) = (9.0, 1e3);
            let (found, exact) = (estimate(&values, &weights, 8), exact(&values, &weights));
            assert!(
                (found / exact - 1.0).abs() < 1e-6,
                "{heavy}: {found} {exact}"
            );
        }
    }

    /// Of errors that grow with the weight, in no order, the mean over many blocks is that by
    /// weight, and that of one block is nearer than that of evenly spaced rows.
    #[test]
    fn the_mean_of_a_sample_is_that_by_weight() {
        let mut sequence = SplitMix64::new(4);
        let (mut bias, mut squares, blocks) = (0.0, [0.0; 2], 400);
        for _ in 0..blocks {
            let weights: Vec<f32> = (0..128)
                .map(|_| narrow((4.0 * sequence.next_symmetric()).exp()))
                .collect();
            let values: Vec<f32> = weights
                .iter()
                .map(|w| w.sqrt() * narrow(2.0 + sequence.next_symmetric()))
                .collect();
            let exactly = exact(&values, &weights);
            let spaced = |of: &[f32]| (0..8).map(|i| of[16 * i + 8]).collect::<Vec<_>>();
            let of = [
                estimate(&values, &weights, 8),
                exact(&spaced(&values), &spaced(&weights)),
            ];
            let errors = of.map(|found| found / exactly - 1.0);
            bias += errors[0] / f64::from(blocks);
            let sums = squares.iter_mut().zip(errors);
            sums.for_each(|(sum, error)| *sum += error * error / f64::from(blocks));
        }
        assert!(bias.abs() < 0.02, "{bias}");
        let [ours, spaced] = squares.map(f64::sqrt);
        assert!(ours < 0.15 && ours < 0.6 * spaced, "{ours} {spaced}");
    }

    /// Whatever the weight that all have, the rows are those that are drawn without weights.
    #[test]
    fn equal_weights_draw_evenly_spaced_rows() {
        for rows in 1..70 {
            let values: Vec<f32> = (0..rows).map(|row| row as f32).collect();
            let plain = StoredRows::floats(&values, 1);
            for count in 1..=rows {
                let expected = sampled(plain, 0, count);
                for weight in [1.0, 0.25, 3.0] {
                    let weights = RowWeights::new(vec![weight; rows]);
                    let found = sampled(plain.weighted(Some(&weights)), 0, count);
                    assert_eq!(found.kept, expected.kept, "{count} of {rows}");
                    let own = found.weights.unwrap();
                    assert!(own.lend().values().iter().all(|w| *w > 0.0));
                }
            }
        }
    }

    /// Weights as large and as small as f32 has stay finite and above 0.
    #[test]
    fn no_weight_is_out_of_range() {
        let smallest = f32::from_bits(1);
        for few in [f32::MAX, 1.0] {
            let mut weights = vec![few; 32];
            weights[7..20].fill(smallest);
            let weights = RowWeights::new(weights);
            let values = [1.0; 32];
            let rows = StoredRows::floats(&values, 1).weighted(Some(&weights));
            for count in 1..32 {
                let own = sampled(rows, 0, count).weights.unwrap();
                let mut own = own.lend().values().iter();
                assert!(own.all(|w| w.is_finite() && *w > 0.0));
            }
        }
    }
}
