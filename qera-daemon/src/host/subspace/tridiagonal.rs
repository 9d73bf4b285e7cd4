//! The largest eigenvalues of a symmetric tridiagonal matrix, and their vectors.
//!
//! Values by bisection: as many eigenvalues are below x as pivots of T - x I are negative (Sturm;
//! Barth, Martin and Wilkinson, Numer. Math. 9 (1967) 386). Several values are looked for side by
//! side, because each of the counts is a chain of divisions. Vectors by inverse iteration (Peters
//! and Wilkinson, Numer. Math. 23 (1974) 1), twice from a random start. Of values that repeat, or
//! nearly so, that may find the same vector twice: who makes them orthonormal notices.
//!
//! Cost: 36 n divisions a value, and some 40 n flops a vector.

use faer::{ColRef, Mat};
use qera_core::pseudo_random::SplitMix64;

/// The number of values that are bisected side by side.
const LANES: usize = 8;
/// The number of times that an interval of twice the matrix's norm is halved.
const HALVINGS: usize = 36;
/// The pivot that is taken in the place of 0, the matrix's norm being 1.
const PIVOT_MIN: f64 = f64::EPSILON;
/// While counting, a smaller pivot is taken to be negative; the square divided by it does not
/// overflow.
const COUNTED_MIN: f64 = 1e-290;
/// The largest residual of a vector that counts as an eigenvector.
const RESIDUAL_MOST: f64 = 1e-12;

/// T of norm 1 or less.
pub(crate) struct Tridiagonal {
    diagonal: Vec<f64>,
    /// The elements beside the diagonal, one fewer than on it.
    beside: Vec<f64>,
    /// The number by which the matrix was divided.
    norm: f64,
}

impl Tridiagonal {
    /// A scaled matrix; `None` where it is zero, or has a number that is not finite.
    pub(crate) fn new(mut diagonal: Vec<f64>, mut beside: Vec<f64>) -> Option<Self> {
        let neighbours = |i: usize| {
            let before = i.checked_sub(1).map_or(0.0, |i| beside[i].abs());
            before + beside.get(i).map_or(0.0, |e| e.abs())
        };
        let rows = (0..diagonal.len()).map(|i| diagonal[i].abs() + neighbours(i));
        let larger = |most: f64, row: f64| if row <= most { most } else { row };
        let norm = rows.fold(0.0, larger);
        if !(norm > 0.0 && norm.is_finite()) {
            return None;
        }
        let numbers = diagonal.iter_mut().chain(&mut beside);
        numbers.for_each(|number| *number /= norm);
        Some(Self {
            diagonal,
            beside,
            norm,
        })
    }

    const fn n(&self) -> usize {
        self.diagonal.len()
    }

    /// Vectors near those of the `count` largest eigenvalues, each of length 1, n x count. They are
    /// not orthogonal, and those of values that repeat may be the same.
    pub(crate) fn near_top(&self, count: usize) -> Mat<f64> {
        let mut sequence = SplitMix64::new(1);
        let mut found = Mat::zeros(self.n(), count);
        for (column, value) in found.col_iter_mut().zip(self.largest(count)) {
            let vector = self.factor(value).iterated(&mut sequence);
            column.iter_mut().zip(vector).for_each(|(to, x)| *to = x);
        }
        found
    }

    /// The eigenvalues of orthonormal eigenvectors, in T's own units; `None` where one is no
    /// eigenvector, or they are not in order.
    pub(crate) fn values_of(&self, vectors: &Mat<f64>) -> Option<Vec<f64>> {
        let values: Option<Vec<f64>> = vectors.col_iter().map(|x| self.value_of(x)).collect();
        let values = values?;
        let ordered = values.is_sorted_by(|x, y| x >= y);
        ordered.then(|| values.iter().map(|value| value * self.norm).collect())
    }

