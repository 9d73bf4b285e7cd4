//! Events about layers that are solved from a sketch. They never state f, which only R could tell.

use core::fmt;

use serde::Serialize;

use crate::solve::solution::OptimumBounds;

/// A layer was solved from a sketch of its output errors: f is not measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LayerSketched<'a> {
    /// Module path.
    pub(crate) layer: &'a str,
    /// Rank used; 0 where nothing was corrected.
    pub(crate) rank: usize,
    /// tr(G): the squared output error without a correction, a mean over all rows.
    pub(crate) trace: f64,
    /// The interval in which the smallest error of this rank lies.
    pub(crate) optimum: OptimumBounds,
    /// The output error on the rows of the window without correction, relative to the output.
    pub(crate) window_error_without: f64,
    /// The output error on the rows of the window with the correction as written, relative to the
    /// output.
    pub(crate) window_error_with: f64,
    /// The held-out error with the correction, relative to the error without it; `None` where
    /// nothing was corrected.
    pub(crate) held_out_ratio: Option<f64>,
    /// How far the sketch was shrunk toward the diagonal.
    pub(crate) shrinkage: Option<f64>,
}

impl fmt::Display for LayerSketched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            rank,
            trace,
            optimum: OptimumBounds { least, most },
            window_error_without: without,
            window_error_with: with,
            ..
        } = self;
        if *rank == 0 {
            return write!(f, "{layer}: nothing to correct");
        }
        write!(
            f,
            "{layer}: on the window's rows {without:.3e} -> {with:.3e} (rank {rank}"
        )?;
        if let Some(a) = self.shrinkage {
            write!(f, ", shrinkage {a:.2}")?;
        }
        if let Some(ratio) = self.held_out_ratio {
            write!(f, ", held-out x{ratio:.3}")?;
        }
        let share = |part: f64| if *trace > 0.0 { part / trace } else { 0.0 };
        let (least, most) = (share(*least), share(*most));
        write!(f, ", sketched: the smallest is x{least:.3} to x{most:.3})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;

    #[test]
    fn a_sketched_layer_is_told_by_its_window_and_its_bounds() {
        let sketched = |rank| {
            Event::LayerSketched(LayerSketched {
                layer: "a",
                rank,
                trace: 8.0,
                optimum: OptimumBounds {
                    least: 2.0,
                    most: 2.5,
                },
                window_error_without: 0.5,
                window_error_with: 0.25,
                held_out_ratio: Some(0.75),
                shrinkage: Some(0.1),
            })
        };
        assert_eq!(
            sketched(2).to_string(),
            "a: on the window's rows 5.000e-1 -> 2.500e-1 (rank 2, shrinkage 0.10, held-out x0.750, \
             sketched: the smallest is x0.250 to x0.312)"
        );
        assert_eq!(sketched(0).to_string(), "a: nothing to correct");
        let json = serde_json::to_string(&sketched(2)).unwrap();
        assert_eq!(
            json,
            r#"{"event":"layer-sketched","layer":"a","rank":2,"trace":8.0,"optimum":{"least":2.0,"most":2.5},"window_error_without":0.5,"window_error_with":0.25,"held_out_ratio":0.75,"shrinkage":0.1}"#
        );
    }
}
