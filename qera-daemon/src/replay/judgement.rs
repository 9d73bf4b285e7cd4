//! Compares replayed figures with those that the manifest reports.
//!
//! The figures can only be equal where they are of the same rows. Equal numbers of rows do not show
//! that: an evaluation is often as long as the calibration. The rows count as the manifest's where
//! their number is the same and either the shards are (by digest), or most such layers have the
//! same output power, which does not depend on the adapter.
//!
//! How closely they must agree: a replayed figure is a mean of squares of f32 products of at most
//! 768 terms, each within 3e-7 of |x| |M|, whose errors average out over outputs and rows, so that
//! it is exact to better than 1e-6 (seen: 4e-9 compared with f64). The manifest's figure is read
//! off R, whose entries are within [`ENTRY_ERROR`] of sqrt(R_ii R_jj); massive channels add what
//! `uncertainty` says. (Seen: 1.4e-6, where bf16 rows are multiplied in bf16.) So the error with
//! the adapter may differ by [`FIGURE`] of itself, by [`ENTRY_ERROR`] of the error without, and by
//! that uncertainty. Below [`BY_ROWS_BELOW`] of the error without, and where the method gathers no
//! R, the manifest's figure is of the window's rows only. Up to 4,096 rows the window holds all; of
//! more it holds at least 3,072, in whole blocks that are drawn evenly. A mean over so many is off
//! by a half only where a few rows have most of the sum. So such figures must agree within
//! [`OF_WINDOW`]. Half a correction, which leaves (without + 3 with) / 4, is thus found if the
//! correction took off more than four fifths. An error below [`BY_ROWS_BELOW`] of that without
//! counts as that large, because of the other rows only R's word is known.

use core::fmt;

use crate::host::kernels::ENTRY_ERROR;
use crate::judge::yardstick::BY_ROWS_BELOW;
use crate::replay::claims::{ClaimedError, ClaimedFigures, ClaimedLayer};
use crate::replay::measure::MeasuredErrors;

/// The relative tolerance of a figure.
const FIGURE: f64 = 1e-4;
/// The relative tolerance of the outputs' power on the same rows.
const POWER: f64 = 3e-5;
/// The factor by which a figure of the window's rows may differ from one of all rows.
pub(crate) const OF_WINDOW: f64 = 2.0;
/// The figure that cannot be read off R where it is small.
const WITH: &str = "error with the adapter";

/// The manifest's figures, and which rows a measurement is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BesideManifest<'a> {
    /// The manifest's claims about the layer.
    pub(crate) said: Option<&'a ClaimedLayer>,
    /// Whether the manifest's figures are of these very rows, if their number is the same.
    pub(crate) same_rows: bool,
    /// Whether every existing row was replayed.
    pub(crate) all_rows: bool,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Agreement {
    /// The manifest has no figure: there is no manifest, or an imatrix stands in for rows.
    NothingSaid,
    /// The manifest's figure is of other rows, or of only some of them.
    OtherRows,
    /// The figure is of the window's rows, which are some of these, and agrees as closely as that
    /// allows.
    RowsOfWindow,
    /// The figure is of the same rows, and agrees.
    Same {
        /// The relative difference of the error with the adapter.
        deviation: f64,
    },
    /// The figure is of the same rows, and differs.
    Differs(Vec<DifferingFigure>),
}

/// A figure that should agree and does not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DifferingFigure {
    what: &'static str,
    replayed: f64,
    said: f64,
}

impl fmt::Display for DifferingFigure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            replayed,
            said,
        } = self;
        write!(
            f,
            "the {what} is {replayed:.6e}, the manifest says {said:.6e}"
        )
    }
}

impl Agreement {
    /// The agreement's name, for people and programs.
    #[must_use]
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::NothingSaid => "nothing-said",
            Self::OtherRows => "other-rows",
            Self::RowsOfWindow => "rows-of-window",
            Self::Same { .. } => "same",
            Self::Differs(_) => "differs",
        }
    }
}

