//! How the generations of a folder improved as rows came.

use crate::report::drawing::{DrawingError, Track, TrackPoint, ink, lines};
use crate::report::generation::{ErrorShare, ReportedGeneration, ReportedLayer, mean};

/// A generation as a point of the history.
#[derive(Debug)]
pub(crate) struct HistoryPoint {
    /// The generation's number.
    pub(crate) number: u64,
    /// Number of rows of the layer that had most.
    pub(crate) rows: u64,
    /// Number of layers that it corrects.
    pub(crate) corrected: usize,
    /// The mean share of the error that it leaves on the rows that it was made from,
    pub(crate) seen: Option<f64>,
    /// on held-out rows,
    pub(crate) held_out: Option<f64>,
    /// and on rows that came after the correction.
    pub(crate) later: Option<f64>,
}

impl HistoryPoint {
    /// The point of a generation with this manifest.
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

/// Draws the generations as lines over numbers of rows; `None` where there are fewer than two.
///
/// # Errors
/// The drawing's error.
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
