//! Packed storage of a symmetric matrix.
//!
//! Row `i` of the upper triangle holds the columns `j = i..m`, rows one after the other. Because
//! the matrix is symmetric this is also its lower triangle by columns, so column `i` of a
//! column-major m x m view, from the diagonal down, is copied to row `i` here without a
//! transposition. m (m + 1) / 2 numbers instead of m^2.

/// Says how many numbers the packed triangle of an m x m symmetric matrix has: m (m + 1) / 2.
///
/// The even one of m and m + 1 is halved before the product, so nothing overflows that could be
/// stored.
///
/// ```
/// assert_eq!(qera_core::packed::packed_len(4), 10);
/// ```
#[must_use]
pub const fn packed_len(m: usize) -> usize {
    if m.is_multiple_of(2) {
        m / 2 * (m + 1)
    } else {
        m * m.div_ceil(2)
    }
}

/// Says where row `row` starts, which is where its diagonal element lies: row m - row (row - 1)
/// / 2.
///
/// The element (i, j) with i <= j is at `packed_offset(m, i) + j - i`. `row = m` gives
/// [`packed_len`], the end.
///
/// ```
/// use qera_core::packed::{packed_len, packed_offset};
/// // Rows of 3, 2 and 1 elements.
/// assert_eq!([0, 1, 2, 3].map(|row| packed_offset(3, row)), [0, 3, 5, 6]);
/// assert_eq!(packed_offset(3, 3), packed_len(3));
/// ```
#[must_use]
pub const fn packed_offset(m: usize, row: usize) -> usize {
    // What lies before row `row` is the whole triangle less the triangle of the rows from `row` on.
    packed_len(m) - packed_len(m.saturating_sub(row))
}

/// Goes through the rows of a packed triangle; each begins with its diagonal element.
pub(crate) fn packed_rows(packed: &[f64], m: usize) -> impl Iterator<Item = &[f64]> {
    let mut rest = packed;
    (0..m).map(move |row| {
        let (row, below) = rest.split_at(m - row);
        rest = below;
        row
    })
}
