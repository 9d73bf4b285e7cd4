//! Tests whether a symmetric matrix can be a sum of x^T x, which has no negative eigenvalue.
//!
//! Channels are first scaled to squares of 1, C_ij = S_ij / sqrt(S_ii S_jj), so that massive ones
//! hide no others. A few steps of Lanczos (orthogonalised against all earlier vectors) find the
//! ends of C's spectrum. A wrong sign, products of other channels or a negated matrix give
//! eigenvalues far below 0, while the rounding of f32 sums stays within 1e-3 of the largest one.
//! This is no proof: an eigenvalue slightly below 0 among many may go unseen. Cost: 4 m^2 flops a
//! step; folding the sum takes m^2.

use faer::Mat;
use qera_core::pseudo_random::SplitMix64;

use crate::host::dense::eigen;
use crate::host::second_moment::summed::PackedSum;

/// The number of steps of Lanczos.
const STEPS: usize = 16;
/// How far below 0 rounding may put an eigenvalue, relative to the largest one.
const ROUNDED: f64 = 1e-3;

/// The lowest eigenvalue of C that was found, if it is farther below 0 than rounding can explain;
/// `roots` are the sqrt(S_ii).
pub(crate) fn negative_value(sum: &PackedSum<'_>, roots: &[f64]) -> Option<f64> {
    let values = extremes(sum, roots)?;
    let (highest, lowest) = (values.first()?, values.last()?);
    (*lowest < -ROUNDED * highest.max(1.0)).then_some(*lowest)
}

/// The Ritz values of C, largest first; `None` where they are not finite.
fn extremes(sum: &PackedSum<'_>, roots: &[f64]) -> Option<Vec<f64>> {
    let m = roots.len();
    let steps = STEPS.min(m);
    let mut vectors: Vec<Vec<f64>> = vec![start(m)];
    let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
    while let Some(last) = vectors.last() {
        let mut image = times(sum, roots, last);
        diagonal.push(dot(last, &image));
        for vector in &vectors {
            let along = dot(vector, &image);
            let pairs = image.iter_mut().zip(vector);
            pairs.for_each(|(to, from)| *to -= along * from);
        }
        let length = dot(&image, &image).sqrt();
        // Nothing is left to look at, because an invariant space was found.
        if vectors.len() == steps || length <= 1e-9 {
            break;
        }
        image.iter_mut().for_each(|x| *x /= length);
        beside.push(length);
        vectors.push(image);
    }
    let count = diagonal.len();
    let small = Mat::from_fn(count, count, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    });
    eigen(&small).ok().map(|pairs| pairs.values)
}

/// A unit vector that has a component along every coordinate.
fn start(m: usize) -> Vec<f64> {
    let mut sequence = SplitMix64::new(1);
    let mut next = || (sequence.next_bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    let vector: Vec<f64> = (0..m).map(|_| next()).collect();
    let length = dot(&vector, &vector).sqrt().max(f64::MIN_POSITIVE);
    vector.iter().map(|x| x / length).collect()
}

/// C v.
fn times(sum: &PackedSum<'_>, roots: &[f64], v: &[f64]) -> Vec<f64> {
    let scaled = |(x, root): (&f64, &f64)| if *root > 0.0 { x / root } else { 0.0 };
    let x: Vec<f64> = v.iter().zip(roots).map(scaled).collect();
    let (mut image, mut row) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for i in 0..x.len() {
        let row = &mut row[i..];
        sum.widen(sum.row(i).start, row);
        image[i] += dot(row, &x[i..]);
        let others = image[i + 1..].iter_mut().zip(&row[1..]);
        others.for_each(|(to, s)| *to += s * x[i]);
    }
    image.iter().zip(roots).map(scaled).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: usize = 40;

    /// The packed triangle of S = X^T X for random rows with much in common. Elements off the
    /// diagonal are multiplied by `sign`.
    fn packed(rows: usize, sign: f64) -> Vec<u8> {
        let mut sequence = SplitMix64::new(3);
        let mut next = || (sequence.next_bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
        let x: Vec<Vec<f64>> = (0..rows)
            .map(|_| {
                let common = 2.0 * next();
                // Channel 7 is massive.
                (0..M)
                    .map(|j| (next() + common) * if j == 7 { 1e6 } else { 1.0 })
                    .collect()
            })
            .collect();
        let entry = |i: usize, j: usize| -> f64 {
            let sum: f64 = x.iter().map(|row| row[i] * row[j]).sum();
            if i == j { sum } else { sign * sum }
        };
        let entries = (0..M).flat_map(|i| (i..M).map(move |j| (i, j)));
        entries
            .flat_map(|(i, j)| entry(i, j).to_le_bytes())
            .collect()
    }

    fn found(bytes: &[u8]) -> Option<f64> {
        let sum = PackedSum::f64(bytes, M);
        let roots: Vec<f64> = sum.diagonal().iter().map(|square| square.sqrt()).collect();
        negative_value(&sum, &roots)
    }

    #[test]
    fn sums_of_rows_have_no_negative_value_and_others_do() {
        for rows in [1, 5, 200] {
            assert_eq!(found(&packed(rows, 1.0)), None, "{rows} rows");
            let lowest = found(&packed(rows, -1.0)).unwrap();
            assert!(lowest < -1.0, "{rows} rows: {lowest}");
        }
        // A sum of no rows.
        assert_eq!(found(&vec![0; 8 * M * (M + 1) / 2]), None);
    }
}
