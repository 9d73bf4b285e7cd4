//! Events about W~: a layer was rounded, waits for rows, or keeps a generation from being written.

use core::fmt;

use serde::{Serialize, Serializer};

use crate::weights::frozen::record::{MeasuredRounding, RoundingRecord};

/// W~ of a layer was made, and will not change.
#[derive(Debug, Clone)]
pub(crate) struct LayerRounded<'a> {
    /// Module path.
    pub(crate) layer: &'a str,
    /// How it was made.
    pub(crate) record: RoundingRecord,
}

/// The event's fields for programs.
#[derive(Serialize)]
struct LayerRoundedFields<'a> {
    layer: &'a str,
    rounding: &'static str,
    rank: usize,
    shrinkage: f64,
    rows: u64,
    journal_position: u64,
    error_alone: Option<f64>,
    error_nearest: Option<f64>,
    error_with: Option<f64>,
}

impl Serialize for LayerRounded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { layer, record } = self;
        let fields = LayerRoundedFields {
            layer,
            rounding: record.rounding.name(),
            rank: record.rank,
            shrinkage: record.shrinkage,
            rows: record.rows,
            journal_position: record.journal_position,
            error_alone: record.measured.map(|of| of.error_alone),
            error_nearest: record.measured.map(|of| of.error_nearest),
            error_with: record.measured.map(|of| of.error_with),
        };
        fields.serialize(serializer)
    }
}

impl fmt::Display for LayerRounded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, record } = self;
        let RoundingRecord {
            rounding,
            rank,
            shrinkage,
            rows,
            ..
        } = record;
        let Some(MeasuredRounding {
            error_alone,
            error_nearest,
            error_with,
        }) = record.measured
        else {
            return write!(f, "{layer}: rounded to nearest for good, too few rows came");
        };
        write!(
            f,
            "{layer}: rounded by {} from {rows} rows (shrinkage {shrinkage:.2}",
            rounding.name()
        )?;
        if *rank > 0 {
            write!(f, ", rank {rank}")?;
        }
        write!(
            f,
            "): error of the base alone {error_alone:.3e} (nearest {error_nearest:.3e}), corrected {error_with:.3e}"
        )
    }
}

/// A site waits for more rows before its layers are rounded.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SiteGathering<'a> {
    /// Module path of its first layer.
    pub(crate) site: &'a str,
    /// The number of its layers.
    pub(crate) layers: usize,
    /// Number of rows in R.
    pub(crate) rows: u64,
    /// The number of rows at which they are rounded.
    pub(crate) rounds_at: u64,
}

impl fmt::Display for SiteGathering<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            site,
            layers,
            rows,
            rounds_at,
        } = self;
        write!(
            f,
            "{site}: gathering, {rows} of the {rounds_at} rows that its {layers} layers are rounded from (--round-after)"
        )
    }
}

/// Nothing is published, because layers wait for more rows before they are rounded.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct UnroundedLayers<'a> {
    /// The number of these layers.
    pub(crate) layers: usize,
    /// Module path of the first layer of the site that lacks most rows.
    pub(crate) site: &'a str,
    /// Number of rows in that site's R.
    pub(crate) rows: u64,
    /// The number of rows at which it is rounded.
    pub(crate) rounds_at: u64,
}

impl fmt::Display for UnroundedLayers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layers,
            site,
            rows,
            rounds_at,
        } = self;
        write!(
            f,
            "nothing is published yet: {layers} layers gather rows before they are rounded; {site} has {rows} of {rounds_at} (--round-after)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;
    use crate::settings::rounding::Rounding;

    #[track_caller]
    fn check(event: &Event<'_>, text: &str, json: &str) {
        assert_eq!(event.to_string(), text);
        assert_eq!(serde_json::to_string(event).unwrap(), json);
    }

    fn rounded(measured: Option<MeasuredRounding>) -> Event<'static> {
        Event::Rounded(LayerRounded {
            layer: "a.q_proj",
            record: RoundingRecord {
                rounding: if measured.is_some() {
                    Rounding::Projected
                } else {
                    Rounding::Nearest
                },
                rank: measured.map_or(0, |_| 8),
                shrinkage: 0.25,
                shrinkage_asked: "rule".into(),
                base_share: measured.map(|_| 0.01),
                damping: 0.01,
                grid: "mxint3/32".into(),
                block_size: 32,
                rows: 4000,
                journal_position: 7,
                left_out: Vec::new(),
                blocks_seen: 0,
                measured,
                digest: String::new(),
            },
        })
    }

    #[test]
    fn what_w_is_rounded_to_is_told_alone_beside_nearest_and_corrected() {
        let measured = MeasuredRounding {
            error_alone: 0.03,
            error_nearest: 0.02,
            error_with: 0.004,
        };
        check(
            &rounded(Some(measured)),
            "a.q_proj: rounded by projected from 4000 rows (shrinkage 0.25, rank 8): error of the base alone 3.000e-2 (nearest 2.000e-2), corrected 4.000e-3",
            r#"{"event":"rounded","layer":"a.q_proj","rounding":"projected","rank":8,"shrinkage":0.25,"rows":4000,"journal_position":7,"error_alone":0.03,"error_nearest":0.02,"error_with":0.004}"#,
        );
        check(
            &rounded(None),
            "a.q_proj: rounded to nearest for good, too few rows came",
            r#"{"event":"rounded","layer":"a.q_proj","rounding":"nearest","rank":0,"shrinkage":0.25,"rows":4000,"journal_position":7,"error_alone":null,"error_nearest":null,"error_with":null}"#,
        );
    }

    #[test]
    fn rows_that_are_waited_for_are_told_with_the_option() {
        check(
            &Event::Gathering(SiteGathering {
                site: "a.q_proj",
                layers: 3,
                rows: 300,
                rounds_at: 4096,
            }),
            "a.q_proj: gathering, 300 of the 4096 rows that its 3 layers are rounded from (--round-after)",
            r#"{"event":"gathering","site":"a.q_proj","layers":3,"rows":300,"rounds_at":4096}"#,
        );
        check(
            &Event::Unrounded(UnroundedLayers {
                layers: 5,
                site: "a.q_proj",
                rows: 300,
                rounds_at: 4096,
            }),
            "nothing is published yet: 5 layers gather rows before they are rounded; a.q_proj has 300 of 4096 (--round-after)",
            r#"{"event":"unrounded","layers":5,"site":"a.q_proj","rows":300,"rounds_at":4096}"#,
        );
    }
}