    /// The Rayleigh quotient of a unit vector, if the vector is an eigenvector.
    fn value_of(&self, x: ColRef<'_, f64>) -> Option<f64> {
        let n = self.n();
        let image = |i: usize| {
            let before = if i > 0 {
                self.beside[i - 1] * x[i - 1]
            } else {
                0.0
            };
            let behind = if i + 1 < n {
                self.beside[i] * x[i + 1]
            } else {
                0.0
            };
            before + self.diagonal[i] * x[i] + behind
        };
        let image: Vec<f64> = (0..n).map(image).collect();
        let value: f64 = image.iter().zip(x.iter()).map(|(y, x)| y * x).sum();
        let residual = image
            .iter()
            .zip(x.iter())
            .map(|(y, x)| (y - value * x).powi(2));
        (residual.sum::<f64>().sqrt() <= RESIDUAL_MOST).then_some(value)
    }

    /// The `count` largest eigenvalues, largest first, to 2^-35.
    fn largest(&self, count: usize) -> Vec<f64> {
        let squares: Vec<f64> = self.beside.iter().map(|e| e * e).collect();
        let mut values = Vec::with_capacity(count.next_multiple_of(LANES));
        for first in (0..count).step_by(LANES) {
            // How many eigenvalues lie below the one that is looked for.
            let below: [f64; LANES] =
                core::array::from_fn(|lane| self.n().saturating_sub(first + lane + 1) as f64);
            let (mut low, mut high) = ([-1.0; LANES], [1.0; LANES]);
            for _ in 0..HALVINGS {
                let middle = core::array::from_fn(|lane| 0.5 * (low[lane] + high[lane]));
                let counted = self.count_below(&squares, &middle);
                for lane in 0..LANES {
                    if counted[lane] > below[lane] {
                        high[lane] = middle[lane];
                    } else {
                        low[lane] = middle[lane];
                    }
                }
            }
            values.extend(low);
        }
        values.truncate(count);
        values
    }

    /// For each of these x, how many eigenvalues are below it.
    fn count_below(&self, squares: &[f64], x: &[f64; LANES]) -> [f64; LANES] {
        let (mut counts, mut pivots) = ([0.0; LANES], [1.0; LANES]);
        let before = core::iter::once(&0.0).chain(squares);
        for (diagonal, square) in self.diagonal.iter().zip(before) {
            for lane in 0..LANES {
                let pivot = diagonal - x[lane] - square / pivots[lane];
                let negative = pivot <= COUNTED_MIN;
                counts[lane] += if negative { 1.0 } else { 0.0 };
                pivots[lane] = if negative {
                    pivot.min(-COUNTED_MIN)
                } else {
                    pivot
                };
            }
        }
        counts
    }

    /// T - x I as L U, with row exchanges.
    fn factor(&self, x: f64) -> Factored {
        let n = self.n();
        let mut rows = Vec::with_capacity(n);
        let beside = |i: usize| self.beside.get(i).copied().unwrap_or(0.0);
        let (mut pivot, mut next) = (self.diagonal[0] - x, beside(0));
        for i in 0..n - 1 {
            let (below, diagonal, behind) = (beside(i), self.diagonal[i + 1] - x, beside(i + 1));
            let row = if pivot.abs() >= below.abs() {
                let multiplier = below / safe(pivot);
                let row = Elimination::new(multiplier, false, [pivot, next, 0.0]);
                (pivot, next) = (diagonal - multiplier * next, behind);
                row
            } else {
                let multiplier = pivot / below;
                let row = Elimination::new(multiplier, true, [below, diagonal, behind]);
                (pivot, next) = (next - multiplier * diagonal, -multiplier * behind);
                row
            };
            rows.push(row);
        }
        rows.push(Elimination::new(0.0, false, [pivot, 0.0, 0.0]));
        Factored { rows }
    }
}

/// A pivot that is safe to divide by.
fn safe(pivot: f64) -> f64 {
    if pivot.abs() < PIVOT_MIN {
        PIVOT_MIN
    } else {
        pivot
    }
}

