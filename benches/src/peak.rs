//! The peak of a core, measured: multiply-adds between registers only, enough of them in flight to
//! hide their latency.
//!
//! What the CPU's data sheet says holds for a clock that a shared machine does not keep; this is
//! what the core gives now.
//!
//! | form | a step | flops a step |
//! |---|---|---|
//! | AVX2, f32 | 12 `vfmadd` of 8 f32 | 192 |
//! | AVX-512, f32 | 12 `vfmadd` of 16 f32 | 384 |
//! | AVX512-BF16 | 12 `vdpbf16ps` of 16 pairs | 768 |

#![allow(
    unsafe_code,
    reason = "calls of functions that need a CPU feature, behind a test for it; each block says why it is sound"
)]

use crate::cpu_time::seconds_of;

/// Steps between two looks at the clock: about a millisecond.
const STEPS: usize = 1 << 18;

/// A kind of multiply-add that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak(Form);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "no loop is written for other CPUs")
)]
enum Form {
    Avx2,
    Avx512,
    Avx512Bf16,
}

impl Peak {
    /// Those that can be measured here; none on CPUs that are not x86-64.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        return x86::available().into_iter().map(Self).collect();
        #[cfg(not(target_arch = "x86_64"))]
        return Vec::new();
    }

    /// A name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Form::Avx2 => "AVX2 f32",
            Form::Avx512 => "AVX-512 f32",
            Form::Avx512Bf16 => "AVX512-BF16",
        }
    }

    /// Whether it multiplies bf16.
    #[must_use]
    pub fn is_bf16(self) -> bool {
        self.0 == Form::Avx512Bf16
    }

    /// Flops in a CPU second, by a loop of about `seconds`.
    #[must_use]
    pub fn measure(self, seconds: f64) -> f64 {
        let (mut spent, mut flops) = (0.0, 0.0);
        while spent < seconds {
            spent += seconds_of(|| flops += self.run(STEPS) as f64);
        }
        flops / spent
    }

    /// Flops that were done.
    fn run(self, steps: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        match self.0 {
            // SAFETY: a `Peak` of this form is only made where avx2 and fma were found.
            Form::Avx2 => unsafe { x86::avx2(steps) },
            // SAFETY: a `Peak` of this form is only made where avx512f was found.
            Form::Avx512 => unsafe { x86::avx512(steps) },
            // SAFETY: a `Peak` of this form is only made where avx512f and avx512bf16 were found.
            Form::Avx512Bf16 => unsafe { x86::avx512_bf16(steps) },
        }
        #[cfg(not(target_arch = "x86_64"))]
        return steps;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_set1_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps,
        _mm512_set1_ps,
    };
    use core::hint::black_box;

    use super::Form;

    pub(super) fn available() -> Vec<Form> {
        let mut found = Vec::new();
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(Form::Avx2);
        }
        if is_x86_feature_detected!("avx512f") {
            found.push(Form::Avx512);
            if is_x86_feature_detected!("avx512bf16") {
                found.push(Form::Avx512Bf16);
            }
        }
        found
    }

    /// Sums in flight: two units of latency 4 to 6 need 8 to 12.
    const SUMS: usize = 12;

    // In each: the sums begin at numbers that the compiler cannot see, so that they stay 12
    // different ones, and end where it cannot see what becomes of them, so that none is left out. x
    // <- x / 2 + 1 stays in range for ever.

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(steps: usize) -> usize {
        let half = _mm256_set1_ps(black_box(0.5));
        let one = _mm256_set1_ps(black_box(1.0));
        let mut sums = black_box([one; SUMS]);
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, half, one);
            }
        }
        black_box(sums);
        steps * SUMS * 8 * 2
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(steps: usize) -> usize {
        let half = _mm512_set1_ps(black_box(0.5));
        let one = _mm512_set1_ps(black_box(1.0));
        let mut sums = black_box([one; SUMS]);
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, half, one);
            }
        }
        black_box(sums);
        steps * SUMS * 16 * 2
    }

    /// The sums grow to 2^24 at most, where adding 1 no longer changes an f32.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn avx512_bf16(steps: usize) -> usize {
        let half = _mm512_set1_ps(black_box(0.5));
        let pairs = _mm512_cvtne2ps_pbh(half, half);
        let ones = _mm512_set1_ps(black_box(1.0));
        let ones = _mm512_cvtne2ps_pbh(ones, ones);
        let mut sums = black_box([half; SUMS]);
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, ones);
            }
        }
        black_box(sums);
        steps * SUMS * 16 * 4
    }
}

#[cfg(test)]
mod tests {
    use super::Peak;

    /// A loop that was folded away, or sums that lie in memory, would be far outside. No core does
    /// 4 TFLOP/s.
    #[test]
    fn the_peak_is_that_of_a_core() {
        for peak in Peak::available() {
            let flops = peak.measure(0.002);
            assert!((1e9..4e12).contains(&flops), "{}: {flops:e}", peak.name());
        }
    }
}
