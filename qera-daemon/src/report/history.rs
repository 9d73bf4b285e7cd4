//! How the generations of a folder got better with the rows that came.

use crate::report::drawing::{DrawingError, Track, TrackPoint, ink, lines};
use crate::report::generation::{ErrorShare, ReportedGeneration, ReportedLayer, mean};

/// A generation among others.
#[derive(Debug)]
pub(crate) struct HistoryPoint {
    /// Its number.
    pub(crate) number: u64,
    /// Rows of the layer that had most of them.
    pub(crate) rows: u64,
    /// Layers that it corrects.
    pub(crate) corrected: usize,
    /// The mean share that it leaves of the error on the rows that it was made from,
    pub(crate) seen: Option<f64>,
    /// on rows that were left out,
    pub(crate) held_out: Option<f64>,
    /// and on rows that came after the correction.
    pub(crate) later: Option<f64>,
}

impl HistoryPoint {
    /// What a manifest says.
    #[must_use]
    pub(crate) fn new(of: &ReportedGeneration) -> Self {
        let corrected = || of.layers.iter().filter(|layer| layer.is_corrected());
        let of_shares = |share: fn(&ReportedLayer) -> Option<ErrorShare>| {
            mean(corrected().filter_map(share).map(|share| share.left))
        };
        Self {
            number: of.generation.unwrap_or_default(),
            rows: of.rows(),
            corrected: of.corrected(),
            seen: mean(corrected().filter_map(ReportedLayer::left)),
            held_out: of_shares(ReportedLayer::held_out),
            later: of_shares(ReportedLayer::on_later_rows),
        }
    }
}

/// The generations as lines over rows; none where they are fewer than two.
///
/// # Errors
/// What the drawing says.
pub(crate) fn drawn(points: &[HistoryPoint]) -> Result<Option<String>, DrawingError> {
    if points.len() < 2 {
        return Ok(None);
    }
    let line = |name, of: fn(&HistoryPoint) -> Option<f64>| Track {
        ink: ink(name),
        points: points
            .iter()
            .filter_map(|point| {
                Some(TrackPoint {
                    rows: point.rows as f64,
                    left: of(point)?,
                })
            })
            .collect(),
    };
    let all = [
        line("with", |point| point.seen),
        line("held-out", |point| point.held_out),
        line("other", |point| point.later),
    ];
    lines(&all).map(Some)
}