/// A step of the elimination.
struct Elimination {
    /// The factor by which the row is taken off the one below.
    multiplier: f64,
    /// Whether the two rows were exchanged.
    exchanged: bool,
    /// 1 / U_ii, U_i,i+1 and U_i,i+2.
    upper: [f64; 3],
}

impl Elimination {
    fn new(multiplier: f64, exchanged: bool, upper: [f64; 3]) -> Self {
        let [pivot, next, behind] = upper;
        Self {
            multiplier,
            exchanged,
            upper: [1.0 / safe(pivot), next, behind],
        }
    }
}

/// T - x I, factored.
struct Factored {
    rows: Vec<Elimination>,
}

impl Factored {
    /// A vector of length 1 near the eigenvectors of the values near x.
    fn iterated(&self, sequence: &mut SplitMix64) -> Vec<f64> {
        let mut x: Vec<f64> = self
            .rows
            .iter()
            .map(|_| sequence.next_symmetric())
            .collect();
        for _ in 0..2 {
            self.solve(&mut x);
            let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            x.iter_mut().for_each(|x| *x /= length);
        }
        x
    }

    /// (T - x I)^-1 times a vector.
    fn solve(&self, x: &mut [f64]) {
        for (i, row) in self.rows.iter().enumerate().take(x.len() - 1) {
            if row.exchanged {
                x.swap(i, i + 1);
            }
            x[i + 1] -= row.multiplier * x[i];
        }
        let (mut next, mut behind) = (0.0, 0.0);
        for (to, row) in x.iter_mut().zip(&self.rows).rev() {
            let [inverse, beside, beyond] = row.upper;
            *to = (*to - beside * next - beyond * behind) * inverse;
            (next, behind) = (*to, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 on the diagonal and -1 beside it: 2 - 2 cos(j pi / (n + 1)).
    #[test]
    fn the_second_difference_has_known_values() {
        const N: usize = 50;
        let matrix = Tridiagonal::new(vec![2.0; N], vec![-1.0; N - 1]).unwrap();
        let vectors = matrix.near_top(20);
        let values = matrix.values_of(&vectors).unwrap();
        for (j, value) in values.iter().enumerate() {
            let angle = (N - j) as f64 * core::f64::consts::PI / (N + 1) as f64;
            assert!((value - (2.0 - 2.0 * angle.cos())).abs() < 1e-14, "{j}");
            // The vector's elements are sin((i + 1) angle).
            let length = (0.5 * (N + 1) as f64).sqrt();
            let sines = (0..N).map(|i| ((i + 1) as f64 * angle).sin() / length);
            let cosine: f64 = sines.zip(vectors.col(j).iter()).map(|(a, b)| a * b).sum();
            assert!((cosine.abs() - 1.0).abs() < 1e-12, "{j}");
        }
    }

    /// A vector that is no eigenvector has no value, nor have vectors that are not in order.
    #[test]
    fn what_is_no_eigenvector_is_told() {
        let matrix = Tridiagonal::new(vec![3.0, 2.0, 1.0], vec![0.0; 2]).unwrap();
        let unit =
            |order: [usize; 2]| Mat::from_fn(3, 2, |i, j| if i == order[j] { 1.0 } else { 0.0 });
        assert_eq!(matrix.values_of(&unit([0, 1])), Some(vec![3.0, 2.0]));
        assert_eq!(matrix.values_of(&unit([1, 0])), None);
        let half = Mat::from_fn(3, 1, |i, _| [0.8, 0.6, 0.0][i]);
        assert_eq!(matrix.values_of(&half), None);
    }

    #[test]
    fn what_is_no_matrix_is_none() {
        assert!(Tridiagonal::new(vec![0.0; 4], vec![0.0; 3]).is_none());
        assert!(Tridiagonal::new(vec![1.0, f64::NAN], vec![0.0]).is_none());
        assert!(Tridiagonal::new(vec![1.0, f64::INFINITY], vec![0.0]).is_none());
        assert!(Tridiagonal::new(Vec::new(), Vec::new()).is_none());
    }
}
