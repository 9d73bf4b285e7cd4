//! The given W~ of a layer as the manifest and the plan describe it.

use serde::Serialize;

use crate::weights::decode_check::DecodeCheck;

/// The description of a given W~.
#[derive(Debug, Serialize)]
pub(crate) struct ReadTensor {
    /// The name of the tensor in the file.
    pub(crate) tensor: String,
    /// The format: ggml's name of the type, or bits, group and scales of a packed weight.
    #[serde(rename = "type")]
    pub(crate) stored_in: String,
    /// How its zero points are read, where there are two readings: the one nearer to W.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zero_points: Option<&'static str>,
    /// How much it differs from W.
    #[serde(flatten)]
    pub(crate) check: DecodeCheck,
}

impl ReadTensor {
    /// The heading of the columns of [`row`](Self::row).
    #[must_use]
    pub(crate) fn heading() -> String {
        format!(
            "{:<52} {:>24} {:>12} {:>12}",
            "tensor of the quantized file", "type", "rel. error", "correlation"
        )
    }

    /// A row of the plan's table.
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
