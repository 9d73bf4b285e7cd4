//! The low-rank term as two factors: balanced, and rounded to the type in which they are written.

use faer::{Mat, MatRef};
use qera_core::dtype::FloatDtype;

use crate::host::dense::product;
use crate::host::factor_type::FactorType;
use crate::host::rounding::narrow;

/// C = A B with A = E V g and B = g^-1 V^T, g balancing each pair of columns to equal norms, so
/// that rounding and the range of f16 are shared evenly.
#[derive(Debug, Clone)]
pub(crate) struct Factors {
    /// m x k.
    pub(crate) a: Mat<f64>,
    /// V g^-1: n x k; B is its transpose.
    pub(crate) b: Mat<f64>,
}

/// The factors with R A and E B^T, from which f is computed.
#[derive(Debug, Clone)]
pub(crate) struct Correction {
    pub(crate) factors: Factors,
    /// R A: m x k; without columns where R is not kept.
    pub(crate) ra: Mat<f64>,
    /// E B^T: m x k.
    pub(crate) eb: Mat<f64>,
}

/// Factors as an engine will read them.
#[derive(Debug, Clone)]
pub(crate) struct Rounded {
    /// Type of the elements.
    pub(crate) dtype: FactorType,
    /// k x m by rows: PEFT's lora_A.
    pub(crate) lora_a: Vec<f32>,
    /// n x k by rows: PEFT's lora_B.
    pub(crate) lora_b: Vec<f32>,
    /// f of the rounded factors; infinite when one of them overflowed.
    pub(crate) error: f64,
}

/// A correction as it was written: A^T [rank, in_features] and B^T [out_features, rank], by rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrittenCorrection {
    /// Rank.
    pub rank: usize,
    /// A^T.
    pub lora_a: Vec<f32>,
    /// B^T.
    pub lora_b: Vec<f32>,
}

impl Correction {
    /// E V V^T for V = `v` times `rotation`, given T = E `v` and R T.
    pub(crate) fn project(
        v: MatRef<'_, f64>,
        t: &Mat<f64>,
        rt: &Mat<f64>,
        rotation: MatRef<'_, f64>,
    ) -> Self {
        let mut a = product(t.as_ref(), rotation);
        let mut b = product(v, rotation);
        let mut ra = if rt.ncols() == 0 {
            Mat::zeros(a.nrows(), 0)
        } else {
            product(rt.as_ref(), rotation)
        };
        let mut eb = a.clone();
        for j in 0..rotation.ncols() {
            let g = a.col(j).norm_l2().sqrt();
            // A direction that E does not reach contributes nothing: exact zeros.
            let (to_a, to_b) = if g > 0.0 { (1.0 / g, g) } else { (0.0, 0.0) };
            scale_column(&mut a, j, to_a);
            scale_column(&mut b, j, to_b);
            scale_column(&mut eb, j, to_b);
            if ra.ncols() > 0 {
                scale_column(&mut ra, j, to_a);
            }
        }
        Self {
            factors: Factors { a, b },
            ra,
            eb,
        }
    }

    /// f = tr(R P P^T) of P = E - A B, given tr(R E E^T).
    pub(crate) fn error(&self, without: f64) -> f64 {
        let Factors { a, b } = &self.factors;
        let a_ra = product(a.transpose(), self.ra.as_ref());
        let b_b = product(b.transpose(), b.as_ref());
        without - 2.0 * inner(&self.ra, &self.eb) + inner(&a_ra, &b_b)
    }

    /// The factors of no correction, for an m x n layer.
    pub(crate) fn none(m: usize, n: usize) -> Self {
        Self {
            factors: Factors {
                a: Mat::zeros(m, 0),
                b: Mat::zeros(n, 0),
            },
            ra: Mat::zeros(m, 0),
            eb: Mat::zeros(m, 0),
        }
    }
}

pub(crate) fn inner(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let column = |j| {
        x.col(j)
            .iter()
            .zip(y.col(j).iter())
            .map(|(x, y)| x * y)
            .sum::<f64>()
    };
    (0..x.ncols()).map(column).sum()
}

fn scale_column(matrix: &mut Mat<f64>, j: usize, by: f64) {
    matrix.col_mut(j).iter_mut().for_each(|x| *x *= by);
}

impl Factors {
    /// Rounds to `dtype`. The loss is not measured yet.
    pub(crate) fn round(&self, dtype: FactorType) -> Rounded {
        let k = self.b.ncols();
        let mut lora_a = Vec::with_capacity(self.a.nrows() * self.a.ncols());
        for column in self.a.col_iter() {
            lora_a.extend(column.iter().map(|x| narrow(*x)));
        }
        let mut lora_b = vec![0.0; self.b.nrows() * k];
        for (j, column) in self.b.col_iter().enumerate() {
            let to = lora_b[j..].iter_mut().step_by(k);
            to.zip(column.iter()).for_each(|(to, x)| *to = narrow(*x));
        }
        let mut rounded = Rounded {
            dtype,
            lora_a,
            lora_b,
            error: f64::INFINITY,
        };
        dtype.round(&mut rounded.lora_a, self.a.nrows());
        dtype.round(&mut rounded.lora_b, self.b.ncols());
        rounded
    }
}

impl Rounded {
    /// The factors as an engine sees them that computes in bf16.
    pub(crate) fn in_bf16(&self) -> Self {
        let dtype = FloatDtype::Bf16;
        let cast = |values: &[f32]| values.iter().map(|x| dtype.round(*x)).collect();
        Self {
            dtype: FactorType::Float(dtype),
            lora_a: cast(&self.lora_a),
            lora_b: cast(&self.lora_b),
            error: f64::INFINITY,
        }
    }

    /// The correction as later evidence needs it.
    pub(crate) fn written(&self, rank: usize) -> WrittenCorrection {
        WrittenCorrection {
            rank,
            lora_a: self.lora_a.clone(),
            lora_b: self.lora_b.clone(),
        }
    }

    /// The factors in f64; `None` where a number overflowed.
    pub(crate) fn factors(&self, m: usize, n: usize) -> Option<Factors> {
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        if !finite(&self.lora_a) || !finite(&self.lora_b) {
            return None;
        }
        let k = self.lora_b.len() / n;
        Some(Factors {
            a: Mat::from_fn(m, k, |i, j| f64::from(self.lora_a[j * m + i])),
            b: Mat::from_fn(n, k, |i, j| f64::from(self.lora_b[i * k + j])),
        })
    }
}
