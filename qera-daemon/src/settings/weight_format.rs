//! The name of the format in which W~ is stored: made from `--quantizer` and related options, or
//! read from a manifest, from which the same grid can be made again.

use core::fmt;

use qera_core::dtype::FloatDtype;
use qera_core::quantize::{Grid, GridError, Int, Mxint, Q4_0};
use serde::{Deserialize, Serialize};

use crate::error::Fatal;
use crate::settings::options::{Options, QUANTIZERS, SCALE_DTYPES};
use crate::settings::parse::one_of;

/// The default of `--scale-dtype`.
const SCALE_DTYPE: &str = "f16";

/// Names of formats for a given W~, in which each tensor has a type of its own.
const GIVEN: [&str; 4] = ["gguf", "compressed-tensors", "gptq", "awq"];

/// The name of a format: `mxint4/32`, `int4/64/f16`, `int4/64/f16/zero-points`, `q4-0/32`; for a
/// given W~ `gguf`, `compressed-tensors`, `gptq` or `awq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WeightFormat {
    /// The name that `--quantizer` takes.
    #[serde(rename = "quantizer")]
    name: String,
    /// How many neighbours along in_features share an exponent or a scale; 0 where each tensor has
    /// its own number.
    #[serde(default, skip_serializing_if = "is_none")]
    block_size: usize,
    /// The name that `--scale-dtype` takes; only int grids have a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale_dtype: Option<String>,
    /// Whether each block also has a zero point.
    #[serde(default, skip_serializing_if = "is_off")]
    zero_points: bool,
}

