//! What rows make of a few vectors, in the precision in which it is multiplied.

use std::borrow::Cow;

use faer::linalg::matmul::matmul;
use faer::{Accum, ColRef, Mat, Par};

use crate::host::dense::product;
use crate::host::rounding::narrow;

/// Z: b vectors x rows, by columns.
#[derive(Debug)]
pub(crate) enum RowImages {
    /// In f32, which its products are then in, too.
    Narrow(Mat<f32>),
    /// In f64, where f32 products are not enough.
    Exact(Mat<f64>),
}

impl RowImages {
    /// Zeros for so many vectors and rows.
    pub(crate) fn zeros(in_f64: bool, vectors: usize, rows: usize) -> Self {
        match in_f64 {
            true => Self::Exact(Mat::zeros(vectors, rows)),
            false => Self::Narrow(Mat::zeros(vectors, rows)),
        }
    }

    /// How many vectors.
    pub(crate) fn vectors(&self) -> usize {
        match self {
            Self::Narrow(z) => z.nrows(),
            Self::Exact(z) => z.nrows(),
        }
    }

    /// Sets what a row makes of the vectors to `root` times these numbers.
    pub(crate) fn set(&mut self, row: usize, root: f64, numbers: ColRef<'_, f64>) {
        match self {
            Self::Narrow(z) => {
                let pairs = z.col_mut(row).iter_mut().zip(numbers.iter());
                pairs.for_each(|(to, y)| *to = narrow(root * y));
            }
            Self::Exact(z) => {
                let pairs = z.col_mut(row).iter_mut().zip(numbers.iter());
                pairs.for_each(|(to, y)| *to = root * y);
            }
        }
    }

    /// What the rows make of the combinations of the vectors that the rotation's columns describe.
    pub(crate) fn rotated(&self, rotation: &Mat<f64>) -> Self {
        match self {
            Self::Narrow(z) => {
                let by = |i, j| narrow(rotation[(i, j)]);
                let rotation = Mat::from_fn(rotation.nrows(), rotation.ncols(), by);
                let mut rotated = Mat::zeros(rotation.ncols(), z.ncols());
                let (by, to) = (rotation.transpose(), rotated.as_mut());
                matmul(to, Accum::Replace, by, z.as_ref(), 1.0, Par::Seq);
                Self::Narrow(rotated)
            }
            Self::Exact(z) => Self::Exact(product(rotation.transpose(), z.as_ref())),
        }
    }

    /// Z_T Z_U^T, for the same rows: b x c.
    pub(crate) fn product(&self, of_u: &Self) -> Mat<f64> {
        match (self, of_u) {
            (Self::Narrow(t), Self::Narrow(u)) => {
                let mut products = Mat::<f32>::zeros(t.nrows(), u.nrows());
                let (u, to) = (u.transpose(), products.as_mut());
                matmul(to, Accum::Replace, t.as_ref(), u, 1.0, Par::Seq);
                Mat::from_fn(t.nrows(), u.ncols(), |i, j| f64::from(products[(i, j)]))
            }
            (t, u) => product(t.exact().as_ref().as_ref(), u.exact().transpose()),
        }
    }

    /// The numbers in f64.
    fn exact(&self) -> Cow<'_, Mat<f64>> {
        match self {
            Self::Narrow(z) => {
                let wide = Mat::from_fn(z.nrows(), z.ncols(), |i, j| f64::from(z[(i, j)]));
                Cow::Owned(wide)
            }
            Self::Exact(z) => Cow::Borrowed(z),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In both precisions: rotated and multiplied they are what the definition says.
    #[test]
    fn rotations_and_products_follow_the_definition() {
        let number = |i: usize, j: usize| (0.7 * i as f64 + 1.3 * j as f64).sin();
        let (z, rotation) = (Mat::from_fn(3, 5, number), Mat::from_fn(3, 2, number));
        let expected = product(rotation.transpose(), z.as_ref());
        let expected = product(expected.as_ref(), z.transpose()) * faer::Scale(4.0);
        for (in_f64, most) in [(false, 1e-5), (true, 1e-14)] {
            let mut images = RowImages::zeros(in_f64, 3, 5);
            for (row, numbers) in z.col_iter().enumerate() {
                images.set(row, 2.0, numbers);
            }
            let rotated = images.rotated(&rotation);
            assert_eq!(rotated.vectors(), 2);
            let found = rotated.product(&images);
            assert!((found - &expected).norm_max() < most, "{in_f64}");
        }
    }
}
