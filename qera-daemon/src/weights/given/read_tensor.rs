//! W~ of a layer as it was read, for manifest and plan.

use serde::Serialize;

use crate::weights::decode_check::DecodeCheck;

/// W~ of a layer as it was read.
#[derive(Debug, Serialize)]
pub(crate) struct ReadTensor {
    /// Its name in the file.
    pub(crate) tensor: String,
    /// What it is stored in: ggml's name of its type; bits, group and scales of what is packed.
    #[serde(rename = "type")]
    pub(crate) stored_in: String,
    /// How its zero points are read, where there are two ways: the nearer to W.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zero_points: Option<&'static str>,
    /// How far it is from W.
    #[serde(flatten)]
    pub(crate) check: DecodeCheck,
}

impl ReadTensor {
    /// What stands over the columns of [`row`](Self::row).
    #[must_use]
    pub(crate) fn heading() -> String {
        format!(
            "{:<52} {:>24} {:>12} {:>12}",
            "tensor of the quantized file", "type", "rel. error", "correlation"
        )
    }

    /// A line of a table.
    #[must_use]
    pub(crate) fn row(&self) -> String {
        let Self {
            tensor,
            stored_in,
            zero_points,
            check:
                DecodeCheck {
                    relative_error,
                    correlation,
                    ..
                },
        } = self;
        let zeros = zero_points.map_or(String::new(), |how| format!("  zero points {how}"));
        format!("{tensor:<52} {stored_in:>24} {relative_error:>12.4} {correlation:>12.4}{zeros}")
    }
}