/// Why a format has no grid.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FormatError {
    /// No format has this name with these scales.
    Unknown,
    /// W~ is given and not made.
    Given,
    /// q4-0 has only one block size.
    Q4_0BlockSize,
    /// The grid refuses the bits or the block size.
    Grid(GridError),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_none(size: &usize) -> bool {
    *size == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_off(switch: &bool) -> bool {
    !*switch
}

impl WeightFormat {
    /// Checks the options that make up the format.
    ///
    /// # Errors
    /// [`Fatal::Usage`], also for an option that does nothing with this quantizer.
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        let name = one_of("quantizer", options.quantizer.as_deref(), &QUANTIZERS)?;
        let has_scales = name.starts_with("int");
        let zero_points = options.zero_points.unwrap_or_default();
        let given = [
            ("scale-dtype", options.scale_dtype.is_some()),
            ("zero-points", zero_points),
        ];
        if let Some((option, _)) = given.into_iter().find(|(_, given)| *given)
            && !has_scales
        {
            return Err(Fatal::Usage(format!(
                "--{option}: does nothing with --quantizer {name}, only with int2 to int8"
            )));
        }
        let dtype = options.scale_dtype.as_deref().unwrap_or(SCALE_DTYPE);
        let dtype = one_of("scale-dtype", Some(dtype), &SCALE_DTYPES)?;
        Ok(Self {
            name: name.to_owned(),
            block_size: options.block_size.unwrap_or_default() as usize,
            scale_dtype: has_scales.then(|| dtype.to_owned()),
            zero_points,
        })
    }

    /// The format of this grid.
    #[must_use]
    pub(crate) fn of(grid: Grid) -> Self {
        let int = match grid {
            Grid::Int(int) => Some(int),
            Grid::Mxint(_) | Grid::Q4_0(_) => None,
        };
        let dtype = int.map(|int| int.scale_dtype().name());
        Self {
            name: grid.name().to_string(),
            block_size: grid.block_size(),
            scale_dtype: dtype.map(str::to_owned),
            zero_points: int.is_some_and(|int| int.has_zero_points()),
        }
    }

    /// The format of a given W~, under the name of what it is read from.
    #[must_use]
    pub(crate) fn given(name: &str) -> Self {
        Self {
            name: name.into(),
            block_size: 0,
            scale_dtype: None,
            zero_points: false,
        }
    }

    /// Whether W~ is given and not made.
    #[must_use]
    pub(crate) fn is_given(&self) -> bool {
        GIVEN.contains(&self.name.as_str())
    }

    /// Whether W~ is read from a folder that another program packed.
    #[must_use]
    pub(crate) fn is_packed(&self) -> bool {
        self.is_given() && self.name != GIVEN[0]
    }

    /// The grid of this format.
    ///
    /// # Errors
    /// [`FormatError`] for a format that no `--quantizer` makes.
    pub(crate) fn grid(&self) -> Result<Grid, FormatError> {
        let bits = |kind| self.name.strip_prefix(kind)?.parse().ok();
        let plain = self.scale_dtype.is_none() && !self.zero_points;
        if self.is_given() {
            return Err(FormatError::Given);
        }
        if let Some(bits) = bits("mxint").filter(|_| plain) {
            let mxint = Mxint::new(bits, self.block_size);
            return mxint.map(Grid::Mxint).map_err(FormatError::Grid);
        }
        if let Some(bits) = bits("int") {
            let dtype = self.scale_dtype().ok_or(FormatError::Unknown)?;
            let int = Int::new(bits, self.block_size, dtype).map_err(FormatError::Grid)?;
            return Ok(Grid::Int(if self.zero_points {
                int.with_zero_points()
            } else {
                int
            }));
        }
        if self.name != "q4-0" || !plain {
            return Err(FormatError::Unknown);
        }
        if self.block_size != Q4_0.block_size() {
            return Err(FormatError::Q4_0BlockSize);
        }
        Ok(Grid::Q4_0(Q4_0))
    }

    fn scale_dtype(&self) -> Option<FloatDtype> {
        let name = self.scale_dtype.as_deref()?;
        let mut known = [FloatDtype::F16, FloatDtype::Bf16, FloatDtype::F32].into_iter();
        known.find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.block_size > 0 {
            write!(f, "/{}", self.block_size)?;
        }
        if let Some(dtype) = &self.scale_dtype {
            write!(f, "/{dtype}")?;
        }
        if self.zero_points {
            f.write_str("/zero-points")?;
        }
        Ok(())
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such format"),
            Self::Given => f.write_str("it was given, and each tensor has a type of its own"),
            Self::Q4_0BlockSize => write!(
                f,
                "its blocks have {} elements: leave the option out",
                Q4_0.block_size()
            ),
            Self::Grid(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn format(text: &str) -> WeightFormat {
        WeightFormat::of(Settings::from_toml(text).unwrap().weights.quantizer)
    }

    /// A settings file, and the resulting format.
    const KNOWN: [(&str, &str); 7] = [
        ("", "mxint4/32"),
        ("quantizer = \"mxint2\"\nblock-size = 5", "mxint2/5"),
        ("quantizer = \"int4\"", "int4/32/f16"),
        (
            "quantizer = \"int2\"\nblock-size = 128\nscale-dtype = \"bf16\"",
            "int2/128/bf16",
        ),
        (
            "quantizer = \"int8\"\nscale-dtype = \"f32\"\nzero-points = true",
            "int8/32/f32/zero-points",
        ),
        ("quantizer = \"q4-0\"", "q4-0/32"),
        ("quantizer = \"q4-0\"\nzero-points = false", "q4-0/32"),
    ];

    #[test]
    fn what_options_say_is_said_and_made_again() {
        for (text, said) in KNOWN {
            let settings = Settings::from_toml(text).unwrap();
            let format = format(text);
            assert_eq!(format.to_string(), said, "{text}");
            let kept = serde_json::to_string(&format).unwrap();
            let read: WeightFormat = serde_json::from_str(&kept).unwrap();
            assert_eq!(read.grid(), Ok(settings.weights.quantizer), "{kept}");
        }
        let kept = serde_json::to_string(&format("")).unwrap();
        assert_eq!(kept, r#"{"quantizer":"mxint4","block_size":32}"#);
    }

    #[test]
    fn what_no_option_says_has_no_grid() {
        for (kept, error) in [
            (
                r#""mxint4","block_size":32,"zero_points":true"#,
                FormatError::Unknown,
            ),
            (r#""int4","block_size":32"#, FormatError::Unknown),
            (
                r#""int4","block_size":32,"scale_dtype":"f8""#,
                FormatError::Unknown,
            ),
            (r#""nf4","block_size":64"#, FormatError::Unknown),
            (r#""gguf""#, FormatError::Given),
            (r#""q4-0","block_size":64"#, FormatError::Q4_0BlockSize),
            (
                r#""int4","block_size":16,"scale_dtype":"f16""#,
                FormatError::Grid(GridError::IntBlockSize { block_size: 16 }),
            ),
        ] {
            let text = format!("{{\"quantizer\":{kept}}}");
            let read: WeightFormat = serde_json::from_str(&text).unwrap();
            assert_eq!(read.grid(), Err(error), "{kept}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        for (text, said) in [
            (
                "quantizer = \"int9\"",
                &["--quantizer", "'int9'", "int8", "q4-0"][..],
            ),
            (
                "scale-dtype = \"f16\"",
                &["--scale-dtype", "mxint4", "int2 to int8"],
            ),
            (
                "quantizer = \"q4-0\"\nzero-points = true",
                &["--zero-points", "q4-0"],
            ),
            (
                "quantizer = \"int4\"\nscale-dtype = \"f8\"",
                &["--scale-dtype", "'f8'", "bf16"],
            ),
            (
                "quantizer = \"q4-0\"\nblock-size = 64",
                &["--quantizer q4-0 --block-size 64", "have 32 elements"],
            ),
            (
                "quantizer = \"int4\"\nblock-size = 48",
                &["--quantizer int4 --block-size 48", "128"],
            ),
        ] {
            let refused = Settings::from_toml(text).unwrap_err().to_string();
            for words in said {
                assert!(refused.contains(words), "{text}: {words}: {refused}");
            }
        }
    }
}
