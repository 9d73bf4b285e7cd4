//! Products of a panel with columns of a large matrix. A panel is as many vectors as a tile has
//! lanes; rounding and descent need such products again and again while the panel changes.
//!
//! The panel lies as a tile needs it, lane by lane for each row of the matrix, so that nothing is
//! packed. Sums go to f64 every [`SUM_ROWS`](super::SUM_ROWS) rows. Cost: 2 depth lanes flops a
//! column.

use crate::host::kernels::micro::TILE_MAX;
use crate::host::kernels::products::Sum;
use crate::host::kernels::{Kernel, SUM_ROWS};

/// Vectors of a panel.
pub(crate) const fn panel_lanes(kernel: Kernel) -> usize {
    kernel.tile().lanes
}

/// Adds the products of a panel's rows with columns of as many numbers: `sums` has the panel's
/// lanes for each column.
pub(crate) fn add_products<'c>(
    kernel: Kernel,
    panel: &[f32],
    column: impl Fn(usize) -> &'c [f32],
    sums: &mut [f64],
) {
    let (lanes, wide) = (kernel.tile().lanes, kernel.tile().columns);
    let count = sums.len() / lanes;
    let mut tile = [0.0_f32; TILE_MAX];
    for (piece, panel) in panel.chunks(SUM_ROWS * lanes).enumerate() {
        let first = piece * SUM_ROWS;
        let rows = first..first + panel.len() / lanes;
        for (group, sums) in sums.chunks_mut(wide * lanes).enumerate() {
            // Where fewer columns are left than a tile has, the last column takes the places of the
            // missing ones.
            let of = |c: usize| &column((group * wide + c).min(count - 1))[rows.clone()];
            f32::tile(kernel, panel, lanes, of, &mut tile);
            kernel.add(&tile[..sums.len()], sums);
        }
    }
}
