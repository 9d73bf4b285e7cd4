//! Sums of sizes from headers, which saturate: a sum that is too large stays too large.

/// The sum; at most the largest number.
pub(crate) fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_does_not_wrap() {
        assert_eq!(sum([1, 2].into_iter()), 3);
        assert_eq!(sum([u64::MAX - 1, 1, 2].into_iter()), u64::MAX);
    }
}
