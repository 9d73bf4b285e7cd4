//! What corrections are judged by: errors of blocks are means by weight.

use qera_tests::quantization::quantization_error;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{DOWN, K, Q, sine_values};

use super::{Rows, assert_near, number, once, weights_of};

/// Four sequences, few enough that all of their rows are scored, repeated or not.
const FEW: Rows = Rows {
    shard: 0,
    sequences: 4,
    length: 66,
};
const PATTERN: [f32; 3] = [1.0, 2.0, 1.0];
/// Of each sequence one row in seven has weight 0, and enough are left to make a block.
const ROWS: Rows = Rows { length: 77, ..FEW };

/// Rows of Q: those of the last sequence are twice as large.
fn values(rows: &Rows) -> Vec<f32> {
    let mut values = rows.values(8);
    let last = (rows.count() - rows.length) * 8;
    values[last..].iter_mut().for_each(|x| *x *= 2.0);
    values
}

/// ||x E||^2 of each of some rows.
fn squared_errors(values: &[f32]) -> Vec<f64> {
    let error = quantization_error(&sine_values(48, 0.0), 8, 4, 4);
    let square = |x: &[f32]| {
        let outputs = error.chunks(8).map(|column| {
            let terms = x.iter().zip(column);
            terms
                .map(|(x, e)| f64::from(*x) * f64::from(*e))
                .sum::<f64>()
        });
        outputs.map(|y| y * y).sum()
    };
    values.chunks(8).map(square).collect()
}

fn weighted_mean(errors: &[f64], weights: &[f32]) -> f64 {
    let terms = errors.iter().zip(weights);
    let sum: f64 = terms.map(|(e, w)| e * f64::from(*w)).sum();
    sum / weights.iter().map(|w| f64::from(*w)).sum::<f64>()
}

/// By definition: f is the mean by weight over all rows, the held-out error over blocks of theirs.
#[test]
fn errors_are_means_by_weight() {
    let pattern = [0.1, 5.0, 0.7, 0.0, 2.0, 1.0, 1.0];
    let (errors, mut weights) = (squared_errors(&values(&ROWS)), ROWS.weights(&pattern));
    weights[..ROWS.length].iter_mut().for_each(|w| *w *= 7.0);
    let shape = [ROWS.sequences, ROWS.length];
    let tensors = vec![
        TensorToWrite::f32(Q, &[shape[0], shape[1], 8], &values(&ROWS)),
        weights_of(Q, &shape, &weights),
    ];
    let blocks = errors.chunks(ROWS.length).zip(weights.chunks(ROWS.length));
    let blocks: Vec<f64> = blocks.map(|(e, w)| weighted_mean(e, w)).collect();
    let of_blocks = blocks.iter().sum::<f64>() / blocks.len() as f64;
    let all = weighted_mean(&errors, &weights);
    assert!(
        (of_blocks / all - 1.0).abs() > 0.1,
        "the two are told apart"
    );
    // Under R, and where no R is gathered on the rows of the window.
    for method in ["exact", "approx"] {
        let daemon = once(
            [tensors.clone()].into_iter(),
            &["--method", method, "--quantizer", "mxint4"],
        );
        assert_near(number(&daemon, Q, "/error/without"), all, 1e-5, method);
        let held_out = number(&daemon, Q, "/held_out_error/mean_without");
        assert_near(held_out, of_blocks, 1e-5, method);
        let tested = number(&daemon, Q, "/held_out_error/rows_tested");
        assert!((tested - weights.iter().filter(|w| **w > 0.0).count() as f64).abs() < 0.5);
    }
}

/// Of rows of which only some are scored the heaviest are: one in each sequence has most of its
/// weight, and the largest error.
#[test]
fn a_sample_of_many_rows_has_their_mean_by_weight() {
    let many = Rows {
        sequences: 16,
        length: 77,
        ..FEW
    };
    let heavy: Vec<usize> = (0..many.sequences)
        .map(|of| of * many.length + of * 13 % many.length)
        .collect();
    let (mut values, mut weights) = (many.values(8), vec![1.0_f32; many.count()]);
    for row in &heavy {
        weights[*row] = 200.0;
        values[row * 8..][..8].iter_mut().for_each(|x| *x *= 5.0);
    }
    let shape = [many.sequences, many.length];
    let tensors = vec![
        TensorToWrite::f32(Q, &[shape[0], shape[1], 8], &values),
        weights_of(Q, &shape, &weights),
    ];
    let daemon = once([tensors].into_iter(), &["--quantizer", "mxint4"]);
    let errors = squared_errors(&values);
    let blocks = errors.chunks(many.length).zip(weights.chunks(many.length));
    let blocks = blocks.map(|(e, w)| weighted_mean(e, w));
    let expected = blocks.sum::<f64>() / many.sequences as f64;
    let tested = number(&daemon, Q, "/held_out_error/rows_tested");
    assert!((tested - 512.0).abs() < 0.5, "{tested}");
    let found = number(&daemon, Q, "/held_out_error/mean_without");
    assert_near(found, expected, 0.01, "held_out_error/mean_without");
}

/// And what is chosen and reported is that of repeated rows.
#[test]
fn judged_as_repeated_rows_are() {
    let weighted = once([FEW.weighted(&PATTERN)].into_iter(), &[]);
    let repeated = once([FEW.repeated(&PATTERN)].into_iter(), &[]);
    for layer in [Q, K, DOWN] {
        let fields = [
            "/shrinkage",
            "/held_out_error/mean",
            "/held_out_error/half_width",
            "/held_out_error/mean_without",
            "/error/with",
        ];
        for field in fields {
            let [ours, theirs] = [&weighted, &repeated].map(|of| number(of, layer, field));
            assert_near(ours, theirs, 1e-4, &format!("{layer} {field}"));
        }
    }
}

/// With too few blocks N is the effective number of rows.
#[test]
fn few_blocks_shrink_by_effective_rows() {
    let two = Rows {
        sequences: 2,
        ..FEW
    };
    let pattern = [1.0, 10.0];
    let daemon = once([two.weighted(&pattern)].into_iter(), &[]);
    let effective = 132.0 * 5.5 * 5.5 / 50.5;
    for (layer, m) in [(Q, 8.0), (DOWN, 12.0)] {
        let shrinkage = number(&daemon, layer, "/shrinkage");
        assert_near(shrinkage, m / (m + effective), 1e-9, layer);
    }
}
