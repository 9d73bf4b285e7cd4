//! What is computed on the device and what on the host: by widths and the device's memory alone, so
//! that it is known before a row comes, and does not depend on threads or on who is faster.
//!
//! Half of the memory is for solves, of which one waits until another has left it room. In the
//! other half R of as many sites as fit is kept for the whole run, in the order of the sites.

use qera_gpu::{DeviceFeedback, DeviceOperand, DeviceR, Triangle, shared_bytes};

/// What is worth the way to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Least {
    /// Width from which on rows are summed there.
    pub(crate) in_features: usize,
    /// Numbers of E from which on a layer is solved there.
    pub(crate) numbers: usize,
}

impl Least {
    /// Everything.
    pub(crate) const NONE: Self = Self {
        in_features: 1,
        numbers: 1,
    };
    /// What takes the host longer than the device takes to be asked: a product with a thousand
    /// columns is some microseconds there, and a call is ten.
    pub(crate) const WORTH: Self = Self {
        in_features: 1024,
        numbers: 1 << 20,
    };
}

/// The device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceShares {
    /// For solves.
    pub(crate) solving: u64,
    /// For R of sites, and what folding rows takes beside them.
    pub(crate) summing: u64,
}

impl DeviceShares {
    /// Of so many bytes.
    pub(crate) const fn of(bytes: u64) -> Self {
        Self {
            solving: bytes / 2,
            summing: bytes - bytes / 2,
        }
    }

    /// Both.
    pub(crate) const fn all(&self) -> u64 {
        self.solving + self.summing
    }

    /// Whose R is kept on the device, by the widths of all sites in their order.
    pub(crate) fn summed(&self, least: Least, widths: &[usize]) -> Vec<bool> {
        let large = |&m: &usize| m >= least.in_features;
        // One that has no room even alone takes none from the others.
        let alone = |&m: &usize| Triangle::device_bytes(m) + scratch_bytes(m) <= self.summing;
        let placed = widths.iter().copied().filter(large).filter(alone);
        let widest = placed.max().unwrap_or(0);
        let mut left = self.summing.saturating_sub(scratch_bytes(widest));
        let fits = |m: &usize| {
            let bytes = Triangle::device_bytes(*m);
            let fits = large(m) && *m <= widest && bytes <= left;
            if fits {
                left -= bytes;
            }
            fits
        };
        widths.iter().map(fits).collect()
    }
}

/// A site's layers as they are solved: one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SolvedWidths {
    /// Width of the input.
    pub(crate) in_features: usize,
    /// The widest output.
    pub(crate) out_features: usize,
    /// Whether products with R are taken.
    pub(crate) needs_r: bool,
    /// Whether they are rounded under R, too.
    pub(crate) rounds: bool,
}

impl SolvedWidths {
    /// Whether the widest layer is worth it.
    pub(crate) const fn is_worth(&self, least: Least) -> bool {
        self.in_features.saturating_mul(self.out_features) >= least.numbers
    }

    /// Bytes of a solve on the device, at most: E, R in f32 and in f64, what their products take,
    /// and for rounding the factor of a metric and the errors.
    pub(crate) fn bytes(&self) -> u64 {
        let (m, n) = (self.in_features, self.out_features);
        let of_e = DeviceOperand::device_bytes(m, n);
        let of_r = if self.needs_r {
            DeviceOperand::device_bytes(m, m).saturating_add(DeviceR::device_bytes(m))
        } else {
            0
        };
        let of_rounding = if self.rounds {
            DeviceFeedback::device_bytes(m, n)
        } else {
            0
        };
        let parts = [of_e, of_r, of_rounding, scratch_bytes(m.max(n))];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// Bytes of vectors and panels, where the largest matrix is so wide. What a device takes whatever
/// is computed is taken before its memory is shared out.
pub(crate) const fn scratch_bytes(largest: usize) -> u64 {
    shared_bytes(largest) - shared_bytes(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many sites as fit, in their order; a wide one that does not fit leaves its place to
    /// narrower ones behind it.
    #[test]
    fn sites_are_placed_by_their_widths_alone() {
        let widths = [4096, 11008, 4096, 512, 4096];
        let room = |sites: &[usize]| -> u64 {
            let triangles = sites.iter().map(|m| Triangle::device_bytes(*m));
            let widest = sites.iter().max().unwrap();
            scratch_bytes(*widest) + triangles.sum::<u64>()
        };
        let summed = |summing| {
            let shares = DeviceShares {
                solving: 0,
                summing,
            };
            shares.summed(Least::WORTH, &widths)
        };
        assert_eq!(summed(u64::MAX), [true, true, true, false, true]);
        assert_eq!(
            summed(room(&[4096, 4096])),
            [true, false, true, false, false]
        );
        assert_eq!(
            summed(room(&[4096, 11008, 4096])),
            [true, true, true, false, false]
        );
        // It fits alone, and not beside the first.
        assert_eq!(summed(room(&[11008])), [true, false, true, false, true]);
        assert_eq!(summed(0), [false; 5]);
        let all = DeviceShares::of(u64::MAX).summed(Least::NONE, &widths);
        assert_eq!(all, [true; 5]);
        let shares = DeviceShares::of(1001);
        assert_eq!(shares.all(), 1001);
    }

    #[test]
    fn a_solve_holds_e_and_r_twice() {
        let of = |needs_r| SolvedWidths {
            in_features: 4096,
            out_features: 11008,
            needs_r,
            rounds: false,
        };
        let numbers: u64 = 4096 * 11008;
        assert!(of(false).bytes() >= 4 * numbers);
        // R whole in f32, and packed in f64.
        assert!(of(true).bytes() - of(false).bytes() >= 8 * 4096 * 4096);
        // Rounded, too: the factor of a metric, and the errors.
        let rounded = SolvedWidths {
            rounds: true,
            ..of(true)
        };
        assert!(rounded.bytes() - of(true).bytes() >= 4 * (4096 * 4096 + numbers));
        assert!(of(true).is_worth(Least::WORTH));
        let small = SolvedWidths {
            in_features: 576,
            out_features: 576,
            needs_r: true,
            rounds: false,
        };
        assert!(!small.is_worth(Least::WORTH) && small.is_worth(Least::NONE));
    }
}
