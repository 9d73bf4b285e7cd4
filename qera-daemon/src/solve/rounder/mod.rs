//! Makes W~ of a site's layers, rounded under the R of the site's rows.
//!
//! W~ must not be made from the rows that judge it. So every fourth block of the window is taken
//! out of R first, where enough is left. Only these blocks, and rows that come later, say how good
//! W~ and its adapter are. `layer` rounds one layer, `worth` measures it.

pub(crate) mod layer;
mod worth;

use faer::Mat;

use crate::calibrate::blocks::Block;
use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::dense::product;
use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::lent::LentDevice;
use crate::host::offload::placement::SolvedWidths;
use crate::host::second_moment::SecondMoment;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::judge::training::{extent_of, leaves};
use crate::judge::yardstick::weighted_power;
use crate::settings::rounding::RoundingShrinkage;
use crate::solve::rounder::layer::{RoundedLayer, Rounder, Rounds, difference};
use crate::weights::site_layers::SiteLayers;

/// One block in this many is kept for judging.
const JUDGES: usize = 4;
/// The least share of the weight that the other rows must have, since W~ is made from them alone.
/// Rows without weights always have more: a block has 64 to 1,024 rows.
const LEFT_MIN: f64 = 1.0 / 16.0;
/// The strength of the rule a = 3 m / (3 m + N), N being the effective number of rows. Rounding has
/// more degrees of freedom than a solve and overfits more.
const STRENGTH: f64 = 3.0;
/// The factors by which `auto` multiplies the odds a / (1 - a) of the rule. The rule itself comes
/// first, so that it wins ties.
const ODDS: [f64; 3] = [1.0, 0.5, 2.0];
/// Judging rows that are multiplied at a time.
const JUDGED_ROWS: usize = 64;

/// How the layers of a site were rounded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SiteRounding {
    /// The shrinkage a.
    pub(crate) shrinkage: f64,
    /// The number of rows that R was the mean of.
    pub(crate) rows: u64,
    /// Numbers of the window's blocks that were left out of R.
    pub(crate) left_out: Vec<u64>,
    /// The number of the first block that came after W~ was made.
    pub(crate) blocks_seen: u64,
    /// What a device failed in, in words: the host did it.
    pub(crate) demoted: Vec<String>,
}

/// Rounds every layer of a site, beside a device where it has room, and hands each to `each`, in
/// order.
///
/// # Errors
/// What `each` returns; [`Fatal`] naming the layer: a NaN or infinite weight, products that
/// overflow.
pub(crate) fn round_site(
    layers: &SiteLayers<'_>,
    accelerator: Option<&Accelerator>,
    statistics: &SiteStatistics,
    mut each: impl FnMut(usize, RoundedLayer) -> Result<(), Fatal>,
) -> Result<SiteRounding, Fatal> {
    let Apart { judges, kept } = apart(layers, statistics);
    let packed = kept.packed();
    let packed = packed.ok_or_else(|| layers.failed(0, SolveError::NotGathered))?;
    let device = accelerator.zip(layers.widths(true));
    let device = device.and_then(|(accelerator, widths)| {
        let widths = SolvedWidths {
            rounds: true,
            ..widths
        };
        LentDevice::of(accelerator, widths, Some(packed.values()))
    });
    let beside = SiteLayers {
        compute: layers.compute.beside(device.as_ref()),
        ..*layers
    };
    let mut rounder = Rounder {
        layers: &beside,
        kept: &kept,
        over: statistics.extent().without(&extent_of(&judges)),
        r: PreparedR::new(beside.compute, packed),
        packed,
        shrinkage: 0.0,
    };
    rounder.shrinkage = choose(&mut rounder, &judges)?;
    for member in 0..layers.count() {
        let made = rounder.round(member, Rounds::FULL)?;
        each(member, rounder.measured(made, member)?)?;
    }
    let (shrinkage, rows) = (rounder.shrinkage, rounder.over.rows);
    drop(rounder);
    if let Some(accelerator) = accelerator {
        let served = device.as_ref().is_some_and(LentDevice::served);
        let names = (0..layers.count()).map(|member| layers.layer(member).name.as_str());
        accelerator.worked().rounded(names, served);
    }
    Ok(SiteRounding {
        shrinkage,
        rows,
        left_out: judges.iter().map(|block| block.number).collect(),
        blocks_seen: statistics.window.next_whole_block(),
        demoted: device.map_or_else(Vec::new, LentDevice::failures),
    })
}

