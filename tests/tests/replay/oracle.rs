//! What a layer's error is by definition, in f64.

use std::path::Path;

use half::f16;
use qera_tests::reference::from_bf16;
use safetensors::{Dtype, SafeTensors};

/// Rows, each with its weight.
#[derive(Debug, Clone)]
pub(crate) struct WeightedRows {
    pub(crate) values: Vec<f32>,
    pub(crate) weights: Vec<f64>,
}

/// The correction of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Factors {
    /// [rank, in_features].
    pub(crate) a: Vec<f32>,
    /// [out_features, rank].
    pub(crate) b: Vec<f32>,
    pub(crate) scale: f64,
}

/// Means over rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) power: f64,
    pub(crate) without: f64,
    pub(crate) with: f64,
}

impl WeightedRows {
    /// All of weight 1.
    pub(crate) fn plain(values: Vec<f32>, in_features: usize) -> Self {
        let weights = vec![1.0; values.len() / in_features];
        Self { values, weights }
    }

    /// The mean of |x M|^2 by weight; M is [out_features, in_features].
    fn mean_power(&self, matrix: &[f64]) -> f64 {
        let m = self.values.len() / self.weights.len();
        let (mut sum, mut weight) = (0.0, 0.0);
        for (row, w) in self.values.chunks(m).zip(&self.weights) {
            let outputs = matrix.chunks(m).map(|of_output| {
                let products = row.iter().zip(of_output);
                products.map(|(x, p)| f64::from(*x) * p).sum::<f64>()
            });
            sum += w * outputs.map(|y| y * y).sum::<f64>();
            weight += w;
        }
        sum / weight
    }

    /// The three figures of a layer; weights are [out_features, in_features].
    pub(crate) fn expected(
        &self,
        weight: &[f32],
        quantized: &[f32],
        factors: &Factors,
    ) -> Expected {
        let m = self.values.len() / self.weights.len();
        let rank = factors.a.len() / m;
        let wide = |of: &[f32]| of.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (w, q) = (wide(weight), wide(quantized));
        let error: Vec<f64> = w.iter().zip(&q).map(|(w, q)| w - q).collect();
        let rest = error.iter().enumerate().map(|(at, e)| {
            let (output, input) = (at / m, at % m);
            let terms = (0..rank).map(|k| {
                f64::from(factors.a[k * m + input]) * f64::from(factors.b[output * rank + k])
            });
            e - factors.scale * terms.sum::<f64>()
        });
        let rest: Vec<f64> = rest.collect();
        Expected {
            power: self.mean_power(&w),
            without: self.mean_power(&error),
            with: self.mean_power(&rest),
        }
    }
}

/// A tensor of a safetensors file as numbers.
pub(crate) fn numbers(file: &Path, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => {
            let words = data.chunks_exact(4);
            words
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect()
        }
        Dtype::F16 => {
            let words = data.chunks_exact(2);
            words
                .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect()
        }
        Dtype::BF16 => from_bf16(data),
        other => panic!("{name} is {other:?}"),
    }
}

/// The factors of a module in a PEFT adapter.
pub(crate) fn peft_factors(adapter: &Path, module: &str, scale: f64) -> Factors {
    let file = adapter.join("adapter_model.safetensors");
    let of = |factor| {
        numbers(
            &file,
            &format!("base_model.model.{module}.lora_{factor}.weight"),
        )
    };
    Factors {
        a: of('A'),
        b: of('B'),
        scale,
    }
}
