//! What a run with `--until-converged` waits for, while it has nothing to do.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Layers that have not converged, by what they lack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WaitingForConvergence {
    /// Number of layers that are waited for.
    pub(crate) layers: usize,
    /// `--tolerance`.
    pub(crate) tolerance: f64,
    /// Number of layers whose input has no rows.
    pub(crate) starved: usize,
    /// Number of layers whose latest two corrections were not scored on newer rows yet.
    pub(crate) unscored: usize,
    /// Number of layers whose gain may be above the tolerance.
    pub(crate) gaining: usize,
    /// The largest upper limit of these gains.
    pub(crate) gain_upper: Option<f64>,
    /// Number of layers that were scored on too few blocks.
    pub(crate) short_of_blocks: usize,
    /// The smallest number of blocks among these layers.
    pub(crate) blocks: Option<u64>,
    /// The number of blocks that is needed.
    pub(crate) blocks_needed: u64,
    /// Number of layers whose gain was below the tolerance at one solve point; it takes two in a
    /// row.
    pub(crate) below_once: usize,
    /// The next solve point of the layer among them that has one soonest.
    pub(crate) next: Option<NextPoint>,
}

/// The next solve point of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NextPoint {
    /// Number of rows that came.
    pub(crate) rows: u64,
    /// The number of rows at which it is solved.
    pub(crate) point: u64,
}

impl NextPoint {
    /// Number of rows that are missing.
    pub(crate) const fn lacks(&self) -> u64 {
        self.point.saturating_sub(self.rows)
    }
}

impl fmt::Display for WaitingForConvergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layers,
            tolerance,
            blocks_needed,
            ..
        } = self;
        write!(
            f,
            "waiting for {layers} layers to converge (tolerance {}): ",
            Percent(*tolerance)
        )?;
        let mut reasons = Vec::new();
        let mut reason = |count: usize, text: String| {
            if count > 0 {
                reasons.push(format!("{count} {text}"));
            }
        };
        reason(self.starved, "starved".into());
        reason(self.unscored, "not scored on newer rows yet".into());
        let upper = Percent(self.gain_upper.unwrap_or_default());
        reason(self.gaining, format!("with a gain of at most {upper}"));
        let blocks = self.blocks.unwrap_or_default();
        reason(
            self.short_of_blocks,
            format!("scored on {blocks} of {blocks_needed} blocks"),
        );
        reason(
            self.below_once,
            "below the tolerance at one solve point, of two that it takes".into(),
        );
        f.write_str(&reasons.join(", "))?;
        match self.next {
            None => Ok(()),
            Some(next) if next.lacks() == 0 => f.write_str("; next solve point with the next rows"),
            Some(NextPoint { rows, point }) => {
                write!(f, "; next solve point at {point} rows, {rows} came")
            }
        }
    }
}

/// A share as a percentage, with two digits where it is small.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.0;
        if percent < 0.1 {
            write!(f, "{percent:.2e} %")
        } else {
            write!(f, "{} %", (percent * 10.0).round() / 10.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;

    #[test]
    fn every_reason_is_told() {
        let next = |rows| Some(NextPoint { rows, point: 1024 });
        let waiting = WaitingForConvergence {
            layers: 9,
            tolerance: 0.01,
            starved: 1,
            unscored: 3,
            gaining: 2,
            gain_upper: Some(0.018),
            short_of_blocks: 1,
            blocks: Some(4),
            blocks_needed: 8,
            below_once: 2,
            next: next(700),
        };
        assert_eq!(
            waiting.to_string(),
            "waiting for 9 layers to converge (tolerance 1 %): 1 starved, 3 not scored on newer rows yet, 2 with a gain of at most 1.8 %, 1 scored on 4 of 8 blocks, 2 below the tolerance at one solve point, of two that it takes; next solve point at 1024 rows, 700 came"
        );
        let event = Event::Waiting(waiting.clone());
        assert_eq!(event.to_string(), waiting.to_string());
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"event":"waiting","layers":9,"tolerance":0.01,"starved":1,"unscored":3,"gaining":2,"gain_upper":0.018,"short_of_blocks":1,"blocks":4,"blocks_needed":8,"below_once":2,"next":{"rows":700,"point":1024}}"#
        );
        let one = |tolerance, next| WaitingForConvergence {
            layers: 1,
            tolerance,
            unscored: 1,
            next,
            ..WaitingForConvergence::default()
        };
        assert_eq!(
            one(0.0001, next(2000)).to_string(),
            "waiting for 1 layers to converge (tolerance 1.00e-2 %): 1 not scored on newer rows yet; next solve point with the next rows"
        );
        assert_eq!(
            one(0.05, None).to_string(),
            "waiting for 1 layers to converge (tolerance 5 %): 1 not scored on newer rows yet"
        );
    }
}
