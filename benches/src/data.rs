//! Numbers to compute on: the same in every run, with the spectrum of activations where it matters.

use half::{bf16, f16};
use qera_core::dtype::FloatDtype;
use qera_core::pseudo_random::SplitMix64;

/// A stream of numbers spread evenly over -1..1.
#[derive(Debug, Clone)]
pub struct Noise(SplitMix64);

impl Noise {
    /// Another stream for another seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// The next number, of the upper 24 bits, which f32 holds exactly.
    pub fn number(&mut self) -> f32 {
        let bits = self.0.next_bits() >> 40;
        bits as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// Several of them.
    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }
}

/// Rows whose covariance has the eigenvalues (i + 1)^-1.2 / 3 and mixed eigenvectors: independent
/// channels, turned by two Householder reflections.
#[must_use]
pub fn activations(noise: &mut Noise, rows: usize, in_features: usize) -> Vec<f32> {
    let scales: Vec<f32> = (0..in_features)
        .map(|i| (i as f32 + 1.0).powf(-0.6))
        .collect();
    let mirrors = [noise.numbers(in_features), noise.numbers(in_features)];
    let mut all = noise.numbers(rows * in_features);
    for row in all.chunks_exact_mut(in_features) {
        row.iter_mut().zip(&scales).for_each(|(x, s)| *x *= s);
        for mirror in &mirrors {
            let square: f32 = mirror.iter().map(|v| v * v).sum();
            let along: f32 = mirror.iter().zip(&*row).map(|(v, x)| v * x).sum();
            let twice = 2.0 * along / square;
            row.iter_mut()
                .zip(mirror)
                .for_each(|(x, v)| *x -= twice * v);
        }
    }
    all
}

/// The numbers as a shard stores them.
#[must_use]
pub fn stored_as(numbers: &[f32], dtype: FloatDtype) -> Vec<u8> {
    match dtype {
        FloatDtype::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        FloatDtype::F16 => numbers
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect(),
        FloatDtype::Bf16 => numbers
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Noise, activations};

    #[test]
    fn noise_fills_the_interval() {
        let numbers = Noise::new(1).numbers(10_000);
        assert!(numbers.iter().all(|x| (-1.0..1.0).contains(x)));
        let mean = numbers.iter().sum::<f32>() / 10_000.0;
        let square = numbers.iter().map(|x| x * x).sum::<f32>() / 10_000.0;
        assert!(
            mean.abs() < 0.03 && (square - 1.0 / 3.0).abs() < 0.02,
            "{mean} {square}"
        );
    }

    #[test]
    fn reflections_keep_the_trace() {
        let (rows, m) = (2000, 8);
        let all = activations(&mut Noise::new(2), rows, m);
        let trace = all.iter().map(|x| x * x).sum::<f32>() / rows as f32;
        let wanted: f32 = (0..m).map(|i| (i as f32 + 1.0).powf(-1.2) / 3.0).sum();
        assert!((trace / wanted - 1.0).abs() < 0.05, "{trace} {wanted}");
    }
}