/// The blocks that judge W~, and R without their rows.
struct Apart<'s> {
    judges: Vec<&'s Block>,
    kept: SecondMoment,
}

/// Takes every fourth block of the window out of R, where there are four. Nothing is kept for
/// judging where the remaining weight would be too small, or would not stand out of the rounding
/// errors of what was taken out: only rows that come later judge W~ then.
fn apart<'s>(layers: &SiteLayers<'_>, statistics: &'s SiteStatistics) -> Apart<'s> {
    let (r, blocks) = (&statistics.second_moment, statistics.window.blocks());
    let judges: Vec<&Block> = match blocks.len() < JUDGES {
        true => Vec::new(),
        false => blocks.iter().step_by(JUDGES).collect(),
    };
    let stored = judges.iter().map(|block| block.stored());
    let kept = (!judges.is_empty() && leaves(statistics, &judges, LEFT_MIN))
        .then(|| r.less(layers.compute, stored, &statistics.extent()));
    match kept.flatten() {
        Some(kept) => Apart { judges, kept },
        None => Apart {
            judges: Vec::new(),
            kept: r.clone(),
        },
    }
}

/// The shrinkage a: as given, or by the rule, or the one whose short rounding does best on the rows
/// kept for judging.
fn choose(rounder: &mut Rounder<'_>, judges: &[&Block]) -> Result<f64, Fatal> {
    let odds = STRENGTH * rounder.packed.m() as f64 / rounder.over.effective_rows();
    let by_odds = |times: f64| times * odds / (1.0 + times * odds);
    match rounder.layers.settings.rounding.shrinkage {
        RoundingShrinkage::Fixed(a) => return Ok(a),
        RoundingShrinkage::Auto if !judges.is_empty() => {}
        _ => return Ok(by_odds(1.0)),
    }
    let (mut chosen, mut least) = (by_odds(1.0), f64::INFINITY);
    for times in ODDS {
        rounder.shrinkage = by_odds(times);
        let mut error = 0.0;
        for member in 0..rounder.layers.count() {
            error += judged(rounder, member, judges)?;
        }
        if error < least {
            (chosen, least) = (rounder.shrinkage, error);
        }
    }
    Ok(chosen)
}

/// The error of a layer after a short rounding, on rows that W~ was not made from, relative to its
/// output there: ||X (E - A B)||^2 / ||X W||^2.
fn judged(rounder: &Rounder<'_>, member: usize, judges: &[&Block]) -> Result<f64, Fatal> {
    let work = rounder.round(member, Rounds::SHORT)?;
    let refit = rounder.refit(&work, member)?;
    let (compute, m) = (rounder.layers.compute, rounder.packed.m());
    let error = difference(&work.weight, &work.rounded.values);
    let [error, weight] = [&error, &work.weight].map(|x| compute.operand(ColumnMajor::new(x, m)));
    let (a, b) = (&refit.correction.factors.a, &refit.correction.factors.b);
    let [mut with, mut output] = [0.0, 0.0];
    for block in judges {
        let values = block.stored().widened();
        for (piece, rows) in values.chunks(JUDGED_ROWS * m).enumerate() {
            let power = |y: &Mat<f64>| weighted_power(y, block.stored(), piece * JUDGED_ROWS);
            let x = Mat::from_fn(rows.len() / m, m, |i, j| f64::from(rows[i * m + j]));
            let corrected = product(product(x.as_ref(), a.as_ref()).as_ref(), b.transpose());
            with += power(&(error.times(x.as_ref()) - corrected));
            output += power(&weight.times(x.as_ref()));
        }
    }
    Ok(if output > 0.0 { with / output } else { 0.0 })
}
