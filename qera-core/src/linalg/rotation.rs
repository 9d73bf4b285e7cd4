//! The plane rotation that both Jacobi routines are made of.

use nalgebra::DMatrixViewMut;

/// Sweeps after which the Jacobi routines give up unless the caller says otherwise. Cyclic Jacobi
/// converges quadratically; 6 to 10 sweeps are usual up to a thousand columns, so 40 is reached
/// only by broken input.
pub const JACOBI_MAX_SWEEPS: usize = 40;

/// A rotation by the smaller angle that makes a symmetric 2 x 2 matrix diagonal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// Tangent of the angle. A rotation moves the tangent times the off-diagonal element from one
    /// diagonal element to the other.
    pub(super) tangent: f64,
    sine: f64,
    /// Sine / (1 + cosine).
    tau: f64,
}

impl Rotation {
    /// The rotation that makes `[[p, g], [g, q]]` diagonal, `g != 0`.
    pub(super) fn diagonalising(p: f64, q: f64, g: f64) -> Self {
        let tangent = small_tangent(p, q, g);
        let cosine = 1.0 / libm::sqrt(1.0 + tangent * tangent);
        let sine = tangent * cosine;
        Self {
            tangent,
            sine,
            tau: sine / (1.0 + cosine),
        }
    }

    /// `x <- c x - s y`, `y <- s x + c y`, written as corrections so that a small angle loses
    /// nothing.
    pub(super) fn apply(self, x: &mut [f64], y: &mut [f64]) {
        for (x, y) in x.iter_mut().zip(y.iter_mut()) {
            let (g, h) = (*x, *y);
            *x = g - self.sine * (h + g * self.tau);
            *y = h + self.sine * (g - h * self.tau);
        }
    }

    /// Does to columns `p < q` of a matrix what [`apply`](Self::apply) does to `x` and `y`.
    pub(super) fn apply_to_columns(self, matrix: &mut DMatrixViewMut<'_, f64>, p: usize, q: usize) {
        let (mut x, mut y) = matrix.columns_range_pair_mut(p, q);
        self.apply(x.as_mut_slice(), y.as_mut_slice());
    }
}

fn small_tangent(p: f64, q: f64, g: f64) -> f64 {
    let theta = (q - p) / (2.0 * g);
    // Beyond 2^500 the square would overflow, and theta + sqrt(1 + theta^2) is 2 theta to the last
    // bit long before.
    let magnitude = libm::fabs(theta);
    let t = if magnitude > 3.0e150 {
        0.5 / magnitude
    } else {
        1.0 / (magnitude + libm::sqrt(1.0 + theta * theta))
    };
    libm::copysign(t, theta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_makes_the_pair_diagonal() {
        for (p, q, g) in [
            (1.0, 2.0, 0.5),
            (1.0, 1.0, 1e-3),
            (0.0, 1.0, 1e-200),
            (3.0, -2.0, -4.0),
        ] {
            let rotation = Rotation::diagonalising(p, q, g);
            let (t, s) = (rotation.tangent, rotation.sine);
            assert!(t.abs() <= 1.0);
            // Off-diagonal element after the rotation, relative to what it was.
            let c = 1.0 / libm::sqrt(1.0 + t * t);
            let off = (c * c - s * s) * g + c * s * (p - q);
            assert!(
                off.abs() <= 1e-15 * g.abs().max(p.abs() * s.abs()),
                "{p} {q} {g}: {off}"
            );
        }
    }

    #[test]
    fn unit_columns_become_the_cosine_and_sine() {
        let (mut x, mut y) = ([1.0, 0.0], [0.0, 1.0]);
        let rotation = Rotation::diagonalising(1.0, 3.0, 0.75);
        rotation.apply(&mut x, &mut y);
        let c = 1.0 / libm::sqrt(1.0 + rotation.tangent * rotation.tangent);
        let s = rotation.tangent * c;
        for (found, expected) in [(x[0], c), (x[1], -s), (y[0], s), (y[1], c)] {
            assert!((found - expected).abs() < 1e-15, "{x:?} {y:?}");
        }
    }
}