impl BesideManifest<'_> {
    /// Whether as many rows were measured as the manifest's figures are of.
    #[must_use]
    pub(crate) fn is_as_long(&self, measured: &MeasuredErrors) -> bool {
        let rows = self.said.map(|layer| layer.rows);
        self.all_rows && rows == Some(measured.rows as u64)
    }

    /// Whether the outputs have the power that the manifest states.
    #[must_use]
    pub(crate) fn has_power(&self, measured: &MeasuredErrors) -> bool {
        let said = self.said.and_then(ClaimedLayer::figures);
        said.is_some_and(|of| is_near(measured.power, of.power, POWER * of.power))
    }

    /// Compares a measurement with the manifest.
    #[must_use]
    pub(crate) fn verdict(&self, measured: &MeasuredErrors) -> Agreement {
        let said = self.said.and_then(ClaimedLayer::figures);
        let Some(ClaimedFigures {
            error,
            power,
            of_window,
        }) = said
        else {
            return Agreement::NothingSaid;
        };
        if !(self.same_rows && self.is_as_long(measured)) {
            return Agreement::OtherRows;
        }
        let differing = differing(measured, power, &error);
        if differing.is_empty() {
            return Agreement::Same {
                deviation: deviation(measured.with, error.rounded),
            };
        }
        let by_r = !of_window;
        let least = BY_ROWS_BELOW * error.without;
        if by_r && error.rounded >= least {
            return Agreement::Differs(differing);
        }
        let is_far = |figure: &DifferingFigure| {
            (by_r && figure.what != WITH) || !figure.is_within_window(least)
        };
        let far: Vec<_> = differing.into_iter().filter(is_far).collect();
        match far.is_empty() {
            true => Agreement::RowsOfWindow,
            false => Agreement::Differs(far),
        }
    }
}

impl DifferingFigure {
    /// Whether both figures may be means of the same quantity, one over all rows and one over the
    /// window's. A figure below `least` counts as `least`.
    fn is_within_window(&self, least: f64) -> bool {
        let [x, y] = [self.replayed, self.said].map(|figure| figure.max(least));
        x <= OF_WINDOW * y && y <= OF_WINDOW * x
    }
}

/// The figures that do not agree.
fn differing(measured: &MeasuredErrors, power: f64, error: &ClaimedError) -> Vec<DifferingFigure> {
    let with_may = (FIGURE + error.uncertainty.unwrap_or_default()) * error.rounded
        + ENTRY_ERROR * error.without;
    let mut found = Vec::new();
    let mut hold = |what, replayed, said, may| {
        if !is_near(replayed, said, may) {
            found.push(DifferingFigure {
                what,
                replayed,
                said,
            });
        }
    };
    hold("output's power", measured.power, power, FIGURE * power);
    let without_may = FIGURE * error.without;
    let without = "error without the adapter";
    hold(without, measured.without, error.without, without_may);
    hold(WITH, measured.with, error.rounded, with_may);
    found
}

fn is_near(x: f64, y: f64, by: f64) -> bool {
    (x - y).abs() <= by
}

