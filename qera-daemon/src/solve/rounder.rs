//! Rounds the layers of a site: a stand-in, to nearest.

use qera_core::quantize::Levels;

use crate::calibrate::blocks::Block;
use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::kernels::page_vec::PageVec;
use crate::judge::yardstick::power;
use crate::weights::frozen::record::MeasuredRounding;
use crate::weights::site_layers::SiteLayers;

/// lambda over the mean of diag(R_a).
pub(crate) const DAMPING: f64 = 0.01;

/// W~ of a layer.
#[derive(Debug)]
pub(crate) struct RoundedLayer {
    /// By columns: `[out_features, in_features]`.
    pub(crate) values: PageVec<f32>,
    /// Of each block, by rows.
    pub(crate) levels: Vec<Levels>,
    /// What it is worth.
    pub(crate) record: MeasuredRounding,
}

/// What a site was rounded from.
#[derive(Debug)]
pub(crate) struct SiteRounding {
    /// a.
    pub(crate) shrinkage: f64,
    /// Rows that R held.
    pub(crate) rows: u64,
    /// Blocks left out of it.
    pub(crate) left_out: Vec<u64>,
    /// The first block that it has not seen.
    pub(crate) blocks_seen: u64,
}

/// Rounds each layer of a site.
///
/// # Errors
/// What `each` returns; [`Fatal`] naming the layer.
pub(crate) fn round_site(
    layers: &SiteLayers<'_>,
    statistics: &SiteStatistics,
    mut each: impl FnMut(usize, RoundedLayer) -> Result<(), Fatal>,
) -> Result<SiteRounding, Fatal> {
    let m = statistics.in_features;
    let grid = layers.weights.grid();
    for member in 0..layers.count() {
        let mut error = layers.original(member)?;
        let of = |matrix: &[f32]| power(layers.compute, statistics, ColumnMajor::new(matrix, m));
        let output = of(&error).sum();
        let mut values = error.clone();
        let mut levels = Vec::new();
        for row in values.chunks_exact_mut(m) {
            for block in row.chunks_mut(grid.block_size()) {
                let own = grid.candidates(block).first();
                block.iter_mut().for_each(|w| *w = own.nearest(*w));
                levels.push(own);
            }
        }
        error.iter_mut().zip(&*values).for_each(|(w, q)| *w -= q);
        let relative = of(&error).sum() / output;
        let record = MeasuredRounding {
            error_alone: relative,
            error_nearest: relative,
            error_with: relative,
        };
        let rounded = RoundedLayer {
            values,
            levels,
            record,
        };
        each(member, rounded)?;
    }
    let left_out: Vec<&Block> = statistics
        .window
        .blocks()
        .iter()
        .skip(3)
        .step_by(4)
        .collect();
    Ok(SiteRounding {
        shrinkage: 3.0 * m as f64 / (3.0 * m as f64 + statistics.rows as f64),
        rows: statistics.rows
            - left_out
                .iter()
                .map(|block| block.rows() as u64)
                .sum::<u64>(),
        left_out: left_out.iter().map(|block| block.number).collect(),
        blocks_seen: statistics.window.next_whole_block(),
    })
}
