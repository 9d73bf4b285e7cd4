//! Quantiles of Student's t distribution.
//!
//! # Derivation
//! For nu degrees of freedom and t >= 0 the upper tail is Q(t) = I_x(nu/2, 1/2) / 2 with x = nu /
//! (nu + t^2) and I the regularised incomplete beta function (DLMF 8.17). I_x(a, b) = x^a (1-x)^b
//! / (a B(a, b)) times a continued fraction (DLMF 8.17.22), which converges fast for x < (a + 1) /
//! (a + b + 2); beyond that 1 - I_{1-x}(b, a) is used. With b = 1/2 the only gamma functions that
//! appear are the ratio Gamma(a + 1/2) / Gamma(a): by `tgamma` for a < 40, by its asymptotic
//! series in 1/a from there on (a difference of two `lgamma` would lose log10(a) + 1 digits).
//!
//! The quantile solves Q(t) = q, q being the smaller of p and 1 - p, by Newton's method, with
//! bisection whenever a step leaves the bracket. Bounded: at most 200 steps of at most 10,000
//! terms. The tail is worked with throughout, so small tails keep their relative accuracy. Above nu
//! = 10^5 the normal quantile z is expanded instead, t = z + (z^3 + z) / (4 nu) + ... (Cornish and
//! Fisher; Abramowitz and Stegun 26.7.5), where the first neglected term is below 1e-16 for every q
//! >= 1e-18.
//!
//! # Accuracy
//! Relative error of t below 1e-12 for 1 <= nu <= 10^9 and 1e-10 <= q <= 0.5, tested against closed
//! forms (nu = 1, 2, 4) and printed tables; absolute, 1e-15, near p = 0.5, where t is 0. Cost: a
//! few thousand flops, once for each interval. Source: Lentz, Applied Optics 15 (1976) 668, for the
//! continued fraction; DLMF chapter 8.17.

use core::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

/// From here on the normal quantile is expanded.
const EXPANSION_FROM: f64 = 1.0e5;
const TERMS_MAX: u32 = 10_000;
const STEPS_MAX: u32 = 200;

/// Returns the t below which a Student-t variable stays with probability `probability`.
///
/// Infinite for a probability of 0 or 1; NaN for one outside that range, or when
/// `degrees_of_freedom` is not above 0.
///
/// # Numerics
/// Relative error below 1e-12 (module documentation says where). Antisymmetric: the quantile of 1 -
/// p is minus that of p.
///
/// ```
/// use qera_core::statistics::student_t_quantile;
/// assert!((student_t_quantile(0.975, 7.0) - 2.364_624_251_592_784).abs() < 1e-12);
/// ```
#[must_use]
pub fn student_t_quantile(probability: f64, degrees_of_freedom: f64) -> f64 {
    let nu = degrees_of_freedom;
    if !(0.0..=1.0).contains(&probability) || nu.is_nan() || nu <= 0.0 {
        return f64::NAN;
    }
    let (tail, sign) = if probability < 0.5 {
        (probability, -1.0)
    } else {
        (1.0 - probability, 1.0)
    };
    if tail <= 0.0 {
        return sign * f64::INFINITY;
    }
    if tail >= 0.5 {
        return 0.0;
    }
    let quantile = if nu > EXPANSION_FROM {
        expand(invert(tail, normal_tail, normal_density), nu)
    } else {
        let scale = gamma_ratio(nu / 2.0) / libm::sqrt(nu * PI);
        let density = |t: f64| scale * libm::exp(-(nu + 1.0) / 2.0 * libm::log1p(t * t / nu));
        invert(tail, |t| t_tail(t, nu), density)
    };
    sign * quantile
}