/// |x - y| / y; 0 where both are 0.
fn deviation(x: f64, y: f64) -> f64 {
    match (x - y).abs() {
        0.0 => 0.0,
        difference => difference / y.abs().max(f64::MIN_POSITIVE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MEASURED: MeasuredErrors = MeasuredErrors {
        rows: 100,
        rank: 4,
        power: 10.0,
        without: 2.0,
        with: 1.0,
    };

    fn layer(method: &str, rows: u64, power: f64, without: f64, rounded: f64) -> ClaimedLayer {
        let layer = json!({
            "name": "q", "method": method, "rows": rows, "output_power": power,
            "error": {"without": without, "rounded": rounded, "uncertainty": null},
        });
        serde_json::from_value(layer).unwrap()
    }

    fn beside(said: &ClaimedLayer) -> BesideManifest<'_> {
        BesideManifest {
            said: Some(said),
            same_rows: true,
            all_rows: true,
        }
    }

    fn verdict(said: &ClaimedLayer) -> &'static str {
        beside(said).verdict(&MEASURED).name()
    }

    #[test]
    fn figures_are_held_against_each_other_where_they_are_of_the_same_rows() {
        let same = layer("exact", 100, 10.0, 2.0, 1.0);
        assert_eq!(verdict(&same), "same");
        assert!(beside(&same).has_power(&MEASURED));
        let others = BesideManifest {
            same_rows: false,
            ..beside(&same)
        };
        assert_eq!(others.verdict(&MEASURED), Agreement::OtherRows);
        let some = BesideManifest {
            all_rows: false,
            ..beside(&same)
        };
        assert_eq!(some.verdict(&MEASURED), Agreement::OtherRows);
        assert_eq!(verdict(&layer("exact", 99, 10.0, 2.0, 1.0)), "other-rows");
        let other = layer("exact", 100, 10.01, 2.0, 1.0);
        assert!(!beside(&other).has_power(&MEASURED));
        assert_eq!(verdict(&other), "differs");
        for (without, rounded, expected) in [
            (2.0, 1.0 + 9e-5, "same"),
            (2.0, 1.0 + 2e-4, "differs"),
            (2.0 + 1e-3, 1.0, "differs"),
        ] {
            let said = layer("exact", 100, 10.0, without, rounded);
            assert_eq!(verdict(&said), expected, "{without} {rounded}");
        }
    }

    #[test]
    fn what_the_window_was_asked_for_may_differ() {
        let approx = |rounded| layer("approx", 100, 10.0, 2.0, rounded);
        assert_eq!(verdict(&approx(1.2)), "rows-of-window");
        assert_eq!(verdict(&approx(1.0)), "same");
        let small = MeasuredErrors {
            with: 1e-5,
            ..MEASURED
        };
        let said = layer("exact", 100, 10.0, 2.0, 2e-5);
        assert_eq!(beside(&said).verdict(&small), Agreement::RowsOfWindow);
        // The error without adapter is not excused, because R shows it.
        let without = MeasuredErrors {
            without: 3.0,
            ..small
        };
        assert_eq!(beside(&said).verdict(&without).name(), "differs");
        let power = MeasuredErrors {
            power: 10.1,
            ..small
        };
        assert_eq!(beside(&said).verdict(&power).name(), "differs");
        let nothing = BesideManifest {
            said: None,
            ..beside(&said)
        };
        assert_eq!(nothing.verdict(&MEASURED), Agreement::NothingSaid);
    }

    #[test]
    fn what_the_window_was_asked_for_may_not_differ_by_any_factor() {
        let of = |said: &ClaimedLayer, with| {
            let measured = MeasuredErrors { with, ..MEASURED };
            beside(said).verdict(&measured).name()
        };
        // Of an error of 2 without adapter 1e-6 was left; R cannot tell values up to 2e-4 of it.
        let full = layer("exact", 100, 10.0, 2.0, 2e-6);
        assert_eq!(of(&full, 3.9e-4), "rows-of-window");
        assert_eq!(of(&full, 4.1e-4), "differs");
        assert_eq!(of(&full, 0.5), "differs");
        let full = layer("approx", 100, 10.0, 2.0, 2e-6);
        assert_eq!(of(&full, 3.9e-4), "rows-of-window");
        assert_eq!(of(&full, 4.1e-4), "differs");
        for (power, without, rounded) in [
            (4.9, 2.0, 1.0),
            (20.1, 2.0, 1.0),
            (10.0, 0.9, 1.0),
            (10.0, 4.1, 1.0),
            (10.0, 2.0, 0.49),
            (10.0, 2.0, 2.1),
        ] {
            for method in ["approx", "lqer", "zeroquant-v2"] {
                let said = layer(method, 100, power, without, rounded);
                assert_eq!(verdict(&said), "differs", "{power} {without} {rounded}");
            }
        }
        let near = layer("lqer", 100, 19.0, 3.9, 0.6);
        assert_eq!(verdict(&near), "rows-of-window");
    }

    #[test]
    fn uncertainty_of_r_is_allowed_for() {
        let mut said = layer("exact", 100, 10.0, 2.0, 1.01);
        assert_eq!(verdict(&said), "differs");
        said.error.as_mut().unwrap().uncertainty = Some(0.02);
        assert_eq!(verdict(&said), "same");
    }
}
