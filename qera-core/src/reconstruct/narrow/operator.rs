//! Products of G = E^T R E with a few columns, where E comes column by column.

use super::NarrowProblem;
use crate::linalg::{add_scaled_narrow, narrow, narrow_dot};

/// Everything that a product with G needs: E, R, and memory for the columns in between.
pub(super) struct OutputProduct<'a, F> {
    problem: NarrowProblem<'a>,
    error: &'a mut F,
    /// Memory for a column of E.
    column: &'a mut [f32],
    /// Memory for E X and for R E X: half of it for each, in columns of m numbers.
    products: &'a mut [f32],
    images: &'a mut [f32],
}

impl<'a, F: FnMut(usize, &mut [f32])> OutputProduct<'a, F> {
    /// Cuts `scratch` into one column of m numbers and an even number of others.
    pub(super) fn new(
        problem: &NarrowProblem<'a>,
        error: &'a mut F,
        scratch: &'a mut [f32],
    ) -> Self {
        let (column, rest) = scratch.split_at_mut(problem.in_features);
        let (products, images) = rest.split_at_mut(rest.len() / 2);
        Self {
            problem: *problem,
            error,
            column,
            products,
            images,
        }
    }

    /// tr(G) = sum_j e_j^T R e_j.
    pub(super) fn trace(&mut self) -> f64 {
        let mut trace = 0.0;
        for j in 0..self.problem.out_features {
            (self.error)(j, self.column);
            trace += power(self.problem.autocorrelation, self.column, self.images);
        }
        trace
    }

    /// a^T R a for a column of m numbers.
    pub(super) fn power(&mut self, a: &[f32]) -> f64 {
        power(self.problem.autocorrelation, a, self.images)
    }

    /// `a = E X`, a column of m numbers for each of n.
    pub(super) fn error_times(&mut self, x: &[f32], a: &mut [f32]) {
        let (m, n) = (self.problem.in_features, self.problem.out_features);
        error_times(self.error, self.column, n, x, &mut a[..x.len() / n * m]);
    }

    /// `image = G X` for columns of n numbers.
    pub(super) fn apply(&mut self, x: &[f32], image: &mut [f32]) {
        let (m, n) = (self.problem.in_features, self.problem.out_features);
        let length = x.len() / n * m;
        let (products, images) = (&mut self.products[..length], &mut self.images[..length]);
        error_times(self.error, self.column, n, x, products);
        for (y, z) in products.chunks_exact(m).zip(images.chunks_exact_mut(m)) {
            times_packed(self.problem.autocorrelation, y, z);
        }
        for j in 0..n {
            (self.error)(j, self.column);
            for (z, image) in images.chunks_exact(m).zip(image.chunks_exact_mut(n)) {
                image[j] = narrow(narrow_dot(self.column, z));
            }
        }
    }
}

fn error_times(
    error: &mut impl FnMut(usize, &mut [f32]),
    column: &mut [f32],
    out_features: usize,
    x: &[f32],
    products: &mut [f32],
) {
    let m = column.len();
    products.fill(0.0);
    for j in 0..out_features {
        error(j, column);
        for (x, y) in x
            .chunks_exact(out_features)
            .zip(products.chunks_exact_mut(m))
        {
            add_scaled_narrow(x[j], column, y);
        }
    }
}

/// Returns x^T R x, and overwrites the beginning of `scratch`.
fn power(packed: &[f32], x: &[f32], scratch: &mut [f32]) -> f64 {
    let image = &mut scratch[..x.len()];
    times_packed(packed, x, image);
    narrow_dot(x, image)
}

/// `z = R y`, row by row of the triangle; each row serves its own and its mirrored part.
fn times_packed(packed: &[f32], y: &[f32], z: &mut [f32]) {
    z.fill(0.0);
    let mut rest = packed;
    for i in 0..y.len() {
        let (row, below) = rest.split_at(y.len() - i);
        rest = below;
        z[i] += narrow(narrow_dot(row, &y[i..]));
        add_scaled_narrow(y[i], &row[1..], &mut z[i + 1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_triangle_multiplies_as_its_full_matrix() {
        let packed = [2.0, 0.5, -1.0, 3.0, 0.25, 4.0];
        let full = [[2.0, 0.5, -1.0], [0.5, 3.0, 0.25], [-1.0, 0.25, 4.0]];
        let y = [1.0_f32, -2.0, 3.0];
        let mut z = [f32::NAN; 3];
        times_packed(&packed, &y, &mut z);
        for (row, z) in full.iter().zip(z) {
            let expected: f32 = row.iter().zip(y).map(|(r, y)| r * y).sum();
            assert!((z - expected).abs() < 1e-6, "{z} {expected}");
        }
    }
}