/// Solves `upper_tail(t) = tail` for t > 0 by bracketed Newton steps.
fn invert(tail: f64, upper_tail: impl Fn(f64) -> f64, density: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while upper_tail(high) > tail && high < 1.0e300 {
        low = high;
        high *= 2.0;
    }
    let mut t = low + (high - low) / 2.0;
    for _ in 0..STEPS_MAX {
        let excess = upper_tail(t) - tail;
        if excess > 0.0 {
            low = t;
        } else {
            high = t;
        }
        let step = excess / density(t);
        let newton = t + step;
        let next = if newton > low && newton < high {
            newton
        } else {
            low + (high - low) / 2.0
        };
        let moved = (next - t).abs();
        t = next;
        if moved <= 4.0 * f64::EPSILON * t {
            break;
        }
    }
    t
}

/// Upper tail of Student's t for t >= 0.
fn t_tail(t: f64, nu: f64) -> f64 {
    let square = t * t;
    let (x, rest) = (nu / (nu + square), square / (nu + square));
    let a = nu / 2.0;
    // x^a (1-x)^(1/2) / B(a, 1/2), B(a, 1/2) = sqrt(pi) Gamma(a) / Gamma(a + 1/2); log1p keeps x^a
    // accurate at x near 1.
    let power = libm::exp(-a * libm::log1p(square / nu));
    let front = power * libm::sqrt(rest) * gamma_ratio(a) / libm::sqrt(PI);
    if x < (a + 1.0) / (a + 2.5) {
        front * beta_fraction(a, 0.5, x) / a / 2.0
    } else {
        0.5 - front * beta_fraction(0.5, a, rest)
    }
}

