//! What became of every layer, for the generation that is published.

use crate::pipeline::entries::LayerEntry;
use crate::pipeline::stand_ins::StandIns;
use crate::solve::solution::{Failure, LayerOutcome, LayerSolution};

/// What became of every layer, given its latest solution.
#[must_use]
pub(crate) fn layer_outcomes<'a>(
    latest: &'a [Option<LayerSolution>],
    stand_ins: Option<&'a StandIns<'a>>,
    entries: &[LayerEntry],
) -> Vec<LayerOutcome<'a>> {
    let layers = latest.iter().zip(entries).enumerate();
    let outcome = |(layer, (solution, entry)): (usize, (&'a Option<_>, &LayerEntry))| {
        let stand_in = || stand_ins.and_then(|of| of.of(layer));
        match solution {
            Some(solution) => LayerOutcome::Solved(solution),
            None if entry.failed == Some(Failure::Harmful) => LayerOutcome::Failed,
            None => match stand_in() {
                Some(solution) => LayerOutcome::Imatrix(solution),
                None if entry.failed.is_some() => LayerOutcome::Failed,
                None if entry.is_fed() => LayerOutcome::Waiting,
                None => LayerOutcome::Starved,
            },
        }
    };
    layers.map(outcome).collect()
}