/// The continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22).
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const SMALLEST: f64 = 1.0e-300;
    let away_from_zero = |value: f64| {
        if value.abs() < SMALLEST {
            SMALLEST
        } else {
            value
        }
    };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for term in 1..TERMS_MAX {
        let k = f64::from(term);
        let even = k * (b - k) * x / ((a + 2.0 * k - 1.0) * (a + 2.0 * k));
        d = 1.0 / away_from_zero(1.0 + even * d);
        c = away_from_zero(1.0 + even / c);
        fraction *= c * d;
        let odd = -(a + k) * (a + b + k) * x / ((a + 2.0 * k) * (a + 2.0 * k + 1.0));
        d = 1.0 / away_from_zero(1.0 + odd * d);
        c = away_from_zero(1.0 + odd / c);
        fraction *= c * d;
        if (c * d - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    fraction
}

/// Gamma(a + 1/2) / Gamma(a).
fn gamma_ratio(a: f64) -> f64 {
    if a < 40.0 {
        return libm::tgamma(a + 0.5) / libm::tgamma(a);
    }
    // Tricomi and Erdelyi 1951 (DLMF 5.11.13): coefficients for the shift 1/2; the next term is
    // below 2e-14 a^-1 here.
    let r = 1.0 / a;
    let series = 1.0
        + r * (-1.0 / 8.0
            + r * (1.0 / 128.0
                + r * (5.0 / 1024.0
                    + r * (-21.0 / 32768.0
                        + r * (-399.0 / 262_144.0 + r * (869.0 / 4_194_304.0))))));
    libm::sqrt(a) * series
}

fn normal_tail(z: f64) -> f64 {
    libm::erfc(z * FRAC_1_SQRT_2) / 2.0
}

fn normal_density(z: f64) -> f64 {
    libm::exp(-z * z / 2.0) / (SQRT_2 * libm::sqrt(PI))
}

/// The t quantile from the normal one for many degrees of freedom (Abramowitz and Stegun 26.7.5).
fn expand(z: f64, nu: f64) -> f64 {
    let s = z * z;
    let first = (s + 1.0) / 4.0;
    let second = ((5.0 * s + 16.0) * s + 3.0) / 96.0;
    let third = (((3.0 * s + 19.0) * s + 17.0) * s - 15.0) / 384.0;
    z * (1.0 + (first + (second + third / nu) / nu) / nu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_close(quantile: f64, expected: f64, relative: f64) {
        let allowed = relative * expected.abs() + 1.0e-15;
        assert!(
            (quantile - expected).abs() <= allowed,
            "{quantile:e} is not {expected:e}"
        );
    }

    /// nu = 1: 1 / tan(pi q); nu = 2: (1 - 2q) sqrt(2 / (4 q (1 - q))); nu = 4: the cosine form of
    /// Shaw 2006.
    #[test]
    fn closed_forms() {
        for tail in [
            1e-10, 1e-8, 1e-4, 0.005, 0.025, 0.05, 0.1, 0.25, 0.4, 0.499_999,
        ] {
            assert_close(
                -student_t_quantile(tail, 1.0),
                1.0 / libm::tan(PI * tail),
                1e-12,
            );
            let four = 4.0 * tail * (1.0 - tail);
            let expected = (1.0 - 2.0 * tail) * libm::sqrt(2.0 / four);
            assert_close(-student_t_quantile(tail, 2.0), expected, 1e-12);
            if tail < 0.45 {
                // Nearer to one half the reference itself cancels.
                let cosine = libm::cos(libm::acos(libm::sqrt(four)) / 3.0) / libm::sqrt(four);
                let expected = 2.0 * libm::sqrt(cosine - 1.0);
                assert_close(-student_t_quantile(tail, 4.0), expected, 1e-12);
            }
        }
    }

    /// Printed tables (three decimals) and the first digits of them by any statistics package.
    #[test]
    fn tables() {
        for (p, nu, printed) in [
            (0.975, 1.0, 12.706),
            (0.975, 3.0, 3.182),
            (0.975, 7.0, 2.365),
            (0.975, 10.0, 2.228),
            (0.975, 30.0, 2.042),
            (0.975, 120.0, 1.980),
            (0.95, 5.0, 2.015),
            (0.995, 8.0, 3.355),
            (0.9995, 4.0, 8.610),
            (0.90, 60.0, 1.296),
        ] {
            assert!(
                (student_t_quantile(p, nu) - printed).abs() <= 5.0e-4,
                "p {p}, nu {nu}"
            );
        }
        assert_close(student_t_quantile(0.975, 1e9), 1.959_963_984_540_054, 1e-8);
    }

    #[test]
    fn tail_of_the_quantile_is_the_probability_asked_for() {
        for nu in [1.0, 1.5, 3.0, 9.0, 79.0, 81.0, 1.0e3, 9.9e4] {
            for tail in [1e-10, 1e-6, 1e-3, 0.025, 0.1, 0.4] {
                let t = -student_t_quantile(tail, nu);
                // A relative error d of t changes the tail by density t d; far out that is at most
                // nu d of it.
                assert!(
                    (t_tail(t, nu) / tail - 1.0).abs() < 1e-11,
                    "nu {nu}, tail {tail}"
                );
            }
        }
    }

    /// The two sides of each switch agree: they are different formulas for a smooth function.
    #[test]
    fn formulas_meet() {
        let below = 40.0 - 1e-9;
        let slope = 0.5 / libm::sqrt(40.0);
        assert_close(gamma_ratio(40.0), gamma_ratio(below) + slope * 1e-9, 1e-13);
        for tail in [1e-10, 1e-4, 0.025, 0.3] {
            let (left, right) = (
                student_t_quantile(tail, EXPANSION_FROM),
                student_t_quantile(tail, EXPANSION_FROM * (1.0 + 1e-9)),
            );
            assert_close(left, right, 2e-12);
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by definition")]
    fn edges() {
        assert_eq!(student_t_quantile(0.5, 3.0), 0.0);
        assert_eq!(student_t_quantile(1.0, 3.0), f64::INFINITY);
        assert_eq!(student_t_quantile(0.0, 3.0), f64::NEG_INFINITY);
        assert!(student_t_quantile(1.5, 3.0).is_nan() && student_t_quantile(0.9, 0.0).is_nan());
        assert_eq!(
            student_t_quantile(0.25, 5.0),
            -student_t_quantile(0.75, 5.0)
        );
    }
}
